"""Read layers from their configs, and their weights, as steps."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from quantal._core.numbers.values import Values
from quantal._core.scale import resolve_activation_scale
from quantal._export.graph.geometry import window_of
from quantal._export.graph.steps import Window
from quantal._models.feature_plan import FeaturePlan
from quantal.runtime._functions import FUNCTIONS, elu, relu, softmax
from quantal.runtime._layer_config import (
    Layer,
    LayerError,
    check_channels_last,
    check_computable,
    layer_of,
)
from quantal.runtime._machine import Machine
from quantal.runtime._matrices import PackedRows
from quantal.runtime._steps import (
    Affine,
    Embedding,
    Function,
    Linear,
    Multiplier,
    Nearest,
    Reshape,
    Step,
)
from quantal.runtime._stored import Stored, StoredWeights
from quantal.runtime._window_steps import Convolution, Depthwise, Pooling

Shape = tuple[int, ...]
Floats = NDArray[np.float32]

_EPSILON = 1e-7
"""Keras's own small number, the least deviation of a Normalization."""
_SCALE_OF_ACTIVATION = ("scale_start", "scale", "scale_batches")
"""The weights of a scale of activations: its start, what it was multiplied by since, a count."""


class LayerReader:
    """A reader collects the steps of layers, one after the other.

    Args:
        weights: The weights of the file.
        machine: What makes matrices.
        shape: The shape of an input sample.
    """

    def __init__(self, weights: StoredWeights, machine: Machine, shape: Shape) -> None:
        self.steps: list[Step] = []
        self.shape = shape
        self._weights, self._machine = weights, machine

    def read(self, layer: Layer) -> None:
        """Add the steps of a layer.

        Raises:
            LayerError: It is no such step.
            ValueError: The file does not hold its weights.
        """
        reader = _READERS.get(layer.kind)
        if reader is None:
            raise LayerError("")
        check_computable(layer.config)
        reader(self, layer)

    def _take(self, layer: Layer, *names: str) -> list[Stored]:
        return self._weights.take(layer.name, names)

    def _nothing(self, layer: Layer) -> None:
        """Skip a layer that changes no numbers in inference."""

    def _table(self, layer: Layer) -> None:
        """Compute the features of a table's numbers; the first layer of `quantal train`."""
        plan = FeaturePlan.from_dict(json.loads(layer.config["plan"]))
        if self.shape != (plan.width,):
            raise LayerError(f"with rows of {plan.width} numbers for samples of {self.shape}")
        self._add(Function(plan.expand), (len(plan.features),))

    def _dense(self, layer: Layer) -> None:
        (kernel,) = self._take(layer, "kernel")
        if len(kernel.shape) != 2 or kernel.shape[0] != self.shape[-1]:
            raise _mismatch(kernel, self.shape)
        self._add(self._lines(layer, kernel, 1)[0], (*self.shape[:-1], kernel.shape[-1]))
        self._activation(layer)

    def _convolution(self, layer: Layer) -> None:
        (kernel,) = self._take(layer, "kernel")
        groups = layer.config["groups"]
        window = self._window(layer, kernel.shape[-1], "kernel_size", groups)
        expected = (*layer.config["kernel_size"], window.in_channels // groups)
        if kernel.shape[:-1] != expected or kernel.shape[-1] % groups:
            raise _mismatch(kernel, self.shape)
        after = self._after(window)
        self._add(Convolution(window, self._lines(layer, kernel, groups), after), after)
        self._activation(layer)

    def _depthwise(self, layer: Layer) -> None:
        (kernel,) = self._take(layer, "kernel")
        channels, multiplier = kernel.shape[-2:]
        window = self._window(layer, channels * multiplier, "kernel_size", channels)
        if kernel.shape[:-1] != (*layer.config["kernel_size"], self.shape[-1]):
            raise _mismatch(kernel, self.shape)
        size = (window.kernel_height, window.kernel_width)
        numbers = kernel.floats().reshape(*size, channels, multiplier)
        after = self._after(window)
        self._add(
            Depthwise(window, numbers, self._bias(layer, channels * multiplier), after), after
        )
        self._activation(layer)

    def _pooling(self, layer: Layer) -> None:
        window = self._window(layer, self.shape[-1], "pool_size")
        after = self._after(window)
        self._add(Pooling(window, layer.kind.startswith("Max"), after), after)

    def _pooling_of_all(self, layer: Layer) -> None:
        check_channels_last(layer)
        window = window_of(self.shape, self.shape[-1], self.shape[:-1])
        ones = (1,) * (len(self.shape) - 1) if layer.config["keepdims"] else ()
        after = (*ones, self.shape[-1])
        self._add(Pooling(window, "Max" in layer.kind, after), after)

    def _batch_normalization(self, layer: Layer) -> None:
        config = layer.config
        names = [
            name for name, option in (("gamma", "scale"), ("beta", "center")) if config[option]
        ]
        stored = self._take(layer, *names, "moving_mean", "moving_variance")
        numbers = {weight.name.rsplit("/", 1)[-1].split("#")[0]: weight for weight in stored}
        mean, variance = (
            numbers[name].floats().astype(np.float64) for name in ("moving_mean", "moving_variance")
        )
        factor = 1 / np.sqrt(variance + config["epsilon"])
        if "gamma" in numbers:
            factor = factor * numbers["gamma"].floats()
        offset = -mean * factor + (numbers["beta"].floats() if "beta" in numbers else 0)
        axis = config["axis"] % (len(self.shape) + 1) - 1
        if axis < 0 or factor.shape != (self.shape[axis],):
            raise _mismatch(stored[-1], self.shape)
        shape = [-1 if index == axis else 1 for index in range(len(self.shape))]
        self._scaled(factor.reshape(shape), offset.reshape(shape))

    def _normalization(self, layer: Layer) -> None:
        config, rank = layer.config, len(self.shape) + 1
        axes = config["axis"] if isinstance(config["axis"], list) else [config["axis"]]
        kept = sorted(axis % rank for axis in axes if axis is not None)
        shape = tuple(self.shape[axis - 1] if axis in kept else 1 for axis in range(1, rank))
        if 0 in kept:
            raise LayerError("with numbers for each sample")
        if config["mean"] is None:
            mean, variance, _ = self._take(layer, "mean", "variance", "count")
            numbers = [weight.floats().reshape(shape) for weight in (mean, variance)]
        else:
            given = [np.asarray(config[name], np.float32) for name in ("mean", "variance")]
            if any(number.ndim > 1 or (number.ndim and len(kept) > 1) for number in given):
                raise LayerError("with a mean of several axes in its constructor")
            ends = [np.broadcast_to(n, (math.prod(shape),)).reshape(shape) for n in given]
            numbers = list(ends)
        average, deviation = (numbers[0].astype(np.float64), np.sqrt(numbers[1].astype(np.float64)))
        deviation = np.maximum(deviation, _EPSILON)
        if config["invert"]:
            self._scaled(deviation, average)
        else:
            self._scaled(1 / deviation, -average / deviation)

    def _rescaling(self, layer: Layer) -> None:
        factor, offset = (
            np.asarray(layer.config[name], np.float64) for name in ("scale", "offset")
        )
        self._scaled(factor, offset)

    def _multiplier(self, layer: Layer) -> None:
        (kernel,) = self._take(layer, "kernel")
        rank, axis = len(self.shape) + 1, layer.config["axis"]
        kept = {a % rank for a in (axis if isinstance(axis, list) else [axis])}
        shape = tuple(self.shape[a - 1] if a in kept else 1 for a in range(1, rank))
        if math.prod(shape) != math.prod(kernel.shape):
            raise _mismatch(kernel, self.shape)
        if kernel.codes is None or kernel.values is None or kernel.axis is not None:
            self._scaled(kernel.floats().reshape(shape), np.zeros(()))
            return
        row = PackedRows(kernel.codes.reshape(1, -1), kernel.values[None])
        scale = np.float32(1) if kernel.scale is None else kernel.scale
        scales = scale if np.ndim(scale) == 0 else np.broadcast_to(scale, kernel.shape).reshape(-1)
        self._add(Multiplier(row, np.asarray(scales, np.float32), shape), self.shape)

    def _embedding(self, layer: Layer) -> None:
        if layer.config["mask_zero"]:
            raise LayerError("with a mask")
        if self.steps:
            raise LayerError("behind other layers")
        (table,) = self._take(layer, "embeddings")
        if len(table.shape) != 2:
            raise _mismatch(table, self.shape)
        if table.codes is None or table.values is None or table.axis not in (None, 0, -2):
            raise LayerError("whose embeddings are on no list, or have one for each column")
        rows = PackedRows(table.codes, np.atleast_2d(table.values))
        scale = np.float32(1) if table.scale is None else table.scale
        scale = np.asarray(scale, np.float32).reshape((1,) * (2 - np.ndim(scale)) + np.shape(scale))
        self._add(Embedding(layer.name, rows, scale), (*self.shape, table.shape[1]))

    def _reshape(self, layer: Layer) -> None:
        target, size = list(layer.config["target_shape"]), math.prod(self.shape)
        known = math.prod(length for length in target if length != -1)
        if known < 1 or size % known or (known != size and -1 not in target):
            raise LayerError(f"to {tuple(target)} from {self.shape}")
        shape = tuple(size // known if length == -1 else length for length in target)
        self._add(Reshape(shape), shape)

    def _flatten(self, layer: Layer) -> None:
        check_channels_last(layer)
        shape = (math.prod(self.shape),)
        self._add(Reshape(shape), shape)

    def _discrete_activation(self, layer: Layer) -> None:
        """Add the nearest values of a list, times a scale if the layer has one."""
        config = layer.config
        values = Values.get(config["values"])
        scale = resolve_activation_scale(config["scale"], values)
        factor = np.ones((), np.float32)
        if scale is not None:
            stored = self._weights.take_named(layer.name, _SCALE_OF_ACTIVATION)
            start, relative = (stored[name].floats() for name in _SCALE_OF_ACTIVATION[:2])
            factor = scale.value_of(start, relative)
        if values.channels is not None:
            values.check_channels((1, *self.shape))
        if np.broadcast_shapes(factor.shape, (1, *self.shape)) != (1, *self.shape):
            raise LayerError(f"with a scale of shape {factor.shape} for samples of {self.shape}")
        self._add(Nearest(values, factor), self.shape)

    def _relu(self, layer: Layer) -> None:
        config = layer.config
        slope, threshold = float(config["negative_slope"]), float(config.get("threshold", 0))
        largest = config.get("max_value")
        self._function(partial(relu, slope=slope, threshold=threshold, largest=largest))

    def _elu(self, layer: Layer) -> None:
        self._function(partial(elu, alpha=float(layer.config["alpha"])))

    def _softmax(self, layer: Layer) -> None:
        if layer.config["axis"] not in (-1, len(self.shape)):
            raise LayerError(f"along the axis {layer.config['axis']}, not the last")
        self._function(softmax)

    def _activation(self, layer: Layer) -> None:
        """Add the activation of a layer: a name of Keras's, or a layer of its own."""
        activation = layer.config.get("activation")
        if isinstance(activation, Mapping):
            inner = layer_of(activation)
            if inner.kind not in _LAYERS_OF_ACTIVATIONS:
                raise LayerError(f"with the activation {inner.kind!r}")
            self.read(inner)
        elif activation in FUNCTIONS:
            self._function(FUNCTIONS[activation])
        elif activation not in (None, "linear"):
            raise LayerError(f"with the activation {activation!r}")

    def _lines(self, layer: Layer, kernel: Stored, groups: int) -> list[Linear]:
        """Return the linear steps of the groups of a kernel, whose last axis is the outputs."""
        biases = np.split(self._bias(layer, kernel.shape[-1]), groups)
        parts = [kernel] if groups == 1 else kernel.split(groups)
        return [
            Linear(*self._machine.matrix(part), bias)
            for part, bias in zip(parts, biases, strict=True)
        ]

    def _bias(self, layer: Layer, outputs: int) -> Floats:
        if not layer.config["use_bias"]:
            return np.zeros(outputs, np.float32)
        (bias,) = self._take(layer, "bias")
        if bias.shape != (outputs,):
            raise _mismatch(bias, self.shape)
        return bias.floats()

    def _window(self, layer: Layer, outputs: int, size: str, groups: int = 1) -> Window:
        """Return the window of a convolution or pooling over one or two axes."""
        check_channels_last(layer)
        config = layer.config
        lengths = (config[size], config["strides"], config.get("dilation_rate", [1]))
        numbers = [number for length in lengths for number in length]
        if len(self.shape) - 1 != len(config[size]) or min(numbers) < 1 or len(numbers) > 6:
            raise LayerError(f"with the window {config[size]} on a sample of shape {self.shape}")
        window = window_of(self.shape, outputs, *lengths, padding=config["padding"], groups=groups)
        if min(window.out_height, window.out_width) < 1 or window.in_channels % groups:
            raise LayerError(f"with the window {config[size]} on a sample of shape {self.shape}")
        return window

    def _after(self, window: Window) -> Shape:
        """Return the shape of a sample after a window, which has as many axes as before."""
        return (window.out_height, window.out_width, window.out_channels)[3 - len(self.shape) :]

    def _scaled(self, factor: NDArray[np.floating], offset: NDArray[np.floating]) -> None:
        """Add `factor * x + offset`; behind a product it becomes a part of that."""
        shape = np.broadcast_shapes(factor.shape, offset.shape)
        if np.broadcast_shapes(shape, self.shape) != self.shape:
            raise LayerError(f"with numbers of the shape {shape}")
        last = self.steps[-1] if self.steps else None
        per_channel = all(length == 1 for length in shape[:-1])
        if per_channel and isinstance(last, (Linear, Convolution, Depthwise)):
            channels = (self.shape[-1],)
            parts = [np.broadcast_to(n.reshape(-1), channels) for n in (factor, offset)]
            last.then(*parts)
            return
        self._add(Affine(factor.astype(np.float32), offset.astype(np.float32)), self.shape)

    def _function(self, function: Callable[[Floats], Floats]) -> None:
        self._add(Function(function), self.shape)

    def _add(self, step: Step, shape: Shape) -> None:
        self.steps.append(step)
        self.shape = shape


def _mismatch(weight: Stored, shape: Sequence[int]) -> LayerError:
    return LayerError(f"with {weight.name!r} of shape {weight.shape} for samples of shape {shape}")


_LAYERS_OF_ACTIVATIONS = ("ReLU", "LeakyReLU", "ELU", "Softmax", "Activation", "DiscreteActivation")
# The kinds by the names of their classes. A class that is not listed is refused.
_READERS: dict[str, Callable[[LayerReader, Layer], None]] = {
    "Dense": LayerReader._dense,
    "Conv1D": LayerReader._convolution,
    "Conv2D": LayerReader._convolution,
    "DepthwiseConv1D": LayerReader._depthwise,
    "DepthwiseConv2D": LayerReader._depthwise,
    "MaxPooling1D": LayerReader._pooling,
    "MaxPooling2D": LayerReader._pooling,
    "AveragePooling1D": LayerReader._pooling,
    "AveragePooling2D": LayerReader._pooling,
    "GlobalMaxPooling1D": LayerReader._pooling_of_all,
    "GlobalMaxPooling2D": LayerReader._pooling_of_all,
    "GlobalAveragePooling1D": LayerReader._pooling_of_all,
    "GlobalAveragePooling2D": LayerReader._pooling_of_all,
    "BatchNormalization": LayerReader._batch_normalization,
    "Normalization": LayerReader._normalization,
    "Rescaling": LayerReader._rescaling,
    "LearnableMultiplier": LayerReader._multiplier,
    "TableFeatures": LayerReader._table,
    "Embedding": LayerReader._embedding,
    "DiscreteActivation": LayerReader._discrete_activation,
    "ReLU": LayerReader._relu,
    "LeakyReLU": LayerReader._relu,
    "ELU": LayerReader._elu,
    "Softmax": LayerReader._softmax,
    "Activation": LayerReader._activation,
    "Flatten": LayerReader._flatten,
    "Reshape": LayerReader._reshape,
    "Identity": LayerReader._nothing,
    "Dropout": LayerReader._nothing,
    "SpatialDropout1D": LayerReader._nothing,
    "SpatialDropout2D": LayerReader._nothing,
    "AlphaDropout": LayerReader._nothing,
    "GaussianDropout": LayerReader._nothing,
    "GaussianNoise": LayerReader._nothing,
    "ActivityRegularization": LayerReader._nothing,
}
