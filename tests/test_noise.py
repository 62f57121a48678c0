"""Lists with noise: values drawn around their levels in training, and exact in inference."""

import copy
import json
import pickle

import keras
import numpy as np
import pytest
from keras import layers, ops

import quantal
from conftest import BACKEND, gradient_to, numpy, on_one_backend
from quantal import Discrete, LearnableMultiplier, Scale, Values, parameters_of, testing

LEVELS = [0.5, -1.0, 2.0]
DEVIATIONS = [0.1, 0.0, 0.3]
PER_CHANNEL = Values(
    [[0.5, -1.0, 2.0], [0.1, 0.2, 0.4]], axis=1, noise=[[0.1, 0.0, 0.3], [0.0, 0.05, 0.02]]
)


def dense(values, units=2, inputs=4000, **arguments):
    """A wrapped Dense, built, whose codes are 0, 1, 2, 0, ... along the inputs."""
    arguments = {"seed": 5, **arguments}
    layer = Discrete(layers.Dense(units, use_bias=False), values, **arguments)
    layer.build((None, inputs))
    count = len(layer.values)
    layer.set_codes(np.arange(inputs * units).reshape(inputs, units) % count)
    return layer


def drawn(layer):
    """The weight in training, without the values: what was drawn."""
    (parameter,) = layer.discrete_parameters
    return numpy(parameter.compute(True)) - numpy(parameter.compute(False))


# The list.


@pytest.mark.parametrize(
    "values",
    [
        Values(LEVELS, noise=0.1),
        Values(LEVELS, noise=DEVIATIONS),
        Values(LEVELS, noise=DEVIATIONS, learnable=True),
        PER_CHANNEL,
        Values(PER_CHANNEL, noise=DEVIATIONS),
    ],
)
@on_one_backend
def test_a_config_a_pickle_and_a_copy_keep_the_noise(values):
    again = Values.get(json.loads(json.dumps(values.get_config())))
    for other in (again, pickle.loads(pickle.dumps(values)), copy.deepcopy(values)):
        assert other == values
        np.testing.assert_array_equal(other.noise, values.noise)
        assert not other.noise.flags.writeable
    assert values.noise.shape == values.numbers.shape
    assert Values(values) == values
    assert Values(values, noise=0) != values
    assert Values(values, noise=0).noise is None
    assert values.moved(values.numbers + 1).noise is values.noise


@on_one_backend
def test_what_a_list_with_noise_is_called():
    assert repr(Values([1, -1], noise=0.1)) == "Values([1.0, -1.0], noise=0.1)"
    assert repr(Values([1, -1], noise=[0, 0.1])) == "Values([1.0, -1.0], noise=[0.0, 0.1])"
    assert eval(repr(Values([1, -1], noise=[0, 0.1]))) == Values([1, -1], noise=[0, 0.1])
    assert "noise 0.01 to 0.2" in repr(Values("signed:8", noise=np.linspace(0.01, 0.2, 256)))
    chosen = Values([3, 1, 2], noise=[0.3, 0.1, 0.2]).between(2, 3)
    assert chosen == Values([3, 2], noise=[0.3, 0.2])
    assert Values([1, 2]).get_config() == [1.0, 2.0]
    assert Values([1, 2], noise=[0, 0]) == Values([1, 2])


@on_one_backend
@pytest.mark.parametrize(
    ("noise", "error", "words"),
    [
        ([0.1, 0.2], ValueError, r"noise has the shape \(2,\).*or 3 of them, one for each value"),
        (-0.1, ValueError, "noise is -0.1.*each finite and at least 0"),
        (float("nan"), ValueError, "noise is nan.*each finite"),
        ("much", TypeError, "noise is 'much'.*Give 0.02"),
    ],
)
def test_noise_that_is_none_is_refused(noise, error, words):
    with pytest.raises(error, match=words):
        Values([1, 2, 3], noise=noise)


# What is drawn.


