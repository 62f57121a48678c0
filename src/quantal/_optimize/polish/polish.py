"""`quantal.polish` changes the assignment of a trained model wherever that lowers its loss."""

import contextlib
import os
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from quantal._core.numbers.checks import checked_seed
from quantal._core.parameter import Parameter, parameters_of
from quantal._core.processes import agreed_clock, index
from quantal._models.batches import Batches
from quantal._models.compiled_loss import CompiledLoss, Monitor
from quantal._models.model_loss import ModelLoss
from quantal._optimize.autosave import Autosave
from quantal._optimize.budget import Budget, Spending
from quantal._optimize.incumbent import Incumbent
from quantal._optimize.interruption import interrupts_ignored, termination_as_interrupt
from quantal._optimize.methods.quadratic_fit import LARGEST_FITTED
from quantal._optimize.polish.arguments import (
    check_batch_size,
    check_file,
    checked_monitor,
    checked_parameters,
    checked_validation_data,
)
from quantal._optimize.polish.ascending_lists import AscendingLists
from quantal._optimize.polish.continuous import ContinuousSteps, continuous_variables
from quantal._optimize.polish.curvature import Curvature
from quantal._optimize.polish.full_batch import FullBatch
from quantal._optimize.polish.minibatch import Minibatch
from quantal._optimize.polish.ranked_loss import RankedLoss
from quantal._optimize.polish.report import PolishReport
from quantal._optimize.polish.resumption import Resumption
from quantal._optimize.polish.state import PolishState
from quantal._optimize.polish.validation import Kept, Selection
from quantal._optimize.polish.variables_alone import VariablesAlone
from quantal._optimize.progress import Progress
from quantal.objectives._algorithms.solution import Solution


def polish(
    model: keras.Model,
    x: Any,
    y: Any = None,
    budget: float | Budget = 60.0,
    *,
    sample_weight: Any = None,
    validation_data: tuple[Any, ...] | None = None,
    monitor: Monitor | str | None = None,
    parameters: Sequence[Parameter] | None = None,
    continuous: bool = False,
    batch_size: int = 8192,
    seed: int = 0,
    file: str | os.PathLike[str] | None = None,
    verbose: int = 1,
) -> PolishReport:
    """Change the assignment of a trained model wherever that lowers its loss.

    Use it after `fit`, where gradients have stopped: each change is checked by the loss itself,
    computed as in inference. The other weights, scales and lists stay, unless `continuous`, and so
    do the values of frozen layers (`trainable=False`).

    How: up to 512 elements whose loss is quadratic are followed by exact deltas (`quantal.search`).
    Else moves to neighbouring values are ranked by `gradient * step + curvature * step**2 / 2`,
    and taken in blocks whose size follows what the loss says, one by one in the end; then many are
    drawn at a temperature that falls, again and again from the best. More data than `batch_size`
    are followed in batches, a new one each few steps, and evaluated as a whole from time to time;
    blocks that do not lower the loss, that of the validation data included, are tabu for a while.

    With `continuous`, blocks of changed codes alternate with blocks of Adam's steps on what is not
    on a list. Such a block is kept only if it lowers what decides, measured with the same codes on
    all data; else it is taken back, and the next has a smaller rate. About a third of the budget
    goes into them.

    What is kept has the lowest loss on the validation data, or without these on the data given, and
    is never worse on the data given than the assignment at the start. Ctrl-C ends polishing with
    it, and so does SIGTERM, unless the program handles that signal itself. Memory grows with
    elements and samples, not with the length of the list.

    The loss is what `evaluate` gives, in batches of `batch_size`: the compiled one with what layers
    add to it. Only penalties on latents are left out, which say nothing of the values.

    Source of the drawn changes: Zhang, Liu and Liu, "A Langevin-like sampler for discrete
    distributions", ICML 2022, here with the curvature along the last step.

    Args:
        model: A built and compiled model with discrete layers. It is changed.
        x: The model's inputs, arrays or structures of arrays of any dtype, (samples, ...).
        y: The targets, (samples, ...); None where the loss needs none.
        budget: Seconds, or a `quantal.Budget`. With evaluations alone the same seed gives the same
            result. An evaluation is a loss, with or without its gradient, on all or a part of
            the data given or of the validation data.
        sample_weight: How much each sample counts, as in `fit`; None for all alike.
        validation_data: Other samples `(x, y)` or `(x, y, sample_weight)` that decide which
            assignment is kept, so that noise in the data is not learned.
        monitor: Another number, lower is better, that decides which assignment is kept: a function
            of targets and outputs to it, for example to the fraction of wrong answers; or the name
            of a compiled metric as in `evaluate`, such as `"mae"`, of which the negative is taken
            where more is better, as of `"accuracy"`; None for the loss. Moves follow the loss,
            which has a gradient; what the report calls loss is this number.
        parameters: The parameters that may change, of `parameters_of(model)`; None for all that
            are not frozen.
        continuous: Whether to train the other trainable variables, too: biases, a normalization's
            factors and offsets, weights without a list, and the learned scales and lists of
            `parameters`. Statistics of a normalization stay. Without such variables it changes
            nothing.
        batch_size: The most samples at once.
        seed: The seed of the random numbers.
        file: Where the best assignment is written, with the variables of `continuous`, at once, at
            least every 30 seconds and in the end; if the file exists, polishing goes on from it.
            The place is tried before the first evaluation; what cannot be written later is a
            warning.
        verbose: 1 shows a line of progress, 0 nothing.

    Returns:
        A `PolishReport`.

    Raises:
        TypeError: It is not a Keras model, or monitor is neither a function nor a name.
        ValueError: The model is not compiled, has no discrete layers or no such metric, one of
            `parameters` is frozen, the data are no arrays of one length, the loss is not a
            number, or the file is damaged, of another model or in a place that cannot be written.

    >>> import keras, numpy as np, quantal
    >>> x = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
    >>> y = x * [1, -1, 1, 1, -1, -1, 1, -1]
    >>> model = keras.Sequential([keras.Input((8,)), quantal.LearnableMultiplier()])
    >>> model.compile(loss="mse")
    >>> report = polish(model, x, y, budget=quantal.Budget(evaluations=1000), verbose=0)
    >>> print(round(report.loss, 6))
    0.0
    """
    check_batch_size(batch_size)
    check_file(file)
    seed = checked_seed(seed)
    selected, monitor = checked_parameters(model, parameters), checked_monitor(monitor)
    # Where all are frozen, they are measured, and stay as they are.
    measured = selected or parameters_of(model)
    lists, spending = AscendingLists(measured), Spending(Budget.of(budget), agreed_clock)
    trained = continuous_variables(model, selected) if continuous else []
    compiled = CompiledLoss(model, measured, monitor, trained)
    resumption = Resumption(file, measured, trained, lists)

    def objective_of(data: Any) -> RankedLoss:
        return RankedLoss(ModelLoss(compiled, Batches(data, batch_size)), lists, spending.count)

    try:
        objective, validation = objective_of((x, y, sample_weight)), None
        if validation_data is not None:
            validation = objective_of(checked_validation_data(validation_data)).monitored
        random = np.random.default_rng(seed)
        steps = ContinuousSteps(objective, spending, random, not selected) if trained else None
        start = _measured_start(objective, validation, steps)
        if not selected and steps is None:
            return _report(start, start, Incumbent(start.ranks, spending), spending)
        spending.restart_clock()  # Compiling is not charged.
        incumbent = Incumbent(start.ranks, spending)
        incumbent.offer(start.ranks, start.loss)
        selection = Selection(
            start, objective.monitored, validation, incumbent.offer,
            tuple if steps is None else lambda: steps.numbers,
        )  # fmt: skip
        state = PolishState(
            objective, Curvature(objective), spending, incumbent, selection,
            random, monitor is not None, seed, steps,
        )  # fmt: skip
        resumption.offer_to(state)
        progress = Progress(spending, incumbent, verbose if index() == 0 else 0)
        solution = _run(state, resumption, bool(selected))
        progress.end()
    finally:
        with interrupts_ignored():
            compiled.release()
    return _report(start, selection.kept, incumbent, spending, solution.complete, steps)


