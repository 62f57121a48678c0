"""A vector cannot be identified where other weights undo its changes: that is tried, and seen.

A multiplier of ±1 before a free Dense layer is such a vector: whatever its signs are, the Dense
layer has rows with other signs, and the same loss. Which weights could is told by their shapes;
whether they do, by the loss: some elements get other values, the slices of the other weight that
belong to them are divided by the ratio, and the loss has to stay what it was.
"""

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray

from quantal._core.by_identity import ByIdentity
from quantal._core.keras_internals.layers import flatten_layers
from quantal._core.parameter import Parameter, parameters_of
from quantal._core.tensors.distributed import whole_array
from quantal._models.compiled_loss import CompiledLoss
from quantal._models.walk import outermost_layers
from quantal._optimize.assess.assessment import Absorption
from quantal._optimize.interruption import interrupts_ignored
from quantal.layers.multiplier import LearnableMultiplier

_SAME = 1e-3
"""The loss is the same if it differs by less than this share of what the change alone does."""
_SEEN = 1e-5
"""A change has to move the loss by this share of it, or nothing can be said."""
_MOST_CANDIDATES = 64
"""The most weights, or groups of them, that are tried for a vector: the nearest ones first."""
_MOST_PAIRED = 8
"""Pairs are tried of so many candidates: where a vector has two readers, both have to follow."""
_TRIALS = 2
"""A change that was undone is tried again with other elements, since one may do so by chance."""


