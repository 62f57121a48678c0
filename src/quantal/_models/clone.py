"""Clone a Keras model, with some of its layers replaced.

The old model stays as it is. Sequential and functional models are cloned along their
graph; other layers and subclassed models are created from their config, and the layers
among their attributes exchanged before they are built.
"""

import warnings
from collections.abc import Callable, Container, Sequence
from typing import Any, NamedTuple

import keras

from quantal._core.by_identity import ByIdentity
from quantal._core.keras_internals.layers import flatten_layers, own_variables, set_layers, untrack
from quantal._core.parameter import parameters_of
from quantal._core.tensors.distributed import whole_array
from quantal._models.kept_class import (
    class_of,
    containers_of,
    has_class_of_its_own,
    methods_of_its_own,
)
from quantal._models.layer_state import LayerPair, copy_state
from quantal._models.loose_weights import refuse_loose_weights
from quantal._models.parts import Fresh, Part, Replace, Replacement, all_weights, clone_layer
from quantal._models.remake import Remake, remake_on_lists
from quantal._models.walk import holders_of, is_container, layer_attributes, layers_among


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

    def set_state(
        self, set_weights: Callable[[], None], except_for: Container[object] = ()
    ) -> None:
        """Set flags and whatever else the layers keep; a function sets the weights.

        Args:
            set_weights: The function.
            except_for: New variables whose flags stay as their layers' are.
        """
        copy_state(self.layer_pairs, set_weights)
        for old_variable, new_variable in self.pairs:
            is_other = new_variable.trainable != old_variable.trainable
            if is_other and new_variable not in except_for:
                new_variable.trainable = old_variable.trainable


def clone_replacing(
    model: keras.Model,
    replace: Replace,
    unwrap: Callable[[keras.Layer], keras.Layer] = lambda layer: layer,
) -> Clone:
    """Clone a model, with other layers in place of those that `replace` names.

    Values are not copied: that is the caller's part, pair by pair.

    Args:
        model: A built model.
        replace: Returns a replacement for a layer, or None to keep it. It is called for
            the outermost layers first, and for layers inside those that it keeps, and
            with a function that returns a layer to begin with.
        unwrap: Returns the layer that shall stand for a layer, such as the one it wraps.

    Raises:
        ValueError: A layer cannot be created from its config, one that is to be replaced
            cannot be reached, a weight is used outside of the layers that hold it, or no
            layer of the new model continues a weight.
    """
    refuse_loose_weights(model)
    taken: ByIdentity[None] = ByIdentity()

    def replace_noting(layer: keras.Layer, fresh: Fresh) -> Replacement | None:
        replacement = replace(layer, fresh)
        if replacement is not None:
            taken.update((variable, None) for variable in layer.weights)
        return replacement

    cloning = _Cloning(replace_noting, unwrap, holders_of(model))
    for container in containers_of(model):
        # First, so that a layer used outside of such a model is the layer inside it.
        if has_class_of_its_own(container):
            cloning.clone(container)
    new = cloning.clone(model)
    if not new.built:
        with warnings.catch_warnings():
            # Where Keras cannot trace the call, the layers are built one by one.
            warnings.filterwarnings("ignore", ".*cannot be built automatically")
            new.build_from_config(model.get_build_config())
            # Keras has run the call, which created the weights, but does not mark it built.
            new.built = True
            _build_rest(new, cloning.layer_pairs())
    pairs: list[VariablePair] = []
    for old_variables, new_layer, weights_of_layer, _ in cloning.parts:
        new_variables = weights_of_layer(new_layer)
        if len(old_variables) != len(new_variables):
            if not new_layer.built:
                raise ValueError(
                    f"The layer {new_layer.name!r} is not built in the new model: Keras cannot "
                    "trace the call of the model, and the layer does not say how it is built. "
                    "Expected a call that runs on symbolic inputs, or a layer whose "
                    "get_build_config gives what its build takes."
                )
            raise ValueError(
                f"The layer {new_layer.name!r} has {len(old_variables)} variables; created "
                f"from its config it has {len(new_variables)}. Expected the same. Let "
                "its get_config describe all of it, or take it before LoRA or quantize "
                "changed it."
            )
        pairs += map(VariablePair, old_variables, new_variables)
    taken.update((pair.old, None) for pair in pairs)
    _refuse_lost_weights(model, taken)
    return Clone(new, pairs, cloning.layer_pairs())


def _build_rest(new: keras.Layer, pairs: Sequence[LayerPair]) -> None:
    """Build layers that Keras has not built, because it cannot trace the model's call.

    Each is built as the one that it continues was; a wrapper as the layer inside it.
    """
    continued = ByIdentity((pair.new, pair.old) for pair in pairs)
    for layer in flatten_layers(new):
        old = continued.get(layer, continued.get(getattr(layer, "layer", None)))
        if layer.built or old is None or not old.built:
            continue
        config = old.get_build_config()
        if config:
            layer.build_from_config(config)


def copy_value(old: keras.Variable, new: keras.Variable) -> None:
    """Assign the old variable's value to the new one, in separate memory."""
    # JAX's trainer donates the memory of its variables.
    new.assign(whole_array(old))


