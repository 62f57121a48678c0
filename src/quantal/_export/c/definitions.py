"""Define the arrays, windows and functions of a C source, each of them once."""

import contextlib
from collections.abc import Hashable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantal._export.c.text import filled, initializers, template
from quantal._export.graph.steps import Floats, Rearrange, Window
from quantal._export.operations import Operations


class Definitions:
    """Definitions of arrays, windows and functions are written when first asked for.

    Each method returns a name in C. What is equal is defined once.
    """

    def __init__(self) -> None:
        self.array_bytes = 0
        """Bytes of all constant arrays."""
        self.operations = Operations()
        """What a sample takes."""
        self._names: dict[Hashable, str] = {}
        kinds = ("array", "window", "view", "function")
        self._texts: dict[str, list[str]] = {kind: [] for kind in kinds}
        self._rank = 1

    def count(self, operations: Operations) -> None:
        """Add to what a sample takes."""
        self.operations += operations

    @contextlib.contextmanager
    def repeated(self, times: int) -> Iterator[None]:
        """Count what is counted in the block so many times."""
        outside, self.operations = self.operations, Operations()
        yield
        self.operations = outside + self.operations * times

    def texts(self) -> list[str]:
        """Return the definitions in the order that C needs."""
        windows, views = self._texts["window"], self._texts["view"]
        of_windows = [template("window.c").rstrip()] if windows else []
        of_views = [filled(template("view.c").rstrip(), rank=str(self._rank))] if views else []
        arrays, functions = self._texts["array"], self._texts["function"]
        return [*arrays, *of_windows, *windows, *of_views, *views, *functions]

    def function(self, name: str, file: str, **parts: str) -> str:
        """Define a function from a template.

        Args:
            name: The beginning of its name in C.
            file: The template's name without its endings.
            **parts: What takes the place of each `@part@` of the template.
        """
        return self.function_of_text(name, filled(self._template(file).rstrip(), **parts))

    def function_of_text(self, name: str, text: str) -> str:
        """Define a function from its text, in which `@name@` stands for its name."""
        return self._name("function", name, text, text)

    def _template(self, file: str) -> str:
        """Return the template of a function, by its name without endings."""
        return template(f"{file}.c")

    def window(self, window: Window) -> str:
        """Define a window, and return its address."""
        # How far inputs of transposed convolutions lie apart is an argument of theirs.
        numbers = {k: n for k, n in window._asdict().items() if not k.startswith("spread")}
        fields = [f".{field} = {number}," for field, number in numbers.items()]
        lines = [" ".join(fields[start : start + 3]) for start in range(0, len(fields), 3)]
        text = "\n    ".join(["static const window @name@ = {", *lines]) + "\n};"
        return "&" + self._name("window", "window", window, text)

    def view(self, view: Rearrange) -> str:
        """Define which numbers are copied, and return its address."""
        self._rank = max(self._rank, len(view.lengths))
        lengths, steps = (", ".join(map(str, each)) for each in (view.lengths, view.steps))
        text = (
            f"static const view @name@ = {{\n    {len(view.lengths)}, {view.start}, "
            f"{{{lengths}}}, {{{steps}}}\n}};"
        )
        return "&" + self._name("view", "view", view, text)

    def rows(self, name: str, rows: Floats) -> str:
        """Define rows of floats, and return two arguments: the array, and a step.

        The step leads from one output's row to the next's; it is 0 for a single row.
        """
        return f"{self.floats(name, rows)}, {rows.shape[1] if len(rows) > 1 else 0}"

    def floats(self, name: str, numbers: NDArray[Any]) -> str:
        """Define an array of float32 numbers.

        Raises:
            ValueError: One of them is not finite.
        """
        with np.errstate(over="ignore"):
            rounded = numbers.astype(np.float32).ravel()
        if not np.isfinite(rounded).all():
            raise ValueError(
                f"The model has {rounded[~np.isfinite(rounded)][0]} among its {name}, scales and "
                "batch normalization multiplied in. Expected finite float32 numbers. Train it "
                "again, at a smaller rate."
            )
        return self.array(name, "float", rounded)

    def array(self, name: str, kind: str, numbers: NDArray[Any]) -> str:
        """Define a constant array.

        Args:
            name: The beginning of its name in C.
            kind: The C type of its numbers.
            numbers: Shape (length,), in the dtype of that type.
        """
        key = kind, numbers.tobytes()
        if key not in self._names:
            self.array_bytes += numbers.nbytes
        text = f"static const {kind} @name@[{numbers.size}] = {{\n{initializers(numbers)}\n}};"
        return self._name("array", name, key, text)

    def _name(self, kind: str, name: str, key: Hashable, text: str) -> str:
        """Return the name of a definition, which is written if the key is new."""
        if key not in self._names:
            self._names[key] = f"{name}_{len(self._texts[kind]) + 1}"
            self._texts[kind].append(filled(text, name=self._names[key]))
        return self._names[key]
