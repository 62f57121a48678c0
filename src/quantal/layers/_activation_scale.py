"""The scale of an activation starts from the first training batch, and then learns or follows."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from quantal._core.numbers.fitting import mean_magnitude
from quantal._core.numbers.values import Values
from quantal._core.scale import Scale
from quantal._core.scale_state import ScaleState
from quantal._core.tensors.backend import graph
from quantal._core.tensors.constants import Constant
from quantal._core.tensors.projection import Projection
from quantal._core.types import Tensor
from quantal.layers._activation_fit import Batch
from quantal.layers._compiled_loops import is_lost_in_loop

_SLOWEST_RATE = 0.01
"""A running scale is the mean of all batches at first, and then of about the last hundred."""

_SMALLEST = float(np.finfo(np.float32).tiny)
_LARGEST = 1.0 / _SMALLEST
"""A scale and its reciprocal are normal float32 numbers, which every processor keeps."""

AddVariable = Callable[..., keras.Variable]
"""A layer's `add_weight`."""


class ActivationScale:
    """The scale of an activation has its variables here, and what moves them in training.

    Args:
        scale: The method.
        values: The list.
        shape: The scale's shape: () or one that broadcasts over a batch of inputs.
        rank: The rank of the inputs.
        add_variable: The layer's `add_weight`.
        name: The layer's name, for messages.
    """

    def __init__(
        self,
        scale: Scale,
        values: Values,
        shape: tuple[int, ...],
        rank: int,
        add_variable: AddVariable,
        name: str,
    ) -> None:
        def variable(name: str, shape: tuple[int, ...], first: str, trains: bool) -> Any:
            return add_variable(
                name=name,
                shape=shape,
                initializer=first,
                dtype="float32",
                trainable=trains,
                autocast=False,
            )

        self._name, self._shape = name, shape
        self._method = scale.method
        # All that moves in the forward pass is not trainable: Keras's trainer on JAX would lose it.
        self._start = variable("scale_start", shape, "ones", False)
        self._relative = variable("scale", shape, "ones", scale.method == "learned")
        self._batches = variable("scale_batches", (), "zeros", False)
        self._state = ScaleState(scale, values, self._start, self._relative)
        magnitude = mean_magnitude(values)
        if values.channels is not None:
            sizes = [1] * rank
            sizes[values.axis] = values.channels
            magnitude = magnitude.reshape(sizes)
        # Created here, outside any compiler's trace.
        self._magnitude = Constant(float(magnitude) if values.channels is None else magnitude)

    def value(self) -> Tensor:
        """Return the scale: float32 tensor that broadcasts over a batch of inputs, no gradient."""
        return self._state.value()

    def apply(self, value: Tensor, numbers: Tensor, projection: Projection) -> Tensor:
        """Compute `scale * value`, with LSQ's gradient to a learned scale.

        Args:
            value: The estimator's result, with its gradient.
            numbers: The inputs in units of the scale.
            projection: The list.
        """
        # A layer that is called again in the same step moves the start; PyTorch assigns in place.
        start = 1.0 * ops.convert_to_tensor(self._start)
        return self._state.apply(value, numbers, projection, _features(numbers), start)

    def set(self, scale: ArrayLike) -> None:
        """Set the scale, so that the first training batch does not.

        Args:
            scale: A positive number, or numbers that broadcast to the scale's shape.
        """
        try:
            scales = np.broadcast_to(np.asarray(scale, np.float32), self._shape)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"scale is {scale!r}. Expected a positive number, or numbers that broadcast to the "
                f"shape {self._shape}. Give a number for each factor of the layer."
            ) from error
        if not np.all((scales >= _SMALLEST) & (scales <= _LARGEST)):
            raise ValueError(
                f"scale is {scale!r}. Expected positive numbers from {_SMALLEST:.2g} to "
                f"{_LARGEST:.2g}. Give, for example, the largest input divided by the list's "
                "largest value."
            )
        self._state.begin(scales)
        self._batches.assign(1.0)

    def observe(
        self, inputs: Tensor, weights: Tensor, projection: Projection, fits_all: bool = False
    ) -> None:
        """Move the scale by a training batch.

        A batch without a number that says anything, such as one of zeros or an empty one, changes
        nothing. A channel without one starts at the mean of the others.

        Args:
            inputs: The batch: float32.
            weights: How often each input counts: float32 tensor that broadcasts over them.
            projection: The list.
            fits_all: Whether also the fits of later batches count, and not of the first alone.
        """
        if 0 in inputs.shape:
            return
        if is_lost_in_loop(self._start, inputs):
            raise ValueError(
                f"The activation {self._name!r} has scale={self._method!r} and is called in a loop "
                "that JAX compiles, such as that of an LSTM. A batch cannot move its scale there. "
                "Expected a loop in Python, or a scale that stays. Give the recurrent layer "
                "unroll=True, leave out scale= and give a list with a step of its own "
                "(Values.signed(8, step=2**-7)), or set layer.trainable = False after "
                "layer.set_scale(...)."
            )
        rule = _Rule(self._method, self._shape, projection, self._magnitude, fits_all)
        # Called one by one, JAX would compile each loop and branch in it anew.
        is_jax = keras.config.backend() == "jax"
        moved = _graph_of(rule) if is_jax else functools.partial(_moved, rule)
        start, batches = (ops.convert_to_tensor(v) for v in (self._start, self._batches))
        start, batches = moved(ops.stop_gradient(inputs), weights, start, batches)
        self._start.assign(start)
        self._batches.assign(batches)


