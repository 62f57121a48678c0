"""Which values exist: a list of numbers in the user's order, and the nearest one.

NumPy only. A *code* is the position of a value in the user's list. Everything that
needs order (nearest, brackets) works on the sorted list and translates back, so an
unsorted list is as good as a sorted one.
"""

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from numbers import Real
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

LONGEST_LIST = 65_536

_SMALLEST_NORMAL = float(np.finfo(np.float32).smallest_normal)
_LARGEST = float(np.finfo(np.float32).max)


class Values:
    """A list of distinct real numbers, in the user's order.

    Use it to name the values that a parameter may take. A plain list, a tuple or the
    name of a preset is accepted wherever a `Values` is.

    The nearest value to `x` is the last one, in ascending order, whose lower midpoint
    is at most `x`: **on a midpoint the larger value wins**, so 0 is +1 for `[-1, 1]`.
    NaN counts as below every midpoint and gives the smallest value. The list's numbers
    are float32 numbers: 0.1 is the float32 number nearest to 0.1.

    Args:
        values: A list, tuple or one-dimensional array of 1 to 65,536 finite real
            numbers, or the name of a preset: `"binary"`, `"ternary"`, `"zero_one"`,
            `"nf4"`, `"signed:4"`, `"unsigned:4"`, `"powers_of_two:4"`,
            `"nonzero_powers_of_two:4"`, `"additive_powers_of_two:4"` (the number
            behind the colon is the bits per value). -0.0 is 0.0. An array of shape
            (channels, K) gives each channel a list of its own.
        learnable: Whether training moves the list's entries, too: then the numbers
            here are where they start, and a parameter's `values` where they are.
        axis: The axis of the weight that holds the channels, for lists per channel.

    Attributes:
        low: The smallest value, of all channels.
        high: The largest value, of all channels.
        learnable: As given.
        axis: As given.

    Raises:
        TypeError: The list holds booleans, complex numbers, strings or other things
            that are not real numbers.
        ValueError: The list is empty, too long or not one-dimensional, holds NaN,
            infinity, a duplicate, two numbers that are the same in float32, or a
            number beyond float32's normal range; or the preset is not known.

    Example:
    >>> values = Values([1, -1, 0.5, -0.5])
    >>> values.codes([0.9, -0.6, 0.0])
    array([0, 3, 2], dtype=int32)
    >>> values.nearest([0.9, -0.6, 0.0])
    array([ 1. , -0.5,  0.5], dtype=float32)
    >>> values.bits
    2
    """

    def __init__(
        self, values: "ValuesLike", *, learnable: bool | None = None, axis: int | None = None
    ) -> None:
        if isinstance(values, str):
            values = _preset(values)
        if isinstance(values, Values):
            numbers = values.numbers
            learnable = values.learnable if learnable is None else learnable
            axis = values.axis if axis is None else axis
        else:
            numbers = _checked(values)
        self._set(numbers, bool(learnable), _checked_axis(-1 if axis is None else axis))

    def _set(self, numbers: NDArray[np.float32], learnable: bool, axis: int) -> None:
        numbers.flags.writeable = False
        self._numbers = numbers
        self.learnable = learnable
        self.axis = axis
        # Plain floats from the start: compilers that trace Python see constants.
        self.low, self.high = float(numbers.min()), float(numbers.max())

    @classmethod
    def binary(cls) -> Self:
        """-1 and 1.

        >>> Values.binary()
        Values([-1.0, 1.0])
        """
        return cls([-1, 1])

    @classmethod
    def ternary(cls) -> Self:
        """-1, 0 and 1.

        >>> Values.ternary()
        Values([-1.0, 0.0, 1.0])
        """
        return cls([-1, 0, 1])

    @classmethod
    def zero_one(cls) -> Self:
        """0 and 1: the preset `"zero_one"`.

        >>> Values.zero_one() == Values("zero_one")
        True
        """
        return cls([0, 1])

    @classmethod
    def signed(cls, bits: int, step: float = 1.0) -> Self:
        """The 2^bits multiples of `step` from -2^(bits-1) to 2^(bits-1) - 1.

        >>> Values.signed(2, step=0.5)
        Values([-1.0, -0.5, 0.0, 0.5])
        """
        _check_bits("signed", bits, 1)
        half = 2 ** (bits - 1)
        return cls(np.arange(-half, half) * float(step))

    @classmethod
    def unsigned(cls, bits: int, step: float = 1.0) -> Self:
        """The 2^bits multiples of `step` from 0 to 2^bits - 1.

        >>> Values.unsigned(2)
        Values([0.0, 1.0, 2.0, 3.0])
        """
        _check_bits("unsigned", bits, 1)
        return cls(np.arange(2**bits) * float(step))

    @classmethod
    def powers_of_two(cls, bits: int, zero: bool = True, largest: float = 1.0) -> Self:
        """Plus and minus `largest`, `largest`/2, `largest`/4, ..., with zero or without.

        With zero there are 2^bits - 1 values, without it 2^bits.

        >>> Values.powers_of_two(3)
        Values([-1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0])
        >>> Values.powers_of_two(2, zero=False, largest=4)
        Values([-4.0, -2.0, 2.0, 4.0])
        """
        _check_bits("powers_of_two", bits, 2 if zero else 1, 7)
        count = 2 ** (bits - 1) - (1 if zero else 0)
        magnitudes = float(largest) * 2.0 ** -np.arange(count)
        return cls(_mirrored(magnitudes, zero))

    @classmethod
    def additive_powers_of_two(cls, bits: int, largest: float = 1.0) -> Self:
        """Sums of powers of two: denser than powers of two at the ends of the range.

        The magnitude's `bits - 1` bits are split into terms of two bits, and one term
        of one bit where the number is odd. A term is 0 or one of its powers of two;
        the powers 1/2, 1/4, 1/8, ... are dealt to the terms in turn. There are
        2^bits - 1 values, scaled so that the largest is `largest`.

        Source: Li, Dong, Wang, "Additive Powers-of-Two Quantization", ICLR 2020, in
        the form of its published code.

        >>> Values.additive_powers_of_two(3, largest=0.5)
        Values([-0.5, -0.25, -0.125, 0.0, 0.125, 0.25, 0.5])
        """
        _check_bits("additive_powers_of_two", bits, 2, 16)
        pairs, single = divmod(bits - 1, 2)
        terms: list[list[float]] = [[0.0] for _ in range(pairs + single)]
        dealt = [*range(pairs)] * 2 + [*range(pairs, pairs + single)] + [*range(pairs)]
        for exponent, term in enumerate(dealt, start=1):
            terms[term].append(2.0**-exponent)
        sums = functools.reduce(np.add.outer, terms, np.zeros(())).ravel()
        magnitudes = np.sort(sums[sums > 0])
        return cls(_mirrored(magnitudes * (float(largest) / magnitudes[-1]), zero=True))

    @classmethod
    def nf4(cls) -> Self:
        """The 16 values of 4-bit NormalFloat: quantiles of a normal number, and zero.

        Source: Dettmers, Pagnoni, Holtzman, Zettlemoyer, "QLoRA", NeurIPS 2023,
        appendix E.

        >>> len(Values.nf4()), Values.nf4().bits
        (16, 4)
        """
        return cls(_NF4)

    @property
    def numbers(self) -> NDArray[np.float32]:
        """The list in the user's order: float32, shape (K,) or (channels, K), read-only.

        What is derived from it below has the channels in front, too, where there are any.
        """
        return self._numbers

    @property
    def channels(self) -> int | None:
        """How many channels have a list of their own; None for one list for all."""
        return None if self._numbers.ndim == 1 else len(self._numbers)

    @functools.cached_property
    def order(self) -> NDArray[np.int32]:
        """The codes in ascending order of their values: int32, shape (K,)."""
        return np.argsort(self._numbers, axis=-1, kind="stable").astype(np.int32)

    @functools.cached_property
    def ascending(self) -> NDArray[np.float32]:
        """The list sorted: float32, shape (K,)."""
        return np.take_along_axis(self._numbers, self.order, axis=-1)

    @functools.cached_property
    def midpoints(self) -> NDArray[np.float32]:
        """For each value but the smallest, the smallest float32 number nearest to it.

        That is the midpoint to its lower neighbour, rounded up to float32. Shape
        (K - 1,), ascending. A learnable list's midpoints, which are taken anew in every
        step, are rounded to nearest.
        """
        if self.learnable:
            low, high = self.ascending[..., :-1], self.ascending[..., 1:]
            middle = low * np.float32(0.5) + high * np.float32(0.5)
            return np.where(middle > low, middle, high)
        ascending = self.ascending.astype(float)
        below, above = ascending[..., :-1], ascending[..., 1:]
        total = below + above
        # What the sum of two doubles lost to rounding, exactly (Knuth's two-sum).
        shadow = total - below
        lost = (below - (total - shadow)) + (above - shadow)
        middle = (total / 2).astype(np.float32)
        too_low = (middle < total / 2) | ((middle == total / 2) & (lost > 0))
        middle = np.where(too_low, np.nextafter(middle, np.float32(np.inf)), middle)
        # Processors may read numbers below the smallest normal one as zero.
        safe = np.where(middle > 0, np.float32(_SMALLEST_NORMAL), np.float32(0))
        return np.where(np.abs(middle) < _SMALLEST_NORMAL, safe, middle)

    @functools.cached_property
    def gaps(self) -> NDArray[np.float64]:
        """Distances between neighbours in ascending order: float64, shape (K - 1,)."""
        return np.diff(self.ascending.astype(float))

    @property
    def bits(self) -> int:
        """Bits of one code of fixed length: the smallest integer >= log2 K.

        >>> [Values(np.arange(k)).bits for k in (1, 2, 3, 4, 5)]
        [0, 1, 2, 2, 3]
        """
        return (len(self) - 1).bit_length()

    def codes(self, x: ArrayLike) -> NDArray[np.int32]:
        """The positions, in the user's list, of the values nearest to `x`.

        Args:
            x: Real numbers of any shape; read as float32.

        Returns:
            int32 codes of the same shape.
        """
        x = np.asarray(x, np.float32)
        if self.channels is None:
            return _codes(self.order, self.midpoints, x)
        rows = self._channels_first(x)
        found = [_codes(*row) for row in zip(self.order, self.midpoints, rows, strict=True)]
        return np.moveaxis(np.stack(found), 0, self.axis)

    def nearest(self, x: ArrayLike) -> NDArray[np.float32]:
        """The listed values nearest to `x`: float32, the shape of `x`."""
        return self.take(self.codes(x))

    def take(self, codes: ArrayLike) -> NDArray[np.float32]:
        """The values at the given codes: float32, the shape of `codes`.

        Raises:
            TypeError: The codes are not integers.
            ValueError: A code is negative or not below the list's length.

        >>> Values([1, -1, 0.5]).take([2, 0])
        array([0.5, 1. ], dtype=float32)
        """
        codes = self._checked_codes(codes)
        if self.channels is None:
            return self._numbers[codes]
        rows = self._channels_first(codes)
        flat = np.take_along_axis(self._numbers, rows.reshape(len(rows), -1), axis=1)
        return np.moveaxis(flat.reshape(rows.shape), 0, self.axis)

    def usage(self, codes: ArrayLike) -> NDArray[np.int64]:
        """How often each value of the list occurs: int64, shape (K,)."""
        return np.bincount(self._checked_codes(codes).ravel(), minlength=len(self))

    def entropy(self, codes: ArrayLike) -> float:
        """Bits per element that an ideal entropy coder needs for these codes.

        Shannon's -sum p log2 p with the observed shares p; 0 where there is no code.

        >>> Values("binary").entropy([0, 1, 1, 0])
        1.0
        """
        counts = self.usage(codes)
        shares = counts[counts > 0] / max(counts.sum(), 1)
        return float(np.sum(shares * np.log2(1 / shares)))

    def tolist(self) -> list[Any]:
        """The list as Python floats, each the shortest that reads back the same.

        A list of lists where each channel has its own.

        >>> Values([0.1, -3]).tolist()
        [0.1, -3.0]
        """
        if self.channels is None:
            return [float(str(number)) for number in self._numbers]
        return [[float(str(number)) for number in row] for row in self._numbers]

    def to_config(self) -> Any:
        """What JSON can hold: the list, or a dict of the constructor's arguments."""
        if self.learnable or self.channels is not None:
            return {"values": self.tolist(), "learnable": self.learnable, "axis": self.axis}
        return self.tolist()

    @classmethod
    def from_config(cls, config: Any) -> Self:
        """The `Values` that `to_config` described, or of a list as it is."""
        return cls(**config) if isinstance(config, dict) else cls(config)

    def moved(self, numbers: ArrayLike) -> Self:
        """The same list with other numbers, such as those that training came to.

        Unlike in a new list, two of them may have become equal: then what lies below
        them goes to the one that is earlier in the user's order, all else to the later.
        """
        moved = type(self).__new__(type(self))
        moved._set(np.array(numbers, np.float32), self.learnable, self.axis)
        return moved

    def check_channels(self, shape: Sequence[int]) -> None:
        """Refuse a shape that does not have one position for each channel's list.

        Raises:
            ValueError: There are lists per channel, and the shape's axis has another size.
        """
        if self.channels is None:
            return
        rank = len(shape)
        if not -rank <= self.axis < rank or shape[self.axis] != self.channels:
            raise ValueError(
                f"values has lists for {self.channels} channels along axis {self.axis}, but "
                f"the weight has the shape {tuple(shape)}. Expected {self.channels} positions "
                "there. Give one list for each channel of the weight, or another axis."
            )

    def _channels_first(self, x: NDArray[Any]) -> NDArray[Any]:
        self.check_channels(x.shape)
        return np.moveaxis(x, self.axis, 0)

    def _checked_codes(self, codes: ArrayLike) -> NDArray[Any]:
        codes = np.asarray(codes)
        if codes.size == 0:
            return codes.astype(np.int32)
        if codes.dtype.kind not in "iu":
            raise TypeError(
                f"codes are of dtype {codes.dtype}. Codes are positions in the list, "
                "integers. Give integers, or use nearest() to go from numbers to values."
            )
        if codes.min() < 0 or codes.max() >= len(self):
            raise ValueError(
                f"codes go from {codes.min()} to {codes.max()}. The list has "
                f"{len(self)} values, so codes go from 0 to {len(self) - 1}. "
                "Check which list the codes were made for."
            )
        return codes

    def __len__(self) -> int:
        return int(self._numbers.shape[-1])

    def __iter__(self) -> Iterator[Any]:
        return iter(self.tolist())

    def __contains__(self, number: object) -> bool:
        return bool(isinstance(number, Real) and np.any(self._numbers == np.float32(number)))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Values)
            and np.array_equal(self._numbers, other._numbers)
            and self.learnable == other.learnable
            and (self.channels is None or self.axis == other.axis)
        )

    def __hash__(self) -> int:
        return hash((self._numbers.tobytes(), self.learnable))

    def __reduce__(self) -> tuple[Any, ...]:
        # The list alone: what has been derived from it is derived again.
        return _restored, (type(self), np.array(self._numbers), self.learnable, self.axis)

    def __repr__(self) -> str:
        if self.channels is None and len(self) <= 16:
            return f"Values({self.tolist()}{', learnable=True' if self.learnable else ''})"
        kind = "learnable " if self.learnable else ""
        channels = "" if self.channels is None else f" for each of {self.channels} channels"
        return f"<Values: {len(self)} {kind}from {self.low:g} to {self.high:g}{channels}>"


