"""A run ends with the average of its last weights, whatever the data, the backend and the end."""

import importlib
import os
import pathlib

import keras
import numpy as np
import pytest

from conftest import on_one_backend
from quantal import (
    Budget,
    Discrete,
    LearnableMultiplier,
    callbacks,
    discretize,
    parameters_of,
    testing,
)
from quantal._core.keras_internals.running_fit import fit_around, trained_values
from quantal.callbacks._averages import LEAST_GAP, POWER, Averages
from quantal.callbacks._vector_polish import data_in_memory

layers, schedules = keras.layers, keras.optimizers.schedules


def network():
    keras.utils.set_random_seed(0)
    built = keras.Sequential(
        [
            keras.Input((6,)),
            Discrete(layers.Dense(8, use_bias=False), "ternary", scale="learned"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Dense(2, kernel_constraint="unit_norm"),
        ]
    )
    built.compile(keras.optimizers.Adam(0.02), "mse")
    return built


def listed_network():
    """Return a network of which nine tenths are kernels on lists, compiled with no rate."""
    keras.utils.set_random_seed(0)
    kernels = [
        Discrete(layers.Dense(units, use_bias=False), "ternary", name=f"listed_{units}")
        for units in (40, 2)
    ]
    built = keras.Sequential([keras.Input((6,)), kernels[0], layers.ReLU(), kernels[1]])
    built.compile("adam", "mse")
    return built


@pytest.fixture
def data(random):
    return random.normal(1, 2, (96, 6)).astype("f4"), random.normal(size=(96, 2)).astype("f4")


class Watch(keras.callbacks.Callback):
    """Notes the trained weights after each step."""

    def __init__(self):
        super().__init__()
        self.weights = []

    def on_train_batch_end(self, batch, logs=None):
        values = [keras.ops.stop_gradient(value) for _, value in trained_values(self.model)]
        self.weights.append([np.array(keras.ops.convert_to_numpy(value)) for value in values])

    def average(self):
        """The mean of the samples of steps t, each weighed by a power of t."""
        steps = range(LEAST_GAP, len(self.weights) + 1, LEAST_GAP)
        shares = np.array(steps, float) ** POWER / np.sum(np.array(steps, float) ** POWER)
        samples = [self.weights[step - 1] for step in steps]
        return [np.tensordot(shares, np.stack(w), 1) for w in zip(*samples, strict=True)]


@pytest.mark.parametrize("how", ["compiled", "eager"])
def test_a_run_ends_with_the_average_of_its_weights_and_its_statistics(how, data):
    x, y = data
    model, watch, finish = network(), Watch(), callbacks.Finish()
    model.compile(keras.optimizers.Adam(0.02), "mse", run_eagerly=how == "eager")
    model.fit(x, y, batch_size=16, epochs=3, verbose=0, callbacks=[finish, watch])
    assert (finish.kept, finish.losses) == ("averages", {})
    averages = watch.average()
    assert np.abs(averages[0] - watch.weights[-1][0]).max() > 1e-3
    for variable, average in zip(model.trainable_variables, averages, strict=True):
        if variable.constraint is not None:
            average = average / np.linalg.norm(average, axis=0)  # It holds again.
        np.testing.assert_allclose(keras.ops.convert_to_numpy(variable), average, atol=1e-5)
    # Every batch counts by its samples, and all of them are the data.
    first = x @ keras.ops.convert_to_numpy(model.layers[0].kernel)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(model.layers[1].moving_mean), first.mean(0), atol=1e-4
    )


def test_validation_data_decide(data):
    x, y = data
    model, finish = network(), callbacks.Finish()
    model.fit(x, y, batch_size=8, epochs=2, verbose=0, validation_split=0.25, callbacks=[finish])
    assert set(finish.losses) == {"last", "last, measured again", "averages"}
    assert finish.losses[finish.kept] == min(finish.losses.values())
    assert model.evaluate(x[72:], y[72:], verbose=0) == pytest.approx(
        finish.losses[finish.kept], rel=1e-4
    )


