"""Refuse models that have diverged before a file is written."""

from typing import Any

import keras
import numpy as np
from keras import ops


def check_numbers(model: Any) -> None:
    """Refuse a model that has NaN among its weights.

    Raises:
        ValueError: A weight is NaN; the message names it.
    """
    for variable in getattr(model, "variables", ()):
        if "float" not in keras.backend.standardize_dtype(variable.dtype):
            continue
        numbers = ops.convert_to_numpy(ops.cast(variable, "float32"))
        count = int(np.isnan(numbers).sum())
        if count:
            raise ValueError(
                f"The model {model.name!r} has nan among its weights: {count} of {numbers.size} "
                f"numbers of {variable.path!r}. Expected finite float32 numbers. Its training "
                "diverged: train it again, at a smaller rate."
            )