ValuesLike = Values | str | Iterable[float] | Iterable[Iterable[float]] | NDArray[Any]


def _restored(
    kind: type[Values], numbers: NDArray[np.float32], learnable: bool, axis: int
) -> Values:
    restored = kind.__new__(kind)
    restored._set(numbers, learnable, axis)
    return restored


def _codes(
    order: NDArray[np.int32], midpoints: NDArray[np.float32], x: NDArray[np.float32]
) -> NDArray[np.int32]:
    count = np.searchsorted(midpoints, x, side="right")
    return order[np.where(np.isnan(x), 0, count)]


def _checked_axis(axis: Any) -> int:
    if isinstance(axis, bool) or not isinstance(axis, (int, np.integer)):
        raise TypeError(
            f"axis is {axis!r}. Expected an integer, the axis of the weight that holds the "
            "channels. Give -1 for the last one."
        )
    return int(axis)


def _checked(values: ValuesLike) -> NDArray[np.float32]:
    """The user's list as float32, or an error that says what to mend."""
    given = _as_real_array(values)
    if not 1 <= given.shape[-1] <= LONGEST_LIST or not given.size:
        raise ValueError(
            f"values has {given.shape[-1]} entries. A list has 1 to {LONGEST_LIST:,}. "
            "Give at least one number, and merge what lies close together in a longer list."
        )
    _refuse(
        given,
        ~np.isfinite(given),
        "{}. Every listed value must be a finite number. Remove it or put a number in its place.",
    )
    _refuse(
        given,
        (np.abs(given) > _LARGEST) | ((np.abs(given) < _SMALLEST_NORMAL) & (given != 0)),
        "{}, which float32 cannot hold. "
        f"Magnitudes go from {_SMALLEST_NORMAL:.3g} to {_LARGEST:.3g}, or are 0. "
        "Multiply the whole list by a factor and divide the layer's output by it.",
    )
    numbers = given.astype(np.float32) + np.float32(0)  # -0.0 becomes 0.0
    for channel, row in enumerate(np.atleast_2d(numbers)):
        order = np.argsort(row, kind="stable")
        same = np.flatnonzero(np.diff(row[order]) == 0)
        if same.size:
            first, second = (
                int(entry) if numbers.ndim == 1 else (channel, int(entry))
                for entry in sorted(order[same[0] : same[0] + 2])
            )
            fell_together = given[first] != given[second]
            raise ValueError(
                f"values[{_place(first)}] = {given[first]} and values[{_place(second)}] = "
                f"{given[second]} are the same number{' in float32' if fell_together else ''}. "
                "The values of a list must differ. Remove one of them."
            )
    return numbers


