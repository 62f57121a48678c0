"""A Keras model as a chain of a few kinds of steps, for targets that write programs.

A step reads one array of floats and makes the next; samples lie as Keras holds them, the
last axis running fastest, so flattening and reshaping are no steps. Whatever is linear is
a `Product`, a convolution over two axes of positions: a Dense sees one position, a
multiplication element by element is a convolution in as many groups as channels.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import activations, layers, ops
from numpy.typing import NDArray

from quantal._core.keras_internals import call_of
from quantal._core.parameter import Parameter, parameters_of
from quantal._models.walk import is_container
from quantal.layers._substitutes import QUANTIZATION, substitutes_of
from quantal.layers.discrete import unwrapped
from quantal.layers.multiplier import LearnableMultiplier

Shape = tuple[int, ...]
Floats = NDArray[np.float64]

FUNCTIONS = (
    "relu", "sigmoid", "tanh", "elu", "softplus", "silu", "hard_sigmoid", "exponential",
)  # fmt: skip
"""The names of functions of single numbers: those of `keras.activations`."""


class Window(NamedTuple):
    """Which inputs each output sees: the geometry of a convolution or of pooling.

    Positions have two axes; where there is one, or none, the others have the length 1.
    `top` and `left` are the positions of padding before the first input.
    """

    in_height: int
    in_width: int
    in_channels: int
    out_height: int
    out_width: int
    out_channels: int
    kernel_height: int
    kernel_width: int
    stride_y: int
    stride_x: int
    dilation_y: int
    dilation_x: int
    top: int
    left: int
    groups: int

    @property
    def size(self) -> int:
        """How many numbers come out."""
        return self.out_height * self.out_width * self.out_channels


class Listed(NamedTuple):
    """Weights on lists: `lists[output, codes[output, input]]`.

    Attributes:
        codes: Integers, shape (outputs, inputs).
        lists: Shape (outputs, K), or (1, K) for one list for all.
    """

    codes: NDArray[Any]
    lists: Floats

    @property
    def numbers(self) -> Floats:
        """The listed values, shape (outputs, inputs)."""
        rows = np.broadcast_to(self.lists, (len(self.codes), self.lists.shape[1]))
        return np.take_along_axis(rows, self.codes.astype(np.intp), axis=1)


class Product(NamedTuple):
    """A convolution: `scale * sum(weight * input) + bias` for each output channel.

    Attributes:
        window: What each output sees.
        weights: Shape (out_channels, kernel_height * kernel_width * channels of a group),
            in this order.
        scale: Shape (out_channels,).
        bias: Shape (out_channels,).
    """

    window: Window
    weights: Listed | Floats
    scale: Floats
    bias: Floats

    @property
    def size(self) -> int:
        """How many numbers come out."""
        return self.window.size


class Pool(NamedTuple):
    """The largest input, or the mean of the inputs, that each output sees; no padding counts."""

    window: Window
    largest: bool

    @property
    def size(self) -> int:
        """How many numbers come out."""
        return self.window.size


class Function(NamedTuple):
    """A function of each number: one of `FUNCTIONS`, with the numbers it takes.

    `relu` takes the slope below the threshold, the threshold and the largest output,
    `elu` the factor below 0; the others none.
    """

    name: str
    size: int
    numbers: tuple[float, ...] = ()


class Softmax(NamedTuple):
    """`exp(x) / sum(exp(x))` over each row of `row` numbers."""

    size: int
    row: int


Step = Product | Pool | Function | Softmax


class Chain(NamedTuple):
    """A model as steps, and the shapes of one sample before and behind them."""

    steps: list[Step]
    input_shape: Shape
    output_shape: Shape


def chain_of(model: keras.Model, target: str) -> Chain:
    """What a model computes in inference, as steps one behind the other.

    Multiplications and additions for each channel (batch normalization, rescaling,
    LearnableMultiplier) are taken into the product before them, if there is one and
    nothing lies between.

    Args:
        model: A built Sequential or functional model without branches, with the channels
            last and no open size in the shape of a sample.
        target: The ending of the target's files, for messages.

    Raises:
        TypeError: It is no Keras model or layer.
        ValueError: It is not built, not such a model, or has a layer that is no such step.
    """
    reader = _Reader(model, target)
    calls = list(reader.calls(model))
    for call in calls:
        reader.read(call)
    shapes = [tuple(tensor.shape[1:]) for tensor in (model.inputs[0], model.outputs[0])]
    return Chain(reader.steps, *shapes)


class _Call(NamedTuple):
    """A layer with the shapes of the sample that it reads and gives."""

    layer: Any
    before: Shape
    behind: Shape


class _Reader:
    """Reads a model layer by layer and collects its steps."""

    def __init__(self, model: keras.Model, target: str) -> None:
        self.steps: list[Step] = []
        self._target = target
        self._parameters = {id(parameter.latent): parameter for parameter in parameters_of(model)}

    def calls(self, model: Any) -> Iterator[_Call]:
        """The layers in the order they are called, of models inside, too."""
        inputs: Any = getattr(model, "inputs", None) or ()
        outputs: Any = getattr(model, "outputs", None) or ()
        if len(inputs) != 1 or len(outputs) != 1:
            raise self._refused(
                model, f"with {len(inputs)} inputs and {len(outputs)} outputs known to Keras"
            )
        if not is_container(model):
            raise self._refused(model, "with a call of its own")
        for size in inputs[0].shape[1:]:
            if size is None:
                raise self._refused(model, f"with the open input shape {inputs[0].shape[1:]}")
        backwards, tensor = [], outputs[0]
        while tensor is not inputs[0]:
            layer, node = call_of(tensor)
            sources = node.input_tensors
            if len(sources) != 1:
                raise self._refused(layer, f"with {len(sources)} inputs")
            if node.arguments.kwargs.get("training"):
                raise self._refused(layer, "called with training=True")
            backwards.append(_Call(layer, tuple(sources[0].shape[1:]), tuple(tensor.shape[1:])))
            tensor = sources[0]
        for call in reversed(backwards):
            layer = unwrapped(call.layer)
            if isinstance(layer, keras.Model):
                yield from self.calls(layer)
            else:
                yield call._replace(layer=layer)

    def read(self, call: _Call) -> None:
        """Add the steps of a layer."""
        layer = call.layer
        if type(layer) not in _READERS:
            raise self._refused(layer)
        if getattr(layer, "data_format", None) == "channels_first":
            raise self._refused(layer, "with the channels first")
        # LoRA needs no refusal: `kernel` is then the sum of all terms.
        if QUANTIZATION in substitutes_of(layer):
            raise self._refused(layer, f"with {QUANTIZATION}")
        _READERS[type(layer)](self, call)

    def nothing(self, call: _Call) -> None:
        """A layer that does nothing to the numbers in inference."""

    def dense(self, call: _Call) -> None:
        """A Dense: a convolution that sees one position."""
        positions = (1, math.prod(call.before[:-1]), call.before[-1])
        window = _window(positions, call.behind[-1])
        self._product(call, window, lambda kernel: np.moveaxis(kernel, -1, 0))

    def convolution(self, call: _Call) -> None:
        """A Conv1D or Conv2D."""
        layer = call.layer
        sizes = (layer.kernel_size, layer.strides, layer.dilation_rate)
        window = _window(
            call.before, call.behind[-1], *sizes, padding=layer.padding, groups=layer.groups
        )
        self._product(call, window, lambda kernel: np.moveaxis(kernel, -1, 0))

    def depthwise(self, call: _Call) -> None:
        """A DepthwiseConv1D or DepthwiseConv2D: as many groups as input channels."""
        layer, channels = call.layer, call.before[-1]
        sizes = (layer.kernel_size, layer.strides, layer.dilation_rate)
        window = _window(
            call.before, call.behind[-1], *sizes, padding=layer.padding, groups=channels
        )
        self._product(call, window, lambda kernel: np.moveaxis(kernel, (-2, -1), (0, 1)))

    def pool(self, call: _Call) -> None:
        """Pooling over windows."""
        layer, channels = call.layer, call.before[-1]
        window = _window(
            call.before, channels, layer.pool_size, layer.strides, padding=layer.padding
        )
        largest = isinstance(layer, _LARGEST)
        if not largest and keras.config.backend() == "torch" and _counts_padding(window):
            raise self._refused(layer, "whose padding Keras on PyTorch counts into the means")
        self.steps.append(Pool(window, largest))

    def pool_all(self, call: _Call) -> None:
        """Pooling over all positions."""
        positions = call.before[:-1]
        window = _window(call.before, call.before[-1], positions)
        self.steps.append(Pool(window, isinstance(call.layer, _LARGEST)))

    def normalization(self, call: _Call) -> None:
        """A BatchNormalization with its moving statistics."""
        layer, rank = call.layer, len(call.before)
        mean, variance = (self._numbers(v) for v in (layer.moving_mean, layer.moving_variance))
        factor = 1 / np.sqrt(variance + layer.epsilon)
        if layer.scale:
            factor = factor * self._numbers(layer.gamma)
        offset = self._numbers(layer.beta) if layer.center else 0.0
        axis = layer.axis % (rank + 1) - 1
        shape = [-1 if place == axis else 1 for place in range(rank)]
        self._scaled(call, factor.reshape(shape), (offset - mean * factor).reshape(shape))

    def rescaling(self, call: _Call) -> None:
        """A Rescaling."""
        layer = call.layer
        factor, offset = (np.asarray(ops.convert_to_numpy(n)) for n in (layer.scale, layer.offset))
        self._scaled(call, factor, offset)

    def standardization(self, call: _Call) -> None:
        """A Normalization with the mean and variance it adapted to."""
        layer = call.layer
        mean, variance = (self._numbers(number)[0] for number in (layer.mean, layer.variance))
        deviation = np.maximum(np.sqrt(variance), keras.config.epsilon())
        if layer.invert:
            self._scaled(call, deviation, mean)
        else:
            self._scaled(call, 1 / deviation, -mean / deviation)

    def multiplier(self, call: _Call) -> None:
        """A LearnableMultiplier."""
        layer, rank = call.layer, len(call.before)
        (parameter,) = layer.discrete_parameters
        shape = [call.before[a] if a + 1 in layer.kernel_axes else 1 for a in range(rank)]
        over, period = _period(shape, call.before)

        def view(array: NDArray[Any]) -> NDArray[Any]:
            return np.broadcast_to(array.reshape(shape), over).reshape(period, 1)

        self._multiply(call, *_weights(parameter, view), np.zeros(period))

    def rectifier(self, call: _Call) -> None:
        """A ReLU or LeakyReLU."""
        layer = call.layer
        threshold, top = getattr(layer, "threshold", 0.0), getattr(layer, "max_value", None)
        self._relu(call, layer.negative_slope, threshold, top)

    def elu(self, call: _Call) -> None:
        """An ELU."""
        size = math.prod(call.behind)
        self.steps.append(Function("elu", size, (float(call.layer.alpha),)))

    def softmax(self, call: _Call) -> None:
        """A Softmax."""
        axis = call.layer.axis
        if axis not in (-1, len(call.before)):
            raise self._refused(call.layer, f"along the axis {axis}, not the last")
        self.steps.append(Softmax(math.prod(call.behind), call.behind[-1]))

    def activation(self, call: _Call) -> None:
        """The activation that a layer has, if it has one."""
        function = call.layer.activation
        if isinstance(function, keras.Layer):
            self.read(call._replace(layer=function, before=call.behind))
            return
        name = getattr(function, "__name__", repr(function))
        size = math.prod(call.behind)
        if function not in (getattr(activations, known, None) for known in (*_KNOWN, *FUNCTIONS)):
            raise self._refused(call.layer, f"with the activation {name!r}")
        if name == "softmax":
            self.steps.append(Softmax(size, call.behind[-1]))
        elif name in _RECTIFIERS:
            self._relu(call, *_RECTIFIERS[name])
        elif name != "linear":
            self.steps.append(Function(name, size, (1.0,) if name == "elu" else ()))

    def _relu(self, call: _Call, slope: Any, threshold: Any, top: Any) -> None:
        numbers = float(slope), float(threshold), math.inf if top is None else float(top)
        self.steps.append(Function("relu", math.prod(call.behind), numbers))

    def _product(
        self, call: _Call, window: Window, outputs_first: Callable[[Any], NDArray[Any]]
    ) -> None:
        layer, outputs = call.layer, window.out_channels

        def view(array: NDArray[Any]) -> NDArray[Any]:
            return outputs_first(array).reshape(outputs, -1)

        parameter = self._parameters.get(id(layer.kernel))
        if parameter is None:
            weights: Listed | Floats = view(self._numbers(layer.kernel))
            scale = np.ones(outputs)
        else:
            weights, scale = _weights(parameter, view)
        bias = self._numbers(layer.bias) if layer.use_bias else np.zeros(outputs)
        self.steps.append(Product(window, weights, scale, bias))
        self.activation(call)

    def _scaled(self, call: _Call, factor: Any, offset: Any) -> None:
        """`factor * input + offset`, both broadcast over the sample."""
        shape = np.broadcast_shapes(np.shape(factor), np.shape(offset))
        if len(shape) > len(call.before):
            raise self._refused(call.layer, f"with numbers of the shape {shape}")
        over, period = _period((1,) * (len(call.before) - len(shape)) + shape, call.before)
        factors, offsets = (
            np.broadcast_to(numbers, over).reshape(period).astype(np.float64)
            for numbers in (factor, offset)
        )
        self._multiply(call, factors[:, None], np.ones(period), offsets)

    def _multiply(self, call: _Call, weights: Listed | Floats, scale: Floats, bias: Floats) -> None:
        """Multiply and add, in the product before where its channels are the same."""
        factor = scale * (weights.numbers if isinstance(weights, Listed) else weights)[:, 0]
        last = self.steps[-1] if self.steps else None
        if isinstance(last, Product) and len(last.scale) % len(factor) == 0:
            repeated = len(last.scale) // len(factor)
            factor, bias = np.tile(factor, repeated), np.tile(bias, repeated)
            self.steps[-1] = last._replace(
                scale=last.scale * factor, bias=last.bias * factor + bias
            )
            return
        period = len(factor)
        positions = (1, math.prod(call.before) // period, period)
        self.steps.append(Product(_window(positions, period, groups=period), weights, scale, bias))

    def _numbers(self, variable: Any) -> Floats:
        """What the layer computes with in place of a variable."""
        parameter = self._parameters.get(id(variable))
        tensor = variable if parameter is None else parameter.weight
        return np.asarray(ops.convert_to_numpy(ops.cast(tensor, "float32")), np.float64)

    def _refused(self, layer: Any, how: str = "") -> ValueError:
        name, kind = getattr(layer, "name", repr(layer)), type(layer).__name__
        return ValueError(
            f"The layer {name!r} is of the class {kind}{f' {how}' if how else ''}. The target "
            f"{self._target!r} holds one chain of layers, with the channels last and a fixed "
            "input shape: Dense, convolution and pooling over one or two axes, BatchNormalization, "
            "Normalization, Rescaling, LearnableMultiplier, activations, Flatten, Reshape, dropout "
            "and noise. Put one of these in its place, or export to '.keras', which holds every "
            "model."
        )


def _window(
    shape: Sequence[int],
    outputs: int,
    kernel: Sequence[int] = (1,),
    strides: Sequence[int] = (1,),
    dilation: Sequence[int] = (1,),
    *,
    padding: str = "valid",
    groups: int = 1,
) -> Window:
    """The geometry over positions of one or two axes.

    Source: Keras's padding "same" is TensorFlow's: the odd one of the padding behind.
    """
    height, width, channels = (1,) * (3 - len(shape)) + tuple(shape)
    wide, by, apart = _two(kernel), _two(strides), _two(dilation)
    (out_height, top), (out_width, left) = (
        _side(*sizes, padding) for sizes in zip((height, width), wide, by, apart, strict=True)
    )
    return Window(
        *(height, width, channels),
        *(out_height, out_width, outputs),
        *wide,
        *by,
        *apart,
        *(top, left, groups),
    )


def _two(sizes: Sequence[int]) -> tuple[int, int]:
    """Sizes along two axes, of which the first may lack."""
    return (1 if len(sizes) == 1 else sizes[0]), sizes[-1]


def _side(size: int, width: int, stride: int, gap: int, padding: str) -> tuple[int, int]:
    """How many outputs lie along an axis, and how much padding before the first input."""
    reach = (width - 1) * gap + 1
    if padding == "valid":
        return (size - reach) // stride + 1, 0
    count = -(-size // stride)
    if padding == "causal":
        return count, reach - 1
    return count, max((count - 1) * stride + reach - size, 0) // 2


def _counts_padding(w: Window) -> bool:
    """Whether Keras 3.15 on PyTorch counts padding into means.

    It repeats the edge where padding is uneven; a mean of two is the same either way.
    """
    missing = (
        (w.out_height - 1) * w.stride_y + w.kernel_height - w.in_height,
        (w.out_width - 1) * w.stride_x + w.kernel_width - w.in_width,
    )
    uneven = any(size > 0 and size % 2 for size in missing)
    return uneven and max(w.kernel_height, w.kernel_width) > 2


def _period(shape: Sequence[int], sample: Shape) -> tuple[Shape, int]:
    """The part of a sample, its last axes, over which numbers of a shape repeat; its size."""
    first = next((axis for axis, size in enumerate(shape) if size > 1), len(shape))
    over = (1,) * first + sample[first:]
    return over, math.prod(over)


def _weights(
    parameter: Parameter, view: Callable[[NDArray[Any]], NDArray[Any]]
) -> tuple[Listed | Floats, Floats]:
    """The weights of a parameter, and a scale for each output.

    On lists where every output has one list and one scale, else as numbers.

    Args:
        parameter: The parameter.
        view: Brings an array of the parameter's shape to the shape (outputs, inputs).
    """
    shape, values = parameter.shape, parameter.values
    scale = 1.0 if parameter.scale is None else ops.convert_to_numpy(parameter.scale)
    scales = view(np.broadcast_to(np.asarray(scale, np.float64), shape))
    lists = np.atleast_2d(values.numbers).astype(np.float64)
    rows = np.zeros((len(scales), 1), np.intp)
    if values.channels is not None:
        rows = view(np.indices(shape)[values.axis % len(shape)])
        lists = lists[rows[:, 0]]
    if (scales == scales[:, :1]).all() and (rows == rows[:, :1]).all():
        codes = np.asarray(ops.convert_to_numpy(parameter.codes))
        return Listed(view(codes), lists), scales[:, 0]
    numbers = np.asarray(ops.convert_to_numpy(parameter.weight), np.float64)
    return view(numbers), np.ones(len(scales))


_LARGEST = (
    layers.MaxPooling1D, layers.MaxPooling2D, layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D,
)  # fmt: skip
_KNOWN = ("linear", "relu", "relu6", "leaky_relu", "softmax")
_RECTIFIERS = {"relu": (0, 0, None), "relu6": (0, 0, 6), "leaky_relu": (0.2, 0, None)}
_READERS: dict[type, Callable[[_Reader, _Call], None]] = {
    layers.Dense: _Reader.dense,
    layers.Conv1D: _Reader.convolution,
    layers.Conv2D: _Reader.convolution,
    layers.DepthwiseConv1D: _Reader.depthwise,
    layers.DepthwiseConv2D: _Reader.depthwise,
    layers.MaxPooling1D: _Reader.pool,
    layers.MaxPooling2D: _Reader.pool,
    layers.AveragePooling1D: _Reader.pool,
    layers.AveragePooling2D: _Reader.pool,
    layers.GlobalMaxPooling1D: _Reader.pool_all,
    layers.GlobalMaxPooling2D: _Reader.pool_all,
    layers.GlobalAveragePooling1D: _Reader.pool_all,
    layers.GlobalAveragePooling2D: _Reader.pool_all,
    layers.BatchNormalization: _Reader.normalization,
    layers.Rescaling: _Reader.rescaling,
    layers.Normalization: _Reader.standardization,
    LearnableMultiplier: _Reader.multiplier,
    layers.ReLU: _Reader.rectifier,
    layers.LeakyReLU: _Reader.rectifier,
    layers.ELU: _Reader.elu,
    layers.Softmax: _Reader.softmax,
    layers.Activation: _Reader.activation,
    layers.Flatten: _Reader.nothing,
    layers.Reshape: _Reader.nothing,
    layers.Identity: _Reader.nothing,
    layers.Dropout: _Reader.nothing,
    layers.SpatialDropout1D: _Reader.nothing,
    layers.SpatialDropout2D: _Reader.nothing,
    layers.AlphaDropout: _Reader.nothing,
    layers.GaussianDropout: _Reader.nothing,
    layers.GaussianNoise: _Reader.nothing,
    layers.ActivityRegularization: _Reader.nothing,
}
