"""Self-avoiding walks over the autocorrelations of a vector, with exact differences.

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

from typing import Any

import numpy as np
from numba import njit  # Of the extra `search`.


@njit(cache=True)  # type: ignore[untyped-decorator]
def walks(
    count: int, length: int, slack: float, seed: int, periodic: bool,
    lists: Any, lengths: Any, barred: Any, keys: Any, visited: Any, owners: Any, place: Any,
    codes: Any, best_codes: Any, numbers: Any,
) -> None:  # fmt: skip
    """Go some steps on, each to the best neighbour that the walk has not been at.

    After its length, or where it has been at all neighbours, a walk begins at random codes.
    The arrays from `visited` on are changed in place.

    Args:
        count: How many steps.
        length: Of a walk.
        slack: What is better by less is not better: roundings.
        seed: Of the random numbers.
        periodic: Whether the vector goes round.
        lists: The values, (K, n), real or complex.
        lengths: How many of them each element may have; 1 where it keeps its code.
        barred: Infinity for codes that an element may not have, else 0, (K, n).
        keys: Random numbers (K, n): the vector's name is the exclusive or of its codes'.
        visited: The names that walks have been at; a power of two of places.
        owners: The walk of each of these.
        place: The number of the walk, and its steps so far.
        codes: Of each element.
        best_codes: The best so far.
        numbers: The loss, the best loss, the step, and the step of the last better loss.
    """
    np.random.seed(seed)
    n = len(codes)
    v, sums, products = (
        np.zeros(n, lists.dtype), np.zeros(n, lists.dtype), np.zeros(n, lists.dtype)
    )  # fmt: skip
    kernel, slopes = np.zeros(2 * n - 1, lists.dtype), np.zeros(n, lists.dtype)
    changes = np.zeros(lists.shape, barred.dtype)
    flat = changes.reshape(-1)
    times = 2 if periodic else 1
    begins, squares, name = True, 0.0, keys[0, 0]
    for _ in range(count):
        if place[1] >= length:
            for i in range(n):
                if lengths[i] > 1:
                    codes[i] = np.random.randint(lengths[i])
            place[0], place[1], begins = place[0] + 1, 0, True
        if begins:
            # Zeros at first: then each element is a change.
            v[:], sums[:], products[:] = 0, 0, 0
            name ^= name
            for i in range(n):
                _change(i, lists[codes[i], i], periodic, v, sums, products)
                name ^= keys[codes[i], i]
            _unroll(periodic, sums, kernel)
            numbers[0], squares, begins = 0.0, 0.0, False
            for k in range(n):
                squares += times * abs(v[k]) ** 2
                numbers[0] += abs(sums[k]) ** 2
        _visit(name, visited, owners, place[0])
        _slopes(kernel, v, slopes)
        for k in range(len(lists)):
            _changes(lists[k], v, slopes, products, squares, times, barred[k], changes[k])
        for i in range(n):
            changes[codes[i], i] = np.inf
        chosen, code, change, ties = -1, -1, _least(flat), 0
        while chosen < 0 and change < np.inf:
            for k in range(len(lists)):
                row = changes[k]
                for i in range(n):
                    if row[i] != change:
                        continue
                    other = name ^ keys[codes[i], i] ^ keys[k, i]
                    if _place(other, visited, owners, place[0])[1]:
                        row[i] = np.inf
                        continue
                    ties += 1
                    if np.random.randint(ties) == 0:
                        chosen, code = i, k
            if chosen < 0:
                change = _least(flat)
        numbers[2] += 1
        place[1] += 1
        if chosen < 0:
            place[1] = length
            continue
        squares += times * (abs(lists[code, chosen]) ** 2 - abs(v[chosen]) ** 2)
        _change(chosen, lists[code, chosen], periodic, v, sums, products)
        _unroll(periodic, sums, kernel)
        name ^= keys[codes[chosen], chosen] ^ keys[code, chosen]
        codes[chosen] = code
        numbers[0] += change
        if numbers[0] < numbers[1] - slack:
            numbers[1], numbers[3] = numbers[0], numbers[2]
            best_codes[:] = codes


@njit(cache=True)  # type: ignore[untyped-decorator]
def _place(name: Any, visited: Any, owners: Any, walk: Any) -> Any:
    """Where a name is, or would be; and whether the walk has been there."""
    last = len(visited) - 1
    at = name & last
    while owners[at] == walk:
        if visited[at] == name:
            return at, True
        at = (at + 1) & last
    return at, False


@njit(cache=True)  # type: ignore[untyped-decorator]
def _visit(name: Any, visited: Any, owners: Any, walk: Any) -> None:
    at, _ = _place(name, visited, owners, walk)
    visited[at], owners[at] = name, walk


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
    """The diagonals of the Toeplitz matrix, from the highest to the lowest."""
    n = len(sums)
    times = 2 if periodic else 1
    below, above = kernel[:n], kernel[n - 1 :]
    for k in range(1, n):
        above[k] = times * sums[k]
    for k in range(n - 1):
        below[k] = times * np.conj(sums[n - 1 - k])


@njit(cache=True, fastmath=True)  # type: ignore[untyped-decorator]
def _slopes(kernel: Any, v: Any, slopes: Any) -> None:
    """The product of the Toeplitz matrix with `conj(v)`, four columns at once."""
    n = len(v)
    slopes[:] = 0
    for j in range(0, n - 3, 4):
        a, b, c, d = np.conj(v[j]), np.conj(v[j + 1]), np.conj(v[j + 2]), np.conj(v[j + 3])
        own = kernel[n - 4 - j : 2 * n - 1 - j]
        for i in range(n):
            slopes[i] += a * own[i + 3] + b * own[i + 2] + c * own[i + 1] + d * own[i]
    for j in range(n - n % 4, n):
        a, own = np.conj(v[j]), kernel[n - 1 - j : 2 * n - 1 - j]
        for i in range(n):
            slopes[i] += a * own[i]


@njit(cache=True)  # type: ignore[untyped-decorator]
def _changes(
    values: Any, v: Any, slopes: Any, products: Any, squares: Any, times: Any, barred: Any,
    changes: Any,
) -> None:  # fmt: skip
    """By how much the loss changes with each element at one value."""
    for i in range(len(v)):
        apart = values[i] - v[i]
        bent = (2 * apart * (slopes[i] + apart * products[i])).real
        others = squares - times * abs(v[i]) ** 2
        changes[i] = bent + abs(apart) ** 2 * others + barred[i]


# No NaN and no sign of zero: the compiler looks at several at once.
@njit(cache=True, fastmath={"nnan", "nsz"})  # type: ignore[untyped-decorator]
def _least(numbers: Any) -> Any:
    least = numbers[0]
    for number in numbers:
        least = min(least, number)
    return least
