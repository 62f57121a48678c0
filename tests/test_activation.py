"""DiscreteActivation: what flows through a network is listed."""

import keras
import numpy as np
import pytest
from keras import ops

from conftest import numpy
from lists import NAMED
from quantal import DiscreteActivation, testing

METHODS = ["learned", "least_squares", "mean_absolute", "percentile"]
DTYPES = ["float32", "mixed_float16", "mixed_bfloat16", "float16", "bfloat16"]


def inputs_of(shape=(40, 6), size=3.0, seed=0):
    """Inputs within and beyond most lists, with zeros among them."""
    inputs = np.random.default_rng(seed).normal(size=shape).astype(np.float32) * size
    inputs[0] = 0.0
    return inputs


def expected(layer, inputs):
    """The layer's formula in NumPy, in float32."""
    scale = layer.scale_value()
    return scale * layer.values.nearest(inputs / scale)


# The nearest listed value, by equality, in every dtype, eager and compiled.


@pytest.mark.parametrize("name", ["tenths", "uneven", "nf4", "four"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("compile", [False, True], ids=["eager", "compiled"])
def test_outputs_are_the_nearest_listed_values(name, dtype, compile):
    layer = DiscreteActivation(NAMED[name], dtype=dtype)
    inputs = ops.cast(inputs_of(size=1.0), layer.compute_dtype)
    outputs = (testing.compiled(layer) if compile else layer)(inputs)
    assert keras.backend.standardize_dtype(outputs.dtype) == layer.compute_dtype
    nearest = ops.cast(layer.values.nearest(numpy(ops.cast(inputs, "float32"))), outputs.dtype)
    np.testing.assert_array_equal(numpy(outputs), numpy(nearest))


@pytest.mark.parametrize("axis", [None, -1, (1, 2)])
@pytest.mark.parametrize("method", METHODS)
def test_with_a_scale_they_are_its_multiples(method, axis):
    layer = DiscreteActivation("signed:4", scale=method, axis=axis)
    inputs = inputs_of((16, 3, 4))
    np.testing.assert_array_equal(numpy(layer(inputs)), layer.values.nearest(inputs))
    outputs = layer(inputs, training=True)
    shape = {None: (), -1: (1, 1, 4), (1, 2): (1, 3, 4)}[axis]
    assert layer.scale_value().shape == shape
    np.testing.assert_array_equal(numpy(outputs), expected(layer, inputs))
    np.testing.assert_array_equal(numpy(layer(inputs)), numpy(outputs))
