"""A run on several devices ends with the weights that it has on one."""

import collections
import json
import os
import socket
import subprocess
import sys

import keras
import numpy as np
import pytest

import quantal
from conftest import gradient_to, numpy, on_one_backend
from quantal._core import processes, weight_computation
from quantal._core.tensors import distributed
from quantal.layers import _sharding
from repository import ROOT, SOURCE

on_jax = pytest.mark.skipif(keras.backend.backend() != "jax", reason="keras.distribution is JAX's")


@pytest.fixture
def devices():
    """A distribution whose layout map is given by patterns; one device has layouts, too."""

    def distribute(layouts):
        names = keras.distribution.list_devices("cpu")[:1]
        mesh = keras.distribution.DeviceMesh((1, 1), ["batch", "model"], names)
        layout_map = keras.distribution.LayoutMap(mesh)
        for pattern, axes in layouts.items():
            layout_map[pattern] = axes
        distribution = keras.distribution.ModelParallel(layout_map=layout_map)
        keras.distribution.set_distribution(distribution)

    yield distribute
    keras.distribution.set_distribution(None)


def layouts_of(model):
    return {v.path: v._layout.axes for v in model.variables if len(v.shape) == 2}


@on_jax
@pytest.mark.parametrize("name", ["kernel", "kernel_latent"])
def test_a_layout_map_knows_a_kernel_before_and_after_saving(devices, tmp_path, name):
    devices({f"dense/{name}": (None, "model")})
    layer = keras.layers.Dense(4, name="dense")
    listed = quantal.Discrete(layer, "ternary", estimator="settling", scale="learned")
    inputs = keras.Input((3,))
    model = keras.Model(inputs, listed(inputs))
    axes = layouts_of(model)
    assert axes["dense/kernel_latent"] == (None, "model")
    # The effective latent, what it was, and two traces lie where the latent lies.
    assert sum(each == (None, "model") for each in axes.values()) == 5
    quantal.save(model, tmp_path / "model.quantal")
    assert layouts_of(quantal.load(tmp_path / "model.quantal")) == axes


@on_one_backend
def test_files_keep_the_paths_of_all_variables(tmp_path):
    inner = quantal.Discrete(keras.layers.Dense(2), [1, -1], scale="learned")
    model = keras.Sequential([keras.Input((3,)), inner], name="outer")
    quantal.save(model, tmp_path / "model.quantal")
    loaded = quantal.load(tmp_path / "model.quantal")
    assert [v.path for v in loaded.variables] == [v.path for v in model.variables]


@on_one_backend
def test_a_gradient_is_the_mean_over_replicas_before_it_is_transformed(monkeypatch):
    layer = quantal.LearnableMultiplier([1, -1], estimator="element_wise_scaled")
    layer.build((None, 2))
    (parameter,) = quantal.parameters_of(layer)
    parameter.set_latents(np.array([0.7, -0.2], "float32"))

    def gradient(factor):
        return gradient_to(parameter.latent, lambda: factor * parameter.compute(training=True))

    whole = gradient(-3.0)
    # This replica has the gradient 1, and the mean over all is -3.
    monkeypatch.setattr(distributed, "_mean_over_replicas", lambda: lambda tensor: -3.0 * tensor)
    np.testing.assert_allclose(gradient(1.0), whole, rtol=1e-6)
    assert not np.allclose(whole, -3.0 * np.ones(2))  # It is no linear function of the gradient.


@on_one_backend
def test_a_random_estimator_passes_each_replicas_gradient_on(monkeypatch):
    layer = quantal.LearnableMultiplier([1, -1], estimator="gumbel_softmax", seed=0)
    layer.build((None, 2))
    (parameter,) = quantal.parameters_of(layer)
    calls = []
    monkeypatch.setattr(
        weight_computation, "with_mean_gradient", lambda tensor: calls.append(1) or tensor
    )
    parameter.compute(training=True)
    assert calls == []


