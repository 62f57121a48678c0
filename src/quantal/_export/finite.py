"""Refuse models that have diverged before a file is written."""

import keras
import numpy as np
from keras import ops

from quantal._core.by_identity import ByIdentity
from quantal._core.parameter import parameters_of
from quantal._core.tensors.distributed import whole_array


def check_numbers(model: keras.Model) -> None:
    """Refuse a model that has NaN among its weights, or infinite numbers in listed ones.

    Raises:
        ValueError: A weight is such; the message names it.
    """
    listed = ByIdentity.of_keys(
        variable
        for parameter in parameters_of(model)
        for variable in (parameter.latent, *parameter.other_variables)
    )
    for variable in model.variables:
        if "float" not in keras.backend.standardize_dtype(variable.dtype):
            continue
        numbers = whole_array(ops.cast(variable, "float32"))
        is_bad = ~np.isfinite(numbers) if variable in listed else np.isnan(numbers)
        if is_bad.any():
            raise ValueError(
                f"The model {model.name!r} has {numbers[is_bad].ravel()[0]} among its weights: "
                f"{np.count_nonzero(is_bad)} of {numbers.size} "
                f"numbers of {variable.path!r}. Expected finite float32 numbers. Its training "
                "diverged: train it again, at a smaller rate."
            )
