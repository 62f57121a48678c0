"""Compare training on several devices and processes with training on one, to the last code.

One model has a branch for each estimator and scale; branches share nothing but their inputs. It is
trained on one device and on each engine, with the same seeds and batches, and all numbers are
compared at the end. `python benchmarks/distribution.py` prints the table of docs/distribution.md.
"""

import argparse
import json
import os
import pathlib
import platform
import socket
import subprocess
import sys
import tempfile

SAMPLES, FEATURES, UNITS, BATCH, SEED = 256, 12, 16, 32, 0
ESTIMATORS = (
    "straight_through",
    "settling",
    "annealed",
    "element_wise_scaled",
    "gumbel_softmax",
    "mean_field",
)
SCALES = (None, "learned", "least_squares")
MOST_SECONDS = 1800

# Backend, kind of distribution, processes, devices in each. The first of a backend is one device;
# with the samples of each batch reversed it shows what roundings alone do.
ENGINES = {
    "JAX, one device": ("jax", "none", 1, 1),
    "JAX, one device, reversed batches": ("jax", "reversed", 1, 1),
    "JAX, DataParallel, 8 devices": ("jax", "data", 1, 8),
    "JAX, ModelParallel, 8 devices": ("jax", "model", 1, 8),
    "JAX, DataParallel, 2 processes": ("jax", "data", 2, 1),
    "JAX, ModelParallel, 2 processes": ("jax", "model", 2, 1),
    "TensorFlow, one device": ("tensorflow", "none", 1, 1),
    "TensorFlow, one device, reversed batches": ("tensorflow", "reversed", 1, 1),
    "TensorFlow, MirroredStrategy, 2 devices": ("tensorflow", "data", 1, 2),
    "PyTorch, one process": ("torch", "none", 1, 1),
    "PyTorch, one process, reversed batches": ("torch", "reversed", 1, 1),
    "PyTorch, DistributedDataParallel, 2 processes": ("torch", "data", 2, 1),
}


def branch(estimator, scale):
    """The name of a branch of the model."""
    return f"{estimator}_{scale}"


def data(kind):
    import numpy as np

    random = np.random.default_rng(SEED)
    x = random.normal(size=(SAMPLES, FEATURES)).astype("float32")
    hidden = np.maximum(x @ random.choice([-1.0, 0.0, 1.0], (FEATURES, UNITS)), 0)
    y = (hidden @ random.normal(size=(UNITS, 1)) / UNITS).astype("float32")
    if kind == "reversed":
        order = np.arange(SAMPLES).reshape(-1, BATCH)[:, ::-1].ravel()
        x, y = x[order], y[order]
    return x, y


def network():
    """A model with a branch for each estimator and scale, and one for a vector."""
    import keras

    import quantal

    keras.utils.set_random_seed(SEED)
    inputs = keras.Input((FEATURES,))
    outputs = {}
    for estimator in ESTIMATORS:
        for scale in SCALES:
            name = branch(estimator, scale)
            layer = keras.layers.Dense(UNITS, name=f"kernel_{name}")
            listed = quantal.Discrete(layer, "ternary", estimator=estimator, scale=scale, seed=SEED)
            hidden = keras.layers.ReLU()(listed(inputs))
            outputs[name] = keras.layers.Dense(1, name=name)(hidden)
    return keras.Model(inputs, outputs)


