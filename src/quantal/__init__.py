"""Learnable parameters whose values come from a list that the user gives, in Keras 3.

Importing quantal loads no framework: a name does, when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from quantal._core.numbers.fitting import k_means as k_means
from quantal._core.numbers.values import Values as Values
from quantal._registration import register_with_keras as _register_with_keras

if TYPE_CHECKING:
    from quantal import callbacks as callbacks
    from quantal import estimators as estimators
    from quantal import objectives as objectives
    from quantal import plots as plots
    from quantal import regularizers as regularizers
    from quantal import schedules as schedules
    from quantal import testing as testing
    from quantal._core.parameter import Parameter as Parameter
    from quantal._core.parameter import parameters_of as parameters_of
    from quantal._core.scale import Scale as Scale
    from quantal._export.export import export as export
    from quantal._models.convert import bake as bake
    from quantal._models.convert import discretize as discretize
    from quantal._models.convert import exclude_from_weight_decay as exclude_from_weight_decay
    from quantal._models.convert import finalize as finalize
    from quantal._models.files import load as load
    from quantal._models.files import save as save
    from quantal._optimize.polish.polish import polish as polish
    from quantal._optimize.search.search import search as search
    from quantal.layers import Discrete as Discrete
    from quantal.layers import LearnableMultiplier as LearnableMultiplier

__version__ = "0.1.0"

_HOMES = {
    "Discrete": "quantal.layers",
    "bake": "quantal._models.convert",
    "discretize": "quantal._models.convert",
    "finalize": "quantal._models.convert",
    "exclude_from_weight_decay": "quantal._models.convert",
    "export": "quantal._export.export",
    "load": "quantal._models.files",
    "save": "quantal._models.files",
    "LearnableMultiplier": "quantal.layers",
    "Parameter": "quantal._core.parameter",
    "Scale": "quantal._core.scale",
    "polish": "quantal._optimize.polish.polish",
    "search": "quantal._optimize.search.search",
    "parameters_of": "quantal._core.parameter",
    "callbacks": "",
    "estimators": "",
    "objectives": "",
    "plots": "",
    "regularizers": "",
    "schedules": "",
    "testing": "",
}

__all__ = ["Values", "k_means", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'quantal' has no attribute {name!r}")
    if name != "schedules":
        # It registers our classes with Keras, before one of our modules is half imported.
        importlib.import_module("keras")
    home = _HOMES[name]
    found = (
        getattr(importlib.import_module(home), name)
        if home
        else importlib.import_module(f"quantal.{name}")
    )
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])


_register_with_keras()
