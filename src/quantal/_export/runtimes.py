"""Run an exported file in a process of its own, which imports neither quantal nor Keras.

So the memory that the process takes is the runtime's. Call `python runtimes.py FILE INPUTS
OUTPUTS REQUEST`: .npz files of inputs and outputs, and a JSON of the loader, of the inputs' names
and of the batches that are run. It prints JSON: milliseconds a call, bytes of memory, precision.
"""

import importlib
import json
import os
import re
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

CALLS = 15
"""The inputs are run at most this often; the time is the median."""
_SECONDS = 2.0
"""No further call is timed after so many seconds, since large models take long."""
_MOST_CHARACTERS = 300
"""An error's first words say what is wrong; runtimes add where in their source it was raised."""

Arrays = list[Any]
Settings = dict[str, Any]


class Loaded(NamedTuple):
    """A loaded file can be called.

    Attributes:
        call: Turns input arrays, in the order of the request's names, into output arrays.
        takes_one: Whether a call takes one sample alone.
        precision: The precision that it computes in, where that is not float32; or empty.
    """

    call: Callable[[Arrays], Arrays]
    takes_one: bool = False
    precision: str = ""


class Runtime(NamedTuple):
    """A runtime loads files of one ending.

    Attributes:
        module: The module that it needs.
        load: Loads a file, from its path, the names of the inputs and settings.
        one_thread: The settings under which time and memory are measured.
        float32: The settings under which it computes in float32, where its defaults may not.
        instead: A module that will do where the first one is not installed; or empty.
    """

    module: str
    load: Callable[[str, list[str], Settings], Loaded]
    one_thread: Settings
    float32: Settings | None = None
    instead: str = ""


def onnxruntime(path: str, names: list[str], settings: Settings) -> Loaded:
    """Load an ONNX file in onnxruntime."""
    import onnxruntime as ort

    ort.set_default_logger_severity(3)
    options = ort.SessionOptions()
    for name, number in settings.items():
        setattr(options, name, number)
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    entries = session.get_inputs()
    names = _matched([entry.name for entry in entries], names)
    takes_one = any(entry.shape and entry.shape[0] == 1 for entry in entries)

    def call(arrays: Arrays) -> Arrays:
        return session.run(None, dict(zip(names, arrays, strict=True)))

    return Loaded(call, takes_one)


def openvino(path: str, names: list[str], settings: Settings) -> Loaded:
    """Load OpenVINO's files on the CPU."""
    import openvino as ov

    compiled = ov.Core().compile_model(path, "CPU", settings)
    names = _matched([entry.get_any_name() for entry in compiled.inputs], names)
    takes_one = any(
        len(entry.partial_shape) and entry.partial_shape[0] == 1 for entry in compiled.inputs
    )
    precision = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()

    def call(arrays: Arrays) -> Arrays:
        outputs = compiled(dict(zip(names, arrays, strict=True)))
        return [np.array(outputs[entry]) for entry in compiled.outputs]

    return Loaded(call, takes_one, "" if precision == "f32" else precision)