def test_averages_that_are_worse_are_not_kept(data):
    x, _ = data
    plain = keras.Sequential([keras.Input((6,)), layers.Dense(1, kernel_initializer="zeros")])
    plain.compile(keras.optimizers.SGD(1e-3), "mse")  # It falls all the time: the last is best.
    finish, watch = callbacks.Finish(), Watch()
    target = x @ np.ones((6, 1), "f4")
    plain.fit(
        x, target, validation_data=(x, target), epochs=1, batch_size=8, verbose=0,
        callbacks=[finish, watch],
    )  # fmt: skip
    assert finish.kept == "last"
    for variable, last in zip(plain.trainable_variables, watch.weights[-1], strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), last)


@pytest.mark.parametrize("is_first", [True, False])
def test_early_stopping_restores_before_the_end(is_first, data):
    x, y = data
    model, finish = network(), callbacks.Finish()
    stop = keras.callbacks.EarlyStopping("val_loss", patience=1, restore_best_weights=True)
    ends = []
    end = keras.callbacks.LambdaCallback(on_train_end=lambda logs: ends.append(finish.kept))
    model.compile(keras.optimizers.Adam(0.1), "mse")
    order = [finish, stop, end] if is_first else [stop, end, finish]
    model.fit(
        x[:64], y[:64], epochs=20, batch_size=8, verbose=0, validation_data=(x[64:], y[64:]),
        callbacks=order,
    )  # fmt: skip
    assert stop.stopped_epoch
    assert finish.losses["last"] == pytest.approx(stop.best, rel=1e-4)
    assert model.evaluate(x[64:], y[64:], verbose=0) == pytest.approx(
        min(finish.losses.values()), rel=1e-4
    )
    # What stands behind both sees the model as it stays.
    assert ends == [finish.kept if is_first else None]


class _Killed(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise KeyboardInterrupt


@on_one_backend
@pytest.mark.parametrize("network", [network, listed_network])
def test_a_run_that_was_killed_goes_on_with_its_averages(network, data, tmp_path):
    x, y = data

    def run(folder, *more):
        model, finish = network(), callbacks.Finish()
        backup = keras.callbacks.BackupAndRestore(folder)
        model.fit(
            x, y, shuffle=False, epochs=3, batch_size=16, verbose=0,
            callbacks=[finish, backup, *more],
        )  # fmt: skip
        return model.get_weights()

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", _Killed())
    assert (tmp_path / "killed" / "quantal_averages.npz").exists()
    for again, once in zip(run(tmp_path / "killed"), run(tmp_path / "whole"), strict=True):
        np.testing.assert_array_equal(again, once)
    assert not os.path.exists(tmp_path / "killed")


@on_one_backend
def test_a_file_of_another_model_is_refused(tmp_path):
    averages, model = Averages(), network()
    averages.add(LEAST_GAP, model)
    averages.write(tmp_path, 1)
    again = Averages()
    again.read(tmp_path, 2, model)  # Of another epoch: it is not read.
    assert again.variables == []
    again.read(tmp_path, 1, model)
    assert again.variables == model.trainable_variables
    other = keras.Sequential([keras.Input((6,)), layers.Dense(2)])
    with pytest.raises(ValueError, match="not readable as the averages of this model"):
        again.read(tmp_path, 1, other)


def _forever(x, y):
    while True:
        yield x[:32], y[:32]


class _Batches(keras.utils.PyDataset):
    def __init__(self, x, y):
        super().__init__()
        self._data = x, y

    def __len__(self):
        return 3

    def __getitem__(self, index):
        part = slice(32 * index, 32 * index + 32)
        return tuple(array[part] for array in self._data)


@on_one_backend
@pytest.mark.parametrize("source", ["generator", "PyDataset", "given"])
def test_statistics_are_measured_on_what_fit_gets(source, data):
    x, y = data
    model, finish = network(), callbacks.Finish()
    expected = x
    if source == "generator":
        model.fit(_forever(x, y), steps_per_epoch=4, shuffle=False, verbose=0, callbacks=[finish])
        expected = x[:32]
    elif source == "PyDataset":
        model.fit(_Batches(x, y), verbose=0, epochs=2, callbacks=[finish])
    else:
        finish, expected = callbacks.Finish(x[:50], batch_size=20), x[:50]
        model.fit(x, y, batch_size=16, verbose=0, callbacks=[finish])
    first = expected @ keras.ops.convert_to_numpy(model.layers[0].kernel)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(model.layers[1].moving_mean), first.mean(0), atol=1e-4
    )
    assert finish.kept == "averages"


