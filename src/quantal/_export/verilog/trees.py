"""Write sums of products with constants as trees of adders: shifts, additions and subtractions."""

import heapq
import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from quantal._export.integer.steps import Range
from quantal._export.verilog.text import literal, signed_bits


class _Term(NamedTuple):
    """A term of a sum: an expression, its range, and whether it is subtracted."""

    text: str
    bounds: Range
    negative: bool


def tree_of_products(
    name: str, weights: Sequence[int], numbers: Sequence[str], bounds: Range
) -> tuple[list[str], str]:
    """Return the adders of a sum of products, and the wire that holds it.

    A weight is a sum of few powers of two, each added or subtracted: 7 is 8 - 1. The two terms of
    the fewest bits are added first, so that few adders are wide.

    Args:
        name: The beginning of the wires' names.
        weights: The weights.
        numbers: A signed expression for each of them.
        bounds: The smallest and the largest number.

    Returns:
        The declarations, and an expression.
    """
    counter = itertools.count()
    heap = [
        (signed_bits(term.bounds), next(counter), term)
        for weight, number in zip(weights, numbers, strict=True)
        for term in _terms(int(weight), number, bounds)
    ]
    heapq.heapify(heap)
    lines: list[str] = []
    while len(heap) > 1:
        one, other = heapq.heappop(heap)[2], heapq.heappop(heap)[2]
        term, text = _added(one, other, f"{name}_{len(lines)}")
        bits = signed_bits(term.bounds)
        lines.append(f"  wire signed [{bits - 1}:0] {term.text} = {text};")
        heapq.heappush(heap, (bits, next(counter), term))
    if not heap:
        return lines, literal(0)
    last = heap[0][2]
    return lines, f"-{last.text}" if last.negative else last.text


def _terms(weight: int, number: str, bounds: Range) -> Iterator[_Term]:
    """Yield the powers of two of a weight times a number: no two of them are neighbours."""
    shift, sign = 0, -1 if weight < 0 else 1
    rest = abs(weight)
    while rest:
        if rest % 2:
            digit = 2 - rest % 4
            rest -= digit
            text = f"({number} <<< {shift})" if shift else number
            shifted = Range(bounds.low << shift, bounds.high << shift)
            yield _Term(text, shifted, digit * sign < 0)
        rest //= 2
        shift += 1


def _added(one: _Term, other: _Term, name: str) -> tuple[_Term, str]:
    """Return the sum of two terms as a term of a name, and the expression of it."""
    if one.negative and not other.negative:
        one, other = other, one
    if one.negative == other.negative:
        bounds = Range(one.bounds.low + other.bounds.low, one.bounds.high + other.bounds.high)
        return _Term(name, bounds, one.negative), f"{one.text} + {other.text}"
    bounds = Range(one.bounds.low - other.bounds.high, one.bounds.high - other.bounds.low)
    return _Term(name, bounds, False), f"{one.text} - {other.text}"
