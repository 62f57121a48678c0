"""Save a model on disk as inference needs it, and load it: codes, lists, scales, weights."""

import contextlib
import json
import math
import os
import random
import tempfile
import zlib
from collections.abc import Container, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray

from quantal._core.keras_internals.scopes import names_from_the_start
from quantal._core.parameter import Parameter
from quantal._core.processes import written_once
from quantal._core.tensors.distributed import whole_array
from quantal._models.config_limits import check_config
from quantal._models.layer_state import (
    assets_of,
    check_kept,
    keeps_more,
    load_assets,
    refresh_state,
)
from quantal._models.skeleton import (
    Skeleton,
    Slot,
    cause_of,
    config_of,
    first_difference,
    first_error,
    name_slots,
    names_of_code,
    skeleton_of,
    slots_of,
    unknown_class,
)
from quantal._models.walk import check_model
from quantal._storage import container
from quantal._storage.entries import MOST_OF_ONE, VERSION, checked_entries, checked_sum, claimed
from quantal._storage.names import unused_name
from quantal._storage.record import Record, record_of, restore

Arrays = dict[str, NDArray[Any]]
"""The arrays of a file by their names."""

_ENDINGS_OF_KERAS = (".keras", ".h5", ".hdf5")
_KINDS = ("codes", "values", "scale")
_MOST_UNSAVED = 2**20
"""The most numbers that a model has besides those of the file: states, seeds."""


def save(model: keras.Model, path: str | os.PathLike[str]) -> int:
    """Save a model as inference needs it, in as few bytes as its lists allow.

    Use it to hand a trained model on. Latents, the optimizer and the estimators' state
    are left behind: to go on with training, keep `model.save`. The file is in the
    safetensors format; `docs/format.md` describes it, with a reader in forty lines.

    The file holds the packed codes, the list and the scale of every parameter; the
    numbers of every other weight; what layers keep in files of their own, such as
    vocabularies; and the model's architecture, without what it was compiled with. The
    same model gives the same bytes. The file is replaced as a whole:
    whatever goes wrong, an old one is as it was. Where several processes run one program, call it
    in all of them: process 0 writes, and the others wait.

    Args:
        model: A built Keras model.
        path: The file. `.quantal` is usual, and any ending will do but those of Keras's own
            files, `.keras` and `.h5`, which Keras could not load.

    Returns:
        The file's size in bytes.

    Raises:
        TypeError: The model is not a Keras model.
        ValueError: The path ends in `.keras` or `.h5`; the model is not built; a weight is NaN
            or infinite, so that it has no value of its list; or `load` could not make the model
            again, since Keras cannot describe its architecture, or it holds code or a class that
            is not registered. Nothing is written then.

    >>> import keras, quantal, tempfile, os
    >>> model = keras.Sequential([keras.Input((3,)), quantal.LearnableMultiplier()])
    >>> path = os.path.join(tempfile.mkdtemp(), "model.quantal")
    >>> save(model, path) < 2000
    True
    >>> load(path).layers[0].codes.shape == (3,)
    True
    """
    check_model(model)
    _check_ending(path)
    contents = contents_of(model)
    arrays, metadata = contents.arrays, contents.metadata
    check_loadable(model, contents)
    if keeps_more(model):
        with tempfile.TemporaryDirectory() as folder:
            trial = os.path.join(folder, "model.quantal")
            container.write(trial, arrays, metadata)
            check_kept(model, load(trial))
    return written_once(path, lambda: container.write(path, arrays, metadata))


class FileContents(NamedTuple):
    """The contents of a file are what `save` writes of a model.

    Attributes:
        slots: The model's parameters and its other weights.
        keys: The names of the arrays of each slot.
        arrays: All arrays, the deflated architecture among them.
        metadata: What a reader must know besides.
    """

    slots: list[Slot]
    keys: list[list[str]]
    arrays: Arrays
    metadata: dict[str, Any]

    @property
    def size(self) -> int:
        """The exact size of the file, in bytes."""
        return len(container.encoded(self.arrays, self.metadata))

    @property
    def sizes(self) -> list[int]:
        """The bytes that the arrays of each slot take in the file.

        An array that is the same as an earlier one is not written again.
        """
        sizes = container.sizes_of(self.arrays)
        return [sum(sizes[key] for key in keys) for keys in self.keys]


