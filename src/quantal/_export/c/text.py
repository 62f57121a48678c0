"""Fill templates of C source, and write numbers as C reads them back."""

import importlib.resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LINE = 96
"""An initializer's line holds at most this many characters besides its indentation."""


def template(name: str) -> str:
    """Return the text of a file in `templates`, its parts written as `@part@`.

    Args:
        name: The file's name without the last ending, such as `"softmax.c"`.
    """
    folder = importlib.resources.files(__package__) / "templates"
    return (folder / f"{name}.in").read_text(encoding="utf-8")


def filled(text: str, **parts: str) -> str:
    """Return a text with every `@part@` replaced by the argument of that name.

    >>> filled("float @name@[@size@];", name="bias", size="3")
    'float bias[3];'
    """
    for name, replacement in parts.items():
        text = text.replace(f"@{name}@", replacement)
    return text


def literal(number: float) -> str:
    """Return a float32 constant that C reads back to the bit.

    >>> literal(1), literal(0.1), literal(1e-10)
    ('1.0f', '0.100000001f', '1.00000001e-10f')
    """
    text = f"{float(np.float32(number)):.9g}"
    return f"{text}f" if "." in text or "e" in text else f"{text}.0f"


def initializers(numbers: NDArray[Any]) -> str:
    """Return the indented lines of an array's initializers, without the braces.

    Args:
        numbers: Floats or integers, shape (length,), at least one.
    """
    texts = [literal(n) if numbers.dtype.kind == "f" else str(n) for n in numbers.tolist()]
    per_line = _LINE // (max(map(len, texts)) + 2)
    lines = (", ".join(texts[start : start + per_line]) for start in range(0, len(texts), per_line))
    return ",\n".join(f"    {line}" for line in lines)