@on_one_backend
def test_the_best_is_kept_by_what_process_0_sees(monkeypatch):
    entries, codes = {}, []
    losses = [[3.0, 1.0, 2.0], [1.0, 2.0, 3.0]]
    for index in (0, 1):
        group = processes.Group(index, 2, entries.__setitem__, entries.__getitem__)
        monkeypatch.setattr(processes, "_group", lambda group=group: group)
        monkeypatch.setattr(processes, "_calls", collections.Counter())
        model = keras.Sequential([keras.Input((2,)), quantal.LearnableMultiplier([1, 2, 3])])
        model.compile(loss="mse")
        keep = quantal.callbacks.KeepBest("loss")
        keep.set_model(model)
        keep.on_train_begin()
        for epoch, loss in enumerate(losses[index]):
            model.layers[0].set_codes([epoch, epoch])
            keep.on_epoch_end(epoch, {"loss": loss})
        keep.on_train_end()
        codes.append(numpy(model.layers[0].codes).tolist())
        assert (keep.best, keep.best_epoch) == (1.0, 1)
    assert codes == [[1, 1], [1, 1]]


@on_one_backend
def test_processes_that_polish_together_write_no_checkpoint(monkeypatch, tmp_path):
    group = processes.Group(0, 2, {}.__setitem__, {}.__getitem__)
    monkeypatch.setattr(processes, "_group", lambda: group)
    model = keras.Sequential([keras.Input((2,)), quantal.LearnableMultiplier([1, 2])])
    model.compile(loss="mse")
    with pytest.raises(ValueError, match=r"2 processes polish together\. Expected file=None"):
        quantal.polish(model, np.ones((4, 2)), np.ones((4, 2)), file=tmp_path / "polish", verbose=0)


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


@pytest.mark.slow
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


