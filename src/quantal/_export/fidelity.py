"""Compare an exported file with the model: how near it comes, and what it takes."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray

from quantal._core.keras_internals.layers import flatten_layers
from quantal._core.tensors.distributed import whole_array
from quantal._export.inputs import inputs_of
from quantal._export.precision import computes_in_float32, in_float32
from quantal._export.report import Figures, Report, size_of
from quantal._export.running import Batches, Outputs, Run, run_file
from quantal._export.target import Paths, Samples, Target, Written
from quantal._models.bake import bake
from quantal._models.inputs import arrays_in_order
from quantal._models.typical_inputs import typical_inputs
from quantal.layers.activation import DiscreteActivation

SIZES = (1, 7, 8, 64)
"""So many samples are run together: runtimes choose other kernels for more samples."""
_VARIATIONS = 4.0
"""The difference of two computations may be so many times what a few were seen to vary."""
_MOST_VARIATION = 0.1
"""Where Keras itself varies more, no difference says whether a file is right."""
_MOST_OVER_THRESHOLDS = 0.5
"""The same where activations are on lists: one that is rounded across a threshold moves outputs by
more than roundings do, but outputs of a wrong file are unlike Keras's in all."""
_TO_THRESHOLDS = np.array([1 + 2**-12, 1 - 2**-12], np.float32)
"""Factors of inputs in turn, which move some numbers across thresholds, as roundings do now and
then. One factor for all would move no sum across 0."""
_FLOATS = 2.0
"""At a lower precision, packed weights may be so many times as far off as float weights."""

Floats = NDArray[np.float64]


class Difference(NamedTuple):
    """The largest and the mean difference of outputs, in units of the outputs' spread.

    The spread is the root mean square of all numbers of an output.
    """

    largest: float
    mean: float


def difference(outputs: Sequence[NDArray[Any]], expected: Sequence[NDArray[Any]]) -> Difference:
    """Return the difference of outputs to expected ones, both in the model's order.

    Args:
        outputs: The outputs, possibly of the first samples alone.
        expected: What is expected of all samples. All of them say what the spread is.

    Raises:
        ValueError: Their numbers or sizes differ.
    """
    firsts = [other[: len(output)] for output, other in zip(outputs, expected, strict=False)]
    sizes = [output.size for output in outputs]
    if len(outputs) != len(expected) or sizes != [first.size for first in firsts]:
        raise ValueError(
            f"outputs have the shapes {[output.shape for output in outputs]}. Expected "
            f"{[other.shape for other in expected]}, as the model has."
        )
    largest, means = 0.0, []
    for output, first, other in zip(outputs, firsts, expected, strict=True):
        deltas = np.abs(output.astype(np.float64).reshape(first.shape) - first)
        spread = float(np.sqrt(np.mean(other.astype(np.float64) ** 2))) or 1.0
        # In this order a NaN stays, and is then beyond every bound.
        largest = float(np.maximum(largest, deltas.max() / spread))
        means.append(deltas.mean() / spread)
    return Difference(largest, float(np.mean(means)))


