"""The data of a sweep: what it trains on, and what it compares the trained models on."""

import hashlib
from typing import Any, NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray

from quantal._core.tensors.distributed import whole_array

DEFAULT_SHARE = 0.2
"""The share of the samples that is held out where no validation data are given."""

_SPLIT_SEED = 0
"""The samples are split alike in every trial and every process."""


class Data(NamedTuple):
    """The data have a part for training and a part for comparison.

    Attributes:
        x: Inputs for `fit`, or batches of inputs and targets.
        y: Targets, or None.
        validation: What `fit` takes as `validation_data`.
    """

    x: Any
    y: Any
    validation: Any

    def digests(self) -> dict[str, str]:
        """Return texts that are the same for the same data, of arrays; of batches their type."""
        return {
            "training data": digest((self.x, self.y)),
            "validation data": digest(self.validation),
        }


def data_of(x: Any, y: Any, fit: dict[str, Any]) -> Data:
    """Return the data, with a part of the samples held out if there are no others.

    Args:
        x: Inputs for `fit`.
        y: Targets for `fit`.
        fit: Other arguments of `fit`; `validation_data` and `validation_split` are taken out.

    Raises:
        ValueError: No part can be held out.
    """
    validation = fit.pop("validation_data", None)
    share = fit.pop("validation_split", None)
    if validation is not None:
        return Data(x, y, validation)
    share = DEFAULT_SHARE if share is None else float(share)
    if y is None or "sample_weight" in fit:
        reason = "x has no y" if y is None else "sample_weight came"
        raise ValueError(
            f"There are no validation_data, and {reason}, so nothing can be held out. Expected "
            "arrays x and y, or validation_data, by which trials are compared. Give "
            "validation_data=(x_validation, y_validation)."
        )
    arrays = keras.tree.map_structure(_as_array, (x, y))
    counts = {len(array) for array in keras.tree.flatten(arrays)}
    if len(counts) != 1:
        raise ValueError(f"x and y have {sorted(counts)} samples. Expected as many in each.")
    (count,) = counts
    held_out = round(share * count)
    if not 0 < held_out < count:
        raise ValueError(
            f"validation_split {share:g} of {count} samples leaves {count - held_out} to train on "
            f"and {held_out} to compare on. Expected at least one of each."
        )
    order = np.random.default_rng(_SPLIT_SEED).permutation(count)
    parts = (np.sort(order[held_out:]), np.sort(order[:held_out]))
    (train_x, train_y), validation = (
        keras.tree.map_structure(lambda array, part=part: array[part], arrays) for part in parts
    )
    return Data(train_x, train_y, validation)


def digest(data: Any) -> str:
    """Return a text that is the same for the same arrays; of other things it names the type."""
    if isinstance(data, list):
        data = tuple(data)
    total = hashlib.sha256()
    for leaf in keras.tree.flatten(data):
        if leaf is None or isinstance(leaf, (bool, int, float, str)):
            total.update(repr(leaf).encode())
        elif hasattr(leaf, "__array__") or keras.ops.is_tensor(leaf):
            array = _as_array(leaf)
            total.update(f"{array.dtype}{array.shape}".encode())
            # Objects, such as texts of a table, have no bytes of their own.
            is_object = array.dtype == object
            total.update(repr(array.tolist()).encode() if is_object else array.tobytes())
        else:
            total.update(f"{type(leaf).__module__}.{type(leaf).__qualname__}".encode())
    return total.hexdigest()[:16]


def _as_array(array: Any) -> NDArray[Any]:
    if keras.ops.is_tensor(array):
        array = whole_array(array)
    return np.asarray(array)
