"""Polish lowers a trained model's loss, and never raises it."""

import contextlib
import errno
import os
import signal

import keras
import numpy as np
import pytest

import quantal
from conftest import numpy, on_one_backend
from quantal._models import compiled_loss as compiled_loss_module
from quantal._models.batches import Batches
from quantal._models.compiled_loss import CompiledLoss
from quantal._models.model_loss import ModelLoss
from quantal._optimize.autosave import Autosave
from quantal._optimize.budget import Budget, Spending
from quantal._optimize.checkpoint import Checkpoint
from quantal._optimize.incumbent import Incumbent
from quantal._optimize.polish import continuous as continuous_module
from quantal._optimize.polish import polish as polish_module
from quantal._optimize.polish.annealing import Annealing
from quantal._optimize.polish.ascending_lists import AscendingLists
from quantal._optimize.polish.continuous import ContinuousSteps, continuous_variables
from quantal._optimize.polish.curvature import Curvature
from quantal._optimize.polish.full_batch import FullBatch
from quantal._optimize.polish.minibatch import Minibatch
from quantal._optimize.polish.ranked_loss import RankedLoss
from quantal._optimize.polish.report import PolishReport
from quantal._optimize.polish.state import PolishState
from quantal._optimize.polish.validation import Kept, Selection

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


def polished(model, x, y, evaluations=300, **named):
    return quantal.polish(model, x, y, Budget(evaluations=evaluations), verbose=0, **named)


PROVING = Budget(seconds=20)
"""Exact methods need seconds; these do not decide, because a proof ends it long before."""


def ranked_loss(model, x, y, batch_size=1000, loss=RankedLoss, **named):
    """The loss of a model's data by ranks."""
    parameters = quantal.parameters_of(model)
    compiled = CompiledLoss(model, parameters)
    batches = Batches((x, y, None), batch_size)
    return loss(ModelLoss(compiled, batches), AscendingLists(parameters), **named)


def state_of(
    model, x, y, batch_size, evaluations, validation=None, selection=Selection,
    curvature=Curvature, loss=RankedLoss,
):  # fmt: skip
    """What the methods of polishing share, with parts that a test may replace."""
    spending = Spending(Budget(evaluations=evaluations))
    objective = ranked_loss(model, x, y, batch_size, loss, count=spending.count)
    ranks = objective.lists.ranks()
    measured = None if validation is None else validation(ranks)
    start = Kept(ranks, objective.monitored(ranks), measured)
    incumbent = Incumbent(start.ranks, spending)
    incumbent.offer(start.ranks, start.loss)
    return PolishState(
        objective, curvature(objective), spending, incumbent,
        selection(start, objective.monitored, validation, incumbent.offer),
        np.random.default_rng(0), False, 0,
    )  # fmt: skip


def run(method, state):
    return method.run(state.incumbent.codes, state.spending, state.incumbent.offer)


def test_a_quadratic_loss_to_its_optimum(random):
    x, y = data(random)
    model = model_of()
    before = loss_of(model, x, y)
    report = quantal.polish(model, x, y, PROVING, verbose=0)
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


def test_the_same_seed_gives_the_same_assignment(random):
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


def test_batches_and_validation_data(random):
    model, x, y = network(random)
    validation = x[64:], y[64:]
    before = loss_of(model, *validation), loss_of(model, x[:64], y[:64])
    report = polished(model, x[:64], y[:64], batch_size=16, validation_data=validation)
    after = loss_of(model, *validation), loss_of(model, x[:64], y[:64])
    assert report.validation_before == pytest.approx(before[0], rel=1e-4)
    assert report.validation == pytest.approx(after[0], rel=1e-4)
    assert report.loss == pytest.approx(after[1], rel=1e-4)
    assert after[0] < before[0]
    assert after[1] <= before[1]


@on_one_backend
def test_noise_is_not_learned(random):
    """Without validation data the loss on other data rises; with them it does not."""
    model, x, _ = network(random)
    start, y = model.get_weights(), random.integers(0, 3, 64)
    others = model.predict(x[64:], verbose=0).argmax(axis=1)
    before = loss_of(model, x[64:], others)
    polished(model, x[:64], y)
    assert loss_of(model, x[64:], others) > 1.1 * before
    model.set_weights(start)
    report = polished(model, x[:64], y, validation_data=(x[64:], others))
    assert loss_of(model, x[64:], others) <= before
    assert report.validation == pytest.approx(loss_of(model, x[64:], others), rel=1e-4)
    assert report.loss <= report.loss_before