@on_one_backend
@pytest.mark.filterwarnings("ignore:Your input ran out")
def test_a_generator_that_ended_is_said(data):
    x, y = data
    batches = ((x[i : i + 8], y[i : i + 8]) for i in range(0, 96, 8))
    with pytest.warns(UserWarning, match=r"on 2 batches.*at their end. Expected.*Give Finish"):
        network().fit(batches, shuffle=False, verbose=0, callbacks=[callbacks.Finish()])


def test_what_is_frozen_stays(data):
    x, y = data
    model = network()
    model.layers[0].trainable = False
    model.compile("adam", "mse")
    before = model.layers[0].get_weights()
    model.fit(x, y, batch_size=16, verbose=0, callbacks=[callbacks.Finish()])
    for now, then in zip(model.layers[0].get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


@on_one_backend
def test_an_error_at_the_end_leaves_the_last_weights(data):
    x, y = data
    model, watch = network(), Watch()
    with pytest.raises(ValueError, match="no data to measure"):
        model.fit(x, y, verbose=0, batch_size=8, callbacks=[callbacks.Finish([]), watch])
    for variable, last in zip(model.trainable_variables, watch.weights[-1], strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), last)


class _Distances(keras.Sequential):
    """A model whose test step reports no loss."""

    def test_step(self, data):
        return {"distance": keras.ops.mean(self(data[0]) - data[1])}


@on_one_backend
@pytest.mark.filterwarnings("ignore:Your input ran out")
@pytest.mark.parametrize("why", ["no loss", "no data"])
def test_validation_without_a_loss_decides_nothing(why, data):
    x, y = data
    model = (_Distances if why == "no loss" else keras.Sequential)(network().layers)
    model.compile("adam", "mse", run_eagerly=True)
    finish, validation = callbacks.Finish(), (x, y) if why == "no loss" else (x[:0], y[:0])
    with pytest.warns(UserWarning, match="no 'loss'.*averages.*Expected"):
        model.fit(x, y, verbose=0, validation_data=validation, callbacks=[finish])
    assert (finish.kept, finish.losses) == ("averages", {})


class _Steps(keras.Sequential):
    """A model that trains on other data than what it is called on, as adversarial ones do."""

    def train_step(self, data):
        return {"loss": 0.0}


@on_one_backend
def test_data_that_are_no_inputs_of_the_model_are_said(data):
    x, _ = data
    model = _Steps([keras.Input((6,)), *network().layers])
    model.compile("adam", run_eagerly=True)
    before = model.get_weights()
    with pytest.raises(ValueError, match=r"cannot call the model.*fit.*Expected.*Finish\(data=x\)"):
        model.fit(x[:, :2], batch_size=8, verbose=0, callbacks=[callbacks.Finish()])
    for weight, expected in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, expected)
    model.fit(x[:, :2], batch_size=8, verbose=0, callbacks=[callbacks.Finish(x)])


class WatchRates(keras.callbacks.Callback):
    """Notes the rate that each batch and each end of an epoch has."""

    def __init__(self):
        super().__init__()
        self.batches, self.epochs = [], []

    def rate(self):
        return float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))

    def on_train_batch_begin(self, batch, logs=None):
        self.batches.append(self.rate())

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(self.rate())


def test_a_rate_that_nobody_chose_falls_along_the_run(data, capsys):
    x, y = data
    model, rates, watch = listed_network(), WatchRates(), Watch()
    first = keras.ops.convert_to_numpy(parameters_of(model)[0].latent)
    # 3 epochs of 12 steps; a rate is set at their beginnings and at each 8th step.
    model.fit(x, y, batch_size=8, epochs=3, verbose=2, callbacks=[rates, watch, callbacks.Finish()])
    set_at = np.repeat([0, 8, 12, 16, 24, 32], [8, 4, 4, 8, 8, 4])
    cosine = 0.005 * (1 + np.cos(np.pi * set_at / 36))
    np.testing.assert_allclose(rates.batches, cosine, rtol=1e-5)
    np.testing.assert_allclose([*rates.epochs, rates.rate()], 0.001, rtol=1e-5)
    # Adam's first step is as long as the rate: it is the compiled step that has it.
    step = np.abs(watch.weights[0][0] - first)
    assert step.max() == pytest.approx(0.01, rel=1e-2)
    assert "lets the rate fall from 0.01 to 0" in capsys.readouterr().out


