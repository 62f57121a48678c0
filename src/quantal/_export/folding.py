"""The model that is exported: plain, its multipliers folded into their neighbours."""

from collections import Counter
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

from quantal._core.by_identity import ByIdentity
from quantal._core.keras_internals import call_of, graph_outputs, kernel_variable, nodes_of
from quantal._core.parameter import parameters_of
from quantal._models.bake import plain_clone
from quantal._models.clone import Replacement
from quantal._models.finalize import trainable
from quantal.layers.discrete import unwrapped
from quantal.layers.multiplier import LearnableMultiplier

Factors = ByIdentity[NDArray[np.float32]]


def folded(model: keras.Model) -> keras.Model:
    """A plain model that computes what a discrete model computes in inference.

    As `quantal.bake`, but made for runtimes: a `LearnableMultiplier` of signs, zeros and
    powers of two along the last axis costs nothing where a Dense, a convolution or a
    normalization stands right before it, or a Dense or a convolution right after it. It
    is multiplied into their weights, which changes no rounding. Elsewhere it is a product
    with a constant.

    Args:
        model: A built model.
    """
    model = trainable(model)
    factors: Factors = ByIdentity()
    gone: set[int] = set()
    for multiplier, before, after in _neighbours(model):
        numbers = _numbers(multiplier)
        if not _only_powers(numbers) or multiplier.kernel_axes != [multiplier.input_spec.ndim - 1]:
            continue
        of_neighbour = _of_outputs(before, numbers) or _of_inputs(after, numbers)
        # A weight takes one multiplier: a second would need the first's product.
        if of_neighbour and not any(weight in factors for weight in of_neighbour):
            factors.update(of_neighbour)
            gone.add(id(multiplier))

    def replace(layer: LearnableMultiplier) -> Replacement:
        name, dtype = layer.name, layer.dtype_policy
        if id(layer) in gone:
            plain = layers.Identity(name=name, dtype=dtype)
        else:
            constant = np.reshape(_numbers(layer), layer.broadcast_shape[1:])
            plain = layers.Rescaling(constant.tolist(), name=name, dtype=dtype)
        return Replacement(plain, plain, [])

    return plain_clone(model, replace, factors)


def _numbers(multiplier: LearnableMultiplier) -> NDArray[np.float32]:
    (parameter,) = parameters_of(multiplier)
    return ops.convert_to_numpy(parameter.weight)  # type: ignore[no-any-return]


def _only_powers(numbers: NDArray[np.float32]) -> bool:
    """Whether products with these numbers round nothing."""
    return bool(np.isin(np.abs(np.frexp(numbers)[0]), [0, 0.5]).all())


def _neighbours(model: keras.Model) -> Any:
    """Each multiplier that is called once, with the layers that only it stands beside."""
    nodes = list(nodes_of(model))
    calls = Counter(id(node.operation) for node in nodes)
    outputs = {id(call_of(tensor).layer) for tensor in graph_outputs(model)}
    users: dict[int, list[Any]] = {}
    for node in nodes:
        for parent in node.parent_nodes:
            users.setdefault(id(parent), []).append(node)

    def alone(node: Any) -> Any:
        """The layer of a node that is called once, for one user, and is no output."""
        operation = node.operation
        once = calls[id(operation)] == 1 and len(users.get(id(node), [])) == 1
        return operation if once and id(operation) not in outputs else None

    for node in nodes:
        if isinstance(node.operation, LearnableMultiplier) and calls[id(node.operation)] == 1:
            parents, after = node.parent_nodes, users.get(id(node), [])
            before = alone(parents[0]) if len(parents) == 1 else None
            follows = alone(node) is not None and calls[id(after[0].operation)] == 1
            yield node.operation, before, after[0].operation if follows else None


def _of_outputs(layer: Any, numbers: NDArray[np.float32]) -> Factors:
    """Factors of a layer's weights that multiply its outputs; none where it cannot be."""
    layer = unwrapped(layer)
    if isinstance(layer, layers.BatchNormalization):
        weights = [layer.gamma, layer.beta] if layer.scale and layer.axis == -1 else []
        return ByIdentity([(weight, numbers) for weight in weights if weight is not None])
    if not _is_product(layer) or layer.activation is not keras.activations.linear:
        return ByIdentity()
    weights = [kernel_variable(layer), layer.bias]
    # Along the last axis of both.
    return ByIdentity([(weight, numbers) for weight in weights if weight is not None])


def _of_inputs(layer: Any, numbers: NDArray[np.float32]) -> Factors:
    """Factors of a layer's weights that multiply its inputs; none where it cannot be."""
    layer = unwrapped(layer)
    if not _is_product(layer):
        return ByIdentity()
    return ByIdentity([(kernel_variable(layer), numbers[:, None])])


def _is_product(layer: Any) -> bool:
    """Whether the kernel's last two axes are inputs and outputs, all inputs to all outputs."""
    if type(layer) is layers.Dense:
        return True
    if type(layer) in (layers.Conv1D, layers.Conv2D, layers.Conv3D):
        return bool(layer.groups == 1 and layer.data_format == "channels_last")
    return False
