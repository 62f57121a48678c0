"""Put weights of a model on lists, each as its specification says."""

from typing import Any, NamedTuple

import keras

from quantal._core.by_identity import ByIdentity
from quantal._core.parameter import parameters_of
from quantal._models.calibration.calibrate import Target
from quantal._models.clone import clone_replacing, copy_value
from quantal._models.compile_like import compile_like, optimizers_of
from quantal._models.parts import Fresh, Replacement
from quantal._models.rules import ListSpec
from quantal._models.walk import outermost_layers
from quantal._models.weight_decay import exclude_from_weight_decay
from quantal.layers._first_values import values_follow
from quantal.layers.discrete import Discrete, unwrapped


class Listed(NamedTuple):
    """A listed model comes with its new parameters, and the weight that each stands for."""

    model: keras.Model
    targets: list[Target]


def put_on_lists(model: keras.Model, specs: ByIdentity[ListSpec]) -> Listed:
    """Return a new model with some weights on lists, each at the nearest value.

    Args:
        model: A built model; it stays as it is.
        specs: What each weight is to become.
    """
    # Layers inside a composite layer go on lists with it, not by themselves.
    outermost = ByIdentity.of_keys(outermost_layers(model))

    def replace(layer: keras.Layer, fresh: Fresh) -> Replacement | None:
        is_listed = layer in outermost and any(v in specs for v in layer.weights)
        return _on_lists(layer, specs, fresh) if is_listed else None

    with values_follow():
        clone = clone_replacing(model, replace)
    new = clone.model
    parameters = ByIdentity([(parameter.latent, parameter) for parameter in parameters_of(new)])

    def set_weights() -> None:
        for old_variable, new_variable in clone.pairs:
            if old_variable in specs:
                parameters[new_variable].start_from(old_variable)
            else:
                copy_value(old_variable, new_variable)

    if model.compiled:
        # First, for the state has attributes that the class's own compile sets.
        compile_like(model, new)
        for optimizer in optimizers_of(new):
            exclude_from_weight_decay(optimizer, new)
    clone.set_state(set_weights)
    targets = [Target(parameters[pair.new], pair.old) for pair in clone.pairs if pair.old in specs]
    return Listed(new, targets)


def _on_lists(layer: keras.Layer, specs: ByIdentity[ListSpec], fresh: Fresh) -> Replacement:
    """Replace a layer by a fresh one within a `Discrete` for each of its lists."""
    weights = unwrapped(layer).weights
    names = [variable.name for variable in weights]
    positions_of: dict[tuple[Any, ...], list[int]] = {}
    for position, variable in enumerate(weights):
        if variable in specs:
            positions_of.setdefault(specs[variable].group, []).append(position)
    inner = new = fresh(layer)
    for positions in positions_of.values():
        listed_names = sorted({names[position] for position in positions})
        named = [position for position, name in enumerate(names) if name in listed_names]
        spec = specs[weights[positions[0]]]
        new = Discrete(
            new,
            spec.values,
            # Names where they say it all: they outlast a change of the layer.
            listed_names if named == positions else positions,
            estimator=spec.estimator,
            scale=spec.scale,
            name=layer.name,
            trainable=layer.trainable,
        )
    return Replacement(new, inner, list(layer.weights))
