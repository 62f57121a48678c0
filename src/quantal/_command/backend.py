"""Choose a backend for Keras, start it, and load models."""

import contextlib
import importlib.util
import logging
import os
import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from quantal._command.errors import MissingPackage, Unreadable, Unwritable, check_new
from quantal._storage.atomic import folder_beside, move_files

if TYPE_CHECKING:
    import keras

MODEL_ENDINGS = (".keras", ".quantal")
RUN_MODEL = "model.keras"
"""The name of the model in a folder of `quantal train`."""
BACKENDS = ("tensorflow", "jax", "torch")


def choose_backend(name: str | None) -> str:
    """Return the named backend, or the first installed one; refuse one that is not installed."""
    # The backends are looked up, not imported.
    installed = [backend for backend in BACKENDS if importlib.util.find_spec(backend)]
    if name is None and installed:
        return installed[0]
    if name not in installed:
        raise MissingPackage(
            f"The backend {name or 'of Keras'} is not installed. Expected one of "
            f"{', '.join(BACKENDS)}; installed: {', '.join(installed) or 'none'}. Install it: "
            f'pip install "quantal[{name or BACKENDS[0]}]"'
        )
    return name


def start_keras(backend: str) -> None:
    """Load Keras with a backend, without the messages that frameworks write meanwhile."""
    os.environ["KERAS_BACKEND"] = backend
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # It warns of each second model in a process, and the command trains two.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    with _quiet_standard_error():
        import keras

        # This loads TensorFlow wherever it is installed, which writes messages of its own.
        keras.utils.set_random_seed(0)


def load_model(path: str, is_compiled: bool = False) -> "keras.Model":
    """Load a model that `model.save` or `quantal.save` wrote.

    Args:
        path: The file, or a folder of quantal train.
        is_compiled: Whether to compile it as it was, if the file says how.
    """
    import keras

    from quantal._models.files import load

    path = _model_file(path)
    try:
        if not path.lower().endswith(".keras"):
            return load(path)
        return keras.saving.load_model(path, compile=is_compiled)
    # Keras, and what it reads with, raise errors of many kinds for damaged files.
    except Exception as error:
        raise Unreadable(
            f"The model {path} cannot be read: {type(error).__name__}: {str(error).rstrip('.')}. "
            "Expected a sound .keras file of Keras's own layers, without Lambda, or a file of "
            "quantal.save. Save the model again, with such layers."
        ) from error


def _model_file(path: str) -> str:
    """Return the path of a model's file; of a folder, that of the model in it.

    Raises:
        Unreadable: There is none.
    """
    file = pathlib.Path(path)
    if file.is_dir() and (file / RUN_MODEL).is_file():
        return str(file / RUN_MODEL)
    if file.is_dir():
        raise Unreadable(
            f"{path} is a folder without a {RUN_MODEL}. Expected a file that model.save wrote, or "
            "a folder of quantal train. Name the file in it."
        )
    if not file.is_file():
        raise Unreadable(
            f"The model {path} does not exist. Expected a file that model.save wrote. Check "
            f"the path; it is taken from the folder {pathlib.Path.cwd()}."
        )
    return path


def prepare_file(path: pathlib.Path, replace: bool) -> None:
    """Check that a model can be written into a file; one that is there stays.

    Args:
        path: The file.
        replace: Whether a file that is there may be replaced.

    Raises:
        Unwritable: There is a file, or no folder, or another ending.
    """
    if path.suffix.lower() not in MODEL_ENDINGS:
        raise Unwritable(
            f"{path} ends in {path.suffix!r}. Expected one of {', '.join(MODEL_ENDINGS)}; "
            "quantal export writes other files."
        )
    check_new(path, replace)
    if not path.absolute().parent.is_dir():
        raise Unwritable(f"{path} is in a folder that does not exist. Make it first.")


def save_model(model: "keras.Model", path: pathlib.Path) -> None:
    """Write a model as a whole: whatever goes wrong, an old file is as it was."""
    from quantal._models.files import save

    if path.suffix.lower() != ".keras":
        save(model, path)
        return
    with folder_beside(path) as temporary:
        model.save(temporary / path.name)
        move_files({temporary / path.name: path})


@contextlib.contextmanager
def _quiet_standard_error() -> Iterator[None]:
    """Discard standard error, that of compiled code too, which has no other switch."""
    copy = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(copy, 2)
        os.close(copy)
