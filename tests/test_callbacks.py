import keras
import numpy as np
import pytest

from conftest import numpy
from quantal import Discrete, LearnableMultiplier, callbacks, parameters_of
from quantal.estimators import Settling


def model(estimator="annealed"):
    built = keras.Sequential(
        [keras.Input((4,)), LearnableMultiplier("ternary", estimator=estimator)]
    )
    built.compile("sgd", "mse")
    return built


class Softness(keras.callbacks.Callback):
    """Notes how soft the first parameter is after each epoch."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_epoch_end(self, epoch, logs=None):
        parameter = parameters_of(self.model)[0]
        estimator, state = parameter.estimator, keras.ops.convert_to_tensor(parameter.state)
        if isinstance(estimator, Settling):
            softness = estimator.softness(state, len(parameter.values))
        else:
            softness = estimator.pace.softness(state)
        self.seen.append(float(numpy(softness)))


X = np.ones((64, 4), "float32")


@pytest.mark.parametrize(
    "estimator", ["annealed", "binary_relax", "residual", "settling", "gumbel_softmax"]
)
def test_values_are_hard_from_the_share_of_the_run_on(estimator):
    seen = Softness()
    model(estimator).fit(
        X, X, epochs=8, batch_size=16, verbose=0, callbacks=[callbacks.PaceToRun(0.5), seen]
    )
    np.testing.assert_allclose(seen.seen[1], 0.5, atol=0.01)
    assert np.all(np.diff(seen.seen[:4]) < 0)
    assert seen.seen[3:] == [0] * 5


def test_a_second_part_of_a_run_goes_on_in_the_schedule():
    first, pace = model(), callbacks.PaceToRun(1.0)
    seen = Softness()
    first.fit(X, X, epochs=4, verbose=0, callbacks=[pace])
    first.fit(X, X, initial_epoch=4, epochs=8, verbose=0, callbacks=[pace, seen])
    assert 0 < seen.seen[0] < 0.5
    assert seen.seen[-1] == 0


def test_unknown_steps_are_learned_from_the_first_epoch():
    # As Keras calls it for data whose length it does not know.
    built, pace = model(), callbacks.PaceToRun(0.75)
    pace.set_model(built)
    pace.set_params({"epochs": 4, "steps": None})
    pace.on_train_begin()
    state = parameters_of(built)[0].state
    for batch in range(3):
        pace.on_train_batch_end(batch)
    np.testing.assert_array_equal(numpy(state), [0, 0])
    pace.on_epoch_end(0)
    np.testing.assert_array_equal(numpy(state), [0, 9])


def test_nothing_to_pace_is_refused():
    with pytest.raises(ValueError, match="no paced parameter"):
        model("straight_through").fit(X, X, verbose=0, callbacks=[callbacks.PaceToRun()])


@pytest.mark.parametrize("share", [0, -1, 1.5])
def test_a_bad_share_is_refused(share):
    with pytest.raises(ValueError, match="share is"):
        callbacks.PaceToRun(share)


# Keeping, holding, measuring.


def network(estimator="auto"):
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((6,)),
            Discrete(layers.Dense(8, use_bias=False), "ternary", estimator=estimator),
            layers.BatchNormalization(),
            layers.ReLU(),
            Discrete(layers.Dense(2), [1, -1, 0.5, -0.5], estimator=estimator),
            layers.BatchNormalization(),
        ]
    )


class Codes(keras.callbacks.Callback):
    """Notes all weights and the loss of the listed values after each epoch."""

    def __init__(self, x, y):
        super().__init__()
        self.x, self.y, self.weights, self.losses = x, y, [], []

    def on_epoch_end(self, epoch, logs=None):
        self.weights.append(self.model.get_weights())
        self.losses.append(self.model.evaluate(self.x, self.y, verbose=0))


@pytest.mark.parametrize("how", ["training data", "validation"])
def test_the_best_epoch_is_kept(how, random):
    x, y = random.normal(size=(64, 6)).astype("f4"), random.normal(size=(64, 2)).astype("f4")
    built, seen = network(), Codes(x, y)
    built.compile(keras.optimizers.Adam(0.01), "mse")

    class Spoil(keras.callbacks.Callback):
        """From the seventh epoch on the values are bad ones, so the last is not the best."""

        def on_epoch_end(self, epoch, logs=None):
            if epoch >= 6:
                for parameter in parameters_of(built):
                    parameter.set_codes(np.zeros(parameter.shape, int))

    of_training = how == "training data"
    keep = (
        callbacks.KeepBest("loss", data=(x, y)) if of_training else callbacks.KeepBest("val_loss")
    )
    early = keras.callbacks.EarlyStopping("loss", patience=1000)
    # Values are spoilt after the run's own validation, so only the other case sees it.
    validation = None if of_training else (x, y)
    spoil = [Spoil()] if of_training else []
    built.fit(
        x, y, epochs=9, batch_size=16, verbose=0, validation_data=validation,
        callbacks=[*spoil, seen, keep, early],
    )  # fmt: skip
    best = int(np.argmin(seen.losses))
    assert best != 8 or not of_training
    assert keep.best_epoch == best
    assert keep.best == pytest.approx(min(seen.losses), rel=1e-5)
    for kept, then in zip(built.get_weights(), seen.weights[best], strict=True):
        np.testing.assert_array_equal(kept, then)


def test_a_metric_that_is_not_there_is_refused():
    built = model()
    with pytest.raises(ValueError, match=r"monitor is 'val_loss'. Expected one of loss.* Give"):
        built.fit(X, X, verbose=0, callbacks=[callbacks.KeepBest()])


@pytest.mark.parametrize("estimator", ["straight_through", "annealed", "mean_field"])
def test_statistics_are_those_of_the_listed_values(estimator, random):
    x = random.normal(3, 2, size=(96, 6)).astype("f4")
    built = network(estimator)
    built.compile(keras.optimizers.Adam(0.01), "mse")
    built.fit(x, x[:, :2], epochs=1, batch_size=32, verbose=0)
    before = {v.path: v.numpy() for v in built.variables}
    measure = callbacks.ReestimateStatistics(x, batch_size=96)
    measure.set_model(built)
    measure.on_train_end()
    first = x @ numpy(built.layers[0].kernel)
    np.testing.assert_allclose(
        numpy(built.layers[1].moving_mean), first.mean(0), rtol=1e-3, atol=1e-4
    )
    np.testing.assert_allclose(
        numpy(built.layers[1].moving_variance), first.var(0), rtol=1e-3, atol=1e-4
    )
    # With statistics of one whole batch, inference is what the batch would give.
    outputs = built.predict(x, verbose=0, batch_size=96)
    last = built.layers[-1]
    np.testing.assert_allclose(outputs.mean(0), numpy(last.beta), atol=1e-3)
    np.testing.assert_allclose(outputs.std(0), numpy(last.gamma), atol=2e-2)
    for variable in built.variables:
        if "moving" not in variable.path:
            np.testing.assert_array_equal(variable.numpy(), before[variable.path])
    assert built.layers[1].momentum == 0.99
    assert parameters_of(built)[0].estimator is not None


def test_statistics_of_batches_are_averaged(random):
    x = random.normal(size=(60, 6)).astype("f4")
    built = network("straight_through")
    built.compile("adam", "mse")
    batches = iter([(x[:20], None), (x[20:40], None), (x[40:], None)])
    measure = callbacks.ReestimateStatistics(batches, batches=2)
    measure.set_model(built)
    measure.on_train_end()
    first = x[:40] @ numpy(built.layers[0].kernel)
    parts = np.stack([first[:20], first[20:]])
    np.testing.assert_allclose(
        numpy(built.layers[1].moving_variance), parts.var(1).mean(0), rtol=1e-4, atol=1e-5
    )
    for nothing in (iter([]), []):
        measure.data = nothing
        with pytest.raises(ValueError, match="gives no batch"):
            measure.on_train_end()


def test_what_oscillates_is_frozen_at_its_mean():
    built = model("straight_through")
    (parameter,) = parameters_of(built)

    class Shake(keras.callbacks.Callback):
        """The first element flips each epoch; the others rest."""

        def on_epoch_end(self, epoch, logs=None):
            first = -1 if epoch % 4 == 0 else 1
            codes = parameter.values.codes(np.array([first, 0, 1, -1], "f4"))
            parameter.set_codes(codes)
            kept.append(numpy(parameter.listed_values)[0])

    kept = []
    freeze = callbacks.FreezeOscillating(begin=0.5, threshold=0.2, momentum=0.3)
    built.compile(keras.optimizers.SGD(1e-6), "mse")
    # In the thirteenth epoch it is shaken away from its mean.
    built.fit(X, X, epochs=13, verbose=0, callbacks=[Shake(), freeze])
    assert kept[-1] == -1
    assert set(kept) == {-1, 1}
    assert freeze.frozen == {parameter.path: 1}
    np.testing.assert_array_equal(numpy(parameter.listed_values), [1, 0, 1, -1])


def test_together_and_saved(random, tmp_path):
    x, y = random.normal(size=(64, 6)).astype("f4"), random.normal(size=(64, 2)).astype("f4")
    built = network()
    built.compile("adam", "mse")
    built.fit(
        x, y, epochs=3, verbose=0, validation_split=0.25,
        callbacks=[
            callbacks.FreezeOscillating(), callbacks.KeepBest(),
            keras.callbacks.EarlyStopping("val_loss", patience=1),
            callbacks.ReestimateStatistics(x),
        ],
    )  # fmt: skip
    built.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(built.predict(x, verbose=0), loaded.predict(x, verbose=0))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: callbacks.ReestimateStatistics(X, batches=0), "batches is 0. Expected"),
        (lambda: callbacks.ReestimateStatistics(X, batch_size=True), "batch_size is True. Exp"),
        (lambda: callbacks.FreezeOscillating(begin=1), "begin is 1. Expected"),
        (lambda: callbacks.FreezeOscillating(threshold=-1), "threshold is -1. Expected"),
        (lambda: callbacks.FreezeOscillating(momentum=0), "momentum is 0. Expected"),
    ],
)
def test_shares_and_counts_out_of_range_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_freezing_needs_a_parameter():
    plain = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)])
    plain.compile("sgd", "mse")
    with pytest.raises(ValueError, match="no discrete parameter"):
        plain.fit(X, X, verbose=0, callbacks=[callbacks.FreezeOscillating()])


def test_codes_are_set_where_asked():
    built = model("straight_through")
    (parameter,) = parameters_of(built)
    parameter.set_codes([0, 0, 0, 0])
    parameter.set_codes([2, 2, 2, 2], where=[True, False, False, True])
    np.testing.assert_array_equal(numpy(parameter.codes), [2, 0, 0, 2])
