"""Watch writes numbers of listed weights into the logs, and known failures into words."""

import csv
import pathlib
import warnings

import keras
import numpy as np
import pytest

import quantal
from conftest import BACKEND, numpy, on_one_backend
from quantal import Discrete, LearnableMultiplier, Values, callbacks, parameters_of
from quantal.callbacks._records import Record, total_of

layers = keras.layers
NUMBERS = ["flips", "distance", "latent_steps", "entropy"]


def compiled(*parts, inputs=4, optimizer="sgd", loss="mse"):
    built = keras.Sequential([keras.Input((inputs,)), *parts])
    built.compile(optimizer, loss)
    return built


def dense(values, units=8, **arguments):
    return Discrete(layers.Dense(units, use_bias=False), values, **arguments)


@pytest.fixture
def data(random):
    x = random.normal(size=(64, 4)).astype("float32")
    return x, x * np.array([1, -1, 1, -1], "float32")


def said_in(model, x, y, watch=None, **arguments):
    """What Watch warns of in a run, and nothing else does."""
    watch = watch or callbacks.Watch()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(x, y, verbose=0, callbacks=[watch], **arguments)
    texts = [str(w.message) for w in caught if "_failures" in w.filename]
    assert texts == watch.warnings
    return texts


class Seen(keras.callbacks.Callback):
    """Notes codes and latents of every parameter, by the parameters themselves."""

    def __init__(self):
        super().__init__()
        self.codes, self.latents = [], []

    def _note(self):
        parameters = parameters_of(self.model)
        self.codes.append([numpy(p.codes).ravel() for p in parameters])
        self.latents.append([numpy(p.latent_in_list_units).ravel() for p in parameters])

    def on_train_begin(self, logs=None):
        self._note()

    def on_epoch_end(self, epoch, logs=None):
        self._note()


def test_every_reader_of_logs_has_the_numbers_wherever_it_stands(data, tmp_path):
    x, y = data
    optimizer = keras.optimizers.Adam(0.05)
    model = compiled(LearnableMultiplier([1, -1, 0.5]), dense("ternary", 4), optimizer=optimizer)
    seen, watch, path = Seen(), callbacks.Watch(), tmp_path / "log.csv"
    before, after = keras.callbacks.CSVLogger(path), keras.callbacks.CSVLogger(f"{path}2")
    stop = keras.callbacks.EarlyStopping("flips", mode="min", baseline=-1.0, patience=3)
    history = model.fit(
        x, y, epochs=9, verbose=0, validation_split=0.25, batch_size=8,
        callbacks=[before, stop, seen, watch, after],
    )  # fmt: skip
    assert len(history.epoch) < 9  # EarlyStopping saw flips, too.
    codes = [np.concatenate(row) for row in seen.codes]
    flips = [np.mean(one != other) for one, other in zip(codes[1:], codes, strict=False)]
    assert sum(flips) > 0
    np.testing.assert_allclose(history.history["flips"], flips)
    assert set(history.history) == {"loss", "val_loss", *NUMBERS}
    for file in (path, pathlib.Path(f"{path}2")):
        rows = list(csv.DictReader(file.read_text().splitlines()))
        for name in NUMBERS:
            np.testing.assert_allclose([float(r[name]) for r in rows], history.history[name])
    for index, record in enumerate(watch.codes.values()):
        np.testing.assert_array_equal(record, [row[index] for row in seen.codes])


@on_one_backend
@pytest.mark.parametrize("kind", ["list", "channels", "learned", "vector"])
def test_the_numbers_are_what_they_are_called(kind, data):
    x, y = data
    values = {
        "list": Values([0.5, -1, 0, 4]),
        "channels": Values([[1, -1, 0], [3, 0.5, -2], [1, 2, 3], [0, 7, -1]], axis=-1),
        "learned": Values([1, -1, 0.25], learnable=True),
        "vector": Values([0.5, -1, 0, 4]),
    }[kind]
    layer = LearnableMultiplier(values) if kind == "vector" else dense(values, 4)
    model, seen = compiled(layer, optimizer=keras.optimizers.SGD(0.5)), Seen()
    watch = callbacks.Watch(per_parameter=True)
    logs = model.fit(x, y, epochs=3, batch_size=8, verbose=0, callbacks=[watch, seen]).history
    (parameter,), path = parameters_of(model), parameters_of(model)[0].path
    assert watch.values[path] == parameter.values
    for epoch in range(3):
        codes, latents = seen.codes[epoch + 1][0], seen.latents[epoch + 1][0]
        steps = latents - seen.latents[epoch][0]
        if kind == "learned" and epoch < 2:
            continue  # The list has moved on since.
        table = np.atleast_2d(parameter.values.numbers).astype(float)
        away, way = [], []
        for element, (code, latent) in enumerate(zip(codes, latents, strict=True)):
            row = np.sort(table[element % len(table)])
            value = table[element % len(table)][code]
            above = min(max(np.searchsorted(row, latent), 1), len(row) - 1)
            half = (row[above] - row[above - 1]) / 2
            away.append((latent - value) / half)
            way.append(steps[element] / half)
        counts = np.bincount(codes, minlength=len(parameter.values)) / len(codes)
        bits = -sum(share * np.log2(share) for share in counts if share)
        expected = [
            np.mean(codes != seen.codes[epoch][0]), np.sqrt(np.mean(np.square(away))),
            np.sqrt(np.mean(np.square(way))), bits,
        ]  # fmt: skip
        for name, number in zip(NUMBERS, expected, strict=True):
            assert logs[name][epoch] == pytest.approx(number, rel=1e-4, abs=1e-7), name
            assert logs[f"{name}/{path}"][epoch] == logs[name][epoch]
        np.testing.assert_allclose(watch.shares[path][epoch + 1], counts)
        names = [f"{number:g}" for number in parameter.values.tolist()] if kind == "list" else []
        assert [logs[f"share/{path}/{name}"][epoch] for name in names] == list(counts[: len(names)])
        assert watch.flips[path][epoch] == expected[0]