def contents_of(model: keras.Model) -> FileContents:
    """Return what `save` writes of a model.

    Raises:
        ValueError: A weight is NaN or infinite, or Keras cannot describe the architecture.
    """
    slots = slots_of(model)
    arrays: Arrays = {"architecture": _deflated(config_of(model))}
    assets = assets_of(model)
    weights: list[dict[str, Any]] = []
    keys: list[list[str]] = []
    for slot in slots:
        name = unused_name(slot.path, _taken_names(arrays))
        if isinstance(slot, Parameter):
            _check_size_on_one_value(slot)
            record = record_of(slot)
            named = {f"{name}.{kind}": array for kind, array in record.arrays.items()}
            weights.append({"name": name, **_entry(slot, record)})
        else:
            named = {name: _numbers(slot)}
            weights.append({"name": name})
        arrays.update(named)
        keys.append(list(named))
    metadata: dict[str, Any] = {"format": VERSION, "keras": keras.__version__, "weights": weights}
    for file, data in assets.items():
        name = unused_name(f"assets/{file}", arrays)
        arrays[name] = np.frombuffer(zlib.compress(data, 9), np.uint8)
        metadata.setdefault("assets", {})[file] = name
    return FileContents(slots, keys, arrays, metadata)


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
    entries = checked_entries(path, metadata)
    skeleton = _built(path, arrays, entries)
    _compare(path, skeleton.slots, entries, arrays)
    name_slots(skeleton.slots, [entry["name"] for entry in entries])
    skeleton.allocate()
    for slot, entry in zip(skeleton.slots, entries, strict=True):
        try:
            if isinstance(slot, Parameter):
                restore(slot, _record(entry, arrays))
            else:
                slot.assign(arrays[entry["name"]])
        except (KeyError, TypeError, ValueError) as error:
            raise container.refusal(path, repr(entry["name"]), error) from error
    try:
        load_assets(skeleton.model, _assets(arrays, metadata))
    # A layer's own method may raise anything.
    except Exception as error:
        raise container.refusal(path, "the assets", cause_of(error)) from error
    refresh_state(skeleton.model)
    return skeleton.model


def _check_ending(path: str | os.PathLike[str]) -> None:
    """Refuse a path at which everyone, Keras among them, expects a file of Keras's own."""
    ending = os.path.splitext(os.fspath(path))[1]
    if ending.lower() in _ENDINGS_OF_KERAS:
        raise ValueError(
            f"{os.fspath(path)} ends in {ending!r}, and Keras could not load what quantal.save "
            "writes. Expected another ending, such as '.quantal'. For a file of Keras's own call "
            "model.save, to go on training, or quantal.finalize, for a small one."
        )


def _numbers(variable: keras.Variable) -> NDArray[Any]:
    numbers = whole_array(variable.value)
    # NumPy, and so the container, has no bfloat16 of its own; float32 holds each exactly.
    return numbers.astype(np.float32) if str(numbers.dtype) == "bfloat16" else numbers


def _taken_names(arrays: dict[str, Any]) -> Container[str]:
    """Return the names of arrays, and those of the parameters that they belong to."""
    return {key.rsplit(".", 1)[0] for key in arrays} | set(arrays)


def check_loadable(model: keras.Model, contents: FileContents) -> None:
    """Build a model as `load` will, and refuse it if another one comes out.

    Names and seeds that Keras gives afterwards are as if nothing had been built.

    Args:
        model: The model.
        contents: What `save` writes of it.

    Raises:
        ValueError: Keras cannot make the model again. Nothing was written.
    """
    slots, arrays, metadata = contents.slots, contents.arrays, contents.metadata
    codes = names_of_code(json.loads(zlib.decompress(arrays["architecture"].tobytes())))
    if codes:
        raise ValueError(
            f"{model.name!r} is not saved, since quantal.load runs no code of a file, and "
            f"{', '.join(codes)} holds code. Expected layers of registered classes alone. Write it "
            "as a class of your own, registered with keras.saving.register_keras_serializable."
        )
    try:
        entries = metadata["weights"]
        numbers = sum(claimed(entry, arrays) for entry in entries)
        with names_from_the_start(), _python_seeds_kept():
            again = _skeleton(arrays, len(entries), numbers)
            problem = first_difference(slots, again.slots)
            load_assets(again.model, _assets(arrays, metadata))
    # Keras and the layers' own constructors raise errors of many kinds.
    except Exception as error:
        raise _cannot_be_loaded(model, cause_of(error)) from first_error(error)
    if problem:
        raise _cannot_be_loaded(model, problem)


@contextlib.contextmanager
def _python_seeds_kept() -> Iterator[None]:
    """Keep Python's random state, from which Keras draws a seed for each layer that it builds."""
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)


