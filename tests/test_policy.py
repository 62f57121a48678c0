"""The default's rule, and the pull of the estimator that it takes for vectors."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from conftest import numpy
from lists import NAMED
from quantal import Discrete, LearnableMultiplier, Values, parameters_of, testing
from quantal._core.tensors.gradients import inward, pulled
from quantal._core.tensors.projection import offsets_in_half_gaps, projection_of
from quantal._core.tensors.pull import as_if_pulled
from quantal.estimators import Annealed, Settling, StraightThrough, get, resolve


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        ((10,), Settling), ((10, 1), Settling), ((1, 1, 7), Settling), ((1,), Settling),
        ((), Settling), ((10, 2), StraightThrough), ((3, 3, 8, 1), StraightThrough),
    ],
)  # fmt: skip
def test_vectors_settle_and_others_pass_straight_through(shape, kind):
    assert type(resolve("auto", shape)) is kind
    assert type(resolve("auto", shape, learnable=True)) is StraightThrough
    annealed = Annealed()
    assert resolve(annealed, shape) is annealed
    assert type(resolve("annealed", shape)) is Annealed


def test_layers_take_what_suits_each_weight():
    model = keras.Sequential(
        [keras.Input((4,)), LearnableMultiplier(), Discrete(layers.Dense(3), "ternary"),
         Discrete(layers.Dense(1), "ternary"),
         LearnableMultiplier(Values([1, 2], learnable=True))]
    )  # fmt: skip
    kinds = [type(parameter.estimator) for parameter in parameters_of(model)]
    assert kinds == [Settling, StraightThrough, Settling, StraightThrough]
    again = keras.models.clone_model(model)
    assert [type(parameter.estimator) for parameter in parameters_of(again)] == kinds


def test_layers_keep_the_policy_as_their_setting():
    layer = Discrete(layers.Dense(1), "ternary")
    layer.build((None, 4))
    assert layer.estimator == "auto"
    assert layer.get_config()["estimator"] == "auto"
    again = Discrete.from_config(layer.get_config())
    again.build((None, 4))
    assert again.estimator == "auto"
    assert type(parameters_of(again)[0].estimator) is Settling


def test_auto_is_no_estimator():
    with pytest.raises(ValueError, match=r"'auto', which is a policy.*resolve\('auto', shape\)"):
        get("auto")


@pytest.mark.parametrize("compile", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e25])
def test_a_pull_is_relative_to_the_gradient(scale, compile, random):
    x, direction, weight = (random.normal(size=50).astype("float32") for _ in range(3))
    weight = weight * np.float32(scale)

    weight_tensor, direction_tensor = map(ops.convert_to_tensor, (weight, direction))

    def function(x):
        return ops.sum(weight_tensor * pulled(x, direction_tensor))

    found = testing.gradient_of(function, x, compile)
    expected = weight + np.sqrt(np.mean(np.square(weight, dtype=float))) * direction
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * scale)


@pytest.mark.parametrize("reach", [0.9, 3.0], ids=["within", "beyond"])
@pytest.mark.parametrize("size", [1.0, 0.0, 1e-25])
def test_a_pulled_latent_has_one_gradient_function(size, reach, random):
    x, direction = random.uniform(-reach, reach, 50), random.uniform(-1, 1, 50)
    weight = ops.convert_to_tensor(size * random.normal(size=50), "float32")
    direction = ops.convert_to_tensor(direction, "float32")

    def gradient(function):
        return testing.gradient_of(lambda x: ops.sum(weight * function(x)), x)

    def parts(x):
        return inward(pulled(x, 0.5 * direction), -1.0, 1.0)

    for strength in (0.5, ops.convert_to_tensor(0.5)):
        result = gradient(lambda x, s=strength: as_if_pulled(0 * x, x, direction, s, -1.0, 1.0))
        np.testing.assert_allclose(result, gradient(parts), rtol=1e-5, atol=1e-7 * size)
    assert (np.abs(result) > 0).all() == bool(size)
    broken = ops.convert_to_tensor(np.float32([0.5, np.nan]))
    value = as_if_pulled(ops.ones(2), broken, 0 * broken, 0.5, -1.0, 1.0)
    np.testing.assert_array_equal(numpy(value), [1, np.nan])


@pytest.mark.parametrize("values", [Values([1, -1, 0.5, -0.5]), NAMED["uneven"], NAMED["one"]])
def test_offsets_count_half_gaps_from_the_nearest_value(values, random):
    latent = np.concatenate(
        [random.uniform(values.low - 1, values.high + 1, 300), values.numbers]
    ).astype("float32")
    listed = projection_of(values, 1)
    found = numpy(
        offsets_in_half_gaps(ops.convert_to_tensor(latent), listed.nearest(latent), listed)
    )
    held = np.clip(latent, values.low, values.high).astype(float)
    ascending = np.sort(values.numbers.astype(float))
    expected = np.zeros(len(latent))
    for i, u in enumerate(held):
        above = np.searchsorted(ascending, u, side="right")
        if 0 < above < len(ascending):
            half = (ascending[above] - ascending[above - 1]) / 2
            expected[i] = (u - values.nearest(np.float32(u))) / half
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.all(np.abs(found) <= 1.0001)


@pytest.mark.parametrize("step", [0.0, 2000.0])
def test_settling_is_annealed_with_a_pull_that_grows(step, random):
    values, estimator = Values([1, -1, 0.5, -0.5]), Settling()
    latent = random.uniform(-0.99, 0.99, 100).astype("float32")
    weight = random.normal(size=100).astype("float32")
    # Training calls, the last one of a paced run, moves of the optimizer's, and what they were.
    state = np.array([step + 5, 0, step, 0, 1, 0.1], "float32")
    soft = numpy(estimator(latent, values, training=True, state=state))
    annealed = Annealed(half_life=20.0 * (len(values) - 1))
    state_of_annealed = np.array([step, 0], "float32")
    np.testing.assert_array_equal(
        soft, numpy(annealed(latent, values, training=True, state=state_of_annealed))
    )

    weight_tensor = ops.convert_to_tensor(weight)

    def function(x):
        return ops.sum(weight_tensor * estimator(x, values, training=True, state=state))

    listed = projection_of(values, 1)
    distance = numpy(
        offsets_in_half_gaps(ops.convert_to_tensor(latent), listed.nearest(latent), listed)
    )
    strength = 8 * step / (step + 20_000)
    expected = weight + strength * np.sqrt(np.mean(weight**2)) * distance
    np.testing.assert_allclose(
        testing.gradient_of(function, latent), expected, rtol=1e-4, atol=1e-5
    )


def correlated(seed, values, size=64):
    """Rows of neighbours correlated by 0.9, a hidden vector, noisy targets."""
    random = np.random.default_rng(seed)
    places = np.arange(size)
    root = np.linalg.cholesky(0.9 ** np.abs(np.subtract.outer(places, places)))
    rows = random.standard_normal((size * 3 // 2, size)) @ root.T / np.sqrt(size)
    hidden = random.choice(np.sort(values.numbers), size)
    targets = rows @ hidden + 0.05 * random.standard_normal(len(rows))
    return rows.astype("float32"), targets.astype("float32"), hidden


def test_the_default_finds_what_straight_through_does_not():
    values = Values([0, 1, -1, 2, -2, 4, -4, 8, -8])
    excess = {}
    for estimator in ("auto", "straight_through"):
        rows, targets, hidden = correlated(0, values)
        keras.utils.set_random_seed(0)
        layer = Discrete(layers.Dense(1, use_bias=False), values, estimator=estimator)
        model = keras.Sequential([keras.Input((64,)), layer])
        model.compile("adam", "mse")
        # Whole batches, many to an epoch: what takes time is the epoch.
        model.fit(
            np.tile(rows, (200, 1)), np.tile(targets, 200), batch_size=len(rows),
            epochs=6, shuffle=False, verbose=0,
        )  # fmt: skip
        chosen = numpy(layer.listed_values)[:, 0]
        planted = np.mean((rows @ hidden - targets) ** 2)
        excess[estimator] = np.mean((rows @ chosen - targets) ** 2) / planted
    assert excess["auto"] * 4 < excess["straight_through"], excess
