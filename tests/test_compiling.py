"""Compiled loops work where nothing can be written, and use numba's cache elsewhere."""

import importlib.util
import os
import shutil
import subprocess
import sys

import numba
import pytest

from quantal.objectives._algorithms.compiling import compiled
from repository import SOURCE

pytestmark = pytest.mark.without_keras

PROGRAM = """
import numpy as np, quantal
result = quantal.search(quantal.objectives.Quadratic(np.eye(3)), [1, 2], budget=2, verbose=0)
from quantal.objectives._algorithms.sphere_decoding import DepthFirstSearch
print(result.vector.tolist())
"""


def test_nothing_has_to_be_written(tmp_path):
    """As in a container whose user owns neither the package nor a home.

    Modes of folders do not keep root from writing; files where folders are expected do.
    """
    package = tmp_path / "quantal"
    shutil.copytree(SOURCE, package, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in [package, *(path for path in package.rglob("*") if path.is_dir())]:
        (folder / "__pycache__").write_bytes(b"")
    nowhere = {"HOME": "/dev/null/home", "XDG_CACHE_HOME": "/dev/null/cache"}
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={"PYTHONPATH": str(tmp_path), "PATH": os.environ["PATH"], **nowhere},
        capture_output=True,
        text=True,
    )
    assert (process.stdout, process.stderr) == ("[1.0, 1.0, 1.0]\n", "")


def doubled(path):
    """A function of a module that is loaded anew, with an empty memory of what was compiled."""
    spec = importlib.util.spec_from_file_location("doubling", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.doubled


@pytest.fixture
def module(tmp_path, monkeypatch):
    path = tmp_path / "doubling.py"
    path.write_text(
        "from quantal.objectives._algorithms.compiling import compiled\n"
        "@compiled(fastmath=True)\ndef doubled(x):\n    return 2 * x\n"
    )
    (tmp_path / "cache").mkdir()
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"))
    return path


def cache_hits(function):
    return sum(function.stats.cache_hits.values())


def test_a_later_process_need_not_compile(module):
    assert doubled(module)(3) == 6
    later = doubled(module)
    assert later(3) == 6
    assert cache_hits(later) == 1


@pytest.mark.parametrize("content", [b"", b"\x80 damaged"])
def test_a_damaged_cache_is_compiled_anew(module, content, tmp_path):
    doubled(module)(3)
    files = list((tmp_path / "cache").rglob("*.nb[ic]"))
    assert len(files) == 2
    for file in files:
        file.write_bytes(content)
    assert doubled(module)(3) == 6


def test_a_cache_that_cannot_be_written_later_is_no_error(module, tmp_path):
    function = doubled(module)
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").write_bytes(b"")
    assert function(3) == 6


def test_options_are_those_of_numba():
    assert compiled(fastmath=True)(lambda x: x).targetoptions["fastmath"]
