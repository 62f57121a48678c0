"""Import optional packages that a target writes with."""

import importlib
from typing import Any


def import_package(name: str, ending: str, extra: str) -> Any:
    """Import an optional package, or say how it is installed.

    Args:
        name: The package's name, such as `"onnx"`; or that of a module in it.
        ending: The ending of the files that need it.
        extra: The extra of quantal that installs it.

    Raises:
        ImportError: The package is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"{name.split('.')[0]} is not installed. Expected it for a file that ends in "
            f"{ending!r}. Run pip install 'quantal[{extra}]'."
        ) from error


def import_onnx() -> Any:
    """Import the package onnx, or say how it is installed."""
    return import_package("onnx", ".onnx", "onnx")
