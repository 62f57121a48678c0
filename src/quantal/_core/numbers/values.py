"""A list of numbers in the user's order, and the nearest listed value to any number.

A *code* is the position of a value in the user's list. Everything that needs order
(nearest value, brackets) works on the sorted list and translates back, so that a list
may come in any order. NumPy alone: no framework is needed.
"""

import functools
from collections.abc import Iterable, Iterator, Sequence
from numbers import Real
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantal._core.numbers import presets, series
from quantal._core.numbers.checks import checked_axis, checked_codes, checked_list
from quantal._core.numbers.entropy import entropy
from quantal._core.numbers.k_means import k_means, k_means_of_channels
from quantal._core.numbers.midpoints import exact_midpoints, nearest_codes, rounded_midpoints
from quantal._core.numbers.noise import checked_noise, is_same_noise, noise_config, noise_name


class Values:
    """A `Values` is a list of distinct real numbers, in the user's order.

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
        learnable: Whether training moves the list's entries, too. Then the numbers
            here are where they start, and a parameter's `values` are where they are now.
        axis: The axis of the weight that holds the channels, for lists per channel.
        noise: The standard deviation with which a device writes its values, in the units of
            the list: one number, or one for each value. In training each element then is its
            value plus a normal number of that size, drawn anew in each call, with the gradient
            that it has without; so training comes to weights that bear it. Inference, codes,
            files and exports have the listed values themselves. 0 for none.

    Attributes:
        low: The smallest value, of all channels.
        high: The largest value, of all channels.
        learnable: Whether training moves the entries.
        axis: The axis of the channels.
        noise: The standard deviation of each value, float32 in the shape of `numbers`; None
            without noise.

    Raises:
        TypeError: The list holds booleans, complex numbers, strings or other things
            that are not real numbers.
        ValueError: The list is empty, too long or not one-dimensional, holds NaN,
            infinity, a duplicate, two numbers that are the same in float32, or a
            number beyond float32's normal range; the preset is not known; or the noise is
            negative, not finite or not of the list's length.

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
        self,
        values: "ValuesLike",
        *,
        learnable: bool | None = None,
        axis: int | None = None,
        noise: ArrayLike | None = None,
    ) -> None:
        if isinstance(values, str):
            values = presets.numbers_of(values)
        if isinstance(values, Values):
            numbers = values.numbers
            learnable = values.learnable if learnable is None else learnable
            axis = values.axis if axis is None else axis
            noise = values.noise if noise is None else noise
        else:
            numbers = checked_list(values)
        deviations = checked_noise(noise, numbers.shape)
        self._set(numbers, bool(learnable), checked_axis(-1 if axis is None else axis), deviations)

    def _set(
        self,
        numbers: NDArray[np.float32],
        learnable: bool,
        axis: int,
        noise: NDArray[np.float32] | None,
    ) -> None:
        numbers.flags.writeable = False
        self._numbers = numbers
        self.learnable = learnable
        self.axis = axis
        self.noise = noise
        # Plain floats from the start: compilers that trace Python see constants.
        self.low, self.high = float(numbers.min()), float(numbers.max())

    @classmethod
    def binary(cls) -> Self:
        """Return the list of -1 and 1.

        >>> Values.binary()
        Values([-1.0, 1.0])
        """
        return cls(presets.binary())

    @classmethod
    def ternary(cls) -> Self:
        """Return the list of -1, 0 and 1.

        >>> Values.ternary()
        Values([-1.0, 0.0, 1.0])
        """
        return cls(presets.ternary())

    @classmethod
    def zero_one(cls) -> Self:
        """Return the list of 0 and 1.

        >>> Values.zero_one()
        Values([0.0, 1.0])
        """
        return cls(presets.zero_one())

    @classmethod
    def signed(cls, bits: int, step: float = 1.0) -> Self:
        """Return the 2^bits multiples of `step` from -2^(bits-1) to 2^(bits-1) - 1.

        >>> Values.signed(2, step=0.5)
        Values([-1.0, -0.5, 0.0, 0.5])
        """
        return cls(presets.signed(bits, step))

    @classmethod
    def unsigned(cls, bits: int, step: float = 1.0) -> Self:
        """Return the 2^bits multiples of `step` from 0 to 2^bits - 1.

        >>> Values.unsigned(2)
        Values([0.0, 1.0, 2.0, 3.0])
        """
        return cls(presets.unsigned(bits, step))

    @classmethod
    def powers_of_two(cls, bits: int, largest: float = 1.0) -> Self:
        """Return 0 and plus and minus `largest`, `largest`/2, `largest`/4, ...

        There are 2^bits - 1 values. Multiplying by one is a shift of bits.

        >>> Values.powers_of_two(3)
        Values([-1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0])
        """
        return cls(presets.powers_of_two(bits, largest))

    @classmethod
    def nonzero_powers_of_two(cls, bits: int, largest: float = 1.0) -> Self:
        """Return plus and minus `largest`, `largest`/2, `largest`/4, ..., without 0.

        There are 2^bits values.

        >>> Values.nonzero_powers_of_two(2, largest=4)
        Values([-4.0, -2.0, 2.0, 4.0])
        """
        return cls(presets.nonzero_powers_of_two(bits, largest))

    @classmethod
    def additive_powers_of_two(cls, bits: int, largest: float = 1.0) -> Self:
        """Return sums of powers of two, denser than powers of two at the ends of the range.

        The magnitude's `bits - 1` bits are split into terms of two bits, and one term
        of one bit where the number is odd. A term is 0 or one of its powers of two;
        the powers 1/2, 1/4, 1/8, ... are dealt to the terms in turn. There are
        2^bits - 1 values, scaled so that the largest is `largest`.

        Source: Li, Dong, Wang, "Additive Powers-of-Two Quantization", ICLR 2020, in
        the form of its published code.

        >>> Values.additive_powers_of_two(3, largest=0.5)
        Values([-0.5, -0.25, -0.125, 0.0, 0.125, 0.25, 0.5])
        """
        return cls(presets.additive_powers_of_two(bits, largest))

    @classmethod
    def nf4(cls) -> Self:
        """Return the 16 values of 4-bit NormalFloat: quantiles of a normal number, and zero.

        Source: Dettmers, Pagnoni, Holtzman, Zettlemoyer, "QLoRA", NeurIPS 2023,
        appendix E.

        >>> len(Values.nf4()), Values.nf4().bits
        (16, 4)
        """
        return cls(presets.nf4())

    @classmethod
    def e_series(cls, count: int, low: float = 1.0, high: float = 10.0) -> Self:
        """Return the numbers of an E-series, such as the resistors of E24, in ascending order.

        Args:
            count: 3, 6, 12, 24, 48, 96 or 192: how many numbers there are in a decade.
            low: The smallest number that may be in the list; 1e3 for 1 kOhm.
            high: The largest one, which may be in the list, too.

        Raises:
            ValueError: There is no such series, or it has no number between the limits.

        Source: IEC 60063.

        >>> Values.e_series(6, low=1e3, high=10e3)
        Values([1000.0, 1500.0, 2200.0, 3300.0, 4700.0, 6800.0, 10000.0])
        """
        return cls(series.e_series(count, low, high))

    @classmethod
    def decibels(cls, low: float, high: float, step: float) -> Self:
        """Return factors of an amplitude from `low` to `high` decibels in steps, for attenuators.

        A factor is 10^(decibels / 20).

        >>> Values.decibels(-18, 0, step=6)
        Values([0.12589253, 0.25118864, 0.5011872, 1.0])
        """
        return cls(series.decibels(low, high, step))

    def between(self, low: float, high: float) -> Self:
        """Return the values from `low` to `high`, both included, in this list's order.

        Raises:
            ValueError: No value is between them, or there are lists per channel.

        >>> Values.e_series(12).between(2, 5)
        Values([2.2, 2.7, 3.3, 3.9, 4.7])
        """
        if self.channels is not None:
            raise ValueError(
                f"There are lists for {self.channels} channels. Expected one list, since parts of "
                "several may have different lengths. Take the numbers apart."
            )
        numbers = series.between(self.numbers, low, high)
        noise = None if self.noise is None else self.noise[self.codes(numbers)]
        return type(self)(numbers, learnable=self.learnable, noise=noise)

    @classmethod
    def k_means(
        cls,
        weights: ArrayLike,
        count: int,
        *,
        keep: ArrayLike = (),
        axis: int | None = None,
        learnable: bool = False,
    ) -> Self:
        """Return the `count` values that stand for weights with the least squared error.

        Use it to share weights (deep compression): 16 values fitted to a trained kernel
        are a good start for a learnable list. The result is the optimum, up to the
        resolution of the 2,048 cells into which many weights are gathered.

        Args:
            weights: Real numbers of any shape; not all of them NaN or infinite.
            count: How many values, at least 1. The list is shorter where the weights
                have fewer different numbers.
            keep: Numbers that are in the list in any case, such as `[0]` for a pruned kernel:
                its zeros stay zeros, and the other values are fitted to the rest.
            axis: The axis of the channels that get lists of their own; None for one list. A
                channel with too few different numbers, such as one that is all zero, has
                numbers of the whole weight in addition.
            learnable: Whether training moves the values.

        Returns:
            The values in ascending order.

        Raises:
            ValueError: `count` is below 1 or that of the numbers to keep, or no weight is
                finite.

        Source: the use, Han, Mao, Dally, "Deep Compression", ICLR 2016; the exact
        method, Wang and Song, "Ckmeans.1d.dp", The R Journal 2011.

        >>> Values.k_means([1, 1.2, 5, 5.2, 9], 3)
        Values([1.1, 5.1, 9.0])
        """
        if axis is None:
            return cls(k_means(weights, count, keep), learnable=learnable)
        lists = k_means_of_channels(weights, axis, count, keep)
        return cls(lists.tolist(), axis=axis, learnable=learnable)

    @classmethod
    def get(cls, identifier: "ValuesLike | dict[str, Any]") -> "Values":
        """Return the `Values` that a list, a preset's name, a config or a `Values` stands for.

        Args:
            identifier: What the constructor accepts, or what `get_config` returned. A
                `Values` is returned as it is.

        >>> Values.get([1, -1])
        Values([1.0, -1.0])
        """
        if isinstance(identifier, Values):
            return identifier
        return cls(**identifier) if isinstance(identifier, dict) else cls(identifier)

    @property
    def numbers(self) -> NDArray[np.float32]:
        """The listed numbers in the user's order: float32, shape (K,), read-only.

        Lists per channel have the shape (channels, K) here, and the channels in front in
        `order`, `ascending` and `midpoints`, too.
        """
        return self._numbers

    @property
    def channels(self) -> int | None:
        """The number of channels that have a list of their own; None for one list for all."""
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

        It is the midpoint to the value's lower neighbour, rounded up to float32. Shape
        (K - 1,), ascending. The midpoints of a learnable list, which are computed anew in
        every step, are rounded to nearest.
        """
        if self.learnable:
            return rounded_midpoints(self.ascending)
        return exact_midpoints(self.ascending)

    @property
    def bits(self) -> int:
        """The bits of one code of fixed length: the smallest integer >= log2 K.

        >>> [Values(np.arange(k)).bits for k in (1, 2, 3, 4, 5)]
        [0, 1, 2, 2, 3]
        """
        return (len(self) - 1).bit_length()

    def codes(self, x: ArrayLike) -> NDArray[np.int32]:
        """Return the positions, in the user's list, of the values nearest to `x`.

        Args:
            x: Real numbers of any shape; read as float32.

        Returns:
            int32 codes of the same shape.
        """
        x = np.asarray(x, np.float32)
        if self.channels is None:
            return nearest_codes(self.order, self.midpoints, x)
        rows = self._channels_first(x)
        codes = [nearest_codes(*row) for row in zip(self.order, self.midpoints, rows, strict=True)]
        return np.moveaxis(np.stack(codes), 0, self.axis)

    def nearest(self, x: ArrayLike) -> NDArray[np.float32]:
        """Return the listed values nearest to `x`: float32, in the shape of `x`."""
        return self.take(self.codes(x))

    def take(self, codes: ArrayLike) -> NDArray[np.float32]:
        """Return the values at the given codes: float32, in the shape of `codes`.

        Raises:
            TypeError: The codes are not integers.
            ValueError: A code is negative or not below the list's length.

        >>> Values([1, -1, 0.5]).take([2, 0])
        array([0.5, 1. ], dtype=float32)
        """
        codes = checked_codes(codes, len(self))
        if self.channels is None:
            return self._numbers[codes]
        rows = self._channels_first(codes)
        flat = np.take_along_axis(self._numbers, rows.reshape(len(rows), -1), axis=1)
        return np.moveaxis(flat.reshape(rows.shape), 0, self.axis)

    def usage(self, codes: ArrayLike) -> NDArray[np.int64]:
        """Count how often each value of the list occurs: int64, shape (K,)."""
        return np.bincount(checked_codes(codes, len(self)).ravel(), minlength=len(self))

    def entropy(self, codes: ArrayLike) -> float:
        """Return the bits per element that an ideal entropy coder needs for these codes.

        It is Shannon's -sum p log2 p with the observed shares p; without codes it is 0.

        >>> Values("binary").entropy([0, 1, 1, 0])
        1.0
        """
        return entropy(checked_codes(codes, len(self)))

    def tolist(self) -> list[Any]:
        """Return the list as Python floats, each the shortest that reads back the same.

        Lists per channel come as a list of lists.

        >>> Values([0.1, -3]).tolist()
        [0.1, -3.0]
        """
        if self.channels is None:
            return [float(str(number)) for number in self._numbers]
        return [[float(str(number)) for number in row] for row in self._numbers]

    def get_config(self) -> Any:
        """Return what JSON can hold: the numbers, or a dict of the constructor's arguments."""
        noise = {} if self.noise is None else {"noise": noise_config(self.noise)}
        if self.learnable or self.channels is not None or noise:
            config = {"values": self.tolist(), "learnable": self.learnable, "axis": self.axis}
            return {**config, **noise}
        return self.tolist()

    def moved(self, numbers: ArrayLike) -> Self:
        """Return the same list with other numbers, such as those that training came to.

        Unlike in a new list, two numbers may have become equal. Then what lies below
        them goes to the one that is earlier in the user's order, all else to the later.
        """
        moved = type(self).__new__(type(self))
        numbers = np.array(numbers, np.float32)
        # The list of one channel alone is for fitting, which knows no noise.
        noise = self.noise if numbers.shape == self._numbers.shape else None
        moved._set(numbers, self.learnable, self.axis, noise)
        return moved

    def check_channels(self, shape: Sequence[int]) -> None:
        """Refuse a shape that does not have one position for each channel's list.

        Raises:
            ValueError: There are lists per channel, and their axis has another size.
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
            and is_same_noise(self.noise, other.noise)
        )

    def __hash__(self) -> int:
        return hash((self._numbers.tobytes(), self.learnable))

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Copies of NumPy arrays are writeable.
        self.__dict__.update(state)
        self._numbers.flags.writeable = False
        if self.noise is not None:
            self.noise.flags.writeable = False

    def __repr__(self) -> str:
        if self.channels is None and len(self) <= 16:
            noise = "" if self.noise is None else f", noise={noise_config(self.noise)}"
            return f"Values({self.tolist()}{', learnable=True' if self.learnable else ''}{noise})"
        kind = "learnable " if self.learnable else ""
        channels = "" if self.channels is None else f" for each of {self.channels} channels"
        noise = "" if self.noise is None else f", {noise_name(self.noise)}"
        return f"<Values: {len(self)} {kind}from {self.low:g} to {self.high:g}{channels}{noise}>"


ValuesLike = Values | str | Iterable[float] | Iterable[Iterable[float]] | NDArray[Any]