def _mostly_free():
    model = keras.Sequential([*listed_network().layers, layers.Dense(50)])
    model.compile("adam", "mse")
    return model


@on_one_backend
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize(
    "whose", ["number", "schedule", "SGD", "callback", "free", "layers", "length", "off"]
)
def test_a_rate_that_somebody_chose_stays(whose, data):
    x, y = data
    model, rates, finish, more = listed_network(), WatchRates(), callbacks.Finish(), []
    if whose == "number":
        model.compile(keras.optimizers.Adam(0.002), "mse")
    if whose == "schedule":
        model.compile(keras.optimizers.Adam(schedules.CosineDecay(0.001, 10**9)), "mse")
    if whose == "SGD":
        model.compile(keras.optimizers.SGD(0.001), "mse")
    if whose == "callback":
        more = [keras.callbacks.ReduceLROnPlateau("loss", patience=9)]
    if whose == "free":
        model, y = _mostly_free(), np.zeros((96, 50), "f4")
    if whose == "layers":
        model = keras.Sequential([*model.layers, layers.LayerNormalization()])
        model.compile("adam", "mse")
    if whose == "off":
        finish = callbacks.Finish(falling_rate=False)
    if whose == "length":
        batches = ((x[i : i + 8], y[i : i + 8]) for i in [*range(0, 96, 8)] * 2)
        model.fit(
            batches, epochs=1, shuffle=False, verbose=0, callbacks=[rates, callbacks.Finish(x)]
        )
    else:
        model.fit(x, y, batch_size=8, epochs=2, verbose=0, callbacks=[rates, finish, *more])
    np.testing.assert_allclose(rates.batches, [rates.rate()] * 24, rtol=1e-5)
    assert finish.kept == "averages" or whose == "length"


@on_one_backend
def test_a_callback_that_moves_the_rate_later_has_it(data):
    x, y = data
    model, rates = listed_network(), WatchRates()

    def halve(epoch, logs):
        model.optimizer.learning_rate = 0.005 / 2**epoch

    later = keras.callbacks.LambdaCallback(on_epoch_begin=halve)
    model.fit(x, y, batch_size=8, epochs=2, verbose=0, callbacks=[callbacks.Finish(), later, rates])
    np.testing.assert_allclose(rates.batches, [0.005] * 12 + [0.0025] * 12, rtol=1e-5)


@on_one_backend
def test_a_run_that_was_killed_amid_an_epoch_has_its_rate(data, tmp_path):
    x, y = data

    def run(*more):
        model, rates = listed_network(), WatchRates()
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup", save_freq=5)
        parts = [callbacks.Finish(), backup, rates, *more]
        model.fit(x, y, epochs=3, batch_size=8, verbose=0, callbacks=parts)
        return rates

    def kill(batch, logs):
        steps.append(batch)
        if len(steps) == 22:
            raise KeyboardInterrupt

    steps = []
    with pytest.raises(KeyboardInterrupt):
        run(keras.callbacks.LambdaCallback(on_train_batch_end=kill))
    # Step 20 is kept, amid the second epoch, which begins again with the rate of its beginning.
    rates = run()
    expected = 0.005 * (1 + np.cos(np.pi * np.array([12, 20, 24, 28, 36]) / 36))
    assert len(rates.batches) == 24
    assert rates.batches[0] == pytest.approx(expected[0], rel=1e-5)
    assert rates.rate() == pytest.approx(0.001)


