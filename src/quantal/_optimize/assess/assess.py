"""`quantal.assess` says how good the codes of a trained model are."""

import contextlib
import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from quantal._core.keras_internals.compiled import compute_loss
from quantal._core.numbers.checks import checked_seed
from quantal._core.parameter import Parameter
from quantal._core.processes import agreed_clock
from quantal._models.batches import Batches
from quantal._models.compiled_loss import CompiledLoss
from quantal._models.model_loss import ModelLoss
from quantal._optimize.assess.agreement import Agreement, Retrain, Runs, runs_of
from quantal._optimize.assess.assessment import (
    Absorption,
    Assessment,
    ParameterAssessment,
    least_change,
)
from quantal._optimize.assess.comparisons import Compared, Comparisons
from quantal._optimize.assess.identifiability import Identifiability, vectors_among
from quantal._optimize.assess.single_changes import Changes, SingleChanges
from quantal._optimize.budget import Budget, Spending
from quantal._optimize.incumbent import Incumbent
from quantal._optimize.interruption import interrupts_ignored
from quantal._optimize.polish.arguments import check_batch_size, checked_parameters
from quantal._optimize.polish.ascending_lists import AscendingLists
from quantal._optimize.progress import Progress

_TRIED_ON = 64
"""Whether a vector can be identified is tried on so many samples."""


def assess(
    model: keras.Model,
    x: Any,
    y: Any = None,
    budget: float | Budget = 60.0,
    *,
    sample_weight: Any = None,
    parameters: Sequence[Parameter] | None = None,
    retrain: Retrain | None = None,
    seeds: int = 3,
    batch_size: int = 8192,
    seed: int = 0,
    verbose: int = 1,
) -> Assessment:
    """Say how good the codes of a trained model are: whether other values would lower its loss.

    Each element of each listed weight is given other values, one element at a time, and the loss
    is evaluated. Where the budget does not suffice for all elements, a random sample is assessed,
    the same number of each weight as long as it has more, and the result says how many. All other
    values of the list are tried where that takes few evaluations, else the neighbouring ones.

    The loss is also compared with that of random codes, of the most used value everywhere, and,
    for up to 512 elements and at least twice as many samples, of free floats. The model stays as
    it is.

    It also says when a vector cannot be identified: when other weights of the model that are
    trained, such as the rows of a Dense layer behind a vector of ±1, can undo its changes. They are
    looked for by their shapes, and tried on the loss.

    Give data that the model was not trained on: on training data a model looks better than it is.

    Args:
        model: A built and compiled model with discrete layers.
        x: The model's inputs, arrays or structures of arrays of any dtype, (samples, ...).
        y: The targets, (samples, ...); None where the loss needs none.
        budget: Seconds for single changes, without compiling, or a `quantal.Budget`. With
            evaluations alone the same seed gives the same result.
        sample_weight: How much each sample counts, as in `fit`; None for all alike.
        parameters: The parameters to assess, of `parameters_of(model)`; None for all.
        retrain: A function of a seed that builds and trains such a model and returns it, to see
            in how many elements runs agree; None leaves that out.
        seeds: How often `retrain` is called, with the seeds 0, 1, ...; at least 2.
        batch_size: The most samples at once.
        seed: The seed of the random numbers.
        verbose: 1 shows a line of progress, 0 nothing.

    Returns:
        An `Assessment`: print it, show it in a notebook, or read its parts.

    Raises:
        TypeError: It is not a Keras model.
        ValueError: The model is not compiled or has no discrete layers, the data are no arrays of
            one length, the loss is not a number, or `retrain` returned another kind of model.

    >>> import keras, numpy as np, quantal
    >>> x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    >>> model = keras.Sequential([keras.Input((4,)), quantal.LearnableMultiplier([1, -1])])
    >>> model.compile(loss="mse")
    >>> model.layers[0].set_codes([0, 1, 1, 1])
    >>> assessment = assess(model, x, x * [1, -1, 1, -1], verbose=0)
    >>> assessment.helpful, assessment.parameters[0].best_values.tolist()
    (1, [-1.0, 1.0, 1.0, 1.0])
    >>> int(assessment.parameters[0].changes.argmin())
    2
    """
    check_batch_size(batch_size)
    random, spending = (
        np.random.default_rng(checked_seed(seed)),
        Spending(Budget.of(budget), agreed_clock),
    )
    selected = checked_parameters(model, parameters, frozen_too=True)
    batches = Batches((x, y, sample_weight), batch_size)
    lists, compiled = AscendingLists(selected), CompiledLoss(model, selected)
    runs = Runs([], [])
    if retrain is not None:
        _check_data(compiled, batches)  # Before anything is trained, which takes long.
        runs = runs_of(retrain, seeds, selected, model)
    try:
        loss = ModelLoss(compiled, batches)
        comparisons = Comparisons(loss, lists, random)
        compared, free = comparisons.compared(), comparisons.free_numbers()
        _check_finite(compared.loss)
        few = batches.take(np.arange(min(_TRIED_ON, batches.samples)))
        absorptions = _absorptions(compiled, few, random)
        singles = SingleChanges(loss, lists, random)
        _assess_singles(singles, spending, verbose)
        parts = _by_parameter(selected, lists, singles.changes(), comparisons, compared)
    finally:
        with interrupts_ignored():
            compiled.release()
    agreements = runs.agreements or [Agreement(None, None)] * len(selected)
    others = zip(parts, agreements, absorptions, strict=True)
    return Assessment(
        parameters=tuple(
            dataclasses.replace(
                part,
                agreement=agreement.share,
                by_chance=agreement.by_chance,
                absorption=absorption,
            )
            for part, agreement, absorption in others
        ),
        **compared._asdict(),
        free=free,
        samples=batches.samples,
        evaluations=singles.evaluations + comparisons.evaluations,
        seed_losses=tuple(_evaluated(one, x, y, sample_weight, batch_size) for one in runs.models),
    )