class _Cloning:
    """One cloning keeps track, so that a layer is cloned once however often it is shared."""

    def __init__(
        self,
        replace: Replace,
        unwrap: Callable[[keras.Layer], keras.Layer],
        holders: ByIdentity[list[keras.Layer]],
    ) -> None:
        self._replace, self._unwrap, self._holders = replace, unwrap, holders
        self._replacements: ByIdentity[Replacement | None] = ByIdentity()
        self._clones: ByIdentity[keras.Layer] = ByIdentity()
        self._graphs: list[LayerPair] = []
        self.parts: list[Part] = []

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
            self.parts.append(Part(replacement.variables, inner, all_weights, old))
            return replacement.layer
        if is_container(layer):
            return self._clone_graph(layer)
        new = clone_layer(layer, name)
        self._continue(layer, new)
        return new

    def _replacement(self, layer: keras.Layer) -> Replacement | None:
        if layer not in self._replacements:
            self._replacements[layer] = self._replace(layer, clone_layer)
        return self._replacements[layer]

    def _clone_graph(self, model: keras.Model) -> keras.Model:
        if has_class_of_its_own(model):
            remake = remake_on_lists(model, self._replace, self._unwrap)
            if remake is not None:
                return self._take(model, remake)
        compiled = model.compiled
        try:
            # Keras would compile the clone, and cannot where a loss is not registered.
            model.compiled = False
            new = keras.models.clone_model(model, clone_function=self.clone)
        except ValueError as error:
            if not has_class_of_its_own(model):
                raise
            raise ValueError(
                f"The model {model.name!r} is not what its class {class_of(model).__name__} makes "
                f"from its config, and its graph cannot be cloned: {error} Or let get_config of "
                "the model's class return every argument of its constructor."
            ) from error
        finally:
            model.compiled = compiled
        self._graphs.append(LayerPair(model, new))
        if not isinstance(new, class_of(model)):
            _warn_of_lost_class(model, new)
        return new

    def _take(self, model: keras.Model, remake: Remake) -> keras.Model:
        """Take over what the model's own class has made."""
        self._clones.update(remake.clones)
        self.parts += remake.parts
        return remake.model

    def _continue(self, old: keras.Layer, new: keras.Layer) -> None:
        """Let a new layer continue an old one, with layers inside it exchanged if need be."""
        inside = [inner for inner in flatten_layers(old) if inner is not old]
        if any(
            self._unwrap(inner) is not inner
            or self._replacement(inner) is not None
            or self._is_tied(inner, old)
            for inner in inside
        ):
            self._exchange(old, new)
        else:
            self.parts.append(Part(all_weights(old), new, all_weights, old))

    def _is_tied(self, inner: Any, layer: keras.Layer) -> bool:
        """Return whether a layer inside another one is held by layers outside that one, too."""
        holders = self._holders.get(inner, [])
        if len(holders) < 2:
            return False
        # A holder that has the outer layer as a whole shares nothing less than that.
        has_layer = [any(part is layer for part in flatten_layers(holder)) for holder in holders]
        return any(has_layer) and not all(has_layer)

    def _exchange(self, old: keras.Layer, new: keras.Layer) -> None:
        """Exchange the layers among the attributes of a new layer."""
        self.parts.append(Part(own_variables(old), new, own_variables, old))
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
            set_layers(new, name, exchanged)
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


def _warn_of_lost_class(model: keras.Model, new: keras.Model) -> None:
    """Say that a new model has not the methods that the class of an old one has, if it has some."""
    methods = methods_of_its_own(model)
    if methods:
        warnings.warn(
            f"The model {model.name!r} of type {class_of(model).__name__} comes back as a "
            f"{type(new).__name__} without {', '.join(methods)}: from its config its class makes "
            "no such model. Expected get_config and from_config that describe every argument of "
            "the constructor. Add them, or set the weights of the baked model in your own.",
            stacklevel=2,
        )


def _refuse_lost_weights(model: keras.Model, taken: ByIdentity[None]) -> None:
    """Refuse a clone that would begin a weight anew; `taken` are those that it continues."""
    of_parameters = ByIdentity.of_keys(
        v for parameter in parameters_of(model) for v in parameter.other_variables
    )
    for variable in model.weights:
        if variable not in taken and variable not in of_parameters:
            raise ValueError(
                f"The weight {variable.path!r} of the model {model.name!r} would be lost: a new "
                "model made from the config has none in its place. Expected a config from which "
                "the model's class creates the same layers and weights. Create the weight in the "
                "constructor of the model or of a layer in it, and describe it in get_config."
            )


def _refuse_unreachable(outer: keras.Layer, inner: keras.Layer) -> None:
    raise ValueError(
        f"The layer {inner.name!r} inside {outer.name!r} cannot be reached: created from its "
        f"config, {outer.name!r} has no such layer before it is built. Expected layers that "
        "its constructor creates and keeps as attributes. Create them there, or wrap the "
        "layer in quantal.Discrete by hand."
    )
