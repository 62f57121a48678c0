"""Rules that say which weight of a model goes on which list.

`Rules` matches names and nothing else. `specs_of` resolves what it matched into lists,
scales and estimators, and refuses what cannot be listed.
"""

import dataclasses
import difflib
import math
import re
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from quantal._core.by_identity import ByIdentity
from quantal._core.estimator import Estimator
from quantal._core.numbers.values import Values
from quantal._core.parameter import parameters_of
from quantal._core.scale import Scale, resolve_scale
from quantal._core.tensors.distributed import whole_array
from quantal._models.walk import outermost_layers, paths_of, weights_of
from quantal.estimators.policy import parse
from quantal.layers._channels import fan_in, owner_of
from quantal.layers._substitutes import refuse_substitute

SMALL_FAN_IN = 30
"""Kernels of a smaller fan-in stay free by default: that of 3x3 on three channels is 27."""

SPARED_SHARE = 0.02
"""They stay free if they are at most this share of all elements that the rule names: as floats
they then take at most .64 bits for each element."""

LONG_LIST = 4
"""Lists of so many bits and more suit kernels of any fan-in."""


@dataclasses.dataclass(frozen=True)
class Match:
    """A match says why a weight goes on a list or stays free.

    Attributes:
        why: The reason, for people.
        pattern: The rule's expression, or None where no rule names the weight.
        rule: What the rule says: a list, a function or a full specification; None where
            the weight stays as it is.
    """

    why: str
    pattern: str | None = None
    rule: Any = None


@dataclasses.dataclass(frozen=True)
class Rules:
    """The rules of `discretize` are an ordered mapping from expressions to lists.

    Attributes:
        by_pattern: A list, function, full specification or None for each expression.
        is_mapping: Whether the user gave a mapping of expressions, or one rule for
            every kernel.
    """

    by_pattern: Mapping[str, Any]
    is_mapping: bool

    @classmethod
    def of(cls, rules: Any) -> "Rules":
        """Return the rules that an argument of `discretize` stands for.

        Raises:
            ValueError: A key of a mapping is no regular expression.
        """
        if isinstance(rules, Mapping) and "values" not in rules:
            for pattern in rules:
                _check_expression(pattern)
            return cls(dict(rules), True)
        return cls({"": rules}, False)

    def match(self, path: str) -> Match:
        """Return the match of the path of one weight with the first rule that names it."""
        reason = "no rule names it"
        name = path.rsplit("/", 1)[-1]
        for pattern, rule in self.by_pattern.items():
            if not re.search(pattern, path):
                continue
            is_kernel = name.endswith("kernel")
            if not is_kernel and not (rule is not None and name in pattern):
                reason = "stays free unless its name is spelled"
                continue
            if rule is None:
                return Match(f"rule {pattern!r} leaves it free", pattern)
            return Match(f"rule {pattern!r}" if self.is_mapping else "every kernel", pattern, rule)
        return Match(reason)

    def match_all(self, model: keras.Model, keep_ends: bool = False) -> ByIdentity[Match]:
        """Return the match of every weight of a model.

        Args:
            model: A built model.
            keep_ends: Whether the first and the last layer that the rules name stay free.

        Kernels that `_spare_small_kernels` names stay free where one rule is for every kernel.
        """
        paths = paths_of(model)
        matches = ByIdentity([(v, self.match(paths[v])) for v in weights_of(model)])
        for parameter in parameters_of(model):
            pattern = matches[parameter.latent].pattern
            matches[parameter.latent] = Match("on its list already", pattern)
        if keep_ends:
            named = [
                layer
                for layer in outermost_layers(model)
                if any(v in matches and matches[v].rule is not None for v in layer.weights)
            ]
            for variable in (v for layer in named[:1] + named[-1:] for v in layer.weights):
                if variable in matches and matches[variable].rule is not None:
                    pattern = matches[variable].pattern
                    matches[variable] = Match("first or last layer", pattern)
        if not self.is_mapping:
            _spare_small_kernels(model, matches)
        return matches


def _spare_small_kernels(model: keras.Model, matches: ByIdentity[Match]) -> None:
    """Let kernels of small fan-in stay free, where a rule for every kernel would cost much.

    A product of nine inputs with values from a short list has few different outcomes, and a
    flip of one is a large step. Where all of them together are few of the elements, they
    stay free; else the reason says so.
    """
    kernels = [
        (variable, layer)
        for layer in outermost_layers(model)
        for variable in layer.weights
        if variable in matches and matches[variable].rule is not None
    ]
    elements = ByIdentity((v, math.prod(v.shape)) for v, _ in kernels)
    inputs = ByIdentity((v, fan_in(layer, v)) for v, layer in kernels)
    small = [
        variable
        for variable in inputs
        if inputs[variable] < SMALL_FAN_IN and _is_short(matches[variable].rule, variable)
    ]
    left = SPARED_SHARE * sum(elements.values())
    for variable in sorted(small, key=elements.__getitem__):
        match, count = matches[variable], inputs[variable]
        left -= elements[variable]
        matches[variable] = (
            Match(f"fan-in of {count}: too small", match.pattern)
            if left >= 0
            else dataclasses.replace(match, why=f"{match.why}, also of fan-in {count}")
        )


def _is_short(rule: Any, variable: Any) -> bool:
    """Return whether the codes of the list that a rule gives for a weight have few bits."""
    values = rule["values"] if isinstance(rule, Mapping) else rule
    if callable(values):
        values = values(whole_array(variable).astype(np.float32))
    return Values(values).bits < LONG_LIST


