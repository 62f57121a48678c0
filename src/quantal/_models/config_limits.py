"""What the config of a file may ask for, by the weights that the file holds.

Weights need no limit: a skeleton takes no memory for them and is compared with the arrays. These
limits are for what costs time or memory while Keras builds a model: layers, calls of models
within models, and sizes.
"""

from collections.abc import Iterator
from typing import Any

_FEWEST_CALLS = 3000
_CALLS_A_WEIGHT = 20
"""A model may have so many layers and calls of layers, and so many more for each weight.

Of the models of keras.applications none has more than 2 a weight; a call takes milliseconds."""
_LAYERS_CONNECTED_IN_A_CALL = 16
"""So many layers are connected in the time of a call, about."""
_LARGEST = 2**25
_LARGEST_A_BYTE = 2**6
"""Sizes, and products of sizes in a shape, are at most this, and so much more for each byte."""
_LARGEST_CONSTANT = 2**22
"""The largest product of sizes where a layer computes constants of its input's size."""
_LONGEST_LOOP = 2**12
"""The most steps of a recurrent layer that repeats its cell for each."""
_NOT_SIZES = ("seed", "salt", "num_bins", "value")
"""What the names of integers contain that no memory is taken for."""
_NO_LAYERS = ("keras.initializers", "keras.regularizers", "keras.constraints", "builtins")
"""The modules of objects that Keras creates at once."""


def check_config(config: Any, weights: int, stored_bytes: int) -> None:
    """Refuse a config that asks for more than a file explains.

    Args:
        config: The config, as JSON made it.
        weights: How many weights the file has.
        stored_bytes: How many bytes the file has.

    Raises:
        ValueError: It has too many layers or too large sizes.
        RecursionError: It is too deep.
    """
    most = _FEWEST_CALLS + _CALLS_A_WEIGHT * weights
    calls = _cost(config)[1]
    if calls > most:
        count = calls if calls < 10**9 else "more than 1e9"
        raise ValueError(f"it has {count} layers and calls of layers, more than {most}")
    largest = _LARGEST_CONSTANT if any(map(_has_constants, _objects(config))) else _LARGEST
    _check_sizes(config, largest + _LARGEST_A_BYTE * stored_bytes)
    if any(entry.get("unroll") is True for entry in _objects(config)):
        for shape in _shapes(config):
            if len(shape) > 2 and type(shape[1]) is int and shape[1] > _LONGEST_LOOP:
                raise ValueError(f"it repeats a cell {shape[1]} times, more than {_LONGEST_LOOP}")


def _cost(config: Any) -> tuple[int, int]:
    """Return how many layers a call of an object calls, and how many are built and called."""
    if isinstance(config, list):
        costs = [_cost(entry) for entry in config]
        return sum(cost[0] for cost in costs), sum(cost[1] for cost in costs)
    if not isinstance(config, dict):
        return 0, 0
    calls, total = _cost(list(config.values()))
    if isinstance(config.get("class_name"), str) and _is_layer(config):
        nodes = config.get("inbound_nodes")
        calls = (calls + 1) * max(1, len(nodes) if isinstance(nodes, list) else 1)
        total += calls
        if config["class_name"] == "Sequential":
            # Keras connects all layers anew with each one that is added.
            total += _number_of_layers(config) ** 2 // _LAYERS_CONNECTED_IN_A_CALL
    return calls, total


def _number_of_layers(config: dict[str, Any]) -> int:
    inner = config.get("config")
    layers = inner.get("layers") if isinstance(inner, dict) else None
    return len(layers) if isinstance(layers, list) else 0


def _is_layer(entry: dict[str, Any]) -> bool:
    """Return whether an object may be a layer or a model, which takes time to build."""
    if entry["class_name"].startswith("__") or entry["class_name"] in ("function", "DTypePolicy"):
        return False
    return not str(entry.get("module")).startswith(_NO_LAYERS)


def _has_constants(entry: dict[str, Any]) -> bool:
    """Return whether a layer spreads numbers of its config over its input's size."""
    inner = entry.get("config")
    is_normalization = entry.get("class_name") == "Normalization"
    return is_normalization and isinstance(inner, dict) and inner.get("mean") is not None


def _check_sizes(config: Any, most: int, name: str = "") -> None:
    """Refuse an integer, or a shape, beyond a limit."""
    if isinstance(config, dict):
        for key, entry in config.items():
            _check_sizes(entry, most, key)
    elif isinstance(config, list):
        if _product(config) > most:
            raise ValueError(f"it has the size {str(config)[:99]} in {name!r}, above {most}")
        for entry in config:
            _check_sizes(entry, most, name)
    elif type(config) is int and abs(config) > most and not any(n in name for n in _NOT_SIZES):
        raise ValueError(f"it has the size {str(config)[:99]} in {name!r}, above {most}")


def _product(entries: list[Any]) -> int:
    """Return the product of a list that is a shape, without open sizes; 0 for other lists."""
    product = 1
    for entry in entries:
        if entry is not None and (type(entry) is not int or abs(entry) > 2**63):
            return 0
        product *= min(abs(entry or 1), 2**63)
        if product > 2**63:
            return product
    return product


def _objects(config: Any) -> Iterator[dict[str, Any]]:
    """Yield all mappings in a config."""
    if isinstance(config, dict):
        yield config
    if isinstance(config, (dict, list)):
        for entry in config.values() if isinstance(config, dict) else config:
            yield from _objects(entry)


def _shapes(config: Any) -> Iterator[list[Any]]:
    """Yield all lists of the mappings in a config whose names speak of a shape."""
    for entry in _objects(config):
        for name, value in entry.items():
            if "shape" in name and isinstance(value, list):
                yield value