@on_one_backend
def test_refusals():
    with pytest.raises(TypeError, match=r"falling_rate is 0\.01\. Expected True or False"):
        callbacks.Finish(falling_rate=0.01)
    with pytest.raises(ValueError, match=r"batch_size is 0\. Expected"):
        callbacks.Finish(batch_size=0)
    with pytest.raises(ValueError, match=r"budget has 0 seconds\. Expected a number above 0"):
        callbacks.Finish(polish=0)
    model = network()
    run = keras.callbacks.CallbackList([callbacks.Finish()], model=model)
    with pytest.raises(ValueError, match=r"outside of a fit.*Give Finish\(data=x\)"):
        run.on_train_begin()


class WatchLatents(keras.callbacks.Callback):
    """Notes the effective latents at the end of each epoch."""

    def on_train_begin(self, logs=None):
        self.latents = []

    def on_epoch_end(self, epoch, logs=None):
        self.latents.append(effective_latents(self.model))


def effective_latents(model):
    (parameter,) = parameters_of(model)
    return np.array(keras.ops.convert_to_numpy(parameter.effective_latent))


def test_latents_that_have_steps_of_their_own_are_averaged_themselves(data):
    x, _ = data
    target = x * np.float32([1, -1, 0.5, -0.5, 0.75, 0.1])
    layer = LearnableMultiplier([1, -1, 0.5, -0.5], seed=1)
    model = keras.Sequential([keras.Input((6,)), layer])
    model.compile("adam", "mse")
    finish, watch = callbacks.Finish(polish=False), WatchLatents()
    # Epochs of one step: JAX shows the present state at their ends alone.
    model.fit(x, target, batch_size=96, epochs=8 * LEAST_GAP, verbose=0, callbacks=[watch, finish])
    steps = np.arange(LEAST_GAP, 8 * LEAST_GAP + 1, LEAST_GAP)
    shares = steps.astype(float) ** POWER / np.sum(steps.astype(float) ** POWER)
    average = np.tensordot(shares, np.stack([watch.latents[step - 1] for step in steps]), 1)
    assert np.abs(average - watch.latents[-1]).max() > 1e-3
    np.testing.assert_allclose(effective_latents(model), average, atol=1e-5)
    # The next run goes on from there.
    model.fit(x, target, batch_size=96, verbose=0)
    assert 0 < np.abs(effective_latents(model) - average).max() < 0.1


def test_latents_that_have_steps_of_their_own_are_kept_where_they_are_better(data):
    x, _ = data
    results = []
    for more in ([], [callbacks.Finish(polish=False)]):
        layer = LearnableMultiplier([1, -1, 0.5, -0.5], kernel_initializer="ones", seed=1)
        model = keras.Sequential([keras.Input((6,)), layer])
        model.compile("adam", "mse")
        scaled = -x * np.linspace(0.5, 1, 6, dtype="f4")
        model.fit(
            x, scaled, validation_data=(x, scaled), epochs=3, batch_size=8, verbose=0,
            shuffle=False, callbacks=more,
        )  # fmt: skip
        results.append([keras.ops.convert_to_numpy(weight) for weight in model.weights])
    assert more[0].kept == "last"
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


HIDDEN = np.float32([1, -1, 0.5, -0.5, 1, 1, -1, 0.5, -0.5, 1, -1, -0.5])
FEW = Budget(evaluations=3000)


def vector(loss="mse", **options):
    layer = LearnableMultiplier([1, -1, 0.5, -0.5], seed=1, **options)
    model = keras.Sequential([keras.Input((12,)), layer, Total()])
    model.compile("adam", loss)
    return model


@keras.saving.register_keras_serializable(package="test_finish")
class Total(keras.layers.Layer):
    """The sum of all features: then the loss has many local optima."""

    def call(self, inputs):
        return keras.ops.sum(inputs, axis=-1, keepdims=True)


@pytest.fixture
def rows(random):
    return random.normal(size=(96, 12)).astype("f4")


def values_of(model):
    (parameter,) = parameters_of(model)
    return keras.ops.convert_to_numpy(parameter.listed_values)


