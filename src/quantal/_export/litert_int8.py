"""Write LiteRT files of integers alone, for microcontrollers: weights stay on their lists."""

import importlib
import math
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray

from quantal._core.by_identity import ByIdentity
from quantal._core.keras_internals.layers import flatten_layers, own_variables
from quantal._core.latent_name import weight_name
from quantal._core.parameter import parameters_of
from quantal._core.tensors.distributed import whole_array
from quantal._core.types import Tensor
from quantal._export.folding import folded
from quantal._export.grid import grid_of
from quantal._export.inputs import inputs_of
from quantal._export.litert import convert_to_litert
from quantal._export.target import Written
from quantal._models.inputs import arrays_in_order
from quantal._models.typical_inputs import typical_inputs
from quantal._models.walk import activations_of
from quantal.layers.activation import DiscreteActivation
from quantal.layers.discrete import Discrete, unwrapped
from quantal.layers.multiplier import LearnableMultiplier

_LARGEST = 127
"""The largest int8 of a weight: LiteRT's are symmetric."""
_MOST_LEVEL = 255
"""The most steps of an activation's list from 0 on."""
_ROUNDING = 1.0
"""The converter's numbers may be so far from multiples of integers: it rounds them."""
_SAMPLES = 64
"""So many typical samples say the ranges of activations, where none are given."""
_INT8 = 9
"""The number of the type int8 in the files' schema."""
_PRODUCTS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "MUL")
"""The operators whose second input is a weight."""


def write_litert_int8(model: keras.Model, path: pathlib.Path, inputs: Any = None) -> Written:
    """Write a `.tflite` file of 8-bit integers, inputs and outputs too, as TFLite Micro runs it.

    LiteRT's converter rounds activations to 8 bits in ranges that it sees on samples. Weights are
    exactly on their list: the scale of each output channel is such that the list's integers are
    whole. It takes one sample a call, and is written on the TensorFlow backend.

    Args:
        model: A built model with a fixed input shape.
        path: The file.
        inputs: Samples like those that the model is for, in the structure that it takes; they say
            the ranges of activations. None draws typical ones.

    Raises:
        ValueError: The backend is another; a list has more than 127 even steps on a side, or
            none; a listed weight is no kernel of a Dense or convolution; or a layer needs
            operators that LiteRT does not have for integers.

    Source: https://ai.google.dev/edge/litert/models/quantization_spec.
    """
    if keras.config.backend() != "tensorflow":
        raise ValueError(
            f"The backend is {keras.config.backend()!r}. Keras writes LiteRT files on "
            "TensorFlow. Save with quantal.save, load with KERAS_BACKEND=tensorflow and export "
            "there, or export to '.c'."
        )
    _refuse_recurrent_layers(model)
    _refuse_uneven_lists(model)
    plain = folded(model, rounded_to_int8)
    samples = arrays_in_order(model, typical_inputs(model, _SAMPLES) if inputs is None else inputs)
    file = _with_exact_weights(
        _converted(plain, samples), _kernels(plain, model), tie=int(bool(activations_of(model)))
    )
    path.write_bytes(file)
    return Written([path])


def rounded_to_int8(layer: DiscreteActivation) -> keras.layers.Activation:
    """Return an activation whose results LiteRT's converter holds as int8 with the list's step.

    Raises:
        ValueError: The list is no row of even steps that int8 holds with a 0, or it has a scale for
            each channel.
    """
    levels, scale = layer.values.ascending, layer.scale_value()
    grid = grid_of(levels, _MOST_LEVEL) if levels.ndim == 1 and scale.size == 1 else None
    integers = np.zeros(1, np.int64) if grid is None else grid.integers
    low, high = int(integers[0]), int(integers[-1])
    begin, end = (-128, 127) if low < 0 else (0, _MOST_LEVEL)
    if grid is None or (np.diff(integers) != 1).any() or low < begin or high > end:
        raise ValueError(
            f"The layer {layer.name!r} has {levels.shape[-1]} values that LiteRT's integers do not "
            "hold: one scale, even steps and a 0 on them, from -128 to 127 or from 0 to 255. "
            "Expected Values.unsigned(8, 1 / 64), Values.signed(4), 'ternary' or the like. Export "
            "to '.c' with the target 'c_integer', which holds ±1, too."
        )
    step = float(grid.step) * float(scale.ravel()[0])
    fake = importlib.import_module("tensorflow").quantization.fake_quant_with_min_max_args

    def rounded(x: Tensor) -> Tensor:
        x = fake(x, begin * step, end * step)
        if (low, high) == (begin, end):
            return x
        return fake(keras.ops.clip(x, low * step, high * step), begin * step, end * step)

    return keras.layers.Activation(rounded, name=layer.name)


