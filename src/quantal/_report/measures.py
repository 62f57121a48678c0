"""What a model reaches on data: its loss and its metrics by their names."""

from typing import Any

import keras

BATCH_SIZE = 1024
"""Samples at once: memory is bounded, and one call serves small data."""


def measured(model: keras.Model, data: tuple[Any, ...], argument: str) -> dict[str, float]:
    """Return the loss and the metrics of a model on data.

    Args:
        model: A compiled model.
        data: Inputs and targets.
        argument: The argument's name, for errors.

    Raises:
        ValueError: The model is not compiled.
    """
    if not getattr(model, "compiled", False):
        raise ValueError(
            f"{argument} {model.name!r} is not compiled, so there is no loss to evaluate data "
            "with. Expected a compiled model. Call its compile with a loss and metrics; a model "
            "that quantal.load returned is not compiled. Or leave data out."
        )
    numbers = model.evaluate(*data, batch_size=BATCH_SIZE, verbose=0, return_dict=True)
    return {str(name): float(number) for name, number in numbers.items()}


def checked_data(data: Any) -> tuple[Any, Any]:
    """Return data as inputs and targets.

    Raises:
        TypeError: They are something else.
    """
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        raise TypeError(
            f"data is of type {type(data).__name__}. Expected a pair of inputs and targets, "
            "data=(x, y)."
        )
    return data[0], data[1]
