"""Floats come back to the few numbers that they are made of, to the bit."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as arrays

from quantal._export.coded_tensor import encode
from quantal._export.grid import grid_of

pytestmark = pytest.mark.without_keras  # NumPy alone

NF4 = np.array([-1, -0.6961928, -0.52507305, -0.39491749, -0.28444138, -0.18477343, -0.09105004,
                0, 0.0795803, 0.1609302, 0.24611230, 0.33791524, 0.44070983, 0.5626170, 0.7229568,
                1], np.float32)  # fmt: skip
LISTS = {
    "signs": [1, -1],
    "ternary": [1, 0, -1],
    "four": [1, -1, 0.5, -0.5],
    "uneven": [1, 0.7, 0, -0.1, -0.2],
    "nf4": NF4,
}


def same(first, second):
    return np.array_equal(first.view(np.uint32), np.ascontiguousarray(second).view(np.uint32))


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("axis", [None, 0, 1, 2])
def test_a_list_with_a_scale_is_found(name, axis, random):
    numbers = np.array(LISTS[name], np.float32)
    codes = random.integers(0, len(numbers), (20, 30, 40))
    tensor = numbers[codes]
    if axis is not None:
        shape = [1, 1, 1]
        shape[axis] = -1
        scale = random.lognormal(size=tensor.shape[axis]).astype(np.float32)
        tensor = tensor * scale.reshape(shape)
    coded = encode(tensor, [numbers])
    assert coded.axis == axis
    assert coded.numbers.shape == numbers.shape
    assert same(tensor, coded.floats())


def test_a_scale_is_found_where_a_channel_lacks_the_largest(random):
    numbers = NF4[3:12] * np.float32(1.7)
    tensor = NF4[random.integers(3, 12, (200, 8))] * random.lognormal(size=8).astype(np.float32)
    tensor[0] = 0
    coded = encode(tensor, [NF4])
    assert same(tensor, coded.floats())
    assert coded.numbers.ndim == 1
    assert encode(tensor * numbers[0], [NF4]) is not None


def test_a_list_for_each_channel_is_the_last_resort(random):
    lists = random.normal(size=(6, 5)).astype(np.float32)
    tensor = np.stack([row[random.integers(0, 5, 400)] for row in lists], axis=1)
    coded = encode(tensor)
    assert coded.numbers.size <= 30
    assert same(tensor, coded.floats())


def test_nearly_on_a_list_is_not_on_it(random):
    tensor = NF4[random.integers(0, 16, (300, 8))] * random.lognormal(size=8).astype(np.float32)
    tensor[5, 3] = np.nextafter(tensor[5, 3], np.float32(9))
    coded = encode(tensor, [NF4])
    assert same(tensor, coded.floats())


def test_floats_are_on_no_list(random):
    assert encode(random.normal(size=(60, 70)).astype(np.float32), [NF4]) is None


@given(
    arrays.arrays(np.float32, st.tuples(st.integers(1, 6), st.integers(1, 6)),
                  elements=st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.1, 3e-39, 1e30])),
)  # fmt: skip
def test_any_tensor_comes_back_to_the_bit(tensor):
    coded = encode(tensor)
    if coded is not None:
        assert same(tensor, coded.floats())


@pytest.mark.parametrize(
    ("numbers", "integers"),
    [
        ([1, -1], [1, -1]),
        ([1, -1, 0.5, -0.5], [2, -2, 1, -1]),
        ([0.3, 0, -0.3], [1, 0, -1]),
        ([0, 1, 2, 3], [0, 1, 2, 3]),
        ([0], [0]),
    ],
)
def test_grids(numbers, integers):
    numbers = np.array(numbers, np.float32)
    grid = grid_of(numbers)
    np.testing.assert_array_equal(grid.integers, integers)
    np.testing.assert_array_equal(grid.integers.astype("f4") * grid.step, numbers)


def test_what_integers_hold_a_grid():
    signs = grid_of(np.array([1, -1], np.float32))
    assert signs.fits(2)
    assert signs.zero_point(2) == 2
    up = grid_of(np.array([0, 1, 2, 3], np.float32))
    assert up.fits(2)
    assert up.zero_point(2) == 0
    assert not grid_of(np.array([1, -1, 0.5, -0.5], np.float32)).fits(2)
    assert grid_of(np.array([1, np.pi / 3], np.float32)) is None
