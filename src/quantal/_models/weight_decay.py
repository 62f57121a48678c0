"""Keep an optimizer's weight decay off the variables of parameters."""

import keras

from quantal._core.by_identity import ByIdentity
from quantal._core.parameter import parameters_of


def exclude_from_weight_decay(optimizer: keras.optimizers.Optimizer, model: keras.Model) -> None:
    """Exclude the latents, scales and learned lists of a model from weight decay.

    Decay would pull latents to the middle of their list, so that weights flip to its
    middle values for no gain in the loss. `discretize` does this for the models it
    compiles; do it by hand for others, before training.

    Args:
        optimizer: A Keras optimizer that has not been built yet.
        model: A built model.

    Raises:
        TypeError: The model is no Keras model or layer.
        ValueError: A discrete layer in it is not built.

    Example:
    >>> import keras, quantal
    >>> model = keras.Sequential([keras.Input((3,)), quantal.LearnableMultiplier([1, -1])])
    >>> optimizer = keras.optimizers.AdamW()
    >>> exclude_from_weight_decay(optimizer, model)
    >>> model.compile(optimizer, "mse")
    """
    decaying = getattr(optimizer, "inner_optimizer", optimizer)
    variables = [v for parameter in parameters_of(model) for v in parameter.variables]
    if not variables or not decaying.weight_decay:
        return
    decaying.exclude_from_weight_decay(var_list=variables)
    excluded = ByIdentity.of_keys(variables)
    if all(variable in excluded for variable in model.trainable_variables):
        # PyTorch's optimizers fail where nothing remains to decay.
        decaying.weight_decay = None
