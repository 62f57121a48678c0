"""The table of layers and targets is whole, drawn from its cells, and true."""

import json

import keras
import pytest

import targets
from conftest import on_one_backend

pytestmark = pytest.mark.skipif(
    not targets.JSON.exists(), reason="docs are not beside the installed package"
)

AGAIN = "run scripts/docs-targets"
CELLS = json.loads(targets.JSON.read_text()) if targets.JSON.exists() else {}
LIGHT = [column for column in targets.COLUMNS if column not in targets.HEAVY]
# These start a compiler or a simulator for each cell: without the check they say whether they take
# the layer.
COMPILED = ("c", "c_integer", "verilog_module", "verilog_clocked")
UNCHECKED = [column for column in LIGHT if column in COMPILED]


@on_one_backend
def test_every_layer_and_every_target_has_a_cell():
    assert list(CELLS) == list(targets.ROWS), AGAIN
    for row, cells in CELLS.items():
        assert list(cells) == list(targets.COLUMNS), AGAIN
        empty = [column for column, text in cells.items() if text in ("", targets.NOT_TRIED)]
        assert not empty, f"{row}: {AGAIN}"


@on_one_backend
def test_the_page_is_drawn_from_the_cells():
    assert targets.PAGE.read_text() == targets.page(CELLS), AGAIN


@on_one_backend
def test_a_cell_without_a_reason_is_seen():
    cells = {"Dense": {"npz": targets.WORKS, "c": "it takes no Dense"}}
    page = targets.page(cells)
    assert "| Dense | yes | [1](#reasons) |" in page
    assert page.endswith("## Reasons\n\n1. it takes no Dense\n")


@on_one_backend
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("row", targets.ROWS)
def test_cells_are_true(row):
    """One in three rows a day, and of all columns but those that need a converter."""
    for column in LIGHT:
        assert targets.cell(row, column, check=column not in UNCHECKED) == CELLS[row][column], (
            f"{column}: {AGAIN}"
        )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("row", targets.ROWS)
def test_all_cells_are_true(row):
    for column in targets.COLUMNS:
        if targets.backend_of(column) == keras.config.backend():
            assert targets.cell(row, column) == CELLS[row][column], f"{column}: {AGAIN}"
