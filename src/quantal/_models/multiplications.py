"""Count the multiply-accumulates that each weight of a model takes part in, for one sample."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from quantal._core.by_identity import ByIdentity
from quantal._core.keras_internals.interception import calls_replaced, symbolic_outputs
from quantal._core.keras_internals.layers import own_variables
from quantal._core.latent_name import weight_name
from quantal._core.parameter import Parameter
from quantal._models.inputs import symbolic_inputs
from quantal._models.signs import Signs, is_of_signs
from quantal._models.walk import weights_of
from quantal.layers.discrete import Discrete
from quantal.layers.multiplier import LearnableMultiplier

KINDS = ("XNORs", "additions", "shifts", "look-ups", "products")
"""What a multiply-accumulate costs, from cheap to dear; see `kind_of_product`."""
_MOST_LOOKED_UP = 16
"""Tables of so many products fit a register of most processors, which look 4 bits up at once."""

Shape = Sequence[int | None]


def kind_of_product(
    parameter: Parameter | None, axes_of_signs: tuple[int, ...] | None = None
) -> str:
    """Return what a multiply-accumulate with a weight comes down to.

    | kind | the list |
    |---|---|
    | `"XNORs"` | two opposite values, such as ±1, where all inputs are ±1 too: XNOR and popcount |
    | `"additions"` | one magnitude, and maybe 0: inputs are added or subtracted |
    | `"shifts"` | powers of two, up to one common factor, and maybe 0 |
    | `"look-ups"` | at most 16 values: products come from a table, or inputs are added up for each value |
    | `"products"` | any other list, and free weights |

    A common factor takes one product more for each sum, and scales one for each part of a sum that
    has a scale of its own; these are not counted. Where each element has a scale, each term is a
    product.

    Args:
        parameter: The weight's parameter; None for a free weight.
        axes_of_signs: The axes of the weight's outputs where all of its inputs are of two
            opposite values; None where they are not.
    """  # noqa: E501 (a table)
    if parameter is None:
        return "products"
    scale, elements = parameter.scale_state, math.prod(parameter.shape)
    if scale is not None and 1 < math.prod(scale.start.shape) == elements:
        return "products"
    if axes_of_signs is not None and is_of_signs(parameter, axes_of_signs):
        return "XNORs"
    values = parameter.values
    lists = [values.numbers] if values.channels is None else list(values.numbers)
    return max((_kind_of_list(np.asarray(numbers, float)) for numbers in lists), key=KINDS.index)


def _kind_of_list(numbers: Any) -> str:
    magnitudes = np.unique(np.abs(numbers[numbers != 0]))
    if len(magnitudes) <= 1:
        return "additions"
    exponents = np.log2(magnitudes / magnitudes[0])
    if np.array_equal(magnitudes, magnitudes[0] * 2.0 ** np.round(exponents)):
        return "shifts"
    return "look-ups" if len(numbers) <= _MOST_LOOKED_UP else "products"


class Multiplications(NamedTuple):
    """The multiplications of a model are counted by its weights.

    Attributes:
        counts: For each weight, by its variable, the multiply-accumulates of one sample; None
            where it is not known. A weight that is not there is not known.
        note: Why some are not known; empty where all are.
        signs: What says which weights met inputs of two opposite values alone; None where the
            model was not traced.
    """

    counts: ByIdentity[int | None]
    note: str
    signs: Signs | None = None

    def of(self, variable: keras.Variable) -> int | None:
        """Return the multiply-accumulates of a weight; None where they are not known."""
        return self.counts.get(variable)

    def kind_of(self, variable: keras.Variable, parameter: Parameter | None) -> str:
        """Return what a multiply-accumulate with a weight comes down to in this model."""
        axes = None if self.signs is None else self.signs.axes_of(variable)
        return kind_of_product(parameter, axes)


def multiplications_of(model: keras.Model, input_shape: Any = None) -> Multiplications:
    """Count the multiply-accumulates of each weight of a model, for one sample.

    The model is traced on symbolic inputs, and the calls of its layers are counted by their kind
    and their shapes. Padding counts, as if it were data. Biases and normalizations do not count,
    nor do products of activations with each other.

    Args:
        model: A built model.
        input_shape: The shape of one sample, or a list or dict of shapes as the model takes
            inputs; None for those that the model was built with.
    """
    inputs = _inputs(model, input_shape)
    if isinstance(inputs, str):
        return Multiplications(ByIdentity(), inputs)
    signs = Signs(model)
    counter = _Counter(ByIdentity.of_keys(weights_of(model)), signs)

    def call(inputs: Any) -> Any:
        counter.begin()
        return model(inputs, training=False)

    try:
        with calls_replaced(counter.call):
            symbolic_outputs(call, inputs)
    # The call of a user's layer may raise anything.
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        note = f"the model could not be traced: {type(error).__name__}: {reason}"
        return Multiplications(ByIdentity(), note)
    batch = keras.tree.flatten(inputs)[0].shape[0] if keras.tree.flatten(inputs)[0].shape else 1
    counts = ByIdentity(
        (variable, None if count is None else count // max(batch, 1))
        for variable, count in counter.counts.items()
    )
    return Multiplications(counts, counter.note(), signs)


def _inputs(model: keras.Model, input_shape: Any) -> Any:
    """Return symbolic inputs of fixed sizes; or why there are none, a text."""
    symbolic = symbolic_inputs(model)
    if input_shape is not None:
        shapes = _with_batch(input_shape)
        return _of_shapes(shapes, symbolic)
    if symbolic is None:
        built = model.get_build_config() or {}
        shapes = built.get("input_shape")
        if shapes is None:
            return "the model has no Inputs; give input_shape, the shape of one sample"
        symbolic = _of_shapes(shapes, None)
    fixed = keras.tree.map_structure(
        lambda tensor: keras.KerasTensor(
            (tensor.shape[0] or 1, *tensor.shape[1:]) if len(tensor.shape) else (), tensor.dtype
        ),
        symbolic,
    )
    if any(None in tensor.shape for tensor in keras.tree.flatten(fixed)):
        shapes = [tuple(tensor.shape[1:]) for tensor in keras.tree.flatten(fixed)]
        return f"a sample has the open shape {shapes[0]}; give input_shape, one of fixed sizes"
    return fixed


def _is_shape(shape: Any) -> bool:
    return isinstance(shape, (tuple, list)) and all(
        size is None or isinstance(size, (int, np.integer)) for size in shape
    )


def _with_batch(shapes: Any) -> Any:
    """Return the shapes of single samples with an axis of the batch in front."""
    if _is_shape(shapes):
        return (1, *map(int, shapes))
    if isinstance(shapes, dict):
        return {name: _with_batch(shape) for name, shape in shapes.items()}
    if isinstance(shapes, (tuple, list)):
        return [_with_batch(shape) for shape in shapes]
    raise TypeError(
        f"input_shape is {shapes!r}. Expected the shape of one sample, such as (28, 28, 1), or a "
        "list or dict of shapes, one for each input."
    )


def _of_shapes(shapes: Any, symbolic: Any) -> Any:
    """Return symbolic tensors of some shapes, in the dtypes of a model's inputs."""
    dtypes = iter(
        [tensor.dtype for tensor in keras.tree.flatten(symbolic)] if symbolic is not None else []
    )

    def create(shape: Any) -> Any:
        if _is_shape(shape):
            return keras.KerasTensor(tuple(shape), next(dtypes, keras.config.floatx()))
        if isinstance(shape, dict):
            return {name: create(part) for name, part in shape.items()}
        return [create(part) for part in shape]

    return create(shapes)


