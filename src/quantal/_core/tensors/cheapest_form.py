"""A step function is created in its cheapest exact form.

The forms and their cost stand at the head of `step_functions`, those of PyTorch on a processor
in `blocks`.
"""

from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from quantal._core.tensors.blocks import InBlocks, block_form
from quantal._core.tensors.pair_table import PairTable
from quantal._core.tensors.step_functions import (
    LONGEST_CHAIN,
    LONGEST_EAGER_CHAIN,
    Bisection,
    Buckets,
    Chain,
    Grid,
    StepFunction,
)
from quantal._core.tensors.step_table import StepTable


def step_function(thresholds: NDArray[np.float32], levels: NDArray[Any]) -> StepFunction:
    """Return the step function of thresholds and levels in the cheapest exact form.

    Args:
        thresholds: float32, shape (n,), strictly ascending.
        levels: float32 or int32, shape (n + 1,).

    >>> import numpy as np
    >>> from keras import ops
    >>> steps = step_function(np.array([0.0], "float32"), np.array([-1, 1], "int32"))
    >>> ops.convert_to_numpy(steps([-0.5, 0.0]))
    array([-1,  1], dtype=int32)
    """
    form = _traced_form(thresholds, levels)
    if keras.config.backend() != "torch":
        return form
    if len(thresholds) > LONGEST_EAGER_CHAIN and not isinstance(form, Grid):
        form = Bisection(thresholds, levels, form)
    return InBlocks(block_form(thresholds, levels), levels.dtype.name, form)


def _traced_form(thresholds: NDArray[np.float32], levels: NDArray[Any]) -> StepFunction:
    if len(thresholds) <= LONGEST_CHAIN:
        return Chain(thresholds, levels)
    if Grid.holds(thresholds, levels):
        return Grid(thresholds, levels)
    # Under PyTorch's compiler a look at a table waits for no other one.
    pairs = None if keras.config.backend() == "torch" else PairTable.of(thresholds, levels)
    return pairs or StepTable.of(thresholds, levels) or Buckets(thresholds, levels)
