"""Whole models: put the weights of a Keras model on lists, and take them off again."""

import dataclasses
import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from quantal._core.estimator import Estimator
from quantal._core.keras_internals import flatten_layers
from quantal._core.numbers.natural_unit import has_natural_unit
from quantal._core.numbers.values import Values
from quantal._core.parameter import Parameter, parameters_of
from quantal._core.scale import Scale
from quantal._models.clone import (
    Replacement,
    compile_like,
    made_again,
    outermost_layers,
    rebuilt,
)
from quantal._storage.record import restore, stored
from quantal.estimators.policy import parse
from quantal.layers._channels import owner_of
from quantal.layers.discrete import Discrete
from quantal.layers.multiplier import LearnableMultiplier


@dataclasses.dataclass(frozen=True)
class Row:
    """What `discretize` did with one weight.

    Attributes:
        path: The weight's path in the model.
        shape: Its shape.
        values: The list that it is on, or None.
        why: The rule that chose it, or why it stays free.
        bits_before: Bits of the weight as it was.
        bits_after: Bits of codes, scales and learned numbers; of the weight where it
            stays free.
        error: What nearest rounding loses before any training, relative:
            `norm(w - s P(w / s)) / norm(w)`; None for free weights.
    """

    path: str
    shape: tuple[int, ...]
    values: Values | None
    why: str
    bits_before: int
    bits_after: int
    error: float | None


@dataclasses.dataclass(frozen=True)
class Report:
    """What `discretize` did, weight by weight; printed, a table.

    Attributes:
        rows: One for each weight.
    """

    rows: tuple[Row, ...]

    @property
    def bits_before(self) -> int:
        """Bits of all weights as they were."""
        return sum(row.bits_before for row in self.rows)

    @property
    def bits_after(self) -> int:
        """Bits of all weights as they are."""
        return sum(row.bits_after for row in self.rows)

    def __str__(self) -> str:
        lines = [("weight", "shape", "values", "bits", "error", "why")]
        for row in self.rows:
            elements = max(int(np.prod(row.shape)), 1)
            lines.append(
                (
                    row.path,
                    "x".join(map(str, row.shape)),
                    "-" if row.values is None else _short(row.values),
                    f"{row.bits_after / elements:.4g}",
                    "-" if row.error is None else f"{row.error:.3f}",
                    row.why,
                )
            )
        widths = [max(len(line[column]) for line in lines) for column in range(6)]
        table = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in lines
        ]
        kilobytes = (self.bits_before / 8e3, self.bits_after / 8e3)
        total = "{:.4g} kB of weights become {:.4g} kB ({:.3g} times smaller)"
        ratio = self.bits_before / max(self.bits_after, 1)
        return "\n".join([*table, total.format(*kilobytes, ratio)])


def _short(values: Values) -> str:
    if values.channels is not None or len(values) > 4:
        return f"{len(values)} {'learned' if values.learnable else 'values'}"
    return str(values.tolist())


