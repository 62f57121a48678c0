import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lists import LONG, NAMED, floats, lists
from quantal import Values
from quantal._core.numbers import presets
from quantal._core.numbers.short_name import short_name

pytestmark = pytest.mark.without_keras  # NumPy alone

# Laws 1 and 2 on tensors are in test_projection.py; here, NumPy.


@given(lists(), st.lists(floats, max_size=20))
def test_nearest_is_idempotent_and_keeps_listed_values(values, x):
    nearest = values.nearest(x)
    np.testing.assert_array_equal(values.nearest(nearest), nearest)
    np.testing.assert_array_equal(values.codes(values.numbers), np.arange(len(values)))
    np.testing.assert_array_equal(values.take(values.codes(x)), nearest)


@given(lists(longest=40), st.lists(floats, max_size=20))
def test_no_other_value_is_nearer(values, x):
    x = np.array(x, np.float32).astype(float)
    chosen = np.abs(x - values.nearest(x).astype(float))
    every = np.abs(x[:, None] - values.numbers.astype(float))
    assert np.all(chosen <= every.min(axis=1, initial=np.inf))


@pytest.mark.parametrize("values", [*NAMED.values(), *LONG.values()], ids=[*NAMED, *LONG])
def test_on_a_midpoint_the_larger_value_wins(values):
    below, above = values.ascending[:-1].astype(float), values.ascending[1:].astype(float)
    middle = below + (above - below) / 2
    exact = (middle == middle.astype(np.float32)) & (above - middle == middle - below)
    exact &= (np.abs(middle) >= np.finfo(np.float32).smallest_normal) | (middle == 0)
    np.testing.assert_array_equal(values.nearest(middle[exact]), above[exact])


def test_a_midpoint_that_float32_cannot_hold_is_not_rounded_down_onto_a_value():
    low = np.float32(1)
    high = np.nextafter(low, np.float32(2))
    np.testing.assert_array_equal(Values([low, high]).nearest([low, high]), [low, high])


def test_a_midpoint_that_double_cannot_hold_is_not_a_tie():
    # (1 + 2^-60) / 2 is above 0.5, so 0.5 is nearer to the smaller value.
    assert Values([1.0, 2.0**-60]).nearest(0.5) == np.float32(2.0**-60)


def test_a_midpoint_that_is_the_smallest_normal_number_stays():
    smallest = np.finfo(np.float32).smallest_normal
    assert Values([-3 * smallest, smallest]).nearest(-smallest) == smallest


def test_codes_follow_the_users_order():
    values = Values([1, -1, 0.5, -0.5])
    np.testing.assert_array_equal(values.codes([0.5, -1, 1, -0.5]), [2, 1, 0, 3])
    assert values.tolist() == [1, -1, 0.5, -0.5]


def test_infinity_goes_to_the_ends_and_nan_to_the_smallest():
    np.testing.assert_array_equal(Values([3, 1, 2]).nearest([np.inf, -np.inf, np.nan]), [3, 1, 1])


def test_empty_and_scalar_shapes():
    values = Values([1, 2])
    assert values.nearest(np.zeros((0, 3))).shape == (0, 3)
    assert values.nearest(0.1).shape == ()
    assert values.take(np.zeros((2, 0))).shape == (2, 0)


def test_negative_zero_is_zero():
    assert str(Values([-0.0, 1]).numbers[0]) == "0.0"


def test_numbers_further_apart_than_float32_reaches():
    values = Values([3e38, -3e38])
    np.testing.assert_array_equal(values.nearest([1, -1, 0]), np.float32([3e38, -3e38, 3e38]))


def test_longest_list():
    values = Values(np.arange(65_536))
    assert values.bits == 16
    np.testing.assert_array_equal(values.nearest([65_534.4, 0.5]), [65_534, 1])


