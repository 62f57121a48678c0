"""Choose a backend for Keras, start it, and load models."""

import contextlib
import importlib.util
import logging
import os
import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from quantal._command.errors import MissingPackage, Unreadable

if TYPE_CHECKING:
    import keras

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


def load_model(path: str) -> "keras.Model":
    """Load a model that `model.save` or `quantal.save` wrote."""
    import keras

    from quantal._models.files import load

    if not pathlib.Path(path).is_file():
        raise Unreadable(
            f"The model {path} does not exist. Expected a file that model.save wrote. Check "
            f"the path; it is taken from the folder {pathlib.Path.cwd()}."
        )
    try:
        if not path.lower().endswith(".keras"):
            return load(path)
        return keras.saving.load_model(path, compile=False)
    # Keras, and what it reads with, raise errors of many kinds for damaged files.
    except Exception as error:
        raise Unreadable(
            f"The model {path} cannot be read: {type(error).__name__}: {error}. Expected a "
            "sound .keras file of Keras's own layers, without Lambda, or a file of "
            "quantal.save. Save the model again, with such layers."
        ) from error


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