class _Kernel(NamedTuple):
    """A kernel's integers, outputs first, in the order of a file's weights.

    Attributes:
        path: The weight's path.
        integers: Shape (outputs, inputs).
    """

    path: str
    integers: NDArray[np.int64]


def _refuse_recurrent_layers(model: keras.Model) -> None:
    """Refuse layers with which LiteRT's converter to integers fails, or ends the program."""
    for layer in flatten_layers(model):
        if isinstance(layer, (keras.layers.RNN, keras.layers.Bidirectional)):
            raise ValueError(
                f"The layer {layer.name!r} is of the class {type(layer).__name__}, which LiteRT's "
                "converter does not turn into integers. Expected layers without a state. Export to "
                "'.c', which holds recurrent layers."
            )


def _refuse_uneven_lists(model: keras.Model) -> None:
    for parameter in parameters_of(model):
        for numbers in np.atleast_2d(parameter.values.numbers):
            if grid_of(numbers, _LARGEST) is None:
                raise ValueError(
                    f"The weight {parameter.path!r} is on a list of {len(numbers)} values that "
                    f"has no even steps, or more than {_LARGEST} on a side of 0. Expected ±1, "
                    "ternary, [1, -1, 0.5, -0.5], Values.signed(4) or the like. Export to '.c', "
                    "which holds any list."
                )


def _kernels(plain: keras.Model, model: keras.Model) -> list[_Kernel]:
    """Return the integers of each listed weight, as the plain model that is converted has it.

    The plain model's layers have the names of the old ones, or of the wrappers around them.
    Multipliers that are folded into their neighbours have changed the numbers there.
    """
    layers = flatten_layers(model)
    # An outer wrapper stands before those inside it.
    wrappers = ByIdentity(
        [(unwrapped(layer), layer) for layer in reversed(layers) if isinstance(layer, Discrete)]
    )
    parameters = ByIdentity([(parameter.latent, parameter) for parameter in parameters_of(model)])
    plain_weights = {
        (layer.name, variable.name): (layer, variable)
        for layer in flatten_layers(plain)
        for variable in own_variables(layer)
    }
    kernels = []
    for layer in layers:
        for latent in own_variables(layer):
            if latent not in parameters or isinstance(layer, LearnableMultiplier):
                continue
            name = wrappers.get(layer, layer).name, weight_name(latent)
            rows = np.ones((1, 1), np.float32)
            if name in plain_weights and len(latent.shape) > 1:
                rows = _outputs_first(*plain_weights[name])
            kernels.append(_Kernel(parameters[latent].path, _integers(rows)))
    return kernels


def _outputs_first(layer: Any, variable: Any) -> NDArray[np.float32]:
    """Return a weight in the order of a file: outputs, and what each of them multiplies."""
    kernel = whole_array(variable)
    if isinstance(layer, (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)):
        return np.moveaxis(kernel, (-2, -1), (0, 1)).reshape(-1, math.prod(kernel.shape[:-2]))
    return np.moveaxis(kernel, -1, 0).reshape(kernel.shape[-1], -1)


