"""The zoo benchmark in small: one model through all stages, its rows, its table."""

import json

import keras
import numpy as np
import pytest

from conftest import on_one_backend

zoo = pytest.importorskip("zoo", reason="benchmarks are not beside the tests")

import zoo_models  # noqa: E402
import zoo_trial  # noqa: E402

pytestmark = on_one_backend


def tiny():
    x = keras.Input((3,))
    return keras.Model(x, keras.layers.Dense(1)(keras.layers.Dense(2)(x)))


def row_of(maker, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(zoo_models.MODELS, "tiny", maker)
    zoo_trial.run("tiny", tmp_path)
    row = {"model": "tiny", "wall": 1.0}
    for line in capsys.readouterr().out.splitlines():
        row |= json.loads(line)
    return row


def test_a_model_passes_all_stages(monkeypatch, tmp_path, capsys):
    row = row_of(tiny, monkeypatch, tmp_path, capsys)
    assert zoo.failures(row) == {}
    assert {row[stage] for stage in zoo.REQUIRED} == {"+"}
    assert row["listed"] == 2
    # Two lists of three, three scales, three biases; two entropies of some bits.
    floats = 4 * (2 * 3 + 3 + 3)
    assert floats < row["bound"] <= floats + 8 * np.log2(3) / 8 + 1
    assert row["bound"] < row["bytes"] == (tmp_path / "model.quantal").stat().st_size


def test_a_failure_is_in_its_row_and_what_follows_is_left_out(monkeypatch, tmp_path, capsys):
    def broken(model, path):
        raise ValueError("no room")

    monkeypatch.setattr(zoo_trial.quantal, "save", broken)
    row = row_of(tiny, monkeypatch, tmp_path, capsys)
    assert zoo.failures(row) == {"save": "ValueError: no room"}
    assert row["load"] == row["load_equal"] == "-"
    assert row["bake_equal"] == "+"
    text = zoo.table([row])
    assert "0 of 1 without a failure" in text
    assert "- tiny, save: ValueError: no room" in text


def test_a_difference_of_one_bit_is_seen():
    model = tiny()
    x = np.ones((2, 3), "float32")
    expected = zoo_trial.outputs_of(model, x)
    zoo_trial.check_equal(model, x, expected)
    expected[0][0, 0] = np.nextafter(expected[0][0, 0], np.float32(9))
    with pytest.raises(AssertionError, match="differs by"):
        zoo_trial.check_equal(model, x, expected)


def test_inputs_fit_the_names_of_a_models_inputs():
    tokens = keras.Input((None,), dtype="int32", name="token_ids")
    mask = keras.Input((None,), dtype="int32", name="padding_mask")
    model = keras.Model({"token_ids": tokens, "padding_mask": mask}, tokens + mask)
    x = zoo_models.inputs_of(model)
    assert x["token_ids"].shape == x["padding_mask"].shape == (2, zoo_models.LENGTH)
    assert x["token_ids"].max() < zoo_models.WORDS
    assert (x["padding_mask"] == 1).all()


def test_a_line_that_was_cut_off_is_run_again(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"model": "a", "code": "1"}\n{"model": "b", "co')
    assert list(zoo.read_rows(path)) == ["a"]


def test_the_zoo_has_all_families_and_enough_of_keras_hub():
    assert len(zoo_models.FAMILIES) == 14
    assert len(zoo_models.BACKBONES) >= 12
    assert len(zoo_models.TASKS) >= 3