def _cannot_be_loaded(model: keras.Model, problem: str) -> ValueError:
    return ValueError(
        f"{model.name!r} is not saved, since it could not be loaded: Keras cannot make it again "
        f"from its config: {problem}. Expected a model that its config describes whole. Register "
        "your classes and functions with keras.saving.register_keras_serializable, create all "
        "layers in the constructor, and return all its arguments from get_config; "
        "docs/whole-models.md shows what works else."
    )


def _assets(arrays: Arrays, metadata: dict[str, Any]) -> dict[str, bytes]:
    """Return the files that layers keep, such as vocabularies, by their names."""
    size = sum(array.nbytes for array in arrays.values())
    return {
        file: container.inflated(arrays[name], container.most_json(size))
        for file, name in metadata.get("assets", {}).items()
    }


def _deflated(config: dict[str, Any]) -> NDArray[np.uint8]:
    """Return a config as deflated JSON."""
    text = json.dumps(config, separators=(",", ":"))
    return np.frombuffer(zlib.compress(text.encode(), 9), np.uint8)


def _skeleton(arrays: Arrays, weights: int, numbers: int) -> Skeleton:
    """Return the model of a file's architecture, without numbers.

    Args:
        arrays: The file's arrays.
        weights: How many weights the file has.
        numbers: How many numbers they have together.

    Raises:
        Exception: Keras and the layers' own constructors raise errors of many kinds.
    """
    size = sum(array.nbytes for array in arrays.values())
    text = container.inflated(arrays["architecture"], container.most_json(size))
    config = container.loaded_json(text, size)
    check_config(config, weights, size)
    # Scales and other weights are there. An estimator may have two numbers for each element;
    # other states of estimators and layers are small.
    return skeleton_of(config, 4 * numbers + size + _MOST_UNSAVED)


def _check_size_on_one_value(parameter: Parameter) -> None:
    """Refuse a weight on a list of one value whose size `load` would not believe."""
    count = math.prod(parameter.shape)
    if len(parameter.values) == 1 and count > MOST_OF_ONE:
        raise ValueError(
            f"{parameter.path} has {count:,} elements on a list of one value. Expected at most "
            f"{MOST_OF_ONE:,}: they take no bytes, so a damaged file could claim any number. "
            "Leave the weight without a list, or give the list a second value."
        )


def _built(path: Any, arrays: Arrays, entries: list[dict[str, Any]]) -> Skeleton:
    """Return the model of a file's architecture, or refuse the file."""
    numbers = checked_sum(path, entries, arrays)
    try:
        return _skeleton(arrays, len(entries), numbers)
    # Keras and the layers' own constructors raise errors of many kinds.
    except Exception as error:
        name, first = unknown_class(error), first_error(error)
        if name is not None:
            raise ValueError(
                f"{os.fspath(path)}: the architecture is not readable: it has {name!r}, which is "
                "not registered with Keras in this program. Expected it to be. Import the module "
                "that defines and registers it before quantal.load. Take an unchanged copy of the "
                f"file if the model that was saved has no {name!r}."
            ) from first
        raise container.refusal(path, "the architecture", cause_of(error)) from first


def _compare(path: Any, slots: list[Slot], entries: list[dict[str, Any]], arrays: Arrays) -> None:
    """Refuse a file whose arrays are not those of its architecture's weights."""
    if len(slots) != len(entries):
        raise container.refusal(
            path, "the weights", f"{len(entries)} for {len(slots)} of the architecture"
        )
    for slot, entry in zip(slots, entries, strict=True):
        name = entry["name"]
        if isinstance(slot, Parameter):
            shape, base = entry.get("shape"), entry.get("base")
            if shape != list(slot.shape) or base != len(slot.values):
                problem = f"the shape {shape} and a list of {base}"
                raise container.refusal(path, repr(name), problem)
        elif name not in arrays or arrays[name].shape != tuple(slot.shape):
            shape = arrays[name].shape if name in arrays else None
            problem = f"the shape {shape} for {tuple(slot.shape)}"
            raise container.refusal(path, repr(name), problem)


def _entry(parameter: Parameter, record: Record) -> dict[str, Any]:
    """Return what a reader must know of a parameter besides its arrays."""
    values = parameter.values
    entry: dict[str, Any] = {
        "shape": list(parameter.shape),
        "base": len(values),
        "packing": "coded" if record.coded else "words",
    }
    return entry if values.channels is None else {**entry, "axis": values.axis}


def _record(entry: dict[str, Any], arrays: Arrays) -> Record:
    """Return the record of a parameter from the arrays of its entry."""
    name = entry["name"]
    by_kind = {kind: arrays[key] for kind in _KINDS if (key := f"{name}.{kind}") in arrays}
    return Record.from_arrays(by_kind, entry["packing"] == "coded")
