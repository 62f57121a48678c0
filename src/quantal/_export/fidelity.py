"""Compare an exported file with the model: how near it comes, and what it takes."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from quantal._export.report import Figures, Report, size_of
from quantal._export.running import Run, run_file
from quantal._export.target import Paths, Written
from quantal._models.inputs import arrays_in_order


class Difference(NamedTuple):
    """The largest and the mean difference of outputs, in units of the outputs' spread.

    The spread is the root mean square of all numbers of an output.
    """

    largest: float
    mean: float


def difference(model: keras.Model, inputs: Any, outputs: Sequence[NDArray[Any]]) -> Difference:
    """Return the difference of outputs to those of the model.

    Args:
        model: The model.
        inputs: Arrays in the structure that the model takes.
        outputs: What the exported model computes from them, in the model's order.

    Raises:
        RuntimeError: The number of outputs is another than the model's.
    """
    expected = [
        ops.convert_to_numpy(output).astype(np.float64)
        for output in keras.tree.flatten(model(inputs, training=False))
    ]
    if len(expected) != len(outputs):
        raise RuntimeError(f"{len(outputs)} outputs came, {len(expected)} were expected")
    largest, means = 0.0, []
    for output, other in zip(outputs, expected, strict=True):
        deltas = np.abs(output.astype(np.float64).reshape(other.shape) - other)
        spread = float(np.sqrt(np.mean(other**2))) or 1.0
        # In this order a NaN stays, and is then beyond every bound.
        largest = float(np.maximum(largest, deltas.max() / spread))
        means.append(deltas.mean() / spread)
    return Difference(largest, float(np.mean(means)))


def compare(
    model: keras.Model, report: Report, written: Written, inputs: Any, folder: pathlib.Path
) -> Report:
    """Run an export, and the same conversion with floats, and complete its report.

    Args:
        model: The model.
        report: The report, with the target's bound.
        written: The files of the target.
        inputs: Arrays in the structure that the model takes.
        folder: An empty folder for the files with floats.

    Raises:
        ValueError: The outputs differ by more than the target's bound.
    """
    bound, arrays = report.bound, arrays_in_order(model, inputs)
    run = run_file(written.paths[0], arrays)
    if run.missing or bound is None:
        return dataclasses.replace(report, bound=None, remark=f"not run: {run.missing}")
    largest, mean = difference(model, inputs, run.outputs)
    if not largest <= bound:
        raise ValueError(
            f"The outputs of {written.paths[0].name!r} differ from Keras's by {largest:.2g} of "
            f"their spread. Expected at most {bound:g} of the target {report.target!r}. Give "
            "inputs like those that the model is for; or export to '.onnx', which is nearest; or "
            "take the file as it is with check=False."
        )
    floats = None
    if written.write_floats is not None:
        paths = written.write_floats(folder / written.paths[0].name)
        floats = _figures(paths, run_file(paths[0], arrays))
    return dataclasses.replace(
        report, figures=_figures(written.paths, run), floats=floats, largest=largest, mean=mean
    )


def _figures(paths: Paths, run: Run) -> Figures:
    return Figures(size_of(paths), run.milliseconds, run.memory)
