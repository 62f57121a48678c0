"""Train a model on several lists, and say which of them to take."""

import difflib
import inspect
import os
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from quantal._optimize.interruption import interrupts_ignored, termination_as_interrupt
from quantal._sweep.data import Data, data_of, digest
from quantal._sweep.journal import Journal
from quantal._sweep.plan import Trial, plan_of, round_by_round
from quantal._sweep.progress import SweepProgress
from quantal._sweep.result import SweepResult, SweepRow
from quantal._sweep.training import (
    Models,
    Outcome,
    Starts,
    Unbuildable,
    goal_of,
    release_memory,
    train,
    without_retracing_warnings,
)

_ARGUMENTS = ("values", "estimators", "learning_rates", "seeds", "metric", "start", "file")
_WORDS = ", ".join(_ARGUMENTS)
_KERAS_LINES = 2
"""From this verbosity on Keras shows its line for each epoch, too."""


def sweep(
    model: Any,
    x: Any,
    y: Any = None,
    *,
    values: Any,
    estimators: Any = ("auto",),
    learning_rates: Any = None,
    seeds: Any = (0,),
    epochs: int = 10,
    metric: str | None = None,
    start: str = "model",
    file: str | os.PathLike[str] | None = None,
    verbose: int = 1,
    **fit: Any,
) -> SweepResult:
    """Train a model on each list, with each estimator, learning rate and seed, and compare.

    Use it to choose a list: the result says what each costs in accuracy and takes in bytes. The
    model is `discretize`d on each list and trained by `fit`; it stays as it is. With `file` every
    trial is kept once it is done, after a kill the same call goes on, and several processes that
    make the same call share the trials. Ctrl-C ends a sweep with what is done.

    Args:
        model: A compiled Keras model with free weights. Or a function `build(values, estimator)`
            that returns a compiled model; `values` is None for free floats.
        x: What `fit` takes: inputs, or a data set.
        y: Targets, if x has none.
        values: The lists: presets' names, lists of numbers, `Values`, or other rules of
            `discretize`; None among them trains free floats for comparison. Or a mapping of names
            of yours to lists.
        estimators: Estimators, or their names.
        learning_rates: Learning rates; None for the one that the model is compiled with.
        seeds: The seeds of new weights and of the order of batches. Three or more say whether two
            lists differ by more than chance.
        epochs: The number of epochs of each trial.
        metric: The name of a compiled metric to compare by, on the validation data; None for the
            first one, or the loss where there is none.
        start: `"model"` begins each trial with the model's weights, `"fresh"` with new ones.
        file: The path of Optuna's journal file, `"sweep.journal"` for example. None keeps nothing.
        verbose: 1 shows a line for each trial, 2 those of Keras as well, 0 nothing.
        **fit: Further arguments of `fit`, the same for all trials: `batch_size`, `class_weight`,
            `validation_data`, ... Without validation data a fifth of x and y is held out, drawn
            at random, or the share `validation_split`. `callbacks` are copied for each trial;
            without, `Finish` ends each run, and `PaceToRun` paces estimators that harden.

    Returns:
        A `SweepResult`: `print` it, read its `advice`, or take `picture()` and `to_frame()`.

    Raises:
        TypeError: An argument is of another kind than described.
        ValueError: An argument is not valid, the model is not compiled, no list can be put on
            the model, or the file is of another sweep.
        ImportError: `file` needs Optuna, which is not installed.

    Example:
    >>> import keras, numpy, quantal
    >>> random = numpy.random.default_rng(0)
    >>> x = random.normal(size=(256, 8)).astype("float32")
    >>> y = x @ numpy.sign(random.normal(size=(8, 1))).astype("float32")
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1, use_bias=False)])
    >>> model.compile(keras.optimizers.Adam(0.1), "mse")
    >>> result = quantal.sweep(model, x, y, values=["binary", "ternary"], verbose=0)
    >>> [row.values for row in result.rows], result.metric
    (['binary', 'ternary'], 'loss')
    """
    plan = plan_of(values, estimators, learning_rates, seeds)
    fit = {"epochs": epochs, "verbose": "auto" if verbose >= _KERAS_LINES else 0, **fit}
    _check_fit(fit)
    models = Models(model, start)
    models.check(plan[0])
    data = data_of(x, y, fit)
    settings = {
        **models.digests(learning_rates is not None),
        **data.digests(),
        "arguments of fit": _described(fit),
        "metric": str(metric),
        "backend": keras.config.backend(),
    }
    journal = Journal(file, settings, plan)
    progress = SweepProgress(len(plan), sum(trial in journal for trial in plan), verbose)
    name = None if file is None else os.fspath(file)
    progress.begin(name)
    run = _Run(models, data, fit, metric, journal, progress)
    try:
        with termination_as_interrupt(), without_retracing_warnings():
            run.do_all(plan)
    except KeyboardInterrupt:
        if not any(trial in journal for trial in plan):
            raise
        progress.interrupted(name)
    return run.result(plan)


