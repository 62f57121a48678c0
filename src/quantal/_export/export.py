"""Models for other tools: one file a target."""

import dataclasses
import os
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

import keras

from quantal._export.arrays import write_csv, write_npz, write_verilog
from quantal._export.c import write_c
from quantal._export.fidelity import Figures, Report, compared, size_of, weights_of
from quantal._export.inputs import inputs_of
from quantal._export.litert import write_litert, write_litert_floats
from quantal._export.onnx import write_onnx, write_onnx_floats
from quantal._export.onnx_fast import write_onnx_fast
from quantal._export.openvino import write_openvino, write_openvino_floats
from quantal._export.plain import write_keras, write_state_dict
from quantal._models.inputs import random_inputs
from quantal._storage.atomic import move_file

Writer = Callable[[keras.Model, pathlib.Path], list[pathlib.Path]]


class Target(NamedTuple):
    """What writes a target.

    Attributes:
        ending: Of its files.
        write: Writes a model to a path and tells the files.
        bound: The largest difference of an output from Keras's that it may have, in
            units of the root mean square of the outputs; None where nothing runs it.
        floats: Writes the model with float weights, to compare with; None for none.
    """

    ending: str
    write: Writer
    bound: float | None = None
    floats: Writer | None = None


TARGETS = {
    "npz": Target(".npz", write_npz),
    "csv": Target(".csv", write_csv),
    "verilog": Target(".mem", write_verilog),
    "c": Target(".c", write_c, 1e-4),
    "keras": Target(".keras", write_keras),
    "torch": Target(".pt", write_state_dict),
    "onnx": Target(".onnx", write_onnx, 1e-5, write_onnx_floats),
    "onnx_fast": Target(".onnx", write_onnx_fast, 0.1, write_onnx_floats),
    "openvino": Target(".xml", write_openvino, 1e-5, write_openvino_floats),
    "litert": Target(".tflite", write_litert, 0.1, write_litert_floats),
}
"""The targets by name; the first of an ending is the one that the ending alone means."""


def export(
    model: keras.Model,
    path: str | os.PathLike[str],
    target: str | None = None,
    *,
    inputs: Any = None,
    check: bool = True,
) -> Report:
    """Write a model for another tool, run it there, and report how near it is.

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
    the root mean square of the outputs. A target with a bound is run in a process of
    its own where its runtime is installed, on one thread, beside the same model with
    float weights. Files take their place when all went well.

    Args:
        model: A built Keras model.
        path: The file; its folder exists.
        target: The target's name; None for what the ending says.
        inputs: What to run it with, as the model takes it; None draws 64 samples:
            standard normal numbers, and zeros and ones where integers are expected.
        check: Whether to run it.

    Returns:
        The `Report`: printed, a table.

    Raises:
        ImportError: What the target needs is not installed.
        ValueError: There is no such target or ending; or the target cannot hold the
            model, and the message names the nearest that can; or its outputs differ by
            more than its bound.

    >>> import keras, quantal, tempfile, pathlib
    >>> model = keras.Sequential([keras.Input((3,)), quantal.LearnableMultiplier()])
    >>> report = export(model, pathlib.Path(tempfile.mkdtemp()) / "signs.csv")
    >>> report.paths[0].read_text().splitlines()[0]
    'index,code,value'
    """
    place = pathlib.Path(path)
    name, chosen = _target(place, target)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{place.name}.") as folder:
        beside = pathlib.Path(folder)
        written = chosen.write(model, beside / place.name)
        if chosen.bound is None or not check:
            report = Report(name, written, weights_of(model), Figures(size_of(written)))
        else:
            floats = None
            if chosen.floats is not None:
                (beside / "floats").mkdir()
                floats = chosen.floats(model, beside / "floats" / place.name)
            if inputs is None:
                inputs = random_inputs(inputs_of(model), batch=64)
            report = compared(model, name, written, floats, inputs, chosen.bound)
        # What is opened first comes last.
        for file in reversed(written):
            move_file(file, place.parent / file.name)
    moved = [place.parent / file.name for file in written]
    return dataclasses.replace(report, paths=moved)


def _target(path: pathlib.Path, name: str | None) -> tuple[str, Target]:
    endings = [target.ending for target in TARGETS.values()]
    if name is None:
        if path.suffix not in endings:
            raise ValueError(
                f"The file {os.fspath(path)!r} ends in {path.suffix!r}. Expected one of "
                f"{', '.join(dict.fromkeys(endings))}, which says the target. Give the file one "
                "of these endings."
            )
        name = list(TARGETS)[endings.index(path.suffix)]
    if name not in TARGETS:
        raise ValueError(
            f"target is {name!r}. Expected one of {', '.join(TARGETS)}. Leave it out for what "
            "the ending says."
        )
    if path.suffix != TARGETS[name].ending:
        raise ValueError(
            f"The file {os.fspath(path)!r} ends in {path.suffix!r}. Expected "
            f"{TARGETS[name].ending!r} for the target {name!r}. Change one of them."
        )
    return name, TARGETS[name]
