import functools
import gc
import weakref

import keras
import numpy as np
import pytest
from hypothesis import given
from keras import ops

from conftest import numpy, on_one_backend
from lists import LONG, NAMED, lists
from quantal import LearnableMultiplier, Values, testing
from quantal._core.tensors import backend, blocks, projection, step_table
from quantal._core.tensors.blocks import (
    GridOfBlock,
    SumOfSteps,
    TableOfBlock,
    block_form,
    in_blocks,
)
from quantal._core.tensors.cheapest_form import step_function
from quantal._core.tensors.pair_table import PairTable
from quantal._core.tensors.projection import projection_of
from quantal._core.tensors.step_functions import Buckets, Chain, Grid
from quantal._core.tensors.step_table import StepTable

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
    wrong = step_function(values.midpoints, values.ascending + np.float32(1e-7))
    monkeypatch.setattr(projection_of(values), "nearest", wrong)
    with pytest.raises(AssertionError, match="as a tensor"):
        testing.assert_nearest(values, [0.2])


def form_of(values):
    """The form of the nearest value; under PyTorch the one that its compiler traces."""
    step = projection_of(values).nearest
    return getattr(step, "compiled", step)


def check_form(form, thresholds, levels, x):
    count = np.where(np.isnan(x), 0, np.searchsorted(thresholds, x, side="right"))
    results = numpy(form(thresholds, levels).evaluate(ops.convert_to_tensor(x)))
    np.testing.assert_array_equal(results, levels[count], err_msg=form.__name__)


@pytest.mark.parametrize("count", [3, 40])
def test_the_smallest_value_is_taken_where_the_first_midpoint_is_zero(count):
    # Compilers take the number just below 0 for 0 itself.
    numbers = [-1.0, 1.0, *(1 + np.cumsum(0.3 + np.arange(count) % 7 / 10))]
    layer = LearnableMultiplier(numbers)
    layer.build((None, 4))
    layer.set_codes([0, 0, 1, 2])
    np.testing.assert_array_equal(numpy(layer.codes), [0, 0, 1, 2])
    np.testing.assert_array_equal(numpy(layer.kernel)[:3], [-1, -1, 1])


@pytest.mark.parametrize("levels", ["numbers", "codes"])
def test_each_form_returns_its_levels_to_the_bit(levels):
    # By itself: which one a list gets depends on the backend and on its compiler.
    for values in EVERY.values():
        if len(values) == 1:
            continue
        x = np.append(testing.edge_cases(values), np.float32([np.nan, np.inf, -np.inf]))
        array = values.ascending if levels == "numbers" else values.order
        check_form(Chain, values.midpoints, array, x)
        check_form(Buckets, values.midpoints, array, x)
        if StepTable.of(values.midpoints, array) is not None:
            check_form(StepTable.of, values.midpoints, array, x)
        if PairTable.of(values.midpoints, array) is not None:
            check_form(PairTable.of, values.midpoints, array, x)
        if Grid.holds(values.midpoints, array):
            check_form(Grid, values.midpoints, array, x)


def check_block_form(form, thresholds, levels, x):
    """Check a form of PyTorch's blocks against counting, in blocks that do not divide `x`."""
    count = np.where(np.isnan(x), 0, np.searchsorted(thresholds, x, side="right"))
    tensor = ops.convert_to_tensor(x)
    results = numpy(in_blocks(form(thresholds, levels), tensor, levels.dtype.name))
    np.testing.assert_array_equal(results, levels[count], err_msg=repr(form))


@on_one_backend
@pytest.mark.parametrize("block", [3, 2**16])
@pytest.mark.parametrize("levels", ["numbers", "codes"])
def test_each_form_for_blocks_returns_its_levels_to_the_bit(levels, block, monkeypatch):
    monkeypatch.setattr(blocks, "_BLOCK", block)
    for values in [*EVERY.values(), Values([*np.linspace(0, 1e-3, 100), 1e6])]:
        # The longest in a few blocks would be many.
        edges = testing.edge_cases(values)[:: 1 if block > 3 else 7]
        x = np.append(edges, np.float32([np.nan, np.inf, -np.inf, 3e38]))
        thresholds = values.midpoints
        array = values.ascending if levels == "numbers" else values.order
        if SumOfSteps.holds(thresholds, array):
            check_block_form(SumOfSteps, thresholds, array, x)
        if len(values) > 1:
            check_block_form(TableOfBlock, thresholds, array, x)
            once = functools.partial(TableOfBlock, is_used_once=True)
            check_block_form(once, thresholds, array, x)
            if Grid.holds(thresholds, array) and GridOfBlock.holds(array):
                check_block_form(GridOfBlock, thresholds, array, x)


