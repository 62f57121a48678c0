"""Clone a Keras model, with some of its layers replaced.

The old model stays as it is. Sequential and functional models are cloned along their
graph; other layers and subclassed models are created from their config, and the layers
among their attributes exchanged before they are built.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
from keras import ops

from quantal._core.by_identity import ByIdentity
from quantal._core.keras_internals import compile_arguments, flatten_layers, own_variables, untrack
from quantal._models.layer_state import LayerPair, copy_state
from quantal._models.walk import is_container, layer_attributes, layers_among


class Replacement(NamedTuple):
    """A replacement is a new layer for an old one, whose values it takes over.

    `inner` is `layer` itself, or a layer inside it where `layer` is a wrapper: its
    weights, once it is built, continue `variables` one by one.

    Attributes:
        layer: The new layer, not built yet.
        inner: The layer whose weights continue the old variables.
        variables: Variables of the old layer, in the order of `inner.weights`; none
            where nothing is taken over.
    """

    layer: keras.Layer
    inner: keras.Layer
    variables: list[keras.Variable]


class VariablePair(NamedTuple):
    """A pair holds an old variable and the new one that stands for it in the clone."""

    old: keras.Variable
    new: keras.Variable


class Clone(NamedTuple):
    """A clone is a new model, with pairs that say which part continues which old one.

    Attributes:
        model: The new model.
        pairs: The old variables and the new ones that continue them.
        layer_pairs: The old layers and the new ones of the same class that continue them.
    """

    model: keras.Model
    pairs: list[VariablePair]
    layer_pairs: list[LayerPair]

    def set_state(self, set_weights: Callable[[], None]) -> None:
        """Set the flags and whatever else the layers keep; a function sets the weights."""
        copy_state(self.layer_pairs, set_weights)
        for old_variable, new_variable in self.pairs:
            if new_variable.trainable != old_variable.trainable:
                new_variable.trainable = old_variable.trainable


def clone_replacing(
    model: keras.Model,
    replace: Callable[[keras.Layer], Replacement | None],
    unwrap: Callable[[keras.Layer], keras.Layer] = lambda layer: layer,
) -> Clone:
    """Clone a model, with other layers in place of those that `replace` names.

    Values are not copied: that is the caller's part, pair by pair.

    Args:
        model: A built model.
        replace: Returns a replacement for a layer, or None to keep it. It is called for
            the outermost layers first, and for layers inside those that it keeps.
        unwrap: Returns the layer that shall stand for a layer, such as the one it wraps.

    Raises:
        ValueError: A layer cannot be created from its config, or one that is to be
            replaced cannot be reached.
    """
    cloning = _Cloning(replace, unwrap)
    new = cloning.clone(model)
    if not new.built:
        new.build_from_config(model.get_build_config())
        # Keras has run the call, which created the weights, but does not mark it built.
        new.built = True
    pairs: list[VariablePair] = []
    for old_variables, new_layer, weights_of_layer, _ in cloning.parts:
        new_variables = weights_of_layer(new_layer)
        if len(old_variables) != len(new_variables):
            raise ValueError(
                f"The layer {new_layer.name!r} has {len(old_variables)} variables; created "
                f"from its config it has {len(new_variables)}. Expected the same. Let "
                "its get_config describe all of it, or take it before LoRA or quantize "
                "changed it."
            )
        pairs += map(VariablePair, old_variables, new_variables)
    return Clone(new, pairs, cloning.layer_pairs())


def clone_layer(layer: keras.Layer, name: str) -> keras.Layer:
    """Create the same layer from its config, under a name, not built.

    Raises:
        ValueError: The config does not describe the layer.
    """
    # A Lambda of this process is as safe as the model it comes from.
    trust = {"safe_mode": False} if isinstance(layer, keras.layers.Lambda) else {}
    try:
        config = {**layer.get_config(), "name": name}
        return type(layer).from_config(config, **trust)
    except (NotImplementedError, TypeError, ValueError, KeyError) as error:
        raise ValueError(
            f"The layer {layer.name!r} of type {type(layer).__name__} cannot be created "
            f"from its config ({error}). Expected get_config and from_config that describe "
            "it. Add them to the class, as saving the model asks for, too."
        ) from error


def compile_like(model: keras.Model, new: keras.Model) -> None:
    """Compile a new model as the old one is, with a new optimizer and new metrics."""

    def fresh(item: Any) -> Any:
        if isinstance(item, (keras.optimizers.Optimizer, keras.metrics.Metric)):
            return type(item).from_config(item.get_config())
        if isinstance(item, dict):
            return {name: fresh(entry) for name, entry in item.items()}
        return [fresh(entry) for entry in item] if isinstance(item, (list, tuple)) else item

    arguments = compile_arguments(model)
    new.compile(**{name: fresh(item) for name, item in arguments.items()})


def copy_value(old: keras.Variable, new: keras.Variable) -> None:
    """Assign the old variable's value to the new one, in separate memory."""
    # JAX's trainer donates the memory of its variables.
    new.assign(ops.convert_to_numpy(old))


def _all_weights(layer: keras.Layer) -> list[keras.Variable]:
    return list(layer.weights)


