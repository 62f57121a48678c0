"""What the documents say, runs, and every public name has its page."""

import doctest
import importlib
import inspect
import json
import os
import subprocess
import sys

import docs_hooks
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
def test_public_things_have_docstrings():
    """One test of all, since a part of cases rotates."""
    missing = []
    for path, thing in public_things():
        members = vars(thing).items() if inspect.isclass(thing) else ()
        named = [(f"{path}.{word}", getattr(thing, word)) for word, m in members if is_own(word, m)]
        missing += [name for name, part in [(path, thing), *named] if not inspect.getdoc(part)]
    assert missing == []


def is_own(word, member):
    """Whether a member is a public function, and no one of Keras's, which says what it does."""
    is_function = callable(getattr(member, "__func__", member))
    return is_function and not word.startswith("_") and not hasattr(keras.Layer, word)


# Templates show parts of files, decisions run nothing, the examples of the API stand in docstrings.
PAGES = [
    str(path.relative_to(ROOT))
    for path in sorted((ROOT / "docs").rglob("*.md"))
    if path.relative_to(ROOT).parts[1] not in ("api", "decisions", "templates")
]
DOCUMENTS = [page for page in ["README.md", *PAGES] if code_blocks(page)]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_examples_in_documents_run(document, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # Some write a file.
    scope = {}
    for block in code_blocks(document):
        exec(compile(block, document, "exec"), scope)


NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(notebook, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scope = {}
    for cell in json.loads(notebook.read_text())["cells"]:
        if cell["cell_type"] == "code":
            assert not cell["outputs"], "strip the outputs: a notebook is kept as it was written"
            exec(compile("".join(cell["source"]), notebook.name, "exec"), scope)


def test_readme_names_the_commands_that_ci_runs():
    if not (ROOT / "README.md").exists():
        pytest.skip("README.md is not beside the installed package")
    readme = (ROOT / "README.md").read_text()
    last_line = (ROOT / ".ci" / "run").read_text().strip().splitlines()[-1]
    assert last_line == "scripts/test"
    assert "\nscripts/test\n" in readme


needs_pages = pytest.mark.skipif(not PAGES, reason="docs are not beside the installed package")


@on_one_backend
@needs_pages
def test_public_names_are_in_the_api():
    missing, unknown = docs_hooks.missing_names()
    assert not missing, "write a line '::: name' for each into the page of its group in docs/api"
    assert not unknown


@on_one_backend
def test_public_names_of_the_api_are_those_of_the_package():
    by_module = {}
    for name in docs_hooks.public_names():
        module, _, word = name.rpartition(".")
        by_module.setdefault(module, set()).add(word)
    for module, words in by_module.items():
        loaded = importlib.import_module(module)
        # A package holds names alone; of a file only what it defines counts.
        is_package = hasattr(loaded, "__path__")
        begins, default = ("quantal", module) if is_package else (module, "")
        public = {
            word
            for word, thing in vars(loaded).items()
            if not word.startswith("_") and not inspect.ismodule(thing)
            if str(getattr(thing, "__module__", default)).startswith(begins)
        }
        if module == "quantal":
            public = {w for w in quantal.__all__ if not inspect.ismodule(getattr(quantal, w))}
        assert words >= public, module


@on_one_backend
@needs_pages
def test_links_go_where_the_site_has_them(monkeypatch):
    links = docs_hooks.with_links
    assert links("[a](../README.md#try-it)", "tour.md") == "[a](index.md#try-it)"
    assert links("[a](docs/search.md)", "index.md") == "[a](search.md)"
    learning = "[a](../../benchmarks/learning/README.md)"
    assert links(learning, "estimators/index.md") == "[a](../benchmarks/learning.md)"
    example = "[a](../examples/beam.py)"
    assert links(example, "designers.md") == f"[a]({docs_hooks.REPOSITORY}examples/beam.py)"
    assert links("```\n[a](nowhere.md)\n```", "tour.md") == "```\n[a](nowhere.md)\n```"
    with pytest.raises(ValueError, match=r"docs/tour.md links to nowhere.md"):
        links("[a](nowhere.md)", "tour.md")


@on_one_backend
@needs_pages
def test_site_builds_without_a_warning(tmp_path):
    """A page outside the navigation, a dead link or anchor and a name without a page are errors."""
    pytest.importorskip("mkdocstrings", reason="the group docs is not installed")
    # With --quiet warnings would not be counted.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    command += ["--config-file", str(ROOT / "mkdocs.yml"), "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    run = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    assert run.returncode == 0, run.stdout + run.stderr
    assert (tmp_path / "site" / "api" / "search.html").read_text().count('id="quantal.search"') == 1