def train_with_fit(kind, index, processes, devices, steps):
    import contextlib

    import keras

    scope, batch = contextlib.nullcontext(), BATCH
    part = slice(None)
    if kind in ("none", "reversed"):
        pass
    elif keras.backend.backend() == "jax":
        distribute_jax(kind)
        if kind == "data":
            batch = BATCH // processes
            part = rows_of(index, processes)
    else:
        import tensorflow as tf

        cpu = tf.config.list_physical_devices("CPU")[0]
        logical = [tf.config.LogicalDeviceConfiguration()] * devices
        tf.config.set_logical_device_configuration(cpu, logical)
        scope = tf.distribute.MirroredStrategy(
            [f"CPU:{i}" for i in range(devices)],
            cross_device_ops=tf.distribute.ReductionToOneDevice(),
        ).scope()
    with scope:
        model = network()
        model.compile(keras.optimizers.Adam(0.01), "mse")
    x, y = data(kind)
    y = dict.fromkeys(model.output_names, y[part])
    epochs = -(-steps * BATCH // SAMPLES)
    options = {"steps_per_epoch": steps} if epochs == 1 else {}
    model.fit(x[part], y, batch, epochs, shuffle=False, verbose=0, **options)
    return model


def rows_of(index, processes):
    """The rows of a process: its share of each batch."""
    import numpy as np

    rows = np.arange(SAMPLES).reshape(-1, processes, BATCH // processes)
    return rows[:, index].ravel()


def distribute_jax(kind):
    import keras

    devices = keras.distribution.list_devices()
    if kind == "data":
        distribution = keras.distribution.DataParallel(devices=devices, auto_shard_dataset=False)
    else:
        mesh = keras.distribution.DeviceMesh((1, len(devices)), ["batch", "model"], devices)
        layout = keras.distribution.LayoutMap(mesh)
        layout["kernel_.*/kernel"] = (None, "model")
        distribution = keras.distribution.ModelParallel(
            layout_map=layout, batch_dim_name="batch", auto_shard_dataset=False
        )
    keras.distribution.set_distribution(distribution)


def train_with_loop(kind, index, processes, steps):
    """Train with PyTorch's own loop, as Keras's guide on DistributedDataParallel does."""
    import torch

    model = network()
    replica = torch.nn.parallel.DistributedDataParallel(model) if processes > 1 else model
    trained = [v.value for v in model.trainable_variables]
    optimizer = torch.optim.Adam(trained, 0.01, eps=1e-7)
    x, y = (torch.from_numpy(array) for array in data(kind))
    for step in range(steps):
        first = step * BATCH % SAMPLES
        begin = first + index * BATCH // processes
        rows = slice(begin, begin + BATCH // processes)
        outputs = replica(x[rows], training=True)
        loss = sum(torch.mean((output - y[rows]) ** 2) for output in outputs.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def work(engine, index, address, steps, file):
    """Train in one process of an engine, and write its numbers into a file."""
    backend, kind, processes, devices = ENGINES[engine]
    if backend == "jax" and processes > 1:
        import jax
        import keras

        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        keras.distribution.initialize(address, processes, index)
    if backend == "torch":
        import torch

        torch.set_num_threads(1)
        if processes > 1:
            torch.distributed.init_process_group(
                "gloo", init_method=f"tcp://{address}", rank=index, world_size=processes
            )
        model = train_with_loop(kind, index, processes, steps)
    else:
        model = train_with_fit(kind, index, processes, devices, steps)
    write(model, kind, file)


def write(model, kind, file):
    import keras
    import numpy as np

    import quantal

    numbers = {}
    for parameter in quantal.parameters_of(model):
        name = parameter.path.split("/")[-2].removeprefix("kernel_")
        numbers[f"{name}|codes"] = np.asarray(parameter.codes)
        # What the optimizer moves for an estimator with steps of its own says by its moves alone.
        for variable in parameter.variables[1:]:
            numbers[f"{name}|{variable.name}"] = np.asarray(variable)
        numbers[f"{name}|latent"] = latent_of(parameter)
        layer = model.get_layer(name)
        numbers[f"{name}|bias"], numbers[f"{name}|kernel"] = map(
            keras.ops.convert_to_numpy, (layer.bias, layer.kernel)
        )
    if kind == "data" and keras.backend.backend() == "tensorflow":
        numbers["|replicas"] = np.array(replicas_differ(model))
    np.savez(file, **numbers)


def latent_of(parameter):
    """The effective latent on the host, gathered where several processes share it."""
    import keras
    import numpy as np

    latent = parameter.effective_latent
    if keras.backend.backend() == "jax":
        from jax.experimental import multihost_utils

        if not latent.is_fully_addressable:
            return np.asarray(multihost_utils.process_allgather(latent, tiled=True))
    return keras.ops.convert_to_numpy(latent)


def replicas_differ(model):
    """The largest difference between the copies that replicas have of one variable."""
    import numpy as np

    copies = [[part.numpy() for part in v.value.values] for v in model.variables]
    differences = [np.abs(a.astype("float64") - b).max() for a, b in copies if a.size]
    return max(differences)


def run(engine, steps, folder):
    """Run an engine's processes; return the numbers of each."""
    import numpy as np

    backend, _, processes, devices = ENGINES[engine]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = {
        **os.environ,
        "KERAS_BACKEND": backend,
        "JAX_PLATFORMS": "cpu",
        "CUDA_VISIBLE_DEVICES": "",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    files = [folder / f"{engine} {index}.npz" for index in range(processes)]
    commands = [
        [sys.executable, __file__, "--worker", engine, str(index), address, str(steps), str(file)]
        for index, file in enumerate(files)
    ]
    # What a library prints, such as Gloo's greeting, is not part of the table.
    running = [
        subprocess.Popen(command, env=environment, stdout=sys.stderr) for command in commands
    ]
    try:
        if any(process.wait(MOST_SECONDS) for process in running):
            raise RuntimeError(f"{engine} failed.")
    finally:
        for process in running:
            process.kill()
    return [dict(np.load(file)) for file in files]


def compared(numbers, reference):
    """For each branch: how many codes differ, of how many, and the largest other difference."""
    import numpy as np

    results = {}
    for key in reference:
        name_of_branch, name = key.split("|")
        if not name_of_branch:
            continue
        result = results.setdefault(name_of_branch, [0, 0, 0.0])
        if name == "codes":
            result[0] = int((numbers[key] != reference[key]).sum())
            result[1] = int(reference[key].size)
        else:
            result[2] = max(result[2], float(np.abs(numbers[key] - reference[key]).max()))
    return results


def equality(engines, steps):
    """The comparison of each engine with its backend on one device, and of its processes."""
    import numpy as np

    table, references = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for engine in engines:
            backend = ENGINES[engine][0]
            print(f"{engine} ...", file=sys.stderr, flush=True)
            numbers = run(engine, steps, pathlib.Path(folder))
            if ENGINES[engine][1] == "none":
                references[backend] = numbers[0]
                continue
            same = all(np.array_equal(n[k], numbers[0][k]) for n in numbers for k in numbers[0])
            same = same and float(numbers[0].get("|replicas", 0)) == 0
            table[engine] = {
                "replicas equal": same,
                "branches": compared(numbers[0], references[backend]),
            }
    return table


def markdown(table, steps):
    columns = list(table)
    lines = [
        f"Largest difference of any trained number to one device after {steps} steps of Adam, and "
        f"how many of {FEATURES * UNITS} codes differ; {platform.machine()}, "
        f"{os.cpu_count()} cores, seed {SEED}:",
        "",
        "| estimator | scale | " + " | ".join(columns) + " |",
        "|---" * (2 + len(columns)) + "|",
    ]
    for estimator in ESTIMATORS:
        for scale in SCALES:
            cells = []
            for engine in columns:
                codes, _, largest = table[engine]["branches"][branch(estimator, scale)]
                cells.append(f"{largest:.0e}, {codes}")
            lines.append(f"| {estimator} | {scale or 'none'} | " + " | ".join(cells) + " |")
    equal = ["yes" if table[engine]["replicas equal"] else "no" for engine in columns]
    lines.append("| replicas equal to the bit | | " + " | ".join(equal) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--backend", choices=["jax", "tensorflow", "torch"], action="append")
    parser.add_argument("--engine", action="append", help="the engines whose names contain this")
    parser.add_argument("--json", action="store_true", help="print numbers for a program")
    parser.add_argument("--worker", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        engine, index, address, steps, file = arguments.worker
        work(engine, int(index), address, int(steps), file)
        return
    engines = [
        engine
        for engine, (backend, kind, *_) in ENGINES.items()
        if backend in (arguments.backend or [backend])
        and (kind == "none" or any(part in engine for part in arguments.engine or [""]))
    ]
    table = equality(engines, arguments.steps)
    print(json.dumps(table) if arguments.json else markdown(table, arguments.steps))


if __name__ == "__main__":
    main()
