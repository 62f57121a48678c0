"""A model on disk as inference needs it: codes, lists, scales, the other weights."""

import json
import os
import zlib
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from quantal._core.parameter import Parameter, parameters_of
from quantal._models.walk import check_model
from quantal._storage import container
from quantal._storage.record import restore, stored

_KINDS = ("codes", "values", "scale")
VERSION = 1
"""Of the format; docs/format.md describes it."""
_DENSEST = 2**16  # Elements that a byte may stand for: nearly equal codes take next to nothing.
_LARGEST_ARCHITECTURE = 2**26  # Bytes of its JSON.


def save(model: keras.Model, path: str | os.PathLike[str]) -> int:
    """Save a model as inference needs it, in as few bytes as its lists allow.

    Use it to hand a trained model on. Latents, the optimizer and the estimators' state
    are left behind: to go on with training, keep `model.save`. The file is in the
    safetensors format; `docs/format.md` describes it, with a reader in forty lines.

    Of every parameter it holds the packed codes, the list and the scale; of other
    weights their numbers; and the model's architecture, without what it was compiled
    with. The same model gives the same bytes. The file is written beside `path` and
    moved into place.

    Args:
        model: A built Keras model.
        path: The file. Any ending; `.quantal` is usual.

    Returns:
        The file's size in bytes.

    Raises:
        TypeError: It is not a Keras model.
        ValueError: The model is not built, or Keras cannot tell its architecture.

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
    for slot in _slots(model):
        name = _unused(slot.path, arrays)
        if isinstance(slot, Parameter):
            weights.append({"name": name, **_put(slot, name, arrays)})
        else:
            numbers = ops.convert_to_numpy(slot.value)
            if str(numbers.dtype) == "bfloat16":
                numbers = numbers.astype(np.float32)
            arrays[name] = numbers
            weights.append({"name": name})
    about = {"format": VERSION, "keras": keras.__version__, "weights": weights}
    return container.write(path, arrays, about)


def load(path: str | os.PathLike[str]) -> keras.Model:
    """The model that `save` wrote, as a Keras model; it predicts the same to the bit.

    Its discrete layers are there, each latent on its value: it can be read, baked,
    exported, and trained on, though from where rounding left it. It is not compiled.

    No code is run from the file: layers of your own must be registered with Keras.

    Args:
        path: The file.

    Raises:
        ValueError: The file is another, or was changed; or a layer is not known to
            Keras. It names the file and the place.
        OSError: The file cannot be opened.
    """
    arrays, about = container.read(path)
    if about.get("format") != VERSION or not isinstance(about.get("weights"), list):
        raise container.refusal(path, "the format", f"version {about.get('format')!r}")
    _check_entries(path, about["weights"])
    model = _rebuilt(path, arrays)
    slots = _slots(model)
    if len(slots) != len(about["weights"]):
        raise container.refusal(
            path, "the weights", f"{len(about['weights'])} for {len(slots)} of the architecture"
        )
    for slot, entry in zip(slots, about["weights"], strict=True):
        name = entry["name"]
        try:
            if isinstance(slot, Parameter):
                _take(slot, entry, arrays)
            else:
                numbers = arrays[name]
                if numbers.shape != tuple(slot.shape):
                    raise ValueError(f"the shape {numbers.shape} for {tuple(slot.shape)}")
                slot.assign(numbers)
        except (KeyError, TypeError, ValueError) as error:
            raise container.refusal(path, repr(name), error) from error
    return model


def _slots(model: keras.Model) -> list[Parameter | keras.Variable]:
    """What of a model is kept: its parameters and its other weights, in their order."""
    parameters = {id(parameter.latent): parameter for parameter in parameters_of(model)}
    theirs = {id(variable) for p in parameters.values() for variable in p.other_variables}
    kept: list[Parameter | keras.Variable] = []
    for variable in model.weights:
        if id(variable) in parameters:
            kept.append(parameters[id(variable)])
        elif id(variable) not in theirs:
            kept.append(variable)
    return kept


def _architecture(model: keras.Model) -> NDArray[np.uint8]:
    """The model's config, as deflated JSON."""
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


def _unused(name: str, arrays: dict[str, Any]) -> str:
    """The name, with a number where it is taken: layers may share one."""
    taken = {key.rsplit(".", 1)[0] for key in arrays} | set(arrays)
    found, count = name, 1
    while found in taken:
        count += 1
        found = f"{name}#{count}"
    return found


def _put(parameter: Parameter, name: str, arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """Add a parameter's arrays; what its codes' bytes mean."""
    values, held = parameter.values, stored(parameter)
    arrays.update({f"{name}.{what}": array for what, array in held.arrays.items()})
    entry: dict[str, Any] = {
        "shape": list(parameter.shape),
        "base": len(values),
        "packing": "coded" if held.coded else "words",
    }
    return entry if values.channels is None else {**entry, "axis": values.axis}


def _take(parameter: Parameter, entry: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> None:
    """Set a parameter from its arrays."""
    shape, base = tuple(entry["shape"]), entry["base"]
    if shape != parameter.shape or base != len(parameter.values):
        raise ValueError(f"the shape {shape} and a list of {base}")
    own = {name: arrays[key] for name in _KINDS if (key := f"{entry['name']}.{name}") in arrays}
    restore(parameter, own, entry["packing"] == "coded")


def _check_entries(path: Any, weights: list[Any]) -> None:
    """Refuse entries without a name; their shapes are compared with the model's later."""
    for entry in weights:
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise container.refusal(path, "the list of weights", f"{entry!r}")


def _rebuilt(path: Any, arrays: dict[str, NDArray[Any]]) -> keras.Model:
    """The model of a file's architecture, its weights not yet set."""
    elements = _DENSEST * sum(array.nbytes for array in arrays.values())
    try:
        coder = zlib.decompressobj()
        text = coder.decompress(arrays["architecture"].tobytes(), _LARGEST_ARCHITECTURE)
        if not coder.eof:
            raise ValueError("it is too long")
        config = json.loads(text)
        _refuse_huge(config, elements)
        # Layers that Keras does not know, and code, are refused by Keras.
        model = keras.saving.deserialize_keras_object(config, safe_mode=True)
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