def litert(path: str, names: list[str], settings: Settings) -> Loaded:
    """Load a .tflite file in LiteRT."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(path, **settings)
    runner = interpreter.get_signature_runner()
    details = runner.get_input_details()
    inputs = [details[name] for name in _matched(list(details), names)]
    outputs = runner.get_output_details()
    last: list[Any] = []

    def call(arrays: Arrays) -> Arrays:
        shapes = [array.shape for array in arrays]
        if shapes != last:
            for entry, array in zip(inputs, arrays, strict=True):
                interpreter.resize_tensor_input(entry["index"], array.shape)
            interpreter.allocate_tensors()
            last[:] = shapes
        for entry, array in zip(inputs, arrays, strict=True):
            interpreter.set_tensor(entry["index"], array)
        interpreter.invoke()
        # A signature has its outputs in the order of names, in which 10 stands before 2.
        ordered = sorted(outputs, key=_with_numbers)
        return [interpreter.get_tensor(outputs[name]["index"]) for name in ordered]

    return Loaded(call)


def litert_int8(path: str, names: list[str], settings: Settings) -> Loaded:
    """Load a .tflite file of integers in LiteRT's reference kernels, floats in and out."""
    try:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType
    except ImportError:
        from tensorflow.lite.python.interpreter import Interpreter, OpResolverType

    reference = OpResolverType.BUILTIN_REF
    interpreter = Interpreter(path, experimental_op_resolver_type=reference, **settings)
    interpreter.allocate_tensors()
    runner = interpreter.get_signature_runner()
    inputs, outputs = runner.get_input_details(), runner.get_output_details()
    names = _matched(list(inputs), names)

    def call(arrays: Arrays) -> Arrays:
        for name, array in zip(names, arrays, strict=True):
            scale, zero = inputs[name]["quantization"]
            if scale:
                array = np.clip(np.round(array / scale) + zero, -128, 127).astype(np.int8)
            interpreter.set_tensor(inputs[name]["index"], array)
        interpreter.invoke()
        results = []
        for name in sorted(outputs, key=_with_numbers):
            scale, zero = outputs[name]["quantization"]
            result = interpreter.get_tensor(outputs[name]["index"])
            results.append(np.float32(scale) * (result.astype(np.float32) - zero))
        return results

    return Loaded(call, takes_one=True)


def shared_library(path: str, names: list[str], settings: Settings) -> Loaded:
    """Load a library that has `quantal_predict(inputs, outputs)` and the sizes of its outputs."""
    import ctypes

    library = ctypes.CDLL(path)
    count = ctypes.c_int.in_dll(library, "quantal_outputs").value
    sizes = list((ctypes.c_int * count).in_dll(library, "quantal_output_sizes"))

    def addresses(arrays: Arrays) -> Any:
        return (ctypes.c_void_p * len(arrays))(*(array.ctypes.data for array in arrays))

    def call(arrays: Arrays) -> Arrays:
        samples = [np.ascontiguousarray(array, np.float32) for array in arrays]
        outputs = [np.empty((len(samples[0]), size), np.float32) for size in sizes]
        for index in range(len(samples[0])):
            library.quantal_predict(
                addresses([array[index : index + 1] for array in samples]),
                addresses([array[index : index + 1] for array in outputs]),
            )
        return outputs

    return Loaded(call)


def qonnx(path: str, names: list[str], settings: Settings) -> Loaded:
    """Load a QONNX file in the executor of the package qonnx, for any number of samples."""
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx

    model = ModelWrapper(path)
    inputs = _matched([entry.name for entry in model.graph.input], names)
    outputs = [entry.name for entry in model.graph.output]
    # What is computed from weights alone has no axis of samples.
    of_samples = set(inputs)
    for node in model.graph.node:
        if of_samples.intersection(node.input):
            of_samples.update(node.output)
    graph = model.graph
    entries = [
        entry
        for entry in (*graph.input, *graph.value_info, *graph.output)
        if entry.name in of_samples
    ]
    resized = [tensor for tensor in graph.initializer if _is_shape_of_samples(graph, tensor)]
    shapes = {tensor.name: model.get_initializer(tensor.name) for tensor in resized}

    def call(arrays: Arrays) -> Arrays:
        samples = len(arrays[0])
        for entry in entries:
            entry.type.tensor_type.shape.dim[0].dim_value = samples
        for name, shape in shapes.items():
            model.set_initializer(name, np.array([samples, *shape[1:]], np.int64))
        results = execute_onnx(model, dict(zip(inputs, arrays, strict=True)))
        return [results[name] for name in outputs]

    return Loaded(call)


def _is_shape_of_samples(graph: Any, tensor: Any) -> bool:
    """Return whether a constant is the shape that a node gives to samples."""
    return any(node.op_type == "Reshape" and node.input[1] == tensor.name for node in graph.node)


