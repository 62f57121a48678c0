"""Arrays that live at the same time do not overlap, and the others share memory."""

import numpy as np
import pytest

from quantal._export.c.memory import Span, offsets_of, plan
from quantal._export.graph.steps import Elementwise, Function, Graph, Node, Output, Pad, Repetition

pytestmark = pytest.mark.without_keras


def overlap(first, second, offsets):
    at_one_time = first[1].first <= second[1].last and second[1].first <= first[1].last
    start, other = offsets[first[0]], offsets[second[0]]
    return at_one_time and start < other + second[1].size and other < start + first[1].size


def test_spans_of_one_time_do_not_overlap():
    random = np.random.default_rng(0)
    for _ in range(30):
        firsts = random.integers(0, 20, size=15)
        lengths, sizes = random.integers(0, 6, size=15), random.integers(1, 50, size=15)
        rows = zip(sizes.tolist(), firsts.tolist(), lengths.tolist(), strict=True)
        spans = [Span(size, first, first + length) for size, first, length in rows]
        offsets = offsets_of(spans)
        pairs = [(a, b) for a in enumerate(spans) for b in enumerate(spans) if a[0] < b[0]]
        assert not any(overlap(a, b, offsets) for a, b in pairs)
        # At every time at least what lives then is needed; greedy planning comes near to it.
        least = max(sum(s.size for s in spans if s.first <= t <= s.last) for t in range(26))
        most = max(offset + span.size for offset, span in zip(offsets, spans, strict=True))
        assert least <= most <= 1.5 * least


def pad(source, height):
    return Node(Pad((height, 1, 1), 1, 0, 0, 0), (source,), (height + 1,), "pad")


def test_a_value_is_overwritten_only_after_all_have_read_it():
    whole = Repetition(1, 4)
    function = Function("tanh", 4)
    add = Elementwise("add", 4, (whole, whole))
    nodes = [
        pad(0, 3),  # 1
        Node(function, (1,), (4,), "kept"),  # 2: node 4 reads 1 later
        Node(function, (2,), (4,), "in place"),  # 3 in the array of 2
        Node(add, (1, 3), (4,), "sum"),  # 4 in the array of 1
        pad(4, 4),  # 5, an output
    ]
    memory = plan(Graph(nodes, [(3,)], [Output(5, (5,)), Output(5, (5,)), Output(0, (3,))]))
    names = memory.locations
    assert [names[0], names[5]] == ["input", "output_1"]
    assert names[2] == names[3] != names[1] == names[4]
    assert memory.size == 8
    assert memory.copies == [("output_2", "output_1", 5), ("output_3", "input", 3)]
