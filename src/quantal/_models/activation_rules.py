"""Rules that put discrete activations where the activations of a model are."""

import contextlib
import difflib
import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import keras
from keras import activations as functions
from keras import layers

from quantal._core.by_identity import ByIdentity
from quantal._core.keras_internals.graph import (
    activation_operation,
    call_of,
    graph_outputs,
    inputs_of_graph,
    operations_of,
)
from quantal._core.keras_internals.layers import flatten_layers
from quantal._core.numbers.short_name import short_name
from quantal._core.numbers.values import Values
from quantal._models.calibration.samples import Samples
from quantal._models.clone import clone_replacing, copy_value
from quantal._models.compile_like import compile_like
from quantal._models.walk import activations_of, is_container
from quantal.layers.activation import DiscreteActivation
from quantal.layers.discrete import unwrapped

_WITH_ACTIVATION = (
    layers.Dense, layers.EinsumDense, layers.Conv1D, layers.Conv2D, layers.Conv3D,
    layers.DepthwiseConv1D, layers.DepthwiseConv2D, layers.SeparableConv1D,
    layers.SeparableConv2D, layers.Conv1DTranspose, layers.Conv2DTranspose,
    layers.Conv3DTranspose,
)  # fmt: skip
"""Layers whose activation is the last thing that they do, so that a layer may stand for it."""

_LEFT_ALONE = ("linear", "softmax", "log_softmax")
"""Functions that are no activations between layers."""


class Site(NamedTuple):
    """A site is a layer or an operation of a graph that ends with an activation function.

    Attributes:
        operation: The layer or the operation.
        name: Its name.
        function: The name of the function.
        is_alone: Whether the function is all that it computes.
        problem: Why no layer can stand for it or behind it; empty where one can.
    """

    operation: Any
    name: str
    function: str
    is_alone: bool = False
    problem: str = ""


def with_activations(model: keras.Model, activations: Any, scale: Any = "auto") -> keras.Model:
    """Return a copy of a model with discrete activations where its activations are.

    Args:
        model: A built model, Sequential or functional.
        activations: A list for all of them but those of outputs, or a mapping from expressions
            on names to lists, as `discretize` says.
        scale: The scale for lists that name none.

    Raises:
        ValueError: An expression names no activation, or one that cannot be reached; or a list
            does not suit a function.
    """
    _refuse_subclassed(model)
    clone = clone_replacing(model, lambda layer, _: None)

    def set_weights() -> None:
        for old, new_variable in clone.pairs:
            copy_value(old, new_variable)

    clone.set_state(set_weights)
    sites = list(_sites(clone.model))
    plan = _plan(clone.model, sites, activations, scale)
    new = _rebuilt(clone.model, plan)
    if model.compiled:
        compile_like(model, new)
    return new


_MOST_BATCHES = 8
"""Scales are fitted to so many batches: the fits of more hardly differ."""


def calibrate_activations(model: keras.Model, samples: Samples) -> None:
    """Set the scales of a model's discrete activations from samples, in one pass.

    Args:
        model: A built model; scales that have started are moved, too.
        samples: Inputs of the model.
    """
    with contextlib.ExitStack() as stack:
        for activation in activations_of(model):
            stack.enter_context(activation.following())
        for inputs in itertools.islice(samples, _MOST_BATCHES):
            model(inputs, training=False)


def _refuse_subclassed(model: keras.Model) -> None:
    if not is_container(model):
        raise ValueError(
            f"activations came for the model {model.name!r} of type {type(model).__name__}, whose "
            "call is its own. Expected a Sequential or functional model, into whose graph layers "
            "can be put. Put quantal.DiscreteActivation into its call."
        )


def _operations(model: keras.Model) -> Iterator[Any]:
    """Yield the layers and operations of a model's graph, those of models in it, too, each once."""
    seen: ByIdentity[None] = ByIdentity()
    for operation in operations_of(model):
        if operation in seen or isinstance(operation, layers.InputLayer):
            continue
        seen[operation] = None
        if isinstance(operation, keras.Layer) and is_container(operation):
            yield from _operations(operation)
        else:
            yield operation


