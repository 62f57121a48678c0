import numpy as np
import pytest
from hypothesis import given

from conftest import numpy
from lists import LONG, NAMED, lists
from quantal import Values, testing
from quantal._core.tensors.projection import StepFunction, projection_of

EVERY = {**NAMED, **LONG}


@pytest.mark.parametrize("values", EVERY.values(), ids=EVERY)
def test_tensors_agree_with_numpy_at_the_edges(values):
    testing.assert_nearest(values, testing.edge_cases(values))


@pytest.mark.parametrize("name", ["four", "uneven", "nf4", "signed 8 bits", "unsorted", "huge"])
def test_tensors_agree_with_numpy_compiled(name):
    values = EVERY[name]
    testing.assert_nearest(values, testing.edge_cases(values), compile=True)


@given(lists())
def test_tensors_agree_with_numpy_for_any_list(values):
    testing.assert_nearest(values, testing.edge_cases(values))


def test_longest_list():
    numbers = np.random.default_rng(0).permutation(np.geomspace(1, 1e6, 70_000).astype("float32"))
    values = Values(list(dict.fromkeys(numbers.tolist()))[:65_536])
    testing.assert_nearest(values, testing.edge_cases(values)[::400])


def test_memory_is_linear_in_the_elements_alone():
    # A number per element and value would be 256 GiB.
    values = Values(np.random.default_rng(0).permutation(65_536) ** 1.5)
    x = np.random.default_rng(1).uniform(0, values.high, 2**20).astype("float32")
    np.testing.assert_array_equal(numpy(projection_of(values).nearest(x)), values.nearest(x))


def test_the_check_itself_can_fail(monkeypatch):
    values = Values([1, -1, 0.5, -0.5])
    step = projection_of(values).nearest
    wrong = StepFunction(step.thresholds, step.levels + np.float32(1e-7))
    monkeypatch.setattr(projection_of(values), "nearest", wrong)
    with pytest.raises(AssertionError, match="as a tensor"):
        testing.assert_nearest(values, [0.2])


def test_forms():
    def form(values):
        return projection_of(values).nearest._form.__name__

    assert form(Values("nf4")) == "_chain"
    assert form(Values("signed:8")) == "_round"
    assert form(Values.signed(8, step=0.1)) == "_search"
    assert form(LONG["huge"]) == "_search"


@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (2, 3, 4)])
def test_shapes(shape):
    for values in (NAMED["four"], LONG["seventeen"], LONG["signed 8 bits"]):
        projection = projection_of(values)
        x = np.full(shape, 0.4, np.float32)
        np.testing.assert_array_equal(numpy(projection.nearest(x)), values.nearest(x))
        assert tuple(projection.codes(x).shape) == shape


@pytest.mark.parametrize("values", EVERY.values(), ids=EVERY)
def test_brackets_are_neighbours_around_the_latent(values):
    x = testing.edge_cases(values)
    x = x[np.isfinite(x)]
    lower, upper = (numpy(f(x)) for f in (projection_of(values).lower, projection_of(values).upper))
    assert np.isin(lower, values.numbers).all()
    assert np.isin(upper, values.numbers).all()
    held = np.clip(x, values.numbers.min(), values.numbers.max())
    assert np.all((lower <= held) & (held <= upper))
    neighbours = np.searchsorted(values.ascending, upper) - np.searchsorted(values.ascending, lower)
    assert np.all(neighbours == (1 if len(values) > 1 else 0))


def test_search_stays_within_its_halvings_where_values_crowd():
    # All thresholds in one bucket but one: the search within it must find them all.
    values = Values([*np.linspace(0, 1e-3, 100), 1e6])
    assert projection_of(values).nearest._halvings >= 6
    testing.assert_nearest(values, testing.edge_cases(values))