def _run(state: PolishState, resumption: Resumption, has_codes: bool) -> Solution:
    """Polish, and give the model what is kept; Ctrl-C and SIGTERM end polishing early."""
    in_batches = state.objective.model_loss.batches.count > 1
    method: Minibatch | FullBatch | VariablesAlone = VariablesAlone(state)
    if has_codes:
        method = Minibatch(state) if in_batches else FullBatch(state)
    incumbent, selection, solution = state.incumbent, state.selection, Solution(None)

    def snapshot() -> dict[str, Any]:
        return resumption.arrays(state, method.reached)

    with termination_as_interrupt(), Autosave(resumption.checkpoint, snapshot) as autosave:
        state.spending.watch(autosave.warn)
        with contextlib.suppress(KeyboardInterrupt):
            # Batches go on from what is kept, which the validation data may have chosen.
            start = selection.kept.ranks if in_batches else incumbent.codes
            solution = method.run(start, state.spending, incumbent.offer)
        with contextlib.suppress(KeyboardInterrupt):
            method.offer_last()
        with interrupts_ignored():
            if state.continuous is not None:
                state.continuous.assign(selection.kept.variables)
            state.objective.lists.assign(selection.kept.ranks)
    return solution


def _measured_start(objective: RankedLoss, validation: Any, steps: ContinuousSteps | None) -> Kept:
    """Return the assignment that the model has, measured; whatever is slow compiles here.

    Raises:
        ValueError: A loss is not a finite number.
    """
    ranks = objective.lists.ranks()
    loss = objective.monitored(ranks)
    validation_loss = None if validation is None else validation(ranks)
    if len(ranks) <= LARGEST_FITTED:  # Losses of many assignments at once test for a quadratic one.
        objective.model_loss(objective.lists.values(np.stack([ranks, ranks])))
    for name, number in (("", loss), (" of validation_data", validation_loss)):
        if number is not None and not np.isfinite(number):
            raise ValueError(
                f"The loss{name} is {number} before anything is changed. Expected a finite number. "
                "Train the model first, or look at its data."
            )
    if steps is None:
        return Kept(ranks, loss, validation_loss)
    steps.prepare(ranks)
    return Kept(ranks, loss, validation_loss, steps.numbers)


def _report(
    start: Kept,
    kept: Kept,
    incumbent: Incumbent,
    spending: Spending,
    solved: bool = False,
    steps: ContinuousSteps | None = None,
) -> PolishReport:
    return PolishReport(
        loss_before=start.loss,
        loss=kept.loss,
        validation_before=start.validation,
        validation=kept.validation,
        proved=solved and kept.loss <= incumbent.loss,
        changed=int((kept.ranks != start.ranks).sum()),
        elements=len(start.ranks),
        evaluations=spending.evaluations,
        history=incumbent.history,
        continuous_steps=0 if steps is None else steps.steps,
    )
