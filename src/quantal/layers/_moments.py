"""The call of a linear layer whose weight is random: by means and variances."""

from collections.abc import Callable, Sequence

import keras
from keras import ops

from quantal._core.by_identity import ByIdentity
from quantal._core.parameter import Parameter
from quantal._core.types import Tensor
from quantal._core.weight_scope import replacement_of
from quantal.estimators.mean_field import MeanField, moderated

_LINEAR = (
    keras.layers.Dense,
    keras.layers.EinsumDense,
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
)


def passes_moments(layer: keras.Layer, parameters: Sequence[Parameter]) -> bool:
    """Return whether a layer is linear in one weight whose mean and variance are known.

    A weight that is frozen, or that `weights_replaced` replaces, is not random.
    """
    return (
        len(parameters) == 1
        and not parameters[0].is_frozen
        and replacement_of(parameters[0]) is None
        and isinstance(parameters[0].estimator, MeanField)
        and isinstance(layer, _LINEAR)
        and layer.activation is keras.activations.linear
        and parameters[0].path.endswith("kernel")
    )


def moderated_call(
    layer: keras.Layer,
    parameter: Parameter,
    inputs: Tensor,
    call: Callable[[ByIdentity[Tensor], Tensor], Tensor],
) -> Tensor:
    """Call a layer with a random weight: the output's mean, moderated by its variance.

    Args:
        layer: A layer that `passes_moments`.
        parameter: Its weight.
        inputs: The inputs of the call.
        call: It calls the layer with tensors in place of variables, on inputs.
    """
    mean, variance = parameter.moments()
    means = call(ByIdentity([(parameter.latent, mean)]), inputs)
    # The variance of the output has no share of the other weights, such as the bias.
    tensors = ByIdentity([(v, ops.zeros(v.shape, v.dtype)) for v in layer.variables])
    tensors[parameter.latent] = variance
    # In a scope of its own: the losses of this second call are not the layer's.
    with keras.StatelessScope([], collect_losses=True):
        variances = call(tensors, ops.square(inputs))
    return moderated(means, variances)