class _Part(NamedTuple):
    """A part is a new layer that continues old variables, and how to list its variables.

    Attributes:
        old_variables: The old variables.
        new_layer: The new layer.
        weights_of_layer: A function that lists its variables once it is built.
        old_layer: The old layer, where the new one is of the same class.
    """

    old_variables: list[keras.Variable]
    new_layer: keras.Layer
    weights_of_layer: Callable[[keras.Layer], list[keras.Variable]]
    old_layer: keras.Layer | None

    @property
    def layer_pairs(self) -> list[LayerPair]:
        """The layers and those inside them, if they continue whole with their insides."""
        if self.old_layer is None:
            return []
        if self.weights_of_layer is not _all_weights:
            return [LayerPair(self.old_layer, self.new_layer)]
        old, new = flatten_layers(self.old_layer), flatten_layers(self.new_layer)
        if [type(layer) for layer in old] != [type(layer) for layer in new]:
            raise ValueError(
                f"The layer {self.old_layer.name!r} has {len(old) - 1} layers inside; created "
                f"from its config it has {len(new) - 1}, or of other classes. Expected the "
                "same. Create them all in its constructor or in build."
            )
        return list(map(LayerPair, old, new))


class _Cloning:
    """One cloning keeps track, so that a layer is cloned once however often it is shared."""

    def __init__(
        self,
        replace: Callable[[keras.Layer], Replacement | None],
        unwrap: Callable[[keras.Layer], keras.Layer],
    ) -> None:
        self._replace, self._unwrap = replace, unwrap
        self._replacements: ByIdentity[Replacement | None] = ByIdentity()
        self._clones: ByIdentity[keras.Layer] = ByIdentity()
        self._graphs: list[LayerPair] = []
        self.parts: list[_Part] = []

    def layer_pairs(self) -> list[LayerPair]:
        """Return the old layers and the new ones that continue them, each once."""
        pairs = [*self._graphs, *(pair for part in self.parts for pair in part.layer_pairs)]
        return list(ByIdentity((pair.new, pair) for pair in pairs).values())

    def clone(self, layer: Any) -> Any:
        """Return the clone of a layer, a model or an operation in a graph."""
        if not isinstance(layer, keras.Layer):
            # An operation, such as the sum of two tensors.
            return type(layer).from_config(layer.get_config())
        if layer not in self._clones:
            self._clones[layer] = self._new(layer)
        return self._clones[layer]

    def _new(self, layer: keras.Layer) -> keras.Layer:
        name, layer = layer.name, self._unwrap(layer)
        replacement = self._replacement(layer)
        if replacement is not None:
            inner = replacement.inner
            old = layer if type(layer) is type(inner) else None
            self.parts.append(_Part(replacement.variables, inner, _all_weights, old))
            return replacement.layer
        if is_container(layer):
            return self._clone_graph(layer)
        new = clone_layer(layer, name)
        self._continue(layer, new)
        return new

    def _replacement(self, layer: keras.Layer) -> Replacement | None:
        if layer not in self._replacements:
            self._replacements[layer] = self._replace(layer)
        return self._replacements[layer]

    def _clone_graph(self, model: keras.Model) -> keras.Model:
        compiled = model.compiled
        try:
            # Keras would compile the clone, and cannot where a loss is not registered.
            model.compiled = False
            new = keras.models.clone_model(model, clone_function=self.clone)
        finally:
            model.compiled = compiled
        self._graphs.append(LayerPair(model, new))
        return new

    def _continue(self, old: keras.Layer, new: keras.Layer) -> None:
        """Let a new layer continue an old one, with layers inside it exchanged if need be."""
        inside = [inner for inner in flatten_layers(old) if inner is not old]
        if any(self._unwrap(i) is not i or self._replacement(i) is not None for i in inside):
            self._exchange(old, new)
        else:
            self.parts.append(_Part(_all_weights(old), new, _all_weights, old))

    def _exchange(self, old: keras.Layer, new: keras.Layer) -> None:
        """Exchange the layers among the attributes of a new layer."""
        self.parts.append(_Part(own_variables(old), new, own_variables, old))
        reached: ByIdentity[None] = ByIdentity()
        for name, value in layer_attributes(old).items():
            inside = layers_among(value)
            reached.update((inner, None) for layer in inside for inner in flatten_layers(layer))
            current = getattr(new, name, None)
            if len(layers_among(current)) != len(inside):
                _refuse_unreachable(old, inside[0])
            exchanged = self._exchanged(value, current)
            for layer in layers_among(current):
                if not any(layer is kept for kept in layers_among(exchanged)):
                    untrack(new, layer)
            setattr(new, name, exchanged)
        for inner in flatten_layers(old):
            if inner is not old and inner not in reached:
                _refuse_unreachable(old, inner)

    def _exchanged(self, old: Any, new: Any) -> Any:
        """Return an attribute of a new layer with the layers in it exchanged."""
        if isinstance(old, keras.Layer):
            return self._inner(old, new)
        if isinstance(old, dict):
            return {name: self._exchanged(old[name], new[name]) for name in old}
        if isinstance(old, (list, tuple)):
            entries = [self._exchanged(*pair) for pair in zip(old, new, strict=True)]
            return tuple(entries) if isinstance(old, tuple) else entries
        return new

    def _inner(self, old: keras.Layer, new: keras.Layer) -> keras.Layer:
        """Return the layer for `old` inside a layer whose constructor created `new` for it."""
        if old in self._clones:
            return self._clones[old]
        is_kept = self._unwrap(old) is old and self._replacement(old) is None
        if not is_kept or is_container(old):
            return self.clone(old)
        self._clones[old] = new
        self._continue(old, new)
        return new


def _refuse_unreachable(outer: keras.Layer, inner: keras.Layer) -> None:
    raise ValueError(
        f"The layer {inner.name!r} inside {outer.name!r} cannot be reached: created from its "
        f"config, {outer.name!r} has no such layer before it is built. Expected layers that "
        "its constructor creates and keeps as attributes. Create them there, or wrap the "
        "layer in quantal.Discrete by hand."
    )
