"""Save a model on disk as inference needs it, and load it: codes, lists, scales, weights."""

import json
import os
import zlib
from collections.abc import Container
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from quantal._core.by_identity import ByIdentity
from quantal._core.parameter import Parameter, parameters_of
from quantal._models.layer_state import refresh_state
from quantal._models.walk import check_model
from quantal._storage import container
from quantal._storage.names import unused_name
from quantal._storage.record import Record, record_of, restore

VERSION = 1
"""The version of the format, which docs/format.md describes."""
_KINDS = ("codes", "values", "scale")
_DENSEST = 2**16
"""The most elements that a byte may stand for: nearly equal codes take next to nothing."""
_LARGEST_ARCHITECTURE = 2**26
"""The most bytes of an architecture's JSON, so that a small file cannot fill the memory."""


def save(model: keras.Model, path: str | os.PathLike[str]) -> int:
    """Save a model as inference needs it, in as few bytes as its lists allow.

    Use it to hand a trained model on. Latents, the optimizer and the estimators' state
    are left behind: to go on with training, keep `model.save`. The file is in the
    safetensors format; `docs/format.md` describes it, with a reader in forty lines.

    The file holds the packed codes, the list and the scale of every parameter; the
    numbers of every other weight; and the model's architecture, without what it was
    compiled with. The same model gives the same bytes. The file is replaced as a whole:
    whatever goes wrong, an old one is as it was.

    Args:
        model: A built Keras model.
        path: The file. Any ending; `.quantal` is usual.

    Returns:
        The file's size in bytes.

    Raises:
        TypeError: The model is not a Keras model.
        ValueError: The model is not built, or Keras cannot describe its architecture.

    >>> import keras, quantal, tempfile, os
    >>> model = keras.Sequential([keras.Input((3,)), quantal.LearnableMultiplier()])
    >>> path = os.path.join(tempfile.mkdtemp(), "model.quantal")
    >>> save(model, path) < 2000
    True
    >>> load(path).layers[0].codes.shape == (3,)
    True
    """
    check_model(model)
    arrays: dict[str, NDArray[Any]] = {"architecture": _architecture(model)}
    weights: list[dict[str, Any]] = []
    for weight in _saved_weights(model):
        name = unused_name(weight.path, _taken_names(arrays))
        if isinstance(weight, Parameter):
            record = record_of(weight)
            arrays.update({f"{name}.{kind}": array for kind, array in record.arrays.items()})
            weights.append({"name": name, **_entry(weight, record)})
        else:
            arrays[name] = _numbers(weight)
            weights.append({"name": name})
    metadata = {"format": VERSION, "keras": keras.__version__, "weights": weights}
    return container.write(path, arrays, metadata)


def load(path: str | os.PathLike[str]) -> keras.Model:
    """Load a model that `save` wrote; it predicts the same to the bit.

    Its discrete layers are there, each latent on its value: it can be read, baked,
    exported, and trained on, though from where rounding left it. It is not compiled.

    No code is run from the file: layers of your own must be registered with Keras.

    Args:
        path: The file.

    Returns:
        The Keras model.

    Raises:
        ValueError: The file is another one or was changed, or a layer is not known to
            Keras. The message names the file and what in it differs.
        OSError: The file cannot be opened.
    """
    arrays, metadata = container.read(path)
    entries = _checked_entries(path, metadata)
    model = _architecture_of(path, arrays)
    weights = _saved_weights(model)
    if len(weights) != len(entries):
        raise container.refusal(
            path, "the weights", f"{len(entries)} for {len(weights)} of the architecture"
        )
    for weight, entry in zip(weights, entries, strict=True):
        try:
            if isinstance(weight, Parameter):
                _restore(weight, entry, arrays)
            else:
                numbers = arrays[entry["name"]]
                if numbers.shape != tuple(weight.shape):
                    raise ValueError(f"the shape {numbers.shape} for {tuple(weight.shape)}")
                weight.assign(numbers)
        except (KeyError, TypeError, ValueError) as error:
            raise container.refusal(path, repr(entry["name"]), error) from error
    refresh_state(model)
    return model


