"""Read the config of a Sequential or functional model as one chain of layers."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from quantal.runtime._layer_config import Layer, LayerError, layer_of

_MODELS = ("Sequential", "Functional")
_WRAPPER = "Discrete"


class ChainOfLayers(NamedTuple):
    """A chain is the layers of a model in the order of their calls.

    Attributes:
        name: The model's name.
        layers: The layers.
        input_shape: The shape of a sample.
    """

    name: str
    layers: list[Layer]
    input_shape: tuple[int, ...]


def chain_of(config: Any) -> ChainOfLayers:
    """Return the chain of a model's config.

    Raises:
        LayerError: The model has branches, or an open size in its input.
        Exception: It is no config of a model.
    """
    model = layer_of(config)
    if model.kind not in _MODELS:
        raise LayerError(f"of the class {model.kind}, not Sequential or functional")
    layers = list(_layers_of(model))
    inputs = [layer for layer in layers if layer.kind == "InputLayer"]
    shape = _input_shape(model, inputs[0] if inputs else None)
    others = [layer for layer in layers if layer.kind != "InputLayer"]
    return ChainOfLayers(model.name, others, shape)


def _input_shape(model: Layer, layer: Layer | None) -> tuple[int, ...]:
    """Return the shape of a sample; a Sequential may have no layer for its input."""
    shape = layer.config["batch_shape"] if layer else model.config["build_input_shape"]
    if layer and (layer.config.get("sparse") or layer.config.get("ragged")):
        raise LayerError("with a sparse or ragged input")
    if not all(type(length) is int and length > 0 for length in shape[1:]):
        raise LayerError(f"with the open input shape {tuple(shape)}")
    return tuple(shape[1:])


def _layers_of(model: Layer) -> Iterator[Layer]:
    """Yield the layers of a model in order, those of models inside it too."""
    previous = None
    configs = model.config["layers"]
    for config in configs:
        if model.kind == "Functional":
            _check_call(model, config, previous)
            previous = config["name"]
        yield from _unwrapped(layer_of(config))
    if model.kind == "Functional":
        ends = [model.config["input_layers"], model.config["output_layers"]]
        first, last = ([end] if isinstance(end[0], str) else end for end in ends)
        names = [configs[0]["name"]], [configs[-1]["name"]]
        if ([end[0] for end in first], [end[0] for end in last]) != names:
            raise LayerError(f"{model.name!r} with several inputs, outputs or branches")


def _unwrapped(layer: Layer) -> Iterator[Layer]:
    """Yield the layer that a wrapper puts on a list, the layers of a model, or the layer."""
    if layer.kind == _WRAPPER:
        yield from _unwrapped(layer_of(layer.config["layer"]))
    elif layer.kind in _MODELS:
        yield from _layers_of(layer)
    else:
        yield layer


def _check_call(model: Layer, config: Mapping[str, Any], previous: str | None) -> None:
    """Refuse a layer that is not called once, on the result of the one before it."""
    nodes = config["inbound_nodes"]
    sources = [list(_tensors(node)) for node in nodes]
    expected = [] if previous is None else [[[previous, 0, 0]]]
    if sources != expected:
        raise LayerError(
            f"{model.name!r} with branches: {config['name']!r} is not called once, on the result "
            "of the layer before it"
        )
    if any(node.get("kwargs", {}).get("training") for node in nodes):
        raise LayerError(f"{model.name!r}, where {config['name']!r} is called with training=True")


def _tensors(content: Any) -> Iterator[Any]:
    """Yield where each tensor among the arguments of a call is from."""
    if isinstance(content, Mapping):
        if content.get("class_name") == "__keras_tensor__":
            yield content["config"]["keras_history"]
            return
        content = list(content.values())
    if isinstance(content, list):
        for part in content:
            yield from _tensors(part)