class Reference:
    """A reference holds samples, and what Keras computes from them in float32.

    Args:
        model: A built model. One of lower precision is computed in float32, since exported
            files are.
        inputs: Arrays in the structure that the model takes; None draws typical ones. Fewer
            samples than 64 are repeated, so that every number of samples is run.
    """

    def __init__(self, model: keras.Model, inputs: Any = None) -> None:
        self._model = model if computes_in_float32(model) else in_float32(bake(model))
        if inputs is None:
            inputs = typical_inputs(self._model, SIZES[-1])
        arrays = arrays_in_order(self._model, inputs)
        given = min(map(len, arrays))
        sizes: tuple[int, ...] = ()
        # A batch of fixed size is run as it is, and so are inputs of different lengths.
        if _has_open_batch(self._model) and all(len(array) == given for array in arrays):
            most = max(given, SIZES[-1])
            arrays = [np.resize(array, (most, *array.shape[1:])) for array in arrays]
            sizes = tuple(sorted({*SIZES, most}))
        names = [tensor.name for tensor in self._model.inputs]
        layers = flatten_layers(self._model)
        self._has_thresholds = any(isinstance(layer, DiscreteActivation) for layer in layers)
        self.batches = Batches(arrays, names, sizes or (given,), timed=given)
        self._expected = self._computed(arrays, SIZES[-1] if sizes else None)

    @property
    def samples(self) -> Samples:
        """The samples that were given or drawn, each once, and what Keras computes from them."""
        given = self.batches.timed
        arrays = (self.batches.arrays, self._expected)
        return Samples(*([array[:given] for array in each] for each in arrays))

    @property
    def advice(self) -> str:
        """A sentence on the model's open lengths, which PyTorch's exporters fix; or empty."""
        shapes = [tuple(tensor.shape) for tensor in self._model.inputs]
        is_open = any(None in shape[1:] for shape in shapes)
        if not is_open or keras.config.backend() != "torch":
            return ""
        return f"Fix the open lengths of the inputs {shapes} in keras.Input, as PyTorch does. "

    def difference(self, outputs: Outputs) -> Difference:
        """Return the difference of a file's outputs to Keras's, the largest of all batches."""
        differences = [difference(arrays, self._expected) for arrays in outputs.values()]
        # NumPy's maximum, since Python's forgets a NaN.
        largest = float(np.max([one.largest for one in differences]))
        return Difference(largest, differences[-1].mean)

    def bound(self, bound: float, largest: float) -> float:
        """Return a target's bound, or what Keras varies by itself where a difference needs it."""
        if largest <= bound:
            return bound
        most = _MOST_OVER_THRESHOLDS if self._has_thresholds else _MOST_VARIATION
        return max(bound, min(_VARIATIONS * self.variation(), most))

    def variation(self) -> float:
        """Return by how much Keras's outputs vary, computed from the same samples otherwise.

        The samples are computed one by one, and with every float moved to the next one. Where
        activations are on lists, a rounding may move one across a threshold, which is rare: the
        floats are moved farther, too, so that it is seen what that does.
        """
        arrays = [array[: SIZES[-1]] for array in self.batches.arrays]
        others = [self._computed([_moved(array) for array in arrays], None)]
        if len(self.batches.sizes) > 1:
            others.append(self._computed(arrays, 1))
        if self._has_thresholds:
            moved = [
                array * np.resize(_TO_THRESHOLDS, array.shape) if array.dtype.kind == "f" else array
                for array in arrays
            ]
            others.append(self._computed(moved, None))
        return max(difference(other, self._expected).largest for other in others)

    def _computed(self, arrays: Sequence[NDArray[Any]], together: int | None) -> list[Floats]:
        """Return the model's outputs, computed from so many samples together, or from all."""
        samples = max(map(len, arrays))
        parts = []
        for begin in range(0, samples, together or samples):
            part = [array[begin : begin + together] if together else array for array in arrays]
            inputs = keras.tree.pack_sequence_as(inputs_of(self._model), part)
            outputs = keras.tree.flatten(self._model(inputs, training=False))
            parts.append([whole_array(output).astype(np.float64) for output in outputs])
        return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]


def _has_open_batch(model: keras.Model) -> bool:
    return all(tensor.shape[0] is None for tensor in model.inputs)


def _moved(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array with every float moved to the next one, away from 0."""
    if array.dtype.kind != "f":
        return array
    return np.nextafter(array, np.copysign(np.array(np.inf, array.dtype), array))


def compare(
    reference: Reference, report: Report, written: Written, target: Target, folder: pathlib.Path
) -> Report:
    """Run an export, and the same conversion with floats, and complete its report.

    Args:
        reference: What the file shall compute.
        report: The report to complete.
        written: The files of the target.
        target: The target, with its bound.
        folder: An empty folder for the files with floats.

    Raises:
        ValueError: The file does not run, or its outputs differ by more than the bound.
    """
    path = written.paths[0]
    run = _run(path, reference, target)
    if run.missing:
        return dataclasses.replace(report, bound=None, remark=f"not run: {run.missing}")
    largest, mean = reference.difference(run.precise or run.outputs)
    bound = reference.bound(target.bound or 0.0, largest)
    instead = f"{reference.advice}{target.instead}"
    _check_difference(largest, bound, report, instead)
    report = dataclasses.replace(
        report, figures=_figures(written.paths, run), largest=largest, mean=mean, bound=bound
    )
    if written.write_floats is None:
        return report
    paths = written.write_floats(folder / path.name)
    floats = _run(paths[0], reference, target)
    report = dataclasses.replace(report, floats=_figures(paths, floats))
    if not run.precise:
        return report
    default, of_floats = (reference.difference(one.outputs).largest for one in (run, floats))
    _check_difference(default, max(bound, _FLOATS * of_floats), report, instead)
    return dataclasses.replace(
        report,
        default=default,
        remark=f"at the runtime's defaults, {run.precision} on this processor: largest "
        f"{default:.2g}, as floats {of_floats:.2g}; docs/export.md says how to run it in float32",
    )


def _run(path: pathlib.Path, reference: Reference, target: Target) -> Run:
    """Run a file, or refuse it in the runtime's words."""
    try:
        return run_file(path, reference.batches, target.loader)
    except RuntimeError as error:
        raise ValueError(
            f"The file {path.name!r} does not run: {error}. Expected a model that "
            f"{target.runtime} computes. {reference.advice}{target.instead}, or take the file "
            "as it is with check=False."
        ) from None


def _check_difference(difference: float, bound: float, report: Report, instead: str) -> None:
    """Refuse a file that is too far from Keras; a NaN is too far from everything."""
    if not difference <= bound:
        raise ValueError(
            f"The outputs of {report.paths[0].name!r} differ from Keras's by {difference:.2g} of "
            f"their spread. Expected at most {bound:.2g} of the target {report.target!r}. Give "
            f"inputs like those that the model is for. {instead}, or take the file as it is with "
            "check=False."
        )


def _figures(paths: Paths, run: Run) -> Figures:
    return Figures(size_of(paths), run.milliseconds, run.memory)