@on_one_backend
def test_never_worse_than_the_start(random):
    """From an assignment that was polished for long, polishing for a moment loses nothing."""
    model, x, y = network(random)
    start = model.get_weights()
    long = polished(model, x, y, evaluations=600)
    again = polished(model, x, y, evaluations=2)
    assert again.loss_before == pytest.approx(long.loss, rel=1e-5)
    assert again.loss <= again.loss_before
    assert loss_of(model, x, y) <= long.loss * (1 + 1e-5)
    model.set_weights(start)
    elsewhere = polished(model, x, y, evaluations=2)
    assert elsewhere.loss > 1.1 * again.loss


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
    """Assignments 1 and 2 are offered; assignment 0 with losses of 1 is the start."""
    measured = None if validations is None else [1.0, *validations]
    reported = []
    selection = Selection(
        Kept(np.array([0]), 1.0, None if measured is None else 1.0),
        lambda ranks: [1.0, *losses][ranks[0]],
        None if measured is None else lambda ranks: measured[ranks[0]],
        lambda ranks, loss: reported.append((int(ranks[0]), loss)),
    )
    results = [selection.offer(np.array([assignment])) for assignment in (1, 2)]
    assert selection.kept.ranks[0] == kept
    assert selection.kept.loss == [1.0, *losses][kept]
    assert selection.kept.validation == (None if measured is None else measured[kept])
    assert len(reported) == sum(results)
    assert not reported or reported[-1] == (kept, [1.0, *losses][kept])


@on_one_backend
def test_what_is_monitored_is_what_is_kept(random):
    model, x, y = network(random)

    def wrong(y, outputs):
        assigned = keras.ops.argmax(outputs, axis=-1)
        right = assigned == keras.ops.cast(y, assigned.dtype)
        return 1 - keras.ops.mean(keras.ops.cast(right, "float32"))

    def share():
        return np.mean(model.predict(x, verbose=0).argmax(axis=1) != y)

    before = share()
    report = polished(model, x, y, monitor=wrong)
    assert (report.loss_before, report.loss) == pytest.approx((before, share()))
    assert report.loss < before


@pytest.mark.parametrize("batch_size", [128, 32])
def test_a_compiled_metric_is_monitored_by_its_name(random, batch_size):
    model, x, y = network(random)
    model.compile("adam", model.loss, metrics=["accuracy"])
    before = model.evaluate(x, y, verbose=0, return_dict=True)["accuracy"]
    report = polished(model, x, y, monitor="accuracy", batch_size=batch_size)
    after = model.evaluate(x, y, verbose=0, return_dict=True)["accuracy"]
    assert (report.loss_before, report.loss) == pytest.approx((-before, -after))
    assert after > before


@on_one_backend
def test_a_metric_of_one_of_several_outputs(random):
    inputs = keras.Input((12,))
    heads = [quantal.Discrete(keras.layers.Dense(2), [1, -1], name=name) for name in "ab"]
    model = keras.Model(inputs, [head(inputs) for head in heads])
    model.compile("adam", ["mse", "mse"], metrics=[["mae"], ["mae", keras.metrics.R2Score()]])
    x = random.normal(size=(64, 12)).astype("float32")
    y = [random.normal(size=(64, 2)).astype("float32") for _ in "ab"]
    report = polished(model, x, y, monitor="b_mae")
    after = model.evaluate(x, y, verbose=0, return_dict=True)["b_mae"]
    assert report.loss == pytest.approx(after, rel=1e-5)
    assert report.loss < report.loss_before
    assert polished(model, x, y, evaluations=9, monitor="b_r2_score").loss > -1
    for change, words in [
        ({"monitor": "accuracy"}, "The model has a_mae, b_mae, b_r2_score"),
        ({"monitor": "b_r2_score", "batch_size": 20}, "not the mean of those on 4 batches"),
        ({"monitor": lambda y, outputs: outputs[0][:, 0]}, "float32 of the shape"),
    ]:
        with pytest.raises(ValueError, match=words):
            polished(model, x, y, **{"batch_size": 64, **change})
    model.compile("adam", ["mse", "mse"], metrics=[[lambda y, outputs: keras.ops.mean(y)], []])
    with pytest.raises(ValueError, match="does not say whether more or less"):
        polished(model, x, y, monitor="a_lambda")


@on_one_backend
def test_it_resumes_from_its_file(random, tmp_path):
    model, x, y = network(random)
    start = model.get_weights()
    path = tmp_path / "polish.npz"
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


def interrupt():
    raise KeyboardInterrupt


class Interrupting:
    """A monitor that says the loss, and does something at a call: raises KeyboardInterrupt."""

    def __init__(self, at, action=interrupt):
        self.calls, self._at, self._action = 0, at, action

    def __call__(self, y, outputs):
        self.calls += 1
        if self.calls == self._at:
            self._action()
        losses = keras.losses.sparse_categorical_crossentropy(y, outputs, from_logits=True)
        return keras.ops.mean(losses)


