"""A loss that is a function of the user's: how it is called, and its gradient."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantal.objectives.problem import Floats


class Called:
    """A user's loss, of vectors in NumPy.

    Args:
        function: From vectors (batch, n) to losses (batch,), in NumPy or keras.ops.
        jobs: Processes that share a batch; -1 for as many as there are cores.

    Raises:
        ValueError: jobs is another number.
    """

    def __init__(self, function: Callable[[Any], Any], jobs: int) -> None:
        if jobs < 1 and jobs != -1:
            raise ValueError(
                f"jobs is {jobs}. Expected 1 or more processes, or -1 for one a core. Give, say, 2."
            )
        self.function, self._jobs = function, jobs
        self._in_numpy: bool | None = None

    def __call__(self, rows: NDArray[Any]) -> Floats:
        """The losses (batch,) of vectors (batch, n)."""
        given, count = rows, len(rows)
        if not self._in_numpy:
            # In keras.ops as the backends have it; they compile anew for each shape, so that
            # there are as many as there are powers of two.
            kind = np.complex64 if np.iscomplexobj(rows) else np.float32
            if self._in_numpy is False:
                more = (1 << (count - 1).bit_length()) - count
                rows = np.pad(rows, ((0, more), (0, 0)), "edge")
            rows = rows.astype(kind)
        if self._in_numpy is not None and self._jobs != 1 and count > 1:
            made = _shared(self.function, rows, self._jobs)
        else:
            made = self.function(rows)
        if self._in_numpy is None:
            self._in_numpy = isinstance(made, np.ndarray)
            if self._in_numpy:
                made = self.function(given)
        found = np.asarray(_to_numpy(made), np.float64)
        if found.shape != (len(rows),):
            raise ValueError(
                f"The loss gave the shape {found.shape} for {len(rows)} vectors. Expected "
                f"({len(rows)},), a loss for each. Sum over the last axis alone."
            )
        return found[:count]

    def slopes(self, rows: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """The gradient (batch, n) of each vector's loss; None where the function has none."""
        if self._in_numpy is not False or np.iscomplexobj(rows):
            return None
        from quantal._core.tensors.backend import gradient

        try:
            found = gradient(self.function, rows.astype(np.float32))
        except Exception:  # The function leaves what the backend differentiates.
            return None
        if found is None or found.shape != rows.shape or not np.isfinite(found).all():
            return None
        return found.astype(np.float64)


def _shared(function: Callable[[Any], Any], rows: NDArray[Any], jobs: int) -> NDArray[Any]:
    try:
        from joblib import Parallel, cpu_count, delayed  # type: ignore[import-untyped]
    except ImportError as error:
        raise ImportError(
            "joblib is not installed. Expected it to call a loss in several processes. Run "
            "pip install 'quantal[search]', or leave jobs at 1."
        ) from error
    parts = np.array_split(rows, min(len(rows), cpu_count() if jobs < 0 else jobs))
    found = Parallel(jobs)(delayed(_in_process)(function, part) for part in parts)
    return np.concatenate(found)


def _in_process(function: Callable[[Any], Any], rows: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(_to_numpy(function(rows)))


def _to_numpy(losses: Any) -> NDArray[Any]:
    if isinstance(losses, np.ndarray):
        return losses
    import keras

    return keras.ops.convert_to_numpy(losses)  # type: ignore[no-any-return]
