"""A plan says how the numbers of a table's rows become the features that a model computes with.

It needs NumPy alone: the layer `TableFeatures` follows the same plan with the ops of Keras.
"""

import dataclasses
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

KINDS = ("number", "missing", "equal")
"""A feature is the number itself, whether it is missing, or whether it equals a code."""


class Feature(NamedTuple):
    """A feature is computed from one number of a row.

    Attributes:
        source: The position of the number in a row.
        kind: One of `KINDS`.
        number: What stands for a missing number; or the code that it is compared with.
        name: The feature's name, for pictures.
    """

    source: int
    kind: str
    number: float
    name: str


@dataclasses.dataclass(frozen=True)
class FeaturePlan:
    """A plan computes features from rows of numbers, NaN where one is missing.

    Attributes:
        features: The features in their order.
        width: The count of numbers in a row.
    """

    features: tuple[Feature, ...]
    width: int

    @property
    def is_identity(self) -> bool:
        """Whether the features are the numbers themselves; then none is missing."""
        kinds = {feature.kind for feature in self.features}
        sources = [feature.source for feature in self.features]
        return kinds == {"number"} and sources == list(range(self.width))

    def expand(self, rows: Any, xp: Any = np) -> Any:
        """Return the features of rows.

        Args:
            rows: float32, shape (rows, width).
            xp: The module to compute with: numpy or keras.ops.
        """
        if self.is_identity:
            return rows
        sources, number, is_number, is_missing = self._arrays()
        # Along axis 1, Keras on PyTorch squeezes what it takes, which ONNX Runtime refuses.
        taken = xp.transpose(xp.take(xp.transpose(rows), sources, axis=0))
        gap = xp.isnan(taken)
        one, zero = np.float32(1), np.float32(0)
        # ONNX Runtime chooses between floats alone, not between booleans.
        flags = xp.where(is_missing, xp.where(gap, one, zero), xp.where(taken == number, one, zero))
        return xp.where(is_number, xp.where(gap, number, taken), flags)

    def _arrays(self) -> tuple[NDArray[Any], ...]:
        kinds = np.array([feature.kind for feature in self.features])
        return (
            np.array([feature.source for feature in self.features], np.int32),
            np.array([feature.number for feature in self.features], np.float32),
            kinds == "number",
            kinds == "missing",
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as data that JSON can hold."""
        columns = zip(*self.features, strict=True)
        return {"width": self.width, **dict(zip(Feature._fields, map(list, columns), strict=True))}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Return the plan that `to_dict` described.

        Raises:
            ValueError: The data describe no plan.
        """
        columns = [data[name] for name in Feature._fields]
        features = tuple(Feature(*entries) for entries in zip(*columns, strict=True))
        width = data["width"]
        if (
            not features
            or {f.kind for f in features} - set(KINDS)
            or not all(0 <= f.source < width for f in features)
        ):
            raise ValueError(
                f"The plan has {len(features)} features of {width} numbers. Expected at least one, "
                f"of the kinds {', '.join(KINDS)}, each of a number in the row."
            )
        return cls(features, width)