@on_one_backend
@pytest.mark.parametrize(("batch_size", "at"), [(128, 145), (128, 300), (32, 300)])
def test_an_interrupt_keeps_the_best(random, batch_size, at):
    """Also at call 145, in the first descent, before anything was offered for keeping."""
    model, x, y = network(random)
    monitor = Interrupting(at)
    report = polished(model, x, y, batch_size=batch_size, monitor=monitor, evaluations=6000)
    assert monitor.calls >= at
    assert report.evaluations < 3000
    assert report.loss < report.loss_before
    assert loss_of(model, x, y) == pytest.approx(report.loss, rel=1e-4)


@on_one_backend
@pytest.mark.parametrize("batch_size", [128, 32])
def test_a_request_to_terminate_keeps_the_best(random, batch_size, tmp_path):
    """The file has it, too, and has had something from the beginning."""
    model, x, y = network(random)
    path, sizes = tmp_path / "polish.npz", []

    def terminate():
        sizes.append(path.stat().st_size)
        os.kill(os.getpid(), signal.SIGTERM)

    monitor = Interrupting(300, terminate)
    report = polished(
        model, x, y, batch_size=batch_size, monitor=monitor, evaluations=6000, file=path
    )
    assert sizes
    assert report.evaluations < 3000
    assert report.loss < report.loss_before
    assert loss_of(model, x, y) == pytest.approx(report.loss, rel=1e-4)
    members = np.load(path)["members"]
    lists = AscendingLists(quantal.parameters_of(model))
    np.testing.assert_array_equal(members[0], lists.ranks())


@on_one_backend
@pytest.mark.parametrize("batch_size", [128, 32])
def test_a_full_disk_is_a_warning_and_the_model_is_changed(
    random, batch_size, tmp_path, monkeypatch
):
    model, x, y = network(random)
    path = tmp_path / "polish.npz"

    def fail(self, **arrays):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Checkpoint, "write", fail)
    with pytest.warns(UserWarning, match="cannot be written: .*No space") as warned:
        report = polished(model, x, y, batch_size=batch_size, file=path)
    assert sum("No space" in str(warning.message) for warning in warned) == 1
    assert report.loss < report.loss_before
    assert loss_of(model, x, y) == pytest.approx(report.loss, rel=1e-4)
    assert not list(tmp_path.iterdir())


@on_one_backend
def test_what_batches_have_reached_is_in_the_file(random, tmp_path):
    """Between two looks at all data, where a killed process would lose it."""
    model, x, y = network(random)
    path, files = tmp_path / "polish.npz", []

    def read():
        files.append(np.load(path)["members"])
        raise KeyboardInterrupt

    monitor = Interrupting(440, read)

    class Impatient(Autosave):
        """It writes as often as it can."""

        def __init__(self, checkpoint, snapshot):
            super().__init__(checkpoint, snapshot, 0.01)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(polish_module, "Autosave", Impatient)
        # A stage is 150 evaluations long.
        polished(model, x, y, evaluations=6000, batch_size=32, monitor=monitor, file=path)
    (members,) = files
    assert len(members) == 2
    assert (members[0] != members[1]).any()


@on_one_backend
def test_an_interrupt_at_any_moment_leaves_the_penalties(random, monkeypatch):
    """Here in the middle of giving them back, so that the second layer has lost its own."""
    model, x, y = network(random)
    latents = [parameter.latent for parameter in quantal.parameters_of(model)]
    penalties = [keras.regularizers.L2(0.01), keras.regularizers.L1(0.02)]
    for latent, penalty in zip(latents, penalties, strict=True):
        latent.regularizer = penalty

    @contextlib.contextmanager
    def losing(parameters):
        yield
        latents[1].regularizer = None

    monkeypatch.setattr(compiled_loss_module, "_without_penalties", losing)
    polished(model, x, y, evaluations=20)
    assert [latent.regularizer for latent in latents] == penalties