def discretize(
    model: keras.Model,
    rules: Any,
    *,
    scale: Any = "auto",
    estimator: Any = "auto",
    keep_ends: bool = False,
    report: bool = False,
) -> Any:
    """A new model like the given one, with the weights that the rules name on lists.

    Use it on a trained model before fine-tuning, or on a new one. The old model is left
    as it is. Each new weight starts at the value nearest to the trained one; latents
    keep the weights' order. A compiled model comes back compiled alike, its optimizer
    new and without weight decay on latents (`exclude_from_weight_decay`).

    Args:
        model: A built Keras model: Sequential, functional (shared layers, several
            inputs and outputs, models inside), or subclassed, if its constructor makes
            its layers.
        rules: What goes on which list.

            - A list, a preset's name, `Values`, or a function from the trained weights
              (array) to one of these: for every kernel.
            - A mapping from regular expressions to the same, to None for weights that
              stay free, or to a full specification, a mapping with `"values"` and
              optionally `"scale"` and `"estimator"`. An expression is searched for in
              the weight's path; the first that is found decides.

            Only kernels are taken (kernels, recurrent, depthwise and pointwise ones).
            Biases, normalisation, embeddings and others stay free, unless the
            expression spells the weight's name, as `"token.*/embeddings"` does.
        scale: `"auto"`: a learned scale for each output channel where the list's
            numbers are proportions (powers of two, integers, or 1 the largest
            magnitude), none elsewhere. None: the raw list. Or a `Scale` or a method's
            name. It starts at the least-squares fit to the trained weights.
        estimator: How gradients pass.
        keep_ends: Whether the first and the last layer that the rules name stay free.
        report: Whether to return (model, report).

    Returns:
        The model, or (model, `Report`).

    Raises:
        TypeError: The model is no Keras model.
        ValueError: It is not built; a rule names no weight; a layer cannot be reached,
            uses LoRA or is quantized; a list, scale or estimator is none.

    Example:
    >>> import keras, quantal
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="hidden"),
    ...                           keras.layers.Dense(2, name="last")], name="net")
    >>> discrete, report = quantal.discretize(model, {"hidden": "ternary"}, report=True)
    >>> [(row.path, row.why) for row in report.rows if row.values is not None]
    [('net/hidden/kernel', "rule 'hidden'")]
    """
    _check_model(model)
    model = opened(model)
    plan = _Plan(model, rules, scale, estimator)
    if keep_ends:
        plan.free_ends()

    def replace(layer: keras.Layer) -> Replacement | None:
        chosen = plan.of_layer(layer)
        return _wrapped(layer, chosen) if chosen else None

    new, pairs = rebuilt(model, replace)
    parameters = {id(parameter.latent): parameter for parameter in parameters_of(new)}
    started: dict[int, Parameter] = {}
    for old_variable, new_variable in pairs:
        if id(old_variable) in plan.chosen:
            started[id(old_variable)] = parameters[id(new_variable)]
            started[id(old_variable)].start_from(old_variable)
        else:
            _copy(old_variable, new_variable)
    if model.compiled:
        compile_like(model, new)
        exclude_from_weight_decay(new.optimizer, new)
    return (new, Report(tuple(plan.rows(started)))) if report else new


def bake(model: keras.Model) -> keras.Model:
    """A plain Keras model that computes what a discrete model computes in inference.

    Use it to hand a model on: nothing in it is quantal's. Every discrete weight becomes
    an ordinary one that holds the listed values (times their scale); a
    `LearnableMultiplier` becomes an EinsumDense. Predictions are equal to the bit.
    Weights go back on their list with `discretize`: a raw list with `scale=None`; with a
    fitted scale the codes come back where the weights tell them, which powers of two of
    which a channel uses only the smaller ones do not.

    Args:
        model: A built model.

    Returns:
        A new model, compiled as the old one is. The old one is left as it is.

    Raises:
        TypeError: The model is no Keras model.
        ValueError: It is not built, or a layer in it cannot be made again.

    Example:
    >>> import keras, quantal
    >>> model = keras.Sequential([keras.Input((3,)), quantal.LearnableMultiplier([1, -1])])
    >>> plain = quantal.bake(model)
    >>> [type(layer).__name__ for layer in plain.layers]
    ['EinsumDense']
    """
    _check_model(model)
    model = opened(model)

    def replace(layer: LearnableMultiplier) -> Replacement:
        plain = _multiplying(layer)
        return plain, plain, [parameter.latent for parameter in parameters_of(layer)]

    new = plain_like(model, replace)
    if model.compiled:
        compile_like(model, new)
    return new


def plain_like(
    model: keras.Model,
    replace: Callable[[LearnableMultiplier], Replacement],
    factors: Mapping[int, NDArray[np.float32]] | None = None,
) -> keras.Model:
    """A model like the given one whose discrete weights are ordinary ones; not compiled.

    Args:
        model: A built model.
        replace: What takes the place of a multiplier.
        factors: What weights are multiplied by, by the `id` of their variables.
    """
    listed = {
        id(parameter.latent): ops.convert_to_numpy(parameter.weight)
        for parameter in parameters_of(model)
    }

    def unwrap(layer: keras.Layer) -> keras.Layer:
        while isinstance(layer, Discrete):
            layer = layer.layer
        return layer

    new, pairs = rebuilt(
        model,
        lambda layer: replace(layer) if isinstance(layer, LearnableMultiplier) else None,
        unwrap,
    )
    for old_variable, new_variable in pairs:
        if id(old_variable) in listed:
            new_variable.assign(listed[id(old_variable)])
        else:
            _copy(old_variable, new_variable)
        if factors and id(old_variable) in factors:
            numbers = ops.convert_to_numpy(new_variable)
            new_variable.assign(numbers * factors[id(old_variable)])
    return new


