"""Polish lowers a trained model's loss, and never raises it."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest

import quantal
from conftest import numpy, on_one_backend
from quantal._models import model_loss as objective
from quantal._optimize.polish import annealing as tempering
from quantal._optimize.polish import polish as polishing

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
    assert report.proved
    assert report.elements == 24
    assert "of 24 elements changed" in str(report)


def test_a_network(random):
    model, x, y = network(random, "ternary")
    before = loss_of(model, x, y)
    kept = [numpy(v) for v in model.non_trainable_variables]
    report = polished(model, x, y, seed=1)
    after = loss_of(model, x, y)
    assert report.loss == pytest.approx(after, rel=1e-4)
    assert not report.proved
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
        ([np.nan, 0.8], None, 2),
        ([0.8, np.nan], None, 1),
        ([np.nan, 0.8], [0.5, 0.6], 2),
        ([0.8, 0.9], [0.6, np.nan], 1),
    ],
)
def test_what_is_kept(losses, validations, kept):
    """Choices 1 and 2 are looked at, from choice 0 with losses of 1."""

    def says(numbers):
        return SimpleNamespace(measure=lambda ranks: [1.0, *numbers][int(ranks[0])])

    record = SimpleNamespace(best_codes=np.array([0]), best=1.0, better=lambda *_: None)
    guard = None if validations is None else says(validations)
    first, saved = None if guard is None else 1.0, [0]
    run = polishing._Run(
        says(losses), guard, record, first, 0, False, lambda ranks: saved.append(ranks[0])
    )
    for choice in (1, 2):
        run.look(np.array([choice]))
    assert run.kept[0] == saved[-1] == kept
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


@on_one_backend
@pytest.mark.parametrize(
    ("where", "size"),
    [("follow_as_quadratic", 96), ("_Run._time_to_look", 40)],
    ids=["whole", "parts"],
)
def test_an_interrupt_before_anything_is_looked_at(random, monkeypatch, where, size):
    """What was found until then is kept, on all data and on parts of them."""

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"quantal._optimize.polish.polish.{where}", stopped)
    model, (x, y) = model_of(), data(random)
    report = polished(model, x, y, batch_size=size, evaluations=2000)
    assert report.loss < report.loss_before
    assert loss_of(model, x, y) == pytest.approx(report.loss, rel=1e-4)


def test_losses_of_layers_count_and_penalties_on_latents_do_not(random):
    layers = keras.layers

    class Adds(layers.Layer):
        def call(self, inputs):
            self.add_loss(keras.ops.mean(inputs**2))
            return inputs

    x = random.normal(size=(64, 12)).astype("float32")
    for loss, y in (("mse", x[:, :2]), (None, None)):
        model = keras.Sequential(
            [
                keras.Input((12,)),
                quantal.Discrete(layers.Dense(8, kernel_regularizer="l2"), [1, -1, 0.5]),
                Adds(),
                layers.Dense(2, kernel_regularizer="l2", activity_regularizer="l2"),
            ]
        )
        model.compile("sgd", loss)
        first = quantal.parameters_of(model)[0]
        penalty = 0.01 * float(np.square(numpy(first.latent)).sum())
        # In one batch: Keras divides activity regularizers by its size.
        before = loss_of(model, x, y) - penalty
        report = polished(model, x, y)
        penalty = 0.01 * float(np.square(numpy(first.latent)).sum())
        assert report.loss_before == pytest.approx(before, rel=1e-4)
        assert report.loss == pytest.approx(loss_of(model, x, y) - penalty, rel=1e-4)
        assert report.loss < report.loss_before
        assert first.latent.regularizer is not None


def test_several_inputs_outputs_and_weights_of_samples(random):
    layers = keras.layers
    x = {name: random.normal(size=(64, 6)).astype("float32") for name in ("a", "b")}
    inputs = {name: keras.Input((6,), name=name) for name in x}
    both = layers.Concatenate()(list(inputs.values()))
    hidden = quantal.Discrete(layers.Dense(8, activation="relu"), "ternary")(both)
    outputs = {name: layers.Dense(1, name=name)(hidden) for name in ("c", "d")}
    model = keras.Model(inputs, outputs)
    y = {name: random.normal(size=(64, 1)).astype("float32") for name in outputs}
    weights = random.uniform(0.1, 3, size=64).astype("float32")
    model.compile("sgd", {"c": "mse", "d": "mae"})

    def loss():
        held = model.evaluate(x, y, 32, verbose=0, sample_weight={"c": weights, "d": weights})
        return held[0]

    guard = (x, y, {"c": weights, "d": weights})
    report = polished(
        model, x, y, sample_weight=guard[2], validation_data=guard, batch_size=32, seed=2
    )
    assert report.loss == pytest.approx(loss(), rel=1e-4)
    assert report.validation == pytest.approx(report.loss, rel=1e-5)
    assert report.loss < report.loss_before


@on_one_backend
def test_a_loss_of_the_models_own(random):
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = quantal.Discrete(keras.layers.Dense(3, activation="tanh"), "binary")

        def call(self, inputs):
            return self.dense(inputs)

        def compute_loss(self, x, y, y_pred, sample_weight):
            return keras.ops.mean(keras.ops.abs(y - y_pred))

    x = random.normal(size=(64, 12)).astype("float32")
    model = Own()
    y = np.sign(x[:, :3])
    model(x)
    model.compile()
    before = np.abs(numpy(model(x)) - y).mean()
    report = polished(model, x, y)
    assert report.loss_before == pytest.approx(before, rel=1e-5)
    assert report.loss == pytest.approx(np.abs(numpy(model(x)) - y).mean(), rel=1e-5)
    assert report.loss < before


@on_one_backend
def test_a_loss_too_dear_to_be_detected_is_followed_all_the_same(random, monkeypatch):
    """24 elements take some 422 losses to be detected as quadratic: more than there are."""
    monkeypatch.setattr(quantal._optimize.search.search, "detected", None)  # It is not called.
    x, y = data(random)
    report = polished(model_of(), x, y, evaluations=300)
    assert report.loss < 0.2 * report.loss_before
    assert not report.proved


@on_one_backend
def test_what_the_guard_keeps_is_not_what_is_proved(random):
    x, y = data(random)
    model = model_of()
    kept = model.predict(x, verbose=0)  # On other data every change makes it worse.
    report = polished(model, x, y, budget=2, evaluations=None, validation_data=(x, kept))
    assert report.changed == 0
    assert not report.proved


@on_one_backend
def test_no_block_is_taken_that_fails_the_guard(random, monkeypatch):
    model, x, y = network(random)
    monkeypatch.setattr(objective.Objective, "measure", lambda *_: 1.0)
    begun = objective.Objective(model, quantal.parameters_of(model), (x, y, None), 32).ranks()
    looked, look = [], polishing._Run.look
    monkeypatch.setattr(polishing._Run, "look", lambda *a: looked.append(a[1]) or look(*a))
    report = polished(model, x, y, batch_size=32, evaluations=500, validation_data=(x, y))
    assert report.changed == 0
    assert len(looked) > 10
    for ranks in looked:
        np.testing.assert_array_equal(ranks, begun)


@on_one_backend
def test_a_choice_that_is_given_up_leaves_no_mark(random, monkeypatch):
    """What passes the guard, but is worse on all data given, is no measure for what follows."""
    model, x, y = network(random)
    look, held = polishing._Run.look, []

    def refused(self, ranks, loss=None):
        held.append(self._held)
        return look(self, ranks, loss) if len(held) > 8 else False

    monkeypatch.setattr(polishing._Run, "look", refused)
    report = polished(model, x, y, batch_size=32, evaluations=800, validation_data=(x, y))
    assert min(held[:8]) < report.validation_before
    assert report.validation < report.validation_before


@on_one_backend
def test_blocks_that_were_not_better_are_tabu(random, monkeypatch):
    model, x, y = network(random)
    tried, ranked = [], objective.Objective.ranked

    def spied(self, ranks, slope, barred=False):
        found = ranked(self, ranks, slope, barred)
        tried.append((found[0][0], np.broadcast_to(barred, len(ranks))))
        return found

    monkeypatch.setattr(objective.Objective, "ranked", spied)
    monkeypatch.setattr(objective.Objective, "measure", lambda *_: 1.0)
    polished(model, x, y, batch_size=32, evaluations=400, validation_data=(x, y))
    firsts = [first for first, _ in tried]
    assert len(set(firsts[:20])) == 20
    assert all(not barred[first] for first, barred in tried[:20])
    assert tried[0][1].sum() < tried[19][1].sum()


@on_one_backend
def test_the_file_of_another_run_does_not_pass_the_guard(random, tmp_path):
    model, x, _ = network(random)
    start, path, y = model.get_weights(), tmp_path / "choice.npz", random.integers(0, 3, 64)
    others = model.predict(x[64:], verbose=0).argmax(axis=1)
    learned = polished(model, x[:64], y, file=path)
    noise = loss_of(model, x[64:], others)
    model.set_weights(start)
    before = loss_of(model, x[64:], others)
    assert noise > before
    report = polished(model, x[:64], y, evaluations=2, file=path, validation_data=(x[64:], others))
    assert report.validation <= report.validation_before == pytest.approx(before, rel=1e-4)
    assert learned.loss < report.loss


@on_one_backend
def test_what_rounding_makes_better_is_not_followed_for_ever(random, monkeypatch):
    """Losses of many candidates seem a little lower than that of each alone."""
    model, x, y = network(random)
    losses = objective.Objective.losses
    monkeypatch.setattr(objective.Objective, "losses", lambda *a: losses(*a) * 0.999)
    hot = []
    cycle = tempering.Tempering.cycle
    monkeypatch.setattr(
        tempering.Tempering, "cycle", lambda self, *a: hot.append(1) or cycle(self, *a)
    )
    polished(model, x, y, evaluations=3000)
    assert hot


def test_many_candidates_at_once_have_their_own_losses(random):
    model, x, y = network(random)
    parameters = quantal.parameters_of(model)
    whole = objective.Objective(model, parameters, (x, y, None), 50)
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
    whole = objective.Objective(model, quantal.parameters_of(model), (x, y, None), 1000)
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
    whole = objective.Objective(model, quantal.parameters_of(model), (x, y, None), 1000)
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
    whole = objective.Objective(model, quantal.parameters_of(model), (x, y, None), 8192)
    whole.survey(whole.ranks(), random, lambda: True)
    flat, steep = whole._profile.reshape(2, 6, 2).mean(axis=(1, 2))
    assert 6 < steep / flat < 12  # 9 but for what flat ones have added.


@on_one_backend
def test_small_gradients_are_not_lost_in_half_precision(random):
    keras.config.set_dtype_policy("mixed_float16")
    x, y = data(random)
    model = model_of(loss=lambda y, p: 1e-6 * keras.ops.mean((y - p) ** 2, axis=-1))
    whole = objective.Objective(model, quantal.parameters_of(model), (x, y, None), 1000)
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
    whole = objective.Objective(model, quantal.parameters_of(model), (x, y, None), 1000)
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
        ({"validation_data": np.zeros(3)}, ValueError, "Expected inputs and targets"),
        ({"budget": 0}, ValueError, "budget is 0"),
        ({"budget": None, "evaluations": None}, ValueError, "Expected one of them"),
        ({"parameters": []}, ValueError, "no discrete parameters"),
        ({"batch_size": 0}, ValueError, "batch_size is 0"),
        ({"file": "no/such/folder.npz"}, ValueError, "no folder 'no/such'"),
        ({"x": iter([1, 2])}, ValueError, "x, y or sample_weight holds a list_iterator"),
        ({"y": [0, 1, 1]}, ValueError, "np.array makes one"),
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
    with pytest.raises(ValueError, match="twice"):
        polished(model, x, y, parameters=2 * quantal.parameters_of(model))
    with pytest.raises(ValueError, match="of validation_data is nan"):
        polished(model, x, y, validation_data=(x * np.nan, y))
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
    assert polishing.PolishReport(2, 1, None, None, False, 3, 4, 5, []).loss == 1