@on_one_backend
@pytest.mark.parametrize(("method", "batch_size"), [(FullBatch, 1000), (Minibatch, 32)])
def test_an_interrupt_before_anything_was_kept(random, method, batch_size):
    """What was reached until then is kept, on all data and on batches of them."""

    class Interrupted(Selection):
        calls = 0

        def offer(self, ranks, loss=None):
            self.calls += 1
            if self.calls == 1:
                raise KeyboardInterrupt
            return super().offer(ranks, loss)

    state = state_of(*network(random), batch_size, 2000, selection=Interrupted)
    method = method(state)
    with pytest.raises(KeyboardInterrupt):
        run(method, state)
    before = state.selection.kept.loss
    method.offer_last()
    assert state.selection.calls == 2
    assert state.selection.kept.loss < before


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
        return model.evaluate(x, y, 32, verbose=0, sample_weight={"c": weights, "d": weights})[0]

    validation = (x, y, {"c": weights, "d": weights})
    report = polished(
        model, x, y, sample_weight=validation[2], validation_data=validation, batch_size=32, seed=2
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
def test_a_loss_too_dear_to_be_tested_for_a_quadratic_one_is_followed_all_the_same(random):
    """The test takes some 422 losses for 24 elements: more than the budget allows."""
    x, y = data(random)
    report = polished(model_of(), x, y, evaluations=300)
    assert report.loss < 0.2 * report.loss_before
    assert not report.proved
    assert report.evaluations < 422


@on_one_backend
def test_measuring_seconds_spends_few_evaluations(random):
    x, y = data(random)
    budget = Budget(seconds=1000, evaluations=150)
    report = quantal.polish(model_of(), x, y, budget, verbose=0)
    assert 150 <= report.evaluations < 250


@on_one_backend
def test_what_validation_data_keep_is_not_what_is_proved(random):
    x, y = data(random)
    model = model_of()
    kept = model.predict(x, verbose=0)  # On other data every change makes it worse.
    report = quantal.polish(model, x, y, PROVING, validation_data=(x, kept), verbose=0)
    assert report.changed == 0
    assert not report.proved


class Recording(Selection):
    """A selection that notes what is offered, and refuses the first offers."""

    refused = 0

    def __init__(self, start, *arguments):
        super().__init__(start, *arguments)
        self.start, self.offers = start, []

    def offer(self, ranks, loss=None):
        self.offers.append(ranks.copy())
        return super().offer(ranks, loss) if len(self.offers) > self.refused else False


@on_one_backend
def test_no_block_is_taken_that_fails_the_validation_data(random):
    model, x, y = network(random)
    state = state_of(model, x, y, 32, 500, lambda ranks: 1.0, Recording)
    run(Minibatch(state), state)
    offers = state.selection.offers
    assert len(offers) > 10
    for ranks in offers:
        np.testing.assert_array_equal(ranks, state.selection.start.ranks)


@pytest.mark.product
@on_one_backend
def test_an_assignment_that_is_given_up_leaves_no_mark(random):
    """What passes the validation data, but is worse on all data, is no measure for the rest."""

    class Refusing(Recording):
        refused = 8

    model, x, y = network(random)
    validation = ranked_loss(model, x, y).monitored
    state = state_of(model, x, y, 32, 800, validation, Refusing)
    method = Minibatch(state)
    run(method, state)
    method.offer_last()
    selection = state.selection
    assert min(validation(ranks) for ranks in selection.offers[:8]) < selection.start.validation
    assert selection.kept.validation < selection.start.validation


@on_one_backend
def test_blocks_that_were_not_better_are_tabu(random):
    firsts, tabus = [], []

    class Spying(Curvature):
        def ranked_moves(self, ranks, gradient, tabu=False):
            moves = super().ranked_moves(ranks, gradient, tabu)
            firsts.append(moves.order[0])
            tabus.append(np.broadcast_to(tabu, len(ranks)).copy())
            return moves

    model, x, y = network(random)
    state = state_of(model, x, y, 32, 400, lambda ranks: 1.0, curvature=Spying)
    run(Minibatch(state), state)
    assert len(set(firsts[:20])) == 20
    assert not any(tabu[first] for first, tabu in zip(firsts[:20], tabus, strict=False))
    assert tabus[0].sum() < tabus[19].sum()


@on_one_backend
def test_the_file_of_another_run_does_not_pass_the_validation_data(random, tmp_path):
    model, x, _ = network(random)
    start, path, y = model.get_weights(), tmp_path / "polish.npz", random.integers(0, 3, 64)
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
def test_what_rounding_makes_better_is_not_followed_for_ever(random):
    """Losses of many candidates seem a little lower than that of each alone."""

    class Rounded(RankedLoss):
        def losses(self, ranks):
            return 0.999 * super().losses(ranks)

    probed = []

    class Spying(Curvature):
        def probe(self, *arguments):
            probed.append(arguments)
            super().probe(*arguments)

    model, x, y = network(random)
    state = state_of(model, x, y, 1000, 3000, curvature=Spying, loss=Rounded)
    run(FullBatch(state), state)
    assert len(probed) > 1  # At the start, and at the start of each annealing cycle.


def test_many_candidates_at_once_have_their_own_losses(random):
    model, x, y = network(random)
    whole = ranked_loss(model, x, y, 50)
    lists, ranks = whole.lists, whole.lists.ranks()
    rows = np.stack([ranks, 1 - ranks, np.zeros_like(ranks)])
    together = whole.losses(rows)
    assert whole.model_loss.compiled.vectorizes
    for row, loss in zip(rows, together, strict=True):
        assert whole.loss_and_gradient(row).loss == pytest.approx(loss, rel=1e-5)
        lists.assign(row)
        np.testing.assert_array_equal(lists.ranks(), row)
        assert loss_of(model, x, y) == pytest.approx(loss, rel=1e-4)


@on_one_backend
def test_the_gradient_is_that_to_the_values(random):
    x, y = data(random)
    model = model_of(scale="learned")
    whole = ranked_loss(model, x, y, 1000)
    ranks = whole.lists.ranks()
    _, _, gradient = whole.loss_and_gradient(ranks)
    moved = whole.lists.neighbours(ranks, random)
    losses = whole.losses(np.where(np.eye(len(ranks), dtype=bool), moved, ranks))
    step = whole.lists.steps(ranks, moved)
    scale = float(numpy(quantal.parameters_of(model)[0].scale).reshape(()))
    squares = np.repeat((x**2).sum(axis=0), 2) * scale**2 / (2 * len(x))
    expected = gradient * step + squares * step**2
    np.testing.assert_allclose(losses - whole.losses(ranks[None]), expected, rtol=1e-3, atol=1e-5)


@on_one_backend
def test_costs_are_those_of_the_curvature(random):
    """Columns of one length, at right angles: one curvature for all elements."""
    x, _ = np.linalg.qr(random.normal(size=(96, 12)))
    model = model_of()
    x, y = x.astype("float32"), random.normal(size=(96, 2)).astype("float32")
    whole = ranked_loss(model, x, y, 1000)
    ranks = whole.lists.ranks()
    _, _, gradient = whole.loss_and_gradient(ranks)
    curvature = Curvature(whole)
    curvature.probe(ranks, gradient, random)
    moved = whole.lists.neighbours(ranks, random)
    losses = whole.losses(np.where(np.eye(len(ranks), dtype=bool), moved, ranks))
    costs = curvature.costs(ranks, moved, gradient)
    np.testing.assert_allclose(losses - whole.losses(ranks[None]), costs, rtol=0.02, atol=1e-6)
    assert np.abs(costs - gradient * whole.lists.steps(ranks, moved)).min() > 1e-3


@on_one_backend
def test_the_fisher_diagonal_tells_steep_elements_from_flat_ones(random):
    sizes = np.repeat([1.0, 3.0], 6)
    x = (random.normal(size=(4096, 12)) * sizes).astype("float32")
    model = model_of()
    y = model.predict(x, verbose=0) + random.normal(size=(4096, 2)).astype("float32")
    whole = ranked_loss(model, x, y, 8192)
    curvature = Curvature(whole)
    curvature.measure_fisher_diagonal(whole.lists.ranks(), random, lambda: True)
    flat, steep = curvature.fisher_diagonal.reshape(2, 6, 2).mean(axis=(1, 2))
    assert 6 < steep / flat < 12  # 9 but for what flat ones have added.


@on_one_backend
def test_small_gradients_are_not_lost_in_half_precision(random):
    keras.config.set_dtype_policy("mixed_float16")
    x, y = data(random)
    model = model_of(loss=lambda y, p: 1e-6 * keras.ops.mean((y - p) ** 2, axis=-1))
    whole = ranked_loss(model, x, y, 1000)
    _, _, gradient = whole.loss_and_gradient(whole.lists.ranks())
    residual = x @ numpy(quantal.parameters_of(model)[0].listed_values) - y
    np.testing.assert_allclose(
        gradient, 1e-6 * (x.T @ residual).reshape(-1) / len(x), rtol=0.05, atol=1e-8
    )


@on_one_backend
def test_cycles_lead_out_of_a_local_optimum(random):
    x, _ = data(random, samples=256, inputs=64)
    model = model_of(inputs=64)
    # The model is right already, so that every change raises the loss.
    y = model.predict(x, verbose=0)
    whole = ranked_loss(model, x, y, 1000)
    best, seen = whole.lists.ranks(), []
    for _ in range(5):  # Each as hot as it is drawn.
        steps = iter(range(41))
        cycle = Annealing(whole, Curvature(whole), random).cycle
        cycle(
            best, lambda steps=steps: next(steps) / 40, lambda: True,
            lambda ranks, _: seen.append(ranks),
        )  # fmt: skip
    changed = [int((ranks != best).sum()) for ranks in seen]
    assert 0 < max(changed) < 64


@on_one_backend
def test_an_operation_that_is_not_vectorized_is_said_once(random):
    """Each candidate is computed alone then, and its loss is the same."""

    class Reads(keras.layers.Layer):
        def call(self, inputs):
            return inputs * (1 + 0 * inputs.sum().item())

    x, y = data(random)
    model = keras.Sequential([*model_of().layers, Reads()])
    model.build((None, 12))
    model.compile("adam", "mse")
    whole = ranked_loss(model, x, y)
    rows = np.stack([whole.lists.ranks(), whole.lists.lengths - 1])
    with pytest.warns(UserWarning, match="torch has no vectorized form of an operation"):
        losses = whole.losses(rows)
    np.testing.assert_array_equal(losses, whole.losses(rows))
    for row, loss in zip(rows, losses, strict=True):
        assert whole.loss_and_gradient(row).loss == pytest.approx(loss, rel=1e-6)


@on_one_backend
def test_other_errors_of_many_candidates_are_not_hidden(random):
    class Full(keras.layers.Layer):
        full = False

        def call(self, inputs):
            if self.full:
                raise RuntimeError("out of memory")
            return inputs

    x, y = data(random)
    layer = Full()
    model = keras.Sequential([*model_of().layers, layer])
    model.build((None, 12))
    model.compile("adam", "mse")
    whole = ranked_loss(model, x, y)
    layer.full = True
    with pytest.raises(RuntimeError, match="out of memory"):
        whole.losses(np.stack([whole.lists.ranks()] * 2))


def test_a_model_loss_is_an_objective_of_vectors(random):
    model, x, y = network(random)
    whole = ranked_loss(model, x, y)
    vectors = whole.lists.values(np.stack([whole.lists.ranks(), whole.lists.lengths - 1]))
    loss = whole.model_loss
    assert vectors.shape == (2, len(loss))
    assert loss(vectors)[0] == pytest.approx(loss_of(model, x, y), rel=1e-4)
    gradients = loss.gradients(vectors)
    assert gradients.shape == vectors.shape
    step = np.zeros_like(vectors)
    step[:, 7] = 1e-2
    slope = (loss(vectors + step) - loss(vectors - step)) / 2e-2
    np.testing.assert_allclose(gradients[:, 7], slope, rtol=0.05, atol=1e-3)


@pytest.mark.product
@on_one_backend
def test_losses_on_validation_data_are_counted(random):
    """Each evaluation calls the monitor once, but for losses on all data, which take two calls."""
    model, x, y = network(random)
    monitor = Interrupting(at=None)
    report = polished(
        model, x[:64], y[:64], batch_size=32, validation_data=(x[64:96], y[64:96]),
        monitor=monitor, evaluations=600,
    )  # fmt: skip
    assert report.validation < report.validation_before
    assert 600 <= report.evaluations < 610
    assert report.evaluations <= monitor.calls < 1.15 * report.evaluations


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"model": 3}, TypeError, "Expected a Keras model"),
        ({"x": np.zeros((5, 12))}, ValueError, "Expected as many in each"),
        ({"validation_data": np.zeros(3)}, ValueError, "Expected inputs and targets"),
        ({"budget": 0}, ValueError, "budget has 0 seconds"),
        ({"budget": None}, ValueError, "budget is None"),
        ({"parameters": []}, ValueError, "no discrete parameters"),
        ({"batch_size": 0}, ValueError, "batch_size is 0"),
        ({"seed": None}, ValueError, "seed is None"),
        ({"monitor": 3}, TypeError, "monitor is a int"),
        ({"monitor": "mae"}, ValueError, "The model has no metrics"),
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
    report = quantal.polish(model_of(), x, y, Budget(evaluations=100))
    shown = capsys.readouterr().out
    assert f"{report.evaluations} of 100 evaluations" in shown
    assert f"loss {report.loss:.9g}" in shown
    quantal.polish(model_of(), x, y, Budget(evaluations=100), verbose=0)
    assert not capsys.readouterr().out


