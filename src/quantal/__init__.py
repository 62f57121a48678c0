"""Learnable parameters whose values come from a list that the user gives, in Keras 3.

Importing quantal loads no framework: a name does, when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from quantal.fitting import k_means as k_means
from quantal.registration import register_with_keras as _register_with_keras
from quantal.values import Values as Values

if TYPE_CHECKING:
    from quantal import callbacks as callbacks
    from quantal import estimators as estimators
    from quantal import regularizers as regularizers
    from quantal import schedules as schedules
    from quantal import testing as testing
    from quantal import tracing as tracing
    from quantal.convert import bake as bake
    from quantal.convert import discretize as discretize
    from quantal.convert import finalize as finalize
    from quantal.convert import keep_decay_off as keep_decay_off
    from quantal.files import load as load
    from quantal.files import save as save
    from quantal.layers import Discrete as Discrete
    from quantal.layers import LearnableMultiplier as LearnableMultiplier
    from quantal.parameters import Parameter as Parameter
    from quantal.parameters import parameters_of as parameters_of
    from quantal.polishing import polish as polish
    from quantal.scales import Scale as Scale
    from quantal.searching import Autocorrelation as Autocorrelation
    from quantal.searching import Magnitude as Magnitude
    from quantal.searching import Minimax as Minimax
    from quantal.searching import Quadratic as Quadratic
    from quantal.searching import Sums as Sums
    from quantal.searching import search as search
    from quantal.targets import export as export

__version__ = "0.1.0"

_HOMES = {
    "Discrete": "quantal.layers",
    "bake": "quantal.convert",
    "discretize": "quantal.convert",
    "finalize": "quantal.convert",
    "keep_decay_off": "quantal.convert",
    "export": "quantal.targets",
    "load": "quantal.files",
    "save": "quantal.files",
    "LearnableMultiplier": "quantal.layers",
    "Parameter": "quantal.parameters",
    "Scale": "quantal.scales",
    "polish": "quantal.polishing",
    "Autocorrelation": "quantal.searching",
    "Magnitude": "quantal.searching",
    "Minimax": "quantal.searching",
    "Quadratic": "quantal.searching",
    "Sums": "quantal.searching",
    "search": "quantal.searching",
    "parameters_of": "quantal.parameters",
    "callbacks": "",
    "estimators": "",
    "regularizers": "",
    "schedules": "",
    "testing": "",
    "tracing": "",
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
