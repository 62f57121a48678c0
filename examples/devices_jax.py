"""A network with ternary weights is trained on several devices, or in two processes, by JAX.

`python examples/devices_jax.py` uses all devices of this process, on a processor four that JAX
makes of it. `python examples/devices_jax.py 2` starts two processes on this machine, as several
machines would run it: each trains on its share of every batch.
"""

import os
import subprocess
import sys

os.environ["KERAS_BACKEND"] = "jax"
PORT = "12321"


def train(index=0, processes=1):
    """Train in one process; all of them run the same program."""
    import jax
    import keras
    import numpy as np

    import quantal

    if processes > 1:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        keras.distribution.initialize(f"127.0.0.1:{PORT}", processes, index)
    # Before the model is made. Each process gives its own part of the data.
    distribution = keras.distribution.DataParallel(auto_shard_dataset=False)
    keras.distribution.set_distribution(distribution)
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((16,)),
            quantal.Discrete(keras.layers.Dense(32, "relu"), "ternary", scale="learned"),
            keras.layers.Dense(1),
        ]
    )
    model.compile(keras.optimizers.Adam(0.01), "mse")
    random = np.random.default_rng(0)
    x = random.normal(size=(512, 16)).astype("float32")
    y = np.abs(x[:, :4]).sum(1, keepdims=True)
    part = slice(index, None, processes)
    history = model.fit(x[part], y[part], 64 // processes, 20, verbose=0)
    # In all processes: the first one writes, the others wait.
    size = quantal.save(model, os.path.join(os.environ.get("FOLDER", "."), "jax.quantal"))
    if index == 0:
        loss = history.history["loss"][-1]
        print(f"{len(jax.devices())} devices, {processes} processes: loss {loss:.4f}, {size} bytes")


def start(processes):
    """Start the processes, which several machines would do themselves, and wait for them."""
    command = [sys.executable, __file__, str(processes)]
    running = [subprocess.Popen([*command, str(index)]) for index in range(processes)]
    sys.exit(max(process.wait() for process in running))


if __name__ == "__main__":
    arguments = [int(argument) for argument in sys.argv[1:]]
    if len(arguments) == 1:
        start(*arguments)
    if not arguments:
        os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=4")
    train(*reversed(arguments))