class _Counter:
    """A counter is asked for each call of a layer, and counts what it knows.

    Args:
        weights: The weights whose products are counted; not scales, and not estimators' states.
        signs: What follows tensors of two opposite values.
    """

    def __init__(self, weights: ByIdentity[None], signs: Signs) -> None:
        self._weights, self._signs = weights, signs
        self.begin()

    def begin(self) -> None:
        """Begin anew: a backend may trace a second time if it fails first."""
        self.counts: ByIdentity[int | None] = ByIdentity()
        self._signs.begin()
        self._unknown: dict[str, None] = {}
        self._times = 1
        self._is_inside = False

    def note(self) -> str:
        """Return which layers are not known."""
        if not self._unknown:
            return ""
        return f"those of {', '.join(self._unknown)} are not known"

    def call(
        self,
        layer: Any,
        call: Callable[..., Any],
        arguments: tuple[Any, ...],
        options: dict[str, Any],
    ) -> Any:
        """Call a layer or an operation, and count its products."""
        inputs = arguments[0] if arguments else next(iter(options.values()), None)
        self._signs.before(layer, inputs)
        outputs = self._counted(layer, call, arguments, options)
        padding = arguments[1] if len(arguments) > 1 else options.get("constant_values")
        self._signs.after(layer, inputs, outputs, padding)
        return outputs

    def _counted(
        self,
        layer: Any,
        call: Callable[..., Any],
        arguments: tuple[Any, ...],
        options: dict[str, Any],
    ) -> Any:
        """Return what a call returns, with its products counted."""
        if self._is_inside or not isinstance(layer, keras.Layer):
            return call(*arguments, **options)
        if isinstance(layer, Discrete):
            # Only shapes matter: the latents stand for the listed weights.
            options = {name: value for name, value in options.items() if name != "training"}
            return layer.layer(*arguments, **options)
        inputs = arguments[0] if arguments else next(iter(options.values()), None)
        if isinstance(layer, LearnableMultiplier):
            self._count(layer, {"kernel": _elements(inputs)}, is_total=True)
            return inputs
        positions = next((rule for kinds, rule in _RULES if _is_one_of(layer, kinds)), None)
        if positions is None:
            self._count(layer, {})
            return call(*arguments, **options)
        self._is_inside = True
        try:
            outputs = call(*arguments, **options)
        finally:
            self._is_inside = False
        if isinstance(layer, keras.layers.TimeDistributed):
            self._count_times(layer.layer, inputs)
        else:
            self._signs.meet(layer, inputs)
            self._count(layer, positions(layer, inputs, outputs))
        return outputs

    def _count(
        self, layer: keras.Layer, positions: dict[str, int | None], is_total: bool = False
    ) -> None:
        """Count the products of a layer's own weights.

        Args:
            layer: The layer.
            positions: For each name of a weight, how often each element of it is multiplied.
            is_total: Whether they are products instead.
        """
        for variable in _own_weights(layer):
            if variable not in self._weights:
                continue
            name = weight_name(variable)
            often = positions.get(name, positions.get("*", 0 if name == "bias" else None))
            before = self.counts.get(variable, 0)
            if often is None or before is None:
                self.counts[variable] = None
                self._unknown[type(layer).__name__] = None
            else:
                size = 1 if is_total else math.prod(variable.shape)
                self.counts[variable] = before + self._times * often * size

    def _count_times(self, layer: keras.Layer, inputs: Any) -> None:
        """Count the products of a layer that is called for each step of time."""
        batch, steps, *shape = inputs.shape
        times, self._times = self._times, self._times * int(steps)
        try:
            step = keras.KerasTensor((batch, *shape), keras.backend.standardize_dtype(inputs.dtype))
            symbolic_outputs(lambda inputs: layer(inputs, training=False), step)
        finally:
            self._times = times