@on_one_backend
def test_the_total_is_that_of_all_elements_together(random):
    model = compiled(LearnableMultiplier([1, -1]), dense("ternary", 9))
    records = [Record(parameter, 10) for parameter in parameters_of(model)]
    for parameter in parameters_of(model):
        parameter.start_from(random.normal(size=parameter.shape))
    one, other = (record.update() for record in records)
    total = total_of([one, other])
    assert total.elements == 40
    assert total.flips * 40 == pytest.approx(one.flips * 4 + other.flips * 36)
    assert total.distance**2 * 40 == pytest.approx(one.distance**2 * 4 + other.distance**2 * 36)
    assert [len(record.elements) for record in records] == [4, 10]
    assert records[1].elements.tolist() == [0, 3, 7, 10, 14, 18, 21, 25, 28, 32]
    codes = numpy(parameters_of(model)[1].codes).ravel()
    np.testing.assert_array_equal(records[1].rows[-1], codes[records[1].elements])
    assert records[1].rows[-1].dtype == np.uint8


@pytest.mark.skipif(BACKEND != "tensorflow", reason="TensorBoard's files are read by TensorFlow")
def test_tensorboard_has_the_numbers(data, tmp_path):
    pytest.importorskip("tensorboard")
    import tensorflow as tf

    board = keras.callbacks.TensorBoard(tmp_path)
    model = compiled(LearnableMultiplier([1, -1]))
    history = model.fit(*data, epochs=2, verbose=0, callbacks=[board, callbacks.Watch()])
    (file,) = (tmp_path / "train").glob("events*")
    events = [
        tf.compat.v1.Event.FromString(record.numpy())
        for record in tf.data.TFRecordDataset(str(file))
    ]
    flips = [
        float(tf.make_ndarray(value.tensor))
        for event in events
        for value in event.summary.value
        if value.tag == "epoch_flips"
    ]
    np.testing.assert_allclose(flips, history.history["flips"])


@on_one_backend
def test_weight_decay_and_penalties_on_latents_are_named(data):
    def model(optimizer, regularizer=None):
        multiplier = LearnableMultiplier([1, -1], kernel_regularizer=regularizer, name="signs")
        return compiled(multiplier, layers.Dense(4), optimizer=optimizer)

    (text,) = said_in(model(keras.optimizers.AdamW(0.1, weight_decay=0.01)), *data)
    assert "Weight decay of 0.01 acts on the latents of sequential" in text
    assert "signs/kernel" in text
    assert "Call quantal.exclude_from_weight_decay" in text
    optimizer = keras.optimizers.AdamW(0.1, weight_decay=0.01)
    excluded = model("sgd")
    quantal.exclude_from_weight_decay(optimizer, excluded)
    excluded.compile(optimizer, "mse")
    assert said_in(excluded, *data) == []
    (text,) = said_in(model("sgd", "l2"), *data)
    assert "A penalty on the size of weights (L1 or L2) acts on the latents of" in text
    frozen = model(keras.optimizers.AdamW(0.1))
    frozen.layers[0].trainable = False
    frozen.compile(keras.optimizers.AdamW(0.1), "mse")
    assert said_in(frozen, *data) == []


