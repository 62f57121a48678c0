"""What tests read of the repository: its files, its modules, the examples in its documents."""

import pathlib
import re
import textwrap

import quantal

SOURCE = pathlib.Path(quantal.__file__).parent
ROOT = pathlib.Path(__file__).parent.parent
MODULES = sorted(
    "quantal." + ".".join(path.relative_to(SOURCE).with_suffix("").parts)
    for path in SOURCE.rglob("*.py")
    if path.name != "__init__.py"
)


def code_blocks(document):
    """The Python examples of a document; none where it is not beside the tests."""
    path = ROOT / document
    if not path.exists():
        return []
    blocks = re.findall(r"^ *```python\n(.*?)^ *```", path.read_text(), re.DOTALL | re.MULTILINE)
    return [textwrap.dedent(block) for block in blocks]  # In a list they are indented.