def _saved_weights(model: keras.Model) -> list[Parameter | keras.Variable]:
    """Return a model's parameters and its other weights, in the order of its weights."""
    parameters = ByIdentity([(p.latent, p) for p in parameters_of(model)])
    left_out = ByIdentity([(v, None) for p in parameters.values() for v in p.other_variables])
    return [
        parameters.get(variable, variable) for variable in model.weights if variable not in left_out
    ]


def _numbers(variable: keras.Variable) -> NDArray[Any]:
    numbers = ops.convert_to_numpy(variable.value)
    # NumPy, and so the container, has no bfloat16 of its own; float32 holds each exactly.
    return numbers.astype(np.float32) if str(numbers.dtype) == "bfloat16" else numbers


def _taken_names(arrays: dict[str, Any]) -> Container[str]:
    """Return the names of arrays, and those of the parameters that they belong to."""
    return {key.rsplit(".", 1)[0] for key in arrays} | set(arrays)


def _architecture(model: keras.Model) -> NDArray[np.uint8]:
    """Return the model's config, as deflated JSON."""
    try:
        config = json.loads(model.to_json())
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(
            f"Keras cannot tell the architecture of {model.name!r} ({error}). Expected "
            "get_config in every layer of your own. Add it, as model.save asks for, too."
        ) from error
    config.pop("compile_config", None)
    text = json.dumps(config, separators=(",", ":"))
    return np.frombuffer(zlib.compress(text.encode(), 9), np.uint8)


def _architecture_of(path: Any, arrays: dict[str, NDArray[Any]]) -> keras.Model:
    """Return the model of a file's architecture; its weights are not yet set."""
    most_elements = _DENSEST * sum(array.nbytes for array in arrays.values())
    try:
        inflater = zlib.decompressobj()
        text = inflater.decompress(arrays["architecture"].tobytes(), _LARGEST_ARCHITECTURE)
        if not inflater.eof:
            raise ValueError("it is too long")
        config = json.loads(text)
        _refuse_huge(config, most_elements)
        # Layers that Keras does not know, and code, are refused by Keras.
        model = keras.saving.deserialize_keras_object(config, safe_mode=True)
    # Keras and the layers' own constructors raise errors of many kinds.
    except Exception as error:
        raise container.refusal(path, "the architecture", error) from error
    if not isinstance(model, keras.Model) or not model.built:
        raise container.refusal(path, "the architecture", "it is not a built model")
    return model


def _refuse_huge(config: Any, most: int) -> None:
    """Refuse an architecture with a size beyond all that the file can hold."""
    if isinstance(config, dict):
        for name, value in config.items():
            if "seed" not in name:
                _refuse_huge(value, most)
    elif isinstance(config, list):
        for value in config:
            _refuse_huge(value, most)
    elif type(config) is int and abs(config) > most:
        raise ValueError(f"it has the size {config}")


def _entry(parameter: Parameter, record: Record) -> dict[str, Any]:
    """Return what a reader must know of a parameter besides its arrays."""
    values = parameter.values
    entry: dict[str, Any] = {
        "shape": list(parameter.shape),
        "base": len(values),
        "packing": "coded" if record.coded else "words",
    }
    return entry if values.channels is None else {**entry, "axis": values.axis}


def _checked_entries(path: Any, metadata: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the entries of the weights, each of which has a name.

    Their shapes are compared with the model's later.
    """
    entries = metadata.get("weights")
    if metadata.get("format") != VERSION or not isinstance(entries, list):
        raise container.refusal(path, "the format", f"version {metadata.get('format')!r}")
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise container.refusal(path, "the list of weights", f"{entry!r}")
    return entries


def _restore(parameter: Parameter, entry: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> None:
    """Set a parameter from the arrays of its entry."""
    shape, base = tuple(entry["shape"]), entry["base"]
    if shape != parameter.shape or base != len(parameter.values):
        raise ValueError(f"the shape {shape} and a list of {base}")
    name = entry["name"]
    by_kind = {kind: arrays[key] for kind in _KINDS if (key := f"{name}.{kind}") in arrays}
    restore(parameter, Record.from_arrays(by_kind, entry["packing"] == "coded"))