@pytest.mark.parametrize(
    ("given_list", "error", "words"),
    [
        ([], ValueError, "values has 0 entries"),
        (range(65_537), ValueError, "values has 65537 entries"),
        ([1, 2, 1], ValueError, r"values\[0\] = 1.0 and values\[2\] = 1.0 are the same number"),
        ([0.0, -0.0], ValueError, "the same number"),
        ([0.1, 0.1000000001], ValueError, "the same number in float32"),
        ([1, float("nan")], ValueError, r"values\[1\] is nan. Every listed value must be a fin"),
        ([float("inf")], ValueError, r"values\[0\] is inf"),
        ([1e39], ValueError, "which float32 cannot hold"),
        ([1e-40], ValueError, "which float32 cannot hold"),
        ([10**400], ValueError, "beyond every floating-point range"),
        ([True, False], TypeError, r"values\[0\] is True of type bool"),
        (np.array([True]), TypeError, "of dtype bool"),
        ([1, 2j], TypeError, r"values\[1\] is 2j of type complex"),
        (np.array([1j]), TypeError, "of dtype complex128"),
        (["a"], TypeError, r"values\[0\] is 'a' of type str"),
        ([None], TypeError, r"values\[0\] is None"),
        ([[1, 2], [3]], ValueError, "rows of 2, 1 entries"),
        ([[1, 2], [3, 3]], ValueError, r"values\[1, 0\] = 3.0 and values\[1, 1\]"),
        ([[1, 2], [3, np.nan]], ValueError, r"values\[1, 1\] is nan"),
        ([1, [2]], TypeError, r"values\[1\] is \[2\]"),
        ({1, 2}, TypeError, "which has no order"),
        (b"ab", TypeError, "of type bytes"),
        (3, TypeError, "values is 3 of type int"),
        (np.ones((2, 2, 2)), ValueError, r"the shape \(2, 2, 2\)"),
        (np.float32(3), ValueError, r"the shape \(\)"),
        ("foo", ValueError, "the name 'foo'"),
        ("signed", ValueError, "the name 'signed'"),
        ("binary:3", ValueError, "the name 'binary:3'"),
        ("signed:99", ValueError, "signed: bits is 99. Expected 1 to 16"),
    ],
)
def test_a_bad_list_is_refused(given_list, error, words):
    with pytest.raises(error, match=words) as caught:
        Values(given_list)
    # What came, what was expected, how to fix it.
    assert str(caught.value).count(". ") >= 2


def test_bits_must_be_an_integer():
    with pytest.raises(TypeError, match=r"bits is 2\.0"):
        Values.signed(2.0)


@pytest.mark.parametrize(
    ("codes", "error", "words"),
    [
        ([0.0], TypeError, "codes are of dtype float64"),
        ([True], TypeError, "codes are of dtype bool"),
        ([-1], ValueError, "codes go from -1 to -1"),
        ([0, 3], ValueError, "codes go from 0 to 3. The list has 3 values"),
    ],
)
def test_bad_codes_are_refused(codes, error, words):
    with pytest.raises(error, match=words):
        Values([1, 2, 3]).take(codes)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("binary", [-1, 1]),
        ("ternary", [-1, 0, 1]),
        ("zero_one", [0, 1]),
        ("signed:3", [-4, -3, -2, -1, 0, 1, 2, 3]),
        ("unsigned:2", [0, 1, 2, 3]),
        ("powers_of_two:3", [-1, -0.5, -0.25, 0, 0.25, 0.5, 1]),
        ("nonzero_powers_of_two:2", [-1, -0.5, 0.5, 1]),
        ("additive_powers_of_two:3", [-1, -0.5, -0.25, 0, 0.25, 0.5, 1]),
    ],
)
def test_presets(name, expected):
    assert Values(name).tolist() == expected


@pytest.mark.parametrize("bits", range(2, 9))
def test_additive_powers_of_two_are_the_published_levels(bits):
    # Li, Dong, Wang 2020: sums of one power from each term, the powers dealt in turn.
    published = {
        1: [[1]], 2: [[1, 2, 3]], 3: [[1, 2, 4], [3]], 4: [[1, 3, 5], [2, 4, 6]],
        5: [[1, 3, 6], [2, 4, 7], [5]], 6: [[1, 4, 7], [2, 5, 8], [3, 6, 9]],
        7: [[1, 4, 8], [2, 5, 9], [3, 6, 10], [7]],
    }  # fmt: skip
    sums = {0.0}
    for exponents in published[bits - 1]:
        sums = {total + power for total in sums for power in [0, *(2.0**-e for e in exponents)]}
    levels = np.array(sorted(sums)) / max(sums)
    values = Values.additive_powers_of_two(bits)
    assert len(values) == 2**bits - 1
    np.testing.assert_allclose(values.ascending[values.ascending >= 0], levels, rtol=1e-6)


