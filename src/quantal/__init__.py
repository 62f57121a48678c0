"""Learnable parameters whose values come from a list that the user gives, in Keras 3.

Importing quantal loads no framework: a name does, when it is first used. The names stand in
`__init__.pyi`.
"""

import lazy_loader

import quantal._registration

__version__ = "0.1.0"

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    try:
        thing = _load(name)
    except ModuleNotFoundError as error:
        quantal._registration.explain_missing_backend(error)
        raise
    quantal._registration.register()
    return thing
