"""Read quantal's layers for hls4ml, with the exact precision of their lists.

hls4ml asks a table, by the name of a layer's class, for a function that turns a layer into
configurations of its own nodes. `quantal._registration` puts the functions of this file there.
"""

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantal._core.by_identity import ByIdentity
from quantal._core.parameter import Parameter, parameters_of
from quantal._core.tensors.distributed import whole_array
from quantal._export.fixed_point import with_significant_bits
from quantal._export.hls4ml.nodes import (
    BITS_OF_SCALE,
    Affine,
    Config,
    Configs,
    Tensors,
    checked,
    open_type,
    quantizer_of,
    scaling,
)
from quantal._export.hls4ml.weights import split_weight
from quantal.layers.activation import DiscreteActivation
from quantal.layers.discrete import Discrete, unwrapped
from quantal.layers.multiplier import LearnableMultiplier

_SCALED = ("Dense", "Conv1D", "Conv2D")
"""Nodes whose outputs lie along the last axis of their weight, and can be scaled behind it."""


def read_discrete(layer: Discrete, inputs: Tensors, outputs: Tensors) -> Configs:
    """Return hls4ml's configurations of a wrapped layer, its weights with exact precision.

    The list alone says the precision of the weight: `fixed<2,2>` for ±1 and for ternary. A
    scale that is no single power of two multiplies the sums behind the product.

    Args:
        layer: A built layer.
        inputs: Its symbolic inputs.
        outputs: Its symbolic outputs.

    Raises:
        ValueError: hls4ml does not know the wrapped layer, its activation is a
            DiscreteActivation, or the list needs too many bits.
    """
    inner = unwrapped(layer)
    if isinstance(getattr(inner, "activation", None), DiscreteActivation):
        raise ValueError(
            f"The layer {layer.name!r} has a DiscreteActivation as its activation, which hls4ml "
            "reads as a layer alone. Expected it behind the layer: build the model with "
            "activation=None there, and the DiscreteActivation as the next layer."
        )
    listed = _ListedWeights(layer)
    configs = _handler(layer, inner, listed.load)(inner, inputs, outputs)
    for config in configs:
        config["name"] = layer.name + config["name"].removeprefix(inner.name)
    return tuple(part for config in configs for part in listed.quantized(config))


def read_multiplier(layer: LearnableMultiplier, inputs: Tensors, outputs: Tensors) -> Configs:
    """Return hls4ml's configuration of a multiplier: a scale with exact precision."""
    (parameter,) = parameters_of(layer)
    split, sample = split_weight(parameter, scalable=False), tuple(inputs[0].shape[1:])
    shape = layer.broadcast_shape[1:]
    along_last = layer.kernel_axes == [len(sample)]
    numbers = np.reshape(split.numbers, shape)
    numbers = np.broadcast_to(numbers, shape if along_last else sample).ravel()
    names = [[tensor.name for tensor in tensors] for tensors in (inputs, outputs)]
    precision = checked(layer.name, split.precision)
    return (scaling(layer.name, sample, Affine(numbers, np.zeros(1), precision), *names),)


class _ListedWeights:
    """The listed weights of a layer, which hls4ml's own handler loads.

    Args:
        layer: A built `Discrete`.
    """

    def __init__(self, layer: Discrete) -> None:
        self._name = layer.name
        self._parameters: ByIdentity[Parameter] = ByIdentity(
            [(parameter.latent, parameter) for parameter in parameters_of(layer)]
        )
        self._loaded: ByIdentity[Parameter] = ByIdentity()

    def load(self, layer: Any, key: str) -> NDArray[Any]:
        """Return the numbers that meet the data in place of a layer's variable."""
        variable = getattr(layer, key)
        parameter = self._parameters.get(variable)
        if parameter is None:
            return whole_array(variable)
        array = np.array(whole_array(parameter.weight))
        self._loaded[array] = parameter
        return array

    def quantized(self, config: Config) -> Configs:
        """Return a configuration with the precision of its weights, and a scale behind it."""
        arrays = {key: config[key] for key in config if key.endswith("_data")}
        scalable = config["class_name"] in _SCALED
        factor = None
        for key, array in arrays.items():
            parameter = None if array is None else self._loaded.get(array)
            if parameter is None:
                continue
            split = split_weight(parameter, scalable=scalable and key == "weight_data")
            factor = split.factor if factor is None else factor
            config[key] = split.numbers.astype(np.float32)
            stem = key.removesuffix("_data")
            config[f"{stem}_quantizer"] = quantizer_of(checked(self._name, split.precision))
        return (config,) if factor is None else _scaled(config, factor)


def _scaled(config: Config, factor: NDArray[np.float64]) -> Configs:
    """Return a product without bias, and a node that scales its sums and adds the bias."""
    bias = config.get("bias_data")
    bias = np.zeros(1) if bias is None else bias
    outputs = config["output_keras_tensor_names"]
    sums = [f"{name}_sums" for name in outputs]
    affine = Affine(with_significant_bits(factor, BITS_OF_SCALE), bias)
    behind = scaling(f"{config['name']}_scale", _output_shape(config), affine, sums, outputs)
    product = {
        **config,
        "output_keras_tensor_names": sums,
        "bias_data": None,
        "use_bias": False,
        # hls4ml finds the width that the sums need, instead of its default of 16 bits.
        "accum_t": open_type(f"{config['name']}_accum_t"),
    }
    return product, behind


def _output_shape(config: Config) -> tuple[int, ...]:
    """Return the shape of the outputs of a product, from its configuration."""
    if "n_out" in config:
        return (*config["input_shape"][0][:-1], config["n_out"])
    positions = [config[key] for key in ("out_height", "out_width") if key in config]
    return (*positions, config["n_filt"])


def _handler(layer: Discrete, inner: Any, load: Callable[[Any, str], NDArray[Any]]) -> Any:
    """Return hls4ml's handler of a layer, which loads its weights by a function."""
    kind = type(inner)
    table = importlib.import_module("hls4ml.converters.keras_v3").layer_handlers
    handler = table.get(f"{kind.__module__}.{kind.__name__}")
    if handler is None:
        raise ValueError(
            f"The layer {layer.name!r} wraps a layer of the class {kind.__name__}, for which "
            "hls4ml has no handler. Expected a layer that hls4ml converts, such as Dense, "
            "Conv1D, Conv2D or EinsumDense. Export to '.onnx' with the target 'qonnx' instead."
        )
    methods = {"load_weight": lambda _, owner, key: load(owner, key)}
    return type("Listed", (type(handler),), methods)()