def test_a_vector_ends_with_a_polish(rows, capsys):
    target = rows @ HIDDEN[:, None]
    model, finish = vector(), callbacks.Finish(polish=FEW)
    model.fit(rows, target, batch_size=16, epochs=2, verbose=2, callbacks=[finish])
    np.testing.assert_array_equal(values_of(model), HIDDEN)
    assert finish.kept == "polished"
    assert finish.report.loss < 1e-9 < finish.report.loss_before
    printed = capsys.readouterr().out
    assert f"Finish polished the vector: {finish.report}\n" in printed
    # The next run goes on from there, and a silent one says nothing.
    model.fit(rows, target, batch_size=16, verbose=0, callbacks=[finish])
    np.testing.assert_array_equal(values_of(model), HIDDEN)
    assert capsys.readouterr().out == ""


@on_one_backend
def test_the_run_gives_a_polish_its_seconds(rows):
    model, finish = vector(), callbacks.Finish()
    model.fit(rows, rows @ HIDDEN[:, None], batch_size=16, verbose=0, callbacks=[finish])
    np.testing.assert_array_equal(values_of(model), HIDDEN)
    assert finish.report.loss < 1e-6  # Whether it is proved, too, is a matter of seconds.


@on_one_backend
@pytest.mark.parametrize("is_array", [True, False])
def test_validation_data_decide_about_a_polish(is_array, rows, capsys):
    target = rows @ HIDDEN[:, None]
    model, finish = vector(), callbacks.Finish(polish=FEW)
    validation = (rows, -target)  # They want the opposite.
    if not is_array:
        validation = _Batches(*validation)
    model.fit(rows, target, batch_size=16, verbose=2, validation_data=validation,
              callbacks=[finish])  # fmt: skip
    assert finish.kept != "polished"
    assert model.evaluate(rows, -target, verbose=0) == pytest.approx(
        finish.losses[finish.kept], rel=1e-4
    )
    is_refused = finish.losses.get("polished", -1) > finish.losses[finish.kept]
    assert is_refused is not is_array
    assert ("; not kept" in capsys.readouterr().out) is not is_array


def _large():
    model = keras.Sequential([keras.Input((8,)), LearnableMultiplier(), layers.Dense(600)])
    model.compile("adam", "mse")
    return model


def _own_step():
    model = _Steps([keras.Input((12,)), *vector().layers])
    model.compile("adam", "mse", run_eagerly=True)
    return model


def _frozen():
    model = keras.Sequential([keras.Input((12,)), LearnableMultiplier(), layers.Dense(1)])
    model.layers[0].trainable = False
    model.compile("adam", "mse")
    return model


@on_one_backend
@pytest.mark.parametrize(
    "create",
    [
        network,
        lambda: vector(estimator="straight_through"),
        _large,
        _own_step,
        _frozen,
    ],
    ids=["matrix", "other estimator", "large", "own step", "frozen"],
)
def test_a_polish_without_a_place(create, random):
    model, finish = create(), callbacks.Finish(polish=FEW)
    x = random.normal(size=(16, *model.input_shape[1:])).astype("f4")
    y = random.normal(size=(16, model.output_shape[-1])).astype("f4")
    model.fit(x, y, verbose=0, callbacks=[finish])
    assert (finish.report, finish.kept) == (None, "averages")


class WatchData(keras.callbacks.Callback):
    """Reads the data of a fit as Finish does."""

    def on_train_end(self, logs=None):
        self.read = data_in_memory(fit_around().data)


@pytest.mark.parametrize("source", ["arrays", "PyDataset", "own", "weights", "classes"])
def test_data_of_a_fit_are_read_whole(source, rows):
    y, watch, weights, options = (rows[:, :1] > 0).astype("int32"), WatchData(), None, {}
    x = {"a": rows} if source == "arrays" else rows
    if source == "weights":
        weights = options["sample_weight"] = np.arange(96, dtype="f4")
    elif source == "classes":
        options["class_weight"] = {0: 0.25, 1: 2.0}
        weights = np.where(y[:, 0] == 1, 2.0, 0.25)
    layer = keras.Input((12,), name="a")
    model = keras.Model({"a": layer} if source == "arrays" else layer, layers.Dense(1)(layer))
    model.compile("adam", "mse", run_eagerly=True)
    if source == "PyDataset":
        data = (_Batches(rows, y),)
    elif source == "own":
        data = (_of_the_backend(rows, y),)
    else:
        data, options["batch_size"] = (x, y), 20
    model.fit(*data, verbose=0, shuffle=source == "arrays", callbacks=[watch], **options)
    read, y_read, weights_read = watch.read
    order = np.argsort(keras.tree.flatten(read)[0][:, 0])
    expected = np.argsort(rows[:, 0])
    assert isinstance(read, dict) is (source == "arrays")
    np.testing.assert_array_equal(keras.tree.flatten(read)[0][order], rows[expected])
    np.testing.assert_array_equal(y_read[order], y[expected])
    if weights is None:
        assert weights_read is None
    else:
        np.testing.assert_array_equal(weights_read[order], weights[expected])