@dataclasses.dataclass(frozen=True)
class ListSpec:
    """A specification holds the list, scale and estimator that one weight gets."""

    values: Values
    scale: Scale | None
    estimator: Estimator | str

    @property
    def group(self) -> tuple[Any, ...]:
        """Weights of a layer with the same group share a wrapper."""
        return self.values, self.scale, repr(self.estimator)


def specs_of(
    model: keras.Model, rules: Any, scale: Any, estimator: Any, keep_ends: bool
) -> ByIdentity[ListSpec]:
    """Return what each weight that the rules name is to become.

    Args:
        model: A built model.
        rules: The rules, as for `discretize`.
        scale: The scale for rules that name none, as for `discretize`.
        estimator: The estimator for rules that name none, as for `discretize`.
        keep_ends: Whether the first and the last layer that the rules name stay free.

    Raises:
        ValueError: A rule names no weight, or one that cannot be listed; or a list,
            scale or estimator is not valid.
    """
    parsed = Rules.of(rules)
    matches = parsed.match_all(model, keep_ends)
    _refuse_idle_rules(parsed, model, matches)
    defaults = {"scale": scale, "estimator": estimator}
    specs: ByIdentity[ListSpec] = ByIdentity()
    for layer in outermost_layers(model):
        for variable in layer.weights:
            rule = matches[variable].rule if variable in matches else None
            if rule is not None and variable not in specs:
                _refuse_unlistable(owner_of(layer, variable), variable)
                specs[variable] = _spec(rule, variable, defaults)
    _refuse_unreached(model, matches, specs)
    return specs


def _spec(rule: Any, variable: keras.Variable, defaults: Mapping[str, Any]) -> ListSpec:
    """Return the specification that a rule gives for a weight."""
    entries = dict(rule) if isinstance(rule, Mapping) else {"values": rule}
    if set(entries) - {"values", "scale", "estimator"} or "values" not in entries:
        raise ValueError(
            f"A rule has the keys {sorted(map(str, entries))}. Expected 'values', and "
            "optionally 'scale' and 'estimator'. Leave the others out."
        )
    entries = {**defaults, **entries}
    values, scale = entries["values"], entries["scale"]
    if callable(values):
        weights: NDArray[np.float32] = whole_array(variable).astype(np.float32)
        values = values(weights)
    values = Values(values)
    return ListSpec(values, resolve_scale(scale, values), parse(entries["estimator"]))


def _refuse_unlistable(owner: keras.Layer, variable: keras.Variable) -> None:
    """Refuse a weight that does not meet the data itself, or not in float32."""
    refuse_substitute(
        owner, "Merge or undo that before, or leave the layer free by a rule with None."
    )
    if keras.backend.standardize_dtype(variable.dtype) != "float32":
        raise ValueError(
            f"The weight {variable.path!r} of the layer {owner.name!r} is {variable.dtype}. "
            "Weights go on a list from float32 numbers only. Give the layer a mixed dtype, "
            "or leave it free by a rule with None."
        )


def _refuse_unreached(
    model: keras.Model, matches: ByIdentity[Match], specs: ByIdentity[ListSpec]
) -> None:
    """Refuse rules that put a weight on a list if it belongs to no layer of the model."""
    for variable in weights_of(model):
        if matches[variable].rule is not None and variable not in specs:
            raise ValueError(
                f"The weight {variable.path!r} belongs to the model {model.name!r} "
                "itself, or to a layer that shares others with the model, not to a layer of "
                "its own. Only layers can be put on a list from outside. Move it into a "
                "layer, or leave it free by a rule with None."
            )


def _refuse_idle_rules(rules: Rules, model: keras.Model, matches: ByIdentity[Match]) -> None:
    """Refuse rules that name no weight, as misspelled ones do."""
    paths_by_weight = paths_of(model)
    paths = list(paths_by_weight.values())
    matched = {match.pattern for match in matches.values()}
    # None leaves free what no rule would take, too, such as a multiplier's gain.
    free = [path for weight, path in paths_by_weight.items() if matches[weight].pattern is None]
    matched |= {
        pattern
        for pattern, rule in rules.by_pattern.items()
        if rule is None and any(re.search(pattern, path) for path in free)
    }
    for pattern in rules.by_pattern:
        if pattern in matched:
            continue
        if not rules.is_mapping:
            raise ValueError(
                f"The model {model.name!r} has no kernel to put on the list. It "
                f"has {', '.join(paths) or 'no weights'}. Give a mapping that spells the "
                "name of the weight."
            )
        nearest = difflib.get_close_matches(pattern, paths, n=3, cutoff=0.0)
        is_taken = any(re.search(pattern, path) for path in paths)
        raise ValueError(
            f"The rule {pattern!r} names no weight"
            f"{' that a rule before it leaves' if is_taken else ''}. Nearest are: "
            f"{', '.join(nearest) or 'none'}. Give an expression that matches in a path; "
            "for other weights than kernels it must spell the weight's name."
        )


def _check_expression(pattern: Any) -> None:
    """Refuse what is no regular expression."""
    try:
        re.compile(pattern)
    except (re.error, TypeError) as error:
        raise ValueError(
            f"rules has the key {pattern!r}, which is no regular expression: {error}. Expected "
            "one that is searched for in the paths of weights, such as 'hidden.*/kernel'. Put a "
            "backslash before a sign that stands for itself, as re.escape does."
        ) from None