def _integers(rows: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return rows of numbers as integers, each row on the grid of its own numbers."""
    integers = np.zeros(rows.shape, np.int64)
    for row, result in zip(rows, integers, strict=True):
        grid = grid_of(np.unique(row), _LARGEST)
        if grid is not None:
            result[:] = np.round(row / grid.step)
    return integers


def _converted(plain: keras.Model, samples: Sequence[NDArray[Any]]) -> bytes:
    """Return a plain model as a file of integers, by LiteRT's converter."""
    tensorflow = importlib.import_module("tensorflow")
    count = min(map(len, samples))

    def representative() -> Iterator[list[NDArray[Any]]]:
        for index in range(count):
            yield [array[index : index + 1] for array in samples]

    signature = keras.tree.map_structure(
        lambda tensor: keras.InputSpec(tensor.dtype, (1, *tensor.shape[1:]), name=tensor.name),
        inputs_of(plain),
    )
    return convert_to_litert(
        plain,
        input_signature=[signature],
        optimizations=[tensorflow.lite.Optimize.DEFAULT],
        representative_dataset=representative,
        target_spec={"supported_ops": [tensorflow.lite.OpsSet.TFLITE_BUILTINS_INT8]},
        inference_input_type=tensorflow.int8,
        inference_output_type=tensorflow.int8,
    )


def _with_exact_weights(file: bytes, kernels: Sequence[_Kernel], tie: int = 0) -> bytes:
    """Return a file whose weights are multiples of their lists' integers.

    Args:
        file: The converter's file.
        kernels: The integers.
        tie: What is added to each bias, in units far below a product's: 1 makes the larger value
            win on the middle between two, where LiteRT rounds away from 0.

    Raises:
        ValueError: The converter changed a weight by more than its rounding.
    """
    tools = importlib.import_module("tensorflow.lite.tools.flatbuffer_utils")
    model = tools.convert_bytearray_to_object(bytearray(file))
    missing = list(kernels)
    for graph in model.subgraphs:
        products = _Products(model.buffers, graph.tensors, tie)
        for operator in graph.operators:
            if _kind(model, operator) in _PRODUCTS:
                kernel = products.set_exactly(operator, missing)
                missing = [other for other in missing if other is not kernel]
    if missing:
        raise ValueError(
            f"LiteRT's converter changed the weights {[kernel.path for kernel in missing]}: they "
            "are on their lists no more. Expected kernels of Dense, Conv1D, Conv2D or "
            "DepthwiseConv2D. Put one of these in their place, or export to '.c'."
        )
    return bytes(tools.convert_object_to_bytearray(model))


def _kind(model: Any, operator: Any) -> str:
    """Return the name of an operator."""
    schema = importlib.import_module("tensorflow.lite.python.schema_py_generated")
    code = model.operatorCodes[operator.opcodeIndex]
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    return next(name for name, n in vars(schema.BuiltinOperator).items() if n == number)


class _Products:
    """The products of a graph, whose weights are set to exact multiples of integers.

    Args:
        buffers: The file's buffers.
        tensors: The graph's tensors.
        tie: What is added to each bias.
    """

    def __init__(self, buffers: Any, tensors: Any, tie: int) -> None:
        self._buffers = buffers
        self._tensors = tensors
        self._tie = tie
        # By how much the scales of a weight have become larger, by the tensor's number.
        self._ratios: dict[int, NDArray[np.float64]] = {}

    def set_exactly(self, operator: Any, kernels: Sequence[_Kernel]) -> _Kernel | None:
        """Set an operator's weights and bias to the kernel that they are; return that kernel."""
        number, kernel = int(operator.inputs[1]), None
        if number not in self._ratios:
            kernel = self._set_weights(number, kernels)
        bias = int(operator.inputs[2]) if len(operator.inputs) > 2 else -1
        if number in self._ratios and bias >= 0 and bias not in self._ratios:
            self._ratios[bias] = self._ratios[number]
            self._set_bias(self._tensors[bias], self._ratios[number])
        return kernel

    def _set_weights(self, number: int, kernels: Sequence[_Kernel]) -> _Kernel | None:
        tensor = self._tensors[number]
        data = self._buffers[tensor.buffer].data
        if tensor.type != _INT8 or data is None or tensor.quantization.scale is None:
            return None
        if not len(tensor.shape):  # A constant factor.
            return None
        scale = np.asarray(tensor.quantization.scale, np.float64)
        axis = int(tensor.quantization.quantizedDimension)
        codes = np.moveaxis(np.frombuffer(bytes(data), np.int8).reshape(tensor.shape), axis, 0)
        rows = codes.reshape(len(codes), -1).astype(np.int64)
        for kernel in kernels:
            signs = _signs(rows, kernel.integers)
            if signs is None:
                continue
            largest = np.abs(kernel.integers).max(axis=1, initial=1)
            if len(scale) == 1:
                largest = np.broadcast_to(largest.max(), largest.shape)
            multiple = _LARGEST // largest
            exact = kernel.integers * (signs * multiple)[:, None]
            ratio = _LARGEST / (largest * multiple)
            exact = np.moveaxis(exact.reshape(codes.shape), 0, axis).astype(np.int8)
            self._buffers[tensor.buffer].data = np.frombuffer(exact.tobytes(), np.uint8)
            tensor.quantization.scale = (scale * ratio[: len(scale)]).astype(np.float32)
            self._ratios[number] = ratio
            return kernel
        return None

    def _set_bias(self, tensor: Any, ratio: NDArray[np.float64]) -> None:
        data = self._buffers[tensor.buffer].data
        if data is None:
            return
        scale = np.asarray(tensor.quantization.scale, np.float64)
        numbers = np.frombuffer(bytes(data), np.int32) / ratio
        rounded = np.round(numbers).astype(np.int32) + np.int32(self._tie)
        self._buffers[tensor.buffer].data = np.frombuffer(rounded.tobytes(), np.uint8)
        tensor.quantization.scale = (scale * ratio[: len(scale)]).astype(np.float32)


def _signs(rows: NDArray[np.int64], integers: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """Return the sign of each row of integers whose rounded multiple a file holds; else None.

    The converter scales the largest magnitude of each row to 127; a negative factor of batch
    normalization turns a row's signs.
    """
    if rows.shape != integers.shape:
        return None
    largest = np.abs(integers).max(axis=1, initial=1, keepdims=True)
    expected = integers * (_LARGEST / largest)
    same, opposite = (np.abs(rows - sign * expected).max(axis=1, initial=0) for sign in (1, -1))
    if (np.minimum(same, opposite) > _ROUNDING).any():
        return None
    return np.where(same <= opposite, 1, -1)
