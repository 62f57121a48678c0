"""The numbers of calibration: codes and scales that lose little of a kernel's outputs."""

import itertools

import numpy as np
import pytest

from quantal._core.numbers.calibration import ListedElements, Scales, calibrated
from quantal._core.numbers.fitting import least_squares_scales
from quantal._core.numbers.values import Values

pytestmark = pytest.mark.without_keras


def moment_of(random, groups, inputs, rows=200):
    mixing = random.normal(size=(groups, inputs, inputs))
    x = random.normal(size=(groups, rows, inputs)) @ mixing
    return np.swapaxes(x, 1, 2) @ x / rows


def loss_of(weights, listed, moment):
    return float(np.vdot(weights - listed, moment @ (weights - listed)))


def one_scale_an_output(weights, values):
    groups, _, outputs = weights.shape
    start = least_squares_scales(weights, values, (groups, 1, outputs))
    positions = np.arange(groups * outputs).reshape(groups, 1, outputs)
    return Scales(start.ravel(), np.broadcast_to(positions, weights.shape))


def listed_by(result, values, shared):
    return result.scales[shared] * values.take(result.codes)


LISTS = {
    "binary": [-1, 1],
    "ternary in another order": [0, 1, -1],
    "uneven": [1, 0.7, 0, -0.1, -0.2],
    "long": np.linspace(-1, 1, 40),
    "one value": [0.5],
}


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("groups", [1, 3])
def test_it_loses_less_than_nearest_values(name, groups):
    random, values = np.random.default_rng(0), Values(LISTS[name])
    weights, moment = random.normal(size=(groups, 30, 5)), moment_of(random, groups, 30)
    scales = one_scale_an_output(weights, values)
    result = calibrated(weights, moment, ListedElements(values), scales)
    factors = scales.of_elements()
    nearest = loss_of(weights, factors * values.nearest(weights / factors), moment)
    listed = listed_by(result, values, scales.shared)
    assert result.loss == pytest.approx(loss_of(weights, listed, moment))
    assert result.loss < (0.6 if len(values) > 1 else 1.0) * nearest
    # Where a weight would rather be is nearest to the value that it has.
    np.testing.assert_array_equal(values.codes(result.wishes), result.codes)


def test_small_kernels_come_near_to_the_optimum():
    random, values = np.random.default_rng(1), Values([-1, 0.2, 1])
    ratios = []
    for _ in range(20):
        weights, moment = random.normal(size=(1, 6, 1)), moment_of(random, 1, 6)
        scales = Scales(np.ones(1), np.zeros((1, 6, 1), int), is_fitted=False)
        result = calibrated(weights, moment, ListedElements(values), scales, damping=1e-9)
        candidates = np.array(list(itertools.product(values.numbers.astype(float), repeat=6)))
        optimum = min(loss_of(weights, c[None, :, None], moment) for c in candidates)
        ratios.append(result.loss / optimum)
    assert min(ratios) >= 1 - 1e-9
    assert np.median(ratios) < 1.1


def test_a_kernel_on_its_list_comes_back():
    random, values = np.random.default_rng(2), Values("nf4")
    codes = random.integers(0, 16, (2, 20, 4))
    scales = Scales(np.array([0.25, 0.5]), np.broadcast_to([[[0]], [[1]]], codes.shape))
    weights = scales.of_elements() * values.take(codes)
    result = calibrated(weights, moment_of(random, 2, 20), ListedElements(values), scales)
    np.testing.assert_array_equal(result.codes, codes)
    np.testing.assert_array_equal(result.scales, scales.numbers)
    assert result.error == 0


def test_inputs_that_never_come_leave_nearest_values():
    values, weights = Values([-1, 1]), np.array([[[0.3], [-0.2]]])
    scales = Scales(np.ones(1), np.zeros((1, 2, 1), int))
    result = calibrated(weights, np.zeros((1, 2, 2)), ListedElements(values), scales)
    assert result.codes.ravel().tolist() == [1, 0]
    assert result.error == 0


def test_blocks_change_nothing(monkeypatch):
    random, values = np.random.default_rng(3), Values("ternary")
    weights, moment = random.normal(size=(1, 50, 4)), moment_of(random, 1, 50)
    scales = one_scale_an_output(weights, values)
    whole = calibrated(weights, moment, ListedElements(values), scales)
    monkeypatch.setattr("quantal._core.numbers.calibration._BLOCK", 7)
    in_blocks = calibrated(weights, moment, ListedElements(values), scales)
    np.testing.assert_array_equal(in_blocks.codes, whole.codes)


def test_scales_that_differ_between_inputs_stay():
    random, values = np.random.default_rng(4), Values("ternary")
    weights, moment = random.normal(size=(1, 8, 3)), moment_of(random, 1, 8)
    shared = np.broadcast_to(np.arange(8).reshape(1, 8, 1), weights.shape)
    scales = Scales(random.uniform(0.5, 1, 8), shared)
    result = calibrated(weights, moment, ListedElements(values), scales)
    np.testing.assert_array_equal(result.scales, scales.numbers)
