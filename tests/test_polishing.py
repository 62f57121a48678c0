"""Polish lowers a trained model's loss, and never raises it."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest

import quantal
from conftest import numpy, on_one_backend
from quantal import objective, polishing, tempering

LISTS = {
    "signs": [1, -1],
    "four": [1, -1, 0.5, -0.5],
    "channels": np.array([[1.0, -1, 0.3], [0.5, 2, -2]]),
}


def data(random, samples=96, inputs=12, outputs=2):
    """Answers of a hidden layer of listed weights."""
    x = random.normal(size=(samples, inputs)).astype("float32")
    hidden = random.choice([1, -1, 0.5, -0.5], size=(inputs, outputs)).astype("float32")
    return x, x @ hidden


def model_of(values="four", inputs=12, loss="mse", **wrapper):
    numbers = LISTS[values]
    if values == "channels":
        numbers = quantal.Values(numbers, axis=-1)
    dense = quantal.Discrete(keras.layers.Dense(2, use_bias=False), numbers, **wrapper)
    model = keras.Sequential([keras.Input((inputs,)), dense])
    model.compile("adam", loss)
    return model


def network(random, values="binary"):
    """A loss that is not quadratic: two layers, statistics and dropout between them."""
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((12,)),
            quantal.Discrete(layers.Dense(16), values),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Dropout(0.5),
            quantal.Discrete(layers.Dense(3), values, scale="learned"),
        ]
    )
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x = random.normal(size=(128, 12)).astype("float32")
    return model, x, (x[:, 0] > 0).astype(int) + (x[:, 1] * x[:, 2] > 0)


def loss_of(model, x, y):
    return float(model.evaluate(x, y, batch_size=len(x), verbose=0))


def polished(model, x, y, budget=None, evaluations=300, **named):
    return quantal.polish(model, x, y, budget, evaluations=evaluations, verbose=0, **named)


def test_a_quadratic_loss_to_its_optimum(random):
    x, y = data(random)
    model = model_of()
    before = loss_of(model, x, y)
    report = polished(model, x, y, budget=2, evaluations=None)
    assert report.loss_before == pytest.approx(before, rel=1e-5)
    assert report.loss == pytest.approx(0, abs=1e-9)
    assert loss_of(model, x, y) == pytest.approx(0, abs=1e-9)
    assert report.elements == 24
    assert "of 24 elements changed" in str(report)


def test_a_network(random):
    model, x, y = network(random, "ternary")
    before = loss_of(model, x, y)
    kept = [numpy(v) for v in model.non_trainable_variables]
    report = polished(model, x, y, seed=1)
    after = loss_of(model, x, y)
    assert report.loss == pytest.approx(after, rel=1e-4)
    assert after < 0.9 * before
    quantal.testing.assert_listed(model)
    # The other variables stay, whatever was computed with.
    for variable, number in zip(model.non_trainable_variables, kept, strict=True):
        np.testing.assert_array_equal(numpy(variable), number)
    assert not model.losses


def test_the_same_seed_gives_the_same_choice(random):
    model, x, y = network(random)
    other = keras.models.clone_model(model)
    other.compile(loss=model.loss)
    other.set_weights(model.get_weights())
    first, second = (polished(m, x, y, evaluations=120, seed=3) for m in (model, other))
    assert (first.loss, first.evaluations) == (second.loss, second.evaluations)
    for a, b in zip(quantal.parameters_of(model), quantal.parameters_of(other), strict=True):
        np.testing.assert_array_equal(numpy(a.codes), numpy(b.codes))


def test_a_list_for_each_channel_and_float16(random):
    keras.config.set_dtype_policy("mixed_float16")
    x, y = data(random)
    model = model_of("channels")
    before = loss_of(model, x, y)
    polished(model, x, y)
    assert loss_of(model, x, y) < before
    quantal.testing.assert_listed(model)


def test_only_what_is_named_changes(random):
    model, x, y = network(random)
    first, second = quantal.parameters_of(model)
    before = numpy(second.codes)
    report = polished(model, x, y, parameters=[first])
    np.testing.assert_array_equal(numpy(second.codes), before)
    assert 0 < report.changed <= report.elements == first.shape[0] * first.shape[1]


def test_data_in_parts_and_a_guard(random):
    model, x, y = network(random)
    guard = x[64:], y[64:]
    before = loss_of(model, *guard), loss_of(model, x[:64], y[:64])
    report = polished(model, x[:64], y[:64], batch_size=16, validation_data=guard)
    after = loss_of(model, *guard), loss_of(model, x[:64], y[:64])
    assert report.validation_before == pytest.approx(before[0], rel=1e-4)
    assert report.validation == pytest.approx(after[0], rel=1e-4)
    assert report.loss == pytest.approx(after[1], rel=1e-4)
    assert after[0] < before[0]
    assert after[1] <= before[1]


@on_one_backend
def test_noise_is_not_learned(random):
    model, x, _ = network(random)
    y, others = random.integers(0, 3, (2, 64))
    before = loss_of(model, x[64:], others)
    polished(model, x[:64], y, validation_data=(x[64:], others))
    assert loss_of(model, x[64:], others) <= before


@on_one_backend
@pytest.mark.parametrize(
    ("losses", "validations", "kept"),
    [
        ([0.9, 0.8], None, 2),
        ([0.8, 0.8], None, 1),
        ([0.8, 0.9], None, 1),
        ([0.9, 0.8], [0.5, 0.6], 1),  # The last learned noise.
        ([0.8, 0.9], [0.6, 0.5], 2),  # The validation data decide,
        ([1.1, 1.2], [0.6, 0.5], 0),  # but it is never worse than at first.
        ([0.9, 0.8], [1.1, 1.0], 0),
    ],
)
def test_what_is_kept(losses, validations, kept):
    """Choices 1 and 2 are looked at, from choice 0 with losses of 1."""

    def says(numbers):
        return SimpleNamespace(measure=lambda ranks: [1.0, *numbers][int(ranks[0])])

    record = SimpleNamespace(best_codes=np.array([0]), best=1.0)
    guard = None if validations is None else says(validations)
    first = None if guard is None else 1.0
    run = polishing._Run(says(losses), guard, record, first, 1.0, 0, False)
    for choice in (1, 2):
        run._look(np.array([choice]))
    assert run.kept[0] == kept
    assert run.kept_loss == [1.0, *losses][kept]
    assert run.kept_validation == (None if guard is None else [1.0, *validations][kept])


@on_one_backend
def test_what_is_monitored_is_what_is_kept(random):
    model, x, y = network(random)

    def wrong(y, outputs):
        chosen = keras.ops.argmax(outputs, axis=-1)
        return keras.ops.mean(keras.ops.cast(chosen != keras.ops.cast(y, chosen.dtype), "float32"))

    def share():
        return np.mean(model.predict(x, verbose=0).argmax(axis=1) != y)

    before = share()
    report = polished(model, x, y, monitor=wrong)
    assert (report.loss_before, report.loss) == pytest.approx((before, share()))
    assert report.loss < before


@on_one_backend
def test_it_goes_on_from_its_file(random, tmp_path):
    model, x, y = network(random)
    start = model.get_weights()
    path = tmp_path / "choice.npz"
    first = polished(model, x, y, file=path)
    model.set_weights(start)
    again = polished(model, x, y, evaluations=3, file=path)
    assert again.loss <= first.loss * (1 + 1e-6) < first.loss_before
    damaged = path.read_bytes()
    path.write_bytes(damaged[: len(damaged) // 2])
    with pytest.raises(ValueError, match="not readable as a search's file"):
        polished(model, x, y, file=path)
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match="of another search"):
        polished(model_of(), *data(random), file=path)


@on_one_backend
def test_an_interrupt_keeps_the_best(random, monkeypatch):
    model, x, y = network(random)
    calls = iter(range(200))
    slopes = objective.Objective.slopes

    def stopped(*arguments):
        if next(calls) == 150:
            raise KeyboardInterrupt
        return slopes(*arguments)

    monkeypatch.setattr(objective.Objective, "slopes", stopped)
    report = polished(model, x, y)
    assert report.loss < report.loss_before
    assert loss_of(model, x, y) == pytest.approx(report.loss, rel=1e-4)


def test_many_candidates_at_once_have_their_own_losses(random):
    model, x, y = network(random)
    parameters = quantal.parameters_of(model)
    whole = objective.Objective(model, parameters, x, y, 50)
    ranks = whole.ranks()
    rows = np.stack([ranks, 1 - ranks, np.zeros_like(ranks)])
    together = whole.losses(rows)
    assert not whole._compute._one_by_one
    for row, loss in zip(rows, together, strict=True):
        assert whole.slopes(row)[0] == pytest.approx(loss, rel=1e-5)
        whole.choose(row)
        np.testing.assert_array_equal(whole.ranks(), row)
        assert loss_of(model, x, y) == pytest.approx(loss, rel=1e-4)


@on_one_backend
def test_the_gradient_is_that_to_the_values(random):
    x, y = data(random)
    model = model_of(scale="learned")
    whole = objective.Objective(model, quantal.parameters_of(model), x, y, 1000)
    ranks = whole.ranks()
    _, slope = whole.slopes(ranks)
    moved = whole.neighbours(ranks, random)
    losses = whole.losses(np.where(np.eye(len(ranks), dtype=bool), moved, ranks))
    step = whole._steps(ranks, moved)
    scale = float(numpy(quantal.parameters_of(model)[0].scale).reshape(()))
    squares = np.repeat((x**2).sum(axis=0), 2) * scale**2 / (2 * len(x))
    expected = slope * step + squares * step**2
    np.testing.assert_allclose(losses - whole.losses(ranks[None]), expected, rtol=1e-3, atol=1e-5)


@on_one_backend
def test_costs_are_those_of_the_curvature(random):
    """Columns of one length, at right angles: one curvature for all elements."""
    x, _ = np.linalg.qr(random.normal(size=(96, 12)))
    model = model_of()
    x, y = x.astype("float32"), random.normal(size=(96, 2)).astype("float32")
    whole = objective.Objective(model, quantal.parameters_of(model), x, y, 1000)
    ranks = whole.ranks()
    _, slope = whole.slopes(ranks)
    whole.probe(ranks, slope, random)
    moved = whole.neighbours(ranks, random)
    losses = whole.losses(np.where(np.eye(len(ranks), dtype=bool), moved, ranks))
    costs = whole.costs(ranks, moved, slope)
    np.testing.assert_allclose(losses - whole.losses(ranks[None]), costs, rtol=0.02, atol=1e-6)
    assert np.abs(costs - slope * whole._steps(ranks, moved)).min() > 1e-3


@on_one_backend
def test_a_survey_tells_steep_elements_from_flat_ones(random):
    sizes = np.repeat([1.0, 3.0], 6)
    x = (random.normal(size=(4096, 12)) * sizes).astype("float32")
    model = model_of()
    y = model.predict(x, verbose=0) + random.normal(size=(4096, 2)).astype("float32")
    whole = objective.Objective(model, quantal.parameters_of(model), x, y, 8192)
    whole.survey(whole.ranks(), random, lambda: True)
    flat, steep = whole._profile.reshape(2, 6, 2).mean(axis=(1, 2))
    assert 6 < steep / flat < 12  # 9 but for what flat ones have added.


@on_one_backend
def test_small_gradients_are_not_lost_in_half_precision(random):
    keras.config.set_dtype_policy("mixed_float16")
    x, y = data(random)
    model = model_of(loss=lambda y, p: 1e-6 * keras.ops.mean((y - p) ** 2, axis=-1))
    whole = objective.Objective(model, quantal.parameters_of(model), x, y, 1000)
    _, slope = whole.slopes(whole.ranks())
    apart = x @ numpy(quantal.parameters_of(model)[0].kernel) - y
    np.testing.assert_allclose(
        slope, 1e-6 * (x.T @ apart).reshape(-1) / len(x), rtol=0.05, atol=1e-8
    )


@on_one_backend
def test_cycles_lead_out_of_a_local_optimum(random):
    x, _ = data(random, samples=256, inputs=64)
    model = model_of(inputs=64)
    # The model is right already, so that every change raises the loss.
    y = model.predict(x, verbose=0)
    whole = objective.Objective(model, quantal.parameters_of(model), x, y, 1000)
    best, seen = whole.ranks(), []
    for _ in range(5):  # Each as hot as it is drawn.
        steps = iter(range(41))
        cycle = tempering.Tempering(whole, random).cycle
        cycle(best, lambda own=steps: next(own) / 40, lambda: True, lambda r, _: seen.append(r))
    apart = [int((ranks != best).sum()) for ranks in seen]
    assert 0 < max(apart) < 64


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"model": 3}, TypeError, "Expected a Keras model"),
        ({"x": np.zeros((5, 12))}, ValueError, "Expected as many in each"),
        ({"validation_data": np.zeros(3)}, ValueError, "Expected a pair"),
        ({"budget": 0}, ValueError, "budget is 0"),
        ({"budget": None, "evaluations": None}, ValueError, "Expected one of them"),
        ({"parameters": []}, ValueError, "no discrete parameters"),
    ],
)
@on_one_backend
def test_bad_arguments(change, error, words, random):
    x, y = data(random)
    given = {"model": model_of(), "x": x, "y": y, "budget": 1, "verbose": 0, **change}
    with pytest.raises(error, match=words):
        quantal.polish(**given)


@on_one_backend
def test_bad_models(random):
    x, y = data(random)
    model = model_of()
    with pytest.raises(ValueError, match="not in the model"):
        polished(model, x, y, parameters=quantal.parameters_of(model_of()))
    with pytest.raises(ValueError, match="before anything is changed"):
        polished(model, x * np.nan, y)
    plain = keras.Sequential([keras.Input((12,)), quantal.LearnableMultiplier()])
    with pytest.raises(ValueError, match="not compiled"):
        polished(plain, x, y)


@on_one_backend
def test_progress_is_shown(random, capsys):
    x, y = data(random)
    quantal.polish(model_of(), x, y, budget=0.2)
    assert "loss" in capsys.readouterr().out
    assert polishing.PolishReport(2, 1, None, None, 3, 4, 5, []).loss == 1