_ONE_THREAD = {"INFERENCE_NUM_THREADS": 1}
RUNTIMES = {
    ".onnx": Runtime(
        "onnxruntime", onnxruntime, {"intra_op_num_threads": 1, "inter_op_num_threads": 1}
    ),
    ".xml": Runtime("openvino", openvino, _ONE_THREAD, {"INFERENCE_PRECISION_HINT": "f32"}),
    ".tflite": Runtime("ai_edge_litert.interpreter", litert, {"num_threads": 1}),
    ".so": Runtime("ctypes", shared_library, {}),
    "litert_int8": Runtime(
        "ai_edge_litert.interpreter", litert_int8, {"num_threads": 1}, instead="tensorflow"
    ),
    "qonnx": Runtime("qonnx.core.onnx_exec", qonnx, {}),
}
"""The runtimes by the ending of their files, or by a name where an ending is not enough."""


def _import(runtime: Runtime) -> None:
    """Import the module of a runtime, or the one that will do instead."""
    try:
        importlib.import_module(runtime.module)
    except ImportError:
        if not runtime.instead:
            raise
        importlib.import_module(runtime.instead)


def memory() -> int | None:
    """Return the bytes of memory that this process holds; None where the system does not say."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None


def _with_numbers(name: str) -> tuple[Any, ...]:
    """Return what sorts names, numbers in them by their size."""
    return tuple(
        (not part.isdigit(), int(part) if part.isdigit() else 0, part)
        for part in re.split(r"(\d+)", name)
    )


def _matched(entries: list[str], names: list[str]) -> list[str]:
    """Return a file's input names in the order of the model's, as they stand if none is known."""
    known = {entry.split(":")[0]: entry for entry in entries}
    matched = [known.get(name) for name in names]
    return entries if None in matched else [name for name in matched if name is not None]


def _outputs(loaded: Loaded, arrays: Arrays, batch: int) -> Arrays:
    """Return the outputs for so many of the samples."""
    arrays = [array[:batch] for array in arrays]
    if not loaded.takes_one or batch == 1:
        return loaded.call(arrays)
    rows = [loaded.call([array[i : i + 1] for array in arrays]) for i in range(batch)]
    return [np.concatenate(parts) for parts in zip(*rows, strict=True)]


def _median_of_times(loaded: Loaded, arrays: Arrays, batch: int) -> float:
    """Return the median time of a call with so many samples, in seconds."""
    times: list[float] = []
    while len(times) < CALLS and sum(times) < _SECONDS:
        start = time.perf_counter()
        _outputs(loaded, arrays, batch)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def run(runtime: Runtime, path: str, arrays: Arrays, request: dict[str, Any]) -> tuple[Any, Any]:
    """Run a file, and return its outputs by name, and what it took.

    The names of outputs are `default/BATCH/INDEX`, and `float32/BATCH/INDEX` where the
    runtime's defaults are another precision.
    """
    names, batches, timed = request["names"], request["batches"], request["timed"]
    before = memory()
    loaded = runtime.load(path, names, runtime.one_thread)
    _outputs(loaded, arrays, timed)
    after = memory()
    taken = None if before is None or after is None else after - before
    seconds = _median_of_times(loaded, arrays, timed)
    loaded = runtime.load(path, names, {})
    ways = {"default": loaded}
    if loaded.precision and runtime.float32 is not None:
        ways["float32"] = runtime.load(path, names, runtime.float32)
    outputs = {
        f"{way}/{batch}/{index:03}": array
        for way, file in ways.items()
        for batch in batches
        for index, array in enumerate(_outputs(file, arrays, batch))
    }
    return outputs, {
        "milliseconds": 1e3 * seconds, "memory": taken, "precision": loaded.precision,
    }  # fmt: skip


def main(path: str, inputs: str, outputs: str, request: str) -> None:
    """Run a file on inputs, write the outputs, and print time and memory as JSON."""
    with np.load(inputs) as stored:
        arrays = [stored[name] for name in stored.files]
    asked = json.loads(request)
    runtime = RUNTIMES[asked["loader"]]
    try:
        # Before the memory is read: the runtime's own code is not the file's.
        _import(runtime)
    except ImportError as error:
        print(json.dumps({"missing": str(error)}))
        return
    try:
        results, report = run(runtime, path, arrays, asked)
    except Exception as error:
        # In its own words: the traceback is of this script, which no user knows.
        print(json.dumps({"error": " ".join(str(error).split())[:_MOST_CHARACTERS]}))
        return
    np.savez(outputs, **results)
    print(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:])
