"""Weights as independent random choices, against their statement in NumPy."""

import math

import keras
import numpy as np
import pytest
from keras import layers, ops

from conftest import gradient_to, numpy
from lists import NAMED
from quantal import Discrete, LearnableMultiplier, Scale, Values, testing
from quantal._core.tensors.projection import projection_of
from quantal.estimators import MODERATION, MeanField
from quantal.estimators.mean_field import moderated

pytestmark = pytest.mark.product

FOUR = Values([1, -1, 0.5, -0.5])


def chances(latent, values, temperature):
    """The probability of each value, in the user's order."""
    gap = (float(values.high) - float(values.low)) / (len(values) - 1)
    logits = -(((latent[..., None] - values.numbers.astype(float)) / gap) ** 2) / temperature
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    return shares / shares.sum(-1, keepdims=True)


def moments_of(latent, values, temperature):
    shares = chances(latent, values, temperature)
    mean = shares @ values.numbers.astype(float)
    return mean, shares @ values.numbers.astype(float) ** 2 - mean**2


@pytest.mark.parametrize("temperature", [0.2, 1.0])
@pytest.mark.parametrize("name", ["binary", "ternary", "four", "uneven", "far from zero"])
def test_moments(name, temperature, random):
    values = NAMED[name]
    width = float(values.high) - float(values.low)
    latent = random.uniform(values.low - width, values.high + width, 200).astype("float32")
    mean, variance = MeanField(temperature).moments(
        ops.convert_to_tensor(latent), projection_of(values, 1)
    )
    expected = moments_of(latent.astype(float), values, temperature)
    np.testing.assert_allclose(numpy(mean), expected[0], rtol=1e-4, atol=2e-4 * width)
    np.testing.assert_allclose(numpy(variance), expected[1], rtol=1e-3, atol=2e-4 * width**2)


def test_two_values_have_a_mean_of_tanh(random):
    latent = random.normal(size=50).astype("float32")
    mean = MeanField(1.0)(latent, [-1, 1], training=True)
    np.testing.assert_allclose(numpy(mean), np.tanh(latent / 2), atol=1e-6)


@pytest.mark.parametrize("compile", [False, True], ids=["eager", "compiled"])
def test_the_gradient_is_that_of_the_mean(compile, random):
    latent, weight = (random.normal(size=60).astype("float32") for _ in range(2))
    weight_tensor, estimator = ops.convert_to_tensor(weight), MeanField(0.5)

    def function(x):
        return ops.sum(weight_tensor * estimator(x, FOUR, training=True))

    step = 1e-5
    upper, lower = (moments_of(latent.astype(float) + d, FOUR, 0.5)[0] for d in (step, -step))
    found = testing.gradient_of(function, latent, compile)
    np.testing.assert_allclose(found, weight * (upper - lower) / (2 * step), atol=1e-4)


@pytest.mark.parametrize("mean", [1.0, -3.0])
def test_a_moderated_logit_is_that_of_the_expected_probability(mean):
    # The wider a logit is spread, the more its sigmoid is a step, whose mean is the normal one.
    probability = 0.5 + 0.5 * math.erf(mean / math.sqrt(2) / 100)
    logit = math.log(probability / (1 - probability))
    result = moderated(*(ops.convert_to_tensor(number) for number in (mean, 1e4)))
    np.testing.assert_allclose(numpy(result), logit, rtol=5e-3)
    result = moderated(*(ops.convert_to_tensor(number) for number in (mean, -1e-6)))
    assert float(numpy(result)) == mean


LAYERS = {
    "Dense": (lambda: layers.Dense(3), (4,)),
    "Dense without bias": (lambda: layers.Dense(2, use_bias=False), (4,)),
    "EinsumDense": (lambda: layers.EinsumDense("ab,bc->ac", 3, bias_axes="c"), (4,)),
    "Conv2D": (lambda: layers.Conv2D(3, 2, padding="same", strides=2), (5, 5, 2)),
    "DepthwiseConv2D": (lambda: layers.DepthwiseConv2D(2), (4, 4, 3)),
}