@pytest.mark.parametrize("scale", [None, 0.25])
@pytest.mark.parametrize(
    "values",
    [Values(LEVELS, noise=DEVIATIONS), Values(LEVELS, noise=DEVIATIONS, learnable=True)],
)
def test_each_value_has_its_mean_and_its_deviation(values, scale):
    layer = dense(values, scale=scale and "learned")
    if scale:
        layer.discrete_parameters[0].scale_state.begin(np.float32(scale))
    numbers, codes = drawn(layer), numpy(layer.codes)
    assert set(codes.ravel()) == {0, 1, 2}
    for code, deviation in enumerate(np.array(DEVIATIONS) * (scale or 1)):
        of_code = numbers[codes == code]
        # Five standard errors of a mean, and of a deviation.
        assert abs(of_code.mean()) <= 5 * deviation / np.sqrt(of_code.size)
        assert abs(of_code.std() - deviation) <= 5 * deviation / np.sqrt(2 * of_code.size)
    # Elements are drawn independently.
    kind = numbers[codes == 2] / DEVIATIONS[2] / (scale or 1)
    assert abs(np.mean(kind[1:] * kind[:-1])) < 5 / np.sqrt(kind.size)


def test_each_channel_has_the_noise_of_its_list():
    numbers, codes = drawn(layer := dense(PER_CHANNEL)), numpy(layer.codes)
    for channel, code in np.ndindex(2, 3):
        of_code = numbers[:, channel][codes[:, channel] == code]
        deviation = PER_CHANNEL.noise[channel, code]
        assert abs(of_code.std() - deviation) <= 5 * deviation / np.sqrt(2 * of_code.size)


def test_noise_goes_with_the_code_when_a_learned_list_changes_its_order():
    layer = dense(Values([1.0, 2.0], noise=[0.0, 0.5], learnable=True), inputs=200)
    (parameter,) = layer.discrete_parameters
    parameter.set_values([2.0, 1.0])
    numbers, codes = drawn(layer), numpy(layer.codes)
    assert not numbers[codes == 0].any()
    assert numbers[codes == 1].all()


@pytest.mark.parametrize("estimator", ["straight_through", "annealed", "settling", "mean_field"])
def test_the_gradient_is_that_without_noise(estimator):
    noisy, exact = (
        dense(values, inputs=6, estimator=estimator, scale=Scale("learned", axis="output"))
        for values in (Values(LEVELS, noise=0.5), Values(LEVELS))
    )
    factors = ops.convert_to_tensor(np.random.default_rng(0).normal(size=(6, 2)).astype("f4"))
    (one,), (other,) = noisy.discrete_parameters, exact.discrete_parameters
    start = np.random.default_rng(2).uniform(-0.4, 0.8, (6, 2)).astype("f4")
    for parameter in (one, other):
        parameter.scale_state.begin(np.float32([[0.25, 0.5]]))
        parameter.set_latents(start)
    for variable, same in zip(one.variables, other.variables, strict=True):
        gradients = [
            gradient_to(v, lambda p=p: ops.sum(p.compute(True) * factors))
            for v, p in ((variable, one), (same, other))
        ]
        assert np.abs(gradients[0]).max() > 0
        np.testing.assert_array_equal(*gradients)
    assert np.abs(numpy(one.compute(True)) - numpy(other.compute(True))).min() > 0


def test_settling_goes_where_it_goes_without_noise_for_the_same_gradients():
    latents = []
    for values in (Values(LEVELS, noise=0.5), Values(LEVELS)):
        layer = LearnableMultiplier(values, estimator="settling", seed=1)
        layer.build((None, 5))
        (parameter,) = layer.discrete_parameters
        for step in range(4):
            parameter.latent.assign(parameter.latent + np.linspace(-1, 1, 5) * (step + 1) * 0.01)
            parameter.compute(True, advance=True)
        latents.append(numpy(parameter.effective_latent))
        assert np.abs(drawn(layer)).min() > 0 or values.noise is None
    np.testing.assert_array_equal(*latents)


def test_mean_field_adds_noise_to_the_variance_that_a_linear_layer_passes_on():
    noisy, exact = (
        dense(values, inputs=6, estimator="mean_field").discrete_parameters[0]
        for values in (Values(LEVELS, noise=DEVIATIONS), Values(LEVELS))
    )
    mean, variance = map(numpy, noisy.moments())
    plain_mean, plain_variance = map(numpy, exact.moments())
    np.testing.assert_array_equal(mean, plain_mean)
    added = np.square(np.array(DEVIATIONS, "f4"))[numpy(noisy.codes)]
    np.testing.assert_allclose(variance - plain_variance, added, atol=1e-6)


