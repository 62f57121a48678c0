"""Tabu search over the autocorrelations of a vector, with exact differences.

Where element `i` changes by `d`, the sum of lag `k` changes by `d a + conj(d) b` with
`a = conj(v[i + k])` and `b = v[i - k]`. So the loss changes by

    2 Re(d slope + d^2 product) + abs(d)^2 squares

with the sums over the lags `slope` of `conj(C) a + C conj(b)`, `product` of `a conj(b)`
and `squares` of `abs(a)^2 + abs(b)^2`. The first is a product of the vector with a
Toeplitz matrix of the `C`, the others are kept up to date: a step takes `n^2 + n K`
operations.

Source: the tabu search of Gallardo, Cotta and Fernandez, "Finding low autocorrelation
binary sequences with memetic algorithms", Applied Soft Computing 2009.
"""

from typing import Any

import numpy as np
from numba import njit  # Of the extra `search`.


@njit(cache=True)  # type: ignore[untyped-decorator]
def steps(
    count: int, patience: int, tenure: int, seed: int, periodic: bool,
    lists: Any, lengths: Any, fixed: Any,
    codes: Any, free_at: Any, best_codes: Any, numbers: Any,
) -> None:  # fmt: skip
    """Go some steps on, or until it stalls; the last four are changed in place.

    Args:
        count: How many steps.
        patience: After how many without a better loss it ends.
        tenure: For how many steps a changed element stays, at least; at most a half more.
        seed: Of the random numbers.
        periodic: Whether the vector goes round.
        lists: The values, (n, K), real or complex.
        lengths: How many of them each element has.
        fixed: Whether an element keeps its code.
        codes: Of each element.
        free_at: The step from which each element may change again.
        best_codes: The best so far.
        numbers: The loss, the best loss, the step, and the step of the last better loss.
    """
    np.random.seed(seed)
    n = len(codes)
    # Zeros at first: then each element is a change.
    v, sums, products = (
        np.zeros(n, lists.dtype), np.zeros(n, lists.dtype), np.zeros(n, lists.dtype)
    )  # fmt: skip
    kernel = np.zeros(2 * n - 1, lists.dtype)
    for i in range(n):
        _change(i, lists[i, codes[i]], periodic, v, sums, products)
    _unroll(periodic, sums, kernel)
    numbers[0], squares = 0.0, 0.0
    times = 2 if periodic else 1
    for k in range(n):
        squares += times * abs(v[k]) ** 2
        numbers[0] += abs(sums[k]) ** 2
    for _ in range(count):
        loss, best, step = numbers[0], numbers[1], numbers[2]
        slack = 1e-12 * max(1.0, abs(best))
        chosen, code, change, ties = -1, -1, np.inf, 0
        for i in range(n):
            if fixed[i]:
                continue
            slope = _dot(kernel[n - 1 - i : 2 * n - 1 - i], v)
            others = squares - times * abs(v[i]) ** 2
            tabu = free_at[i] > step
            for k in range(lengths[i]):
                if k == codes[i]:
                    continue
                apart = lists[i, k] - v[i]
                other = (2 * apart * (slope + apart * products[i])).real
                other += abs(apart) ** 2 * others
                if other > change or (tabu and loss + other >= best - slack):
                    continue
                if other < change:
                    chosen, code, change, ties = i, k, other, 1
                else:
                    ties += 1
                    if np.random.randint(ties) == 0:
                        chosen, code = i, k
        numbers[2] += 1
        if chosen >= 0:  # Else all are tabu.
            squares += times * (abs(lists[chosen, code]) ** 2 - abs(v[chosen]) ** 2)
            _change(chosen, lists[chosen, code], periodic, v, sums, products)
            _unroll(periodic, sums, kernel)
            codes[chosen] = code
            numbers[0] += change
            free_at[chosen] = step + 1 + tenure + np.random.randint(tenure // 2 + 1)
        if numbers[0] < best - slack:
            numbers[1], numbers[3] = numbers[0], numbers[2]
            best_codes[:] = codes
        elif numbers[2] - numbers[3] >= patience:
            return


@njit(cache=True)  # type: ignore[untyped-decorator]
def _change(i: int, value: Any, periodic: bool, v: Any, sums: Any, products: Any) -> None:
    """Give an element another value; follow the sums and the products."""
    n, apart = len(v), value - v[i]
    turned = np.conj(apart)
    if periodic:
        for k in range(1, n):
            sums[k] += apart * np.conj(v[(i + k) % n]) + turned * v[i - k]
        for j in range(n):
            other = (2 * j - i) % n
            if other != i:
                products[j] += 2 * turned * np.conj(v[other])
            elif j != i:  # Halfway round it meets itself.
                products[j] += np.conj(value * value - v[i] * v[i])
    else:
        for k in range(1, n - i):
            sums[k] += apart * np.conj(v[i + k])
        for k in range(1, i + 1):
            sums[k] += turned * v[i - k]
        for j in range((i + 1) // 2, (n - 1 + i) // 2 + 1):
            if j != i:
                products[j] += turned * np.conj(v[2 * j - i])
    v[i] = value


@njit(cache=True)  # type: ignore[untyped-decorator]
def _unroll(periodic: bool, sums: Any, kernel: Any) -> None:
    """The diagonals of the Toeplitz matrix, from the lowest to the highest."""
    n = len(sums)
    for k in range(1, n):
        kernel[n - 1 + k] = 2 * np.conj(sums[k]) if periodic else np.conj(sums[k])
        kernel[n - 1 - k] = 2 * sums[k] if periodic else sums[k]


# In any order: the compiler does several at once.
@njit(cache=True, fastmath=True)  # type: ignore[untyped-decorator]
def _dot(diagonals: Any, v: Any) -> Any:
    total = diagonals[0] * 0
    for j in range(len(v)):
        total += diagonals[j] * np.conj(v[j])
    return total