def finalize(model: keras.Model) -> keras.Model:
    """A model whose discrete weights are settled: small in a `.keras` file, and not trained.

    Use it on a trained model before `model.save`: the file then holds packed codes, the
    list and the scale in place of latents, 1 bit a weight for ±1 and 2 for four values.
    It loads where quantal is installed, on any backend, and predicts to the bit.
    Keep the model that was given for more training.

    Args:
        model: A built model whose layers have `get_config`.

    Returns:
        A new model, not compiled. The old one is left as it is.

    Raises:
        TypeError: The model is no Keras model.
        ValueError: It is not built, or Keras cannot tell its architecture.

    >>> import keras, quantal
    >>> model = keras.Sequential([keras.Input((3,)), quantal.LearnableMultiplier([1, -1])])
    >>> len(quantal.finalize(model).trainable_variables)
    0
    """
    _check_model(model)
    return _made_again(model, finalized=True)


def opened(model: keras.Model) -> keras.Model:
    """The model itself, or where it is finalized one like it whose weights train."""
    flags = [getattr(layer, "finalized", False) for layer in flatten_layers(model)]
    return _made_again(model, finalized=False) if any(flags) else model


def _made_again(model: keras.Model, finalized: bool) -> keras.Model:
    """A model from the config of another, its layers finalized or not, with its weights."""
    try:
        config = keras.saving.serialize_keras_object(model)
    except NotImplementedError as error:
        raise ValueError(
            f"Keras cannot tell the architecture of {model.name!r} ({error}). Expected "
            "get_config in every layer of your own. Add it, as model.save asks for, too."
        ) from error
    config.pop("compile_config", None)
    _mark(config, finalized)
    new = keras.saving.deserialize_keras_object(config, safe_mode=False)
    for old_parameter, parameter in zip(parameters_of(model), parameters_of(new), strict=True):
        restore(parameter, *stored(old_parameter))
    for old_variable, variable in zip(_others(model), _others(new), strict=True):
        _copy(old_variable, variable)
    return new


def _mark(config: Any, finalized: bool) -> None:
    if isinstance(config, dict):
        if config.get("registered_name") in ("quantal>Discrete", "quantal>LearnableMultiplier"):
            config["config"].pop("finalized", None)
            if finalized:
                config["config"]["finalized"] = True
        for entry in config.values():
            _mark(entry, finalized)
    elif isinstance(config, (list, tuple)):
        for entry in config:
            _mark(entry, finalized)


def _others(model: keras.Model) -> list[keras.Variable]:
    """The weights that belong to no parameter."""
    taken = {
        id(variable)
        for parameter in parameters_of(model)
        for variable in (parameter.latent, *parameter.other_variables)
    }
    return [variable for variable in model.weights if id(variable) not in taken]


