"""Inputs are drawn in the structure, shapes and dtypes that a model says."""

import keras
import numpy as np
import pytest
from keras import layers

import quantal
from quantal._models.inputs import random_inputs, symbolic_inputs, zero_inputs
from quantal._models.typical_inputs import typical_inputs


def test_structure_shapes_and_dtypes():
    numbers, words = keras.Input((None, 3), name="b"), keras.Input((4,), dtype="int32", name="a")
    joined = layers.Dense(2)(keras.ops.cast(words, "float32"))
    model = keras.Model({"b": numbers, "a": words}, [layers.Dense(2)(numbers), joined])
    drawn = random_inputs(symbolic_inputs(model), batch=5, open_length=7)
    assert {name: (array.shape, array.dtype) for name, array in drawn.items()} == {
        "b": ((5, 7, 3), np.float32),
        "a": ((5, 4), np.int32),
    }
    assert set(np.unique(drawn["a"])) == {0, 1}
    again = random_inputs(symbolic_inputs(model), batch=5, open_length=7)
    np.testing.assert_array_equal(drawn["b"], again["b"])
    assert not zero_inputs(symbolic_inputs(model))["b"].any()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(dtype):
    model = keras.Sequential([keras.Input((3,), dtype=dtype), layers.Dense(1)])
    for drawn in (random_inputs(model.inputs[0], batch=2), zero_inputs(model.inputs[0])):
        assert str(drawn.dtype) == dtype
        model(drawn)


def test_a_batch_of_fixed_size_stays():
    model = keras.Sequential([keras.Input(batch_shape=(3, 2)), layers.Dense(1)])
    assert random_inputs(symbolic_inputs(model), batch=64).shape == (3, 2)


def test_layers_and_models_without_inputs():
    layer = layers.Dense(1)
    assert symbolic_inputs(layer) is None
    layer(keras.Input((6,)))
    assert symbolic_inputs(layer).shape == (None, 6)
    assert symbolic_inputs(keras.Sequential([layers.Dense(1)])) is None


def drawn(*stack, shape, dtype=None):
    return typical_inputs(keras.Sequential([keras.Input(shape, dtype=dtype), *stack]), batch=200)


def test_pixels_are_drawn_before_a_rescaling():
    for scale, offset in ((1 / 255, 0.0), (1 / 127.5, -1.0)):
        pixels = drawn(
            layers.ZeroPadding2D(),
            layers.Rescaling(scale, offset),
            layers.Conv2D(2, 3),
            shape=(5, 5, 3),
        )
        assert -1e-3 < pixels.min() < 5
        assert 250 < pixels.max() < 255.001
    features = drawn(layers.Rescaling([0.1, 10.0], [-1.0, 3.0]), shape=(2,))
    np.testing.assert_allclose(features.mean(axis=0), [10, -0.3], atol=2)


def test_statistics_say_what_is_drawn():
    statistics = layers.Normalization(mean=[100.0, 5.0], variance=[1.0, 900.0])
    for outer in (statistics, keras.Sequential([keras.Input((2,)), statistics])):
        numbers = drawn(layers.Reshape((2,)), outer, layers.Dense(3), shape=(2,))
        np.testing.assert_allclose(numbers.mean(axis=0), [100, 5], atol=8)
        np.testing.assert_allclose(numbers.std(axis=0), [1, 30], rtol=0.2)


@pytest.mark.parametrize("dtype", ["int32", "float32"])
def test_integers_are_drawn_before_what_knows_them(dtype):
    embedding = quantal.Discrete(layers.Embedding(50, 4), "ternary", "embeddings")
    inner = keras.Sequential([keras.Input((3,), dtype=dtype), embedding])
    for first in (embedding, layers.Embedding(50, 4), layers.CategoryEncoding(50), inner):
        numbers = drawn(first, layers.Flatten(), shape=(3,), dtype=dtype)
        assert numbers.dtype == dtype
        assert set(np.unique(numbers)) == set(range(50))


def test_images_are_drawn_as_patches_and_all_else_as_before():
    images = drawn(layers.Conv2D(2, 3), shape=(16, 16, 3))
    assert 0 <= images.min() < 0.1 < 0.9 < images.max() <= 1
    np.testing.assert_array_equal(images[:, ::2], images[:, 1::2])
    numbers, bits = keras.Input((3,)), keras.Input((4,), dtype="int32")
    model = keras.Model(
        [numbers, bits], [layers.Dense(2)(numbers), keras.ops.cast(bits, "float32")]
    )
    first, second = typical_inputs(model, batch=200)
    assert abs(first.mean()) < 0.2 < first.std()
    assert set(np.unique(second)) == {0, 1}
