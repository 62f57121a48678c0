"""How fast, exact and small are packed products in quantal.runtime, beside those of others?

    python benchmarks/runtime.py layer               one layer: NumPy, onnxruntime, OpenVINO
    python benchmarks/runtime.py layer --size 4096 --rounds 40
    python benchmarks/runtime.py threads             all cores against one
    FASHION_MNIST=<folder> KERAS_BACKEND=jax python benchmarks/runtime.py network

All but `threads` run in one process on one core, in turn and in shuffled order. Each prints a
Markdown table of medians over the rounds with their quartiles, and the fastest rounds, on the clock
and by the processor's time. The ratio is to NumPy's float32 product (OpenBLAS) of the same round;
where other programs share the machine, that of the fastest rounds by the processor's time is the
better one. An error is the largest one, in units of the root mean square of the exact outputs.
Memory is what a process of its own has more after loading and one call.

The lists lie on grids, so that the others have integers for them: -1 and 1; -2 to 1; -8 to 7; -128
to 127.
"""

import argparse
import ctypes
import gc
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time

for name in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{name}_NUM_THREADS", "1")

import numpy as np  # noqa: E402

from quantal.runtime import load  # noqa: E402
from quantal.runtime._machine import Machine  # noqa: E402
from quantal.runtime._machine_code import lanes  # noqa: E402
from quantal.runtime._stored import Stored  # noqa: E402

LISTS = {1: [-1, 1], 2: range(-2, 2), 4: range(-8, 8), 8: range(-128, 128)}
BATCHES = (1, 8, 32)
SEED = 0
BLOCK = 128
"""Weights of a block of onnxruntime's integer product."""


def layer_of(bits, size):
    """Codes (inputs, outputs) and the list."""
    codes = np.random.default_rng(SEED).integers(0, 1 << bits, (size, size)).astype(np.uint8)
    return codes, np.array(LISTS[bits], np.float32)


# --- Runtimes: each returns a function of samples ---


def numpy_floats(bits, size):
    codes, values = layer_of(bits, size)
    weights = values[codes]
    return lambda x: x @ weights


def packed(vectors):
    """quantal.runtime on vectors of so many lanes; 0 is NumPy."""

    def build(bits, size):
        codes, values = layer_of(bits, size)
        weight = Stored("kernel", codes.shape, None, codes, values)
        return Machine(1, vectors).matrix(weight)[0].product

    return build


def onnx_session(graph):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "layer.onnx"
        path.write_bytes(graph.SerializeToString())
        providers = ["CPUExecutionProvider"]
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    return lambda x: session.run(None, {"x": x})[0]


def onnx_graph(size, node, weights):
    from onnx import TensorProto, helper, numpy_helper

    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", size]) for n in "xy"]
    graph = helper.make_graph([node], "layer", ends[:1], ends[1:], tensors)
    domains = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=domains, ir_version=10)


def onnx_floats(bits, size):
    from onnx import helper

    codes, values = layer_of(bits, size)
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    return onnx_session(onnx_graph(size, node, {"w": values[codes]}))


