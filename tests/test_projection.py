import gc
import weakref

import numpy as np
import pytest
from hypothesis import given

from conftest import numpy
from lists import LONG, NAMED, lists
from quantal import Values, testing
from quantal._core.tensors import projection
from quantal._core.tensors.projection import projection_of
from quantal._core.tensors.step_functions import Buckets, Chain, Grid, step_function

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
    wrong = step_function(step.thresholds, step.levels + np.float32(1e-7))
    monkeypatch.setattr(projection_of(values), "nearest", wrong)
    with pytest.raises(AssertionError, match="as a tensor"):
        testing.assert_nearest(values, [0.2])


def form_of(values):
    """The form of the nearest value; under PyTorch the one that its compiler traces."""
    step = projection_of(values).nearest
    return getattr(step, "compiled", step)


def test_forms():
    assert type(form_of(Values("nf4"))) is Chain
    assert type(form_of(Values("signed:8"))) is Grid
    assert type(form_of(Values.signed(8, step=0.1))) is Buckets
    assert type(form_of(LONG["huge"])) is Buckets


def test_a_projection_is_created_once_for_a_list_and_goes_with_it():
    values = Values([[1, -1], [2, 3]])
    assert projection_of(values, 2) is projection_of(values, 2)
    assert projection_of(values, 3) is not projection_of(values, 2)
    gone = weakref.ref(projection_of(values, 2))
    assert id(values) in projection._PROJECTIONS
    del values
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (2, 3, 4)])
def test_shapes(shape):
    for values in (NAMED["four"], LONG["seventeen"], LONG["signed 8 bits"]):
        listed = projection_of(values)
        x = np.full(shape, 0.4, np.float32)
        np.testing.assert_array_equal(numpy(listed.nearest(x)), values.nearest(x))
        assert tuple(listed.codes(x).shape) == shape


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
    assert form_of(values).halvings >= 6
    testing.assert_nearest(values, testing.edge_cases(values))
