"""Read a Keras model into the steps of a chain, layer by layer."""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import activations, layers
from numpy.typing import NDArray

from quantal._core.keras_internals import call_of
from quantal._core.tensors.distributed import whole_array
from quantal._export.chain.geometry import counts_padding, repeating_part, window_of
from quantal._export.chain.steps import (
    FUNCTIONS,
    Chain,
    Floats,
    Function,
    Listed,
    Pool,
    Product,
    Shape,
    Softmax,
    Step,
    Window,
)
from quantal._export.chain.weights import Weights, listed_weights
from quantal._models.table_features import TableFeatures
from quantal._models.walk import is_container
from quantal.layers._substitutes import QUANTIZATION, substitutes_of
from quantal.layers.discrete import unwrapped
from quantal.layers.multiplier import LearnableMultiplier


def read_chain(model: keras.Model, target: str) -> Chain:
    """Return what a model computes in inference as steps, one after the other.

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
    calls = list(_calls(model, target))
    for call in calls:
        reader.read(call)
    shapes = [tuple(tensor.shape[1:]) for tensor in (model.inputs[0], model.outputs[0])]
    return Chain(reader.steps, *shapes)


class _Call(NamedTuple):
    """A call of a layer, with the shapes of the sample before and after it."""

    layer: Any
    before: Shape
    after: Shape

    @property
    def size(self) -> int:
        """The number of outputs."""
        return math.prod(self.after)


def _calls(model: Any, target: str) -> Iterator[_Call]:
    """Yield the calls of a model's layers in order, those of models inside it too."""
    inputs, outputs = _ends(model, target)
    backwards, tensor = [], outputs
    while tensor is not inputs:
        layer, node = call_of(tensor)
        sources = node.input_tensors
        if len(sources) != 1:
            raise _refusal(target, layer, f"with {len(sources)} inputs")
        if node.arguments.kwargs.get("training"):
            raise _refusal(target, layer, "called with training=True")
        backwards.append(_Call(layer, tuple(sources[0].shape[1:]), tuple(tensor.shape[1:])))
        tensor = sources[0]
    for call in reversed(backwards):
        layer = unwrapped(call.layer)
        if isinstance(layer, keras.Model):
            yield from _calls(layer, target)
        else:
            yield call._replace(layer=layer)


def _ends(model: Any, target: str) -> tuple[Any, Any]:
    """Return the one symbolic input and the one output of a model."""
    inputs: Any = getattr(model, "inputs", None) or ()
    outputs: Any = getattr(model, "outputs", None) or ()
    if len(inputs) != 1 or len(outputs) != 1:
        known = f"with {len(inputs)} inputs and {len(outputs)} outputs known to Keras"
        raise _refusal(target, model, known)
    if not is_container(model):
        raise _refusal(target, model, "with a call of its own")
    if None in inputs[0].shape[1:]:
        raise _refusal(target, model, f"with the open input shape {inputs[0].shape[1:]}")
    return inputs[0], outputs[0]


def _refusal(target: str, layer: Any, why: str = "") -> ValueError:
    name, kind = getattr(layer, "name", repr(layer)), type(layer).__name__
    return ValueError(
        f"The layer {name!r} is of the class {kind}{f' {why}' if why else ''}. The target "
        f"{target!r} holds one chain of layers, with the channels last and a fixed "
        "input shape: Dense, convolution and pooling over one or two axes, BatchNormalization, "
        "Normalization, Rescaling, LearnableMultiplier, activations, Flatten, Reshape, dropout "
        "and noise. Put one of these in its place; or export to '.onnx' or '.xml', which hold "
        "graphs with branches, too; or export to '.keras', which holds every model."
    )