@on_one_backend
def test_forms_for_blocks():
    def form_of_block(values):
        return type(block_form(values.midpoints, values.ascending))

    assert form_of_block(Values("ternary")) is SumOfSteps
    assert form_of_block(Values([3])) is SumOfSteps
    # From the lowest level upwards their sums would miss one by a rounding.
    assert form_of_block(Values([-0.7, 0.1, 1.3])) is SumOfSteps
    assert form_of_block(Values([1, 3, 1e-9])) is SumOfSteps
    # A sum of one step overflows.
    assert form_of_block(Values([-3e38, 3e38])) is TableOfBlock
    assert form_of_block(Values("signed:8")) is GridOfBlock
    assert form_of_block(Values.signed(8, step=2.0**-120)) is TableOfBlock
    assert form_of_block(LONG["log-spaced"]) is TableOfBlock


@on_one_backend
@pytest.mark.parametrize(
    "numbers", [np.random.default_rng(0).normal(size=256), np.geomspace(1e-3, 1e3, 300)]
)
def test_a_long_list_is_compared_once_in_blocks_as_elsewhere(numbers):
    values = Values(numbers)
    tables = [TableOfBlock(values.midpoints, values.order, once)._tables for once in (False, True)]
    assert [table.start is None for table in tables] == [True, False]


@pytest.mark.parametrize("step", [2.0**-100, 0.25, 8, 2.0**100])
def test_a_grid_returns_multiples_of_its_step(step):
    # By itself: PyTorch evaluates it where its compiler traces only.
    values = Values.signed(5, step)
    assert Grid.holds(values.midpoints, values.ascending)
    x = np.append(testing.edge_cases(values), np.float32([np.nan, np.inf, -np.inf]))
    check_form(Grid, values.midpoints, values.ascending, x)


@pytest.mark.parametrize("step", [0.1, 0.001, 3e5, 1e-30, 1e30])
def test_most_buckets_have_one_threshold_or_none(step):
    even = Values.signed(8, step)
    assert Buckets(even.midpoints, even.order).halvings == 1


def test_the_search_narrows_down_where_values_crowd():
    crowded = LONG["log-spaced"]
    assert Buckets(crowded.midpoints, crowded.order).halvings == 9


@pytest.mark.parametrize(
    ("numbers", "is_grid"),
    [
        (np.arange(-8, 24), True),
        (np.arange(-8, 24) * 0.25, True),
        (np.arange(-8, 24) * 0.3, False),
        (np.arange(32)[::-1] * -1.0, True),
        (np.delete(np.arange(33), 7), False),
        (np.arange(32) - 15.5, False),
        (np.arange(32) * 0.25 + 0.0625, False),
        (2.0**22 - np.arange(20)[::-1], True),
        (2.0**22 + 1 - np.arange(20)[::-1], False),
    ],
)
def test_a_grid_holds_consecutive_multiples_of_a_power_of_two(numbers, is_grid):
    values = Values(numbers)
    assert Grid.holds(values.midpoints, values.ascending) is is_grid
    # Other thresholds, and codes, are none.
    assert not Grid.holds(np.nextafter(values.midpoints, np.float32(-np.inf)), values.ascending)
    assert not Grid.holds(values.midpoints, values.ascending.astype(np.int32))


@pytest.mark.parametrize("offset", [0.5, 0.25, 1.125])
def test_multiples_with_an_offset_are_no_multiples(offset):
    # Such as ±0.5, ±1.5, ±2.5 ...: as far apart as multiples of 1, but none of them.
    values = Values(np.arange(-16, 16) + offset)
    testing.assert_nearest(values, testing.edge_cases(values))


@pytest.mark.parametrize("rows", [False, True], ids=["one list", "a list per channel"])
def test_offsets_are_in_half_gaps_and_have_no_gradient(rows):
    # Gaps of 1 and 4; beyond the ends as at the ends.
    values = Values([[5, 0, 1]], axis=0) if rows else Values([5, 0, 1])
    x = np.float32([-3, 0, 0.25, 0.5, 0.9, 1, 2, 4, 5, 9])[None]
    expected = np.float32([0, 0, 0.5, -1, -0.2, 0, 0.5, -0.5, 0, 0])[None]
    listed = projection_of(values, 2)

    def offsets(x):
        return projection.offsets_in_half_gaps(x, listed.nearest(x), listed)

    np.testing.assert_allclose(numpy(offsets(ops.convert_to_tensor(x))), expected, atol=1e-6)
    gradient = testing.gradient_of(lambda x: 2 * x + offsets(x), x)
    np.testing.assert_array_equal(gradient, np.full_like(x, 2))


