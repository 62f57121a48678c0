"""Write a model for another tool."""

import dataclasses
import os
import pathlib
from typing import Any

import keras

from quantal._core.processes import written_once
from quantal._export.fidelity import Reference, compare
from quantal._export.finite import check_numbers
from quantal._export.integer.model import IntegerModel
from quantal._export.registry import TARGETS, target_name
from quantal._export.report import Figures, Report, number_of_weights, size_of
from quantal._storage.atomic import check_path, folder_beside, move_files

_OF_INTEGERS = ("c_integer", "verilog_module", "verilog_clocked")
"""The targets that take an IntegerModel, too."""


def export(
    model: keras.Model | IntegerModel,
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
    | `verilog_module` | `.v` | a module that computes the model in integers | |
    | `verilog_clocked` | `.v` | the same with a clock, one layer after another | |
    | `c` | `.c` | C99 source and header that compute the model, weights as packed codes | 1e-4 |
    | `c_integer` | `.c` | C99 in integers alone: what `quantal.to_integer` computes | |
    | `keras` | `.keras` | a plain Keras model without quantal's layers | |
    | `torch` | `.pt` | a PyTorch state_dict of that model, on the PyTorch backend | |
    | `onnx` | `.onnx` | standard operators, packed weights, the same floats to the bit | 1e-5 |
    | `onnx_fast` | `.onnx` | for onnxruntime: products on 2, 4 or 8 bits | 0.1 |
    | `qonnx` | `.onnx` | QONNX's integers and quantizers, for FINN | 0.1 |
    | `openvino` | `.xml` | weights of 2 or 4 bits, in the file and in memory | 1e-5 |
    | `litert` | `.tflite` | weights of 2, 4 or 8 bits, on the TensorFlow backend | 0.1 |
    | `litert_int8` | `.tflite` | integers for TFLite Micro, on the TensorFlow backend | 0.5 |

    The bound is that of the largest difference of an output from Keras's, in units of
    the root mean square of the outputs. A target without a bound is not run, but for `c_integer`,
    which is compared to the bit with its reference. Files are
    moved into place when all went well. Those of a target that writes several are of one
    export even where the program is killed within the moves; some may be missing then.

    Args:
        model: A built Keras model; or an `IntegerModel`, for the target `c_integer`.
        path: The file; its folder exists.
        target: The target's name; None for the one that the ending says.
        inputs: Arrays to run it with, in the structure that the model takes. 1, 7, 8 and 64
            samples are run together; fewer are repeated. None draws samples in the range that
            the model's first layers tell: pixels before Rescaling(1 / 255), numbers that
            an Embedding knows, else standard normal numbers.
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
    if isinstance(model, IntegerModel):
        target = _target_of_integers(target)
    name = target_name(path, target)
    check_path(path)
    if isinstance(model, keras.Model):
        check_numbers(model)
    with folder_beside(path) as temporary:
        report = _written(model, temporary, path.name, name, inputs, check)
        # The file that is opened first is moved last. The .bin of another .xml would be read
        # without a word.
        moves = {file: path.parent / file.name for file in reversed(report.paths)}
        written_once(path, lambda: move_files(moves, never_mixed=True))
    return dataclasses.replace(report, paths=[path.parent / file.name for file in report.paths])


def _target_of_integers(target: str | None) -> str:
    """Return the target of an integer model, or refuse another one."""
    if target not in (None, *_OF_INTEGERS):
        raise ValueError(
            f"target is {target!r} for an IntegerModel. Expected one of {', '.join(_OF_INTEGERS)}, "
            "which hold its arithmetic. Give the Keras model for other targets."
        )
    return target or "c_integer"


def _written(
    model: keras.Model | IntegerModel,
    folder: pathlib.Path,
    file: str,
    name: str,
    inputs: Any,
    check: bool,
) -> Report:
    """Write a model's files into an empty folder, under a file's name, and check them."""
    target = TARGETS[name]
    packed, floats, safe = (folder / kind for kind in ("packed", "floats", "safe"))
    for part in (packed, floats, safe):
        part.mkdir()
    samples = (inputs,) if target.takes_samples else ()
    written = target.write(model, packed / file, *samples)
    report = Report(
        name,
        written.paths,
        model.number_of_weights if isinstance(model, IntegerModel) else number_of_weights(model),
        Figures(size_of(written.paths)),
        bound=target.bound if check else None,
    )
    if check and written.verify is not None:
        return written.verify(report, inputs)
    if target.bound is None or not check or isinstance(model, IntegerModel):
        return report
    reference = Reference(model, inputs)
    try:
        report = compare(reference, report, written, target, floats)
        if written.finish is None or report.largest is None:
            return report
        return written.finish(report, None if inputs is None else reference.samples)
    except ValueError:
        if written.write_safely is None:
            raise
    paths = written.write_safely(safe / file)
    report = dataclasses.replace(report, paths=paths)
    report = compare(reference, report, written._replace(paths=paths), target, floats)
    return dataclasses.replace(
        report,
        remark=f"{target.runtime} computes packed integers wrongly here: they are floats in memory"
        + (f"; {report.remark}" if report.remark else ""),
    )
