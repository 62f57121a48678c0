"""Measure what a model loses with one kernel at a time on a list."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray

from quantal._core.by_identity import ByIdentity
from quantal._core.numbers.calibration import Floats
from quantal._core.parameter import Parameter
from quantal._core.tensors.distributed import whole_array
from quantal._models.calibration.calibrate import (
    OneKernel,
    Target,
    bias_of,
    refuse_infinite,
    states_restored,
)
from quantal._models.calibration.flow import Flow, flow_of
from quantal._models.calibration.moments import Kernel, Models, Moments, moments_of
from quantal._models.calibration.samples import Samples
from quantal._models.calibration.statistics import measure_again
from quantal._models.clone import clone_replacing, copy_value
from quantal._models.compile_like import compile_like


class LabelledSamples(NamedTuple):
    """Labelled samples are inputs, and the same with targets if there are any.

    Attributes:
        inputs: The inputs.
        tuples: The same as (x, y) or (x, y, sample_weight); None without targets.
    """

    inputs: Samples
    tuples: Samples | None


def labelled_samples(data: Any, batch: int | None) -> LabelledSamples:
    """Return the samples of the argument `data`.

    Args:
        data: Inputs, or tuples of inputs, targets and sample weights.
        batch: The number of samples in a batch that the model is built for; None for any.
    """
    if isinstance(data, tuple):
        data = tuple(part for part in data if part is not None)
        data = data[0] if len(data) == 1 else data
    samples = Samples(data, batch, "data", with_targets=True)
    arrays = samples.arrays
    if not isinstance(arrays, tuple):
        return LabelledSamples(samples, None)
    if len(arrays) == 1:
        return LabelledSamples(Samples(arrays, batch, "data"), None)
    return LabelledSamples(Samples(arrays, batch, "data"), samples)


class Before(NamedTuple):
    """A variable comes with the numbers that it had before a change."""

    variable: keras.Variable
    numbers: NDArray[Any]


def _numbers_of(variable: keras.Variable) -> NDArray[Any]:
    """Return a copy of the numbers of a variable, which later changes leave as it is."""
    return np.array(whole_array(variable))


class Probe:
    """A probe is a copy of the free model in which one kernel at a time is another one.

    Without targets, kernels are calibrated on three quarters of the samples, and what they lose is
    measured on the others: on those that it was calibrated on, a kernel of many inputs loses next
    to nothing. A loss of targets is measured on all samples, as that of a quarter says too little.

    Args:
        model: The free model.
        samples: The samples.

    Attributes:
        model: The copy.
        inputs: The inputs to calibrate on.
        copies: The variables of the copy, by those of the free model.
    """

    def __init__(self, model: keras.Model, samples: LabelledSamples) -> None:
        clone = clone_replacing(model, lambda layer, fresh: None)
        self.model = clone.model
        has_loss = model.compiled and getattr(model, "loss", None) is not None
        self._labelled = samples.tuples if has_loss else None
        is_whole = self._labelled is not None
        parts = (samples.inputs, samples.inputs) if is_whole else samples.inputs.split()
        self.inputs, self._measured = parts
        if has_loss:
            compile_like(model, self.model)

        def copy_weights() -> None:
            for old_variable, new_variable in clone.pairs:
                copy_value(old_variable, new_variable)

        clone.set_state(copy_weights)
        for variable in self.model.trainable_variables:
            # Penalties say nothing of what a kernel on a list loses.
            variable.regularizer = None
        self.copies = ByIdentity((pair.old, pair.new) for pair in clone.pairs)
        self._models = Models(self.model, self.model)
        self._outputs: list[list[Floats]] = []
        with states_restored(self._models):
            if self._labelled is None:
                self._outputs = list(self._passes())
                self._before = 0.0
            else:
                self._before = self._loss()

    def flow(self, kernels: Sequence[Any]) -> Flow:
        """Return the flow of the model, with regard to some kernels of it."""
        with states_restored(self._models):
            return flow_of(self.model, next(iter(self.inputs)), kernels)

    def moments(self, kernels: Sequence[keras.Variable], flow: Flow) -> list[Moments]:
        """Return the moments of the inputs of kernels; none for those without a product."""
        if kernels[0] not in flow.layouts or kernels[0] in flow.unusable:
            return []
        with states_restored(self._models):
            pairs = [Kernel(kernel, kernel) for kernel in kernels]
            return moments_of(self._models, self.inputs, pairs, flow)

    def loss_with(
        self, kernel: keras.Variable, weights: NDArray[Any], follow: Callable[[], list[Before]]
    ) -> float:
        """Return what is lost with other numbers in place of a kernel.

        Args:
            kernel: The kernel, a variable of the probe.
            weights: The numbers.
            follow: Adapts what follows the kernel, and returns the variables with their numbers
                of before.
        """
        before: list[Before] = [Before(kernel, _numbers_of(kernel))]
        try:
            with states_restored(self._models):
                kernel.assign(weights)
                before += follow()
                return self._loss() - self._before
        finally:
            for variable, numbers in before:
                variable.assign(numbers)

    def _loss(self) -> float:
        if self._labelled is None:
            return self._distance()
        self.model.reset_metrics()
        results: dict[str, Any] = {}
        for batch in self._labelled:
            results = self.model.test_on_batch(*batch, return_dict=True)
        if "loss" not in results:
            raise ValueError(
                f"The test step of the model {self.model.name!r} reports {sorted(results)}. "
                "Expected 'loss' among them. Give data without targets."
            )
        return float(results["loss"])

    def _passes(self) -> Iterator[list[Floats]]:
        """Yield the outputs for each batch of the samples to measure on."""
        for inputs in self._measured:
            outputs = keras.tree.flatten(self.model.predict_on_batch(inputs))
            yield [np.asarray(whole_array(each)).astype(float) for each in outputs]

    def _distance(self) -> float:
        """Return the mean square distance of the outputs, relative to their variance."""
        count = len(self._outputs[0])
        squares, power = np.zeros(count), np.zeros(count)
        means = [
            np.mean(np.concatenate([batch[i] for batch in self._outputs]), axis=0)
            for i in range(count)
        ]
        for now, before in zip(self._passes(), self._outputs, strict=True):
            for i, (a, b) in enumerate(zip(now, before, strict=True)):
                squares[i] += ((a - b) ** 2).sum()
                power[i] += ((b - means[i]) ** 2).sum()
        return float(np.mean(squares / np.where(power > 0, power, np.nan)))


class _Follow:
    """What follows a kernel takes up the mean that it loses: its bias, or a normalization.

    Args:
        probe: The probe.
        kernel: The kernel, a variable of it.
        flow: The flow of its model.
    """

    def __init__(self, probe: Probe, kernel: keras.Variable, flow: Flow) -> None:
        self._probe, self._kernel, self._flow = probe, kernel, flow
        self._bias: keras.Variable | None = None
        self._lost_mean: Floats = np.zeros(0)

    def calibrate(self, parameter: Parameter, moments: Moments) -> None:
        """Calibrate a parameter in place of the kernel, whose inputs have these moments."""
        refuse_infinite(parameter, moments)
        layout = self._flow.layouts[self._kernel]
        self._bias = bias_of(self._probe.model, self._kernel, layout)
        one = OneKernel(Target(parameter, self._kernel), layout, moments, False)
        one.calibrate(self._bias is not None or self._kernel in self._flow.normalized)
        self._lost_mean = one.lost_mean()

    def __call__(self) -> list[Before]:
        if self._bias is not None:
            before = _numbers_of(self._bias)
            self._bias.assign_add(self._lost_mean.reshape(self._bias.shape).astype(np.float32))
            return [Before(self._bias, before)]
        if self._kernel in self._flow.normalized:
            layer = self._flow.normalized[self._kernel]
            measure_again(self._probe.model, self._probe.inputs, layer, self._flow.has_loops)
        return []


def losses_of(
    probe: Probe, targets: Sequence[Sequence[Target]], verbose: int
) -> ByIdentity[list[float]]:
    """Return what each kernel loses in each of its parameters, which are calibrated for it.

    Args:
        probe: The probe, of the model whose weights the targets name.
        targets: The parameters of the same kernels on one list after the other.
        verbose: 1 shows a line of progress, 0 nothing.
    """
    parameters: ByIdentity[list[Parameter]] = ByIdentity()
    for of_list in targets:
        for target in of_list:
            copy = probe.copies[target.variable]
            parameters.setdefault(copy, []).append(target.parameter)
    losses: ByIdentity[list[float]] = ByIdentity()
    progress = keras.utils.Progbar(len(parameters), unit_name="kernel", verbose=verbose)
    flow = probe.flow(list(parameters))
    for kernels in _kernels_by_step(flow, parameters):
        moments = probe.moments(kernels, flow)
        for position, kernel in enumerate(kernels):
            losses[kernel] = []
            for parameter in parameters[kernel]:
                follow = _Follow(probe, kernel, flow)
                if moments:
                    follow.calibrate(parameter, moments[position])
                numbers = whole_array(parameter.weight)
                losses[kernel].append(probe.loss_with(kernel, numbers, follow))
            progress.add(1)
    return ByIdentity(
        (target.variable, losses[probe.copies[target.variable]]) for target in targets[0]
    )


def _kernels_by_step(flow: Flow, kernels: Iterable[Any]) -> list[list[keras.Variable]]:
    """Return the kernels that have the same inputs together, and those without a product alone."""
    steps = [step.kernels for step in flow.steps if step.kernels]
    seen = ByIdentity.of_keys(kernel for step in steps for kernel in step)
    return steps + [[kernel] for kernel in kernels if kernel not in seen]
