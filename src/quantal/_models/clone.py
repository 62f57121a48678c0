"""A Keras model built anew, with some of its layers replaced.

The old model stays as it is. Sequential and functional models are cloned along their
graph; other layers and subclassed models are made from their config, and the layers
among their attributes exchanged before they are built.
"""

from collections.abc import Callable, Iterator
from typing import Any

import keras

from quantal._core.keras_internals import compile_arguments, flatten_layers, own_variables, untrack

Replacement = tuple[keras.Layer, keras.Layer, list[keras.Variable]]
"""The new layer; the layer inside it whose weights take the place of old variables; these."""


def rebuilt(
    model: keras.Model,
    replace: Callable[[keras.Layer], Replacement | None],
    unwrap: Callable[[keras.Layer], keras.Layer] = lambda layer: layer,
) -> tuple[keras.Model, list[tuple[keras.Variable, keras.Variable]]]:
    """A new model with the same layers, but those that `replace` exchanges.

    Args:
        model: A built model.
        replace: Gives a replacement, unbuilt, or None to keep the layer. It is asked
            for the outermost layers first, and for layers inside those that it keeps.
        unwrap: Gives the layer that shall stand for a layer, say the one it wraps.

    Returns:
        The new model, and every old variable with the new one in its place. Values are
        not copied.

    Raises:
        ValueError: A layer cannot be made from its config, or one that is to be
            replaced cannot be reached.
    """
    rebuilding = _Rebuilding(replace, unwrap)
    new = rebuilding.of(model)
    if not new.built:
        new.build_from_config(model.get_build_config())
        # Keras has run its call to make the weights, and does not say so.
        new.built = True
    pairs: list[tuple[keras.Variable, keras.Variable]] = []
    for old_variables, new_layer, weights_of in rebuilding.pairs:
        new_variables = weights_of(new_layer)
        if len(old_variables) != len(new_variables):
            raise ValueError(
                f"The layer {new_layer.name!r} has {len(old_variables)} variables; made "
                f"again from its config it has {len(new_variables)}. Expected the same. Let "
                "its get_config describe all of it, or take it before LoRA or quantize "
                "changed it."
            )
        pairs += zip(old_variables, new_variables, strict=True)
    return new, pairs


def compile_like(model: keras.Model, new: keras.Model) -> None:
    """Compile the new model as the old one is, with an optimizer and metrics of its own."""

    def fresh(item: Any) -> Any:
        if isinstance(item, (keras.optimizers.Optimizer, keras.metrics.Metric)):
            return type(item).from_config(item.get_config())
        if isinstance(item, dict):
            return {name: fresh(entry) for name, entry in item.items()}
        return [fresh(entry) for entry in item] if isinstance(item, (list, tuple)) else item

    arguments = compile_arguments(model)
    new.compile(**{name: fresh(item) for name, item in arguments.items()})


def outermost_layers(model: keras.Layer) -> Iterator[keras.Layer]:
    """The layers of a model and of the models inside it, each once; no layer inside a layer."""
    seen: set[int] = set()

    def walk(layer: keras.Layer, top: bool) -> Iterator[keras.Layer]:
        if id(layer) in seen or isinstance(layer, keras.layers.InputLayer):
            return
        seen.add(id(layer))
        if is_container(layer):
            for inner in layer.layers:
                yield from walk(inner, False)
        elif top:
            for value in _attributes(layer).values():
                for inner in _layers_among(value):
                    yield from walk(inner, False)
        else:
            yield layer

    yield from walk(model, True)


def is_container(layer: keras.Layer) -> bool:
    """Whether a layer is a sequence or graph of layers and nothing else."""
    kinds: dict[str, Any] = {kind.__name__: kind for kind in type(layer).__mro__}
    kind = kinds.get("Sequential") or kinds.get("Functional")
    return kind is not None and getattr(type(layer), "call", None) is kind.call


def _attributes(layer: keras.Layer) -> dict[str, Any]:
    """The attributes of a layer that are layers or hold some.

    PyTorch's modules among them, TensorFlow's own book-keeping (`_self_...`) not.
    """
    attributes = {**vars(layer), **vars(layer).get("_modules", {})}
    return {
        name: value
        for name, value in attributes.items()
        if not name.startswith("_self_") and _layers_among(value)
    }


def _layers_among(value: Any) -> list[keras.Layer]:
    """The layers that an attribute is or holds, in what Keras tracks for its user."""
    if isinstance(value, keras.Layer):
        return [value]
    if not (isinstance(value, tuple) or type(value).__name__.startswith("Tracked")):
        return []
    entries = value.values() if isinstance(value, dict) else value
    return [layer for entry in entries for layer in _layers_among(entry)]


def _all_weights(layer: keras.Layer) -> list[keras.Variable]:
    return list(layer.weights)


def _own_weights(layer: keras.Layer) -> list[keras.Variable]:
    return own_variables(layer)