@pytest.mark.parametrize("name", ["four", "one", "uneven", "nf4", "signed 8 bits", "huge"])
def test_one_look_up_has_the_ends_of_the_gap_and_the_nearest_value(name):
    x = ops.convert_to_tensor(testing.edge_cases(EVERY[name]))
    listed = projection_of(EVERY[name])
    gap = listed.around(x)
    for part in ("lower", "upper", "nearest"):
        expected = numpy(getattr(listed, part)(x))
        result = np.broadcast_to(numpy(getattr(gap, part)), expected.shape)
        np.testing.assert_array_equal(result, expected, part)


def test_a_list_of_one_value_has_no_offsets():
    listed = projection_of(Values([0.3]))
    x = ops.convert_to_tensor(np.float32([-1, 0.3, 2]))
    offsets = projection.offsets_in_half_gaps(x, listed.nearest(x), listed)
    np.testing.assert_array_equal(numpy(offsets), np.zeros(3))


def test_the_ends_and_gaps_of_a_list():
    two, one = projection_of(Values([3, -1])), projection_of(Values([5]))
    assert (two.low, two.middle, two.high, two.mean_gap, len(two)) == (-1, 1, 3, 4, 2)
    assert two.normalized == [-0.5, 0.5]
    assert (one.low, one.middle, one.high, one.mean_gap, len(one)) == (5, 5, 5, 1, 1)
    four = projection_of(Values([1, 4, 2, -2]))
    assert (four.mean_gap, four.normalized) == (2, [-1.5, 0, 0.5, 1.5])
    rows = projection_of(Values([[3, -1], [1, 7]], axis=0), 2)
    for name, expected in {
        "low": [-1, 1],
        "middle": [1, 4],
        "high": [3, 7],
        "mean_gap": [4, 6],
    }.items():
        np.testing.assert_array_equal(numpy(getattr(rows, name)), np.reshape(expected, (2, 1)))
    np.testing.assert_array_equal(numpy(rows.normalized), [[[-0.5, 0.5]]] * 2)
    assert len(rows) == 2
    ones = projection_of(Values([[3], [7]], axis=0), 2)
    np.testing.assert_array_equal(numpy(ones.mean_gap), [[1], [1]])
    np.testing.assert_array_equal(numpy(ones.normalized), [[[0]]] * 2)


def test_forms():
    assert type(form_of(Values("nf4"))) is Chain
    assert type(form_of(Values("signed:8"))) is Grid
    even = StepTable if keras.config.backend() == "torch" else PairTable
    assert type(form_of(Values.signed(8, step=0.1))) is even
    assert type(form_of(Values(np.geomspace(1e-6, 1, 256)))) is StepTable
    assert type(form_of(LONG["log-spaced"])) is Buckets


@pytest.mark.parametrize(
    ("numbers", "most"),
    [
        (np.arange(200) * 0.1, 400),
        (np.random.default_rng(0).normal(size=256), 22_000),
        (np.geomspace(1e-6, 1, 256), 600),
        (np.multiply.outer([-1, 1], np.geomspace(1e-3, 8, 100)).ravel(), 800),
        ([*np.linspace(0, 1e-3, 100), 1e6], 4000),
        ([*(1 + np.linspace(0, 1e-3, 100)), 1e6], None),
    ],
    ids=["even", "normal", "log-spaced", "with signs", "crowded at 0", "crowded elsewhere"],
)
def test_a_table_has_few_buckets_or_is_none(numbers, most):
    values = Values(numbers)
    table = StepTable.of(values.midpoints, values.ascending)
    assert (table is None) if most is None else (table.buckets <= most)


@pytest.mark.parametrize("numbers", [np.arange(40) * 0.1, np.geomspace(1e-6, 1, 40)])
@pytest.mark.parametrize("compile", [False, True])
def test_tables_agree_with_numpy(numbers, compile):
    values = Values(numbers)
    assert type(form_of(values)) in (StepTable, PairTable)
    testing.assert_nearest(values, testing.edge_cases(values), compile=compile)


@on_one_backend
@pytest.mark.parametrize("levels", ["numbers", "codes"])
def test_a_table_looks_at_pairs_of_levels_where_pytorch_compiles(levels, monkeypatch):
    # The program that it compiles, one operation after the other.
    for module in (backend, step_table):
        monkeypatch.setattr(module, "is_compiled_in_torch", lambda: True)
    for values in [Values(np.arange(40) * -0.1), Values(np.geomspace(1e-6, 1, 40))]:
        x = np.append(testing.edge_cases(values), np.float32([np.nan, np.inf, -np.inf]))
        array = values.ascending if levels == "numbers" else values.order
        check_form(StepTable.of, values.midpoints, array, x)


