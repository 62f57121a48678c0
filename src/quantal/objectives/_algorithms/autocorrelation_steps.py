"""Self-avoiding walks lower the energy of a vector's autocorrelations, by exact deltas.

Where element `i` changes by `d`, the sum of lag `k` changes by `d a + conj(d) b` with
`a = conj(v[i + k])` and `b = v[i - k]`. So the loss changes by

    2 Re(d slope + d^2 product) + abs(d)^2 squares

with the sums over the lags `slope` of `conj(C) a + C conj(b)`, `product` of `a conj(b)`
and `squares` of `abs(a)^2 + abs(b)^2`. The first is a product of the vector with a
Toeplitz matrix of the `C`, the others are kept up to date: a step takes `n^2 + n K`
operations.

Source: Boskovic, Brglez and Brest, "Low-autocorrelation binary sequences: on improved
merit factors and runtime predictions to achieve them", Applied Soft Computing 2017.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from quantal.objectives._algorithms.compiled_loop import (
    BEST_LOSS,
    LOSS,
    STEP,
    STEP_OF_BEST,
    CompiledLoop,
    LoopState,
)
from quantal.objectives._algorithms.compiling import compiled
from quantal.objectives.problem import Floats, Integers, Problem

_STEPS_OF_A_WALK = 4
"""The length of a walk, in multiples of the elements."""
_ROUNDING = 1e-12
"""The relative error of a sum of products in float64."""
_EXACT_IN_FLOAT32 = 2**24
"""Whole numbers up to here are exact in single precision."""
_WALK, _STEP_OF_WALK = range(2)
"""The positions in `VisitedVectors.counters`."""


class WalkArrays(NamedTuple):
    """Walk arrays hold a problem as compiled code takes it.

    Attributes:
        lists: The values, (K, n), real or complex.
        lengths: The number of values of each element; 1 where it keeps its code, (n,).
        barred: Infinity for codes that an element may not have, else 0, (K, n).
        keys: Random numbers (K, n): a vector's hash is the exclusive or of its codes' keys.
    """

    lists: NDArray[Any]
    lengths: Integers
    barred: NDArray[Any]
    keys: Integers

    @classmethod
    def of(cls, problem: Problem, seed: int) -> "WalkArrays":
        """Return the arrays of a problem, in single precision where that is exact."""
        lists = np.ascontiguousarray(exact_lists(problem.lists).T)
        keys = np.random.default_rng([seed, 2]).integers(2**62, size=lists.shape)
        lengths = np.where(problem.fixed, 1, problem.lengths)
        closed = problem.fixed | (np.arange(len(lists))[:, None] >= lengths)
        barred = np.where(closed, np.inf, 0).astype(lists.real.dtype)
        return cls(lists, lengths, barred, keys)


class VisitedVectors(NamedTuple):
    """Visited vectors are a hash table of what a walk has visited, and the counters of the walk.

    Attributes:
        hashes: The hashes of vectors; their number is a power of two.
        walks: The walk that visited each of these; others are forgotten.
        counters: The number of the walk, and its steps so far.
    """

    hashes: Integers
    walks: Integers
    counters: Integers

    @classmethod
    def of(cls, steps_of_a_walk: int) -> "VisitedVectors":
        """Return an empty table that is at most half full after a walk."""
        hashes, walks = np.zeros((2, 1 << (2 * steps_of_a_walk).bit_length()), np.int64)
        return cls(hashes, walks, np.array([1, 0]))


class Correlations(NamedTuple):
    """Correlations hold the vector of a walk, and what is kept up to date with it.

    Attributes:
        v: The vector, (n,).
        sums: The autocorrelation `C[k]` of each lag, (n,).
        products: The sums over the lags of `a conj(b)` for each element, (n,).
        kernel: The diagonals of the Toeplitz matrix, (2 n - 1,).
        slopes: The product of the Toeplitz matrix with `conj(v)`, (n,).
        deltas: The change of the loss with each code of an element, (K, n).
    """

    v: NDArray[Any]
    sums: NDArray[Any]
    products: NDArray[Any]
    kernel: NDArray[Any]
    slopes: NDArray[Any]
    deltas: NDArray[Any]


def exact_lists(lists: Floats) -> NDArray[Any]:
    """Return lists (n, K) in single precision if every sum is exact in it: half of the time."""
    whole = np.isrealobj(lists) and bool((lists == np.rint(lists)).all())
    largest_sum = 8 * len(lists) ** 2 * max(1, np.abs(lists).max()) ** 3
    return lists.astype(np.float32) if whole and largest_sum < _EXACT_IN_FLOAT32 else lists


def autocorrelation_loop(energy: Any, periodic: bool, problem: Problem, seed: int) -> CompiledLoop:
    """Return walks that never come back to a vector, each from random codes.

    Args:
        energy: Returns the loss of one vector (n,).
        periodic: Whether the vector goes round.
        problem: The lists.
        seed: The seed of the hashes.
    """
    n = len(problem)
    length = _STEPS_OF_A_WALK * n
    rounding = _ROUNDING * n**3 * float(np.abs(problem.lists).max()) ** 4
    arrays, visited = WalkArrays.of(problem, seed), VisitedVectors.of(length)

    def advance(count: int, seed: int, state: LoopState) -> None:
        walk(count, length, rounding, seed, periodic, arrays, visited, state)

    return CompiledLoop(energy, advance, n**2 + problem.lists.size, math.inf)


@compiled()
def walk(
    count: int, length: int, rounding: float, seed: int, periodic: bool,
    arrays: WalkArrays, visited: VisitedVectors, state: LoopState,
) -> None:  # fmt: skip
    """Make some steps, each to the best neighbour that the walk has not visited.

    After its length, or where all neighbours have been visited, a walk begins anew at random
    codes. `visited` and `state` are changed in place.

    Args:
        count: The number of steps.
        length: The most steps of a walk.
        rounding: Improvements smaller than this are rounding noise.
        seed: The seed of the random numbers.
        periodic: Whether the vector goes round.
        arrays: The problem.
        visited: The vectors that the walk has visited.
        state: Where the search stands.
    """
    np.random.seed(seed)
    lists, lengths, barred, keys = arrays
    hashes, walks, counters = visited
    codes, _, best_codes, progress = state
    n, times = len(codes), 2 if periodic else 1
    correlations = Correlations(
        np.zeros(n, lists.dtype), np.zeros(n, lists.dtype), np.zeros(n, lists.dtype),
        np.zeros(2 * n - 1, lists.dtype), np.zeros(n, lists.dtype),
        np.zeros(lists.shape, barred.dtype),
    )  # fmt: skip
    v, sums, products, kernel, slopes, deltas = correlations
    begins, squares, vector_hash = True, 0.0, np.int64(0)
    for _ in range(count):
        if counters[_STEP_OF_WALK] >= length:
            for i in range(n):
                if lengths[i] > 1:
                    codes[i] = np.random.randint(lengths[i])
            counters[_WALK], counters[_STEP_OF_WALK], begins = counters[_WALK] + 1, 0, True
        if begins:
            progress[LOSS], squares, vector_hash = _correlate(
                codes, lists, keys, periodic, correlations
            )
            begins = False
        _visit(vector_hash, hashes, walks, counters[_WALK])
        _slopes(kernel, v, slopes)
        for code in range(len(lists)):
            _deltas(lists[code], v, slopes, products, squares, times, barred[code], deltas[code])
        for i in range(n):
            deltas[codes[i], i] = np.inf
        i, code, delta = _best_unvisited(
            vector_hash, codes, keys, hashes, walks, counters[_WALK], deltas
        )
        progress[STEP] += 1
        counters[_STEP_OF_WALK] += 1
        if i < 0:
            counters[_STEP_OF_WALK] = length
            continue
        squares += times * (abs(lists[code, i]) ** 2 - abs(v[i]) ** 2)
        _change(i, lists[code, i], periodic, v, sums, products)
        _unroll(periodic, sums, kernel)
        vector_hash ^= keys[codes[i], i] ^ keys[code, i]
        codes[i] = code
        progress[LOSS] += delta
        if progress[LOSS] < progress[BEST_LOSS] - rounding:
            progress[BEST_LOSS], progress[STEP_OF_BEST] = progress[LOSS], progress[STEP]
            best_codes[:] = codes


@compiled()
def _correlate(codes: Any, lists: Any, keys: Any, periodic: bool, correlations: Any) -> Any:
    """Compute all correlations of codes; return the loss, the sum of squares and the hash."""
    v, sums, products, kernel, _, _ = correlations
    # Zeros at first: then each element is a change.
    v[:], sums[:], products[:] = 0, 0, 0
    vector_hash = np.int64(0)
    for i in range(len(codes)):
        _change(i, lists[codes[i], i], periodic, v, sums, products)
        vector_hash ^= keys[codes[i], i]
    _unroll(periodic, sums, kernel)
    loss, squares = 0.0, 0.0
    times = 2 if periodic else 1
    for k in range(len(codes)):
        squares += times * abs(v[k]) ** 2
        loss += abs(sums[k]) ** 2
    return loss, squares, vector_hash


@compiled()
def _best_unvisited(
    vector_hash: Any, codes: Any, keys: Any, hashes: Any, walks: Any, walk: Any, deltas: Any
) -> Any:
    """Return the element, the code and the delta of the best neighbour not visited yet.

    The element is -1 if all have been visited. Ties are broken at random; the deltas of
    visited neighbours become infinity.
    """
    flat = deltas.reshape(-1)
    best_i, best_code, delta, ties = -1, -1, _least(flat), 0
    while best_i < 0 and delta < np.inf:
        for code in range(len(deltas)):
            row = deltas[code]
            for i in range(len(row)):
                if row[i] != delta:
                    continue
                neighbour = vector_hash ^ keys[codes[i], i] ^ keys[code, i]
                if _slot(neighbour, hashes, walks, walk)[1]:
                    row[i] = np.inf
                    continue
                ties += 1
                if np.random.randint(ties) == 0:
                    best_i, best_code = i, code
        if best_i < 0:
            delta = _least(flat)
    return best_i, best_code, delta


@compiled()
def _slot(vector_hash: Any, hashes: Any, walks: Any, walk: Any) -> Any:
    """Return the slot of a hash in the table, and whether the walk has been there."""
    last = len(hashes) - 1
    slot = vector_hash & last
    while walks[slot] == walk:
        if hashes[slot] == vector_hash:
            return slot, True
        slot = (slot + 1) & last
    return slot, False


@compiled()
def _visit(vector_hash: Any, hashes: Any, walks: Any, walk: Any) -> None:
    """Add a vector to those that the walk has visited."""
    slot, _ = _slot(vector_hash, hashes, walks, walk)
    hashes[slot], walks[slot] = vector_hash, walk


@compiled()
def _change(i: int, value: Any, periodic: bool, v: Any, sums: Any, products: Any) -> None:
    """Give an element another value; update the sums and the products."""
    n, step = len(v), value - v[i]
    conjugate = np.conj(step)
    if periodic:
        for k in range(1, n):
            sums[k] += step * np.conj(v[(i + k) % n]) + conjugate * v[i - k]
        for j in range(n):
            other = (2 * j - i) % n
            if other != i:
                products[j] += 2 * conjugate * np.conj(v[other])
            elif j != i:  # Halfway round it meets itself.
                products[j] += np.conj(value * value - v[i] * v[i])
    else:
        for k in range(1, n - i):
            sums[k] += step * np.conj(v[i + k])
        for k in range(1, i + 1):
            sums[k] += conjugate * v[i - k]
        for j in range((i + 1) // 2, (n - 1 + i) // 2 + 1):
            if j != i:
                products[j] += conjugate * np.conj(v[2 * j - i])
    v[i] = value


@compiled()
def _unroll(periodic: bool, sums: Any, kernel: Any) -> None:
    """Set the diagonals of the Toeplitz matrix, from the highest to the lowest."""
    n = len(sums)
    times = 2 if periodic else 1
    below, above = kernel[:n], kernel[n - 1 :]
    for k in range(1, n):
        above[k] = times * sums[k]
    for k in range(n - 1):
        below[k] = times * np.conj(sums[n - 1 - k])


@compiled(fastmath=True)
def _slopes(kernel: Any, v: Any, slopes: Any) -> None:
    """Multiply the Toeplitz matrix by `conj(v)`, four columns at once."""
    n = len(v)
    slopes[:] = 0
    for j in range(0, n - 3, 4):
        a, b, c, d = np.conj(v[j]), np.conj(v[j + 1]), np.conj(v[j + 2]), np.conj(v[j + 3])
        columns = kernel[n - 4 - j : 2 * n - 1 - j]
        for i in range(n):
            slopes[i] += (
                a * columns[i + 3] + b * columns[i + 2] + c * columns[i + 1] + d * columns[i]
            )
    for j in range(n - n % 4, n):
        a, column = np.conj(v[j]), kernel[n - 1 - j : 2 * n - 1 - j]
        for i in range(n):
            slopes[i] += a * column[i]


@compiled()
def _deltas(
    values: Any, v: Any, slopes: Any, products: Any, squares: Any, times: Any, barred: Any,
    deltas: Any,
) -> None:  # fmt: skip
    """Set the change of the loss with each element at one value."""
    for i in range(len(v)):
        step = values[i] - v[i]
        first_order = (2 * step * (slopes[i] + step * products[i])).real
        other_squares = squares - times * abs(v[i]) ** 2
        deltas[i] = first_order + abs(step) ** 2 * other_squares + barred[i]


# Without NaN and the sign of zero the compiler compares several numbers at once.
@compiled(fastmath={"nnan", "nsz"})
def _least(numbers: Any) -> Any:
    """Return the least of some numbers."""
    least = numbers[0]
    for number in numbers:
        least = min(least, number)
    return least