def test_a_report_says_what_changed():
    report = PolishReport(2, 1, 4, 3.5, True, 3, 4000, 5, [])
    assert str(report) == (
        "loss 2 -> 1 (proved), validation 4 -> 3.5; 3 of 4,000 elements changed, 5 evaluations"
    )
    assert report.to_dict()["validation_before"] == 4
    assert "3 of 4,000" in report._repr_html_()
    assert "2 → 1 (proved)" in str(report.table())
    assert report.to_frame()["changed"].tolist() == [3]


def continuous_network(random, learnable=False, **wrapper):
    """A network with learned scales, an offset, a normalization and, if asked, learned lists."""
    values = quantal.Values([1, -1, 0.4, -0.4], learnable=learnable)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((6,)),
            quantal.Discrete(layers.Dense(8), values, scale="learned", **wrapper),
            layers.BatchNormalization(),
            layers.ReLU(),
            quantal.Discrete(layers.Dense(3), values, scale="learned", **wrapper),
        ]
    )
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x = random.normal(size=(96, 6)).astype("float32")
    return model, x, (x[:, 0] > 0).astype(int) + (x[:, 1] * x[:, 2] > 0)


def numbers_of(variables):
    return [numpy(variable).copy() for variable in variables]


def are_equal(first, second):
    return [np.array_equal(a, b) for a, b in zip(first, second, strict=True)]