def test_entropy_and_usage():
    values = Values("ternary")
    codes = np.array([[0, 0], [1, 2]])
    assert values.entropy(codes) == 1.5
    np.testing.assert_array_equal(values.usage(codes), [2, 1, 1])
    np.testing.assert_array_equal(values.usage([1]), [0, 1, 0])
    assert values.entropy(np.zeros(5, int)) == 0
    assert values.entropy([]) == 0


@given(lists(longest=30))
def test_config_round_trip_and_identity(values):
    again = Values(values.tolist())
    assert again == values
    assert hash(again) == hash(values)
    assert list(again) == values.tolist()
    assert all(number in values for number in values)


def test_get_takes_lists_names_configs_and_values():
    values = Values([[1, -1], [2, 0]], learnable=True, axis=0)
    assert Values.get(values) is values
    assert Values.get(values.get_config()) == values
    assert Values.get("signed:2") == Values.get([-2, -1, 0, 1]) == Values.signed(2)


def test_presets_have_their_constructors_names():
    for name in presets.NAMES:
        word, _, bits = name.partition(":")
        constructor = getattr(Values, word)
        assert Values(name) == (constructor(int(bits)) if bits else constructor())


def test_copies_are_equal_and_cannot_be_changed():
    values = Values([3, 1, 2], learnable=True)
    values.nearest(1.2)
    for again in (copy.deepcopy(values), pickle.loads(pickle.dumps(values))):
        assert again == values
        np.testing.assert_array_equal(again.codes([3, 1, 2]), [0, 1, 2])
        with pytest.raises(ValueError, match="read-only"):
            again.numbers[0] = 3


def test_equality_is_of_numbers_and_order():
    assert Values([1, 2]) != Values([2, 1])
    assert Values([1, 2]) != [1, 2]
    assert "1" not in Values([1])
    assert 0.1 in Values([0.1])
    assert repr(Values([0.1, -3])) == "Values([0.1, -3.0])"
    assert repr(Values("signed:8")) == "<Values: 256 from -128 to 127>"


def test_numbers_cannot_be_changed():
    given_list = np.array([1.0, 2.0], np.float32)
    values = Values(given_list)
    given_list[0] = 7
    assert values.tolist() == [1, 2]
    with pytest.raises(ValueError, match="read-only"):
        values.numbers[0] = 3


# Lists per channel.


def per_channel(axis=0, **options):
    return Values([[1, -1, 3], [0.5, 7, 2]], axis=axis, **options)


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_each_channel_has_the_codes_and_values_of_its_list(axis, random):
    values = per_channel(axis)
    x = np.moveaxis(random.uniform(-2, 8, (2, 4, 5)), 0, axis)
    codes, nearest = values.codes(x), values.nearest(x)
    assert codes.shape == nearest.shape == x.shape
    for channel, numbers in enumerate(values.numbers):
        one = Values(numbers)
        rows = [np.moveaxis(array, axis, 0)[channel] for array in (x, codes, nearest)]
        np.testing.assert_array_equal(rows[1], one.codes(rows[0]))
        np.testing.assert_array_equal(rows[2], one.nearest(rows[0]))


def test_lists_per_channel_are_described():
    values = per_channel(axis=-2)
    assert (values.channels, len(values), values.axis, values.bits) == (2, 3, -2, 2)
    assert (values.low, values.high) == (-1, 7)
    assert values.tolist() == list(values) == [[1, -1, 3], [0.5, 7, 2]]
    assert values.get_config() == {"values": values.tolist(), "learnable": False, "axis": -2}
    np.testing.assert_array_equal(values.order, [[1, 0, 2], [0, 2, 1]])
    np.testing.assert_array_equal(values.ascending, [[-1, 1, 3], [0.5, 2, 7]])
    np.testing.assert_array_equal(values.midpoints, [[0, 2], [1.25, 4.5]])
    assert repr(values) == "<Values: 3 from -1 to 7 for each of 2 channels>"
    assert repr(per_channel(learnable=True)) == (
        "<Values: 3 learnable from -1 to 7 for each of 2 channels>"
    )