def exclude_from_weight_decay(optimizer: keras.optimizers.Optimizer, model: keras.Model) -> None:
    """Exclude the latents, scales and learned lists of a model from weight decay.

    Decay would pull latents to the middle of their list, so that weights flip to its
    middle values for no gain in the loss. `discretize` does this for the models it
    compiles; do it by hand for others, before training.

    Args:
        optimizer: A Keras optimizer that has not been built yet.
        model: A built model.

    >>> import keras, quantal
    >>> model = keras.Sequential([keras.Input((3,)), quantal.LearnableMultiplier([1, -1])])
    >>> optimizer = keras.optimizers.AdamW()
    >>> exclude_from_weight_decay(optimizer, model)
    >>> model.compile(optimizer, "mse")
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    variables = [v for parameter in parameters_of(model) for v in parameter.variables]
    if not variables or not inner.weight_decay:
        return
    inner.exclude_from_weight_decay(var_list=variables)
    if {id(v) for v in model.trainable_variables} <= {id(v) for v in variables}:
        # PyTorch's optimizers fail where nothing is left to decay.
        inner.weight_decay = None


def _check_model(model: Any) -> None:
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"model is {model!r} of type {type(model).__name__}. Expected a Keras model. "
            "Give a keras.Model; for a single layer there is quantal.Discrete."
        )
    if not model.built:
        raise ValueError(
            f"The model {model.name!r} is not built, so it has no weights yet. Expected a "
            "built model. Call it on data, or begin it with an Input, first."
        )


@dataclasses.dataclass(frozen=True)
class _Choice:
    """What one weight is to become, by which rule."""

    values: Values
    scale: Scale | None
    estimator: Estimator | str
    why: str

    @property
    def group(self) -> tuple[Any, ...]:
        """Weights of a layer with the same group share a wrapper."""
        return self.values, self.scale, repr(self.estimator)


class _Plan:
    """Which weight of a model goes on which list, and why."""

    def __init__(self, model: keras.Model, rules: Any, scale: Any, estimator: Any) -> None:
        self._model, self._scale, self._estimator = model, scale, estimator
        self.chosen: dict[int, _Choice] = {}
        self._why: dict[int, str] = {}
        if isinstance(rules, Mapping) and "values" not in rules:
            self._rules = dict(rules)
            self._by_pattern = True
        else:
            self._rules = {"": rules}
            self._by_pattern = False
        self._matched: set[str] = set()
        self._layers = list(outermost_layers(model))
        latents = {id(parameter.latent) for parameter in parameters_of(model)}
        for layer in self._layers:
            for variable in layer.weights:
                if id(variable) not in self.chosen:
                    self._decide(layer, variable, latents)
        reached = {id(v) for layer in self._layers for v in layer.weights}
        for variable in model.weights:
            if id(variable) not in reached:
                self._decide_unreached(variable)
        self._refuse_idle_rules()

    def of_layer(self, layer: keras.Layer) -> list[tuple[int, _Choice]]:
        """The positions of a layer's chosen weights, with the choices."""
        if not any(layer is outermost for outermost in self._layers):
            return []
        found = enumerate(layer.weights)
        return [(place, self.chosen[id(v)]) for place, v in found if id(v) in self.chosen]

    def free_ends(self) -> None:
        """Leave the first and the last layer with chosen weights as they are."""
        holders = [layer for layer in self._layers if self.of_layer(layer)]
        for layer in {id(end): end for end in holders[:1] + holders[-1:]}.values():
            for variable in layer.weights:
                if self.chosen.pop(id(variable), None):
                    self._why[id(variable)] = "first or last layer"

    def rows(self, started: dict[int, Parameter]) -> Iterator[Row]:
        """The report's rows, in the order of the model's weights."""
        for variable in self._model.weights:
            shape = tuple(variable.shape)
            bits = int(np.prod(shape)) * 8 * np.dtype(_numpy_name(variable.dtype)).itemsize
            choice = self.chosen.get(id(variable))
            if choice is None:
                why = self._why.get(id(variable), "no rule names it")
                yield Row(variable.path, shape, None, why, bits, bits, None)
                continue
            parameter = started[id(variable)]
            weights = ops.convert_to_numpy(variable).astype(float)
            listed = ops.convert_to_numpy(parameter.weight).astype(float)
            size = float(np.sum(weights**2))
            error = float(np.sum((weights - listed) ** 2) / size) ** 0.5 if size else 0.0
            yield Row(variable.path, shape, choice.values, choice.why, bits, parameter.bits, error)

    def _decide(self, layer: keras.Layer, variable: keras.Variable, latents: set[int]) -> None:
        if id(variable) in latents:
            self._why[id(variable)] = "on its list already"
            self._match(variable)
            return
        found = self._match(variable)
        if found is None:
            return
        pattern, rule = found
        if rule is None:
            self._why[id(variable)] = f"rule {pattern!r} leaves it free"
            return
        self._refuse_other_kernels(owner_of(layer, variable), variable)
        weights = ops.convert_to_numpy(variable).astype(np.float32)
        why = f"rule {pattern!r}" if self._by_pattern else "every kernel"
        self.chosen[id(variable)] = self._choice(rule, weights, why)

    def _decide_unreached(self, variable: keras.Variable) -> None:
        found = self._match(variable)
        if found is not None and found[1] is not None:
            raise ValueError(
                f"The weight {variable.path!r} belongs to the model {self._model.name!r} "
                "itself, not to a layer of it. Only layers can be put on a list from "
                "outside. Move it into a layer, or leave it free by a rule with None."
            )

    def _match(self, variable: keras.Variable) -> tuple[str, Any] | None:
        """The first rule that names the weight; None, with the reason kept, if none does."""
        for pattern, rule in self._rules.items():
            if not re.search(pattern, variable.path):
                continue
            is_kernel = variable.name.endswith("kernel")
            if not is_kernel and not (rule is not None and variable.name in pattern):
                self._why[id(variable)] = "stays free unless its name is spelled"
                continue
            self._matched.add(pattern)
            return pattern, rule
        return None

    def _choice(self, rule: Any, weights: NDArray[np.float32], why: str) -> _Choice:
        full = dict(rule) if isinstance(rule, Mapping) else {"values": rule}
        unknown = set(full) - {"values", "scale", "estimator"}
        if unknown or "values" not in full:
            raise ValueError(
                f"A rule has the keys {sorted(map(str, full))}. Expected 'values', and "
                "optionally 'scale' and 'estimator'. Leave the others out."
            )
        values = full["values"]
        values = Values(values(weights) if callable(values) else values)
        scale = full.get("scale", self._scale)
        if isinstance(scale, str) and scale == "auto":
            scale = Scale("learned", "output") if has_natural_unit(values) else None
        estimator = parse(full.get("estimator", self._estimator))
        return _Choice(values, Scale.of(scale), estimator, why)

    def _refuse_other_kernels(self, owner: keras.Layer, variable: keras.Variable) -> None:
        lora = getattr(owner, "lora_enabled", False)
        quantized = getattr(owner, "quantization_mode", None) is not None
        is_float = keras.backend.standardize_dtype(variable.dtype) == "float32"
        if not (lora or quantized or not is_float):
            return
        what = "uses LoRA" if lora else "is quantized by Keras" if quantized else "is not float32"
        raise ValueError(
            f"The weight {variable.path!r} of the layer {owner.name!r} {what}. Weights go on a "
            "list from plain float32 numbers only. Merge or undo that before, or leave the "
            "layer free by a rule with None."
        )

    def _refuse_idle_rules(self) -> None:
        paths = [variable.path for variable in self._model.weights]
        for pattern in self._rules:
            if pattern in self._matched:
                continue
            if not self._by_pattern:
                raise ValueError(
                    f"The model {self._model.name!r} has no kernel to put on the list. It "
                    f"has {', '.join(paths) or 'no weights'}. Give a mapping that spells the "
                    "name of the weight."
                )
            nearest = difflib.get_close_matches(pattern, paths, n=3, cutoff=0.0)
            spelled = any(re.search(pattern, path) for path in paths)
            raise ValueError(
                f"The rule {pattern!r} names no weight"
                f"{' that a rule before it leaves' if spelled else ''}. Nearest are: "
                f"{', '.join(nearest) or 'none'}. Give an expression that is found in a path; "
                "for other weights than kernels it must spell the weight's name."
            )


