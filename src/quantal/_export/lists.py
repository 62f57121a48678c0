"""Collect the lists of a model, which help to recognize its weights among floats."""

import keras
import numpy as np
from numpy.typing import NDArray

from quantal._core.parameter import parameters_of


def lists_of(model: keras.Model) -> list[NDArray[np.float32]]:
    """Return the lists of a model's parameters, each float32 (K,); not those per channel."""
    lists = [parameter.values.numbers for parameter in parameters_of(model)]
    return [numbers for numbers in lists if numbers.ndim == 1]
