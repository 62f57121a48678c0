"""Assess says what other values would do to the loss, and what a vector cannot say."""

import json

import keras
import numpy as np
import pytest

import quantal
from conftest import numpy, on_one_backend
from quantal import Budget, Discrete, LearnableMultiplier, Values, parameters_of
from quantal._models import model_loss as model_loss_module
from quantal._models.batches import Batches
from quantal._models.compiled_loss import CompiledLoss
from quantal._models.model_loss import ModelLoss
from quantal._optimize.assess import single_changes as single_changes_module
from quantal._optimize.assess.comparisons import Comparisons
from quantal._optimize.polish.ascending_lists import AscendingLists

layers = keras.layers


def compiled(*parts, inputs=(4,), loss="mse"):
    built = keras.Sequential([keras.Input(inputs), *parts])
    built.compile("sgd", loss)
    return built


def assessed(model, x, y, **named):
    return quantal.assess(model, x, y, **{"verbose": 0, **named})


@pytest.fixture
def data(random):
    x = random.normal(size=(32, 4)).astype("float32")
    return x, random.normal(size=(32, 2)).astype("float32")


def single_losses(model, x, y, parameter):
    """The losses (elements, K) of every single change, by setting codes and evaluating."""
    codes = numpy(parameter.codes).copy()
    losses = np.empty((codes.size, len(parameter.values)))
    for element in range(codes.size):
        for code in range(len(parameter.values)):
            changed = codes.copy()
            changed.flat[element] = code
            parameter.set_codes(changed)
            losses[element, code] = model.evaluate(x, y, batch_size=len(x), verbose=0)
    parameter.set_codes(codes)
    return losses


@pytest.mark.parametrize("kind", ["list", "channels"])
def test_each_change_is_what_evaluate_gives_for_it(kind, data, random):
    x, y = data
    values = [0.5, -1, 2] if kind == "list" else Values([[1, -1, 0.2], [3, 0.5, -2]], axis=-1)
    dense = Discrete(layers.Dense(2, use_bias=False), values, scale=None)
    model = compiled(dense, layers.BatchNormalization(trainable=False))
    (parameter,) = parameters_of(model)
    losses = single_losses(model, x, y, parameter)
    codes = numpy(parameter.codes).ravel()
    result = assessed(model, x, y, batch_size=11)
    (part,) = result.parameters
    rows = np.arange(len(codes))
    change = losses - losses[rows, codes][:, None]
    others = np.where(np.arange(3) == codes[:, None], np.inf, change)
    assert result.loss == pytest.approx(losses[0, codes[0]], rel=1e-5)
    assert (part.assessed, part.elements, result.samples) == (8, 8, 32)
    np.testing.assert_array_equal(part.positions, rows)
    np.testing.assert_allclose(part.changes, others.min(1), atol=1e-5)
    np.testing.assert_array_equal(part.values, numpy(parameter.listed_values).ravel())
    table = np.broadcast_to(np.atleast_2d(parameter.values.numbers)[rows % 2 * (kind != "list")],
                            (8, 3))  # fmt: skip
    np.testing.assert_array_equal(part.best_values, table[rows, others.argmin(1)])
    for number, column in ((-1, part.below), (1, part.above)):
        ranks = np.argsort(np.argsort(table, axis=1), axis=1)
        rank = ranks[rows, codes] + number
        for row in rows:
            if 0 <= rank[row] < 3:
                expected = change[row, np.argsort(table[row])[rank[row]]]
                assert column[row] == pytest.approx(expected, abs=1e-5)
            else:
                assert np.isnan(column[row])
    assert part.helpful == (others.min(1) < -1e-5).sum()
    np.testing.assert_array_equal(numpy(parameter.codes).ravel(), codes)


