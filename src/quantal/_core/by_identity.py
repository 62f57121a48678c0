"""A mapping whose keys are compared by identity, not by equality."""

from collections.abc import Iterable, Iterator, MutableMapping
from typing import TypeVar

Value = TypeVar("Value")


class ByIdentity(MutableMapping[object, Value]):
    """A mapping by identity has one entry for each object that is a key.

    Variables and tensors of some backends compare element by element, so a dict or a set
    of them does not work. The keys are kept alive, so an `id` is never used twice.

    Args:
        items: Pairs of key and value to begin with.

    >>> seen = ByIdentity([([1], "first")])
    >>> [1] in seen, len(seen)
    (False, 1)
    """

    def __init__(self, items: Iterable[tuple[object, Value]] = ()) -> None:
        self._items: dict[int, tuple[object, Value]] = {}
        for key, value in items:
            self[key] = value

    @classmethod
    def of_keys(cls, keys: Iterable[object]) -> "ByIdentity[None]":
        """Return a mapping that serves as a set of objects; its values are None."""
        return ByIdentity((key, None) for key in keys)

    def __getitem__(self, key: object) -> Value:
        return self._items[id(key)][1]

    def __setitem__(self, key: object, value: Value) -> None:
        self._items[id(key)] = (key, value)

    def __delitem__(self, key: object) -> None:
        del self._items[id(key)]

    def __contains__(self, key: object) -> bool:
        return id(key) in self._items

    def __iter__(self) -> Iterator[object]:
        return (key for key, _ in self._items.values())

    def __len__(self) -> int:
        return len(self._items)