@pytest.mark.parametrize("learnable", [False, True])
def test_a_continuous_step_trains_what_is_not_on_a_list(random, learnable):
    model, x, y = continuous_network(random, learnable)
    variables = continuous_variables(model, quantal.parameters_of(model))
    assert len(variables) == 6 + 2 * learnable
    before, start = numbers_of(variables), loss_of(model, x, y)
    still = numbers_of(model.non_trainable_variables)
    report = polished(model, x, y, evaluations=200, continuous=True)
    assert report.continuous_steps > 0
    assert report.changed > 0
    assert report.loss < report.loss_before == pytest.approx(start, rel=1e-5)
    assert loss_of(model, x, y) == pytest.approx(report.loss, rel=1e-4)
    assert not any(are_equal(before, numbers_of(variables)))
    assert all(are_equal(still, numbers_of(model.non_trainable_variables)))
    assert "continuous steps, " in str(report)
    quantal.testing.assert_listed(model)


def test_gradients_to_continuous_variables_are_true(random):
    """Those to scales and lists, too: a difference of losses says the same."""
    model, x, y = continuous_network(random, learnable=True)
    parameters = quantal.parameters_of(model)
    trained = continuous_variables(model, parameters)
    compiled = CompiledLoss(model, parameters, None, trained)
    objective = RankedLoss(
        ModelLoss(compiled, Batches((x, y, None), 96)), AscendingLists(parameters)
    )
    steps = ContinuousSteps(objective, Spending(Budget(evaluations=9)), random)
    ranks, start = objective.lists.ranks(), steps.numbers
    gradients = objective.variable_gradients(ranks)
    for index, gradient in enumerate(gradients):
        direction = random.normal(size=gradient.shape)
        losses = []
        for sign in (1, -1):
            moved = list(start)
            moved[index] = (start[index] + sign * 2e-3 * direction).astype("float32")
            assert steps.assign(tuple(moved))
            losses.append(objective.monitored(ranks))
        expected = np.subtract(*losses) / 4e-3
        assert np.sum(gradient * direction) == pytest.approx(expected, rel=0.05, abs=2e-3)
    steps.assign(start)
    compiled.release()


