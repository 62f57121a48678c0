"""Fill templates of C source, and write numbers as C reads them back."""

import importlib.resources
import pathlib
import re
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_LINE = 96
"""An initializer's line holds at most this many characters besides its indentation."""


class NamesInC(NamedTuple):
    """The names that a C file's name leads to.

    Attributes:
        header: The path of its header.
        name: The beginning of the names in C.
    """

    header: pathlib.Path
    name: str


def names_in_c(path: pathlib.Path) -> NamesInC:
    """Return the header of a C file, and the beginning of its names, in letters, digits and `_`.

    Raises:
        ValueError: The file's name cannot stand in C.

    >>> names_in_c(pathlib.Path("my-net.c")).name
    'my_net'
    """
    header = path.with_suffix(".h")
    if re.search(r'["\\?\x00-\x1f\x7f\ud800-\udfff]', header.name):
        raise ValueError(
            f"The file is called {path.name!r}. Expected a name that a C source can include, "
            'without ", \\, ? and control characters. Rename it.'
        )
    name = re.sub(r"\W", "_", path.stem, flags=re.ASCII)
    return NamesInC(header, name if name[:1].isalpha() else f"model_{name}")


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
