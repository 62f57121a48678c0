import collections
import datetime
import os
import signal
import zlib

import hypothesis
import numpy as np
import pytest

# One backend a process: KERAS_BACKEND chooses it, before anything imports Keras. "none" is no
# backend: Keras cannot be imported, and files marked `without_keras` do not ask for it.
BACKEND = os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# Neither deadlines nor slow drawing: no test depends on the clock.
hypothesis.settings.register_profile(
    "quantal",
    deadline=None,
    max_examples=60,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("quantal")

# Shells let what they start in the background ignore Ctrl-C, which tests send.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


on_one_backend = pytest.mark.skipif(
    BACKEND != "torch",
    reason="what it tests is the same on every backend; PyTorch compiles nothing",
)

# Cases take turns: a run takes one of so many of them, another one on each backend and day. So
# three backends see all cases on a day, each backend sees all in three days, and
# scripts/test-nightly runs all on all. A test without cases runs always.
# With fewer cases a test does not rotate, unless it is marked `product`.
ROTATION = 3


def pytest_addoption(parser):
    parser.addoption(
        "--rotate",
        action="store_true",
        help=f"run one in {ROTATION} cases of tests with so many cases or more, and of "
        "tests marked `product`",
    )


def is_in_turn(name, backend, day):
    """Whether a case is run on a day, by its name and the number of the backend."""
    return (zlib.crc32(name.encode()) + backend + day) % ROTATION == 0


def in_turn_today(name):
    """Whether a case is run today on this backend."""
    day = datetime.datetime.now(datetime.UTC).date().toordinal()
    return is_in_turn(name, ["tensorflow", "jax", "torch"].index(BACKEND), day)


def pytest_collection_modifyitems(config, items):
    if not config.getoption("rotate") or BACKEND == "none":
        return
    cases = collections.Counter((item.path, item.originalname) for item in items)
    waiting = {
        item
        for item in items
        if item.get_closest_marker("product")
        or (hasattr(item, "callspec") and cases[item.path, item.originalname] >= ROTATION)
        if not in_turn_today(item.name)
    }
    config.hook.pytest_deselected(items=list(waiting))
    items[:] = [item for item in items if item not in waiting]


@pytest.fixture(autouse=True)
def _fresh():
    if BACKEND == "none":
        yield
        return
    import keras

    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy("float32")
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture
def random():
    return np.random.default_rng(0)


def numpy(tensor):
    import keras

    return keras.ops.convert_to_numpy(tensor)


def gradient_to(variable, function, compile=False):
    """The gradient of the sum of what a function of layers gives, to one of their variables."""
    import keras

    from quantal import testing

    def of(number):
        with keras.StatelessScope([(variable, number)]):
            return function()

    return testing.gradient_of(of, numpy(variable), compile)


@pytest.fixture
def numbers_from_numpy(monkeypatch):
    """Keras's first weights come from NumPy: JAX compiles its generator for every shape."""
    import keras

    def draw(kind, numbers):
        def call(self, shape, dtype=None, **kwargs):
            return keras.ops.convert_to_tensor(numbers(shape).astype("float32"))

        monkeypatch.setattr(kind, "__call__", call)

    draw(keras.initializers.GlorotUniform, lambda shape: np.random.normal(0, 0.3, shape))
    draw(keras.initializers.RandomUniform, lambda shape: np.random.uniform(0, 1, shape))
