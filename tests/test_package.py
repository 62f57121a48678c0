"""Wheel and source distribution hold what they should, and the wheel runs where it is installed."""

import os
import pathlib
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile

import pytest

import quantal
from conftest import on_one_backend
from repository import ROOT, SOURCE

PROJECT = ROOT / "pyproject.toml"

pytestmark = [
    on_one_backend,
    pytest.mark.skipif(not PROJECT.exists(), reason="pyproject.toml is not beside the tests"),
]

# Parts of a repository that no package needs.
NOT_INSIDE = re.compile(r"__pycache__|\.pyc$|(^|/)\.(git|venv|cache|hypothesis)/|\.journal$|/dist/")


def run(*arguments, **options):
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, **options
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with the source distribution and the wheel that is built from it."""
    pytest.importorskip("build")
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("dist")
    run("-m", "build", "--no-isolation", "--outdir", folder, ROOT)
    return folder


def wheel_in(folder):
    (path,) = folder.glob("*.whl")
    return path


def names_in_source(folder):
    (path,) = folder.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


def contents(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_wheel_holds_every_file_of_the_package_and_no_other(built):
    files = contents(wheel_in(built))
    inside = {name for name in files if name.startswith("quantal/")}
    expected = {
        f"quantal/{path.relative_to(SOURCE).as_posix()}"
        for path in SOURCE.rglob("*")
        if path.is_file() and path.suffix != ".md" and path.parent.name != "__pycache__"
    }
    assert inside == expected
    assert {"quantal/py.typed", "quantal/__init__.pyi"} < inside
    assert any(name.endswith(".c.in") for name in inside)
    rest = {name.partition("/")[0] for name in files} - {"quantal"}
    assert rest == {f"quantal-{quantal.__version__}.dist-info"}


def test_the_source_distribution_makes_the_same_wheel(built, tmp_path):
    # That in `built` is made from the source distribution, this one from the repository.
    run("-m", "build", "--no-isolation", "--wheel", "--outdir", tmp_path, ROOT)
    assert contents(wheel_in(tmp_path)) == contents(wheel_in(built))


def test_the_source_distribution_holds_what_its_tests_need(built):
    names = names_in_source(built)
    assert {"PKG-INFO", "LICENSE", ".ci/run", "mkdocs.yml", "scripts/test"} < names
    for folder in ("src", "tests", "docs", "examples", "benchmarks", "scripts"):
        here = {
            path.relative_to(ROOT).as_posix()
            for path in (ROOT / folder).rglob("*")
            if path.is_file() and path.suffix in (".py", ".md", ".c", ".in", ".quantal", "")
        }
        ignored = {name for name in here if NOT_INSIDE.search(name)}
        assert here - ignored - names == set(), folder
    assert [name for name in names if NOT_INSIDE.search(name)] == []


def test_an_index_takes_them(built):
    pytest.importorskip("twine")
    run("-m", "twine", "check", "--strict", *built.iterdir())


def test_the_wheel_runs_where_it_is_installed(built, tmp_path):
    run("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile",
        "--root-user-action=ignore", "--target", tmp_path / "site", wheel_in(built))  # fmt: skip
    program = (
        "import quantal, sys; print(quantal.__file__); print(quantal.Values('nf4').bits);"
        "print(quantal.search(quantal.objectives.Quadratic([[0, 1], [1, 0]]), [1, -1],"
        "verbose=0).loss); print('keras' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    file, *rest = run("-c", program, cwd=tmp_path, env=environment).split()
    assert pathlib.Path(file).is_relative_to(tmp_path)
    assert rest == ["4", "-2.0", "False"]
    (command,) = (tmp_path / "site" / "bin").glob("quantal*")
    assert command.stat().st_mode & 0o100


def extras():
    return set(tomllib.loads(PROJECT.read_text())["project"]["optional-dependencies"])


@pytest.mark.parametrize("document", ["docs/install.md"])
def test_the_documents_name_every_extra(document):
    rows = re.findall(
        r"^\| (`.*?) \|", (ROOT / document).read_text().split("| extra | for |")[1], re.M
    )
    table = [row for row in rows if all(name in extras() for name in re.findall(r"`(.*?)`", row))]
    assert {name for row in table for name in re.findall(r"`(.*?)`", row)} == extras()


def test_messages_name_extras_that_exist():
    texts = [path.read_text() for path in SOURCE.rglob("*.py")]
    named = {name for text in texts for part in re.findall(r"quantal\[([\w,-]+)\]", text)
             for name in part.split(",")}  # fmt: skip
    assert named
    assert named <= extras()


def test_every_python_of_the_classifiers_is_tested():
    project = tomllib.loads(PROJECT.read_text())["project"]
    versions = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    assert project["requires-python"] == f">={versions[0]}"
    workflows = ROOT / ".github" / "workflows"
    if not workflows.exists():
        pytest.skip("the workflows are not beside the tests")
    assert f"python: {versions}".replace("'", '"') in (workflows / "full.yml").read_text()
    assert f'"{versions[-1]}"' in (workflows / "nightly.yml").read_text()
