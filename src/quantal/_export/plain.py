"""Write plain models: Keras's own file, and PyTorch's state_dict."""

import io
import pathlib

import keras

from quantal._export.target import Written
from quantal._models.bake import bake


def write_keras(model: keras.Model, path: pathlib.Path) -> Written:
    """Write a `.keras` file of the baked model, which loads where quantal is not installed.

    Args:
        model: A built model.
        path: The file.

    Raises:
        ValueError: As `quantal.bake`.
    """
    bake(model).save(path)
    return Written([path])


def write_state_dict(model: keras.Model, path: pathlib.Path) -> Written:
    """Write the baked model's `state_dict` by `torch.save`.

    Args:
        model: A built model, on the PyTorch backend.
        path: The file. `torch.load(path, weights_only=True)` reads it.

    Raises:
        ValueError: The backend is another; or as `quantal.bake`.
    """
    if keras.config.backend() != "torch":
        raise ValueError(
            f"The backend is {keras.config.backend()!r}. A state_dict is PyTorch's. Set "
            "KERAS_BACKEND=torch, or export to '.keras' or '.npz'."
        )
    import torch

    # In memory first: the path's name would become part of the bytes, and PyTorch's writer hides
    # a full disk behind errors of its own.
    content = io.BytesIO()
    torch.save(bake(model).state_dict(), content)
    path.write_bytes(content.getbuffer())
    return Written([path])
