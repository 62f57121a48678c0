"""Compare an integer network with its Keras model, activation by activation."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from quantal._core.table import Column, Table
from quantal._core.views import Views, plain
from quantal._export.integer.program import Activation, IntegerProgram
from quantal._export.integer.rounding import codes_of
from quantal._export.integer.steps import Integers


class Computed(NamedTuple):
    """What Keras computed.

    Attributes:
        activations: The outputs of each activation on a list, by the layer's name, one for each
            call, shape (samples, ...).
        outputs: The outputs of the model.
    """

    activations: dict[str, list[NDArray[Any]]]
    outputs: list[NDArray[Any]]


class KerasReference(Protocol):
    """A reference computes a Keras model and its activations on lists."""

    def computed(self, x: Any) -> Computed:
        """Return what Keras computes from inputs."""


@dataclasses.dataclass(frozen=True)
class ComparedActivation:
    """An activation is compared code by code.

    Attributes:
        name: The name of the layer.
        way: How the integers are rounded: thresholds, shift, or multiplier and shift.
        codes: The number of codes.
        differing: How many of them differ from Keras's.
        most: By how many steps of the list they differ at most.
    """

    name: str
    way: str
    codes: int
    differing: int
    most: int


@dataclasses.dataclass(frozen=True)
class Comparison(Views):
    """A comparison says where an integer network differs from its Keras model.

    Attributes:
        activations: The activations on lists, in order.
        largest: The largest difference of an output, in units of the outputs' spread.
        same_class: The share of samples whose largest output is the same; 1 for outputs of one
            number.
        samples: The number of samples.
    """

    activations: list[ComparedActivation]
    largest: float
    same_class: float
    samples: int

    @property
    def is_exact(self) -> bool:
        """Whether all codes are Keras's."""
        return not any(each.differing for each in self.activations)

    def table(self) -> Table:
        """Return the comparison as a table, with the outputs below it."""
        columns = [
            Column("activation"),
            Column("rounded by"),
            Column("codes", align="right", show="{:,}".format),
            Column("differ", align="right", show="{:,}".format),
            Column("steps at most", align="right"),
        ]
        rows = [list(dataclasses.astuple(a)) for a in self.activations]
        footer = [
            f"outputs of {self.samples:,} samples: largest difference to Keras {self.largest:.2g} "
            f"of their spread, the same class in {100 * self.same_class:.6g} %"
        ]
        return Table(columns, rows, footer=footer)

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as data that JSON can hold."""
        return plain(dataclasses.asdict(self))


def compared(
    program: IntegerProgram,
    values: Sequence[Integers],
    outputs: Sequence[NDArray[Any]],
    reference: KerasReference,
    x: Any,
) -> Comparison:
    """Return how integers differ from what Keras computes.

    Args:
        program: The integer network.
        values: All its values for the inputs.
        outputs: The float outputs that these stand for.
        reference: The Keras model.
        x: The inputs.
    """
    computed = reference.computed(x)
    calls = {name: iter(arrays) for name, arrays in computed.activations.items()}
    activations = [
        _compared(activation, values[activation.value], next(calls[activation.name]))
        for activation in program.activations
    ]
    largest, agreeing = 0.0, []
    for output, expected in zip(outputs, computed.outputs, strict=True):
        spread = float(np.sqrt(np.mean(expected.astype(np.float64) ** 2))) or 1.0
        largest = max(largest, float(np.abs(output - expected).max()) / spread)
        if expected.ndim > 1 and expected.shape[-1] > 1:
            agreeing.append(np.mean(output.argmax(axis=-1) == expected.argmax(axis=-1)))
    same = float(min(agreeing, default=1.0))
    return Comparison(activations, largest, same, len(computed.outputs[0]))


def _compared(
    activation: Activation, integers: Integers, numbers: NDArray[Any]
) -> ComparedActivation:
    """Return how the integers of an activation differ from Keras's numbers."""
    grid = activation.grid
    indices = np.searchsorted(grid.integers, integers)
    expected = codes_of(
        numbers.reshape(len(numbers), -1).astype(np.float64), grid.levels, grid.scale
    )
    steps = np.abs(indices - expected)
    return ComparedActivation(
        activation.name, activation.way, steps.size, int((steps > 0).sum()), int(steps.max())
    )