# In models.


def model_of(values=None, **arguments):
    arguments = {"seed": 3, **arguments}
    values = Values(LEVELS, noise=DEVIATIONS) if values is None else values
    model = keras.Sequential(
        [
            keras.Input((6,)),
            Discrete(layers.Dense(4), values, **arguments),
            LearnableMultiplier(values, **arguments),
        ]
    )
    model.compile(keras.optimizers.SGD(0.05), "mse")
    return model


def fitted(model):
    x = np.random.default_rng(0).normal(size=(16, 6)).astype("f4")
    y = np.random.default_rng(1).normal(size=(16, 4)).astype("f4")
    return model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0).history["loss"]


def seeds_of(model):
    return [int(numpy(layer.seed_generator.state)[1]) for layer in model.layers]


def test_training_draws_anew_in_each_step_and_inference_is_exact():
    model = model_of()
    x = np.random.default_rng(0).normal(size=(3, 6)).astype("f4")
    first, second = (numpy(model(x, training=True)) for _ in range(2))
    assert np.abs(first - second).max() > 0
    assert seeds_of(model) == [2, 2]
    plain = quantal.bake(model)
    np.testing.assert_array_equal(numpy(model(x)), numpy(plain(x)))
    testing.assert_listed(model)
    assert seeds_of(model) == [2, 2]
    # A compiled step draws, too, and writes the seed's state back.
    fitted(model)
    assert seeds_of(model) == [6, 6]
    with pytest.raises(AssertionError, match="In training a list with noise gives numbers around"):
        testing.assert_listed(model, training=True)
    model.trainable = False
    testing.assert_listed(model, training=True)
    np.testing.assert_array_equal(numpy(model(x, training=True)), numpy(model(x)))
    assert seeds_of(model) == [6, 6]


@pytest.mark.product
def test_a_run_repeats_with_its_seed():
    losses = []
    for seed in (3, 3, 4):
        keras.utils.set_random_seed(1)
        model = model_of()
        for layer in model.layers:
            state = layer.seed_generator.state
            state.assign(ops.convert_to_tensor([seed, 0], dtype=state.dtype))
        losses.append(fitted(model))
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]


@pytest.mark.product
def test_files_clones_and_configs_keep_the_noise(tmp_path):
    model = model_of()
    fitted(model)
    x = np.random.default_rng(1).normal(size=(4, 6)).astype("f4")
    expected = model.predict(x, verbose=0)
    model.save(tmp_path / "model.keras")
    quantal.save(model, tmp_path / "model.quantal")
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    final = quantal.finalize(model)
    others = [
        keras.saving.load_model(tmp_path / "model.keras"),
        quantal.load(tmp_path / "model.quantal"),
        clone,
    ]
    for other in (*others, final):
        np.testing.assert_array_equal(other.predict(x, verbose=0), expected)
        assert all(layer.values == model.layers[0].values for layer in other.layers)
    for other in others:
        other.compile("sgd", "mse")
        before = seeds_of(other)
        fitted(other)
        assert min(np.subtract(seeds_of(other), before)) == 4
    np.testing.assert_array_equal(numpy(final(x, training=True)), numpy(final(x)))
    runtime = quantal.runtime.load(tmp_path / "model.quantal")
    np.testing.assert_allclose(runtime.predict(x), expected, atol=1e-5)


@on_one_backend
def test_the_summary_and_discretize_know_the_noise():
    model = keras.Sequential([keras.Input((300,)), layers.Dense(8)])
    listed = quantal.discretize(model, Values("ternary", noise=0.05), keep_ends=0)
    assert parameters_of(listed)[0].values.noise.tolist() == pytest.approx([0.05] * 3)
    assert "ternary, noise 0.05" in str(quantal.summary(listed))


@pytest.mark.product
@pytest.mark.skipif(BACKEND == "torch", reason="PyTorch has no such compiler here")
def test_a_large_weight_draws_in_a_compiled_step():
    model = keras.Sequential(
        [keras.Input((256,)), Discrete(layers.Dense(256), Values([1, -1], noise=0.1), seed=1)]
    )
    model.compile("sgd", "mse", jit_compile=True)
    model.fit(np.ones((4, 256), "f4"), np.ones((4, 256), "f4"), epochs=2, verbose=0)
    assert seeds_of(model) == [2]


