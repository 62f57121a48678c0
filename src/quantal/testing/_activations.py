"""Discrete activations are followed through a call: what they give, and what pads it."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

from quantal._core.by_identity import ByIdentity
from quantal._core.keras_internals.graph import operation_name
from quantal._core.keras_internals.interception import calls_replaced
from quantal._core.numbers.scaled_steps import scaled_levels
from quantal._core.tensors.backend import has_numbers, loops_unrolled, without_gradients
from quantal._core.tensors.distributed import whole_array
from quantal._core.tensors.kept import nothing_kept
from quantal._core.types import Tensor
from quantal._models.walk import activations_of
from quantal.layers.activation import DiscreteActivation
from quantal.layers.discrete import Discrete
from quantal.testing.tracing import input_tensors, numbers_besides

_SHOWN = 5
"""A problem shows at most so many numbers."""

_CONVOLUTIONS = (
    layers.Conv1D, layers.Conv2D, layers.Conv3D, layers.DepthwiseConv1D, layers.DepthwiseConv2D,
    layers.SeparableConv1D, layers.SeparableConv2D,
)  # fmt: skip
"""Layers whose padding puts zeros around their inputs. A transposed one's takes outputs away."""

_ZERO_PADDINGS = (layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D)

_SELECTIONS = (
    layers.MaxPooling1D, layers.MaxPooling2D, layers.MaxPooling3D, layers.Cropping1D,
    layers.Cropping2D, layers.Cropping3D, layers.UpSampling1D, layers.UpSampling2D,
    layers.UpSampling3D, layers.Reshape, layers.Permute,
)  # fmt: skip
"""Layers whose outputs are some of their inputs, in another order. In inference Dropout and its
like return the very tensor that they get."""

_SAME_NUMBERS = ("reshape", "transpose", "squeeze", "expanddims")
"""Operations of a graph whose outputs are their inputs in another shape."""


def problems_of_activations(model: keras.Layer, inputs: Any) -> tuple[list[str], list[str]]:
    """Return what is wrong with the discrete activations of a model, and what pads them with zeros.

    Both are texts in the order of the model's call. The model is called in inference, and is
    unchanged afterwards.

    Args:
        model: A built model or layer.
        inputs: Example data; None draws some for a model that has Inputs.
    """
    activations = activations_of(model)
    if not activations:
        return [], []
    inputs = input_tensors(model, inputs)
    follower = _followed(model, inputs, contextlib.nullcontext())
    if follower.has_symbols:
        follower = _followed(model, inputs, loops_unrolled())
    unread = [layer for layer in activations if layer not in follower.read]
    problems = follower.problems + [
        f"the activation {layer.name!r} gave no numbers that could be read: it was not called, "
        "or only within a compiled function"
        for layer in unread
    ]
    return problems, follower.zeros


def _followed(
    model: keras.Layer, inputs: Any, scope: contextlib.AbstractContextManager[None]
) -> "_Follower":
    follower = _Follower()
    variables = [(variable, variable.value) for variable in model.variables]
    with (
        nothing_kept(),
        without_gradients(),
        scope,
        calls_replaced(follower.call),
        keras.StatelessScope(variables, collect_losses=True),
    ):
        model(inputs, training=False)
    return follower