def test_equality_is_of_the_axis_where_there_are_channels():
    assert per_channel(0) == per_channel(0)
    assert per_channel(0) != per_channel(1)
    assert per_channel(0) != per_channel(0, learnable=True)
    assert Values([1, 2], axis=0) == Values([1, 2], axis=1)
    assert Values([1, 2]) != Values([1, 2], learnable=True)


@pytest.mark.parametrize(("shape", "axis"), [((3, 2), 0), ((2, 3), 1), ((2,), 1), ((2,), -2)])
def test_a_shape_without_a_position_for_each_channel_is_refused(shape, axis):
    values = per_channel(axis)
    words = rf"2 channels along axis {axis}, but the weight has the shape \({shape[0]},"
    for function in (values.codes, values.nearest):
        with pytest.raises(ValueError, match=words):
            function(np.zeros(shape))
    with pytest.raises(ValueError, match=words):
        values.check_channels(shape)
    values.check_channels((2, 2, 2))
    per_channel(-3).check_channels((2, 2, 2))  # The first axis, counted from the end.
    assert Values([1, 2]).check_channels(shape) is None


def test_a_list_is_taken_over_with_other_options():
    values = Values(per_channel(1, learnable=True))
    assert (values.learnable, values.axis) == (True, 1)
    values = Values(values, learnable=False, axis=0)
    assert (values.learnable, values.axis) == (False, 0)
    assert Values([1, 2]).learnable is False
    assert Values([1, 2]).axis == -1


def test_k_means_of_channels():
    weights = np.array([[0.0, 0.2, 4, 9, 9.2], [5, 1, 1.2, 1.4, 5.4]])
    for axis, array in ((0, weights), (1, weights.T), (-1, weights.T)):
        values = Values.k_means(array, 2, axis=axis)
        assert (values.axis, values.learnable, values.channels) == (axis, False, 2)
        for row, numbers in zip(weights, values.tolist(), strict=True):
            assert numbers == Values.k_means(row, 2).tolist()
    deep = weights[:, None].repeat(3, axis=1)
    assert Values.k_means(deep, 2, axis=0).tolist() == Values.k_means(weights, 2, axis=0).tolist()
    assert Values.k_means(weights, 2).learnable is False
    assert Values.k_means(weights, 2, learnable=True).learnable is True


# Lists that training moves.


def test_midpoints_of_a_learnable_list_are_rounded_to_nearest():
    values = Values([3, 1, 7], learnable=True)
    np.testing.assert_array_equal(values.midpoints, [2, 5])
    low = np.float32(1)
    high = np.nextafter(low, np.float32(2))
    np.testing.assert_array_equal(Values([low, high], learnable=True).midpoints, [high])


def test_a_moved_list_keeps_its_order_and_options():
    values = per_channel(1, learnable=True)
    moved = values.moved(values.numbers + 1)
    assert type(moved) is Values
    assert moved.tolist() == [[2, 0, 4], [1.5, 8, 3]]
    assert (moved.learnable, moved.axis) == (True, 1)
    assert values.tolist() == [[1, -1, 3], [0.5, 7, 2]]
    # Equal numbers: what lies below goes to the earlier one, all else to the later.
    equal = Values([5, 1, 2], learnable=True).moved([5, 2, 2])
    np.testing.assert_array_equal(equal.codes([1, 2, 3, 4]), [1, 2, 2, 0])


def test_config_of_a_plain_list_is_its_numbers():
    assert Values([0.1, -3]).get_config() == [0.1, -3.0]
    config = Values([0.1, -3], learnable=True).get_config()
    assert config == {"values": [0.1, -3.0], "learnable": True, "axis": -1}
    assert repr(Values([0.1, -3], learnable=True)) == "Values([0.1, -3.0], learnable=True)"
    assert repr(Values(range(17), learnable=True)) == "<Values: 17 learnable from 0 to 16>"
    assert repr(Values(range(16)))[:12] == "Values([0.0,"