@on_one_backend
def test_the_headline_says_what_to_do(random):
    x = random.normal(size=(64, 8)).astype("float32")
    signs = np.array([1, -1, 1, 1, -1, -1, 1, -1])
    model = compiled(LearnableMultiplier([1, -1], name="signs"), inputs=(8,))
    layer = model.layers[0]
    layer.set_codes((1 - signs) // 2)
    best = assessed(model, x, x * signs)
    assert best.headline().startswith("No single change lowers the loss of 0: none of 8 elements")
    assert (best.helpful, best.advice()) == (0, [])
    assert best.free == pytest.approx(0, abs=1e-9)
    assert best.random.mean > 1
    wrong = (1 - signs) // 2
    wrong[[2, 5, 6]] ^= 1
    layer.set_codes(wrong)
    result = assessed(model, x, x * signs)
    assert result.headline().startswith("For 3 of 8 elements another value lowers the loss: the ")
    assert "quantal.polish makes such changes, with" in result.headline()
    squares = 4 * (x.astype(float) ** 2).mean(0) / 8
    assert result.best_change == pytest.approx(-squares[[2, 5, 6]].max(), rel=1e-4)
    np.testing.assert_allclose(np.abs(result.parameters[0].changes), squares, rtol=1e-4)
    assert f"to {result.loss + result.best_change:.5g}" in result.headline()
    assert result.free == pytest.approx(0, abs=1e-6)
    assert result.constant == pytest.approx(squares[signs != signs.max()].sum(), rel=0.5)


@on_one_backend
def test_elements_that_make_no_difference_are_counted(data):
    x, y = data
    model = compiled(LearnableMultiplier([1, -1]), layers.Dense(2, trainable=False))
    kernel = numpy(model.layers[1].kernel).copy()
    kernel[1] = 0
    model.layers[1].kernel.assign(kernel)
    result = assessed(model, x, y)
    assert result.parameters[0].indifferent == 1
    assert "1 of these elements have another value that is as good." in result.remarks()


@on_one_backend
def test_a_budget_that_is_too_small_assesses_a_sample_of_each_weight(data):
    x, y = data
    model = compiled(
        LearnableMultiplier([1, -1, 0.5]), Discrete(layers.Dense(50), "ternary"), layers.Dense(2)
    )
    few = assessed(model, x, y, budget=Budget(evaluations=1))
    counts = [part.assessed for part in few.parameters]
    assert counts[0] == 4  # Weights take turns: the vector is whole, the kernel is not.
    assert 0 < counts[1] < 200
    assert f"of {sum(counts)} elements, a random sample of 204," in few.headline()
    again = assessed(model, x, y, budget=Budget(evaluations=1))
    np.testing.assert_array_equal(few.parameters[1].positions, again.parameters[1].positions)
    backwards = parameters_of(model)[::-1]
    part, vector = assessed(
        model, x, y, budget=Budget(evaluations=1), parameters=backwards
    ).parameters
    assert vector.assessed == 4
    assert part.positions.max() > part.assessed  # Drawn from all of them, and not the first ones.
    every = assessed(model, x, y)
    assert [part.assessed for part in every.parameters] == [4, 200]
    np.testing.assert_allclose(
        few.parameters[1].changes, every.parameters[1].changes[few.parameters[1].positions],
        atol=1e-6,
    )  # fmt: skip
    only = assessed(model, x, y, parameters=parameters_of(model)[:1])
    assert [part.path for part in only.parameters] == [parameters_of(model)[0].path]


@on_one_backend
def test_long_lists_are_tried_at_their_neighbours(data, monkeypatch):
    x, y = data
    monkeypatch.setattr(single_changes_module, "_MOST_EVALUATIONS", 10)
    model = compiled(Discrete(layers.Dense(2), Values(np.arange(-4, 5)), scale=None))
    (part,) = assessed(model, x, y).parameters
    assert set(np.abs(part.best_values - part.values)) == {1}
    expected = np.fmin(part.below, part.above)
    np.testing.assert_allclose(part.changes, expected)


@on_one_backend
def test_losses_are_computed_in_the_faster_way(data, monkeypatch):
    x, y = data
    model = compiled(Discrete(layers.Dense(2), "ternary"))
    vectors = np.zeros((8, 8))

    def vectorizes_after(seconds, most):
        monkeypatch.setattr(model_loss_module, "_MOST_CANDIDATES", most)
        loss = ModelLoss(CompiledLoss(model, parameters_of(model)), Batches((x, y, None), 8192))
        loss.candidates = 4
        ticks = iter(seconds)
        loss.prefer_faster(vectors, lambda: next(ticks))
        return loss.compiled.vectorizes

    assert vectorizes_after([0, 4, 10, 11.1], 256)  # Four at once take 4 s, one alone 1.1 s.
    assert not vectorizes_after([0, 4, 10, 10.9], 256)
    assert vectorizes_after([], 4)


@on_one_backend
def test_comparisons_are_with_what_they_say(data):
    x, y = data
    model = compiled(Discrete(layers.Dense(2, use_bias=False), [1, -1, 0], scale=None))
    (parameter,) = parameters_of(model)
    parameter.set_codes(np.array([[0, 1], [0, 2], [0, 1], [2, 0]]))
    result = assessed(model, x, y)
    ones = np.ones((4, 2))
    assert result.constant == pytest.approx(float(np.mean((x @ ones - y) ** 2)), rel=1e-5)
    best, *_ = np.linalg.lstsq(x, y, rcond=None)
    assert result.free == pytest.approx(float(np.mean((x @ best - y) ** 2)), rel=1e-4)
    batches = Batches((x, y, None), 8192)
    loss = ModelLoss(CompiledLoss(model, [parameter]), batches)
    comparisons = Comparisons(loss, AscendingLists([parameter]), np.random.default_rng(0))
    seen = []
    comparisons._loss = lambda rows: seen.append(rows) or loss(rows)
    compared = comparisons.compared(slice(3, 5))
    rows = seen[0]
    now = numpy(parameter.listed_values).ravel()
    np.testing.assert_array_equal(rows[0], now)
    outside = np.r_[0:3, 5:8]
    assert (rows[:, outside] == now[outside]).all()
    assert len(np.unique(rows[1:-1, 3:5], axis=0)) > 3
    np.testing.assert_array_equal(rows[-1, 3:5], [1, 1])
    losses = loss(rows)
    assert compared.random.mean == pytest.approx(losses[1:-1].mean())
    assert compared.random.deviation == pytest.approx(losses[1:-1].std(ddof=1))
    few = assessed(model, x[:12], y[:12])
    assert few.free is None  # Eight floats fit twelve samples whatever they are.


@on_one_backend
def test_the_best_change_in_per_cent_is_written_without_an_exponent(data):
    x, _ = data
    model = compiled(LearnableMultiplier([1, -1]))
    model.layers[0].set_codes([1, 0, 0, 0])
    for error, share in ((0, "(-100 %)"), (3, "(-31 %)"), (9, "(-4.7 %)")):
        signs = x / np.abs(x)
        result = assessed(model, signs, signs + error * np.eye(4)[1])
        assert share in result.headline()


def test_missing_targets_are_asked_for(data):
    x, _ = data
    model = compiled(LearnableMultiplier([1, -1]))
    with pytest.raises(ValueError, match=r"y is None, and the loss .* Give y, as in fit"):
        assessed(model, x, None)


@on_one_backend
def test_a_loss_that_needs_no_targets_gets_none(data):
    class Penalty(layers.Layer):
        def call(self, inputs):
            self.add_loss(keras.ops.mean(inputs))
            return inputs

    x, _ = data
    model = keras.Sequential([keras.Input((4,)), LearnableMultiplier([1, -1]), Penalty()])
    model.compile("adam")
    model.layers[0].set_codes([0, 0, 0, 0])
    result = assessed(model, np.abs(x), None)
    assert result.helpful == 4
    assert result.loss == pytest.approx(np.abs(x).mean(), rel=1e-5)


def absorption_of(model, x, y, index=0):
    return assessed(model, x, y, budget=Budget(evaluations=1)).parameters[index].absorption


def test_a_vector_before_a_free_dense_cannot_be_identified(data):
    x, y = data
    model = compiled(LearnableMultiplier([1, -1], name="signs"), layers.Dense(2, name="free"))
    weights = [numpy(weight).copy() for weight in model.weights]
    result = assessed(model, x, y)
    absorption = result.parameters[0].absorption
    assert (absorption.signs, absorption.sizes, absorption.listed) == (True, False, False)
    assert [name.split("/", 1)[1] for name in absorption.names] == ["free/kernel"]
    (text,) = [line for line in result.advice() if "identified" in line]
    assert "The signs of sequential" in text
    assert "Leave the vector out, which loses nothing; or" in text
    assert "free/kernel (trainable=False) with weights that you know, as random ones" in text
    assert "or put it on a list, one without opposite values." in text
    for weight, number in zip(model.weights, weights, strict=True):
        np.testing.assert_array_equal(numpy(weight), number)
    model.layers[1].trainable = False
    assert absorption_of(model, x, y) is None


def images():
    random = np.random.default_rng(0)
    return random.normal(size=(8, 4, 4, 3)).astype("f4"), random.normal(size=(8, 2)).astype("f4")


def branches():
    inputs = keras.Input((4,))
    signed = LearnableMultiplier([1, -1])(inputs)
    outputs = layers.Dense(2)(signed) + layers.Dense(2)(layers.Activation("tanh")(signed))
    model = keras.Model(inputs, outputs)
    model.compile("sgd", "mse")
    return model


ABSORBED = {
    "behind a free layer": (
        lambda: compiled(layers.Dense(5, bias_initializer="normal"), LearnableMultiplier([1, -1]),
                         layers.ReLU(), Discrete(layers.Dense(2), "zero_one")),
        "signs", 2,
    ),
    "ratios through relu": (
        lambda: compiled(LearnableMultiplier([0.5, 1, 2]), layers.ReLU(), layers.Dense(2)),
        "sizes", 1,
    ),
    "both": (lambda: compiled(LearnableMultiplier([0.5, -1, 2, 1]), layers.Dense(2)), "both", 1),
    "batch normalization": (
        lambda: compiled(LearnableMultiplier([1, -1]), layers.BatchNormalization(),
                         layers.Activation("relu"), layers.Dense(2)),
        "signs", 2,
    ),
    "two readers": (branches, "signs", 2),
    "a list with opposite values": (
        lambda: compiled(LearnableMultiplier([1, -1]), Discrete(layers.Dense(2), "ternary")),
        "signs", 1,
    ),
    "channels that are flattened": (
        lambda: compiled(LearnableMultiplier([1, -1]), layers.AveragePooling2D(2), layers.Flatten(),
                         layers.Dense(2), inputs=(4, 4, 3)),
        "signs", 1,
    ),
    "an axis before the last, flattened": (
        lambda: compiled(LearnableMultiplier([1, -1], axis=1), layers.Flatten(), layers.Dense(2),
                         inputs=(4, 4, 3)),
        "signs", 1,
    ),
    "a convolution": (
        lambda: compiled(LearnableMultiplier([1, -1]), layers.Conv2D(2, 4), layers.Flatten(),
                         inputs=(4, 4, 3)),
        "signs", 1,
    ),
}  # fmt: skip


@on_one_backend
@pytest.mark.filterwarnings("ignore:torch has no vectorized form")
@pytest.mark.parametrize("name", ABSORBED)
def test_what_other_weights_can_undo(name, data, random):
    make, kind, count = ABSORBED[name]
    keras.utils.set_random_seed(1)
    model = make()
    x, y = data if len(model.input_shape) == 2 else images()
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            for variable in layer.variables:
                variable.assign(random.uniform(0.5, 2, size=variable.shape))
    absorption = absorption_of(model, x, y)
    assert (absorption.signs, absorption.sizes) == (kind != "sizes", kind != "signs")
    assert len(absorption.names) == count
    assert absorption.listed == (name == "a list with opposite values")


IDENTIFIED = {
    "alone": lambda: compiled(LearnableMultiplier([1, -1]), inputs=(2,)),
    "relu between": lambda: compiled(LearnableMultiplier([1, -1]), layers.ReLU(), layers.Dense(2)),
    "a list without opposite values": lambda: compiled(
        LearnableMultiplier([1, -1]), Discrete(layers.Dense(2), "zero_one")
    ),
    "zeros and ones": lambda: compiled(LearnableMultiplier([0, 1]), layers.Dense(2)),
    "a matrix": lambda: compiled(
        Discrete(layers.Dense(4), "binary"), layers.ReLU(), layers.Dense(2)
    ),
}


@on_one_backend
@pytest.mark.parametrize("name", IDENTIFIED)
def test_what_nothing_undoes(name, data):
    model = IDENTIFIED[name]()
    x, y = data
    assert absorption_of(model, x[:, : model.input_shape[-1]], y) is None


@on_one_backend
def test_runs_with_other_seeds_agree_or_not(random):
    x = random.normal(size=(64, 4)).astype("float32")
    model = compiled(LearnableMultiplier([1, -1]))
    vectors = [[1, 1, 1, 0], [0, 1, 0, 1], [0, 1, 1, 1]]

    def retrain(seed):
        other = compiled(LearnableMultiplier([1, -1]))
        other.layers[0].set_codes(vectors[seed])
        return other

    result = assessed(model, x, x, retrain=retrain)
    (part,) = result.parameters
    assert part.agreement == pytest.approx((0.25 + 0.5 + 0.75) / 3)
    assert part.by_chance == pytest.approx((0.5 + 0.625 + 0.5) / 3)
    assert "Runs with other seeds agree in 50% of the elements of" in str(result).replace("\n", " ")
    losses = [retrain(seed).evaluate(x, x, verbose=0) for seed in range(3)]
    np.testing.assert_allclose(result.seed_losses, losses, rtol=1e-6)
    with pytest.raises(ValueError, match=r"seeds is 1\. Expected 2 or more"):
        assessed(model, x, x, retrain=retrain, seeds=1)
    with pytest.raises(ValueError, match=r"retrain\(0\) returned a model with listed weights of"):
        assessed(model, x, x, retrain=lambda seed: compiled(LearnableMultiplier(), inputs=(3,)))


@on_one_backend
def test_data_without_a_loss_are_refused_before_anything_is_trained():
    seeds = []
    model, x = compiled(LearnableMultiplier([1, -1])), np.ones((64, 4), "float32")
    for y, words in [
        (None, "y is None"),
        (x[:63], r"have \[63, 64\] samples"),
        (np.nan * x, "The loss is nan"),
        (np.ones((64, 3), "float32"), None),  # Words of the backend.
    ]:
        with pytest.raises(Exception, match=words):
            assessed(model, x, y, retrain=seeds.append)
        assert seeds == []


@on_one_backend
def test_the_views(data, capsys):
    x, y = data
    model = compiled(LearnableMultiplier([1, -1], name="<signs>"), layers.Dense(2))
    result = quantal.assess(model, x, y)
    assert "4 of 4 elements assessed" in capsys.readouterr().out
    assert all(len(line) <= 100 for line in str(result).splitlines())
    assert "&lt;signs&gt;" in result._repr_html_()
    assert "<signs>" not in result._repr_html_()
    assert result._repr_html_().startswith(f"<p>{result.headline()}</p>")
    data = json.loads(result.to_json())
    assert data["headline"] == result.headline()
    assert data["parameters"][0]["absorption"]["signs"] is True
    assert data["parameters"][0]["changes"] == result.parameters[0].changes.tolist()
    table = pytest.importorskip("pandas").DataFrame(result.to_frame())
    assert list(table) == [
        "weight", "position", "value", "best_value", "change", "below", "above",
    ]  # fmt: skip
    assert len(table) == 4


@on_one_backend
def test_what_cannot_be_assessed_is_refused(data):
    x, y = data
    model = compiled(LearnableMultiplier([1, -1]), layers.Dense(2))
    with pytest.raises(ValueError, match=r"The loss is nan\. Expected a finite number\."):
        assessed(model, np.full_like(x, np.nan), y)
    with pytest.raises(ValueError, match=r"has no discrete parameters\. Expected one or more"):
        assessed(compiled(layers.Dense(2)), x, y)
    with pytest.raises(ValueError, match="batch_size is 0"):
        assessed(model, x, y, batch_size=0)
    model.trainable = False
    assert assessed(model, x, y).assessed == 4  # Frozen ones can be assessed, too.
