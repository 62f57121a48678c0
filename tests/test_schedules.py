import numpy as np
import pytest

from quantal import schedules

pytestmark = pytest.mark.without_keras  # NumPy alone


def test_hyperbolic_halves_and_never_ends():
    steps = np.array([0, 500, 1000, 1e9])
    np.testing.assert_allclose(schedules.hyperbolic(steps, 500), [1, 1 / 2, 1 / 3, 1 / (1 + 2e6)])


@pytest.mark.parametrize("steepness", [1, 10, 50])
def test_sigmoid_goes_from_one_to_nothing(steepness):
    fractions = np.linspace(0, 1, 101)
    softness = schedules.sigmoid(fractions, steepness)
    np.testing.assert_allclose(softness[[0, 50, 100]], [1, 0.5, 0], atol=1e-12)
    assert np.all(np.diff(softness) < 0)


def test_sigmoid_is_the_published_one():
    # (s(k (f - c)) - s(k / 2)) / (s(-k / 2) - s(k / 2)) with s(x) = 1 / (1 + e^x).
    np.testing.assert_allclose(
        schedules.sigmoid(np.array([0.25, 0.75, 0.99]), 10), [0.93, 0.07, 7e-4], rtol=0.05
    )