@pytest.mark.parametrize("scale", [0, 1], ids=["linear", "logarithmic"])
def test_a_table_knows_numbers_whose_bucket_is_rounded_away(scale):
    random = np.random.default_rng(5)
    thresholds = np.sort(random.uniform(size=1000).astype(np.float32))
    if scale:
        thresholds = np.sort(random.choice([-1, 1], 1000) * np.exp(thresholds * 40)).astype(
            "float32"
        )
    # Thinned, so that a table holds them.
    thresholds = thresholds[::8]
    x = np.append(thresholds, np.nextafter(thresholds, np.float32(-np.inf)))
    levels = np.arange(len(thresholds) + 1, dtype=np.int32)
    assert StepTable.of(thresholds, levels) is not None
    check_form(StepTable.of, thresholds, levels, x)


def around(numbers):
    """Numbers, and their neighbours on both sides."""
    numbers = np.float32(numbers)
    return np.concatenate([numbers, *(np.nextafter(numbers, np.float32(s)) for s in (-9e9, 9e9))])


def test_a_table_of_pairs_returns_its_levels_to_the_bit():
    random = np.random.default_rng(7)
    # The last one has a threshold whose position is rounded up to the next bucket.
    lists = [*(random.normal(size=size) for size in (20, 256)), 100 + random.normal(size=64)]
    for numbers in [*lists, [*np.arange(-20, -0.7, 1.1), -0.3, 0.29999998, 1, 2.3]]:
        values = Values(numbers)
        table = PairTable.of(values.midpoints, values.ascending)
        edges = (np.arange(len(table.lower)) + table.buckets.first) / table.buckets.per_unit
        stops = [number for interval in table.intervals for number in interval[:2]]
        near_zero = np.linspace(-1e-7, 1e-7, 50)
        x = np.concatenate([around(a) for a in (values.midpoints, edges, stops, near_zero)])
        check_form(PairTable.of, values.midpoints, values.ascending, x)


def test_a_table_of_pairs_has_few_intervals_or_is_none():
    normal, crowded = np.random.default_rng(0).normal(size=256), np.geomspace(1e-6, 1, 256)
    for numbers, buckets in ((np.arange(200) * 0.1, 400), (normal, 3000), (crowded, 0)):
        values = Values(numbers)
        table = PairTable.of(values.midpoints, values.ascending)
        assert (table is None) == (not buckets)
        assert table is None or (len(table.lower) <= buckets and len(table.intervals) <= 6)
    assert PairTable.of(values.midpoints, values.order) is None


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


def test_a_number_whose_bucket_is_rounded_away():
    # Without a margin one of these goes to the bucket beside its own.
    thresholds = np.sort(np.random.default_rng(5).normal(size=1000).astype(np.float32))
    x = np.append(thresholds, np.nextafter(thresholds, np.float32(-np.inf)))
    check_form(Buckets, thresholds, np.arange(len(thresholds) + 1, dtype=np.int32), x)


def test_lists_of_the_elements_of_a_vector_need_no_rank():
    projection = projection_of(Values([[1.0, -1.0], [2.0, -2.0], [0.25, 0.5]], axis=0))
    x = np.float32([0.3, -0.3, 0.3])
    np.testing.assert_array_equal(numpy(projection.nearest(x)), np.float32([1, -2, 0.25]))
    np.testing.assert_array_equal(numpy(projection.low), np.float32([-1, -2, 0.25]))


def test_two_crowds_in_the_last_buckets():
    # Buckets of 1: seven thresholds in the last one and seven in the one before.
    # From 1, since compilers take the number just below 0 for 0.
    crowd = np.linspace(0.3, 0.7, 7)
    thresholds = np.float32([1, *(119 + crowd), *(120 + crowd[1:]), 121])
    x = np.append(thresholds, np.nextafter(thresholds, np.float32(-np.inf)))
    check_form(Buckets, thresholds, np.arange(len(thresholds) + 1, dtype=np.int32), x)


@on_one_backend
@pytest.mark.filterwarnings("ignore")  # PyTorch warns of its tracer.
def test_pytorch_searches_unless_it_traces(monkeypatch):
    import torch

    values = LONG["seventeen"]
    step, x = projection_of(values).nearest.other, ops.convert_to_tensor(values.midpoints)
    chain = step.compiled
    monkeypatch.setattr(step, "compiled", None)
    np.testing.assert_array_equal(numpy(step(x)), values.ascending[1:])
    monkeypatch.setattr(step, "compiled", chain)
    monkeypatch.setattr(step, "_sorted", None)
    traced = torch.jit.trace(step.evaluate, (x,), check_trace=False)
    np.testing.assert_array_equal(numpy(traced(x)), values.ascending[1:])
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    np.testing.assert_array_equal(numpy(step(x)), values.ascending[1:])


def test_search_stays_within_its_halvings_where_values_crowd():
    # All thresholds in one bucket but one: the search within it must find them all.
    values = Values([*(1 + np.linspace(0, 1e-3, 100)), 1e6])
    assert form_of(values).halvings >= 6
    testing.assert_nearest(values, testing.edge_cases(values))
