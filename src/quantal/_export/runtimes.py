"""Run an exported file in a process of its own, which imports neither quantal nor Keras.

So the memory that the process takes is the runtime's. Call `python runtimes.py FILE INPUTS
OUTPUTS` with .npz files of inputs and outputs; it prints JSON: milliseconds a call, bytes of
memory.
"""

import importlib
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

CALLS = 15
"""The inputs are run this often; the time is the median."""

Call = Callable[[list[Any]], list[Any]]
"""A call turns input arrays into output arrays."""
Loaded = tuple[Call, list[Any]]
"""A loaded file is a call, and the shapes of its inputs as far as the runtime says them."""


def onnxruntime(path: str) -> Loaded:
    """Load an ONNX file in onnxruntime, on one thread."""
    import onnxruntime as ort

    ort.set_default_logger_severity(3)
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    shapes = [entry.shape for entry in session.get_inputs()]
    return lambda arrays: session.run(None, dict(zip(names, arrays, strict=True))), shapes


def openvino(path: str) -> Loaded:
    """Load OpenVINO's files on the CPU, on one thread."""
    import openvino as ov

    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = ov.Core().compile_model(path, "CPU", settings)
    shapes = [
        [n.get_length() if n.is_static else None for n in entry.partial_shape]
        for entry in compiled.inputs
    ]
    return lambda arrays: [np.array(out) for out in compiled(arrays).values()], shapes


def litert(path: str) -> Loaded:
    """Load a .tflite file in LiteRT, on one thread."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(path, num_threads=1)
    entries = sorted(interpreter.get_input_details(), key=lambda entry: str(entry["name"]))
    last: list[Any] = []

    def run(arrays: list[Any]) -> list[Any]:
        shapes = [array.shape for array in arrays]
        if shapes != last:
            for entry, array in zip(entries, arrays, strict=True):
                interpreter.resize_tensor_input(entry["index"], array.shape)
            interpreter.allocate_tensors()
            last[:] = shapes
        for entry, array in zip(entries, arrays, strict=True):
            interpreter.set_tensor(entry["index"], array)
        interpreter.invoke()
        return [interpreter.get_tensor(out["index"]) for out in interpreter.get_output_details()]

    return run, [[None] for _ in entries]


def shared_library(path: str) -> Loaded:
    """Load a library that has `quantal_predict(input, output)` and the size of its output."""
    import ctypes

    library = ctypes.CDLL(path)
    size = ctypes.c_int.in_dll(library, "quantal_output_size").value

    def run(arrays: list[Any]) -> list[Any]:
        samples = np.ascontiguousarray(arrays[0], np.float32)
        outputs = np.empty((len(samples), size), np.float32)
        for sample, out in zip(samples, outputs, strict=True):
            library.quantal_predict(
                ctypes.c_void_p(sample.ctypes.data), ctypes.c_void_p(out.ctypes.data)
            )
        return [outputs]

    return run, [[None]]


RUNTIMES = {
    ".onnx": ("onnxruntime", onnxruntime),
    ".xml": ("openvino", openvino),
    ".tflite": ("ai_edge_litert.interpreter", litert),
    ".so": ("ctypes", shared_library),
}
"""The module that a file needs and the function that loads it, by the file's ending."""


def memory() -> int | None:
    """Return the bytes of memory that this process holds; None where the system does not say."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None


def main(path: str, inputs: str, outputs: str) -> None:
    """Run a file on inputs, write the outputs, and print time and memory as JSON."""
    with np.load(inputs) as stored:
        arrays = [stored[name] for name in stored.files]
    module, load = RUNTIMES[os.path.splitext(path)[1]]
    try:
        # Before the memory is read: the runtime's own code is not the file's.
        importlib.import_module(module)
    except ImportError as error:
        print(json.dumps({"missing": str(error)}))
        return
    before = memory()
    run, shapes = load(path)
    one_by_one = any(shape and shape[0] == 1 for shape in shapes) and len(arrays[0]) > 1

    def run_all() -> list[Any]:
        if not one_by_one:
            return run(arrays)
        rows = [run([array[i : i + 1] for array in arrays]) for i in range(len(arrays[0]))]
        return [np.concatenate(parts) for parts in zip(*rows, strict=True)]

    results = run_all()
    after = memory()
    times = []
    for _ in range(CALLS):
        start = time.perf_counter()
        run_all()
        times.append(time.perf_counter() - start)
    np.savez(outputs, **{f"{i:03}": array for i, array in enumerate(results)})
    taken = None if before is None or after is None else after - before
    print(json.dumps({"milliseconds": 1e3 * statistics.median(times), "memory": taken}))


if __name__ == "__main__":
    main(*sys.argv[1:])