@on_one_backend
def test_a_rate_that_cannot_cross_a_gap_is_named_once(data):
    x, y = data
    last = layers.Dense(4, use_bias=False, name="{last}")
    kernels = [dense("ternary", 4), Discrete(last, [-1, -0.5, 0.5, 1])]
    model = compiled(*kernels, optimizer=keras.optimizers.SGD(1e-5))
    (text,) = said_in(model, x, y, epochs=3)
    assert text.startswith("So far 0 of the elements of sequential")
    assert "half a gap of the list is 0.5" in text
    assert "Raise the learning rate" in text
    assert text.endswith("/{last}/kernel.")
    # Values that start near a midpoint flip, and latents of Settling have their own steps.
    near, own = dense("ternary", 4), LearnableMultiplier("ternary", estimator="settling")
    for layer, rate in ((near, 0.02), (own, 1e-5)):
        model = compiled(layer, optimizer=keras.optimizers.SGD(rate))
        assert said_in(model, x, y, epochs=3) == []


@on_one_backend
def test_a_weight_that_flips_no_more_is_named(data):
    x, _ = data
    model = compiled(
        LearnableMultiplier([1, -1], estimator="straight_through", name="signs"),
        optimizer=keras.optimizers.SGD(0.3),
    )
    (text,) = said_in(model, np.ones_like(x), np.full_like(x, 5), epochs=12, batch_size=8)
    assert "signs/kernel has flipped in the last 3 epochs; this is epoch 4 of 12" in text
    assert "the loss is 16 after" in text
    assert "quantal.assess(model, x, y) says whether other values would" in text


@on_one_backend
def test_a_value_that_is_never_used_is_named(data):
    x, y = data
    inner = layers.Dense(8, use_bias=False, kernel_initializer=keras.initializers.Constant(0.0))
    model = compiled(Discrete(inner, [-1, 0, 1, 50]), layers.Dense(4))
    (text,) = said_in(model, x, y, epochs=2)
    assert "None of the 32 elements of sequential" in text
    assert "had the value 50 of its list" in text or "had the value -1, 1, 50 of its list" in text
    assert "A list without it says the same in fewer bits." in text


def normalized(momentum):
    return compiled(
        dense("ternary", 16), layers.BatchNormalization(momentum=momentum), layers.ReLU(),
        layers.Dense(4), optimizer=keras.optimizers.Adam(0.02),
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["arrays", "generator"])
def test_statistics_that_do_not_fit_are_named(kind, data):
    x, y = data
    x = 3 * x + 5
    model = normalized(momentum=0.999)
    feed = {"x": x, "y": y, "batch_size": 16, "epochs": 20}
    if kind == "generator":
        feed = {"x": ((x, y) for _ in range(80)), "y": None, "steps_per_epoch": 4, "epochs": 20}
    texts = said_in(model, **feed)
    if kind == "generator" and not texts:
        return  # It is at its end: there are no data to compare on.
    (text,) = texts
    assert "The moving statistics of batch_normalization" in text
    assert "once they are measured again. Train with quantal.callbacks.Finish()" in text
    now = float(text.split("the loss is ")[1].split(",")[0])
    assert model.evaluate(x, y, verbose=0) == pytest.approx(now, rel=1e-3)


@on_one_backend
def test_statistics_that_fit_or_will_are_not_named(data):
    x, y = data
    x = 3 * x + 5
    assert said_in(normalized(momentum=0.5), x, y, batch_size=16, epochs=20) == []
    watch, finish = callbacks.Watch(), callbacks.Finish()
    normalized(0.999).fit(x, y, epochs=20, verbose=0, callbacks=[watch, finish])
    assert watch.warnings == []


@on_one_backend
def test_latents_that_are_not_finite_are_named(data):
    x, y = data
    model = compiled(dense("ternary", 4), optimizer=keras.optimizers.SGD(1.0))
    watch = callbacks.Watch()
    (text,) = said_in(model, np.full_like(x, np.nan), y, watch, epochs=2)
    assert "are not finite after epoch 1: training has diverged" in text
    assert "lower learning rate" in text


def test_a_run_that_goes_well_is_not_commented(random):
    x = random.normal(size=(256, 8)).astype("float32")
    signs = np.where(random.random(8) < 0.5, -1, 1).astype("float32")
    model = compiled(LearnableMultiplier([1, -1]), inputs=8, optimizer="adam")
    assert said_in(model, x, x * signs, epochs=6, batch_size=16) == []
    np.testing.assert_array_equal(numpy(model.layers[0].kernel), signs)


@on_one_backend
def test_a_second_run_is_recorded_anew(data):
    model, watch = compiled(LearnableMultiplier([1, -1])), callbacks.Watch()
    for epochs in (3, 2):
        model.fit(*data, epochs=epochs, verbose=0, callbacks=[watch])
        assert [codes.shape for codes in watch.codes.values()] == [(epochs + 1, 4)]


@on_one_backend
def test_what_cannot_be_watched_is_refused(data):
    for count in (0, True, -3):
        with pytest.raises(ValueError, match=f"most_elements is {count}. Expected a whole number"):
            callbacks.Watch(most_elements=count)
    with pytest.raises(ValueError, match="The model has no discrete parameter"):
        compiled(layers.Dense(4)).fit(*data, verbose=0, callbacks=[callbacks.Watch()])
