"""Write a model for another tool."""

import dataclasses
import os
import pathlib
import tempfile
from typing import Any

import keras

from quantal._export.fidelity import compare
from quantal._export.inputs import inputs_of
from quantal._export.registry import TARGETS, target_name
from quantal._export.report import Figures, Report, number_of_weights, size_of
from quantal._models.inputs import random_inputs
from quantal._storage.atomic import move_file

_SAMPLES = 64
"""A check without given inputs draws this many samples, enough to see a wrong layer."""


def export(
    model: keras.Model,
    path: str | os.PathLike[str],
    target: str | None = None,
    *,
    inputs: Any = None,
    check: bool = True,
) -> Report:
    """Write a model for another tool, then run the file and compare its outputs with Keras's.

    The check starts other programs: C is compiled with the system's compiler, and files
    are run in a process of their own by the runtime that they are for, where it is
    installed, on one thread, after it the same model with float weights. `check=False`
    writes the file alone.

    | target | ending | what is written | bound |
    |---|---|---|---|
    | `npz` | `.npz` | NumPy: codes, list and scale of every parameter | |
    | `csv` | `.csv` | one vector: index, code, value | |
    | `verilog` | `.mem` | codes for `$readmemh`, a file for each parameter | |
    | `c` | `.c` | C99 source and header that compute the model, weights as packed codes | 1e-4 |
    | `keras` | `.keras` | a plain Keras model without quantal's layers | |
    | `torch` | `.pt` | a PyTorch state_dict of that model, on the PyTorch backend | |
    | `onnx` | `.onnx` | standard operators, packed weights, the same floats to the bit | 1e-5 |
    | `onnx_fast` | `.onnx` | for onnxruntime: products on 2, 4 or 8 bits | 0.1 |
    | `openvino` | `.xml` | weights of 2 or 4 bits, in the file and in memory | 1e-5 |
    | `litert` | `.tflite` | weights of 2, 4 or 8 bits, on the TensorFlow backend | 0.1 |

    The bound is that of the largest difference of an output from Keras's, in units of
    the root mean square of the outputs. A target without a bound is not run. Files are
    moved into place when all went well.

    Args:
        model: A built Keras model.
        path: The file; its folder exists.
        target: The target's name; None for the one that the ending says.
        inputs: Arrays to run it with, in the structure that the model takes; None draws
            64 samples: standard normal numbers, and zeros and ones where integers are
            expected.
        check: Whether to run it.

    Returns:
        The `Report`, which prints as a table.

    Raises:
        ImportError: A package that the target needs is not installed.
        ValueError: There is no such target or ending; or the target cannot hold the
            model, and the message names the nearest that can; or its outputs differ by
            more than its bound.

    >>> import keras, quantal, tempfile, pathlib
    >>> model = keras.Sequential([keras.Input((3,)), quantal.LearnableMultiplier()])
    >>> report = export(model, pathlib.Path(tempfile.mkdtemp()) / "signs.csv")
    >>> report.paths[0].read_text().splitlines()[0]
    'index,code,value'
    """
    path = pathlib.Path(path)
    name = target_name(path, target)
    bound = TARGETS[name].bound if check else None
    # In the same folder, since files can be moved at once only within a file system.
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as temporary:
        packed, floats = pathlib.Path(temporary, "packed"), pathlib.Path(temporary, "floats")
        packed.mkdir()
        floats.mkdir()
        written = TARGETS[name].write(model, packed / path.name)
        figures = Figures(size_of(written.paths))
        report = Report(name, written.paths, number_of_weights(model), figures, bound=bound)
        if bound is not None:
            if inputs is None:
                inputs = random_inputs(inputs_of(model), _SAMPLES)
            report = compare(model, report, written, inputs, floats)
        # The file that is opened first is moved last.
        for file in reversed(written.paths):
            move_file(file, path.parent / file.name)
    return dataclasses.replace(report, paths=[path.parent / file.name for file in written.paths])
