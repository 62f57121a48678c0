"""Weights are averaged over the end of a run whose length need not be known."""

import io
import os
import pathlib
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from quantal._core.by_identity import ByIdentity
from quantal._core.effective_latent import EffectiveLatent, function_of
from quantal._core.keras_internals.running_fit import present_state, trained_values
from quantal._core.parameter import parameters_of
from quantal._core.processes import written_once
from quantal._core.tensors.backend import graph
from quantal._core.tensors.distributed import whole_array
from quantal._core.types import Tensor
from quantal._storage.archive import read_archive
from quantal._storage.atomic import replace_file

POWER = 16
"""A sample of step t counts as t to this power, so the mean sample is an 18th of the run old.

Powers from 8 to 32 reach the same at a constant rate; the larger, the nearer to the last
weights of a run with a schedule."""

SAMPLES = 128
"""A gap between samples is this share of the run so far: seven of them make up the mean sample's
age. A sample of each step reaches the same."""

LEAST_GAP = 8
"""Samples are so many steps apart at least, so that they cost little in short runs, too."""

_FILE = "quantal_averages.npz"
_COUNTS = "counts"
_NUMBERS_OF_COUNTS = 3
_BYTES_OF_NUMBER = 8


class Averages:
    """Averages of the trained weights of a model weigh each sample by a power of its step.

    So they are means over the end of the run, wherever it ends: at each step the window is
    the same share of all steps so far. Samples have gaps that grow with the run, as dense
    ones bring nothing more. Of a parameter whose latents have steps of their own the effective
    latents are averaged: what the optimizer has there says nothing but which way they go.

    Source: Shamir and Zhang, "Stochastic Gradient Descent for Non-smooth Optimization", ICML
    2013: polynomial-decay averaging.
    """

    def __init__(self) -> None:
        self._step, self._weight = 0, 0.0
        self._variables: list[keras.Variable] = []
        self._averages: list[Tensor] = []
        self._effective: ByIdentity[EffectiveLatent] = ByIdentity()
        self._add = graph(_toward)

    def is_due(self, step: int) -> bool:
        """Return whether a sample of a step is due, as the last one is old enough."""
        return step - self._step >= max(LEAST_GAP, step // SAMPLES)

    def add(self, step: int, model: keras.Model) -> None:
        """Take the present weights of a model into the averages.

        Args:
            step: The step that ended, counted from the start of the run, from 1.
            model: The model that trains.
        """
        trained = [(v, value) for v, value in trained_values(model) if is_averaged(v)]
        variables = [variable for variable, _ in trained]
        values = [ops.convert_to_tensor(value) for _, value in trained]
        if [id(v) for v in variables] != [id(v) for v in self._variables]:
            # The first sample; or layers were frozen or thawed meanwhile.
            self._begin(variables, model)
            self._averages = [ops.zeros(value.shape, _dtype(value)) for value in values]
        if self._effective:
            with present_state(model):
                values = [
                    self._effective[v].followed().latent if v in self._effective else value
                    for v, value in zip(variables, values, strict=True)
                ]
        self._weight = self._weight * (self._step / step) ** POWER + 1
        self._step = step
        share = ops.convert_to_tensor(1 / self._weight, "float32")
        self._averages = self._add(self._averages, values, share)

    def _begin(self, variables: list[keras.Variable], model: keras.Model) -> None:
        """Begin anew with some variables of a model."""
        self._variables, self._step, self._weight = variables, 0, 0.0
        self._effective = ByIdentity(
            (parameter.latent, parameter.effective)
            for parameter in parameters_of(model)
            if parameter.effective is not None and not parameter.is_frozen
        )

    @property
    def variables(self) -> list[keras.Variable]:
        """The variables that are averaged; none before the first sample."""
        return self._variables

    @property
    def assigned(self) -> list[keras.Variable]:
        """All variables that `put` assigns."""
        effective = [v for latent in self._effective.values() for v in latent.variables]
        return [*self._variables, *effective]

    def put(self) -> None:
        """Give the variables their averages, within their constraints."""
        for variable, average in zip(self._variables, self._averages, strict=True):
            # A copy: the trainers of JAX give the memory of what a variable holds away.
            variable.assign(ops.cast(ops.copy(average), variable.dtype))
            constraint = function_of(variable.constraint)
            if constraint is not None:
                variable.assign(constraint(variable))
            if variable in self._effective:
                self._effective[variable].restart()

    def write(self, folder: str, epochs: int) -> None:
        """Write the averages into a folder, as of the end of so many epochs."""
        content = io.BytesIO()
        arrays = {str(i): whole_array(a) for i, a in enumerate(self._averages)}
        arrays[_COUNTS] = np.array([epochs, self._step, self._weight])
        np.savez(content, allow_pickle=False, **arrays)

        def write() -> None:
            os.makedirs(folder, exist_ok=True)
            with replace_file(pathlib.Path(folder) / _FILE) as stream:
                stream.write(content.getbuffer())

        written_once(pathlib.Path(folder) / _FILE, write)

    def read(self, folder: str, epochs: int, model: keras.Model) -> None:
        """Go on from a file, if the folder has one of the same epoch of the same model."""
        file = pathlib.Path(folder) / _FILE
        if not file.exists():
            return
        variables = [v for v in model.trainable_variables if is_averaged(v)]
        shapes = {str(i): tuple(v.shape) for i, v in enumerate(variables)}
        shapes[_COUNTS] = (_NUMBERS_OF_COUNTS,)
        numbers = sum(int(np.prod(shape)) for shape in shapes.values())
        try:
            arrays = read_archive(file, shapes, numbers * _BYTES_OF_NUMBER)
        except Exception as error:  # Damaged archives raise errors of many types.
            raise ValueError(
                f"{os.fspath(file)!r} is not readable as the averages of this model: {error!r}. "
                "Expected those that Finish wrote for it. Delete the file to begin them anew."
            ) from error
        epochs_of_file, step, weight = arrays.pop(_COUNTS)
        if epochs_of_file != epochs:
            return
        self._begin(variables, model)
        self._step, self._weight = int(step), float(weight)
        self._averages = [ops.convert_to_tensor(arrays[str(i)]) for i in range(len(variables))]


def is_averaged(variable: keras.Variable) -> bool:
    """Return whether the mean of a variable's values over many steps has a meaning."""
    is_measured = getattr(variable, "overwrite_with_gradient", False)  # A scale of float8.
    return keras.backend.is_float_dtype(variable.dtype) and not is_measured


def _dtype(value: Tensor) -> str:
    """Return the dtype of the average of such values: float32 at least."""
    dtype = keras.backend.standardize_dtype(value.dtype)
    return str(keras.backend.result_type(dtype, "float32"))


def _toward(averages: Sequence[Tensor], values: Sequence[Tensor], share: Tensor) -> list[Tensor]:
    """Return averages moved by a share of the way to the values."""
    return [
        average
        + (ops.stop_gradient(ops.cast(value, average.dtype)) - average)
        * ops.cast(share, average.dtype)
        for average, value in zip(averages, values, strict=True)
    ]