@pytest.mark.product
@on_one_backend
@pytest.mark.parametrize("batch_size", [96, 32])
def test_a_continuous_step_that_does_not_help_is_taken_back(random, batch_size, monkeypatch):
    model, x, y = continuous_network(random, learnable=True)
    variables = continuous_variables(model, quantal.parameters_of(model))
    before = numbers_of(variables)
    monkeypatch.setattr(continuous_module, "_RATE", 1e15)
    monkeypatch.setattr(continuous_module, "_SHRINKAGE", 1.0)
    report = polished(model, x, y, continuous=True, batch_size=batch_size)
    assert report.continuous_steps == 0
    assert all(are_equal(before, numbers_of(variables)))
    assert loss_of(model, x, y) == pytest.approx(report.loss, rel=1e-4)


@pytest.mark.product
@on_one_backend
@pytest.mark.parametrize("batch_size", [64, 16])
def test_validation_data_guard_continuous_steps(random, batch_size):
    """Labels of the data given are noise: what is trained on them is worse elsewhere."""
    model, x, _ = continuous_network(random)
    others = model.predict(x[64:], verbose=0).argmax(axis=1)
    before = loss_of(model, x[64:], others)
    report = polished(
        model, x[:64], random.integers(0, 3, 64), continuous=True, batch_size=batch_size,
        validation_data=(x[64:], others),
    )  # fmt: skip
    assert report.validation == pytest.approx(loss_of(model, x[64:], others), rel=1e-4)
    assert report.validation <= before * (1 + 1e-5)
    assert report.loss <= report.loss_before


