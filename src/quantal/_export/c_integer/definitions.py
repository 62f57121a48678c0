"""Define the arrays and functions of a C source in integers."""

import importlib.resources

from quantal._export.c.definitions import Definitions
from quantal._export.c.text import filled


class IntegerDefinitions(Definitions):
    """Definitions of a source in integers take their functions from templates of their own."""

    def function(self, name: str, file: str, **parts: str) -> str:
        """Define a function from a template of the integer target.

        Args:
            name: The beginning of its name in C.
            file: The template's name without its endings.
            **parts: What takes the place of each `@part@` of the template.
        """
        text = filled(integer_template(f"{file}.c").rstrip(), **parts)
        return self._name("function", name, text, text)


def integer_template(name: str) -> str:
    """Return the text of a file in `templates`, its parts written as `@part@`.

    Args:
        name: The file's name without the last ending, such as `"products.c"`.
    """
    folder = importlib.resources.files(__package__) / "templates"
    return (folder / f"{name}.in").read_text(encoding="utf-8")
