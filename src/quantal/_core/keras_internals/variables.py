"""A variable has a path, a layout on several devices and a stored value."""

from collections.abc import Sequence
from typing import Any

import keras


def rename(variable: keras.Variable, name: str) -> None:
    """Give a variable another name, and its path the same last part."""
    variable._path = f"{variable.path.removesuffix(variable.name)}{name}"
    variable._name = name


def set_path(variable: keras.Variable, path: str) -> None:
    """Set the path under which a variable is known in its model."""
    variable._path = path


def layout_of(variable: keras.Variable) -> Any:
    """Return how a variable lies on several devices; None for one that lies on one."""
    distribution = keras.distribution.distribution()
    if variable._layout is not None or distribution is None:
        return variable._layout
    return distribution.get_variable_layout(variable)


def lay_out(variable: keras.Variable, paths: Sequence[str]) -> None:
    """Let a variable lie on several devices as a layout map says of the first path that it knows.

    Without a layout map, and where it knows none of the paths, the variable stays where it is.

    Args:
        variable: The variable, allocated or not.
        paths: The names under which the map may know it.
    """
    distribution = keras.distribution.distribution()
    layouts = () if distribution is None else map(distribution.get_tensor_layout, paths)
    layout = next((layout for layout in layouts if layout is not None), None)
    if layout is None or layout is variable._layout:
        return
    variable._layout = layout
    if variable._value is not None:
        variable.assign(variable._value)


def stored_value(variable: keras.Variable) -> Any:
    """Return what a variable holds, whatever scope is active; None before it is allocated."""
    return variable._value
