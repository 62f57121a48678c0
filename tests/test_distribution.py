"""A run on several devices ends with the weights that it has on one."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from repository import SOURCE

pytestmark = pytest.mark.slow

PROGRAM = """
import contextlib
import sys

import keras
import numpy as np

import quantal

file, devices = sys.argv[1], int(sys.argv[2])
scope = contextlib.nullcontext
if devices > 1 and keras.backend.backend() == "jax":
    import jax

    assert len(jax.devices()) == devices
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=jax.devices()))
elif devices > 1:
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * devices
    )
    scope = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(devices)]).scope
keras.utils.set_random_seed(0)
random = np.random.default_rng(0)
x = random.normal(1, 2, (128, 6)).astype("f4")
y = random.normal(size=(128, 2)).astype("f4")  # Small steps: roundings do not grow.
total = x @ np.float32([[1], [-0.5], [0.5], [1], [-1], [-1]])


def network():
    synchronized = keras.backend.backend() == "tensorflow"
    return [
        quantal.Discrete(keras.layers.Dense(8, use_bias=False), "ternary", scale="learned"),
        keras.layers.BatchNormalization(synchronized=synchronized),
        keras.layers.ReLU(),
        keras.layers.Dense(2),
    ]


def vector():
    return [quantal.LearnableMultiplier([1, -1, 0.5, -0.5]), keras.layers.Dense(1)]


numbers = {}
for name, layers, target in (("network", network, y), ("vector", vector, total)):
    with scope():
        model = keras.Sequential([keras.Input((6,)), *layers()])
        model.compile(keras.optimizers.SGD(0.05), "mse")
    finish = quantal.callbacks.Finish(polish=quantal.Budget(evaluations=2000))
    model.fit(x, target, 16, 4, shuffle=False, verbose=0, callbacks=[finish])
    weights = model.trainable_weights
    if name == "vector":  # Signs of moves near zero are roundings: its latents may differ.
        weights = [quantal.parameters_of(model)[0].listed_values, *weights[1:]]
    weights = [keras.ops.convert_to_numpy(w).ravel() for w in weights]
    numbers[name] = np.concatenate(weights)
    numbers[name + " kept"] = finish.kept
np.savez(file, **numbers)
"""


def run(file, devices):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    paths = os.pathsep.join([str(SOURCE.parent), os.environ.get("PYTHONPATH", "")])
    environment = {
        **os.environ,
        "XLA_FLAGS": flags,
        "PYTHONPATH": paths,
        "KERAS_BACKEND": keras.backend.backend(),
    }
    subprocess.run(
        [sys.executable, "-c", PROGRAM, str(file), str(devices)], env=environment, check=True
    )
    return np.load(file)


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="Keras's fit has one device there")
def test_a_run_on_several_devices_ends_as_on_one(tmp_path):
    devices = 8 if keras.backend.backend() == "jax" else 2
    one, many = run(tmp_path / "one.npz", 1), run(tmp_path / "many.npz", devices)
    for numbers in (one, many):
        assert (str(numbers["network kept"]), str(numbers["vector kept"])) == (
            "averages",
            "polished",
        )
    for name in ("network", "vector"):
        np.testing.assert_allclose(many[name], one[name], rtol=1e-4, atol=1e-4)
