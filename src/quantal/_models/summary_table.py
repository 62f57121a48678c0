"""A summary is drawn as a table: which columns and rows it has, and what stands below it."""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

from quantal._core.table import Column, Table
from quantal._models.summary_row import SummaryActivation, SummaryRow

_ALL_SHOWN = 12
"""So many weights have a row each; of more, free ones without products share a row by name."""
_FIRST, _LAST = 40, 20
"""Of more rows still, so many of the first and of the last ones are shown."""
_UNITS = ("", " k", " M", " G", " T", " P")


def table_of(
    rows: Sequence[SummaryRow],
    footer: Sequence[str],
    activations: Sequence[SummaryActivation] = (),
) -> Table:
    """Return the rows of a summary as a table.

    Columns that say nothing are left out, and so is what all weights have in common: it stands
    below the table.

    Args:
        rows: The rows.
        footer: What else stands below it.
        activations: The activations on lists, which come last.
    """
    lines = [*_lines(rows), *_lines_of_activations(activations, len(rows) > _ALL_SHOWN)]
    shown = [column for column, is_shown in _columns(rows, activations) if is_shown]
    cells = [[line.get(column.name) for column in shown] for line in lines]
    return Table(shown, cells, footer=[*_common(rows, activations), *footer])


def count_in_words(number: int) -> str:
    """Return a number with a unit, in four digits.

    >>> count_in_words(9408), count_in_words(2230272)
    ('9,408', '2.23 M')
    """
    if number < 10_000:
        return f"{number:,}"
    power = min(int(math.log10(number)) // 3, len(_UNITS) - 1)
    return f"{number / 1000**power:.3g}{_UNITS[power]}"


def _columns(
    rows: Sequence[SummaryRow], activations: Sequence[SummaryActivation]
) -> list[tuple[Column, bool]]:
    """Return all columns, and whether each is shown.

    Where reasons are shown, what rules decided is the question, and a line has no room for more.
    """
    has_reasons = any(map(_has_reason, rows))
    has_scales = any(row.scales for row in rows) or any(a.scale_values for a in activations)
    has_macs = any(row.macs for row in rows) and not has_reasons
    return [
        (Column("weight", shorten="start"), True),
        (Column("shape"), True),
        (Column("values", shorten="end"), True),
        (Column("estimator"), len(_estimators(rows)) > 1),
        (Column("scales", align="right"), has_scales),
        (Column("bits", align="right"), True),
        (Column("used", bars=True), any(row.usage for row in rows) and not has_reasons),
        (Column("MACs", align="right"), has_macs),
        (Column("as"), has_macs),
        (Column("bytes", show="{:,}".format, align="right"), any(row.bytes for row in rows)),
        (Column("error", show="{:.3f}".format), any(row.error is not None for row in rows)),
        (
            Column("outputs", show="{:.3f}".format),
            any(row.output_error is not None for row in rows),
        ),
        (Column("why", shorten="end", least=24), has_reasons),
    ]


def _lines(rows: Sequence[SummaryRow]) -> list[dict[str, Any]]:
    """Return the data of the lines: of few weights all, of many some together."""
    prefix = _common_prefix(rows)
    single, together = list(rows), []
    if len(rows) > _ALL_SHOWN:
        single = [row for row in rows if not _is_plain(row)]
        together = [row for row in rows if _is_plain(row)]
    lines = [_line(row, prefix) for row in single]
    if len(lines) > _FIRST + _LAST:
        left_out = {"weight": f"… {len(lines) - _FIRST - _LAST} more …"}
        lines = [*lines[:_FIRST], left_out, *lines[-_LAST:]]
    return [*lines, *_groups(together)]


def _groups(rows: Sequence[SummaryRow]) -> Iterator[dict[str, Any]]:
    """Yield a line for the weights of each name."""

    def name_of(row: SummaryRow) -> str:
        return row.path.rpartition("/")[2]

    order = {name: index for index, name in enumerate(dict.fromkeys(map(name_of, rows)))}
    for name, group in itertools.groupby(
        sorted(rows, key=lambda row: order[name_of(row)]), key=name_of
    ):
        members = list(group)
        sizes = [row.bytes for row in members]
        reasons = {row.why for row in members}
        yield {
            "weight": f"{len(members)} x {name}",
            "shape": count_in_words(sum(math.prod(row.shape) for row in members)),
            "values": "free",
            "bits": " to ".join(sorted({_bits(row) for row in members})),
            "bytes": None if None in sizes else sum(size for size in sizes if size is not None),
            "why": reasons.pop() if len(reasons) == 1 and _has_reason(members[0]) else None,
        }


def _lines_of_activations(
    activations: Sequence[SummaryActivation], is_grouped: bool
) -> Iterator[dict[str, Any]]:
    """Yield a line for each activation; or, in a large model, for those of each list."""
    groups: dict[Any, list[SummaryActivation]] = {}
    for index, each in enumerate(activations):
        key = (each.list_name, each.bits, each.scale) if is_grouped else index
        groups.setdefault(key, []).append(each)
    for group in groups.values():
        first, scales = group[0], [number for each in group for number in each.scale_values]
        yield {
            "weight": first.path if len(group) == 1 else f"{len(group)} x activation",
            # Not behind the name, of which a narrow table shows the end.
            "shape": "activation" if len(group) == 1 else None,
            "values": first.list_name + (f" x {scales[0]:.3g}" if len(scales) == 1 else ""),
            "scales": len(scales) or None,
            "bits": str(first.bits),
        }


def _line(row: SummaryRow, prefix: str) -> dict[str, Any]:
    macs = "?" if row.macs is None else count_in_words(row.macs) if row.macs else None
    return {
        "weight": row.path.removeprefix(prefix),
        "shape": "x".join(map(str, row.shape)) or "scalar",
        "values": row.list_name or "free",
        "estimator": row.estimator,
        "scales": row.scales or None,
        "bits": _bits(row),
        "used": _ascending_usage(row),
        "MACs": macs,
        "as": row.kind if row.macs else None,
        "bytes": row.bytes,
        "error": row.error,
        "outputs": row.output_error,
        "why": row.why,
    }


def _bits(row: SummaryRow) -> str:
    """Return the bits of an element: by entropy and by length, for a free weight its own."""
    if row.values is None:
        return f"{row.bits_before // max(math.prod(row.shape), 1)}"
    by_entropy = "?" if row.entropy is None else f"{row.entropy:.3g}"
    return f"{by_entropy} of {row.values.bits}"


def _ascending_usage(row: SummaryRow) -> list[float] | None:
    """Return the shares of the values in ascending order; of lists per channel in their own."""
    if row.usage is None or row.values is None:
        return None
    if row.values.channels is not None:
        return list(row.usage)
    return [row.usage[code] for code in row.values.order]


def _common_prefix(rows: Sequence[SummaryRow]) -> str:
    """Return the name of the model where all paths begin with it, and have more parts."""
    starts = {row.path.partition("/")[0] for row in rows}
    return f"{starts.pop()}/" if len(starts) == 1 and all("/" in r.path for r in rows) else ""


def _is_plain(row: SummaryRow) -> bool:
    """Return whether a weight is free and has no products, as biases and normalizations are."""
    return row.values is None and row.macs == 0


def _has_reason(row: SummaryRow) -> bool:
    return row.why not in ("listed", f"free: {row.path.rpartition('/')[2]}")


def _estimators(rows: Sequence[SummaryRow]) -> list[str]:
    return list(dict.fromkeys(row.estimator for row in rows if row.estimator))


def _common(rows: Sequence[SummaryRow], activations: Sequence[SummaryActivation]) -> Iterator[str]:
    """Yield what is the same for all listed weights, and the scales' methods."""
    estimators = _estimators(rows)
    scales = list(dict.fromkeys(row.scale for row in rows if row.scale))
    parts = []
    if len(estimators) == 1:
        parts.append(f"estimator: {estimators[0]}")
    if scales:
        parts.append(f"scales: {', '.join(scales)}")
    of_activations = dict.fromkeys(each.scale for each in activations if each.scale)
    if of_activations:
        parts.append(f"scales of activations: {', '.join(of_activations)}")
    if parts:
        yield "; ".join(parts)
