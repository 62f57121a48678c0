import itertools
import time

import numpy as np
import pytest

import reference_fitting as reference
from lists import LONG, NAMED
from quantal import Values
from quantal._core.numbers import fitting, k_means
from quantal._core.numbers.fitting import (
    least_squares_scale,
    least_squares_scales,
    mean_absolute_scale,
    mean_absolute_scales,
    mean_magnitude,
)

pytestmark = pytest.mark.without_keras  # NumPy alone

ROWS = Values([[1, -1, 0.5], [0.25, 3, -2], [0, 1, 2]])
LISTS = {
    **NAMED,
    "zero-free powers": Values("nonzero_powers_of_two:3"),
    "negative only": Values([-5, -2]),
    "zero and one": Values("zero_one"),
    "tiny list": Values([1e-9, -1e-9, 3e-9]),
    "huge list": Values([1e30, -2e30]),
    "rows": ROWS,
}
every_list = pytest.mark.parametrize("values", LISTS.values(), ids=LISTS)


# The scale by least squares.


def squared_error(weights, values, scale=1.0):
    """The sum of `(w - scale * nearest(w / scale))^2` over all weights."""
    weights = np.asarray(weights, float)
    nearest = scale * values.nearest(weights / scale).astype(float)
    return float(np.sum((weights - nearest) ** 2))


def weights_of(kind, count=60):
    random = np.random.default_rng(3)
    return {
        "normal": lambda: random.normal(size=(count, 3)),
        "positive": lambda: np.abs(random.normal(size=(count, 3))),
        "heavy tails": lambda: random.standard_cauchy(size=(count, 3)),
        "two bumps": lambda: random.choice([-3, 1], (count, 3)) + 0.1 * random.normal(size=3),
    }[kind]()


def errors_on_a_grid(weights, values, points=4000):
    """The least error on a fine grid of scales, from where all is huge to all is tiny."""
    middle = np.abs(weights).max() / np.abs(values.numbers).max()
    scales = (middle * np.geomspace(1e-3, 1e3, points))[:, None, None]
    nearest = scales * values.nearest(weights / scales).astype(float)
    return np.sum((weights - nearest) ** 2, axis=(1, 2))


@every_list
@pytest.mark.parametrize("kind", ["normal", "positive", "heavy tails", "two bumps"])
def test_no_scale_of_a_grid_loses_less(values, kind):
    weights = weights_of(kind)
    on_grid = errors_on_a_grid(weights, values)
    zero = np.sum(weights**2)
    scale = least_squares_scale(weights, values)
    assert scale > 0
    if on_grid.min() >= zero:
        assert scale == 1.0  # as good as any: the best would be 0
        return
    found = squared_error(weights, values, scale)
    assert found <= on_grid.min() * (1 + 1e-6)
    # The grid is fine enough for its least error to be near the very least.
    assert found >= on_grid.min() * 0.97 - 1e-9


@every_list
@pytest.mark.parametrize("scale", [1.0, 0.1, 3.7, 1.3e-6, 2e5])
def test_scaled_listed_weights_give_their_scale_back(values, scale, random):
    scale = np.float32(scale)
    numbers = np.resize(values.numbers, (3 * len(values), 3))
    if values.channels is not None:
        numbers = np.tile(values.numbers.T, (3, 1))
    weights = scale * random.permutation(numbers)
    found = np.float32(least_squares_scale(weights, values))
    np.testing.assert_allclose(found, scale, rtol=3e-7)
    np.testing.assert_array_equal(found * values.nearest(weights / found), weights)


def test_binary_is_the_mean_magnitude_and_ternary_its_published_sweep(random):
    weights = random.normal(size=500)
    np.testing.assert_allclose(
        least_squares_scale(weights, Values("binary")), np.mean(np.abs(weights))
    )
    # Ternary Weight Networks: the k largest magnitudes, k by exhaustive search.
    magnitudes = np.sort(np.abs(weights))[::-1]
    sums = np.cumsum(magnitudes)
    best = np.argmax(sums**2 / np.arange(1, 501))
    np.testing.assert_allclose(
        least_squares_scale(weights, Values("ternary")), sums[best] / (best + 1)
    )


def test_what_is_not_finite_is_left_out(random):
    weights = random.normal(size=40)
    holes = np.concatenate([weights, [np.nan, np.inf, -np.inf]])
    for name in ("binary", "nf4"):
        assert least_squares_scale(holes, NAMED[name]) == least_squares_scale(weights, NAMED[name])