def _sites(model: keras.Model) -> Iterator[Site]:
    """Yield the activations of a model, also those that cannot be reached."""
    for operation in _operations(model):
        if isinstance(operation, DiscreteActivation):
            continue
        if not isinstance(operation, keras.Layer):
            function = activation_operation(operation)
            if function is not None and function not in _LEFT_ALONE:
                yield Site(operation, operation.name, function, is_alone=True)
            continue
        function = _function_of(unwrapped(operation))
        if function is not None and function not in _LEFT_ALONE:
            yield _site(operation, function)
            continue
        for inner in flatten_layers(unwrapped(operation)):
            if inner is not unwrapped(operation) and _function_of(inner) not in (
                None,
                *_LEFT_ALONE,
            ):
                yield Site(operation, operation.name, str(_function_of(inner)),
                           problem=f"it is inside, in {inner.name!r}")  # fmt: skip
                break


def _site(layer: keras.Layer, function: str) -> Site:
    inner = unwrapped(layer)
    if isinstance(inner, (layers.Activation, *_ACTIVATIONS)):
        return Site(layer, layer.name, function, is_alone=True)
    if isinstance(inner, _WITH_ACTIVATION) and type(inner).__module__.startswith("keras."):
        return Site(layer, layer.name, function)
    kind = type(inner).__name__
    return Site(layer, layer.name, function, problem=f"a {kind} uses it within its call")


_ACTIVATIONS = (layers.ReLU, layers.LeakyReLU, layers.PReLU, layers.ELU)


def _function_of(layer: keras.Layer) -> str | None:
    """Return the name of a layer's activation function; None where it has none."""
    if isinstance(layer, layers.ReLU):
        is_plain = layer.max_value is None and not layer.negative_slope and not layer.threshold
        return "relu" if is_plain else "relu with limits"
    if isinstance(layer, _ACTIVATIONS):
        return type(layer).__name__
    function = getattr(layer, "activation", None)
    if function is None or isinstance(function, DiscreteActivation) or not callable(function):
        return None
    return getattr(function, "__name__", type(function).__name__)


class _Planned(NamedTuple):
    """A planned activation stands for a site or behind it."""

    layer: DiscreteActivation
    replaces: bool


def _plan(
    model: keras.Model, sites: list[Site], activations: Any, scale: Any
) -> ByIdentity[_Planned]:
    """Return the discrete activation of each site that gets one."""
    is_mapping = isinstance(activations, Mapping) and "values" not in activations
    rules = dict(activations) if is_mapping else {"": activations}
    ends = ByIdentity.of_keys(_output_operations(model))
    matched: set[str] = set()
    plan: ByIdentity[_Planned] = ByIdentity()
    for site in sites:
        pattern = next((p for p in rules if re.search(p, site.name)), None)
        if pattern is None or (not is_mapping and site.operation in ends):
            continue
        matched.add(pattern)
        if rules[pattern] is not None:
            _refuse_problem(site)
            plan[site.operation] = _planned(site, rules[pattern], scale)
    for pattern in rules:
        if pattern not in matched:
            _refuse_idle(model, pattern if is_mapping else None, [site.name for site in sites])
    return plan


def _output_operations(model: keras.Model) -> Iterator[Any]:
    for tensor in graph_outputs(model):
        operation = call_of(tensor).layer
        yield operation
        if isinstance(operation, keras.Layer) and is_container(operation):
            yield from _output_operations(operation)


def _refuse_problem(site: Site) -> None:
    if site.problem:
        raise ValueError(
            f"The activation {site.function!r} of {site.name!r} cannot be reached: {site.problem}. "
            "Expected one that is a layer, or the activation of a Dense or a convolution. Leave it "
            f"as it is by a mapping, {{{site.name!r}: None, ...}}, or build the layer with "
            "quantal.DiscreteActivation by hand."
        )


def _refuse_idle(model: keras.Model, pattern: str | None, names: list[str]) -> None:
    if pattern is None:
        raise ValueError(
            f"The model {model.name!r} has no activation between its layers to put on a list. "
            "Expected a ReLU, an Activation or an argument activation=. Add "
            "quantal.DiscreteActivation where you want it."
        )
    nearest = difflib.get_close_matches(pattern, names, n=3, cutoff=0.0)
    raise ValueError(
        f"The expression {pattern!r} of activations names no activation that one before it "
        f"leaves. Nearest are: {', '.join(nearest) or 'none'}. Give an expression that matches in "
        "the name of a layer with an activation."
    )


