"""The trials that are done stand in a file, Optuna's journal, from which a sweep goes on."""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from quantal._sweep.claims import Claims
from quantal._sweep.plan import Trial
from quantal._sweep.training import Goal, Outcome

STUDY = "quantal.sweep"
"""The name of the study in the journal, by which Optuna's own tools open it."""

_SETTINGS, _GOAL, _KEY, _OUTCOME = "settings", "goal", "key", "outcome"
_AS_COMPILED = "as compiled"


class Journal:
    """A journal keeps the outcomes of trials; without a path it keeps them in memory alone.

    A trial is written once it is done, in one line, so that a killed process leaves whole
    trials and nothing of the one that it was at. Several processes share a file: each claims
    the trial that it runs.

    Args:
        file: The path, or None.
        settings: What is the same for all trials: the data, the model, the arguments of `fit`. A
            file with other ones is refused.
        trials: The planned trials, whose names are the choices that Optuna's tools show.

    Raises:
        ImportError: There is a path, and Optuna is not installed.
        ValueError: The file is none of a sweep, or of another sweep.
    """

    def __init__(
        self,
        file: str | os.PathLike[str] | None,
        settings: Mapping[str, str],
        trials: Sequence[Trial],
    ) -> None:
        self._outcomes: dict[str, Outcome] = {}
        self._study: Any = None
        self._optuna: Any = None
        self.goal: Goal | None = None
        if file is not None:
            self._optuna = _import_optuna()
            self._choices = _choices(trials)
            self._study = self._open(pathlib.Path(file), dict(settings))
            self._claims = Claims(pathlib.Path(file))
            self.read()

    def __contains__(self, trial: Trial) -> bool:
        return trial.key in self._outcomes

    def __getitem__(self, trial: Trial) -> Outcome:
        return self._outcomes[trial.key]

    @contextlib.contextmanager
    def claimed(self, trial: Trial, wait: bool) -> Iterator[bool]:
        """Claim a trial within a scope; yields whether this process is to run it.

        It is not where another process runs it, or has done so meanwhile.

        Args:
            trial: The trial.
            wait: Wait for the other process.
        """
        if self._study is None:
            yield True
            return
        with self._claims.claimed(trial.key, wait) as is_claimed:
            self.read()
            yield is_claimed and trial not in self

    def set_goal(self, goal: Goal) -> None:
        """Keep what trials are compared by, which the first one has shown."""
        self.goal = goal
        if self._study is not None:
            self._study.set_user_attr(_GOAL, list(goal))

    def add(self, trial: Trial, outcome: Outcome) -> None:
        """Keep the outcome of a trial."""
        self._outcomes[trial.key] = outcome
        if self._study is None:
            return
        create, states = self._optuna.trial.create_trial, self._optuna.trial.TrialState
        score = outcome.metrics.get(self.goal.metric) if self.goal else None
        params = _params(trial)
        distribution = self._optuna.distributions.CategoricalDistribution
        self._study.add_trial(
            create(
                state=states.FAIL if score is None else states.COMPLETE,
                value=score,
                params=params,
                distributions={name: distribution(self._choices[name]) for name in params},
                user_attrs={_KEY: trial.key, _OUTCOME: list(outcome)},
            )
        )

    def _open(self, path: pathlib.Path, settings: dict[str, str]) -> Any:
        """Return the study of a file, which is created if there is none."""
        if not path.parent.is_dir() or path.is_dir():
            reason = "a folder" if path.is_dir() else f"in no folder: {str(path.parent)!r} is none"
            raise ValueError(
                f"file is {str(path)!r}, {reason}. Expected a path in a folder that exists, such "
                "as 'sweep.journal'."
            )
        journal = self._optuna.storages.journal
        if _ends_in_half_a_line(path):
            lock = journal.JournalFileSymlinkLock(os.fspath(path))
            lock.acquire()  # Another process may be writing that line.
            try:
                _drop_half_a_line(path)
            finally:
                lock.release()
        try:
            storage = self._optuna.storages.JournalStorage(
                journal.JournalFileBackend(os.fspath(path))
            )
            study = self._study_in(storage)
        except (json.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(
                f"file is {str(path)!r}, which is not readable as a sweep's: {error!r}. Expected "
                "one that a sweep wrote, or a path where there is nothing yet."
            ) from error
        known = study.user_attrs.get(_SETTINGS)
        if known is None:
            study.set_user_attr(_SETTINGS, settings)
        elif known != settings:
            _refuse_other(path, known, settings)
        return study

    def _study_in(self, storage: Any) -> Any:
        verbosity = self._optuna.logging.get_verbosity()
        self._optuna.logging.set_verbosity(self._optuna.logging.WARNING)
        try:
            return self._optuna.create_study(storage=storage, study_name=STUDY, load_if_exists=True)
        finally:
            self._optuna.logging.set_verbosity(verbosity)

    def read(self) -> None:
        """Read what other processes have added."""
        if self._study is None:
            return
        goal = self._study.user_attrs.get(_GOAL)
        self.goal = None if goal is None else Goal(*goal)
        for trial in self._study.get_trials(deepcopy=False):
            if _OUTCOME in trial.user_attrs:
                outcome = Outcome(*trial.user_attrs[_OUTCOME])
                self._outcomes[trial.user_attrs[_KEY]] = outcome


def _import_optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise ImportError(
            "optuna is not installed. A sweep's file is written with it. Run "
            "pip install 'quantal[sweep]', or leave file out."
        ) from error
    return optuna


def _params(trial: Trial) -> dict[str, Any]:
    rate = _AS_COMPILED if trial.learning_rate is None else trial.learning_rate
    return {
        "values": trial.values,
        "estimator": trial.estimator,
        "learning_rate": rate,
        "seed": trial.seed,
    }


def _choices(trials: Sequence[Trial]) -> dict[str, list[Any]]:
    """Return the different entries of each parameter, in the order of the plan."""
    columns: dict[str, dict[Any, None]] = {}
    for trial in trials:
        for name, entry in _params(trial).items():
            columns.setdefault(name, {})[entry] = None
    return {name: list(entries) for name, entries in columns.items()}


def _ends_in_half_a_line(path: pathlib.Path) -> bool:
    """Whether the last line of a journal was never finished."""
    if not path.exists():
        return False
    content = path.read_bytes()
    return content.startswith(b'{"op_code"') and not content.endswith(b"\n")


def _drop_half_a_line(path: pathlib.Path) -> None:
    """Cut off what a line that was never finished has left, since Optuna would not read on."""
    with path.open("r+b") as stream:
        stream.truncate(stream.read().rfind(b"\n") + 1)


def _refuse_other(path: pathlib.Path, known: Mapping[str, str], settings: Mapping[str, str]) -> Any:
    differing = [n for n in {**known, **settings} if known.get(n) != settings.get(n)]
    advice = "Give another path, or the same arguments."
    if differing == ["initial weights"]:
        advice = (
            "Call keras.utils.set_random_seed before the model is made, load its weights from a "
            "file, or say start='fresh'."
        )
    texts = []
    for name in differing:
        pair = known.get(name, "none"), settings.get(name, "none")
        is_short = max(map(len, pair)) < 40 and not _is_digest(pair[0])
        texts.append(f"{name} ({pair[0]}, not {pair[1]})" if is_short else name)
    raise ValueError(
        f"file is {str(path)!r}, which is of a sweep with other {', '.join(texts)}. Expected the "
        f"same, so that its trials can be compared. {advice}"
    )


def _is_digest(text: str) -> bool:
    return len(text) == 16 and all(letter in "0123456789abcdef" for letter in text)