@pytest.mark.parametrize(
    ("weights", "values"),
    [
        (np.zeros(5), Values("ternary")),
        ([], Values("binary")),
        ([np.nan, np.inf], Values("binary")),
        ([1.0, 2.0], Values([0])),
        ([-1.0, -2.0], Values([1, 3])),
    ],
    ids=["zero", "empty", "not finite", "a list of zero", "the other side"],
)
def test_where_no_scale_is_better_it_is_one(weights, values):
    assert least_squares_scale(weights, values) == 1.0


@pytest.mark.parametrize("size", [1e-30, 1e-15, 1e15, 1e30])
def test_the_scale_grows_with_the_weights(size, random):
    weights = random.normal(size=200)
    for name in ("ternary", "uneven", "nf4"):
        expected = least_squares_scale(weights, NAMED[name]) * size
        np.testing.assert_allclose(least_squares_scale(weights * size, NAMED[name]), expected)


def test_rows_have_one_scale_in_common(random):
    weights = random.normal(size=(50, 3))
    alike = Values(np.tile(NAMED["uneven"].numbers, (3, 1)))
    np.testing.assert_allclose(
        least_squares_scale(weights, alike), least_squares_scale(weights, NAMED["uneven"])
    )
    along_first = Values(ROWS, axis=0)
    assert least_squares_scale(weights.T, along_first) == least_squares_scale(weights, ROWS)


def test_a_sample_finds_nearly_the_same(random, monkeypatch):
    weights = random.normal(size=10_000)
    values = NAMED["nf4"]
    whole = squared_error(weights, values, least_squares_scale(weights, values))
    monkeypatch.setattr(fitting, "MOST_CROSSINGS", 0)
    scale = least_squares_scale(weights, values)
    assert squared_error(weights, values, scale) <= whole * (1 + 1e-3)
    # And at least no step of Lloyd's kind from there is an improvement.
    nearest = values.nearest(weights / scale).astype(float)
    step = weights @ nearest / (nearest @ nearest)
    assert squared_error(weights, values, step) >= squared_error(weights, values, scale) * (
        1 - 1e-9
    )


def test_large_weights_are_fast(random):
    weights = random.normal(size=100_000)
    start = time.process_time()
    least_squares_scale(weights, NAMED["nf4"])
    Values.k_means(weights, 16)
    assert time.process_time() - start < 15


# All channels at once.


def channels_of(kind):
    """Weights with a channel in each column: trained, and those that are special."""
    random = np.random.default_rng(7)
    normal = random.normal(size=(60, 9)).astype(np.float32)
    return {
        "normal": normal,
        "float64": random.normal(size=(60, 9)),
        "positive": np.abs(normal),
        "ties": np.round(4 * normal),
        "two magnitudes": np.float32(0.37) * np.sign(np.round(normal)),
        "powers": np.sign(normal) * np.exp2(np.round(np.log2(np.abs(normal) + 1e-9))),
        "many zeros": normal * (random.random((60, 9)) < 0.3),
        "dead channels": normal * (np.arange(9) % 2),
        "huge and tiny": normal * np.float32(10.0) ** (5 * np.arange(9) - 20),
        "one weight each": normal[:1],
        "holes": np.where(random.random((60, 9)) < 0.01, np.nan, normal),
    }[kind]


KINDS = (
    "normal", "float64", "positive", "ties", "two magnitudes", "powers", "many zeros",
    "dead channels", "huge and tiny", "one weight each", "holes",
)  # fmt: skip
ONE_LIST = {**LISTS, "seventeen": LONG["seventeen"], "signed 4 bits": Values("signed:4")}
del ONE_LIST["rows"]


@pytest.mark.parametrize("values", ONE_LIST.values(), ids=ONE_LIST)
def test_scales_of_channels_are_those_of_one_at_a_time_to_the_bit(values):
    for kind in KINDS:
        weights = channels_of(kind)
        expected = [reference.least_squares_scale(column, values) for column in weights.T]
        scales = least_squares_scales(weights, values, (1, 9))
        np.testing.assert_array_equal(scales[0], expected, kind)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("shape", [(), (1, 1, 1), (3, 1, 1), (1, 4, 1), (3, 1, 5), (3, 4, 5)])
def test_scales_of_any_shape_are_those_of_one_at_a_time_to_the_bit(shape, axis, random):
    weights = random.normal(size=(3, 4, 5))
    per_channel = random.normal(size=(weights.shape[axis], 6))
    for values in (NAMED["uneven"], Values(per_channel, axis=axis)):
        expected, mean = np.empty(shape), np.empty(shape)
        for index in np.ndindex(shape):
            part = tuple(
                slice(None) if size == 1 else slice(i, i + 1)
                for i, size in zip(index, shape, strict=True)
            )
            lists = values
            if values.channels is not None and shape:
                lists = values.moved(values.numbers[part[axis]])
            expected[index] = reference.least_squares_scale(weights[part], lists)
            mean[index] = mean_absolute_scale(weights[part], lists)
        np.testing.assert_array_equal(least_squares_scales(weights, values, shape), expected)
        np.testing.assert_allclose(mean_absolute_scales(weights, values, shape), mean)


