"""Packed matrices multiply as float ones do, and files run where Keras is not."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest

from quantal._storage import container
from quantal._storage.codes import Packed
from quantal._storage.packing import unpack
from quantal.runtime import Network, _machine_code, _threads, load
from quantal.runtime._machine import Machine
from quantal.runtime._matrices import (
    DecodedMatrix,
    FloatMatrix,
    PackedMatrix,
    PackedRows,
    code_bits,
)
from quantal.runtime._stored import Stored
from quantal.runtime._threads import Threads
from quantal.runtime.loading import network_of

pytestmark = pytest.mark.without_keras

GOLDEN = sorted((pathlib.Path(__file__).parent / "golden").glob("*.quantal"))
LANES = [lanes for lanes in (8, 16) if lanes <= _machine_code.lanes()]
ROUNDINGS = 2e-6
"""Largest error in units of the sum of magnitudes: some ten roundings of float32."""


def random_matrix(count, inputs=77, outputs=83, seed=0):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, count, (inputs, outputs)).astype(np.uint16)
    return codes, rng.normal(size=count).astype(np.float32)


def error_of(product, samples, weights):
    exact = samples.astype(np.float64) @ weights.astype(np.float64)
    magnitudes = np.abs(samples).astype(np.float64) @ np.abs(weights)
    return np.max(np.abs(product - exact) / np.maximum(magnitudes, 1e-30))


@pytest.fixture(params=[0, *LANES])
def lanes(request):
    return request.param


def matrix_on(lanes, codes, values, threads=1):
    if lanes and len(values) <= 256:
        return PackedMatrix(codes, values, lanes, Threads(threads))
    return DecodedMatrix(codes, values[None])


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 16, 17, 300])
def test_products_are_exact_to_roundings(count, lanes):
    for inputs, outputs in [(1, 1), (31, 7), (32, 64), (77, 83), (1100, 200)]:
        codes, values = random_matrix(count, inputs, outputs)
        matrix = matrix_on(lanes, codes, values)
        assert (matrix.inputs, matrix.outputs) == (inputs, outputs)
        for batch in (1, 13, 19):
            samples = np.random.default_rng(1).normal(size=(batch, inputs)).astype(np.float32)
            product = matrix.product(samples)
            assert product.dtype == np.float32
            assert error_of(product, samples, values[codes]) < ROUNDINGS


def test_one_large_input_spoils_no_other_output(lanes):
    """Fixed point would: an input of 10^6 whose weight is 0 leaves the rest exact."""
    values = np.array([-1, 0, 1], np.float32)
    codes, _ = random_matrix(3)
    codes[5, ::2] = 1
    samples = np.random.default_rng(1).normal(size=(1, 77)).astype(np.float32)
    samples[0, 5] = 1e6
    product = matrix_on(lanes, codes, values).product(samples)
    assert error_of(product, samples, values[codes]) < ROUNDINGS


def test_numbers_that_are_not_finite_stay_so(lanes):
    codes, values = random_matrix(4)
    samples = np.ones((2, 77), np.float32)
    samples[0, 3], samples[1, 4] = np.nan, np.inf
    with np.errstate(invalid="ignore"):
        product = matrix_on(lanes, codes, values).product(samples)
        np.testing.assert_array_equal(np.isfinite(product), np.isfinite(samples @ values[codes]))
        np.testing.assert_array_equal(product[1] > 0, values[codes[4]] > 0)


@pytest.mark.parametrize(("count", "bits"), [(2, 1), (3, 2), (16, 4), (17, 8), (257, 16)])
def test_memory_is_that_of_packed_codes(count, bits, lanes):
    codes, values = random_matrix(count, 480, 512)
    matrix = matrix_on(lanes, codes, values)
    # Of 32 bits AVX2 uses 30 where three codes look up one vector.
    spare = 32 / 30 if (bits, lanes) == (1, 8) else 1
    tables = 8 * 1024 + 4 * count + 8 * 256
    assert codes.size * bits / 8 <= matrix.nbytes <= spare * codes.size * bits / 8 + tables
    assert code_bits(count) == bits


def test_threads_give_the_same(lanes, monkeypatch):
    monkeypatch.setattr(_threads, "_LEAST_WORK", 1)
    codes, values = random_matrix(4, 70, 700)
    samples = np.random.default_rng(1).normal(size=(2, 70)).astype(np.float32)
    expected = matrix_on(lanes, codes, values).product(samples)
    for threads in (2, 5):
        product = matrix_on(lanes, codes, values, threads).product(samples)
        np.testing.assert_array_equal(product, expected)


def test_parts_of_threads_cover_a_range_once(monkeypatch):
    monkeypatch.setattr(_threads, "_LEAST_WORK", 10)
    for length, work, expected in [(7, 1000, 3), (2, 1000, 2), (7, 19, 1)]:
        parts = []

        def add(*bounds, parts=parts):
            parts.append(bounds)

        Threads(3).each_part(length, work, add)
        assert len(parts) == expected
        assert sorted(n for part in parts for n in range(*part)) == list(range(length))
    with pytest.raises(ZeroDivisionError):
        Threads(3).each_part(3, 100, lambda start, _: 1 // (start - 2))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system forks no processes")
def test_a_forked_process_has_threads(monkeypatch):
    monkeypatch.setattr(_threads, "_LEAST_WORK", 1)
    threads = Threads(2)
    threads.each_part(2, 2, lambda *_: None)
    process = os.fork()
    if not process:
        threads.each_part(2, 2, lambda *_: None)
        os._exit(7)
    assert os.waitstatus_to_exitcode(waited_for(process)) == 7


def waited_for(process):
    """The status of a process, which is killed if it does not end."""
    for _ in range(1000):
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return status
        time.sleep(0.01)
    os.kill(process, signal.SIGKILL)
    return os.waitpid(process, 0)[1]


def test_rows_have_lists_of_their_own():
    rng = np.random.default_rng(0)
    for count in (3, 20, 300):
        codes = rng.integers(0, count, (9, 21)).astype(np.uint16)
        lists = rng.normal(size=(9, count)).astype(np.float32)
        rows = PackedRows(codes, lists)
        expected = np.take_along_axis(lists, codes.astype(int), axis=1)
        np.testing.assert_array_equal(rows.decoded(slice(2, 8)), expected[2:8])
        np.testing.assert_array_equal(rows.decoded(np.array([8, 0, 8])), expected[[8, 0, 8]])
        matrix = DecodedMatrix(codes.T, lists)
        samples = rng.normal(size=(4, 21)).astype(np.float32)
        assert error_of(matrix.product(samples), samples, expected.T) < ROUNDINGS


def test_a_scale_for_each_input_makes_floats():
    codes, values = random_matrix(3, 4, 5)
    scale = np.arange(1, 5, dtype=np.float32)[:, None]
    weight = Stored("kernel", (4, 5), None, codes, values, scale)
    matrix, factor = Machine(1).matrix(weight)
    assert isinstance(matrix, FloatMatrix)
    product = matrix.product(np.eye(4, dtype=np.float32)) * factor
    np.testing.assert_array_equal(product, values[codes] * scale)


# --- Files ---


def weights_of(path):
    """The weights of a golden file: the list of values for each element, times the scale."""
    arrays, metadata = container.read(path)
    for entry in metadata["weights"]:
        name = entry["name"]
        if "base" not in entry:
            yield arrays[name]
            continue
        count = int(np.prod(entry["shape"]))
        coded = entry["packing"] == "coded"
        packed = Packed(arrays[f"{name}.codes"].tobytes(), entry["base"], count, coded)
        codes, values = unpack(packed).reshape(entry["shape"]), arrays[f"{name}.values"]
        if "axis" in entry:
            listed = np.stack([values[c, codes[:, c]] for c in range(len(values))], axis=1)
        else:
            listed = values[codes]
        yield listed * arrays.get(f"{name}.scale", np.float32(1))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_golden_files_run(path, lanes):
    multiplier, kernel, bias = weights_of(path)
    network = network_of(path, *container.read(path), Machine(1, lanes))
    samples = np.random.default_rng(0).normal(size=(5, 700)).astype(np.float32)
    product = network(samples) - bias
    assert error_of(product, samples, multiplier[:, None] * kernel) < ROUNDINGS
    np.testing.assert_allclose(network.predict(samples, batch_size=2), network(samples), atol=1e-4)
    assert (network.input_shape, network.output_shape) == ((700,), (3,))
    assert network.engine in ("NumPy", "LLVM, AVX2", "LLVM, AVX-512")
    assert network.engine in repr(network)
    assert f"{network.nbytes:,} bytes" in repr(network)


WITHOUT_KERAS = """
import sys
class Blocked:
    def find_spec(self, name, *_):
        if name.split(".")[0] in ("keras", "tensorflow", "jax", "torch"):
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Blocked())
import numpy, quantal
network = quantal.runtime.load(sys.argv[1])
print(network(numpy.ones((1, 700))).shape)
"""


def test_it_runs_where_keras_cannot_be_imported(tmp_path):
    command = [sys.executable, "-c", WITHOUT_KERAS, str(GOLDEN[0])]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "(1, 3)\n", done.stderr


def test_without_llvmlite_numpy_multiplies(monkeypatch):
    monkeypatch.setitem(sys.modules, "llvmlite", None)
    _machine_code.lanes.cache_clear()
    assert load(GOLDEN[0]).engine == "NumPy"
    monkeypatch.undo()
    _machine_code.lanes.cache_clear()
    assert _machine_code.lanes() in (0, 8, 16)


def test_damaged_files_are_refused_by_name(tmp_path):
    data = bytearray(GOLDEN[-1].read_bytes())
    data[-3] ^= 1
    path = tmp_path / "damaged.quantal"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"damaged.quantal: the tensor '.*its digest differs"):
        load(path)


def contents(path=GOLDEN[-1]):
    arrays, metadata = container.read(path)
    config = json.loads(zlib.decompress(arrays["architecture"].tobytes()))
    return dict(arrays), metadata, config


def network_with(arrays, metadata, config):
    text = zlib.compress(json.dumps(config).encode())
    arrays = {**arrays, "architecture": np.frombuffer(text, np.uint8)}
    return network_of("m.quantal", arrays, metadata, Machine(1, 0))


def other_layer(config, **changes):
    config["config"]["layers"][1].update(changes)


def of_dense(config, **changes):
    config["config"]["layers"][2]["config"]["layer"]["config"].update(changes)


def with_node(config, nodes):
    config["class_name"] = "Functional"
    layers = config["config"]["layers"]
    for layer in layers:
        layer["name"], layer["inbound_nodes"] = layer["config"]["name"], nodes
    config["config"]["input_layers"] = ["input", 0, 0]
    config["config"]["output_layers"] = ["discrete", 0, 0]


REFUSED = {
    "a class": (lambda c: other_layer(c, class_name="LSTM"), "'multiplier' is of the class LSTM"),
    "a class of the user's": (
        lambda c: other_layer(c, module="mine", registered_name=None),
        "of the class mine.LearnableMultiplier",
    ),
    "a registered class": (
        lambda c: other_layer(c, registered_name="my>Dense"), "of the class my>Dense"
    ),
    "an activation": (lambda c: of_dense(c, activation="gelu"), "with the activation 'gelu'"),
    "float64": (lambda c: of_dense(c, dtype="float64"), "that computes in float64"),
    "LoRA": (lambda c: of_dense(c, lora_rank=2), "with LoRA"),
    "an open shape": (
        lambda c: c["config"]["layers"][0]["config"].update(batch_shape=[None, None]),
        r"with the open input shape \(None, None\)",
    ),
    "branches": (lambda c: with_node(c, [{}, {}]), "'golden_words' with branches: 'input'"),
    "a model of another class": (lambda c: c.update(class_name="Mine"), "of the class Mine"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_other_models_are_refused_by_name(name):
    arrays, metadata, config = contents()
    network_with(arrays, metadata, config)
    change, message = REFUSED[name]
    change(config)
    with pytest.raises(ValueError, match=rf"^m\.quantal: .*{message}.*quantal\.export"):
        network_with(arrays, metadata, config)


DAMAGED = {
    "no layers": (lambda a, m, c: c["config"].pop("layers"), "the architecture is not readable"),
    "no bias": (lambda a, m, c: m["weights"].pop(), "None where the layer 'dense' has 'bias'"),
    "another order": (lambda a, m, c: m["weights"].reverse(), "bias' where the layer 'multiplier'"),
    "one too many": (
        lambda a, m, c: m["weights"].append(m["weights"][-1]), "/bias' is of no layer"
    ),
    "another format": (lambda a, m, c: m.update(format=9), "the format .*version 9"),
    "a short list": (
        lambda a, m, c: a.update({n: a[n][:1] for n in a if n.endswith("dense/kernel.values")}),
        r"dense/kernel' is not readable: .*a list of the shape \(1,\)",
    ),
    "no scale": (
        lambda a, m, c: a.update({n: 0 * a[n] for n in a if n.endswith("dense/kernel.scale")}),
        "dense/kernel' is not readable: .*a scale that is not positive",
    ),
    "another scale": (
        lambda a, m, c: a.update({n: np.ones(2) for n in a if n.endswith("dense/kernel.scale")}),
        "dense/kernel' is not readable: ",
    ),
    "a number missing": (
        lambda a, m, c: c["config"]["layers"][2]["config"]["layer"]["config"].pop("use_bias"),
        "the layer 'dense' is not readable: KeyError: 'use_bias'",
    ),
    "more units": (
        lambda a, m, c: a.update({n: a[n][:2] for n in a if n.endswith("bias")}),
        r"'dense' is of the class Dense with '.*bias' of shape \(2,\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_what_a_file_lacks_is_named(name):
    arrays, metadata, config = contents()
    change, message = DAMAGED[name]
    change(arrays, metadata, config)
    with pytest.raises(ValueError, match=message):
        network_with(arrays, metadata, config)


def test_bad_inputs_are_refused():
    network = load(GOLDEN[0], threads=1)
    assert isinstance(network, Network)
    with pytest.raises(ValueError, match=r"shape \(700,\). Expected \(samples, 700\).*x\[None\]"):
        network(np.ones(700))
    with pytest.raises(ValueError, match=r"shape \(2, 7\). Expected \(samples, 700\)\.$"):
        network.predict(np.ones((2, 7)))
    with pytest.raises(TypeError, match=r"dtype complex128. Expected real numbers"):
        network(np.ones((1, 700)) * 1j)
    with pytest.raises(ValueError, match=r"batch_size is 0. Expected at least 1"):
        network.predict(np.ones((1, 700)), batch_size=0)
    with pytest.raises(ValueError, match=r"threads is 0. Expected at least 1, or None"):
        load(GOLDEN[0], threads=0)
    assert network(np.ones((0, 700))).shape == (0, 3)
