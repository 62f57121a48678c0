"""The founding programs, as a user writes them, and that they learn."""

import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest

from conftest import numpy
from quantal import LearnableMultiplier

PROGRAM = """
    from {keras}.layers import Input, Dense
    from {keras}.models import Model
    from quantal import LearnableMultiplier

    inputs = Input(shape=(64,))
    model = Model(inputs, LearnableMultiplier()(inputs))
    check(model, 64, 64)

    inputs = Input(shape=(10,))
    x = LearnableMultiplier(values=[1, -1, 0.5, -0.5])(inputs)
    model = Model(inputs, Dense(1)(x))
    check(model, 10, 1)
"""
CHECK = """
    import numpy as np

    def check(model, features, outputs):
        model.compile("adam", "mse")
        x = np.random.default_rng(0).normal(size=(256, features))
        before = model.get_weights()
        model.fit(x, x[:, :outputs], verbose=0)
        assert any((a != b).any() for a, b in zip(before, model.get_weights()))
        kernel = np.asarray(model.layers[1].kernel)
        assert set(kernel.ravel()) <= {1, -1, 0.5, -0.5}, kernel
"""


@pytest.mark.parametrize("spelling", ["keras", "tensorflow.keras"])
def test_the_programs_as_written(spelling):
    if spelling == "tensorflow.keras" and keras.config.backend() != "tensorflow":
        pytest.skip("tensorflow.keras is Keras on the TensorFlow backend")
    program = textwrap.dedent(CHECK) + textwrap.dedent(PROGRAM.format(keras=spelling))
    subprocess.run([sys.executable, "-c", program], check=True)


def recover(values, size, seed, epochs):
    keras.utils.set_random_seed(seed)
    random = np.random.default_rng(seed)
    rows = random.standard_normal((4096, size), dtype=np.float32)
    codes = random.integers(len(values), size=size)
    inputs = keras.Input((size,))
    layer = LearnableMultiplier(values)
    model = keras.Model(inputs, layer(inputs))
    model.compile("adam", "mse")
    model.fit(rows, rows * np.asarray(values, np.float32)[codes], epochs=epochs, verbose=0)
    return numpy(layer.codes), codes


@pytest.mark.parametrize("seed", range(2))
def test_a_hidden_vector_of_signs_is_found(seed):
    np.testing.assert_array_equal(*recover([1, -1], 64, seed, epochs=3))


@pytest.mark.parametrize(
    "values", [[1, -1, 0.5, -0.5], [1, 0.7, 0, -0.1, -0.2]], ids=["four", "uneven"]
)
def test_a_hidden_vector_from_a_list_is_found(values):
    np.testing.assert_array_equal(*recover(values, 10, seed=0, epochs=30))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("size", [64, 4096])
@pytest.mark.parametrize(
    "values",
    [[1, -1, 0.5, -0.5], [-8, -4, -2, -1, 0, 1, 2, 4, 8], [1, 0.7, 0, -0.1, -0.2]],
    ids=["four", "nine powers", "uneven"],
)
def test_hidden_vectors_are_found_for_every_seed(values, size, seed):
    np.testing.assert_array_equal(*recover(values, size, seed, epochs=30))