def _copy(old: keras.Variable, new: keras.Variable) -> None:
    """Give the new variable the old one's value, in memory of its own."""
    # JAX's trainer gives the memory of its variables away.
    new.assign(ops.convert_to_numpy(old))


def _numpy_name(dtype: str) -> str:
    return "float16" if dtype == "bfloat16" else str(dtype)


def _wrapped(layer: keras.Layer, chosen: list[tuple[int, _Choice]]) -> Replacement:
    """The layer made again within a `Discrete` for each list."""
    groups: dict[tuple[Any, ...], list[tuple[int, _Choice]]] = {}
    for place, choice in chosen:
        groups.setdefault(choice.group, []).append((place, choice))
    inner = new = made_again(layer, layer.name)
    names = [variable.name for variable in layer.weights]
    for members in groups.values():
        places = [place for place, _ in members]
        own = sorted({names[place] for place in places})
        named = [place for place, name in enumerate(names) if name in own]
        choice = members[0][1]
        new = Discrete(
            new,
            choice.values,
            # Names where they say it all: they outlast a change of the layer.
            own if named == places else places,
            estimator=choice.estimator,
            scale=choice.scale,
            name=layer.name,
        )
    return new, inner, list(layer.weights)


def _multiplying(layer: LearnableMultiplier) -> keras.Layer:
    """An EinsumDense that multiplies as a `LearnableMultiplier` does."""
    rank = layer.input_spec.ndim
    labels = "abcdefghijklmnopqrstuvwxyz"[:rank]
    kernel = "".join(labels[place] for place in layer.kernel_axes)
    sizes = layer.input_spec.axes
    return keras.layers.EinsumDense(
        f"{labels},{kernel}->{labels}",
        output_shape=tuple(sizes.get(place) for place in range(1, rank)),
        activity_regularizer=layer.activity_regularizer,
        dtype=layer.dtype_policy,
        name=layer.name,
        trainable=layer.trainable,
    )