class _Rebuilding:
    """One rebuilding: each layer once, however often it is shared."""

    def __init__(self, replace: Any, unwrap: Any) -> None:
        self._replace, self._unwrap = replace, unwrap
        self._replacements: dict[int, Replacement | None] = {}
        self._done: dict[int, Any] = {}
        self.pairs: list[tuple[list[keras.Variable], keras.Layer, Callable[..., Any]]] = []

    def of(self, layer: Any) -> Any:
        if not isinstance(layer, keras.Layer):
            # An operation in a graph, such as the sum of two tensors.
            return type(layer).from_config(layer.get_config())
        if id(layer) not in self._done:
            self._done[id(layer)] = self._new(layer)
        return self._done[id(layer)]

    def _new(self, layer: keras.Layer) -> keras.Layer:
        name, layer = layer.name, self._unwrap(layer)
        replacement = self._replacement(layer)
        if replacement is not None:
            new, inner, variables = replacement
            self.pairs.append((variables, inner, _all_weights))
            return new
        if is_container(layer):
            return self._cloned(layer)
        new = made_again(layer, name)
        if self._changes(layer):
            self._exchange(layer, new)
        else:
            self.pairs.append((_all_weights(layer), new, _all_weights))
        return new

    def _replacement(self, layer: keras.Layer) -> Replacement | None:
        if id(layer) not in self._replacements:
            self._replacements[id(layer)] = self._replace(layer)
        return self._replacements[id(layer)]

    def _cloned(self, model: keras.Model) -> keras.Model:
        compiled = model.compiled
        try:
            # Keras would compile the clone, and cannot where a loss is not registered.
            model.compiled = False
            return keras.models.clone_model(model, clone_function=self.of)
        finally:
            model.compiled = compiled

    def _changes(self, layer: keras.Layer) -> bool:
        """Whether something inside a layer is replaced."""
        inside = [inner for inner in flatten_layers(layer) if inner is not layer]
        return any(self._unwrap(i) is not i or self._replacement(i) is not None for i in inside)

    def _exchange(self, old: keras.Layer, new: keras.Layer) -> None:
        """Exchange the layers among the attributes of a new layer, as they are to be."""
        self.pairs.append((_own_weights(old), new, _own_weights))
        reached: set[int] = set()
        for name, value in _attributes(old).items():
            inside = _layers_among(value)
            reached.update(id(inner) for layer in inside for inner in flatten_layers(layer))
            current = getattr(new, name, None)
            if len(_layers_among(current)) != len(inside):
                self._refuse(old, inside[0])
            exchanged = self._exchanged(value, current)
            for layer in _layers_among(current):
                if not any(layer is kept for kept in _layers_among(exchanged)):
                    untrack(new, layer)
            setattr(new, name, exchanged)
        for inner in flatten_layers(old):
            if inner is not old and id(inner) not in reached:
                self._refuse(old, inner)

    def _exchanged(self, old: Any, new: Any) -> Any:
        if isinstance(old, keras.Layer):
            return self._inner(old, new)
        if isinstance(old, dict):
            return {name: self._exchanged(old[name], new[name]) for name in old}
        if isinstance(old, (list, tuple)):
            entries = [self._exchanged(*pair) for pair in zip(old, new, strict=True)]
            return tuple(entries) if isinstance(old, tuple) else entries
        return new

    def _inner(self, old: keras.Layer, new: keras.Layer) -> keras.Layer:
        """What takes the place of `new`, which the constructor made for `old`."""
        if id(old) in self._done:
            return self._done[id(old)]
        unwrapped = self._unwrap(old)
        if unwrapped is not old or self._replacement(old) is not None or is_container(old):
            return self.of(old)  # type: ignore[no-any-return]
        self._done[id(old)] = new
        if self._changes(old):
            self._exchange(old, new)
        else:
            self.pairs.append((_all_weights(old), new, _all_weights))
        return new

    def _refuse(self, outer: keras.Layer, inner: keras.Layer) -> None:
        raise ValueError(
            f"The layer {inner.name!r} inside {outer.name!r} cannot be reached: made again "
            f"from its config, {outer.name!r} has no such layer before it is built. Expected "
            "layers that its constructor makes and keeps as attributes. Make them there, or "
            "wrap the layer in quantal.Discrete by hand."
        )


def made_again(layer: keras.Layer, name: str) -> keras.Layer:
    """The same layer anew, from its config, unbuilt.

    Raises:
        ValueError: Its config does not say how.
    """
    # A Lambda of this process is as safe as the model it comes from.
    trust = {"safe_mode": False} if isinstance(layer, keras.layers.Lambda) else {}
    try:
        config = {**layer.get_config(), "name": name}
        return type(layer).from_config(config, **trust)
    except (NotImplementedError, TypeError, ValueError, KeyError) as error:
        raise ValueError(
            f"The layer {layer.name!r} of type {type(layer).__name__} cannot be made again "
            f"from its config ({error}). Expected get_config and from_config that describe "
            "it. Add them to the class, as saving the model asks for, too."
        ) from error
