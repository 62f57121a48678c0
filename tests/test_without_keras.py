"""Search, lists, objectives and the reader of files work where no backend of Keras is installed."""

import subprocess
import sys

import pytest

from repository import ROOT, code_blocks

pytestmark = [
    pytest.mark.without_keras,
    pytest.mark.skipif(not (ROOT / "docs").exists(), reason="documents are not beside the tests"),
]

# As in an environment without them: Keras is installed, and its import fails.
NOTHING_INSTALLED = """
import sys
for name in ("tensorflow", "jax", "torch"):
    sys.modules[name] = None
"""
GOLDEN = ROOT / "tests" / "golden" / "words.quantal"


def run(program, tmp_path, prelude=NOTHING_INSTALLED):
    return subprocess.run(
        [sys.executable, "-c", prelude + program], cwd=tmp_path, capture_output=True, text=True
    )


def reader():
    (block,) = [block for block in code_blocks("docs/format.md") if "def read(" in block]
    return block


PROGRAMS = {
    "docs/search.md": code_blocks("docs/search.md")[0],
    "docs/designers.md": code_blocks("docs/designers.md")[0],
    "Values": "import quantal\nassert quantal.Values('nf4').codes([0.3]).tolist() == [11]",
    "objectives": "import quantal.objectives, quantal.schedules, quantal\nquantal.search",
    "plots": "from quantal.plots import plot_beam, plot_values\n"
    "plot_beam([1, -1, 1j])\nplot_values([1, -1])",
    "docs/format.md": f"{reader()}\nweights, model = read({str(GOLDEN)!r})\nassert weights",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_it_runs_without_a_backend(name, tmp_path):
    done = run(PROGRAMS[name], tmp_path)
    assert done.returncode == 0, done.stderr


def test_that_check_can_fail(tmp_path):
    assert "Error" in run("import keras", tmp_path).stderr
    assert "Error" in run("import quantal; quantal.Discrete", tmp_path).stderr
