"""Search does not help to split numbers into two sets of equal sums.

Random integers below 10^12 are split in two; the loss is the difference of the sums. Flipping
one number changes it by twice that number, about 10^12, while the best of 40 numbers is about
10^12 sqrt(40) / 2^40, some 6: a loss says nothing of its neighbours' losses, and a search is a
draw of random vectors. Known: the optimum of 40 numbers, by all sums of each half (Horowitz and
Sahni, 1974); of many numbers, differencing (Karmarkar and Karp, 1982) comes to 0 or 1 in
milliseconds.

    python examples/number_partitioning.py
"""

import argparse
import heapq

import numpy as np

import quantal


def numbers_of(seed=0, n=40, most=10**12):
    return np.random.default_rng(seed).integers(1, most, n)


def design(numbers, evaluations=200_000, seed=0):
    # Not its square: sums of these integers are exact in float64, the squares are not.
    loss = quantal.objectives.Sums(numbers[None], lambda sums: np.abs(sums[:, 0]))
    return quantal.search(
        loss, [1, -1], budget=quantal.Budget(evaluations=evaluations), seed=seed, verbose=0
    )


def exact(numbers):
    """Return the optimum: for each sum of one half, take the nearest of the other."""
    one, other = (_all_sums(part) for part in np.array_split(numbers, 2))
    above = np.searchsorted(other, one).clip(1, len(other) - 1)
    return int(np.minimum(np.abs(one - other[above]), np.abs(one - other[above - 1])).min())


def _all_sums(numbers):
    sums = np.zeros(1, np.int64)
    for number in numbers:
        sums = np.concatenate([sums - number, sums + number])
    return np.sort(sums)


def differenced(numbers):
    """Return the result of differencing: the two largest numbers become their difference."""
    left = [-int(number) for number in numbers]
    heapq.heapify(left)
    while len(left) > 1:
        first, second = -heapq.heappop(left), -heapq.heappop(left)
        heapq.heappush(left, second - first)
    return -left[0]


def drawn(numbers, count, seed=0):
    """Return the least difference of random signs; the eight largest numbers balance each draw."""
    random, least = np.random.default_rng(seed), []
    order = np.argsort(numbers)
    for begin in range(0, count, 10_000):
        shape = min(10_000, count - begin), len(numbers) - 8
        sums = random.choice(np.array([-1, 1]), shape) @ numbers[order[:-8]]
        for number in numbers[order[-8:]][::-1]:
            sums = np.abs(sums) - number
        least.append(np.abs(sums).min())
    return int(min(least))


def correlation(numbers, seed=0, count=50_000, kept=300):
    """Return the correlation of the log loss of good vectors with that of vectors one flip away."""
    random = np.random.default_rng(seed)
    signs = random.choice(np.array([-1, 1]), (count, len(numbers)))
    sums = signs @ numbers
    good = np.abs(sums).argsort()[:kept]
    near = sums[good, None] - 2 * signs[good] * numbers
    losses = np.repeat(np.log(np.abs(sums[good]) + 1.0), len(numbers))
    return float(np.corrcoef(losses, np.log(np.abs(near) + 1.0).ravel())[0, 1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--evaluations", type=int, default=200_000)
    options = parser.parse_args()
    print("numbers  seed  searched  as many drawn  differencing  optimum  neighbours' correlation")
    for n in (40, 400):
        for seed in range(options.seeds):
            numbers = numbers_of(seed, n)
            result = design(numbers, options.evaluations)
            random = drawn(numbers, result.evaluations)
            best = exact(numbers) if n == 40 else "-"
            print(
                f"{n:7}  {seed:4}  {result.loss:<8.2g}  {random:<13.2g}  "
                f"{differenced(numbers):<12.2g}  {best:<7}  {correlation(numbers):.3f}"
            )


if __name__ == "__main__":
    main()