class Slices(NamedTuple):
    """Slices are the parts of a weight along an axis that belong to the elements of a vector.

    Attributes:
        target: A variable, or a parameter on a list.
        axis: The axis.
        repeats: How often the vector's elements come one after the other along it.
        is_tiled: Whether the whole vector is repeated, and not each element.
        follows: Whether the slices are multiplied by the ratio, and not divided by it.
    """

    target: Any
    axis: int
    repeats: int
    is_tiled: bool
    follows: bool = False

    def factors(self, ratios: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return what the weight is multiplied by, in a shape that broadcasts."""
        along = np.tile if self.is_tiled else np.repeat
        factors = along(ratios if self.follows else 1 / ratios, self.repeats)
        shape = [1] * len(self.target.shape)
        shape[self.axis] = len(factors)
        return np.asarray(factors.reshape(shape), np.float32)


Candidate = tuple[Slices, ...]
"""A candidate is the slices of all weights that have to change together."""


class Identifiability:
    """Identifiability of vectors is tried on a few samples, and leaves the model as it is.

    Args:
        compiled: The loss of a batch.
        batch: Inputs, targets and sample weights of some samples.
        random: Draws which elements change.
    """

    def __init__(self, compiled: CompiledLoss, batch: Any, random: np.random.Generator) -> None:
        self._compiled, self._batch, self._random = compiled, batch, random
        self._parameters = compiled.parameters
        self._values = [_numbers(parameter.listed_values) for parameter in self._parameters]
        self._loss = self._loss_of({})

    def absorption(self, parameter: Parameter) -> Absorption | None:
        """Return which weights undo changes of a vector; None where none was seen to."""
        candidates = self._candidates(parameter)
        absorbers: dict[str, Candidate | None] = {
            kind: self._absorber(parameter, kind, candidates) for kind in ("signs", "sizes")
        }
        weights = [s for c in absorbers.values() if c is not None for s in c]
        if not weights:
            return None
        names = dict.fromkeys(str(s.target.path) for s in weights)
        listed = any(isinstance(s.target, Parameter) for s in weights)
        return Absorption(
            absorbers["signs"] is not None, absorbers["sizes"] is not None, tuple(names), listed
        )

    def _absorber(
        self, parameter: Parameter, kind: str, candidates: list[Candidate]
    ) -> Candidate | None:
        """Return the first candidate that undoes changes of a kind."""
        trials = [self._trial(parameter, kind) for _ in range(_TRIALS)]
        if any(changed is None for changed in trials):
            return None
        pairs = [
            (*one, *other)
            for index, one in enumerate(candidates[:_MOST_PAIRED])
            for other in candidates[:index]
        ]
        for candidate in [*candidates, *pairs]:
            if all(self._undoes(parameter, changed, candidate) for changed in trials):
                return candidate
        return None

    def _trial(self, parameter: Parameter, kind: str) -> NDArray[np.float32] | None:
        """Return the values with some elements changed; None where that moves no loss.

        Args:
            parameter: The vector.
            kind: "signs" for opposite values, "sizes" for others of the same sign.
        """
        index = self._index(parameter)
        now = self._values[index]
        changed = _with_other_values(parameter, now, kind, self._random)
        if changed is None:
            return None
        moved = abs(self._loss_of({index: changed}) - self._loss)
        return changed if moved > _SEEN * abs(self._loss) else None

    def _undoes(self, parameter: Parameter, changed: Any, candidate: Candidate) -> bool:
        """Return whether a candidate undoes a change of a vector."""
        index = self._index(parameter)
        now = self._values[index]
        ratios = np.where(now == 0, 1, changed / np.where(now == 0, 1, now)).reshape(-1)
        values, variables = {index: changed}, []
        for slices in candidate:
            factors = slices.factors(ratios)
            if isinstance(slices.target, Parameter):
                other = self._index(slices.target)
                values[other] = values.get(other, self._values[other]) * factors
                if not _are_listed(slices.target, values[other]):
                    return False
            else:
                variables.append((slices.target, factors))
        alone = abs(self._loss_of({index: changed}) - self._loss)
        with _multiplied(variables):
            together = abs(self._loss_of(values) - self._loss)
        return together <= _SAME * alone

    def _loss_of(self, replaced: dict[int, Any]) -> float:
        values = [replaced.get(index, now) for index, now in enumerate(self._values)]
        return self._compiled.loss(values, self._batch)[0]

    def _index(self, parameter: Parameter) -> int:
        return next(i for i, one in enumerate(self._parameters) if one is parameter)

    def _candidates(self, parameter: Parameter) -> list[Candidate]:
        """Return the weights whose shapes have room for the vector, the nearest ones first."""
        layers = outermost_layers(self._compiled.model)
        owner = next(
            index
            for index, layer in enumerate(layers)
            if any(one is parameter for one in parameters_of(layer))
        )
        size = math.prod(parameter.shape)
        # Those behind the vector before those in front of it, at the same distance.
        near = sorted(range(len(layers)), key=lambda i: (abs(i - owner), i < owner))
        candidates = [
            candidate
            for index in near
            for candidate in _candidates_of(layers[index], size, parameter, self._parameters)
        ]
        return candidates[:_MOST_CANDIDATES]


def vectors_among(model: keras.Model, parameters: Sequence[Parameter]) -> list[Parameter]:
    """Return the parameters that multiply data element by element, or lie along one axis."""
    multipliers = ByIdentity[None](
        (parameter.latent, None)
        for layer in flatten_layers(model)
        if isinstance(layer, LearnableMultiplier)
        for parameter in parameters_of(layer)
    )
    return [
        parameter
        for parameter in parameters
        if not parameter.is_frozen
        and (
            parameter.latent in multipliers
            or math.prod(parameter.shape) == max(parameter.shape, default=0)
        )
    ]


def _candidates_of(
    layer: keras.Layer, size: int, vector: Parameter, known: Sequence[Parameter]
) -> Iterator[Candidate]:
    """Yield the weights of a layer along whose axes a vector of a size fits."""
    listed = [p for p in known if any(p is q for q in parameters_of(layer))]
    others = ByIdentity.of_keys(
        v
        for parameter in parameters_of(layer)
        for v in (parameter.latent, *parameter.other_variables)
    )
    free = [
        v
        for v in layer.trainable_variables
        if v not in others and keras.backend.is_float_dtype(v.dtype)
    ]
    weights: list[Any] = [p for p in listed if p is not vector and not p.is_frozen] + free
    for weight in weights:
        for axis in range(len(weight.shape)):
            yield from ((slices,) for slices in _slices(weight, axis, size))
    # What a layer gives is multiplied by all its weights along the last axis together.
    last = [list(_slices(weight, -1, size)) for weight in weights if len(weight.shape)]
    if len(last) > 1 and all(last):
        yield from zip(*last, strict=False)
    if isinstance(layer, keras.layers.BatchNormalization) and layer.scale and layer.trainable:
        mean = layer.moving_mean
        for gamma in _slices(layer.gamma, 0, size):
            yield gamma, gamma._replace(target=mean, follows=True)


def _slices(weight: Any, axis: int, size: int) -> Iterator[Slices]:
    """Yield the ways in which a vector of a size fits along an axis of a weight."""
    length = weight.shape[axis]
    if length % size or not length:
        return
    axis %= len(weight.shape)
    yield Slices(weight, axis, length // size, True)
    if 1 < size < length:
        yield Slices(weight, axis, length // size, False)


def _with_other_values(
    parameter: Parameter, now: NDArray[np.float32], kind: str, random: np.random.Generator
) -> NDArray[np.float32] | None:
    """Return values with about half of the elements that can be changed; None where none can."""
    table = parameter.values
    if table.channels is not None:
        return None
    listed = table.numbers
    others: list[NDArray[np.float32]] = []
    for value in now.reshape(-1):
        if kind == "signs":
            others.append(listed[(listed == -value) & (value != 0)])
        else:
            others.append(listed[(listed * value > 0) & (listed != value)])
    can_change = np.flatnonzero([len(options) for options in others])
    if not len(can_change):
        return None
    changed = now.reshape(-1).copy()
    some = random.choice(can_change, -(-len(can_change) // 2), replace=False)
    for element in some:
        changed[element] = random.choice(others[element])
    return changed.reshape(now.shape)


def _are_listed(parameter: Parameter, numbers: NDArray[np.float32]) -> bool:
    """Return whether numbers are members of a parameter's list."""
    return np.array_equal(parameter.values.nearest(numbers), numbers)


@contextlib.contextmanager
def _multiplied(variables: Sequence[tuple[keras.Variable, NDArray[np.float32]]]) -> Iterator[None]:
    """Multiply variables by factors within a scope."""
    numbers = [_numbers(variable) for variable, _ in variables]
    try:
        for variable, factors in variables:
            variable.assign(_numbers(variable) * factors)
        yield
    finally:
        with interrupts_ignored():
            for (variable, _), number in zip(variables, numbers, strict=True):
                variable.assign(number)


def _numbers(tensor: Any) -> NDArray[Any]:
    return np.array(whole_array(tensor))
