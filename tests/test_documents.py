"""What the documents say, runs."""

import doctest
import importlib
import inspect

import keras
import pytest

import quantal
from conftest import on_one_backend
from repository import MODULES, ROOT, code_blocks


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name):
    module = importlib.import_module(name)
    results = doctest.testmod(module, extraglobs={"quantal": quantal})
    assert results.failed == 0


def public_things():
    for name in MODULES:
        module = importlib.import_module(name)
        for word, thing in vars(module).items():
            own = getattr(thing, "__module__", None) == name
            if own and not word.startswith("_") and callable(thing):
                yield f"{name}.{word}", thing


@on_one_backend
@pytest.mark.parametrize(
    ("path", "thing"), [pytest.param(*found, id=found[0]) for found in public_things()]
)
def test_public_things_have_docstrings(path, thing):
    assert inspect.getdoc(thing), path
    if inspect.isclass(thing):
        for word, member in vars(thing).items():
            if hasattr(keras.Layer, word):
                continue  # Keras says what it does
            if not word.startswith("_") and callable(getattr(member, "__func__", member)):
                assert inspect.getdoc(getattr(thing, word)), f"{path}.{word}"


DOCUMENTS = [
    "README.md",
    "docs/design.md",
    "docs/whole-models.md",
    "docs/format.md",
    "docs/export.md",
    "docs/search.md",
    "docs/designers.md",
]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_examples_in_documents_run(document, tmp_path, monkeypatch):
    if not (ROOT / document).exists():
        pytest.skip(f"{document} is not beside the installed package")
    monkeypatch.chdir(tmp_path)  # Some write a file.
    scope = {}
    for block in code_blocks(document):
        exec(compile(block, document, "exec"), scope)


def test_readme_names_the_commands_that_ci_runs():
    if not (ROOT / "README.md").exists():
        pytest.skip("README.md is not beside the installed package")
    readme = (ROOT / "README.md").read_text()
    last_line = (ROOT / ".ci" / "run").read_text().strip().splitlines()[-1]
    assert last_line == "scripts/test"
    assert "\nscripts/test\n" in readme
