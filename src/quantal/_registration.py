"""Makes Keras know quantal's classes without loading Keras.

Keras deserializes only classes that have been registered, which happens when their
module is imported. Importing quantal loads no framework, so the modules are imported
as soon as Keras is: `import quantal` before or after `import keras` is enough for
`keras.saving.load_model` to find everything.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType


def register_with_keras() -> None:
    """Import the modules with registered classes now, or once Keras is imported."""
    if "keras" in sys.modules:
        _import_registered()
    elif not any(isinstance(finder, _AfterKeras) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterKeras())


def _import_registered() -> None:
    for module in ("quantal.layers", "quantal.regularizers"):
        importlib.import_module(module)


class _AfterKeras(importlib.abc.MetaPathFinder):
    """Steps aside when Keras is looked for, and adds one import to the end of Keras's."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != "keras":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        load = spec.loader.exec_module

        def load_and_register(module: ModuleType) -> None:
            load(module)
            _import_registered()

        spec.loader.exec_module = load_and_register  # type: ignore[method-assign]
        return spec
