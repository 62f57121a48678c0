"""Kernels go on lists of a menu, so that the model fits a budget and loses least."""

import itertools

import keras
import numpy as np
import pytest
from keras import layers

import quantal
from conftest import numpy, on_one_backend
from quantal._core.parameter import parameters_of
from quantal._models.limits import limit_of

MENU = ["binary", [-1, 0, 1], "powers_of_two:4", None]


def network(compiled=True):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Conv2D(4, 3, use_bias=False, name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dense(8, activation="relu", name="hidden"),
            layers.Dense(3, name="last"),
        ],
        name="net",
    )
    if compiled:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss, metrics=["accuracy"])
    return model


def samples(count=96):
    random = np.random.default_rng(1)
    return random.normal(size=(count, 6, 6, 1)).astype("float32")


def targets(model, x):
    return numpy(model(x)).argmax(axis=1)


def bits_of(model):
    kernels = parameters_of(model)
    chosen = [p.choice.option for p in kernels]
    return 8 * sum(o.bytes for o in chosen) / sum(int(np.prod(p.shape)) for p in kernels)


@pytest.mark.product
def test_the_choice_fits_and_is_the_best_of_all():
    model, x = network(), samples()
    y = targets(model, x)
    before = [np.array(array) for array in model.get_weights()]
    states = [np.array(numpy(v)) for v in model.optimizer.variables]
    new = quantal.discretize(model, bits=2.5, values=MENU[:3], data=(x, y), verbose=0)
    quantal.testing.assert_listed(new)
    for array, now in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(array, now)
    for array, variable in zip(states, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(array, numpy(variable))
    kernels = parameters_of(new)
    assert [p.path for p in kernels] == ["net/conv/kernel", "net/hidden/kernel", "net/last/kernel"]
    assert bits_of(new) <= 2.5
    elements = sum(int(np.prod(p.shape)) for p in kernels)
    best = min(
        sum(o.loss for o in options)
        for options in itertools.product(*(p.choice.options for p in kernels))
        if sum(o.bytes for o in options) <= 2.5 * elements / 8
    )
    losses = [p.choice.option.loss for p in kernels]
    assert sum(losses) == pytest.approx(best, abs=1e-9)
    for parameter in kernels:
        assert parameter.values == parameter.choice.option.values
        assert parameter.calibration.error is not None
    assert "chosen of 3 lists: " in str(quantal.summary(new, compared_with=model))


@pytest.mark.product
@pytest.mark.parametrize("labelled", [False, True])
def test_losses_are_those_of_one_kernel_alone(labelled):
    model, x = network(), samples()
    y = targets(model, x)
    data = (x, y) if labelled else x
    new = quantal.discretize(model, bits=8, values=["ternary"], data=data, verbose=0)
    calibrating = x
    if not labelled:
        # Every fourth sample is for measuring: calibration fits outputs on the others.
        is_measured = np.arange(len(x)) % 4 == 3
        x, calibrating = x[is_measured], x[~is_measured]
    outputs = numpy(model(x)).astype(float)

    def measure(network):
        if labelled:
            return network.evaluate(x, y, verbose=0)[0]
        changes = numpy(network(x)) - outputs
        return np.sum(changes**2) / np.sum((outputs - outputs.mean(axis=0)) ** 2)

    (last,) = (p for p in parameters_of(new) if "last" in p.path)
    alone = quantal.discretize(model, {"last/kernel": "ternary"}, calibrate=calibrating, verbose=0)
    expected = measure(alone) - measure(model)
    assert last.choice.options[0].loss == pytest.approx(expected, rel=1e-3, abs=1e-6)


@on_one_backend
@pytest.mark.parametrize("unit", ["B", "kB", "KiB", None])
def test_a_budget_counts_all_weights(unit):
    model, x = network(compiled=False), samples(32)
    bytes_ = 1100
    per_unit = {"B": 1, "kB": 1000, "KiB": 1024, None: 1}[unit]
    budget = bytes_ if unit is None else f"{bytes_ / per_unit} {unit}"
    new = quantal.discretize(model, budget=budget, values=MENU, data=x, verbose=0)
    chosen = [p.choice.option for p in parameters_of(new)]
    listed = {p.path for p in parameters_of(new)}
    free = sum(int(np.prod(v.shape)) for v in model.weights if v.path not in listed)
    assert sum(option.bytes for option in chosen) + 4 * free <= bytes_
    everything = quantal.discretize(model, budget="1 MB", values=MENU, data=x, verbose=0)
    assert parameters_of(everything) == []  # All kernels stay free: that loses nothing.


@on_one_backend
def test_the_bytes_are_those_of_a_file(tmp_path):
    """A file holds few bytes besides: names, shapes, the model's description, digests."""
    x = np.random.default_rng(0).normal(size=(64, 100)).astype("float32")
    model = keras.Sequential([keras.Input((100,)), layers.Dense(200), layers.Dense(100)])
    for bits in (1.5, 4.8):
        new = quantal.discretize(model, bits=bits, values=MENU[:3], data=x, verbose=0)
        quantal.save(new, tmp_path / "model.quantal")
        counted = bits_of(new) * 40_000 / 8
        size = (tmp_path / "model.quantal").stat().st_size
        # Codes of values that are used unevenly take less.
        assert 0.85 * counted < size < counted + 6000


@on_one_backend
def test_rules_decide_first():
    model, x = network(compiled=False), samples(32)
    rules = {"conv": None, "last": [-1, 0.5, 1]}
    new = quantal.discretize(model, rules, bits=1.7, values=MENU, data=x, verbose=0)
    hidden, last = parameters_of(new)
    assert hidden.choice is not None
    assert last.choice is None
    assert last.values == quantal.Values([-1, 0.5, 1])
    with pytest.raises(TypeError, match=r"beside a menu. Expected a mapping"):
        quantal.discretize(model, "binary", bits=2, values=MENU, data=x)
    with pytest.raises(ValueError, match="no kernel that could go by the menu"):
        quantal.discretize(model, {"": "binary"}, bits=2, values=MENU, data=x)


@on_one_backend
def test_what_meets_no_data_is_measured_too():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((5, 3)),
            layers.LSTM(4, name="lstm"),
            layers.Dense(2, name="last"),
        ]
    )
    x = np.random.default_rng(0).normal(size=(32, 5, 3)).astype("float32")
    new = quantal.discretize(model, bits=16, values=["ternary"], data=x, verbose=0)
    losses = [p.choice.options[0].loss for p in parameters_of(new)]
    assert len(losses) == 3
    assert min(losses) > 0