TOGETHER = """
import sys

import jax
import keras
import numpy as np
from jax.experimental import multihost_utils

import quantal

kind, index, address, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
jax.config.update("jax_cpu_collectives_implementation", "gloo")
keras.distribution.initialize(address, 2, index)
if kind == "data":
    distribution = keras.distribution.DataParallel(auto_shard_dataset=False)
else:
    names = keras.distribution.list_devices()
    mesh = keras.distribution.DeviceMesh((1, 2), ["batch", "model"], names)
    layout_map = keras.distribution.LayoutMap(mesh)
    layout_map[".*/hidden/kernel"] = (None, "model")
    distribution = keras.distribution.ModelParallel(layout_map=layout_map, auto_shard_dataset=False)
keras.distribution.set_distribution(distribution)
keras.utils.set_random_seed(0)
random = np.random.default_rng(0)
x = random.normal(size=(64, 6)).astype("f4")
y = np.abs(x[:, :2]).sum(1, keepdims=True)
part, batch = (slice(index, None, 2), 8) if kind == "data" else (slice(None), 16)
dense = keras.layers.Dense(8, name="hidden")
model = keras.Sequential(
    [
        keras.Input((6,)),
        quantal.Discrete(dense, "ternary", estimator="settling", scale="learned"),
        keras.layers.BatchNormalization(),
        keras.layers.Dense(1),
    ]
)
model.compile(keras.optimizers.Adam(0.01), "mse")
callbacks = [quantal.callbacks.KeepBest("loss"), quantal.callbacks.Finish()]
callbacks.append(quantal.callbacks.FreezeOscillating(0.1, 0.01))
model.fit(x[part], y[part], batch, 4, verbose=0, callbacks=callbacks)
(parameter,) = quantal.parameters_of(model)
latent = parameter.latent.value
assert latent.is_fully_replicated == (kind == "data")
kernel, codes = np.asarray(model.layers[0].kernel), np.asarray(model.layers[0].codes)
quantal.testing.assert_listed(model)
budget = quantal.Budget(evaluations=100)
report = quantal.polish(model, x, y, budget, verbose=0)
assert report.loss <= report.loss_before
quantal.save(model, f"{folder}/{kind}.quantal")
quantal.export(model, f"{folder}/{kind}.npz")
path = f"{folder}/{kind} {index}.npz"
outputs = np.asarray(quantal.bake(model)(x))
statistics = model.layers[1].moving_mean.numpy()
numbers = {"codes": parameter.codes, "outputs": outputs, "statistics": statistics}

# A vector that Finish polishes by the data of all processes.
multiplier = quantal.LearnableMultiplier([1, -1, 0.5, -0.5])
model = keras.Sequential([keras.Input((6,)), multiplier, keras.layers.Dense(1)])
model.compile(keras.optimizers.SGD(0.05), "mse")
total = x @ np.float32([[1], [-0.5], [0.5], [1], [-1], [-1]])
finish = quantal.callbacks.Finish(polish=quantal.Budget(evaluations=500))
model.fit(x[part], total[part], batch, 4, shuffle=False, verbose=0, callbacks=[finish])
assert finish.kept == "polished", finish.kept
numbers["vector"] = multiplier.codes

# A list that the codes of the whole kernel move.
values = quantal.Values([-1.0, -0.25, 0.25, 1.0], learnable=True)
listed = quantal.Discrete(keras.layers.Dense(8, name="hidden"), values)
model = keras.Sequential([keras.Input((6,)), listed, keras.layers.Dense(1)], name="outer")
model.compile(keras.optimizers.Adam(0.01), "mse")
model.fit(x[part], y[part], batch, 4, verbose=0, callbacks=[quantal.callbacks.RefreshLists(4)])
(parameter,) = quantal.parameters_of(model)
assert parameter.latent.value.is_fully_replicated == (kind == "data")
codes = np.asarray(parameter.codes)
latents = multihost_utils.process_allgather(parameter.latent.value, tiled=True)
parameter.refresh_values()  # Once more, by hand.
for code, entry in enumerate(parameter.values.numbers):
    if (codes == code).any():
        np.testing.assert_allclose(entry, latents[codes == code].mean(), rtol=1e-5)
numbers |= {"list": parameter.values.numbers, "list codes": parameter.codes}
numbers["list kernel"] = np.asarray(listed.kernel)
np.savez(path, **numbers)
"""


