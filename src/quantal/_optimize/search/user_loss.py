"""A user loss turns a function that the user gives into an objective."""

import numbers
import sys
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantal.objectives._algorithms.losses import AS_A_BATCH, checked_losses
from quantal.objectives.objective import Objective
from quantal.objectives.problem import Floats

_OF_NUMPY = (np.ndarray, np.generic, numbers.Number, list, tuple, str, type(None))
"""What no backend returns: an array of NumPy, or what it makes one of."""
_OF_ANOTHER_SHAPE = (ValueError, IndexError, TypeError)
"""A function of one vector raises these for a batch."""


class UserLoss(Objective):
    """A user loss calls a function in the type that it is written for.

    The function gets vectors in float32 or complex64 in its first call. If it returns a NumPy
    array, it gets float64 or complex128 from then on, and that first call is repeated. Else
    it is written in `keras.ops`: then each batch is padded to a power of two, because
    backends compile anew for each shape.

    Args:
        function: Takes vectors (batch, n) to losses (batch,), in NumPy or `keras.ops`.
        n: The length of the vectors.
        jobs: The processes that share a batch; -1 for as many as there are; None for what the
            user's `joblib.parallel_config` says, and for one where there is none.
        maximizes: Whether the function is to be large: the loss is its negative.

    Raises:
        TypeError: The function cannot be called.
        ValueError: jobs is 0, below -1 or no whole number.
    """

    def __init__(
        self,
        function: Callable[[Any], Any],
        n: int,
        jobs: int | None = None,
        maximizes: bool = False,
    ) -> None:
        if not callable(function):
            raise TypeError(
                f"objective is a {type(function).__name__}. Expected one of quantal.objectives, or "
                "a function of vectors (batch, n)."
            )
        is_number = isinstance(jobs, (int, np.integer))
        if jobs is not None and (not is_number or (jobs < 1 and jobs != -1)):
            raise ValueError(
                f"jobs is {jobs!r}. Expected 1 or more processes, or -1 for one a core, or None."
            )
        self._function, self._n, self._jobs = function, n, jobs
        self._sign = -1.0 if maximizes else 1.0
        self._is_numpy: bool | None = None
        """Whether the function computes in NumPy; None before its first call."""

    def __len__(self) -> int:
        return self._n

    def __call__(self, vectors: ArrayLike) -> Floats:
        vectors = np.asarray(vectors)
        if self._is_numpy is None:
            losses = self._first_call(vectors)
        elif self._is_numpy:
            losses = _to_numpy(self._evaluate(vectors))
        else:
            padded = _padded_to_power_of_two(_single_precision(vectors))
            losses = checked_losses(_to_numpy(self._evaluate(padded)), len(padded))
            return self._sign * losses[: len(vectors)]
        return self._sign * checked_losses(losses, len(vectors))

    def gradients(self, vectors: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """Return the gradient (batch, n) of each vector's loss; None where there is none."""
        if self._is_numpy is not False or np.iscomplexobj(vectors):
            return None
        # Only a function in a backend's tensors comes here; the seam needs Keras.
        from quantal._core.tensors.backend import gradient_of

        try:
            gradients = gradient_of(self._function, vectors.astype(np.float32))
        except Exception:
            # The function has computed losses before, so that an error here says only that it
            # leaves what the backend differentiates, for example for NumPy. Each backend raises
            # errors of many types then; the search goes on without gradients.
            return None
        if gradients is None or gradients.shape != vectors.shape:
            return None
        return self._sign * gradients.astype(np.float64) if np.isfinite(gradients).all() else None

    def _first_call(self, vectors: NDArray[Any]) -> NDArray[Any]:
        """Call the function once in single precision, to learn what it computes in."""
        try:
            losses = self._function(_single_precision(vectors))
            self._is_numpy = isinstance(losses, _OF_NUMPY)
            return _to_numpy(self._function(vectors) if self._is_numpy else losses)
        except Exception as error:
            words = (
                f"The objective raised {type(error).__name__} ({error}) for a batch of vectors, "
                f"shape {vectors.shape}. Expected a function of (batch, n) to losses (batch,). "
                f"{AS_A_BATCH}"
            )
            if isinstance(error, _OF_ANOTHER_SHAPE):
                raise ValueError(words) from error
            error.add_note(words)
            raise

    def _evaluate(self, vectors: NDArray[Any]) -> Any:
        if len(vectors) == 1 or _processes(self._jobs) == 1:
            return self._function(vectors)
        return _in_processes(self._function, vectors, self._jobs)


def _single_precision(vectors: NDArray[Any]) -> NDArray[Any]:
    return vectors.astype(np.complex64 if np.iscomplexobj(vectors) else np.float32)


def _padded_to_power_of_two(vectors: NDArray[Any]) -> NDArray[Any]:
    """Return the vectors, the last of them repeated until their number is a power of two."""
    count = len(vectors)
    next_power = 1 << (count - 1).bit_length()
    return np.pad(vectors, ((0, next_power - count), (0, 0)), "edge")


def _processes(jobs: int | None) -> int:
    """Return in how many processes joblib would compute now, on the user's own backend if any."""
    if jobs == 1 or (jobs is None and "joblib" not in sys.modules):
        return 1
    try:
        from joblib import effective_n_jobs  # type: ignore[import-untyped]
    except ImportError as error:
        raise ImportError(
            "joblib is not installed. Expected it to call a loss in several processes. Run "
            "pip install 'quantal[search]', or leave jobs out."
        ) from error
    return int(effective_n_jobs(jobs))


def _in_processes(
    function: Callable[[Any], Any], vectors: NDArray[Any], jobs: int | None
) -> NDArray[Any]:
    """Return the losses of parts of a batch, each computed in another process."""
    from joblib import Parallel, delayed

    parts = np.array_split(vectors, min(len(vectors), _processes(jobs)))
    try:
        # The user's `joblib.parallel_config` says where: on this machine, by Dask or by Ray.
        losses = Parallel(jobs)(delayed(_in_one_process)(function, part) for part in parts)
    except BrokenProcessPool as error:
        raise RuntimeError(
            f"A process that computed losses ended (jobs={jobs}): it was killed, most often as the "
            "memory was used up, or the objective ended it. Expected all processes to live as "
            "long as the search. Take fewer jobs; with file=... the best vector so far is there, "
            "and the same call goes on from it."
        ) from error
    return np.concatenate(losses)


def _in_one_process(function: Callable[[Any], Any], vectors: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(_to_numpy(function(vectors)))


def _to_numpy(losses: Any) -> NDArray[Any]:
    if isinstance(losses, _OF_NUMPY):
        return np.asarray(losses)
    # Only a backend's tensor needs Keras, which cannot be imported without a backend.
    import keras

    return keras.ops.convert_to_numpy(losses)
