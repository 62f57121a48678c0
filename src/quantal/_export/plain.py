"""Plain models: Keras's own file, and PyTorch's state_dict."""

import os
import pathlib
import tempfile

import keras

from quantal._models.bake import bake
from quantal._storage.atomic import replace_file

Path = str | os.PathLike[str]


def write_keras(model: keras.Model, path: Path) -> list[pathlib.Path]:
    """A `.keras` file of the baked model: it loads where quantal is not installed.

    Args:
        model: A built model.
        path: The file.

    Returns:
        The files written.

    Raises:
        ValueError: As `quantal.bake`.
    """
    plain = bake(model)
    with replace_file(path) as file, tempfile.TemporaryDirectory() as folder:
        beside = pathlib.Path(folder) / "model.keras"
        plain.save(beside)
        file.write(beside.read_bytes())
    return [pathlib.Path(path)]


def write_state_dict(model: keras.Model, path: Path) -> list[pathlib.Path]:
    """The baked model's `state_dict`, by `torch.save`.

    Args:
        model: A built model, on the PyTorch backend.
        path: The file. `torch.load(path, weights_only=True)` reads it.

    Returns:
        The files written.

    Raises:
        ValueError: The backend is another; or as `quantal.bake`.
    """
    if keras.config.backend() != "torch":
        raise ValueError(
            f"The backend is {keras.config.backend()!r}. A state_dict is PyTorch's. Set "
            "KERAS_BACKEND=torch, or export to '.keras' or '.npz'."
        )
    import torch

    with replace_file(path) as file:
        torch.save(bake(model).state_dict(), file)
    return [pathlib.Path(path)]