class _Reader:
    """A reader collects the steps of a model's layers.

    Args:
        model: A built model.
        target: The ending of the target's files, for messages.
    """

    def __init__(self, model: keras.Model, target: str) -> None:
        self.steps: list[Step] = []
        self._target = target
        self._weights = Weights(model)

    def read(self, call: _Call) -> None:
        """Add the steps of one call of a layer."""
        layer = call.layer
        if type(layer) not in _READERS:
            raise self._refusal(layer)
        if getattr(layer, "data_format", None) == "channels_first":
            raise self._refusal(layer, "with the channels first")
        # LoRA needs no refusal: `kernel` is then the sum of all terms.
        if QUANTIZATION in substitutes_of(layer):
            raise self._refusal(layer, f"with {QUANTIZATION}")
        _READERS[type(layer)](self, call)

    def nothing(self, call: _Call) -> None:
        """Skip a layer that changes no numbers in inference."""

    def table(self, call: _Call) -> None:
        """Skip the columns of a table that are numbers without gaps; refuse others."""
        if not call.layer.plan.is_identity:
            raise self._refusal(call.layer, "for a table with words, dates or gaps")

    def dense(self, call: _Call) -> None:
        """Read a Dense as a convolution that sees one position."""
        positions = (1, math.prod(call.before[:-1]), call.before[-1])
        window = window_of(positions, call.after[-1])
        self._product(call, window, lambda kernel: np.moveaxis(kernel, -1, 0))

    def convolution(self, call: _Call) -> None:
        """Read a Conv1D or Conv2D."""
        layer = call.layer
        sizes = (layer.kernel_size, layer.strides, layer.dilation_rate)
        window = window_of(
            call.before, call.after[-1], *sizes, padding=layer.padding, groups=layer.groups
        )
        self._product(call, window, lambda kernel: np.moveaxis(kernel, -1, 0))

    def depthwise(self, call: _Call) -> None:
        """Read a DepthwiseConv1D or DepthwiseConv2D, with as many groups as input channels."""
        layer, channels = call.layer, call.before[-1]
        sizes = (layer.kernel_size, layer.strides, layer.dilation_rate)
        window = window_of(
            call.before, call.after[-1], *sizes, padding=layer.padding, groups=channels
        )
        self._product(call, window, lambda kernel: np.moveaxis(kernel, (-2, -1), (0, 1)))

    def pool(self, call: _Call) -> None:
        """Read pooling over windows."""
        layer, channels = call.layer, call.before[-1]
        window = window_of(
            call.before, channels, layer.pool_size, layer.strides, padding=layer.padding
        )
        largest = isinstance(layer, _MAXIMUM_POOLING)
        if not largest and keras.config.backend() == "torch" and counts_padding(window):
            raise self._refusal(layer, "whose padding Keras on PyTorch counts into the means")
        self.steps.append(Pool(window, largest))

    def pool_all(self, call: _Call) -> None:
        """Read pooling over all positions."""
        positions = call.before[:-1]
        window = window_of(call.before, call.before[-1], positions)
        self.steps.append(Pool(window, isinstance(call.layer, _MAXIMUM_POOLING)))

    def normalization(self, call: _Call) -> None:
        """Read a BatchNormalization with its moving statistics."""
        layer, rank = call.layer, len(call.before)
        mean, variance = (
            self._weights.numbers(v) for v in (layer.moving_mean, layer.moving_variance)
        )
        factor = 1 / np.sqrt(variance + layer.epsilon)
        if layer.scale:
            factor = factor * self._weights.numbers(layer.gamma)
        offset = self._weights.numbers(layer.beta) if layer.center else 0.0
        axis = layer.axis % (rank + 1) - 1
        shape = [-1 if index == axis else 1 for index in range(rank)]
        self._scaled(call, factor.reshape(shape), (offset - mean * factor).reshape(shape))

    def rescaling(self, call: _Call) -> None:
        """Read a Rescaling."""
        layer = call.layer
        factor, offset = (np.asarray(whole_array(n)) for n in (layer.scale, layer.offset))
        self._scaled(call, factor, offset)

    def standardization(self, call: _Call) -> None:
        """Read a Normalization with the mean and variance it adapted to."""
        layer = call.layer
        mean, variance = (
            self._weights.numbers(number)[0] for number in (layer.mean, layer.variance)
        )
        deviation = np.maximum(np.sqrt(variance), keras.config.epsilon())
        if layer.invert:
            self._scaled(call, deviation, mean)
        else:
            self._scaled(call, 1 / deviation, -mean / deviation)

    def multiplier(self, call: _Call) -> None:
        """Read a LearnableMultiplier."""
        layer, rank = call.layer, len(call.before)
        (parameter,) = layer.discrete_parameters
        shape = [call.before[a] if a + 1 in layer.kernel_axes else 1 for a in range(rank)]
        part, period = repeating_part(shape, call.before)

        def view(array: NDArray[Any]) -> NDArray[Any]:
            return np.broadcast_to(array.reshape(shape), part).reshape(period, 1)

        self._multiply(call, *listed_weights(parameter, view), np.zeros(period))

    def rectifier(self, call: _Call) -> None:
        """Read a ReLU or LeakyReLU."""
        layer = call.layer
        threshold, top = getattr(layer, "threshold", 0.0), getattr(layer, "max_value", None)
        self._relu(call, layer.negative_slope, threshold, top)

    def elu(self, call: _Call) -> None:
        """Read an ELU."""
        self.steps.append(Function("elu", call.size, (float(call.layer.alpha),)))

    def softmax(self, call: _Call) -> None:
        """Read a Softmax."""
        axis = call.layer.axis
        if axis not in (-1, len(call.before)):
            raise self._refusal(call.layer, f"along the axis {axis}, not the last")
        self.steps.append(Softmax(call.size, call.after[-1]))

    def activation(self, call: _Call) -> None:
        """Read the activation of a layer, if it has one."""
        function = call.layer.activation
        if isinstance(function, keras.Layer):
            self.read(call._replace(layer=function, before=call.after))
            return
        name = getattr(function, "__name__", repr(function))
        if function not in (
            getattr(activations, known, None) for known in (*_OTHER_ACTIVATIONS, *FUNCTIONS)
        ):
            raise self._refusal(call.layer, f"with the activation {name!r}")
        if name == "softmax":
            self.steps.append(Softmax(call.size, call.after[-1]))
        elif name in _RECTIFIERS:
            self._relu(call, *_RECTIFIERS[name])
        elif name != "linear":
            self.steps.append(Function(name, call.size, (1.0,) if name == "elu" else ()))

    def _refusal(self, layer: Any, why: str = "") -> ValueError:
        return _refusal(self._target, layer, why)

    def _relu(self, call: _Call, slope: Any, threshold: Any, top: Any) -> None:
        numbers = float(slope), float(threshold), math.inf if top is None else float(top)
        self.steps.append(Function("relu", call.size, numbers))

    def _product(
        self, call: _Call, window: Window, outputs_first: Callable[[Any], NDArray[Any]]
    ) -> None:
        layer, outputs = call.layer, window.out_channels

        def view(array: NDArray[Any]) -> NDArray[Any]:
            return outputs_first(array).reshape(outputs, -1)

        weights, scale = self._weights.of_product(layer.kernel, view)
        bias = self._weights.numbers(layer.bias) if layer.use_bias else np.zeros(outputs)
        self.steps.append(Product(window, weights, scale, bias))
        self.activation(call)

    def _scaled(self, call: _Call, factor: Any, offset: Any) -> None:
        """Add `factor * input + offset`, both broadcast over the sample."""
        shape = np.broadcast_shapes(np.shape(factor), np.shape(offset))
        if len(shape) > len(call.before):
            raise self._refusal(call.layer, f"with numbers of the shape {shape}")
        shape = (1,) * (len(call.before) - len(shape)) + shape
        part, period = repeating_part(shape, call.before)
        factors, offsets = (
            np.broadcast_to(numbers, part).reshape(period).astype(np.float64)
            for numbers in (factor, offset)
        )
        self._multiply(call, factors[:, None], np.ones(period), offsets)

    def _multiply(self, call: _Call, weights: Listed | Floats, scale: Floats, bias: Floats) -> None:
        """Append a multiply-add for each channel, or merge it into the previous step."""
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
        self.steps.append(
            Product(window_of(positions, period, groups=period), weights, scale, bias)
        )


_MAXIMUM_POOLING = (
    layers.MaxPooling1D, layers.MaxPooling2D, layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D,
)  # fmt: skip
# Besides FUNCTIONS: what is read as no step, as a softmax or as a `relu` with constants.
_OTHER_ACTIVATIONS = ("linear", "relu", "relu6", "leaky_relu", "softmax")
# Slope, threshold and largest output.
_RECTIFIERS = {"relu": (0, 0, None), "relu6": (0, 0, 6), "leaky_relu": (0.2, 0, None)}
# A layer type that is not listed is refused: a subclass might compute anything.
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
    TableFeatures: _Reader.table,
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