def _refuse(given: NDArray[np.float64], wrong: NDArray[np.bool_], words: str) -> None:
    if wrong.any():
        place = tuple(int(axis) for axis in np.argwhere(wrong)[0])
        raise ValueError(f"values[{_place(place)}] is " + words.format(given[place]))


def _place(place: int | tuple[int, ...]) -> str:
    return ", ".join(map(str, place)) if isinstance(place, tuple) else str(place)


def _as_real_array(values: Any) -> NDArray[np.float64]:
    """A list as one dimension, lists per channel as two."""
    if isinstance(values, (set, frozenset, dict)):
        raise TypeError(
            f"values is a {type(values).__name__}, which has no order. A code is a "
            "position in the list, so the order matters. Give a list or a tuple."
        )
    if hasattr(values, "__array__"):
        array = np.asarray(values)
        if array.ndim not in (1, 2):
            raise ValueError(
                f"values has the shape {array.shape}. A list has one dimension, lists for "
                "channels have two. Give one number after another, or a row for each channel."
            )
        if array.dtype.kind not in "iuf" and array.dtype.name != "bfloat16":
            raise TypeError(_not_real("values", f"of dtype {array.dtype}"))
        return array.astype(np.float64)
    if not isinstance(values, Iterable) or isinstance(values, (bytes, bytearray)):
        raise TypeError(
            f"values is {values!r} of type {type(values).__name__}. Expected a list of "
            f"numbers or a preset's name ({', '.join(_PRESETS)}). "
            "For a single value give a list of one."
        )
    entries = list(values)
    if entries and all(isinstance(e, (list, tuple)) or np.ndim(e) == 1 for e in entries):
        rows = [_as_real_array(entry) for entry in entries]
        if len({row.shape for row in rows}) > 1:
            raise ValueError(
                f"values has rows of {', '.join(str(row.size) for row in rows[:8])} entries. "
                "The lists of all channels have the same length. Make them equally long."
            )
        return np.stack(rows)
    for position, entry in enumerate(entries):
        if isinstance(entry, (bool, np.bool_)) or not isinstance(entry, (Real, np.floating)):
            raise TypeError(
                _not_real(f"values[{position}]", f"{entry!r} of type {type(entry).__name__}")
            )
    try:
        return np.array([float(entry) for entry in entries], np.float64)
    except OverflowError as error:
        raise ValueError(
            f"values holds an integer beyond every floating-point range ({error}). "
            f"Magnitudes go up to {_LARGEST:.3g}. Divide the whole list by a factor."
        ) from None


