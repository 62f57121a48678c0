"""Choose a list for each kernel from a menu, so that the model fits a budget and loses least.

What a kernel loses on a list is measured in the free model, with this kernel alone calibrated.
Losses of several kernels are taken to add up.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from quantal._core.by_identity import ByIdentity
from quantal._core.numbers.knapsack import Choice, Option, choose
from quantal._core.parameter import Parameter, parameters_of
from quantal._models.limits import Limit
from quantal._models.on_lists import Listed, put_on_lists
from quantal._models.probe import LabelledSamples, Probe, losses_of
from quantal._models.rules import ListSpec, Rules, specs_of
from quantal._models.walk import paths_of, weights_of
from quantal._storage.radix import Words

_MENU = "(?:)kernel$"
"""The expression of the rule that stands for the menu: nobody else writes it so."""


class Menu(NamedTuple):
    """A menu has lists for the kernels that no rule names.

    Attributes:
        rules: A mapping of rules for other weights, or None.
        values: The lists, as rules name them; None for kernels that stay free.
        scale: The scale, as for `discretize`.
        estimator: The estimator, as for `discretize`.
        keep_ends: Whether the first and the last layer stay free.
    """

    rules: Mapping[str, Any] | None
    values: Sequence[Any]
    scale: Any
    estimator: Any
    keep_ends: bool

    def specs(self, model: keras.Model, index: int) -> ByIdentity[ListSpec]:
        """Return the specifications of all weights, where all kernels go on one of the lists."""
        rules = {**(self.rules or {}), _MENU: self.values[index]}
        return specs_of(model, rules, self.scale, self.estimator, self.keep_ends)


def chosen(
    model: keras.Model, menu: Menu, limit: Limit, samples: LabelledSamples, verbose: int
) -> tuple[ByIdentity[ListSpec], ByIdentity[Choice]]:
    """Return what each weight is to become, and the choice of each that went by the menu.

    Args:
        model: A built model.
        menu: The menu.
        limit: What the choice has to keep.
        samples: The samples to measure on.
        verbose: 1 shows a line of progress, 0 nothing.

    Raises:
        TypeError: Rules are no mapping.
        ValueError: No kernel is left for the menu, the smallest lists do not fit, or a loss is
            not finite.
    """
    is_mapping = isinstance(menu.rules, Mapping) and "values" not in menu.rules
    if menu.rules is not None and not is_mapping:
        raise TypeError(
            f"rules is {menu.rules!r}, beside a menu. Expected a mapping from expressions to "
            "lists or None, for weights that do not go by it. Leave rules out, or give a mapping."
        )
    rules = Rules.of({**(menu.rules or {}), _MENU: True})
    matches = rules.match_all(model, menu.keep_ends)
    if all(match.pattern != _MENU or match.rule is None for match in matches.values()):
        raise ValueError(
            f"The model {model.name!r} has no kernel that could go by the menu. Expected one that "
            "is on no list, and that no rule names. Leave out the menu, or a rule."
        )
    entries = [index for index, values in enumerate(menu.values) if values is not None]
    specs_by_entry = {index: menu.specs(model, index) for index in entries}
    named: list[Any] = list(specs_by_entry[entries[0]])
    kernels = [kernel for kernel in named if matches[kernel].pattern == _MENU]
    listed = {index: put_on_lists(model, specs) for index, specs in specs_by_entry.items()}
    fixed = _bytes_of_others(listed[entries[0]], kernels)
    sizes = _sizes(menu, listed, kernels)
    capacity = _capacity(limit, fixed, sizes, sum(math.prod(k.shape) for k in kernels))
    losses = _losses(Probe(model, samples), listed, kernels, verbose)
    groups = [
        tuple(
            Option(specs_by_entry[i][kernel].values, size, losses[kernel][i])
            if i in listed
            else Option(None, size, 0.0)
            for i, size in enumerate(sizes[kernel])
        )
        for kernel in kernels
    ]
    _refuse_other_losses(model, kernels, groups)
    choices = ByIdentity(
        (kernel, Choice(group, index))
        for kernel, group, index in zip(kernels, groups, choose(groups, capacity), strict=True)
    )
    specs: ByIdentity[ListSpec] = ByIdentity()
    for variable in specs_by_entry[entries[0]]:
        index = choices[variable].index if variable in choices else entries[0]
        if index in specs_by_entry:
            specs[variable] = specs_by_entry[index][variable]
    return specs, choices


def _bytes_of(parameter: Parameter) -> int:
    """Return the bytes of a parameter: densely packed codes, scales and learned numbers."""
    count = math.prod(parameter.shape)
    others = parameter.bits - count * parameter.values.bits
    return Words.densest(len(parameter.values)).bytes_of(count) + others // 8


def _free_bytes(variable: keras.Variable) -> int:
    dtype = str(variable.dtype)
    size = 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize
    return math.prod(variable.shape) * size


def _bytes_of_others(listed: Listed, kernels: Sequence[keras.Variable]) -> int:
    """Return the bytes of all weights but the kernels that go by the menu."""
    parameters = ByIdentity([(p.latent, p) for p in parameters_of(listed.model)])
    of_menu = ByIdentity.of_keys(kernels)
    skipped = ByIdentity.of_keys(
        target.parameter.latent for target in listed.targets if target.variable in of_menu
    )
    return sum(
        _bytes_of(parameters[variable]) if variable in parameters else _free_bytes(variable)
        for variable in weights_of(listed.model)
        if variable not in skipped
    )


def _sizes(
    menu: Menu, listed: Mapping[int, Listed], kernels: Sequence[keras.Variable]
) -> ByIdentity[list[int]]:
    """Return the bytes of each kernel on each entry of the menu."""
    sizes = ByIdentity((kernel, [_free_bytes(kernel)] * len(menu.values)) for kernel in kernels)
    for index, (_, targets) in listed.items():
        for target in targets:
            if target.variable in sizes:
                sizes[target.variable][index] = _bytes_of(target.parameter)
    return sizes


def _capacity(limit: Limit, fixed: int, sizes: ByIdentity[list[int]], elements: int) -> int:
    """Return the bytes that are left for the kernels; refuse a limit that nothing keeps."""
    smallest = sum(min(of_kernel) for of_kernel in sizes.values())
    if limit.bytes is not None:
        if fixed + smallest > limit.bytes:
            raise ValueError(
                f"budget is {limit.bytes} bytes. Expected {fixed + smallest} or more: {smallest} "
                f"of kernels on the shortest lists of the menu, with their scales, and {fixed} of "
                "other weights. Raise it, put shorter lists on the menu, or list more weights."
            )
        return limit.bytes - fixed
    bits = limit.bits or math.inf
    capacity = math.floor(bits * elements / 8)
    if smallest > capacity:
        raise ValueError(
            f"bits is {bits:g}. Expected {8 * smallest / elements:.4g} or more, which the "
            f"{elements} elements take on the shortest lists of the menu, with their scales. "
            "Raise it, or put shorter lists on the menu."
        )
    return capacity


def _refuse_other_losses(
    model: keras.Model, kernels: Sequence[keras.Variable], groups: Sequence[Sequence[Option]]
) -> None:
    paths = paths_of(model)
    for kernel, group in zip(kernels, groups, strict=True):
        for option in group:
            if not math.isfinite(option.loss):
                raise ValueError(
                    f"The loss of {paths[kernel]!r} on {option.values} is {option.loss}. Expected "
                    "a finite number. Look at the outputs of the model on the data, which must be "
                    "finite and not all alike."
                )


def _losses(
    probe: Probe, listed: Mapping[int, Listed], kernels: Sequence[keras.Variable], verbose: int
) -> ByIdentity[dict[int, float]]:
    """Return what each kernel loses on the entries of the menu that are lists."""
    of_menu = ByIdentity.of_keys(kernels)
    targets = [[t for t in targets if t.variable in of_menu] for _, targets in listed.values()]
    losses = losses_of(probe, targets, verbose)
    return ByIdentity(
        (kernel, dict(zip(listed, losses[kernel], strict=True))) for kernel in kernels
    )