@pytest.mark.parametrize("count", [3, 6, 12, 24, 48, 96, 192])
def test_a_series_has_so_many_numbers_a_decade(count):
    values = Values.e_series(count, 1e3, 1e6)
    assert len(values) == 3 * count + 1
    assert (values.low, values.high) == (1000, 1e6)
    assert values.tolist() == sorted(values.tolist())
    # Neighbours differ by the same factor, but for the roundings of two or three digits.
    ratios = np.diff(np.log10(values.numbers.astype(float)))
    np.testing.assert_allclose(ratios, 1 / count, atol=0.04 if count <= 24 else 0.0035)


def test_numbers_of_series():
    assert Values.e_series(6).tolist() == [1, 1.5, 2.2, 3.3, 4.7, 6.8, 10]
    assert Values.e_series(24, 2.5e-9, 4e-9).tolist() == [2.7e-9, 3e-9, 3.3e-9, 3.6e-9, 3.9e-9]
    # E96 has 2.49 and 5.11, E192 has the one exception of IEC 60063.
    assert {2.49, 5.11, 9.76} <= set(Values.e_series(96).tolist())
    assert 9.2 in Values.e_series(192)
    assert 9.19 not in Values.e_series(192)
    assert Values.e_series(12, 4.7, 4.7).tolist() == [4.7]
    assert Values.e_series(24, 1e3, 91e3).tolist()[-1] == 91e3


def test_decibels_and_parts_of_lists():
    steps = Values.decibels(-31.5, 0, 0.5)
    assert len(steps) == 64
    np.testing.assert_allclose(20 * np.log10(steps.numbers), np.arange(-31.5, 0.1, 0.5), atol=1e-5)
    assert Values([3, 1, 2, -5], learnable=True).between(1, 3) == Values([3, 1, 2], learnable=True)
    assert Values([0.1, 0.2]).between(0.1, 0.15).tolist() == [0.1]


def test_bad_series():
    with pytest.raises(ValueError, match=r"count is 25. Expected one of 3, 6, 12, 24, 48, 96, 192"):
        Values.e_series(25)
    with pytest.raises(ValueError, match=r"low is 0 and high is 5. Expected positive numbers"):
        Values.e_series(24, 0, 5)
    with pytest.raises(ValueError, match=r"low is '1k' and high is '10k'. Expected positive .*1e3"):
        Values.e_series(24, "1k", "10k")
    with pytest.raises(ValueError, match=r"count is 24.0. Expected one of 3"):
        Values.e_series(24.0)
    assert len(Values.e_series(np.int64(24), np.float32(1), 2)) == 8
    with pytest.raises(ValueError, match=r"low is '-3dB', .*Expected finite decibels"):
        Values.decibels("-3dB", 0, 1)
    with pytest.raises(
        ValueError, match=r"low is '1k' and high is 2000.0. Expected numbers: 4.7e3"
    ):
        Values.e_series(24, 1e3, 1e4).between("1k", 2e3)
    with pytest.raises(ValueError, match=r"E3 has no number from 3 to 4"):
        Values.e_series(3, 3, 4)
    with pytest.raises(ValueError, match=r"step is 0. Expected finite decibels"):
        Values.decibels(-3, 0, 0)
    with pytest.raises(ValueError, match=r"No value is from 5 to 6. Expected .* from -1 to 1"):
        Values("ternary").between(5, 6)
    with pytest.raises(ValueError, match=r"There are lists for 2 channels"):
        Values([[1, 2], [3, 4]]).between(1, 2)


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ([1, -1], "binary"),
        ("zero_one", "zero_one"),
        ("nf4", "nf4"),
        ("signed:4", "signed:4"),
        ("additive_powers_of_two:4", "additive_powers_of_two:4"),
        (Values.powers_of_two(4, largest=8), "powers_of_two(4, largest=8.0)"),
        (Values.unsigned(8, step=0.5), "unsigned(8, step=0.5)"),
        ([1, -1, 0.5, -0.5], "1, -1, 0.5, -0.5"),
        ([2, -2], "2, -2"),
        ([1, 2, 3, 5, 8], "5 values"),
        (Values("ternary", learnable=True), "ternary, learned"),
        ([[1, -1], [2, -2]], "2 values a channel"),
        ([0, 1, 2, 3, 4, 5, 6, 7.5], "8 values"),
    ],
)
def test_what_a_list_is_called(values, name):
    assert short_name(Values(values)) == name
