"""The layer that `quantal train` puts first: it takes the numbers of a table's rows."""

import json
from typing import Any

import keras
from keras import ops

from quantal._core.types import Tensor
from quantal._models.feature_plan import FeaturePlan


@keras.saving.register_keras_serializable(package="quantal")
class TableFeatures(keras.layers.Layer):
    """The layer computes features from the numbers of a table's rows, and keeps how to get those.

    Numbers stay; where one may be missing (NaN), a typical one stands for it, and a feature
    says so. Codes of categories become one-hot. What turns the text, dates and categories of a file
    into numbers travels in the layer's config: a saved model is all that `quantal predict` needs.

    Args:
        plan: What `FeaturePlan.to_dict` returned, or the same as JSON.
        table: How a table becomes rows of numbers, as data that JSON can hold; the layer only
            keeps it.

    Input: float32, shape (rows, numbers). Output: float32, shape (rows, features).

    >>> import numpy as np
    >>> plan = {"width": 1, "source": [0, 0], "kind": ["equal", "equal"],
    ...         "number": [1.0, 2.0], "name": ["colour=red", "colour=blue"]}
    >>> layer = TableFeatures(plan)
    >>> keras.ops.convert_to_numpy(layer(np.array([[2.0], [1.0]], "float32"))).tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """

    def __init__(
        self, plan: dict[str, Any] | str, table: dict[str, Any] | str | None = None, **kwargs: Any
    ):
        # Codes and dates are exact in float32 alone; NaN is not to meet a cast.
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.plan = FeaturePlan.from_dict(json.loads(plan) if isinstance(plan, str) else plan)
        # As a text: Keras turns the dicts of a layer into classes of its own.
        self._table = table if isinstance(table, str) else json.dumps(table or {})

    @property
    def table(self) -> dict[str, Any]:
        """The data on how a table becomes rows of numbers."""
        return json.loads(self._table)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Check how many numbers a row has."""
        if input_shape[-1] != self.plan.width:
            raise ValueError(
                f"The rows have {input_shape[-1]} numbers. Expected {self.plan.width}."
            )

    def call(self, inputs: Tensor) -> Tensor:
        """Return the features of rows."""
        return self.plan.expand(inputs, ops)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the shape of the features."""
        return (input_shape[0], len(self.plan.features))

    def get_config(self) -> dict[str, Any]:
        """Return the layer's arguments."""
        # As texts: numbers in lists would be taken for shapes.
        texts = {"plan": json.dumps(self.plan.to_dict()), "table": self._table}
        return {**super().get_config(), **texts}