DATA = np.zeros((8, 6, 6, 1), "float32")


@on_one_backend
@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({}, ValueError, "neither rules nor a budget"),
        ({"bits": 2, "values": MENU}, ValueError, "was given bits, values. Expected one of"),
        ({"budget": 9, "bits": 2, "values": MENU, "data": DATA}, ValueError, "one of budget and"),
        ({"bits": 2, "values": MENU, "data": DATA, "calibrate": DATA}, ValueError, "data alone"),
        ({"bits": 2, "values": [-1, 1], "data": DATA}, TypeError, "Expected a menu"),
        ({"bits": 2, "values": "binary", "data": DATA}, TypeError, "Expected a menu"),
        ({"bits": 2, "values": [], "data": DATA}, TypeError, "Expected a menu"),
        ({"bits": 2, "values": [None], "data": DATA}, ValueError, "names no list"),
        ({"bits": "2", "values": MENU, "data": DATA}, TypeError, "bits is '2'"),
        ({"bits": np.nan, "values": MENU, "data": DATA}, ValueError, "bits is nan"),
        ({"bits": 0.9, "values": MENU, "data": DATA}, ValueError, "bits is 0.9. Expected 1.*shor"),
        ({"budget": "60", "values": MENU, "data": DATA}, ValueError, "a unit of B, kB"),
        ({"budget": "sixty kB", "values": MENU, "data": DATA}, ValueError, "a unit of B, kB"),
        ({"budget": -3, "values": MENU, "data": DATA}, ValueError, "bytes above 0"),
        (
            {"budget": "100 B", "values": MENU, "data": DATA},
            ValueError,
            r"100 bytes\. Expected .* or more",
        ),
        ({"bits": 2, "values": MENU, "data": "x"}, TypeError, "data is 'x'"),
        ({"bits": 2, "values": MENU, "data": (DATA, DATA[:3])}, ValueError, "data has inputs of"),
        ({"bits": 2, "values": MENU, "data": DATA}, ValueError, "loss of .* is nan"),
    ],
)
def test_other_arguments_are_refused(arguments, error, words):
    model = network(compiled=False)
    with pytest.raises(error, match=words):
        quantal.discretize(model, **arguments)


@pytest.mark.parametrize(
    ("budget", "count"),
    [("60 kB", 60_000), ("1.5KiB", 1536), ("2 MiB", 2**21), ("1e3 B", 1000), (77.9, 77)],
)
@on_one_backend
def test_budgets_are_read(budget, count):
    assert limit_of(budget, None, ["binary"], DATA).bytes == count