class _Follower:
    """A follower sees each call of a layer, and notes what is wrong.

    Attributes:
        problems: A text for each activation's call with outputs off its list.
        zeros: A text for each convolution that meets a list without 0 with zeros, or other
            numbers that are not listed, around it.
        read: The activations whose outputs had numbers.
        has_symbols: Whether an activation had outputs without numbers, as in a compiled loop.
    """

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.zeros: list[str] = []
        self.read: ByIdentity[None] = ByIdentity()
        self.has_symbols = False
        self._met: ByIdentity[None] = ByIdentity()
        # Tensors of lists without 0, and what puts other numbers around such a tensor.
        self._nonzero: ByIdentity[DiscreteActivation] = ByIdentity()
        self._padded: ByIdentity[tuple[DiscreteActivation, str]] = ByIdentity()

    def call(
        self,
        layer: keras.Layer,
        call: Callable[..., Any],
        arguments: tuple[Any, ...],
        options: dict[str, Any],
    ) -> Any:
        """Call a layer, and follow what goes in and out."""
        inputs = arguments[0] if arguments else None
        convolution = layer.layer if isinstance(layer, Discrete) else layer
        # A wrapped one is called within the wrapper's call.
        if isinstance(convolution, _CONVOLUTIONS) and convolution not in self._met:
            count = len(self.zeros)
            self._meet(convolution, layer.name, inputs)
            if len(self.zeros) > count:
                self._met[convolution] = None
        outputs = call(*arguments, **options)
        if isinstance(layer, DiscreteActivation):
            self._read(layer, outputs)
        elif isinstance(layer, layers.TimeDistributed):
            if isinstance(layer.layer, DiscreteActivation):  # Its call is called, but not itself.
                self._read(layer.layer, outputs, has_steps=True)
        elif inputs in self._nonzero:
            self._pass_on(layer, self._nonzero[inputs], outputs)
            if operation_name(layer) == "pad":
                number = arguments[1:] or [options.get("constant_values")]
                self._pad(layer, self._nonzero[inputs], number[0], outputs)
        elif isinstance(inputs, (list, tuple)) and _joins(layer):
            self._join(layer.name, inputs, outputs)
        return outputs

    def _read(self, layer: DiscreteActivation, outputs: Tensor, has_steps: bool = False) -> None:
        """Check the outputs of an activation.

        Args:
            layer: The activation.
            outputs: What it gave.
            has_steps: Whether they are those of many steps, along axis 1.
        """
        if not has_numbers(outputs):
            self.has_symbols = True
            return
        self.read[layer] = None
        dtype = keras.backend.standardize_dtype(outputs.dtype)
        levels = scaled_levels(layer.values, layer.scale_value(), len(outputs.shape) - has_steps)
        if has_steps:
            levels = np.expand_dims(levels, 2)
        if np.all(levels):
            self._nonzero[outputs] = layer
        rounded = whole_array(ops.cast(ops.convert_to_tensor(levels), dtype))
        others = _numbers_off(rounded, whole_array(outputs))
        if others.size:
            scaled = "" if layer.scale is None else " times its scale"
            self.problems.append(
                f"{others.size} of {int(np.prod(outputs.shape))} outputs of the activation "
                f"{layer.name!r} ({dtype}) are not in {layer.values}{scaled}: {others[:_SHOWN]}"
            )

    def _pass_on(self, layer: keras.Layer, activation: DiscreteActivation, outputs: Tensor) -> None:
        """Follow a tensor of a list without 0 through a layer."""
        is_mean = getattr(layer, "interpolation", "nearest") != "nearest"
        is_selection = isinstance(layer, _SELECTIONS) and not is_mean
        if is_selection or operation_name(layer) in _SAME_NUMBERS:
            self._nonzero[outputs] = activation
        elif isinstance(layer, _ZERO_PADDINGS) and np.any(layer.padding):
            self._padded[outputs] = activation, f"{layer.name!r} puts zeros"

    def _pad(
        self, operation: Any, activation: DiscreteActivation, number: Any, outputs: Tensor
    ) -> None:
        """Follow a tensor of a list without 0 through `keras.ops.pad`.

        Args:
            operation: The operation.
            activation: The activation that gave its input.
            number: The number that it pads with; None for 0.
            outputs: Its output.
        """
        number = np.float32(0 if number is None else number)
        levels = scaled_levels(activation.values, activation.scale_value(), len(outputs.shape))
        if operation.mode != "constant" or np.all(np.any(levels == number, axis=0)):
            self._nonzero[outputs] = activation
        elif np.any(operation.pad_width):
            what = "zeros" if number == 0 else f"{number:g}, which it does not give,"
            self._padded[outputs] = activation, f"{operation.name!r} puts {what}"

    def _join(self, name: str, inputs: Sequence[Any], outputs: Tensor) -> None:
        """Follow tensors of lists without 0 through a concatenation, with zeros or without."""
        listed = [self._nonzero[tensor] for tensor in inputs if tensor in self._nonzero]
        others = [tensor for tensor in inputs if tensor not in self._nonzero]
        if not listed:
            return
        if not others:
            self._nonzero[outputs] = listed[0]
        elif any(
            has_numbers(o) and not np.any(whole_array(ops.cast(o, "float32"))) for o in others
        ):
            self._padded[outputs] = listed[0], f"{name!r} puts zeros"

    def _meet(self, convolution: keras.Layer, name: str, inputs: Tensor) -> None:
        """Check what a convolution takes."""
        if inputs in self._padded:
            activation, padding = self._padded[inputs]
            self._report_zeros(activation, f"{padding} around it before {name!r}")
        elif inputs in self._nonzero and _pads(convolution, tuple(inputs.shape)):
            padding = convolution.padding
            self._report_zeros(
                self._nonzero[inputs], f"{name!r} puts zeros around it (padding={padding!r})"
            )

    def _report_zeros(self, activation: DiscreteActivation, what: str) -> None:
        self.zeros.append(
            f"the activation {activation.name!r} has a list without 0, {activation.values}, and "
            f"{what}. Expected listed values alone in a convolution. Pad by keras.ops.pad(x, ..., "
            "constant_values=...) with a value that the activation gives, and let the "
            "convolution have padding='valid'"
        )


def _joins(layer: Any) -> bool:
    """Return whether a layer, or an operation of a graph, concatenates its inputs."""
    return isinstance(layer, layers.Concatenate) or operation_name(layer) == "concatenate"


def _numbers_off(levels: NDArray[Any], outputs: NDArray[Any]) -> NDArray[np.float64]:
    """Return the outputs that are not among the levels.

    Args:
        levels: Shape (K, ...); the other axes broadcast over the outputs.
        outputs: The outputs.
    """
    sizes = levels.shape[1:]
    others = []
    for index in np.ndindex(sizes):
        part = tuple(i if n > 1 else slice(None) for i, n in zip(index, sizes, strict=True))
        others.append(numbers_besides(outputs[part], levels[(slice(None), *index)]))
    return np.concatenate(others)


def _pads(layer: keras.Layer, shape: Sequence[int]) -> bool:
    """Return whether a convolution puts zeros around inputs of a shape; one of size 1 does not."""
    if layer.padding == "valid":
        return False
    lengths = shape[1:-1] if layer.data_format == "channels_last" else shape[2:]
    for length, size, stride, dilation in zip(
        lengths, layer.kernel_size, layer.strides, layer.dilation_rate, strict=True
    ):
        reach = (size - 1) * dilation
        last = (-(-length // stride) - 1) * stride
        if reach and (layer.padding == "causal" or last + reach + 1 > length):
            return True
    return False
