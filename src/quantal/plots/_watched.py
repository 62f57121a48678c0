"""The codes of parameters over the epochs of a run, from a Watch or an array."""

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantal._core.numbers.checks import checked_codes
from quantal._core.numbers.values import Values, ValuesLike


@dataclasses.dataclass(frozen=True)
class WatchedCodes:
    """Watched codes are those of one parameter at the start and after each epoch.

    Attributes:
        path: The parameter's path; empty for an array.
        codes: Integers, (epochs + 1, elements).
        values: The list; None where codes have no name or each channel has its own list.
        elements: The positions of these elements in the flattened parameter, (elements,).
        flips: The share of the parameter's elements that flipped in each epoch, (epochs,).
        names: The names of the elements; empty for none.
    """

    path: str
    codes: NDArray[Any]
    values: Values | None
    elements: NDArray[Any]
    flips: NDArray[np.float64]
    names: tuple[str, ...] = ()

    @property
    def last_flip(self) -> int:
        """The last epoch in which a code changed, from 1; 0 where none did."""
        changed = np.flatnonzero((self.codes[1:] != self.codes[:-1]).any(axis=1))
        return int(changed[-1]) + 1 if changed.size else 0


def watched(watch: Any, values: ValuesLike | None = None) -> dict[str, WatchedCodes]:
    """Return the codes of each parameter of a run by its path.

    Args:
        watch: `quantal.callbacks.Watch` of a run, or an array of codes, (epochs + 1, elements).
        values: The list of an array.

    Raises:
        TypeError: It is something else, or codes are no integers.
        ValueError: There are no codes, the array has another shape, or a code is not in the list.
    """
    if not all(hasattr(watch, name) for name in ("codes", "values", "elements", "flips")):
        return {"": _of_array(watch, values)}
    if not watch.codes:
        raise ValueError(
            "The Watch has no codes. Expected those of a run. Give it to fit: "
            "model.fit(..., callbacks=[watch])."
        )
    if values is not None:
        raise ValueError(
            f"values is {values!r}, and the Watch knows its lists. Expected values with an array "
            "alone. Leave values out."
        )
    lists = watch.values
    return {
        path: WatchedCodes(
            path,
            codes,
            None if lists[path].channels is not None else lists[path],
            watch.elements[path],
            watch.flips[path],
        )
        for path, codes in watch.codes.items()
    }


def _of_array(source: Any, values: ValuesLike | None) -> WatchedCodes:
    try:
        codes = np.asarray(source)
    except ValueError:
        codes = np.asarray(None)
    if codes.dtype.kind not in "biu":
        raise TypeError(
            f"The codes are {source!r} of type {type(source).__name__}. Expected the callback "
            "quantal.callbacks.Watch of a run, or an array of integers (epochs + 1, elements)."
        )
    if codes.ndim != 2 or codes.size == 0:
        raise ValueError(
            f"The codes have the shape {codes.shape}. Expected (epochs + 1, elements), with at "
            "least one of each."
        )
    parsed = None if values is None else Values.get(values)
    if parsed is not None:
        codes = checked_codes(codes, len(parsed))
    flips = (codes[1:] != codes[:-1]).mean(axis=1)
    return WatchedCodes("", codes, parsed, np.arange(codes.shape[1]), flips)
