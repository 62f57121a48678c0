"""Penalties on latents, against NumPy, alone and inside layers."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from conftest import numpy
from lists import NAMED
from quantal import Discrete, LearnableMultiplier, Values, parameters_of, testing
from quantal._core.tensors.latent_units import LatentUnits
from quantal.regularizers import Dampening, RoundingVariance

PENALTIES = [Dampening, RoundingVariance]
every_penalty = pytest.mark.parametrize("penalty", PENALTIES)
LISTS = {
    **{name: NAMED[name] for name in ("one", "binary", "uneven", "tenths", "far from zero")},
    "per channel": Values([[1, -1, 0.5], [0.3, 7, -2]], axis=0),
    "per last channel": Values([[1, -1, 0.5], [0.3, 7, -2]]),
}


def dampening(u, listed):
    held = np.clip(u, listed[0], listed[-1])
    to_nearest = np.abs(held[:, None] - listed).min(axis=1)
    slope = 2 * (held - listed[np.abs(held[:, None] - listed).argmin(axis=1)])
    return to_nearest**2, slope


def rounding_variance(u, listed):
    held = np.clip(u, listed[0], listed[-1])
    place = np.clip(np.searchsorted(listed, held) - 1, 0, max(len(listed) - 2, 0))
    low, high = listed[place], listed[np.minimum(place + 1, len(listed) - 1)]
    slope = np.where((u > listed[0]) & (u < listed[-1]), low + high - 2 * held, 0)
    return (held - low) * (high - held), slope


IN_NUMPY = {Dampening: dampening, RoundingVariance: rounding_variance}


def stated(penalty, values, latents):
    """(each latent's penalty, its slope), in latent units, channel by channel."""
    axis = values.axis if values.channels else 0
    rows = np.moveaxis(latents, axis, 0) if values.channels else latents.reshape(1, -1)
    found = []
    for row, listed in zip(rows, np.atleast_2d(values.ascending), strict=True):
        listed = LatentUnits(Values(listed)).latents_of(listed).astype(float)
        found.append(IN_NUMPY[penalty](row.astype(float).ravel(), listed))
    penalties, slopes = np.moveaxis(np.array(found), 1, 0)
    shape = rows.shape if values.channels else latents.shape
    slopes = slopes.reshape(shape)
    return penalties.sum(), np.moveaxis(slopes, 0, axis) if values.channels else slopes


def latents_for(values):
    """Latents around each list, within its ends and beyond."""
    random = np.random.default_rng(0)
    latents = random.uniform(-1.6, 1.6, (2, 64)).astype(np.float32)
    return latents.T if values.channels and values.axis == -1 else latents


@every_penalty
@pytest.mark.parametrize("values", LISTS.values(), ids=LISTS)
def test_penalty_and_gradient_are_as_stated(penalty, values):
    latents = latents_for(values)
    regularizer = penalty(values, strength=0.3)
    expected, slope = stated(penalty, values, latents)
    if len(values) > 1:
        assert expected > 0.1
    # Beside 1000, float32 numbers are 6e-5 apart.
    np.testing.assert_allclose(numpy(regularizer(latents)), 0.3 * expected, rtol=5e-5)
    gradient = testing.gradient_of(regularizer, latents)
    np.testing.assert_allclose(gradient, 0.3 * slope, atol=5e-5)


@every_penalty
def test_listed_latents_and_those_beyond_the_ends_cost_nothing(penalty):
    values = NAMED["uneven"]
    latents = np.append(LatentUnits(values).latents_of(values.numbers), [-5, 5]).astype("f4")
    regularizer = penalty(values, 1.0)
    assert float(regularizer(latents)) == 0
    gradient = testing.gradient_of(regularizer, latents)
    np.testing.assert_array_equal(gradient[-2:], 0)
    if penalty is Dampening:
        np.testing.assert_array_equal(gradient, 0)


@every_penalty
def test_it_compiles(penalty):
    values = LISTS["per channel"]
    regularizer = penalty(values, 0.3)
    latents = latents_for(values)
    _, slope = stated(penalty, values, latents)
    gradient = testing.gradient_of(regularizer, latents, compile=True)
    np.testing.assert_allclose(gradient, 0.3 * slope, atol=1e-5)


@every_penalty
def test_the_same_for_a_list_of_any_size(penalty):
    latents = np.random.default_rng(0).uniform(-1, 1, 20).astype("f4")
    penalties = [float(penalty(np.array([1, -1, 0.5]) * s, 1.0)(latents)) for s in (1, 8, 2**-7)]
    assert penalties[0] == penalties[1] == penalties[2]


@every_penalty
@pytest.mark.parametrize("values", [NAMED["tenths"], LISTS["per last channel"]], ids=repr)
@pytest.mark.parametrize("kind", ["Discrete", "LearnableMultiplier"])
def test_the_loss_of_a_layer_holds_the_penalty(penalty, values, kind, random, tmp_path):
    regularizer = penalty(values, 0.5)
    if kind == "Discrete":
        dense = layers.Dense(2, use_bias=False, kernel_regularizer=regularizer)
        layer = Discrete(dense, values, seed=1)
    else:
        layer = LearnableMultiplier(values, kernel_regularizer=regularizer, seed=1)
    model = keras.Sequential([keras.Input((2,)), layer])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    latent = parameters_of(model)[0].latent
    before = numpy(latent).copy()
    expected, slope = stated(penalty, values, before)
    # The data are zeros, so the loss is the penalty and its gradient moves alone.
    zeros = np.zeros((8, 2), "f4")
    history = model.fit(zeros, zeros, epochs=1, verbose=0).history
    assert expected > 0
    np.testing.assert_allclose(history["loss"][0], 0.5 * expected, rtol=1e-5)
    moved = before - 0.1 * 0.5 * slope
    np.testing.assert_allclose(numpy(latent), moved, atol=1e-6)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        again.evaluate(zeros, zeros, verbose=0), model.evaluate(zeros, zeros, verbose=0)
    )


@every_penalty
@pytest.mark.parametrize("values", LISTS.values(), ids=LISTS)
def test_config_round_trip(penalty, values):
    regularizer = penalty(values, 0.3)
    saved = keras.saving.serialize_keras_object(regularizer)
    again = keras.regularizers.get(saved)
    assert type(again) is penalty
    assert again.values == values
    assert again.strength == 0.3


@every_penalty
def test_bad_arguments_are_refused(penalty):
    with pytest.raises(ValueError, match="strength is -1"):
        penalty([1, -1], -1)
    with pytest.raises(TypeError, match="strength is 'much'"):
        penalty([1, -1], "much")
    with pytest.raises(ValueError, match=r"duplicate|twice|same"):
        penalty([1, 1], 1.0)


def test_dampening_in_sgd_is_the_pull_of_cage():
    values = NAMED["uneven"]
    latents = np.random.default_rng(0).uniform(-0.2, 1, 50).astype("f4")
    numbers = numpy(LatentUnits(values).values_of(ops.convert_to_tensor(latents)))
    nearest = LatentUnits(values).latents_of(values.nearest(numbers))
    gradient = testing.gradient_of(Dampening(values, 0.5), latents)
    np.testing.assert_allclose(gradient, latents - nearest, atol=1e-6)