def onnx_integers(bits, size):
    """Its product of integers, with inputs rounded to 8 bits: it has no fast exact one."""
    from onnx import helper

    codes, values = layer_of(bits, size)
    width = max(bits, 2)  # Of one bit it has none.
    integers = (values[codes].T + (1 << width - 1)).astype(np.uint8)
    parts = integers.reshape(size, size // BLOCK, BLOCK * width // 8, 8 // width)
    shifts = np.arange(8 // width, dtype=np.uint8) * width
    bytes_ = np.bitwise_or.reduce(parts << shifts, axis=-1).astype(np.uint8)
    node = helper.make_node(
        "MatMulNBits", ["x", "w", "scale"], ["y"], domain="com.microsoft",
        K=size, N=size, bits=width, block_size=BLOCK, accuracy_level=4,
    )  # fmt: skip
    scale = np.ones(size * size // BLOCK, np.float32)
    return onnx_session(onnx_graph(size, node, {"w": bytes_, "scale": scale}))


def openvino_request(weights_of):
    import openvino as ov
    from openvino import opset13 as ops

    def build(bits, size):
        x = ops.parameter([-1, size], np.float32, name="x")
        weights, alive = weights_of(ov, ops, bits, size)
        # Outputs first, as OpenVINO's own compression writes them.
        model = ov.Model([ops.matmul(x, weights, False, True)], [x])
        model.set_rt_info("0", ["runtime_options", "DYNAMIC_QUANTIZATION_GROUP_SIZE"])
        options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1,
                   "PERFORMANCE_HINT": "LATENCY"}  # fmt: skip
        request = ov.Core().compile_model(model, "CPU", options).create_infer_request()

        def run(x):
            return request.infer({0: x}, share_inputs=True)[0]

        run.alive = alive
        return run

    return build


def openvino_floats(ov, ops, bits, size):
    codes, values = layer_of(bits, size)
    return ops.constant(np.ascontiguousarray(values[codes].T)), None


def openvino_integers(ov, ops, bits, size):
    codes, values = layer_of(bits, size)
    width = max(bits, 2)
    zero = 1 << width - 1
    integers = (values[codes].T + zero).astype(np.uint8).reshape(-1, 8 // width)
    shifts = np.arange(8 // width, dtype=np.uint8) * width
    packed_bytes = np.bitwise_or.reduce(integers << shifts, axis=-1).astype(np.uint8)
    tensor = ov.Tensor(packed_bytes, ov.Shape([size, size]), getattr(ov.Type, f"u{width}"))
    node = ops.convert(ov.op.Constant(tensor), "f32")
    node = ops.subtract(node, ops.constant(np.float32(zero)))
    return ops.multiply(node, ops.constant(np.ones((size, 1), np.float32))), packed_bytes


RUNTIMES = {
    "NumPy, float32": numpy_floats,
    "quantal.runtime": packed(None),
    "quantal.runtime, AVX2": packed(8),
    "quantal.runtime, NumPy": packed(0),
    "onnxruntime, float32": onnx_floats,
    "onnxruntime, integers, inputs of 8 bits": onnx_integers,
    "OpenVINO, float32": lambda *a: openvino_request(openvino_floats)(*a),
    "OpenVINO, integers": lambda *a: openvino_request(openvino_integers)(*a),
}


def resident():
    """The bytes of memory that this process has; what was freed goes back to the system first."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def print_memory(runtime, bits, size):
    """Print what the process has more with one layer than with one of 128 x 128."""
    small = RUNTIMES[runtime](bits, BLOCK)
    small(np.ones((1, BLOCK), np.float32))
    before = resident()
    layer = RUNTIMES[runtime](bits, size)
    layer(np.ones((1, size), np.float32))
    print(json.dumps(resident() - before))


def memory_of(runtime, bits, size):
    command = [sys.executable, __file__, "memory", runtime, str(bits), str(size)]
    done = subprocess.run(command, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else None


def rounds_of(functions, x, rounds):
    """Seconds on the clock and of the processor, (rounds, 2), of each function by name."""
    seconds = {name: [] for name in functions}
    names = list(functions)
    for function in functions.values():
        function(x)
    shuffled = random.Random(SEED)
    for _ in range(rounds):
        shuffled.shuffle(names)
        for name in names:
            start = time.perf_counter(), time.process_time()
            functions[name](x)
            end = time.perf_counter(), time.process_time()
            seconds[name].append(np.subtract(end, start))
    return {name: np.array(values) for name, values in seconds.items()}


def cells(base, seconds):
    """Milliseconds, and how many times as fast as the base of the same round, and at best."""
    low, middle, high = np.quantile(base[:, 0] / seconds[:, 0], [0.25, 0.5, 0.75])
    clock, processor_time = 1e3 * seconds.min(axis=0)
    best = base.min(axis=0) / seconds.min(axis=0)
    return (
        f"{1e3 * np.median(seconds[:, 0]):.2f} ({clock:.2f}, {processor_time:.2f})",
        f"{middle:.2f} [{low:.2f}, {high:.2f}] ({best[0]:.2f}, {best[1]:.2f})",
    )


TIMES = "ms: median (fastest, by the processor's time)"
RATIOS = "times as fast: median [quartiles] (fastest, by the processor's time)"


def print_row(*row):
    print(f"| {' | '.join(map(str, row))} |", flush=True)


def print_head(*title):
    print_row(*title)
    print(f"|{'---|' * len(title)}")


def processor():
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), "")


def layers(sizes, rounds, selected):
    print(f"{processor()}, {lanes()} lanes, one core; {rounds} rounds, seed {SEED}\n")
    print_head("size", "bits", "batch", "runtime", TIMES, RATIOS, "error", "MB")  # fmt: skip
    for size in sizes:
        for bits in LISTS:
            functions = {}
            for name, build in RUNTIMES.items():
                if name != "NumPy, float32" and selected and not name.startswith(selected):
                    continue
                try:
                    functions[name] = build(bits, size)
                except ImportError as error:
                    print(f"{name}: {error}", file=sys.stderr)
            memory = {name: memory_of(name, bits, size) for name in functions}
            for batch in BATCHES:
                report(functions, memory, (size, bits, batch), rounds)


def report(functions, memory, case, rounds):
    size, bits, batch = case
    codes, values = layer_of(bits, size)
    x = np.random.default_rng(1).normal(size=(batch, size)).astype(np.float32)
    exact = x.astype(np.float64) @ values[codes].astype(np.float64)
    # A copy: OpenVINO gives its own memory, which its next call overwrites.
    errors = {
        name: np.abs(np.array(function(x)) - exact).max() / np.sqrt((exact**2).mean())
        for name, function in functions.items()
    }
    seconds = rounds_of(functions, x, rounds)
    base = seconds["NumPy, float32"]
    for name in functions:
        megabytes = "" if memory[name] is None else f"{memory[name] / 2**20:.1f}"
        print_row(size, bits, batch, name, *cells(base, seconds[name]), f"{errors[name]:.0e}",
                  megabytes)  # fmt: skip


def threads(size, rounds):
    """Print how many times as fast several threads are as one, by bits and samples."""
    count = len(os.sched_getaffinity(0))
    print(f"{processor()}, {lanes()} lanes, {count} cores; {size} x {size}, {rounds} rounds\n")
    print_head("bits", "batch", "one thread, ms: median (fastest)", f"{count} threads, ms",
               "times as fast: median (fastest)")  # fmt: skip
    for bits in LISTS:
        codes, values = layer_of(bits, size)
        weight = Stored("kernel", codes.shape, None, codes, values)
        functions = {n: Machine(n).matrix(weight)[0].product for n in (1, count)}
        for batch in BATCHES:
            x = np.random.default_rng(1).normal(size=(batch, size)).astype(np.float32)
            one, several = (s[:, 0] for s in rounds_of(functions, x, rounds).values())
            times = [f"{1e3 * np.median(s):.2f} ({1e3 * s.min():.2f})" for s in (one, several)]
            ratio = f"{np.median(one / several):.2f} ({one.min() / several.min():.2f})"
            print_row(bits, batch, *times, ratio)


def networks(rounds, folder):
    import keras
    from fashion_mnist import network
    from peers.protocol import load as load_images

    import quantal

    images = load_images(folder, "t10k")[0][:1000] if folder else None
    print(f"Keras on {keras.config.backend()}, one core; {rounds} rounds\n")
    print_head("network", "list", "batch", "what", TIMES, RATIOS, "difference", "MB")  # fmt: skip
    for kind in ("mlp", "convnet"):
        for name, values in {"binary": "binary", "16 values": np.linspace(-1, 1, 16)}.items():
            model = network(kind, values)
            with tempfile.TemporaryDirectory() as folder_of_file:
                path = pathlib.Path(folder_of_file) / "model.quantal"
                quantal.save(model, path)
                run = load(path, threads=1)
            shape = (1000, *run.input_shape)
            x = np.random.default_rng(0).uniform(size=shape) if images is None else images
            x = np.asarray(x, np.float32).reshape(shape)
            floats = 4 * model.count_params() / 2**20
            for batch in (1, 32, 1000):
                part = x[:batch]
                functions = {
                    "Keras, predict": lambda x, model=model: model.predict(
                        x, batch_size=256, verbose=0
                    ),
                    "Keras, predict_on_batch": lambda x, model=model: model.predict_on_batch(x),
                    "quantal.runtime": run.predict,
                }
                results = {what: function(part) for what, function in functions.items()}
                seconds = rounds_of(functions, part, rounds)
                base = seconds["Keras, predict"]
                for what in functions:
                    expected = results["Keras, predict"]
                    size_of_outputs = np.sqrt((expected.astype(np.float64) ** 2).mean())
                    difference = np.abs(results[what] - expected).max() / size_of_outputs
                    size = run.nbytes / 2**20 if "quantal" in what else floats
                    print_row(kind, name, batch, what, *cells(base, seconds[what]),
                              f"{difference:.0e}", f"{size:.3f}")  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["layer", "network", "threads", "memory"])
    parser.add_argument("rest", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, action="append", help="1024 and 4096 without it")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--only", default="", help="runtimes whose names begin so, beside NumPy")
    options = parser.parse_args()
    if options.what != "threads" and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    if options.what == "memory":
        runtime, bits, size = options.rest
        print_memory(runtime, int(bits), int(size))
    elif options.what == "threads":
        threads((options.size or [8192])[0], options.rounds)
    elif options.what == "layer":
        layers(options.size or [1024, 4096], options.rounds, options.only)
    else:
        networks(options.rounds, os.environ.get("FASHION_MNIST"))


if __name__ == "__main__":
    main()