def _is_one_of(layer: keras.Layer, kinds: Sequence[type[keras.Layer]]) -> bool:
    """Return whether a layer computes as one of Keras's does, not in a call of its own."""
    return any(isinstance(layer, kind) and type(layer).call is kind.call for kind in kinds)


def _own_weights(layer: keras.Layer) -> Iterator[keras.Variable]:
    """Yield the weights that a layer created itself; those of its cell for a recurrent one."""
    if isinstance(layer, keras.layers.RNN):
        yield from layer.cell.weights
    else:
        yield from own_variables(layer)


def _elements(tensor: Any) -> int:
    return math.prod(int(size) for size in tensor.shape)


def _spatial(layer: keras.Layer, tensor: Any) -> int:
    """Return the number of positions of a convolution's input or output, in all samples."""
    shape = tuple(tensor.shape)
    channels = shape[1] if layer.data_format == "channels_first" else shape[-1]
    return _elements(tensor) // int(channels)


def _of_dense(layer: keras.Layer, inputs: Any, outputs: Any) -> dict[str, int | None]:
    return {"kernel": math.prod(map(int, inputs.shape[:-1]))}


def _of_einsum(layer: keras.Layer, inputs: Any, outputs: Any) -> dict[str, int | None]:
    left, kernel = layer.equation.replace(" ", "").partition("->")[0].split(",")
    before, dots, after = left.partition("...")
    open_axes = len(inputs.shape) - len(before) - len(after) if dots else 0
    labels = [*before, *["..."] * open_axes, *after]
    sizes = zip(labels, map(int, inputs.shape), strict=True)
    return {"kernel": math.prod(size for label, size in sizes if label not in kernel)}


def _of_convolution(layer: keras.Layer, inputs: Any, outputs: Any) -> dict[str, int | None]:
    positions = _spatial(layer, outputs)
    return dict.fromkeys(("kernel", "depthwise_kernel", "pointwise_kernel"), positions)


def _of_transposed(layer: keras.Layer, inputs: Any, outputs: Any) -> dict[str, int | None]:
    return {"kernel": _spatial(layer, inputs)}


def _of_recurrent(layer: keras.Layer, inputs: Any, outputs: Any) -> dict[str, int | None]:
    cells = (keras.layers.SimpleRNNCell, keras.layers.LSTMCell, keras.layers.GRUCell)
    if not _is_one_of(layer.cell, cells):
        return {}
    steps = int(inputs.shape[0]) * int(inputs.shape[1])
    return {"kernel": steps, "recurrent_kernel": steps}


def _of_none(layer: keras.Layer, inputs: Any, outputs: Any) -> dict[str, int | None]:
    return {"*": 0}


_RULES: list[tuple[tuple[Any, ...], Callable[..., dict[str, int | None]]]] = [
    ((keras.layers.Dense,), _of_dense),
    ((keras.layers.EinsumDense,), _of_einsum),
    (
        (
            keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D,
            keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D,
            keras.layers.SeparableConv1D, keras.layers.SeparableConv2D,
        ),
        _of_convolution,
    ),
    (
        (
            keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose,
            keras.layers.Conv3DTranspose,
        ),
        _of_transposed,
    ),
    (
        (
            keras.layers.RNN, keras.layers.SimpleRNN, keras.layers.LSTM, keras.layers.GRU,
        ),
        _of_recurrent,
    ),
    ((keras.layers.TimeDistributed,), _of_none),
    (
        (
            keras.layers.Embedding, keras.layers.BatchNormalization,
            keras.layers.LayerNormalization, keras.layers.GroupNormalization,
            keras.layers.RMSNormalization, keras.layers.Normalization,
        ),
        _of_none,
    ),
]  # fmt: skip
"""Layers of Keras, and how often an element of each of their weights is multiplied in a call."""
