"""A count of scalars that names their list where Keras's `model.summary()` shows it."""

from typing import Self

from quantal._core.numbers.short_name import short_name
from quantal._core.numbers.values import Values


class ListedCount(int):
    """A listed count is an integer that is shown with the name of a list in Keras's summary.

    Keras formats what `layer.count_params()` returns with thousands separators, and has no other
    place for what a layer of another library is. In every other way it is an integer.

    >>> f"{ListedCount(1200, Values('ternary')):,}", ListedCount(1200, Values("ternary")) + 1
    ('1,200 (ternary, 2 bits)', 1201)
    """

    _list: str

    def __new__(cls, count: int, values: Values) -> Self:
        number = super().__new__(cls, count)
        number._list = f"{short_name(values)}, {values.bits} bit{'s' * (values.bits != 1)}"
        return number

    def __format__(self, form: str) -> str:
        text = super().__format__(form)
        return f"{text} ({self._list})" if form == "," else text
