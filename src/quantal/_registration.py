"""Quantal's classes are registered with Keras without loading Keras.

Keras deserializes only classes that are registered, which they are when their module is
imported. Importing quantal loads no framework, so these modules are imported as soon as Keras
is: `import quantal` before or after `import keras` is enough for `keras.saving.load_model`.
"""

import functools
import importlib
import importlib.util
import sys
from typing import Any

import wrapt

_MODULES_WITH_CLASSES = (
    "quantal.layers.activation",
    "quantal.layers.discrete",
    "quantal.layers.multiplier",
    "quantal.regularizers",
    "quantal._models.table_features",
)


_BACKENDS = ("tensorflow", "jax", "torch")


def explain_missing_backend(error: ModuleNotFoundError) -> None:
    """Add to an error what to do, where Keras looks for a backend that is not installed."""
    if error.name not in _BACKENDS:
        return
    installed = [name for name in _BACKENDS if importlib.util.find_spec(name)]
    remedy = (
        f"Installed: {', '.join(installed)}. Set KERAS_BACKEND={installed[0]} in the environment, "
        "before Keras is imported"
        if installed
        else "No other one is, either. Install it: pip install 'quantal[tensorflow]'"
    )
    error.add_note(f"Keras looks for its backend {error.name}, which is not installed. {remedy}.")


def _is_half_imported(module: str | None) -> bool:
    """Return whether a module's import has begun and not ended, as importlib itself asks."""
    spec = getattr(sys.modules.get(module or ""), "__spec__", None)
    return bool(getattr(spec, "_initializing", False))


# The rule that makes every import the possible first one: Keras's import ends by importing the
# modules above, so a public package that needs Keras begins with `import keras`, before any of its
# files is half imported, and inside quantal every import names the file that defines the name.
# Where a private file was first and is half imported, registering is left to the next public name;
# any other error of importing is raised.
@wrapt.when_imported("keras")
def register(_: object = None) -> None:
    """Import the modules with registered classes, if Keras is imported."""
    if "keras" not in sys.modules:
        return
    try:
        for module in _MODULES_WITH_CLASSES:
            importlib.import_module(module)
    except ImportError as error:
        if not _is_half_imported(error.name):
            raise


_HLS4ML_READERS = {
    "quantal.layers.discrete.Discrete": ("layers", "read_discrete"),
    "quantal.layers.multiplier.LearnableMultiplier": ("layers", "read_multiplier"),
    "quantal.layers.activation.DiscreteActivation": ("activation", "read_activation"),
}
"""The files of `quantal._export.hls4ml`, and their functions, by the classes that they read."""


@wrapt.when_imported("hls4ml.converters.keras_v3")
def register_with_hls4ml(module: Any) -> None:
    """Enter quantal's layers into hls4ml's table of Keras layers, once it is imported.

    The functions are imported when a model is converted, since hls4ml needs no Keras before.
    """
    for layer, reader in _HLS4ML_READERS.items():
        module.layer_handlers[layer] = functools.partial(_read_for_hls4ml, *reader)


def _read_for_hls4ml(file: str, reader: str, *arguments: Any) -> Any:
    """Call a reader with a layer, its symbolic inputs and its symbolic outputs."""
    module = importlib.import_module(f"quantal._export.hls4ml.{file}")
    return getattr(module, reader)(*arguments)