def environment_of(devices=1):
    flags = f"--xla_force_host_platform_device_count={devices}"
    paths = os.pathsep.join([str(SOURCE.parent), os.environ.get("PYTHONPATH", "")])
    backend = keras.backend.backend()
    return {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": paths, "KERAS_BACKEND": backend}


def run_two(program, kind, folder):
    """Run a program in two processes, which get a kind, their number, an address and a folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    commands = [
        [sys.executable, "-c", program, kind, str(index), address, str(folder)] for index in (0, 1)
    ]
    running = [subprocess.Popen(command, env=environment_of()) for command in commands]
    assert [process.wait(500) for process in running] == [0, 0]


@pytest.mark.slow
@on_jax
@pytest.mark.parametrize("kind", ["data", "model"])
def test_two_processes_train_save_and_one_goes_on(tmp_path, kind):
    run_two(TOGETHER, kind, tmp_path)
    one, other = (np.load(tmp_path / f"{kind} {index}.npz") for index in (0, 1))
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])
    model = quantal.load(tmp_path / f"{kind}.quantal")
    assert numpy(model.layers[0].codes).tolist() == one["codes"].tolist()
    x = np.random.default_rng(0).normal(size=(64, 6)).astype("f4")
    np.testing.assert_allclose(numpy(model(x)), one["outputs"], rtol=1e-5, atol=1e-5)
    model.compile("adam", "mse")
    before = model.evaluate(x, x[:, :1], verbose=0)
    model.fit(x, x[:, :1], epochs=2, verbose=0)
    assert model.evaluate(x, x[:, :1], verbose=0) < before


REPLICAS = """
import sys

import keras
import numpy as np
import torch

import quantal

kind, index, address, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
torch.set_num_threads(1)
torch.distributed.init_process_group(
    "gloo", init_method=f"tcp://{address}", rank=index, world_size=2
)
keras.utils.set_random_seed(0)
dense = keras.layers.Dense(8, "relu", name="dense")
listed = quantal.Discrete(dense, "ternary", estimator="element_wise_scaled")
model = keras.Sequential([keras.Input((6,)), listed, keras.layers.Dense(1)])
x = np.random.default_rng(0).normal(size=(32, 6)).astype("f4")
x, y = torch.from_numpy(x), torch.from_numpy(x[:, :2]).abs().sum(1, keepdim=True)


def train(module, rows, steps):
    optimizer = torch.optim.Adam(module.parameters(), 0.01)
    for _ in range(steps):
        loss = ((module(x[rows], training=True) - y[rows]) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [np.asarray(v.value.detach()) for v in model.trainable_variables]


if kind == "compiled":
    starts = [v.numpy() for v in model.variables]
    alone = train(model, slice(None), 20)
    for variable, start in zip(model.variables, starts, strict=True):
        variable.assign(start)
    replica = torch.compile(torch.nn.parallel.DistributedDataParallel(model))
    together = train(replica, slice(16 * index, 16 * index + 16), 20)
    for one, two in zip(alone, together, strict=True):
        np.testing.assert_allclose(two, one, rtol=0, atol=2e-6)
else:
    from torch.distributed import fsdp

    device = torch.device("cpu")
    if kind == "fully_shard":
        mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (2,))
        module = fsdp.fully_shard(model, mesh=mesh)
    else:
        module = fsdp.FullyShardedDataParallel(model, device_id=device)
    try:
        train(module, slice(None), 1)
    except RuntimeError as error:
        assert "'sequential/dense/kernel_latent'" in str(error), error
        assert "DistributedDataParallel" in str(error), error
    else:
        raise AssertionError("It trained nothing, and said nothing.")
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "torch", reason="modules are PyTorch's")
@pytest.mark.parametrize("kind", ["compiled", "fully_shard", "FullyShardedDataParallel"])
def test_two_processes_of_torch_train_alike_or_say_that_they_cannot(tmp_path, kind):
    run_two(REPLICAS, kind, tmp_path)


@on_one_backend
def test_a_model_with_other_tensors_than_its_variables_is_refused(monkeypatch):
    import torch

    inner = quantal.Discrete(keras.layers.Dense(2, name="dense"), [1, -1])
    model = keras.Sequential([keras.Input((3,)), inner, quantal.LearnableMultiplier([1, -1])])
    x = np.ones((1, 3), "float32")
    monkeypatch.setattr(_sharding, "may_be_sharded", lambda: True)
    model(x, training=True)
    for parameter in quantal.parameters_of(model):
        path = parameter.latent.path
        model.torch_params[path] = torch.nn.Parameter(torch.zeros(parameter.shape))
        model(x)
        with pytest.raises(RuntimeError, match=f"'{path}' of the model '{model.name}' is another"):
            model(x, training=True)
        model.torch_params[path] = parameter.latent.value


@pytest.mark.slow
def test_engines_end_where_one_device_does():
    """The largest difference is a rounding, or what a rounding becomes in some steps."""
    program = ROOT / "benchmarks" / "distribution.py"
    if not program.exists():
        pytest.skip("benchmarks are not beside the package")
    command = [sys.executable, str(program), "--backend", keras.backend.backend()]
    command += ["--steps", "30", "--json"]
    run = subprocess.run(
        command, env=environment_of(), capture_output=True, text=True, check=True, timeout=550
    )
    table = json.loads(run.stdout)
    assert table
    for engine in table.values():
        assert engine["replicas equal"]
        for codes, _, largest in engine["branches"].values():
            assert codes == 0
            assert largest < 1e-5
