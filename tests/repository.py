"""What tests read of the repository: its files, its modules, the examples in its documents."""

import pathlib
import re

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
    return re.findall(r"```python\n(.*?)```", path.read_text(), flags=re.DOTALL)