def _check_data(compiled: CompiledLoss, batches: Batches) -> None:
    """Compute the loss of a few samples without compiling, and refuse what has none."""
    x, y, weights = few = batches.take(np.arange(min(_TRIED_ON, batches.samples)))
    try:
        compiled.prepare(few, batches.count)
        outputs = compiled.model(x, training=False)
        loss = compute_loss(compiled.model, x, y, outputs, weights)
        _check_finite(float(ops.convert_to_numpy(loss)))
    finally:
        compiled.release()


def _check_finite(loss: float) -> None:
    if not np.isfinite(loss):
        raise ValueError(
            f"The loss is {loss}. Expected a finite number. Train the model first, or look at its "
            "data."
        )


def _assess_singles(singles: SingleChanges, spending: Spending, verbose: int) -> None:
    """Assess single changes until all are or the budget is used up; Ctrl-C ends it early."""
    total = len(singles.order)
    with contextlib.suppress(KeyboardInterrupt):
        singles.warm_up()
        spending.restart_clock()  # Compiling is not charged.
        progress = Progress(
            spending, Incumbent(singles.order, spending), verbose,
            state=lambda: f"{singles.count:,} of {total:,} elements assessed",
        )  # fmt: skip
        singles.run(spending)
        progress.end()


def _by_parameter(
    parameters: Sequence[Parameter],
    lists: AscendingLists,
    changes: Changes,
    comparisons: Comparisons,
    compared: Compared,
) -> list[ParameterAssessment]:
    """Return what single changes and other codes of each parameter come to."""
    ranks, elements = lists.ranks(), changes.elements
    values = lists.values_at(elements, ranks[elements])
    best_values = lists.values_at(elements, changes.best_ranks)
    parts, end = [], 0
    for parameter, size in zip(parameters, lists.sizes, strict=True):
        part, end = slice(end, end + size), end + size
        mask = (elements >= part.start) & (elements < part.stop)
        one = compared if len(parameters) == 1 else comparisons.compared(part)
        parts.append(
            ParameterAssessment(
                path=parameter.path, elements=size, positions=elements[mask] - part.start,
                values=values[mask], best_values=best_values[mask], changes=changes.best[mask],
                below=changes.below[mask], above=changes.above[mask],
                random=one.random, constant=one.constant, least_change=least_change(compared.loss),
            )
        )  # fmt: skip
    return parts


def _absorptions(
    compiled: CompiledLoss, batch: Any, random: np.random.Generator
) -> list[Absorption | None]:
    """Return for each parameter which weights undo its changes, where that is a vector."""
    vectors = vectors_among(compiled.model, compiled.parameters)
    if not vectors:
        return [None] * len(compiled.parameters)
    trials = Identifiability(compiled, batch, random)
    return [
        trials.absorption(parameter) if any(parameter is one for one in vectors) else None
        for parameter in compiled.parameters
    ]


def _evaluated(model: keras.Model, x: Any, y: Any, sample_weight: Any, batch_size: int) -> float:
    metrics = model.evaluate(
        x, y, sample_weight=sample_weight, batch_size=batch_size, verbose=0, return_dict=True
    )
    return float(metrics["loss"])
