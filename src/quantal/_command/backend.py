"""Choose what Keras computes with, start it, and load models."""

import contextlib
import importlib.util
import logging
import os
import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from quantal._command.errors import MissingPackage, Unreadable, WrongUsage, first_line

if TYPE_CHECKING:
    import keras

BACKENDS = ("tensorflow", "jax", "torch")
_PACKAGES = {
    "pandas": "pandas",
    "pyarrow": "pyarrow",
    "sklearn": "scikit-learn",
    "rich": "rich",
    "matplotlib": "matplotlib",
}
"""The packages that training reads, prints and draws with, by their modules."""


def is_installed(module: str) -> bool:
    """Return whether a module can be imported, without importing it."""
    return importlib.util.find_spec(module) is not None


def require_packages() -> None:
    """Refuse to go on where a package that training needs is not installed."""
    missing = [name for module, name in _PACKAGES.items() if not is_installed(module)]
    if missing:
        raise MissingPackage(
            f"Not installed: {', '.join(missing)}. The command reads, prints and draws with "
            f'{", ".join(_PACKAGES.values())}. Install them: pip install "quantal[command]"'
        )


def choose_backend(name: str | None) -> str:
    """Return the named backend, or the environment's, or the first installed one."""
    name = name or os.environ.get("KERAS_BACKEND")
    if not name:
        installed = [backend for backend in BACKENDS if is_installed(backend)]
        if not installed:
            raise MissingPackage(
                f"Keras has nothing to compute with. Expected one of {', '.join(BACKENDS)} to "
                'be installed. Install one: pip install "quantal[tensorflow]"'
            )
        return installed[0]
    if name not in BACKENDS:
        raise WrongUsage(
            f"KERAS_BACKEND is {name!r}. Expected one of {', '.join(BACKENDS)}. Set it to one "
            "of these, or give --backend."
        )
    if not is_installed(name):
        raise MissingPackage(
            f"The backend {name} is not installed. Expected an installed one. Install it: pip "
            f'install "quantal[{name}]", or give another --backend.'
        )
    return name


def start_keras(backend: str) -> None:
    """Load Keras with a backend; nothing but errors of ours is written meanwhile."""
    os.environ["KERAS_BACKEND"] = backend
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # It warns of each second model in a process, and the command trains two.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    with _quiet_standard_error():
        import keras

        # This loads TensorFlow wherever it is installed, which writes messages of its own.
        keras.utils.set_random_seed(0)
    if keras.config.backend() != backend:
        raise WrongUsage(
            f"--backend is {backend}, but this process has already loaded Keras on "
            f"{keras.config.backend()}. Keras has one backend a process. Start another process."
        )


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
    # Which exceptions a damaged file brings forth is up to Keras and what it reads with.
    except Exception as error:
        raise Unreadable(
            f"The model {path} cannot be read: {type(error).__name__}: {first_line(error)}. "
            "Expected a sound .keras file of Keras's own layers, without Lambda, or a file of "
            "quantal.save. Save the model again, with such layers."
        ) from error


@contextlib.contextmanager
def _quiet_standard_error() -> Iterator[None]:
    """Send standard error nowhere, that of compiled code too, which has no other switch."""
    copy = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(copy, 2)
        os.close(copy)
