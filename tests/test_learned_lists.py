"""Lists that training moves, and lists of their own for the channels of a weight."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers, ops

from conftest import gradient_to, numpy
from lists import lists
from quantal import Discrete, LearnableMultiplier, Values, estimators, testing
from quantal._core.tensors.latent_units import LatentUnits, draw_latents
from quantal._core.tensors.projection import moving_projection, projection_of
from quantal.callbacks import RefreshLists

pytestmark = pytest.mark.product

FOUR = Values([0.5, -1, 2, -0.1], learnable=True)
ROWS = Values([[1, -1, 0.25], [0.1, 0.2, 0.4], [-3, 5, 0]], axis=-1)
LONG_ROWS = Values(np.random.default_rng(0).normal(size=(3, 20)), axis=0)


def layer_on(values, units=3, **arguments):
    layer = Discrete(layers.Dense(units, use_bias=False), values, **arguments)
    layer.build((None, 8))
    return layer, layer.discrete_parameters[0]


# Learned lists.


def test_an_entry_gets_the_sum_of_the_gradients_of_the_elements_that_hold_it(random):
    layer, parameter = layer_on(FOUR)
    x = random.normal(size=(6, 8)).astype("float32")
    gradient = gradient_to(parameter.entries, lambda: layer(x))
    to_weights = np.broadcast_to(x.sum(axis=0)[:, None], (8, 3))
    codes = numpy(parameter.codes)
    unit = LatentUnits(FOUR).unit
    expected = [unit * to_weights[codes == code].sum() for code in range(4)]
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-5)


def test_entries_of_channels_get_theirs(random):
    layer, parameter = layer_on(Values(ROWS, learnable=True))
    x = random.normal(size=(6, 8)).astype("float32")
    gradient = gradient_to(parameter.entries, lambda: layer(x))
    sums, codes = x.sum(axis=0), numpy(parameter.codes)
    for channel in range(3):
        unit = LatentUnits(ROWS, 2).unit[0, channel]
        expected = [unit * sums[codes[:, channel] == code].sum() for code in range(3)]
        np.testing.assert_allclose(gradient[channel], expected, rtol=1e-4, atol=1e-5)


def test_a_list_is_learned(random):
    hidden = np.array([0.7, -1.2, 0.2, 1.1], np.float32)
    vector = hidden[random.integers(0, 4, 64)]
    x = random.normal(size=(2048, 64)).astype("float32")
    layer = LearnableMultiplier(Values([0.5, -1, 0, 1.4], learnable=True), seed=0)
    model = keras.Sequential([keras.Input((64,)), layer])
    model.compile(keras.optimizers.Adam(0.01), "mse")
    model.fit(x, x * vector, epochs=12, verbose=0)
    np.testing.assert_allclose(numpy(layer.listed_values), vector, atol=0.02)
    learned = layer.discrete_parameters[0].values
    # Entries may change places on their way; codes stay with their entries.
    np.testing.assert_allclose(np.sort(learned.numbers), np.sort(hidden), atol=0.02)
    assert learned.learnable
    assert layer.values.tolist() == [0.5, -1, 0, 1.4]
    # Members by equality, also where training has moved the list.
    np.testing.assert_array_equal(learned.take(numpy(layer.codes)), numpy(layer.listed_values))


def test_a_learned_list_saves_and_loads(random, tmp_path):
    model = keras.Sequential([keras.Input((5,)), Discrete(layers.Dense(3), FOUR)])
    parameter = model.layers[0].discrete_parameters[0]
    parameter.set_values([0.3, -2, 1.5, 0])
    x = random.normal(size=(4, 5)).astype("float32")
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    again = loaded.layers[0].discrete_parameters[0].values
    np.testing.assert_allclose(again.numbers, [0.3, -2, 1.5, 0], rtol=1e-6)
    np.testing.assert_array_equal(model.predict(x, verbose=0), loaded.predict(x, verbose=0))


@pytest.mark.product
@settings(max_examples=20)
@given(lists(longest=40), st.integers(0, 2**32 - 1))
def test_a_moved_list_is_the_same_in_numpy_and_in_tensors(values, seed):
    random = np.random.default_rng(seed)
    numbers = random.permutation(np.concatenate([values.numbers, values.numbers[:1]]))
    moved = Values(values, learnable=True).moved(numbers)
    x = np.concatenate([numbers, moved.midpoints, random.normal(size=8).astype(np.float32)])
    projection = moving_projection(ops.convert_to_tensor(numbers), -1, 1)
    np.testing.assert_array_equal(numpy(projection.codes(x)), moved.codes(x))
    np.testing.assert_array_equal(numpy(projection.nearest(x)), moved.nearest(x))
    np.testing.assert_array_equal(moved.nearest(numbers), numbers)


def test_a_learned_list_is_the_same_compiled():
    numbers = np.random.default_rng(0).normal(size=(30,)).astype("float32")
    x = np.random.default_rng(1).normal(size=(4096,)).astype("float32")

    def nearest(numbers, x):
        return moving_projection(numbers, -1, 1).nearest(x)

    arguments = ops.convert_to_tensor(numbers), ops.convert_to_tensor(x)
    expected = Values(numbers, learnable=True).nearest(x)
    np.testing.assert_array_equal(numpy(nearest(*arguments)), expected)
    np.testing.assert_array_equal(numpy(testing.compiled(nearest)(*arguments)), expected)


def test_a_refresh_moves_each_entry_to_the_mean_of_its_weights():
    layer = LearnableMultiplier(FOUR, seed=0)
    model = keras.Sequential([keras.Input((40,)), layer])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    parameter = layer.discrete_parameters[0]
    codes, before = numpy(layer.codes), numpy(LatentUnits(FOUR).values_of(parameter.latent))
    x = np.ones((4, 40), "float32")
    model.fit(x, x, epochs=2, verbose=0, callbacks=[RefreshLists(every=2)])
    expected = [before[codes == code].mean() for code in range(4)]
    np.testing.assert_allclose(parameter.values.numbers, expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"every is 0\. Expected"):
        RefreshLists(every=0)
    fixed = keras.Sequential([keras.Input((4,)), LearnableMultiplier([1, -1])])
    fixed.compile("sgd", "mse")
    with pytest.raises(ValueError, match="no learnable list"):
        fixed.fit(x[:, :4], x[:, :4], verbose=0, callbacks=[RefreshLists()])


def test_a_fixed_list_takes_no_other_numbers():
    layer = LearnableMultiplier([1, -1])
    layer.build((None, 3))
    with pytest.raises(ValueError, match="Expected a learnable list"):
        layer.discrete_parameters[0].set_values([1, 2])


# Lists per channel.


@pytest.mark.parametrize(
    ("values", "shape"),
    [
        (ROWS, (50, 3)),
        (Values(ROWS, axis=1), (4, 3, 5)),
        (LONG_ROWS, (3, 200)),
        (Values([[1.0], [2.0]], axis=0), (2, 7)),
    ],
)
def test_each_channel_goes_to_its_own_list(values, shape, random):
    x = random.normal(size=shape).astype("float32") * 3
    x.ravel()[:2] = [np.nan, np.inf]
    projection = projection_of(values, len(shape))
    nearest, codes = numpy(projection.nearest(x)), numpy(projection.codes(x))
    np.testing.assert_array_equal(nearest, values.nearest(x))
    np.testing.assert_array_equal(codes, values.codes(x))
    np.testing.assert_array_equal(values.take(codes), nearest)
    rows = zip(np.moveaxis(x, values.axis, 0), np.moveaxis(nearest, values.axis, 0), strict=True)
    for listed, (row, projected) in zip(values.numbers, rows, strict=True):
        np.testing.assert_array_equal(projected, Values(listed).nearest(row))


def test_first_latents_lie_beside_the_midpoints_of_their_channel():
    numbers = numpy(LatentUnits(ROWS, 2).values_of(draw_latents(ROWS, (500, 3), seed=0)))
    for channel in range(3):
        channel_list = Values(ROWS.numbers[channel])
        distances = np.abs(numbers[:, channel, None] - channel_list.midpoints)
        assert np.all(distances.min(axis=1) <= 0.051 * np.diff(channel_list.ascending).max() / 2)
        assert set(channel_list.codes(numbers[:, channel])) == {0, 1, 2}


@pytest.mark.parametrize(
    "estimator",
    [
        *(estimators.StraightThrough(s) for s in ("identity", "clip", "tanh", "swish_sign")),
        estimators.contrib.ArgmaxStraightThrough(),
        estimators.Annealed(),
        estimators.contrib.BinaryRelax(),
    ],
    ids=str,
)
def test_every_estimator_takes_lists_per_channel(estimator, random):
    single = Values([-1, 0.2, 0.9])
    rows = Values([single.tolist()] * 3)
    x = random.normal(size=(40, 3)).astype("float32") * 1.5
    for training in (False, True):
        expected = estimator(x, single, training)
        np.testing.assert_allclose(numpy(estimator(x, rows, training)), numpy(expected), atol=1e-6)
    gradients = [
        testing.gradient_of(lambda x, v=values: estimator(x, v, True) * ops.sign(x), x)
        for values in (single, rows)
    ]
    np.testing.assert_allclose(gradients[1], gradients[0], atol=2e-5)


def test_lists_per_channel_train_save_and_load(random, tmp_path):
    model = keras.Sequential(
        [keras.Input((6, 6, 2)), Discrete(layers.Conv2D(3, 3), ROWS), layers.Flatten()]
    )
    parameter = model.layers[0].discrete_parameters[0]
    x = random.normal(size=(32, 6, 6, 2)).astype("float32")
    y = random.normal(size=(32, 48)).astype("float32")
    before = numpy(parameter.latent).copy()
    model.compile(keras.optimizers.Adam(0.1), "mse")
    model.fit(x, y, epochs=2, verbose=0)
    assert not np.array_equal(before, numpy(parameter.latent))
    for channel in range(3):
        assert np.isin(numpy(parameter.listed_values)[..., channel], ROWS.numbers[channel]).all()
    testing.assert_listed(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.layers[0].values == ROWS
    np.testing.assert_array_equal(model.predict(x, verbose=0), loaded.predict(x, verbose=0))


def test_a_weight_with_another_number_of_channels_is_refused():
    with pytest.raises(ValueError, match=r"lists for 3 channels.*weight has the shape \(8, 4\)"):
        layer_on(ROWS, units=4)
