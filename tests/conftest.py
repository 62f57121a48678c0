import os

import hypothesis
import numpy as np
import pytest

# One backend a process: KERAS_BACKEND chooses it, before anything imports Keras.
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras

hypothesis.settings.register_profile("quantal", deadline=None, max_examples=60, derandomize=True)
hypothesis.settings.load_profile("quantal")


on_one_backend = pytest.mark.skipif(
    keras.config.backend() != "torch",
    reason="what it tests is the same on every backend; PyTorch compiles nothing",
)


@pytest.fixture(autouse=True)
def _fresh():
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy("float32")
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture
def random():
    return np.random.default_rng(0)


def numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)


def gradient_to(variable, function, compile=False):
    """The gradient of the sum of what a function of layers gives, to one of their variables."""
    from quantal import testing

    def of(number):
        with keras.StatelessScope([(variable, number)]):
            return function()

    return testing.gradient_of(of, numpy(variable), compile)