def test_many_channels_are_fitted_in_several_parts(random, monkeypatch):
    weights = random.normal(size=(40, 30))
    expected = least_squares_scales(weights, NAMED["nf4"], (1, 30))
    monkeypatch.setattr(fitting, "_NUMBERS_AT_ONCE", 1000)
    np.testing.assert_array_equal(least_squares_scales(weights, NAMED["nf4"], (1, 30)), expected)


def test_times_that_differ_in_their_last_bits_are_in_order(random):
    # With 2^14 weights the last bits of a time give way to positions.
    near = np.nextafter(1.0, 2) - 1
    weights = random.permutation(1 + near * np.arange(2**14)) * random.choice([-1, 1], 2**14)
    values = NAMED["uneven"]
    expected = reference.least_squares_scale(weights, values)
    assert least_squares_scale(weights, values) == expected


@pytest.mark.parametrize("size", [1e-3, 1.0, 300.0])
def test_a_list_of_many_powers_meets_the_weights_with_its_largest_values(size, random):
    # Multiplied by powers of two, the scale is as good: roundings decided.
    weights, values = size * random.normal(size=(500, 4)), Values("powers_of_two:7")
    scales = least_squares_scales(weights, values, (1, 4))[0]
    for column, scale in zip(weights.T, scales, strict=True):
        assert 0.5 <= np.abs(values.nearest(column / scale)).max() <= 1
        before = reference.least_squares_scale(column, values)
        error = squared_error(column, values, scale)
        assert error <= squared_error(column, values, before) * (1 + 1e-9)


def test_channels_take_no_longer_one_by_one(random):
    # 6 s a million weights one by one; a fifth of a second together.
    weights = random.normal(size=(32, 16_000)).astype(np.float32)
    start = time.process_time()
    least_squares_scales(weights, NAMED["ternary"], (1, 16_000))
    assert time.process_time() - start < 2


# The scale by mean magnitude.


def test_mean_absolute_scale(random):
    weights = random.normal(size=(50, 3))
    mean = np.mean(np.abs(weights))
    for values, magnitude in (
        (Values("binary"), 1),
        (Values("ternary"), 1),
        (Values([1, -0.5, 0, 0.25]), 1.75 / 3),
        (ROWS, np.mean([2.5 / 3, 5.25 / 3, 1.5])),
    ):
        np.testing.assert_allclose(mean_absolute_scale(weights, values), mean / magnitude, 1e-6)
    np.testing.assert_allclose(mean_magnitude(ROWS), [2.5 / 3, 5.25 / 3, 1.5], rtol=1e-6)


@pytest.mark.parametrize("weights", [[0.0, 0.0], [], [np.nan, 1.0]], ids=["zero", "empty", "nan"])
def test_mean_absolute_scale_of_nothing_is_one(weights):
    assert mean_absolute_scale(weights, Values("binary")) == 1.0


def test_mean_absolute_scale_of_a_list_of_zero():
    assert mean_absolute_scale([2.0], Values([0])) == 2.0


# K values.


def loss(weights, values):
    return np.sum((np.ravel(weights) - values.nearest(np.ravel(weights)).astype(float)) ** 2)


def least_loss(weights, count):
    """Over all ways to cut the sorted numbers into intervals."""
    numbers = np.sort(weights)
    best = np.inf
    for cuts in itertools.combinations(range(1, len(numbers)), count - 1):
        parts = np.split(numbers, cuts)
        best = min(best, sum(np.sum((part - part.mean()) ** 2) for part in parts))
    return best


@pytest.mark.parametrize("seed", range(25))
def test_k_means_is_optimal(seed):
    random = np.random.default_rng(seed)
    size = int(random.integers(5, 13))
    weights = [
        random.normal(size=size),
        random.integers(-4, 5, size).astype(float),
        np.exp(3 * random.normal(size=size)),
        1000 + random.normal(size=size),
    ][seed % 4]
    for count in (1, 2, 3, 5):
        values = Values.k_means(weights, count)
        different = len(np.unique(weights))
        assert len(values) == min(count, different)
        found, least = loss(weights, values), least_loss(weights, min(count, different))
        # The values are rounded to float32.
        rounding = size * (np.abs(weights).max() * 1e-7) ** 2
        assert found <= least * (1 + 1e-5) + rounding


