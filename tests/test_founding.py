"""The founding programs, as a user writes them, and that they learn."""

import subprocess
import sys
import textwrap

import keras
import pytest

recovery = pytest.importorskip("recovery", reason="benchmarks are not beside the tests")

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
        kernel = np.asarray(model.layers[1].listed_values)
        assert set(kernel.ravel()) <= {1, -1, 0.5, -0.5}, kernel
"""


@pytest.mark.parametrize("spelling", ["keras", "tensorflow.keras"])
def test_the_programs_as_written(spelling):
    if spelling == "tensorflow.keras" and keras.config.backend() != "tensorflow":
        pytest.skip("tensorflow.keras is Keras on the TensorFlow backend")
    program = textwrap.dedent(CHECK) + textwrap.dedent(PROGRAM.format(keras=spelling))
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("seed", range(2))
def test_a_hidden_vector_of_signs_is_found(seed):
    assert recovery.recover([1, -1], 64, seed, epochs=2) == 1


@pytest.mark.parametrize(
    "values", [[1, -1, 0.5, -0.5], [1, 0.7, 0, -0.1, -0.2]], ids=["four", "uneven"]
)
def test_a_hidden_vector_from_a_list_is_found(values):
    assert recovery.recover(values, 10, seed=0, epochs=6) == 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("case", recovery.LISTS)
def test_hidden_vectors_are_found_for_every_seed(case, seed):
    assert recovery.recover(*recovery.LISTS[case], seed) == 1