def _of_the_backend(x, y):
    """A data set as users of the backend have it."""
    if keras.backend.backend() == "torch":
        torch = importlib.import_module("torch")
        pairs = torch.utils.data.TensorDataset(torch.tensor(x), torch.tensor(y))
        return torch.utils.data.DataLoader(pairs, batch_size=20)
    tensorflow = importlib.import_module("tensorflow")
    return tensorflow.data.Dataset.from_tensor_slices((x, y)).batch(20)


@on_one_backend
def test_data_that_cannot_be_read_whole_are_left(rows, monkeypatch):
    y, watch = rows[:, :1], WatchData()
    model = keras.Sequential([keras.Input((12,)), layers.Dense(1)])
    model.compile("adam", "mse", run_eagerly=True)
    model.fit(_forever(rows, y), steps_per_epoch=2, shuffle=False, verbose=0, callbacks=[watch])
    assert watch.read is None
    monkeypatch.setattr("quantal.callbacks._vector_polish._MOST_BYTES", rows.nbytes)
    model.fit(rows, y, verbose=0, callbacks=[watch])
    assert watch.read is None


@on_one_backend
def test_a_polish_that_fails_leaves_the_averages(rows):
    def loss(y_true, y_pred):
        difference = keras.ops.convert_to_numpy(keras.ops.stop_gradient(y_pred))
        return keras.ops.mean((y_pred - y_true) ** 2) + difference.mean() * np.nan

    model, finish = vector(loss), callbacks.Finish(polish=FEW)
    with pytest.warns(UserWarning, match=r"cannot polish.*averages stay\. Finish\(polish=False\)"):
        model.fit(rows, rows[:, :1], verbose=0, callbacks=[finish])
    assert (finish.report, finish.kept) == (None, "averages")


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_and_a_model_without_statistics(policy):
    keras.config.set_dtype_policy(policy)
    model = keras.Sequential([keras.Input((4,)), LearnableMultiplier("ternary")])
    model.compile(keras.optimizers.Adam(0.01), "mse")
    finish, ones = callbacks.Finish(polish=False), np.ones((32, 4), "f4")
    model.fit(ones, ones, batch_size=4, verbose=0, callbacks=[finish, callbacks.PaceToRun()])
    assert finish.kept == "averages"
    parameters_of(model)[0].check_finite()


@pytest.mark.product
def test_a_distilled_student(random, monkeypatch):
    examples = pathlib.Path(__file__).parent.parent / "examples"
    if not examples.exists():
        pytest.skip("examples are not beside the package")
    monkeypatch.syspath_prepend(str(examples))
    distill = importlib.import_module("distill")
    x = random.integers(0, 256, (64, 28, 28)).astype("f4")
    data = x, (x.mean((1, 2)) > 127).astype("int32")
    teacher = distill.network(4)
    student = discretize(teacher, {"kernel": "binary"}, scale=None)
    before = [keras.ops.convert_to_numpy(w) for w in teacher.weights]
    codes = [keras.ops.convert_to_numpy(p.codes) for p in parameters_of(student)]
    distill.distilled(teacher, student, data, epochs=20)
    for now, then in zip(teacher.weights, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(now), then)
    changed = [
        np.any(keras.ops.convert_to_numpy(p.codes) != then)
        for p, then in zip(parameters_of(student), codes, strict=True)
    ]
    assert any(changed)
    testing.assert_listed(student)