class _Rule(NamedTuple):
    """A rule says how batches move a scale.

    Attributes:
        method: The scale's method.
        shape: The scale's shape.
        projection: The list.
        magnitude: The mean magnitude of the list's nonzero values.
        fits_all: Whether also the fits of later batches count, and not of the first alone.
    """

    method: str
    shape: tuple[int, ...]
    projection: Projection
    magnitude: Constant
    fits_all: bool


@functools.lru_cache(maxsize=64)
def _graph_of(rule: _Rule) -> Callable[..., tuple[Tensor, Tensor]]:
    return graph(functools.partial(_moved, rule))


def _moved(
    rule: _Rule, inputs: Tensor, weights: Tensor, start: Tensor, batches: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the scale and the count of batches after one more.

    Args:
        rule: How it moves.
        inputs: The batch: float32.
        weights: How often each input counts.
        start: The scale before.
        batches: How many batches it has seen before.
    """
    batch = Batch(inputs, weights, rule.projection, rule.shape)
    is_first = batches < 0.5
    rate: Tensor
    if rule.fits_all and rule.method in ("learned", "least_squares"):
        estimate, rate = batch.fitted(), 1.0 / (batches + 1.0)
    elif rule.method == "learned":
        estimate, rate = ops.cond(is_first, batch.fitted, lambda: start), 1.0
    else:
        estimate = {
            "least_squares": lambda: ops.cond(
                is_first, batch.fitted, lambda: batch.improved(start)
            ),
            "mean_absolute": lambda: batch.mean_absolute(rule.magnitude()),
            "percentile": batch.percentile,
        }[rule.method]()
        rate = ops.maximum(1.0 / (batches + 1.0), _SLOWEST_RATE)
    is_usable = ops.logical_and(estimate >= _SMALLEST, estimate <= _LARGEST)
    shares = ops.cast(is_usable, "float32")
    count = ops.sum(shares)
    mean = ops.sum(ops.where(is_usable, estimate, 0.0)) / ops.maximum(count, 1.0)
    moved = start + rate * (estimate - start)
    # Rounding is not to move what is there already.
    moved = ops.where(is_first, estimate, moved)
    otherwise = ops.where(ops.logical_and(is_first, count > 0), mean, start)
    return ops.where(is_usable, moved, otherwise), batches + ops.cast(count > 0, "float32")


def _features(numbers: Tensor) -> Any:
    """Return how many numbers each sample of a batch has: an integer, or a float32 tensor."""
    sizes = numbers.shape[1:]
    if None not in sizes:
        return int(np.prod(sizes))
    return ops.cast(ops.prod(ops.stack(list(ops.shape(numbers)[1:]))), "float32")
