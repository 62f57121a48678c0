"""Return the weights of a layer as numbers, or as codes where a graph can keep them so."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from quantal._core.by_identity import ByIdentity
from quantal._core.parameter import Parameter, parameters_of
from quantal._core.tensors.distributed import whole_array
from quantal._core.types import Tensor
from quantal._export.graph.steps import Floats, Listed

View = Callable[[NDArray[Any]], NDArray[Any]]
"""A view brings an array of a weight's shape to the shape (outputs, inputs)."""


class Weights:
    """The weights of a model as its layers compute with them in inference.

    Args:
        model: A built model.
    """

    def __init__(self, model: keras.Model) -> None:
        self._parameters: ByIdentity[Parameter] = ByIdentity(
            [(parameter.latent, parameter) for parameter in parameters_of(model)]
        )

    def numbers(self, variable: keras.Variable | Tensor) -> Floats:
        """Return the numbers that a layer computes with in place of a variable."""
        parameter = self._parameters.get(variable)
        tensor = variable if parameter is None else parameter.weight
        return np.asarray(whole_array(ops.cast(tensor, "float32")), np.float64)

    def of_product(
        self, kernel: keras.Variable | Tensor, view: View
    ) -> tuple[Listed | Floats, Floats]:
        """Return a kernel's weights, shape (outputs, inputs), and a scale for each output."""
        parameter = self._parameters.get(kernel)
        if parameter is not None:
            return listed_weights(parameter, view)
        weights = view(self.numbers(kernel))
        return weights, np.ones(len(weights))


def listed_weights(parameter: Parameter, view: View) -> tuple[Listed | Floats, Floats]:
    """Return the weights of a parameter, and a scale for each output.

    They are on lists where every output has one list and one scale, else numbers.

    Args:
        parameter: The parameter.
        view: Brings an array of the parameter's shape to the shape (outputs, inputs).
    """
    shape, values = parameter.shape, parameter.values
    scale = 1.0 if parameter.scale is None else whole_array(parameter.scale)
    scales = view(np.broadcast_to(np.asarray(scale, np.float64), shape))
    lists = np.atleast_2d(values.numbers).astype(np.float64)
    channels = np.zeros((len(scales), 1), np.intp)
    if values.channels is not None:
        channels = view(np.indices(shape)[values.axis % len(shape)])
        lists = lists[channels[:, 0]]
    if (scales == scales[:, :1]).all() and (channels == channels[:, :1]).all():
        codes = np.asarray(whole_array(parameter.codes))
        return Listed(view(codes), lists), scales[:, 0]
    numbers = np.asarray(whole_array(parameter.weight), np.float64)
    return view(numbers), np.ones(len(scales))
