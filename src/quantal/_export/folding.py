"""Make the plain model that is exported, its multipliers folded into their neighbours."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from quantal._core.by_identity import ByIdentity
from quantal._core.keras_internals.graph import call_of, graph_outputs, nodes_of
from quantal._core.keras_internals.layers import kernel_variable
from quantal._core.parameter import parameters_of
from quantal._core.tensors.distributed import whole_array
from quantal._export.precision import in_float32
from quantal._models.bake import plain_clone
from quantal._models.finalize import trainable
from quantal._models.parts import Replacement
from quantal._models.plain_activation import plain_activation
from quantal.layers.activation import DiscreteActivation
from quantal.layers.discrete import unwrapped
from quantal.layers.multiplier import LearnableMultiplier

Factors = ByIdentity[NDArray[np.float32]]
"""Factors on weights, by their variables; each broadcasts over its weight."""


def folded(
    model: keras.Model,
    activation: Callable[[DiscreteActivation], keras.layers.Layer] = plain_activation,
) -> keras.Model:
    """Return a plain model that computes what a discrete model computes in inference.

    It is like that of `quantal.bake`, but for runtimes: a `LearnableMultiplier` of signs,
    zeros and powers of two along the last axis costs nothing where a Dense, a convolution
    or a normalization stands right before it, or a Dense or a convolution right after it.
    It is multiplied into their weights, which changes no rounding. Elsewhere it is a product
    with a constant. A model of half precision becomes one of float32.

    Args:
        model: A built model.
        activation: Returns the plain layer that takes the place of a discrete activation.
    """
    model = trainable(model)
    factors: Factors = ByIdentity()
    absorbed: ByIdentity[None] = ByIdentity()
    for multiplier, before, after in _neighbours(model):
        numbers = _numbers(multiplier)
        if not _only_powers(numbers) or multiplier.kernel_axes != [multiplier.input_spec.ndim - 1]:
            continue
        new = _factors_on_outputs(before, numbers) or _factors_on_inputs(after, numbers)
        # A weight takes one multiplier: a second would need the first's product.
        if new and not any(weight in factors for weight in new):
            factors.update(new)
            absorbed[multiplier] = None

    def replace(layer: LearnableMultiplier) -> Replacement:
        name, dtype = layer.name, layer.dtype_policy
        if layer in absorbed:
            plain = layers.Identity(name=name, dtype=dtype)
        else:
            constant = np.reshape(_numbers(layer), layer.broadcast_shape[1:])
            plain = layers.Rescaling(constant.tolist(), name=name, dtype=dtype)
        return Replacement(plain, plain, [])

    return in_float32(plain_clone(model, replace, factors, activation=activation))


def _numbers(multiplier: LearnableMultiplier) -> NDArray[np.float32]:
    (parameter,) = parameters_of(multiplier)
    return whole_array(parameter.weight)


def _only_powers(numbers: NDArray[np.float32]) -> bool:
    """Return whether products with these numbers round nothing."""
    return bool(np.isin(np.abs(np.frexp(numbers)[0]), [0, 0.5]).all())


class _Neighbours(NamedTuple):
    """A multiplier with the layers right before and after it that could absorb it.

    A neighbour is None where it cannot: another layer sees what lies between the two.
    """

    multiplier: LearnableMultiplier
    before: Any
    after: Any


def _neighbours(model: keras.Model) -> Iterator[_Neighbours]:
    """Yield each multiplier that is called once, with its neighbours."""
    graph = _Graph(model)
    for node in graph.nodes:
        multiplier = node.operation
        if not isinstance(multiplier, LearnableMultiplier) or not graph.is_called_once(multiplier):
            continue
        before = after = None
        if len(node.parent_nodes) == 1:
            (parent,) = node.parent_nodes
            if graph.is_called_once(parent.operation) and graph.only_user(parent) is not None:
                before = parent.operation
        user = graph.only_user(node)
        if user is not None and graph.is_called_once(user.operation):
            after = user.operation
        yield _Neighbours(multiplier, before, after)


class _Graph:
    """The graph of a model's calls, with the calls that read the outputs of each.

    Args:
        model: A built model; a subclassed one has no nodes.
    """

    def __init__(self, model: keras.Model) -> None:
        self.nodes = list(nodes_of(model))
        self._calls: ByIdentity[int] = ByIdentity()
        self._users: ByIdentity[list[Any]] = ByIdentity()
        outputs = [(call_of(tensor).layer, None) for tensor in graph_outputs(model)]
        self._output_layers: ByIdentity[None] = ByIdentity(outputs)
        for node in self.nodes:
            self._calls[node.operation] = self._calls.get(node.operation, 0) + 1
            for parent in node.parent_nodes:
                self._users.setdefault(parent, []).append(node)

    def is_called_once(self, layer: Any) -> bool:
        """Return whether a layer is called once."""
        return self._calls.get(layer) == 1

    def only_user(self, node: Any) -> Any:
        """Return the only node that reads a call's outputs; None if several or the user do."""
        users = self._users.get(node, [])
        return users[0] if len(users) == 1 and node.operation not in self._output_layers else None


def _factors_on_outputs(layer: Any, numbers: NDArray[np.float32]) -> Factors:
    """Return factors on a layer's weights that multiply its outputs; none if impossible."""
    layer = unwrapped(layer)
    if isinstance(layer, layers.BatchNormalization):
        weights = [layer.gamma, layer.beta] if layer.scale and layer.axis == -1 else []
    elif _is_product(layer) and layer.activation is keras.activations.linear:
        # Outputs lie along the last axis of both.
        weights = [kernel_variable(layer), layer.bias]
    else:
        weights = []
    return ByIdentity([(weight, numbers) for weight in weights if weight is not None])


def _factors_on_inputs(layer: Any, numbers: NDArray[np.float32]) -> Factors:
    """Return factors on a layer's kernel that multiply its inputs; none if impossible."""
    layer = unwrapped(layer)
    if not _is_product(layer):
        return ByIdentity()
    return ByIdentity([(kernel_variable(layer), numbers[:, None])])


def _is_product(layer: Any) -> bool:
    """Return whether a kernel's last two axes are inputs and outputs, each with each."""
    if type(layer) is layers.Dense:
        return True
    if type(layer) in (layers.Conv1D, layers.Conv2D, layers.Conv3D):
        return bool(layer.groups == 1 and layer.data_format == "channels_last")
    return False
