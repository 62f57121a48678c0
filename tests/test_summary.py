"""A summary says what every weight of a model is, wherever the model comes from."""

import json

import keras
import numpy as np
import pytest
from keras import layers

import quantal
from conftest import numpy
from models import Subclassed, rows, sequential
from quantal import Discrete, LearnableMultiplier, Scale, Values, discretize, summary


def hand_built():
    inputs = keras.Input((6,))
    x = LearnableMultiplier([1, -1, 0], name="signs")(inputs)
    x = Discrete(layers.Dense(4), "binary", scale=Scale("learned", -1), name="hidden")(x)
    x = layers.BatchNormalization(name="norm")(x)
    return keras.Model(inputs, layers.Dense(2, name="last")(x))


def test_a_model_built_by_hand():
    report = summary(hand_built())
    assert [(row.shape, row.why) for row in report.rows] == [
        ((6,), "listed"),
        ((6, 4), "listed"),
        ((4,), "free: bias"),
        ((4,), "free: gamma"),
        ((4,), "free: beta"),
        ((4,), "free: moving_mean"),
        ((4,), "free: moving_variance"),
        ((4, 2), "free: kernel"),
        ((2,), "free: bias"),
    ]
    signs, hidden, *free = report.rows
    assert (signs.values, signs.bits_before, signs.bits_after) == (Values([1, -1, 0]), 192, 12)
    assert (hidden.bits_before, hidden.bits_after) == (32 * 24, 24 + 32 * 4)
    assert all(row.bits_before == row.bits_after and row.values is None for row in free)
    assert [row.error for row in report.rows] == [None] * 9
    assert report.bits_before == 32 * sum(int(np.prod(row.shape)) for row in report.rows)
    lines = str(report).splitlines()
    assert lines[0].split() == ["weight", "shape", "values", "bits", "error", "why"]
    assert len(lines) == 1 + 9 + 1


def test_a_model_from_a_file_and_a_final_one(tmp_path):
    model = hand_built()
    expected = summary(model)
    quantal.save(model, tmp_path / "model.quantal")
    assert summary(quantal.load(tmp_path / "model.quantal")) == expected
    final = quantal.finalize(model)
    assert summary(final) == expected
    final.save(tmp_path / "model.keras")
    assert summary(keras.saving.load_model(tmp_path / "model.keras")) == expected


def test_a_plain_model(random):
    model, _ = sequential(random)
    report = summary(model)
    assert len(report.rows) == len(model.weights)
    assert report.bits_after == report.bits_before


def test_as_data():
    data = summary(hand_built()).to_dict()
    assert json.loads(json.dumps(data)) == data
    assert data["rows"][0]["values"] == [1.0, -1.0, 0.0]
    assert set(data) == {"bits_before", "bits_after", "rows"}


def test_the_numbers_that_training_moved_are_those_of_the_summary():
    layer = LearnableMultiplier(Values([1, -1], learnable=True))
    model = keras.Sequential([keras.Input((3,)), layer])
    layer.discrete_parameters[0].set_values([2, -3])
    (row,) = summary(model).rows
    assert row.values.tolist() == [2, -3]
    assert row.bits_after == 3 + 2 * 32


@pytest.mark.parametrize("rule", ["block_?[0-9]*/.*kernel", "^subclassed[_0-9]*/dense[_0-9]*/"])
def test_a_subclassed_model_is_compared_weight_by_weight(rule, random):
    model = Subclassed()
    model(rows(random, 6))
    # Some layers among its attributes are exchanged, others stay: `weights` changes its order.
    rules = {rule: "ternary"}
    discrete = discretize(model, rules)
    report = summary(discrete, compared_with=model, rules=rules)
    listed = {row.path: row for row in report.rows if row.values is not None}
    assert len(listed) == len(quantal.parameters_of(discrete)) > 1
    originals = {w.path.removeprefix("subclassed/"): w for w in model.weights}
    for parameter in quantal.parameters_of(discrete):
        distance = [
            np.linalg.norm(numpy(weight) - numpy(parameter.weight)) / np.linalg.norm(numpy(weight))
            for path, weight in originals.items()
            if tuple(weight.shape) == parameter.shape
        ]
        row = listed[parameter.path]
        assert row.why == f"rule {rule!r}"
        assert row.error == pytest.approx(min(distance), rel=1e-5)


def test_baked_it_is_no_further_from_the_original_than_the_discrete_model(random):
    model, _ = sequential(random)
    discrete = discretize(model, "nf4")
    back = summary(discrete, compared_with=quantal.bake(discrete))
    assert {row.error for row in back.rows if row.values is not None} == {0.0}
    first = summary(discrete, compared_with=model)
    assert all(0 < row.error < 0.2 for row in first.rows if row.values is not None)


def test_reasons_are_the_rules(random):
    model, _ = sequential(random)
    discrete = discretize(model, "binary", keep_ends=True)
    report = summary(discrete, compared_with=model, rules="binary")
    why = {row.path.split("/", 1)[1]: row.why for row in report.rows}
    assert why["one/kernel"] == why["three/kernel"] == "first or last layer"
    assert why["two/kernel"] == "every kernel, also of fan-in 8"
    assert why["two/bias"] == "stays free unless its name is spelled"
    other = summary(
        model, compared_with=model, rules={"one": "binary", "two": "nf4", "three": None}
    )
    why = [row.why for row in other.rows if row.path.endswith("kernel")]
    assert why == ["first or last layer", "first or last layer", "rule 'three' leaves it free"]
    three = summary(model, compared_with=model, rules="binary").rows
    assert [row.why for row in three if "two/kernel" in row.path] == [
        "free in spite of the rule: every kernel, also of fan-in 8"
    ]


def test_bad_input(random):
    model, _ = sequential(random)
    with pytest.raises(TypeError, match=r"model is .* Expected a Keras model"):
        summary(layers.Dense(3))
    with pytest.raises(ValueError, match="is not built"):
        summary(keras.Sequential([layers.Dense(3)]))
    with pytest.raises(TypeError, match=r"compared_with is .* Expected a Keras model"):
        summary(model, compared_with="ternary")
    with pytest.raises(ValueError, match=r"compared_with has 9 weights of .* Expected 10 of"):
        summary(model, compared_with=hand_built())
    with pytest.raises(ValueError, match="rules came without compared_with"):
        summary(model, rules="ternary")