# Evaluation over draws.


def multiplying(values=LEVELS):
    """A model whose outputs are its weights: what a draw has written can be read off its loss."""
    model = keras.Sequential([keras.Input((400,)), LearnableMultiplier(values, seed=1)])
    model.compile(loss="mse", metrics=["mae"])
    return model


def test_evaluation_draws_once_for_each_device():
    model = multiplying()
    model.layers[0].set_codes(np.arange(400) % 3)
    x = np.ones((40, 400), "f4")
    y = model.predict(x, verbose=0)
    before = [numpy(variable).copy() for variable in model.variables]
    result = quantal.evaluate_with_noise(
        model, x, y, draws=30, noise=DEVIATIONS, batch_size=8, verbose=0
    )
    assert result.exact == {"loss": 0.0, "mae": 0.0}
    numbers = result.draws["loss"]
    assert numbers.shape == (30,)
    # All samples of a draw see one device: a draw's loss is a mean over 400 elements.
    expected = np.mean(np.square(DEVIATIONS))
    assert abs(result.mean["loss"] - expected) < 5 * expected / np.sqrt(30 * 200 / 3)
    relative = result.spread["loss"] / expected
    assert 0.5 < relative / np.sqrt(3 * 2 / 400) < 2
    for variable, old in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(numpy(variable), old)
    again = quantal.evaluate_with_noise(
        model, x, y, draws=3, noise=DEVIATIONS, batch_size=40, verbose=0
    )
    np.testing.assert_allclose(again.draws["loss"], numbers[:3], rtol=1e-5)
    text = str(result)
    assert "30 draws of 1 weight, noise 0 to 0.3" in text
    assert "spread" in text


@on_one_backend
def test_evaluation_knows_scales_channels_masks_and_frozen_layers():
    values = Values(PER_CHANNEL.numbers, axis=1, noise=[0.1, 0.2, 0.3])
    model = keras.Sequential(
        [
            keras.Input((3, 2)),
            layers.Masking(),
            LearnableMultiplier(Values(LEVELS, noise=0.0), seed=1),
            Discrete(layers.Dense(2, use_bias=False), values, scale=Scale("learned", "output")),
        ]
    )
    model.compile(loss="mse")
    (_, parameter) = parameters_of(model)
    parameter.scale_state.begin(np.float32([[0.5, 2.0]]))
    x = np.ones((4, 3, 2), "f4")
    y = model.predict(x, verbose=0)
    final = quantal.finalize(model)
    final.compile(loss="mse")
    results = [
        quantal.evaluate_with_noise(m, x, y, draws=400, verbose=0).mean["loss"]
        for m in (model, final)
    ]
    assert results[0] == results[1]
    factors = numpy(model.layers[1].kernel).reshape(2, 1)
    deviations = np.take([0.1, 0.2, 0.3], numpy(parameter.codes)) * factors * [0.5, 2.0]
    assert results[0] == pytest.approx(np.square(deviations).sum(0).mean(), rel=0.3)


@on_one_backend
def test_evaluations_that_cannot_be_are_refused():
    x = np.ones((2, 400), "f4")
    model = multiplying()
    with pytest.raises(ValueError, match=r"No list of the model .* has noise.*Give noise=0.02"):
        quantal.evaluate_with_noise(model, x, x)
    with pytest.raises(ValueError, match=r"draws is 1. Expected at least 2"):
        quantal.evaluate_with_noise(model, x, x, draws=1, noise=0.1)
    with pytest.raises(ValueError, match=r"noise has the shape \(2,\)"):
        quantal.evaluate_with_noise(model, x, x, noise=[0.1, 0.2])
    plain = keras.Sequential([keras.Input((400,)), layers.Dense(1)])
    with pytest.raises(ValueError, match=r"is not compiled. Expected a loss"):
        quantal.evaluate_with_noise(plain, x, x, noise=0.1)
    plain.compile(loss="mse")
    with pytest.raises(ValueError, match="has no discrete weight"):
        quantal.evaluate_with_noise(plain, x, x, noise=0.1)
