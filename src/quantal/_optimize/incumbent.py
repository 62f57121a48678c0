"""The best so far, the clock, and what is kept in a file to go on from."""

import hashlib
import math
import os
import pathlib
import time
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from quantal._optimize.budget import Spending
from quantal._storage.atomic import replace_file
from quantal.objectives.problem import Floats, Integers, Problem


class Incumbent:
    """An incumbent is the best assignment so far, with its loss and how it was reached.

    Args:
        codes: The assignment that stands until a better one is offered, (n,).
        spending: Measures when each improvement comes.

    Attributes:
        codes: The best assignment so far, (n,).
        loss: Its loss; infinity before the first offer.
        history: The pairs (seconds, loss) of each improvement.
    """

    def __init__(self, codes: Integers, spending: Spending) -> None:
        self._spending = spending
        self.codes, self.loss = codes.copy(), math.inf
        self.history: list[tuple[float, float]] = []

    def offer(self, codes: Integers, loss: float) -> bool:
        """Take an assignment (n,) if its loss is lower; return whether it was taken."""
        if not loss < self.loss:
            return False
        self.codes, self.loss = codes.copy(), loss
        self.history.append((self._spending.seconds, loss))
        return True


class Record:
    """What a search has found, and what it may still spend.

    Args:
        losses: From codes (batch, n) to losses (batch,).
        start: Codes to begin with, (n,).
        budget: Seconds, or None for any.
        evaluations: How many losses or differences of losses, or None for any.
        verbose: Whether a line of progress is shown.
    """

    def __init__(
        self,
        losses: Callable[[Integers], Floats],
        start: Integers,
        budget: float | None,
        evaluations: int | None,
        verbose: int,
    ) -> None:
        self._losses, self._budget, self._most = losses, budget, evaluations
        self.evaluations = 0
        self.elsewhere: Callable[[], int] = lambda: 0
        """Differences that were looked at in compiled loops."""
        self.history: list[tuple[float, float]] = []
        self.best_codes, self.best = start.copy(), math.inf
        self.bound: float | None = None
        self.proved = False
        """Whether an exact method says that no vector is better."""
        self._shown = _progress(budget, evaluations) if verbose else None
        self.begin()

    def begin(self) -> None:
        """Start the clock."""
        self._began = time.perf_counter()

    def without(self, seconds: float) -> None:
        """Take some seconds out of what is spent: compiling is no part of a search."""
        self._began += seconds

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.perf_counter() - self._began

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return math.inf if self._budget is None else self._budget - self.seconds

    @property
    def used(self) -> float:
        """The share of the budget that is gone."""
        if self._budget is not None:
            return self.seconds / self._budget
        return self.spent / (self._most or 1)

    @property
    def spent(self) -> int:
        """How many losses or differences were looked at."""
        return self.evaluations + self.elsewhere()

    def affords(self, count: int, each: float) -> bool:
        """Whether so many losses may be looked at, and take half of the seconds left at most."""
        inside = self._most is None or count <= self._most - self.spent
        return inside and count * each <= self.left / 2

    def goes_on(self) -> bool:
        """Whether something is left to spend; shows how much is gone."""
        used = self.seconds if self._budget is not None else self.spent
        most = self._budget if self._budget is not None else self._most
        if self._shown is not None:
            self._shown.update(min(used, most or 0), values=[("loss", self.best)])
        inside = self._most is None or self.spent < self._most
        return self.left > 0 and inside and not self.proved

    def losses(self, codes: Integers) -> Floats:
        """The losses of codes (batch, n), counted."""
        self.evaluations += len(codes)
        return self._losses(codes)

    def losses_left(self, count: int) -> int:
        """How many of so many losses may be looked at, one at least."""
        return count if self._most is None else max(1, min(count, self._most - self.spent))

    def look(self, codes: Integers) -> None:
        """Keep a vector if its loss, which is looked at, is the lowest so far."""
        self.better(codes, float(self.losses(codes[None])[0]))

    def better(self, codes: Integers, loss: float) -> None:
        """Keep a vector if it is the best so far."""
        if loss < self.best:
            self.best, self.best_codes = loss, codes.copy()
            self.history.append((self.seconds, loss))

    def end(self) -> None:
        """Show the last line of progress."""
        if self._shown is not None:
            most = self._shown.target or self.seconds
            self._shown.update(most, values=[("loss", self.best)], finalize=True)


def fingerprint(*parts: Any) -> str:
    """A name for what is searched: the same for the same arrays."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(np.ascontiguousarray(part).tobytes() + repr(np.shape(part)).encode())
    return digest.hexdigest()


def check_place(file: str | os.PathLike[str] | None) -> None:
    """Raise a ValueError if a file cannot be written there."""
    folder = pathlib.Path(file or ".").parent
    if not folder.is_dir():
        raise ValueError(
            f"file is {os.fspath(file or '')!r}, and there is no folder {str(folder)!r}. Expected "
            "a path in a folder that is there. Make the folder first."
        )


def written(file: str | os.PathLike[str], **arrays: Any) -> None:
    """Write arrays to a file, which is replaced as a whole."""
    with replace_file(file) as stream:
        np.savez_compressed(stream, **arrays)


def read(file: str | os.PathLike[str], name: str, shapes: dict[str, tuple[int | None, ...]]) -> Any:
    """The arrays of a file that `written` made, for the problem of this fingerprint.

    Args:
        file: Its path.
        name: The fingerprint.
        shapes: The arrays, and the shape of each; None for any length.

    Raises:
        ValueError: The file is damaged, or of another problem.
    """
    try:
        with open(file, "rb") as stream, np.load(stream, allow_pickle=False) as found:
            arrays = {key: found[key] for key in ("fingerprint", *shapes)}
        for key, shape in shapes.items():
            own = arrays[key].shape
            fits = len(own) == len(shape) and all(
                a in (None, b) for a, b in zip(shape, own, strict=True)
            )
            if str(arrays["fingerprint"]) == name and not fits:
                raise KeyError(key)
    except (
        OSError, KeyError, EOFError, ValueError, TypeError, AttributeError,
        zipfile.BadZipFile, zlib.error,
    ) as error:  # fmt: skip
        raise ValueError(
            f"{os.fspath(file)!r} is not readable as a search's file: {error!r}. Expected one that "
            "a search wrote. Give another path, or delete it to begin anew."
        ) from error
    if str(arrays["fingerprint"]) != name:
        raise ValueError(
            f"{os.fspath(file)!r} is of another search: other lists, fixed elements, groups or "
            "constraints. Expected the same. Give another path, or the same arguments."
        )
    return arrays


def members_of(problem: Problem, arrays: Any) -> list[Integers]:
    """The codes of a file, those that the lists have."""
    rows = np.asarray(arrays["members"], np.int64)
    inside = ((rows >= 0) & (rows < problem.lengths)).all(axis=1)
    return list(rows[inside])


def _progress(budget: float | None, evaluations: int | None) -> Any:
    import keras

    unit = "second" if budget is not None else "evaluation"
    most = budget if budget is not None else evaluations
    return keras.utils.Progbar(
        None if most == math.inf else most,
        stateful_metrics=["loss"], unit_name=unit, interval=0.5,
    )  # fmt: skip
