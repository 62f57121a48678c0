"""Inputs are drawn in the structure, shapes and dtypes that a model says."""

import keras
import numpy as np
from keras import layers

from quantal._models.inputs import random_inputs, symbolic_inputs, zero_inputs


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


def test_a_batch_of_fixed_size_stays():
    model = keras.Sequential([keras.Input(batch_shape=(3, 2)), layers.Dense(1)])
    assert random_inputs(symbolic_inputs(model), batch=64).shape == (3, 2)


def test_layers_and_models_without_inputs():
    layer = layers.Dense(1)
    assert symbolic_inputs(layer) is None
    layer(keras.Input((6,)))
    assert symbolic_inputs(layer).shape == (None, 6)
    assert symbolic_inputs(keras.Sequential([layers.Dense(1)])) is None
