"""A row of a summary says what one weight of a model is, or one activation on a list."""

import dataclasses
from typing import Any

from quantal._core.numbers.short_name import short_name
from quantal._core.numbers.values import Values
from quantal._core.scale import resolve_activation_scale
from quantal._core.views import plain
from quantal.layers.activation import DiscreteActivation


@dataclasses.dataclass(frozen=True)
class SummaryRow:
    """A row says what one weight of a model is.

    Attributes:
        path: The weight's path in the model.
        shape: Its shape.
        values: The list that it is on, with the numbers it has now, or None.
        why: Why it is on a list or stays free: the rule that says so, where rules are
            known.
        bits_before: Bits of the weight as a free one.
        bits_after: Bits of its codes, scales and learned numbers; `bits_before` where it
            is free.
        error: Relative distance to the weight of the model compared with,
            `norm(w - v) / norm(w)`; None for free weights, and where there is no such
            model.
        output_error: Relative distance of the weight's outputs to those of the trained one, on
            the samples that `discretize` calibrated with; None where it did not.
        estimator: The name of its estimator; None for a free weight.
        scale: How its scale is learned or computed; None without one.
        scales: The number of its scales.
        entropy: The bits of an element that an ideal entropy coder needs for the codes as they
            are now; None for a free weight.
        usage: For each value of the list, in its order, the share of the elements that have it.
        macs: The multiply-accumulates that the weight takes part in, for one sample; None where
            they are not known.
        kind: What one of them comes down to: "XNORs" (with inputs of ±1 too, XNOR and popcount),
            "additions", "shifts", "look-ups" or "products".
        bytes: The bytes of its arrays in the file that `quantal.save` writes; 0 where they are
            the same as those of an earlier weight, and None where a weight of the model has no
            codes, since it is not finite.
    """

    path: str
    shape: tuple[int, ...]
    values: Values | None
    why: str
    bits_before: int
    bits_after: int
    error: float | None = None
    output_error: float | None = None
    estimator: str | None = None
    scale: str | None = None
    scales: int = 0
    entropy: float | None = None
    usage: tuple[float, ...] | None = None
    macs: int | None = None
    kind: str = "products"
    bytes: int | None = None

    @property
    def list_name(self) -> str | None:
        """The name of the list: a preset's, a few numbers, or how many; None for a free weight."""
        return None if self.values is None else short_name(self.values)

    def to_dict(self) -> dict[str, Any]:
        """Return the row as data that JSON can hold.

        The list is given as its numbers, a list of lists for lists per channel.
        """
        data = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values = None if self.values is None else self.values.tolist()
        return plain({**data, "list": self.list_name, "values": values})


@dataclasses.dataclass(frozen=True)
class SummaryActivation:
    """An activation of a summary says what one `DiscreteActivation` of a model is.

    Attributes:
        path: The layer's name, behind that of the layer it is within, if any.
        values: The list.
        scale: How its scale is learned or computed; None without one.
        scale_values: The scales as they are now, in the order of their axis; empty without one.
    """

    path: str
    values: Values
    scale: str | None = None
    scale_values: tuple[float, ...] = ()

    @classmethod
    def of(cls, layer: DiscreteActivation, path: str) -> "SummaryActivation":
        """Return what a layer is.

        Args:
            layer: The layer.
            path: Its path.
        """
        scale = resolve_activation_scale(layer.scale, layer.values)
        numbers = [] if scale is None or not layer.built else layer.scale_value().ravel().tolist()
        method = None if scale is None else scale.method
        return cls(path, layer.values, method, tuple(numbers))

    @property
    def bits(self) -> int:
        """The bits of a code of fixed length for one number."""
        return self.values.bits

    @property
    def list_name(self) -> str:
        """The name of the list: a preset's, a few numbers, or how many."""
        return short_name(self.values)

    def to_dict(self) -> dict[str, Any]:
        """Return the activation as data that JSON can hold."""
        data = {
            "path": self.path,
            "list": self.list_name,
            "values": self.values.tolist(),
            "bits": self.bits,
            "scale": self.scale,
            "scale_values": self.scale_values,
        }
        return plain(data)