def _planned(site: Site, rule: Any, scale: Any) -> _Planned:
    """Return the layer that a rule gives for a site."""
    entries = dict(rule) if isinstance(rule, Mapping) else {"values": rule}
    if set(entries) - {"values", "scale", "estimator", "axis"} or "values" not in entries:
        raise ValueError(
            f"A rule of activations has the keys {sorted(map(str, entries))}. Expected 'values', "
            "and optionally 'scale', 'estimator' and 'axis'. Leave the others out."
        )
    values = Values.get(entries.pop("values"))
    _refuse_one_outcome(site, values)
    replaces = _is_same(site.function, values)
    layer = DiscreteActivation(
        values,
        **{"scale": scale, **entries},
        name=site.name if site.is_alone and replaces else f"{site.name}_listed",
        dtype=getattr(site.operation, "dtype_policy", None),
    )
    return _Planned(layer, replaces)


_NOT_NEGATIVE = ("relu", "relu6", "sigmoid", "hard_sigmoid", "softplus", "exponential")


def _refuse_one_outcome(site: Site, values: Values) -> None:
    """Refuse a list of which a function without negative numbers reaches a single value."""
    if values.channels is None and site.function in _NOT_NEGATIVE:
        lowest, highest = values.nearest([0.0, 1e30])
        if lowest == highest and len(values) > 1:
            raise ValueError(
                f"The activation {site.function!r} of {site.name!r} gives no numbers below 0, "
                f"which all become {lowest:g} on the list {short_name(values)}. Expected a list "
                "with several values from 0 on, such as 'unsigned:2' or 'zero_one'; for ±1 an "
                "activation of both signs, such as 'hard_tanh'."
            )


def _is_same(function: str, values: Values) -> bool:
    """Return whether the nearest value alone is what it is behind the function, with gradient."""
    if values.channels is not None:
        return False
    if function == "relu":
        return values.low == 0
    is_sign = sorted(values.tolist()) == [-1, 1]
    return is_sign and function in ("hard_tanh", "hardtanh", "sign")


def _rebuilt(model: keras.Model, plan: ByIdentity[_Planned]) -> keras.Model:
    """Return a graph of a model's own layers, with planned activations for or behind some."""
    for operation, planned in plan.items():
        inner = unwrapped(operation) if isinstance(operation, keras.Layer) else None
        if planned.replaces and isinstance(inner, _WITH_ACTIVATION):
            inner.activation = functions.linear
    models: ByIdentity[keras.Model] = ByIdentity()

    def same(operation: Any) -> Any:
        if not (isinstance(operation, keras.Layer) and is_container(operation)):
            return operation
        if operation not in models:
            models[operation] = _rebuilt_graph(operation, plan, same)
        return models[operation]

    new: keras.Model = same(model)
    return new


def _rebuilt_graph(
    model: keras.Model, plan: ByIdentity[_Planned], same: Callable[[Any], Any]
) -> keras.Model:
    compiled, model.compiled = model.compiled, False

    def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
        planned = plan.get(operation)
        if planned is None:
            return operation(*args, **kwargs)
        is_alone = _site_is_alone(operation)
        if planned.replaces and is_alone:
            return planned.layer(args[0] if args else next(iter(kwargs.values())))
        return planned.layer(operation(*args, **kwargs))

    try:
        if isinstance(model, keras.Sequential):
            return _rebuilt_sequence(model, plan, same)
        return keras.models.clone_model(model, clone_function=same, call_function=call)
    finally:
        model.compiled = compiled


def _site_is_alone(operation: Any) -> bool:
    return not (
        isinstance(operation, keras.Layer) and isinstance(unwrapped(operation), _WITH_ACTIVATION)
    )


def _rebuilt_sequence(
    model: keras.Sequential, plan: ByIdentity[_Planned], same: Callable[[Any], Any]
) -> keras.Model:
    (inputs,) = inputs_of_graph(model)
    parts: list[Any] = [keras.Input(batch_shape=inputs.shape, dtype=inputs.dtype, name=inputs.name)]
    for layer in model.layers:
        planned = plan.get(layer)
        if planned is None or not (planned.replaces and _site_is_alone(layer)):
            parts.append(same(layer))
        if planned is not None:
            parts.append(planned.layer)
    return keras.Sequential(parts, name=model.name, trainable=model.trainable)
