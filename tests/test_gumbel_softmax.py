"""GumbelSoftmax: against NumPy, and its random numbers in layers, training and files."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from conftest import numpy, on_one_backend
from lists import LISTS, NAMED, PER_CHANNEL, by_channel, latents_for
from quantal import Discrete, LearnableMultiplier, Values, parameters_of, testing
from quantal.estimators import GumbelSoftmax, MeanField
from quantal.estimators.contrib import ArgmaxStraightThrough

pytestmark = pytest.mark.product

FORMULA_LISTS = {
    **{name: LISTS[name] for name in ("binary", "uneven", "tenths", "seventeen")},
    "per channel": PER_CHANNEL,
}
TORCH = keras.config.backend() == "torch"


def state_at(r):
    """The state at which the softness is `r`, for a half-life of one step."""
    return ops.convert_to_tensor(np.array([1 / r - 1, 0], np.float32))


def gumbel(shape, seed):
    uniform = numpy(keras.random.uniform(shape, seed=seed)).astype(float)
    return -np.log(-np.log(np.clip(uniform, 1e-30, 1 - 2.0**-24)))


def logits_of(u, listed, noise):
    gap = (listed[-1] - listed[0]) / (len(listed) - 1)
    return noise - ((u[:, None] - listed) / gap) ** 2


def expectation(u, listed, noise, temperature):
    logits = logits_of(u, listed, noise) / temperature
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (shares / shares.sum(axis=1, keepdims=True)) @ listed


@pytest.mark.parametrize("values", FORMULA_LISTS.values(), ids=FORMULA_LISTS)
@pytest.mark.parametrize("temperature", [0.6, 2.0])
def test_forward_and_gradient_are_as_published(values, temperature):
    x = latents_for(values)
    arguments = {"temperature": 2.0, "floor": 0.1, "half_life": 1.0}
    state = state_at(temperature / 2.0)
    noise = gumbel((*x.shape, len(values)), seed=7)

    def drawn(u, listed, noise):
        return listed[logits_of(u, listed, noise).argmax(axis=1)]

    def soft(u, listed, noise):
        return expectation(u, listed, noise, temperature)

    def slope(u, listed, noise):
        step = 1e-6 * (listed[-1] - listed[0])
        return (soft(u + step, listed, noise) - soft(u - step, listed, noise)) / (2 * step)

    hard = GumbelSoftmax(**arguments)
    found = numpy(hard(x, values, True, state, seed=7))
    np.testing.assert_array_equal(found, by_channel(drawn, x, values, noise))
    assert np.mean(found != values.nearest(x)) > 0.1
    mixed = GumbelSoftmax(hard=False, **arguments)
    expected = by_channel(soft, x, values, noise)
    np.testing.assert_allclose(numpy(mixed(x, values, True, state, seed=7)), expected, atol=2e-5)
    for estimator in (hard, mixed):
        gradient = testing.gradient_of(
            lambda u, estimator=estimator: estimator(u, values, True, state, seed=7), x
        )
        slopes = by_channel(slope, x, values, noise)
        np.testing.assert_allclose(gradient, slopes, atol=2e-3 * np.abs(slopes).max())


def test_values_are_drawn_as_often_as_the_softmax_says():
    values = NAMED["uneven"]
    latent = np.full(20_000, 0.3, np.float32)
    drawn = numpy(GumbelSoftmax()(latent, values, True, seed=1))
    listed = values.ascending.astype(float)
    logits = logits_of(latent[:1].astype(float), listed, 0.0)[0]
    probabilities = np.exp(logits) / np.exp(logits).sum()
    shares = [np.mean(drawn == value) for value in values.ascending]
    np.testing.assert_allclose(shares, probabilities, atol=0.015)


@pytest.mark.parametrize("hard", [True, False])
def test_the_noise_stops_at_the_floor(hard):
    values = NAMED["uneven"]
    x = latents_for(values)
    estimator = GumbelSoftmax(hard, temperature=1.0, floor=0.5, half_life=100.0)

    def value(step, end=0.0):
        return numpy(estimator(x, values, True, ops.convert_to_tensor([step, end]), seed=3))

    for noisy, still in [((99.0, 0.0), (100.0, 0.0)), ((49.0, 100.0), (51.0, 100.0))]:
        assert (value(*noisy) != values.nearest(x)).any()
        np.testing.assert_array_equal(value(*still), values.nearest(x))
    state = ops.convert_to_tensor([100.0, 0.0])
    gradient = testing.gradient_of(lambda u: estimator(u, values, True, state, seed=3), x)
    still = testing.gradient_of(lambda u: ArgmaxStraightThrough(0.5)(u, values), x)
    np.testing.assert_allclose(gradient, still, atol=1e-6)


@pytest.mark.skipif(TORCH, reason="Keras's random numbers break PyTorch's graph")
def test_it_compiles():
    values, estimator = PER_CHANNEL, GumbelSoftmax()
    x = latents_for(values)
    # TensorFlow draws other numbers when it compiles.
    uniform = testing.compiled(lambda u: u * 0 + keras.random.uniform((*x.shape, 4), seed=7))
    noise = -np.log(-np.log(numpy(uniform(ops.zeros((*x.shape, 4)))).astype(float)))

    def drawn(u, listed, noise):
        return listed[logits_of(u, listed, noise).argmax(axis=1)]

    compiled = testing.compiled(lambda u: estimator(u, values, True, seed=7))
    found = numpy(compiled(ops.convert_to_tensor(x)))
    np.testing.assert_array_equal(found, by_channel(drawn, x, values, noise))
    gradient = testing.gradient_of(lambda u: estimator(u, values, True, seed=7), x, compile=True)

    def slope(u, listed, noise):
        step = 1e-6 * (listed[-1] - listed[0])
        above, below = (expectation(u + s, listed, noise, 1.0) for s in (step, -step))
        return (above - below) / (2 * step)

    slopes = by_channel(slope, x, values, noise)
    np.testing.assert_allclose(gradient, slopes, atol=2e-3 * np.abs(slopes).max())


# In layers.


def layer_of(kind, **arguments):
    arguments = {"estimator": "gumbel_softmax", "seed": 3, **arguments}
    if kind == "LearnableMultiplier":
        return LearnableMultiplier([1, -1, 0.5], **arguments)
    return Discrete(layers.LSTM(5), [1, -1, 0.5], ("kernel", "recurrent_kernel"), **arguments)


def model_of(kind, **arguments):
    model = keras.Sequential([keras.Input((3, 5)), layer_of(kind, **arguments)])
    model.compile(keras.optimizers.SGD(0.05), "mse")
    return model


def fitted(model, epochs=2):
    random = np.random.default_rng(0)
    x = random.normal(size=(16, 3, 5)).astype("f4")
    y = random.normal(size=(16, *model.output_shape[1:])).astype("f4")
    return model.fit(x, y, batch_size=8, epochs=epochs, shuffle=False, verbose=0).history["loss"]


def seed_of(model):
    return numpy(model.layers[0].seed_generator.state)


every_kind = pytest.mark.parametrize("kind", ["LearnableMultiplier", "Discrete"])


@pytest.mark.product
@every_kind
def test_training_draws_anew_in_each_step_and_inference_does_not(kind):
    model = model_of(kind)
    x = np.random.default_rng(0).normal(size=(2, 3, 5)).astype("f4")
    start = seed_of(model)
    first, second = (numpy(model(x, training=True)) for _ in range(2))
    assert not np.array_equal(first, second)
    drawn = 2 * len(parameters_of(model))
    np.testing.assert_array_equal(seed_of(model) - start, [0, drawn])
    same = [numpy(model(x)) for _ in range(2)]
    np.testing.assert_array_equal(*same)
    np.testing.assert_array_equal(seed_of(model) - start, [0, drawn])
    # Compiled steps write the state back, too.
    fitted(model)
    np.testing.assert_array_equal(seed_of(model) - start, [0, 3 * drawn])
    assert numpy(parameters_of(model)[0].state)[0] == 6
    testing.assert_listed(model)


@every_kind
def test_hard_values_are_listed_in_training_too(kind):
    model = model_of(kind)
    before = seed_of(model)
    testing.assert_listed(model, training=True)
    np.testing.assert_array_equal(seed_of(model), before)
    soft = model_of(kind, estimator=GumbelSoftmax(hard=False))
    with pytest.raises(AssertionError, match="are not in"):
        testing.assert_listed(soft, training=True)


@pytest.mark.product
@every_kind
def test_a_run_repeats_with_its_seed(kind):
    losses = []
    for seed in (3, 3, 4):
        keras.utils.set_random_seed(1)
        model = model_of(kind, seed=3)
        assert seed_of(model)[0] == 3
        # Another seed of the noise alone: latents start alike.
        state = model.layers[0].seed_generator.state
        state.assign(ops.convert_to_tensor([seed, 0], dtype=state.dtype))
        losses.append(fitted(model))
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]


@pytest.mark.product
@every_kind
def test_files_and_clones(kind, tmp_path):
    model = model_of(kind)
    fitted(model)
    x = np.random.default_rng(1).normal(size=(4, 3, 5)).astype("f4")
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    clone.compile(keras.optimizers.SGD(0.05), "mse")
    for other in (again, clone):
        np.testing.assert_array_equal(other.predict(x, verbose=0), model.predict(x, verbose=0))
        assert other.layers[0].seed_generator.get_config()["seed"] == 3
        before = seed_of(other)
        fitted(other)
        assert seed_of(other)[1] > before[1]


def test_a_layer_inside_a_discrete_layer_gets_its_seed_written_back():
    inner = keras.Sequential([layers.Dense(5, name="dense"), layer_of("LearnableMultiplier")])
    model = keras.Sequential([keras.Input((3, 5)), Discrete(inner, "ternary", "dense/kernel")])
    model.compile("sgd", "mse")
    fitted(model)
    assert numpy(inner.layers[1].seed_generator.state)[1] == 4


def test_other_estimators_make_no_generator():
    layer = LearnableMultiplier([1, -1])
    layer.build((None, 3))
    (parameter,) = layer.discrete_parameters
    assert layer.seed_generator is None
    assert len(layer.variables) == len([*parameter.variables, *parameter.other_variables])


@pytest.mark.product  # Nineteen seconds, most of them in PyTorch's compiler.
@pytest.mark.skipif(not TORCH, reason="fit compiles elsewhere anyway")
def test_fit_under_torch_compile():
    model = model_of("LearnableMultiplier")
    model.compile("sgd", "mse", jit_compile=True)
    fitted(model)
    assert seed_of(model)[1] == 4


def test_a_list_of_one_value_draws_nothing():
    assert float(GumbelSoftmax()(np.zeros(1, "f4"), Values([0.3]), True)[0]) == np.float32(0.3)


@on_one_backend
@pytest.mark.parametrize("estimator", [GumbelSoftmax(), MeanField(), ArgmaxStraightThrough()])
@pytest.mark.parametrize("training", [True, False])
def test_weights_too_large_for_a_number_for_each_value_are_refused(estimator, training):
    latent, values = ops.zeros(2**19 + 1), Values(np.arange(512))
    with pytest.raises(ValueError, match=r"524,289 elements times 512 .* at most 268,435,456"):
        estimator(latent, values, training=training)


@on_one_backend
def test_the_moments_of_a_weight_too_large_are_refused():
    layer = Discrete(layers.Dense(1024, use_bias=False), np.arange(512), estimator="mean_field")
    layer.build((None, 513))
    with pytest.raises(ValueError, match=r"MeanField computes .* Take StraightThrough or Annealed"):
        layer.discrete_parameters[0].moments()