@on_one_backend
def test_continuous_steps_resume_from_their_file(random, tmp_path):
    model, x, y = continuous_network(random, learnable=True)
    start, path = model.get_weights(), tmp_path / "polish.npz"
    variables = continuous_variables(model, quantal.parameters_of(model))
    first = polished(model, x, y, continuous=True, file=path)
    after = numbers_of(variables)
    again = polished(model, x, y, evaluations=3, continuous=True, file=path)
    assert again.loss == pytest.approx(first.loss, rel=1e-6)
    model.set_weights(start)
    again = polished(model, x, y, evaluations=3, continuous=True, file=path)
    assert again.loss == pytest.approx(first.loss, rel=1e-6)
    assert all(are_equal(after, numbers_of(variables)))
    assert loss_of(model, x, y) == pytest.approx(first.loss, rel=1e-4)
    with pytest.raises(ValueError, match="of another search"):
        polished(model, x, y, file=path)
    # A file that is worse than the model changes nothing.
    bias = numpy(model.layers[-1].layer.bias)
    model.layers[-1].layer.bias.assign([5, -5, 5])
    path.unlink()
    polished(model, x, y, evaluations=1, continuous=True, file=path)
    model.layers[-1].layer.bias.assign(bias)
    before = numbers_of(variables)
    polished(model, x, y, evaluations=1, continuous=True, file=path)
    assert all(are_equal(before, numbers_of(variables)))


@pytest.mark.product
@on_one_backend
@pytest.mark.parametrize("batch_size", [96, 32])
@pytest.mark.parametrize("at", [60, 75, 140])
def test_an_interrupt_of_continuous_steps_keeps_the_best(random, batch_size, at, monkeypatch):
    model, x, y = continuous_network(random)
    gradients, calls = RankedLoss.variable_gradients, []

    def interrupted(self, ranks, samples=None):
        calls.append(samples)
        if len(calls) == at:
            raise KeyboardInterrupt
        return gradients(self, ranks, samples)

    monkeypatch.setattr(RankedLoss, "variable_gradients", interrupted)
    report = polished(model, x, y, evaluations=3000, continuous=True, batch_size=batch_size)
    assert report.evaluations < 2500
    assert report.continuous_steps > 0
    assert report.loss < report.loss_before
    assert loss_of(model, x, y) == pytest.approx(report.loss, rel=1e-4)


@on_one_backend
def test_continuous_steps_leave_alone_what_may_not_change(random):
    model, x, y = continuous_network(random)
    first, second = quantal.parameters_of(model)
    codes, scale = numpy(second.codes), numpy(second.scale)
    polished(model, x, y, continuous=True, parameters=[first])
    np.testing.assert_array_equal(numpy(second.codes), codes)
    np.testing.assert_array_equal(numpy(second.scale), scale)
    # All frozen: biases outside of frozen layers are trained alone.
    for layer in model.layers:
        layer.trainable = isinstance(layer, keras.layers.BatchNormalization)
    before = numbers_of(model.trainable_variables), loss_of(model, x, y)
    codes = [numpy(parameter.codes) for parameter in (first, second)]
    report = polished(model, x, y, continuous=True)
    assert report.loss < report.loss_before == pytest.approx(before[1], rel=1e-5)
    assert loss_of(model, x, y) == pytest.approx(report.loss, rel=1e-4)
    assert report.changed == 0
    assert report.continuous_steps > 100
    assert not any(are_equal(before[0], numbers_of(model.trainable_variables)))
    assert all(are_equal(codes, [numpy(parameter.codes) for parameter in (first, second)]))


@on_one_backend
def test_a_vector_has_nothing_continuous(random):
    x, y = data(random)
    model, other = model_of(), model_of()
    other.set_weights(model.get_weights())
    plain, continuous = polished(model, x, y), polished(other, x, y, continuous=True)
    assert (plain.loss, plain.evaluations) == (continuous.loss, continuous.evaluations)
    with pytest.raises(TypeError, match="unexpected keyword argument 'contiuous'"):
        polished(model, x, y, contiuous=True)


@on_one_backend
def test_a_quadratic_loss_is_solved_again_after_continuous_steps(random):
    """An offset that the signs cannot give is learned, and the signs with it."""
    x, y = data(random, outputs=1)
    dense = quantal.Discrete(keras.layers.Dense(1), LISTS["four"])
    model = keras.Sequential([keras.Input((12,)), dense])
    model.compile("adam", "mse")
    plain = quantal.polish(model, x, y + 0.1, PROVING, verbose=0)
    report = quantal.polish(model, x, y + 0.1, PROVING, verbose=0, continuous=True)
    assert plain.proved
    assert plain.loss == pytest.approx(0.01, rel=1e-3)
    assert report.loss < 1e-9
    assert report.proved
    assert numpy(dense.layer.bias)[0] == pytest.approx(0.1, abs=1e-4)