def _not_real(name: str, what: str) -> str:
    return (
        f"{name} is {what}. Listed values are real numbers (integers or floats; not "
        "booleans, complex numbers or text). Convert it, for example True to 1."
    )


def _mirrored(magnitudes: NDArray[np.float64], zero: bool) -> NDArray[np.float64]:
    return np.sort(np.concatenate([-magnitudes, [0.0] if zero else [], magnitudes]))


def _check_bits(name: str, bits: int, fewest: int, most: int = 16) -> None:
    if isinstance(bits, bool) or not isinstance(bits, (int, np.integer)):
        raise TypeError(f"{name}: bits is {bits!r}. Expected an integer. Give, say, 4.")
    if not fewest <= bits <= most:
        raise ValueError(
            f"{name}: bits is {bits}. Expected {fewest} to {most}. Give a number between them."
        )


_NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
    -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip

_PRESETS: dict[str, Callable[..., Values]] = {
    "binary": Values.binary,
    "ternary": Values.ternary,
    "zero_one": Values.zero_one,
    "nf4": Values.nf4,
    "signed:4": Values.signed,
    "unsigned:4": Values.unsigned,
    "powers_of_two:4": Values.powers_of_two,
    "nonzero_powers_of_two:4": functools.partial(Values.powers_of_two, zero=False),
    "additive_powers_of_two:4": Values.additive_powers_of_two,
}


def _preset(name: str) -> Values:
    match = re.fullmatch(r"([a-z0-9_]+)(:[0-9]{1,2})?", name.strip())
    if match:
        word, bits = match.groups()
        if bits and f"{word}:4" in _PRESETS:
            return _PRESETS[f"{word}:4"](int(bits[1:]))
        if not bits and word in _PRESETS:
            return _PRESETS[word]()
    raise ValueError(
        f"values is the name {name!r}. Expected one of {', '.join(_PRESETS)} (4 stands "
        "for the bits per value). For other values give a list of numbers."
    )
