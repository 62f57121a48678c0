"""A layer is described by its config, which may ask for what this runtime does not compute."""

from collections.abc import Mapping
from typing import Any, NamedTuple

Config = Mapping[str, Any]
_PRECISIONS = ("float32", "mixed_float16", "mixed_bfloat16", "float16", "bfloat16")
"""The policies of layers whose numbers float32 holds."""


class LayerError(ValueError):
    """A layer that is no step is refused with this error: it says why."""


class Layer(NamedTuple):
    """A layer as its config describes it.

    Attributes:
        kind: The name of its class.
        name: Its name.
        config: The arguments of its constructor.
    """

    kind: str
    name: str
    config: Config


def layer_of(config: Config) -> Layer:
    """Return the layer of a serialized object; of a subclass the name that it is registered by."""
    inner = config.get("config")
    inner = inner if isinstance(inner, Mapping) else {}
    kind, registered = str(config.get("class_name")), config.get("registered_name")
    if registered not in (None, kind) and not str(registered).startswith("quantal>"):
        kind = str(registered)
    elif not str(config.get("module")).startswith(("keras", "quantal.")):
        kind = f"{config.get('module')}.{kind}"
    return Layer(kind, str(inner.get("name")), inner)


def check_computable(config: Config) -> None:
    """Refuse layers that compute in another precision, or with other weights than their own."""
    policy = config.get("dtype")
    name = policy
    if isinstance(policy, Mapping):
        name = (policy.get("config") or {}).get("name")
        if policy.get("class_name") != "DTypePolicy":
            raise LayerError(f"of the policy {policy.get('class_name')}")
    if name not in (None, *_PRECISIONS):
        raise LayerError(f"that computes in {name}")
    if config.get("lora_rank"):
        raise LayerError("with LoRA")
    if config.get("quantization_config") is not None:
        raise LayerError("with Keras's quantization")


def check_channels_last(layer: Layer) -> None:
    """Refuse a layer whose channels are not the last axis."""
    if layer.config.get("data_format", "channels_last") != "channels_last":
        raise LayerError("with the channels first")
