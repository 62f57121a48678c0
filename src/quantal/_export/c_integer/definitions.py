"""Define the arrays and functions of a C source in integers."""

import importlib.resources

from quantal._export.c.definitions import Definitions


class IntegerDefinitions(Definitions):
    """Definitions of a source in integers take their functions from templates of their own."""

    def _template(self, file: str) -> str:
        """Return the template of a function of the integer target, by its name without endings."""
        return integer_template(f"{file}.c")


def integer_template(name: str) -> str:
    """Return the text of a file in `templates`, its parts written as `@part@`.

    Args:
        name: The file's name without the last ending, such as `"products.c"`.
    """
    folder = importlib.resources.files(__package__) / "templates"
    return (folder / f"{name}.in").read_text(encoding="utf-8")
