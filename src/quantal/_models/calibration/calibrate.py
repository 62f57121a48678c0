"""Calibrate a model whose weights were put on lists: layer by layer, in the order of the data.

Each kernel gets the codes and scales with which its outputs are nearest to those of the free model,
on the inputs that the layers before it give once they are calibrated. What the free model's inputs
were counts too: a kernel makes up for what was lost before it. Then biases take up the mean that is
left, and normalizations measure their statistics again.

Sources: Frantar et al., "GPTQ", ICLR 2023; the goal from the free model's inputs: Li et al.,
"GPTAQ", 2025.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray

from quantal._core.by_identity import ByIdentity
from quantal._core.keras_internals.layers import flatten_layers
from quantal._core.numbers.calibration import (
    Calibrated,
    Calibration,
    Floats,
    ListedElements,
    Scales,
    calibrated,
    damped,
)
from quantal._core.numbers.scale_blocks import spread
from quantal._core.parameter import Parameter
from quantal._core.tensors.distributed import whole_array
from quantal._models.calibration.flow import Flow, flow_of
from quantal._models.calibration.moments import Kernel, Models, Moments, moments_of
from quantal._models.calibration.products import Layout
from quantal._models.calibration.samples import Samples
from quantal._models.calibration.statistics import measure_again
from quantal.layers._channels import owner_of

_WITH_BIAS: tuple[Any, ...] = (
    keras.layers.Dense, keras.layers.EinsumDense, keras.layers.Conv1D, keras.layers.Conv2D,
    keras.layers.Conv3D, keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose, keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D,
)  # fmt: skip
"""The layers that add their bias to the product of their kernel, and do nothing in between."""


class Target(NamedTuple):
    """A target is a weight of the free model that a parameter stands for."""

    parameter: Parameter
    variable: keras.Variable


def calibrate(models: Models, targets: Sequence[Target], samples: Samples, verbose: int) -> None:
    """Calibrate the listed model of two, so that it computes what the free one does.

    Args:
        models: The models. The listed one has the weights of the free one, at nearest values.
        targets: The parameters, with the weights of the free model.
        samples: The samples to calibrate on.
        verbose: 1 shows a line of progress, 0 nothing.
    """
    by_latent = ByIdentity([(target.parameter.latent, target) for target in targets])
    with states_restored(models):
        first = next(iter(samples))
        flow = flow_of(models.listed, first, [target.parameter.latent for target in targets])
    progress = keras.utils.Progbar(len(flow.steps), unit_name="layer", verbose=verbose)
    for target in targets:
        target.parameter.note_calibration(Calibration(None, _note(target.parameter.latent, flow)))
    with states_restored(models) as changed:
        for step in flow.steps:
            if step.normalization is not None:
                measure_again(models.listed, samples, step.normalization, flow.has_loops)
                changed.update(ByIdentity.of_keys(step.normalization.variables))
            else:
                of_step = [by_latent[kernel] for kernel in step.kernels]
                changed.update(ByIdentity.of_keys(_calibrate_step(models, of_step, samples, flow)))
            progress.add(1)


@contextlib.contextmanager
def states_restored(models: Models) -> Iterator[ByIdentity[None]]:
    """Restore what passes have changed, such as states of recurrent layers and seeds.

    It gives a set for the variables that were set on purpose.
    """
    changed: ByIdentity[None] = ByIdentity()
    states = [*_states(models.free), *_states(models.listed)]
    try:
        yield changed
    finally:
        for variable, numbers in states:
            if variable not in changed:
                variable.assign(numbers)


def _states(model: keras.Model) -> list[tuple[keras.Variable, NDArray[Any]]]:
    """Return the variables of a model that a pass might change, with their numbers."""
    trainable = ByIdentity.of_keys(model.trainable_variables)
    # Keras does not list the states of recurrent layers.
    lists = [getattr(layer, "states", None) or () for layer in flatten_layers(model)]
    states = [v for v in keras.tree.flatten(lists) if isinstance(v, keras.Variable)]
    return [
        (variable, np.array(whole_array(variable)))
        for variable in (*model.variables, *states)
        if variable not in trainable
    ]


def _calibrate_step(
    models: Models, targets: Sequence[Target], samples: Samples, flow: Flow
) -> list[keras.Variable]:
    """Calibrate kernels that have the same inputs, and return the variables that were set."""
    changed: list[keras.Variable] = []
    kernels = [Kernel(target.parameter.latent, target.variable) for target in targets]
    for target, moments in zip(targets, moments_of(models, samples, kernels, flow), strict=True):
        refuse_infinite(target.parameter, moments)
        latent = target.parameter.latent
        bias = bias_of(models.listed, latent, flow.layouts[latent])
        is_centred = bias is not None or latent in flow.normalized
        # What meets it the next time may be its own output: then a goal would run away.
        has_goal = flow.uses[latent] == 1
        kernel = OneKernel(target, flow.layouts[latent], moments, has_goal)
        kernel.calibrate(is_centred)
        changed += [latent, *target.parameter.other_variables]
        if bias is not None:
            changed.append(bias)
            bias.assign_add(kernel.lost_mean().reshape(bias.shape).astype(np.float32))
    return changed


def refuse_infinite(parameter: Parameter, moments: Moments) -> None:
    """Refuse what meets a kernel if it, or a mean of its products, is not finite."""
    if not moments.are_finite:
        raise ValueError(
            f"What meets {parameter.path} on the samples has means of products that "
            "are not finite. Expected numbers whose squares float32 can hold. Scale the samples "
            "as in training, or leave them out."
        )


class OneKernel:
    """The calibration of one kernel has all its arrays as its product arranges them.

    Args:
        target: The parameter and the free weight.
        layout: The arrangement.
        moments: The moments of its inputs.
        has_goal: Whether it makes up for what was lost before it.
    """

    def __init__(self, target: Target, layout: Layout, moments: Moments, has_goal: bool) -> None:
        self._parameter, self._layout, self._moments = target.parameter, layout, moments
        self._has_goal = has_goal
        trained = whole_array(target.variable).astype(float)
        self._weights = layout.arranged(trained)

    def calibrate(self, is_centred: bool) -> None:
        """Set codes and scales.

        Args:
            is_centred: Whether what follows takes up any mean of the outputs.
        """
        moments = self._moments.centred(self._weights) if is_centred else self._moments
        goal = self._goal(moments)
        result = calibrated(goal, moments.second, self._elements(), self._scales(goal))
        self._set(result)
        error = moments.error(self._weights, self._listed())
        self._parameter.note_calibration(Calibration(error))

    def _listed(self) -> Floats:
        return self._layout.arranged(whole_array(self._parameter.weight).astype(float))

    def lost_mean(self) -> Floats:
        """Return the mean by which the outputs are too small, (groups, outputs)."""
        mean = self._moments.mean
        means = self._moments.free_mean if self._has_goal else mean, mean
        free, now = (
            np.matmul(mean[:, None], weights)[:, 0]
            for mean, weights in zip(means, (self._weights, self._listed()), strict=True)
        )
        return free - now

    def _goal(self, moments: Moments) -> Floats:
        """Return the free weights that come nearest to the free model's outputs."""
        if not self._has_goal:
            return self._weights
        change = np.matmul(moments.cross - moments.second, self._weights)
        return self._weights + np.linalg.solve(damped(moments.second), change)

    def _elements(self) -> ListedElements:
        values = self._parameter.values
        if values.channels is None:
            return ListedElements(values)
        shape = [1] * len(self._parameter.shape)
        shape[values.axis] = values.channels
        channels = np.broadcast_to(np.arange(values.channels).reshape(shape), self._parameter.shape)
        return ListedElements(values, self._layout.arranged(channels))

    def _scales(self, goal: Floats) -> Scales:
        """Return the scales that lose least of the goal, as those to begin with."""
        state, shape = self._parameter.scale_state, self._parameter.shape
        if state is None:
            return Scales(np.ones(1), np.zeros(self._weights.shape, np.intp), is_fitted=False)
        goal = self._layout.restored(goal, shape)
        numbers = state.scale.fitted(
            goal.astype(np.float32), self._parameter.values, tuple(state.start.shape)
        )
        positions = spread(np.arange(numbers.size).reshape(numbers.shape), shape)
        positions = np.broadcast_to(positions, shape)
        return Scales(
            numbers.astype(float).ravel(),
            self._layout.arranged(positions),
            is_fitted=state.scale.method != "mean_absolute",
            power_of_two=state.scale.power_of_two,
        )

    def _set(self, result: Calibrated) -> None:
        parameter = self._parameter
        codes, wishes = (
            self._layout.restored(array, parameter.shape) for array in (result.codes, result.wishes)
        )
        scales: NDArray[np.float32] | None = None
        if parameter.scale_state is not None:
            scales = result.scales.astype(np.float32).reshape(parameter.scale_state.start.shape)
        parameter.start_at(codes, wishes.astype(np.float32), scales)


def bias_of(model: keras.Model, latent: keras.Variable, layout: Layout) -> keras.Variable | None:
    """Return the bias that a layer adds to the product of a kernel, if it has one."""
    owner = owner_of(model, latent)
    bias = getattr(owner, "bias", None)
    kinds = [kind for kind in _WITH_BIAS if type(owner).call is kind.call]
    if not kinds or not isinstance(bias, keras.Variable):
        return None
    groups, _, outputs = layout.sizes
    return bias if int(np.prod(bias.shape)) == groups * outputs else None


def _note(latent: keras.Variable, flow: Flow) -> str:
    """Return why a kernel is not calibrated, as long as it is not."""
    if latent in flow.unusable:
        return "its product with the data is of another kind"
    return "no product of it with the data was seen"
