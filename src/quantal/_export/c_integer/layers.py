"""Write whole layers in C: rows of a table, and normalization of a sample by itself."""

from typing import NamedTuple

import numpy as np

from quantal._export.c.encoding import decoding, pack_codes
from quantal._export.c_integer.definitions import IntegerDefinitions
from quantal._export.c_integer.memory import Location
from quantal._export.integer.layer_steps import LookedUp, Normalized
from quantal._export.integer.steps import Range
from quantal._export.operations import Operations


class Written(NamedTuple):
    """A kernel in C.

    Attributes:
        calls: The calls, in order.
        operations: What they take for a sample.
        words: The words of signs that are gathered at once.
        sums: The sums that lie in memory at once while a recurrent layer runs.
        unpacked: The weights that are unpacked at once.
    """

    calls: list[str]
    operations: Operations
    words: int = 0
    sums: int = 0
    unpacked: int = 0


def looked_up(
    define: IntegerDefinitions, step: LookedUp, source: Location, target: Location
) -> Written:
    """Return rows of a table, whose integers are stored as codes where these are shorter."""
    rows, width = step.table.shape
    numbers = np.unique(step.table)
    bits = max((len(numbers) - 1).bit_length(), 1)
    dtype = Range(int(numbers[0]), int(numbers[-1])).dtype.name
    if bits < 8:
        codes = pack_codes(np.searchsorted(numbers, step.table), bits)
        decode = define.function("row_code", "row_code", value=decoding(bits))
        arguments = {
            "const uint8_t *codes": define.array("codes", "uint8_t", codes),
            f"const {dtype}_t *values": define.array("values", f"{dtype}_t", numbers.astype(dtype)),
        }
        value = f"values[{decode}(codes, i)]"
    else:
        table = define.array("rows", f"{dtype}_t", step.table.astype(dtype).ravel())
        arguments, value = {f"const {dtype}_t *table": table}, "table[i]"
    function = define.function(
        "look_up",
        "lookup",
        parameters="".join(f", {parameter}" for parameter in arguments),
        value=value,
        **{"from": source.type, "to": target.type},
    )
    texts = [str(step.size // width), str(rows), str(width), *arguments.values()]
    return Written([f"{function}({', '.join([*texts, source.text, target.text])});"], Operations())


def normalized(
    define: IntegerDefinitions, step: Normalized, source: Location, target: Location
) -> Written:
    """Return groups that are divided by their deviation: an integer root, and divisions."""
    n = step.normalize
    parts = _PARTS[n.kind]
    root = define.function("root", "root")
    function = define.function(
        f"normalize_{n.kind}",
        "normalize",
        root=root,
        shift=str(step.shift + 1),
        start=parts.start,
        add=parts.add,
        power="\n        ".join(parts.power).format(spread=step.spread),
        difference=parts.difference,
        **{"from": source.type},
    )
    texts = [n.positions, n.groups, n.width, f"INT64_C({step.epsilon})", source.text, target.text]
    sums = 2 if n.kind == "standard" else 1
    operations = Operations(sums * n.size, products=2 * n.size, functions=n.size + n.groups)
    return Written([f"{function}({', '.join(map(str, texts))});"], operations)


class _Parts(NamedTuple):
    """The C in which kinds of normalization differ."""

    start: str
    add: str
    power: tuple[str, ...]
    difference: str


_SQUARES = "squares += x * x;"
_COUNT = "const int64_t count = (int64_t)positions * width;"
_PARTS = {
    "standard": _Parts(
        "int64_t total = 0, squares = 0;",
        f"total += x;\n            {_SQUARES}",
        (
            _COUNT,
            "const int64_t spread = count * squares - total * total;",
            "const int64_t power = spread * ((int64_t)1 << {spread}) + epsilon;",
        ),
        "count * x - total",
    ),
    "rms": _Parts(
        "int64_t squares = 0;",
        _SQUARES,
        (_COUNT, "const int64_t power = count * squares * ((int64_t)1 << {spread}) + epsilon;"),
        "count * x",
    ),
    "unit": _Parts(
        "int64_t squares = 0;",
        _SQUARES,
        (
            "const int64_t spread = squares * ((int64_t)1 << {spread});",
            "const int64_t power = spread < epsilon ? epsilon : spread;",
        ),
        "x",
    ),
}