@pytest.mark.parametrize(
    ("count", "least"), [(2, 0.3488081), (4, 0.1133090), (8, 0.0335695), (16, 0.0091000)]
)
def test_k_means_of_a_normal_sample(count, least):
    weights = np.random.RandomState(0).randn(4096)
    assert len(weights) > k_means.MOST_CELLS
    found = loss(weights, Values.k_means(weights, count)) / len(weights)
    np.testing.assert_allclose(found, least, rtol=1e-4)


def test_k_means_are_means_of_what_is_nearest_to_them(random):
    weights = random.standard_cauchy(size=20_000)
    values = Values.k_means(weights, 9)
    codes = values.codes(weights)
    means = [weights[codes == code].mean() for code in range(9)]
    np.testing.assert_allclose(values.numbers, means, rtol=1e-4)


def test_k_means_per_channel(random):
    weights = random.normal(size=(3, 40, 2)) * np.array([1, 50])
    for axis, channels in ((-1, 2), (0, 3)):
        values = Values.k_means(weights, 4, axis=axis)
        assert (values.channels, len(values), values.axis) == (channels, 4, axis)
        for channel in range(channels):
            alone = Values.k_means(np.take(weights, channel, axis), 4)
            np.testing.assert_array_equal(values.numbers[channel], alone.numbers)
        together = loss(weights, Values.k_means(weights, 4))
        assert np.sum((weights - values.nearest(weights)) ** 2) < together


def test_k_means_keeps_the_zeros_of_a_pruned_kernel(random):
    kernel = random.normal(size=(60, 20)) * (random.random((60, 20)) < 0.2)
    assert 0 not in Values.k_means(kernel, 15)
    values = Values.k_means(kernel, 16, keep=[0])
    assert len(values) == 16
    assert (values.nearest(kernel)[kernel == 0] == 0).all()
    # One more value than without, and no worse.
    assert loss(kernel, values) <= 1.001 * loss(kernel, Values.k_means(kernel, 15))
    kept = values.numbers[values.numbers != 0]
    codes = values.nearest(kernel)
    means = [kernel[codes == number].mean() for number in kept]
    np.testing.assert_allclose(means, kept, rtol=1e-5)
    assert Values.k_means([0.0, 0, 0], 4, keep=[0]).tolist() == [0]
    assert Values.k_means([1.0, 2], 1, keep=[5]).tolist() == [5]
    assert Values.k_means(kernel, 4, keep=[0], axis=1).numbers.shape == (20, 4)


def test_k_means_of_a_dead_channel(random):
    weights = random.normal(size=(30, 4))
    weights[:, 2] = 0
    values = Values.k_means(weights, 5, axis=-1)
    assert values.numbers.shape == (4, 5)
    assert (values.nearest(weights)[:, 2] == 0).all()
    alone = Values.k_means(np.delete(weights, 2, 1), 5, axis=-1)
    np.testing.assert_array_equal(np.delete(values.numbers, 2, 0), alone.numbers)
    assert Values.k_means([[1, 2], [3, 3]], 2, axis=0).tolist() == [[1, 2], [1, 3]]


def test_k_means_is_learnable_if_asked():
    assert not Values.k_means([1, 2, 3], 2).learnable
    assert Values.k_means([1, 2, 3], 2, learnable=True).learnable
    assert Values.k_means([[1, 2, 3]], 2, axis=0, learnable=True).learnable


def test_k_means_of_few_different_numbers():
    assert Values.k_means([2, 1, 2, 2, 1], 4).tolist() == [1, 2]
    assert Values.k_means([0.5], 1).tolist() == [0.5]
    assert Values.k_means([1, np.nan, 3, np.inf], 2).tolist() == [1, 3]


@pytest.mark.parametrize(
    ("weights", "arguments", "words"),
    [
        ([1.0], {"count": 0}, r"count is 0\. Expected an integer of at least 1\. Give"),
        ([1.0], {"count": 2.5}, r"count is 2\.5\. Expected an integer"),
        ([1.0], {"count": True}, "count is True. Expected an integer"),
        ([], {"count": 2}, "weights holds no finite number.*Give a trained weight"),
        ([np.nan], {"count": 2}, "weights holds no finite number"),
        ([1.0, 2], {"count": 1, "keep": [0, 1]}, "keep has 2 numbers, and count is 1"),
        ([1.0, 2], {"count": 3, "keep": [np.nan]}, "finite"),
    ],
)
def test_k_means_refuses(weights, arguments, words):
    with pytest.raises(ValueError, match=words):
        Values.k_means(weights, **arguments)