class _Run:
    """A run does the trials of a sweep that are not in its journal."""

    def __init__(
        self,
        models: Models,
        data: Data,
        fit: Mapping[str, Any],
        metric: str | None,
        journal: Journal,
        progress: SweepProgress,
    ) -> None:
        self._models, self._data, self._fit, self._metric = models, data, fit, metric
        self._journal, self._progress = journal, progress
        self._not_built: dict[str, Outcome] = {}
        self._starts = Starts()

    def do_all(self, plan: Sequence[Trial]) -> None:
        """Do the trials that no other process does, and wait for those that others do.

        One whose process ended before it was done is done here.
        """
        for wait in (False, True):
            for trial in round_by_round(plan):
                self._journal.read()
                if self._is_done(trial):
                    continue
                if wait:
                    self._progress.waits(trial)
                with self._journal.claimed(trial, wait) as is_open:
                    if is_open:
                        self.do(trial, plan)

    def _is_done(self, trial: Trial) -> bool:
        return self._outcome(trial) is not None

    def do(self, trial: Trial, plan: Sequence[Trial]) -> None:
        """Do a trial and keep its outcome; one whose model cannot be made is noted, not kept."""
        try:
            model = self._models.build(trial)
        except Unbuildable as error:
            outcome = self._not_built[trial.key] = Outcome({}, 0, 0.0, f"not built: {error}")
        else:
            if self._models.is_function:
                self._starts.check(trial, model)
            outcome = train(model, trial, self._data, self._fit, self._metric)
            with interrupts_ignored():
                if self._journal.goal is None and outcome.metrics:
                    self._journal.set_goal(goal_of(model, self._metric, outcome.metrics))
                self._journal.add(trial, outcome)
            del model
            release_memory(outcome.seconds)
        done = sum(self._is_done(one) for one in plan)
        self._progress.end_of(trial, outcome, self._journal.goal, done)

    def result(self, plan: Sequence[Trial]) -> SweepResult:
        """Return the result of all trials that are done.

        Raises:
            ValueError: None of them has a number.
        """
        goal = self._journal.goal
        if len(self._not_built) == len({trial.key for trial in plan}):
            first = next(iter(self._not_built.values()))
            raise ValueError(f"No model of the sweep can be made: it is {first.note}")
        if goal is None:
            raise ValueError(
                "All trials have diverged: NaN or infinity after training. Expected numbers. "
                "Lower the learning rate, or scale the inputs."
            )
        outcomes = ((trial, self._outcome(trial)) for trial in plan)
        rows = [SweepRow.of(trial, o, goal) for trial, o in outcomes if o is not None]
        return SweepResult(tuple(rows), goal.metric, goal.maximize, len(plan))

    def _outcome(self, trial: Trial) -> Outcome | None:
        if trial in self._journal:
            return self._journal[trial]
        return self._not_built.get(trial.key)


def _check_fit(fit: Mapping[str, Any]) -> None:
    """Refuse what `fit` of Keras does not take, before anything is trained."""
    known = list(inspect.signature(keras.Model.fit).parameters)[1:]
    for name in fit:
        if name not in known:
            close = difflib.get_close_matches(name, [*known, *_ARGUMENTS], 1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise TypeError(
                f"sweep has no argument {name!r}, nor has fit of Keras. Expected {_WORDS}, or one "
                f"of fit: {', '.join(known[2:])}.{hint}"
            )


def _described(fit: Mapping[str, Any]) -> str:
    """Return the arguments of `fit` as a text that is the same in another process."""
    texts = []
    for name, value in sorted(fit.items()):
        if name == "verbose":
            continue
        if name == "callbacks":
            several = value if isinstance(value, (list, tuple)) else [value]
            text = str([type(callback).__name__ for callback in several])
        else:
            text = repr(value) if isinstance(value, (int, float, str, dict)) else digest(value)
        texts.append(f"{name}={text}")
    return ", ".join(texts)