@pytest.mark.parametrize("scale", [None, "learned"])
@pytest.mark.parametrize("name", LAYERS)
def test_a_linear_layer_passes_mean_and_variance_on(name, scale, random):
    make, shape = LAYERS[name]
    plain, layer = make(), Discrete(make(), FOUR, estimator=MeanField(0.3), scale=scale)
    x = random.normal(size=(2, *shape)).astype("float32")
    layer(x)
    plain.build((2, *shape))
    parameter = layer.discrete_parameters[0]
    factor = 1.0
    if scale is not None:
        parameter.scale_state.begin(0.7)
        factor = 0.7
    mean, variance = moments_of(numpy(parameter.latent).astype(float), FOUR, 0.3)
    bias = random.normal(size=3).astype("float32")
    has_bias = len(plain.weights) > 1
    if has_bias:
        layer.layer.weights[1].assign(bias)
    with_bias = [bias] if has_bias else []
    plain.set_weights([factor * mean, *with_bias])
    means = numpy(plain(x))
    plain.set_weights([factor**2 * variance, *(np.zeros_like(b) for b in with_bias)])
    variances = numpy(plain(x**2))
    expected = means / np.sqrt(1 + MODERATION * variances)
    np.testing.assert_allclose(numpy(layer(x, training=True)), expected, rtol=1e-3, atol=1e-4)
    # In inference the nearest values, as everywhere.
    plain.set_weights([factor * numpy(layer.listed_values), *with_bias])
    np.testing.assert_allclose(numpy(layer(x)), numpy(plain(x)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("power_of_two", [False, True])
def test_a_learned_scale_gets_the_true_gradient(power_of_two, random):
    x = random.normal(size=(6, 4)).astype("float32")
    layer = Discrete(
        layers.Dense(3, use_bias=False), FOUR, estimator=MeanField(0.3),
        scale=Scale("learned", power_of_two=power_of_two),
    )  # fmt: skip
    layer(x)
    (parameter,) = layer.discrete_parameters
    state, upstream = parameter.scale_state, random.normal(size=(6, 3))
    state.begin(np.float32(0.5))
    parameter.latent.assign(random.normal(size=(4, 3)))
    latent = numpy(parameter.latent).astype(float)

    def loss(relative):
        mean, variance = moments_of(latent / relative, FOUR, 0.3)
        scale = 0.5 * relative
        outputs = x @ (scale * mean)
        outputs = outputs / np.sqrt(1 + MODERATION * (x**2 @ (scale**2 * variance)))
        return np.sum(outputs * upstream)

    true = (loss(1 + 1e-6) - loss(1 - 1e-6)) / 2e-6
    tensor = ops.convert_to_tensor(upstream.astype("float32"))
    gradient = gradient_to(state.relative, lambda: ops.sum(layer(x, training=True) * tensor))
    assert abs(true) > 0.01
    np.testing.assert_allclose(gradient, true / np.sqrt(12), rtol=2e-2)


def test_a_learned_scale_is_learned(random):
    x = random.normal(size=(512, 8)).astype("float32")
    signs = random.choice([-1, 1], size=(8, 1))
    layer = Discrete(layers.Dense(1, use_bias=False), "binary", scale="learned",
                     estimator="mean_field", seed=0)  # fmt: skip
    model = keras.Sequential([keras.Input((8,)), layer])
    model.compile(keras.optimizers.Adam(0.1), "mse")
    model.fit(x, 3 * x @ signs, batch_size=64, epochs=30, verbose=0)
    assert numpy(layer.discrete_parameters[0].scale) == pytest.approx(3, rel=0.2)


def test_elsewhere_training_sees_the_means(random):
    x = random.normal(size=(2, 4)).astype("float32")
    dense = Discrete(layers.Dense(3, activation="relu"), FOUR, estimator="mean_field")
    dense(x)
    mean, _ = moments_of(numpy(dense.discrete_parameters[0].latent).astype(float), FOUR, 0.2)
    expected = np.maximum(x @ mean, 0)
    np.testing.assert_allclose(numpy(dense(x, training=True)), expected, rtol=1e-3, atol=1e-4)
    multiplier = LearnableMultiplier(FOUR, estimator="mean_field")
    multiplier(x)
    latent = numpy(multiplier.discrete_parameters[0].latent).astype(float)
    expected = x * moments_of(latent, FOUR, 0.2)[0]
    np.testing.assert_allclose(numpy(multiplier(x, training=True)), expected, rtol=1e-3, atol=1e-4)


def test_losses_of_the_layer_count_once(random):
    x = random.normal(size=(2, 4)).astype("float32")
    layer = Discrete(
        layers.Dense(3, activity_regularizer=keras.regularizers.L1(0.1)), FOUR,
        estimator="mean_field",
    )  # fmt: skip
    layer(x)
    layer(x, training=True)
    assert len(layer.losses) == 1


def test_a_perceptron_that_straight_through_does_not_learn(random):
    size = 301
    patterns = random.choice([-1.0, 1.0], (int(0.5 * size), size)).astype("float32")
    errors = {}
    for estimator in ("mean_field", "straight_through"):
        keras.utils.set_random_seed(0)
        layer = Discrete(layers.Dense(1, use_bias=False), [-1, 1], estimator=estimator)
        model = keras.Sequential([keras.Input((size,)), layer, layers.Rescaling(2.0)])
        model.compile(
            keras.optimizers.Adam(0.01), keras.losses.BinaryCrossentropy(from_logits=True)
        )
        rows = np.tile(patterns, (100, 1))
        model.fit(
            rows, np.ones((len(rows), 1)), batch_size=len(patterns), epochs=12,
            shuffle=False, verbose=0,
        )  # fmt: skip
        errors[estimator] = int(np.sum(patterns @ numpy(layer.listed_values) <= 0))
    assert errors["mean_field"] <= 1 < errors["straight_through"], errors
