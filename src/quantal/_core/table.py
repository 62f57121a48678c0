"""A table of results is drawn as text, as HTML for notebooks and pages, and as a pandas frame."""

import dataclasses
import html
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

WIDTH = 100
"""The most characters of a line of text, where columns can be shortened to it."""
_GAP = "  "
"""What stands between the columns of a text."""
_BLOCKS = "▁▂▃▄▅▆▇█"
"""The heights of a bar in a text; a share of 0 is a dot."""
_MOST_BARS, _MOST_BLOCKS = 16, 8
"""Neighbouring shares are added up to so many bars of a picture, and blocks of a text."""
_LONG = 32
"""A text of more characters may be broken into lines on a page."""
_STYLE = """
.quantal{overflow-x:auto;max-width:100%;color:inherit}
.quantal table{border-collapse:collapse;font-size:.9em;color:inherit;background:none;margin:.4em 0}
.quantal caption{text-align:left;font-weight:600;padding:.2em 0;white-space:nowrap}
.quantal th,.quantal td{padding:.25em .5em;vertical-align:top;border:0;white-space:nowrap;
background:none;color:inherit;text-align:left;font-variant-numeric:tabular-nums}
.quantal td.long{white-space:normal;min-width:14em;overflow-wrap:anywhere}
.quantal th.right,.quantal td.right{text-align:right}
.quantal thead th{border-bottom:1px solid currentColor}
.quantal tbody tr+tr>*{border-top:1px solid rgba(128,128,128,.3)}
.quantal tbody th{font-weight:400}
.quantal svg{vertical-align:middle;fill:currentColor}
.quantal p{margin:.3em 0}
"""
"""The colors are those of the page around, so that a table is readable on light and on dark."""


@dataclasses.dataclass(frozen=True)
class Column:
    """A column says how the data of its cells are shown.

    Attributes:
        name: The column's name in a frame, for example `"bytes"`.
        title: What stands above it; None for the name.
        show: Turns a cell's data into text; None is shown as "-".
        align: `"left"` or `"right"`.
        shorten: Whether a text may cut long cells: `"start"` or `"end"` says which part of them
            gives way to an ellipsis; None for a column that is always shown whole.
        least: No cell is cut to fewer characters.
        bars: Whether the data are shares, (K,), that are drawn as small bars.
    """

    name: str
    title: str | None = None
    show: Callable[[Any], str] = str
    align: str = "left"
    shorten: str | None = None
    least: int = 12
    bars: bool = False

    @property
    def head(self) -> str:
        """The text that stands above the column."""
        return self.name if self.title is None else self.title

    def text(self, cell: Any) -> str:
        """Return a cell as text."""
        if cell is None:
            return "-"
        return bars_as_text(cell) if self.bars else self.show(cell)

    def html(self, cell: Any) -> str:
        """Return a cell as HTML."""
        if self.bars and cell is not None:
            return bars_as_svg(cell)
        return html.escape(self.text(cell))


@dataclasses.dataclass(frozen=True)
class Table:
    """A table holds rows of data, and draws them as text, as HTML or as a pandas frame.

    `str` is plain text, the same everywhere; a notebook shows HTML; `rich.print` and `print`,
    the method, draw it by rich.

    Attributes:
        columns: The columns.
        rows: For each row one cell of data a column.
        title: A line above the table; empty for none.
        footer: Lines below it.

    >>> table = Table(
    ...     [Column("name"), Column("bytes", show="{:,}".format, align="right")],
    ...     [("kernel", 1234), ("bias", None)],
    ...     footer=["1,234 bytes together"],
    ... )
    >>> print(table)
    name    bytes
    kernel  1,234
    bias        -
    1,234 bytes together
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]
    title: str = ""
    footer: Sequence[str] = ()

    @classmethod
    def of_facts(
        cls, facts: Iterable[tuple[str, Any]], title: str = "", footer: Sequence[str] = ()
    ) -> "Table":
        """Return a table with a name and a text in each row, and no heads.

        Args:
            facts: Pairs of a name and what is shown for it.
            title: A line above the table.
            footer: Lines below it.

        >>> print(Table.of_facts([("loss", 0.25), ("proved", "yes")]))
        loss    0.25
        proved  yes
        """
        columns = [Column("name", ""), Column("value", "", shorten="end")]
        return cls(columns, list(facts), title, footer)

    def text(self, width: int | None = WIDTH) -> str:
        """Return the table as plain text.

        Args:
            width: The most characters of a line, as far as cells can be shortened; None to
                show all of them whole.
        """
        cells = self._texts()
        if width is not None:
            cells = self._shortened(cells, width)
        widths = _widths(cells)
        if not any(column.head for column in self.columns):
            cells = cells[1:]
        lines = [
            _GAP.join(
                cell.rjust(size) if column.align == "right" else cell.ljust(size)
                for column, cell, size in zip(self.columns, row, widths, strict=True)
            ).rstrip()
            for row in cells
        ]
        return "\n".join([*filter(None, [self.title]), *lines, *self.footer])

    def html(self) -> str:
        """Return the table as HTML that needs nothing else, on light and on dark pages."""
        heads = "".join(
            f'<th scope="col"{_class(column)}>{html.escape(column.head)}</th>'
            for column in self.columns
        )
        label = html.escape(self.title or "table")
        # A region that scrolls is reached by the keyboard, and has a name.
        region = f'<div class="quantal" role="region" aria-label="{label}" tabindex="0">'
        parts = [f"<style>{_STYLE}</style>{region}<table>"]
        if self.title:
            parts.append(f"<caption>{html.escape(self.title)}</caption>")
        if any(column.head for column in self.columns):
            parts.append(f"<thead><tr>{heads}</tr></thead>")
        parts.append("<tbody>")
        parts += [self._html_of_row(row) for row in self.rows]
        parts.append("</tbody></table>")
        parts += [f"<p>{html.escape(line)}</p>" for line in self.footer]
        return "\n".join([*parts, "</div>"])

    def to_frame(self) -> Any:
        """Return the data as a `pandas.DataFrame`, a column for each of the table's.

        Raises:
            ImportError: pandas is not installed.
        """
        return frame({c.name: [row[i] for row in self.rows] for i, c in enumerate(self.columns)})

    def print(self) -> None:
        """Print the table: by rich where it is installed and the output is a terminal."""
        if sys.stdout.isatty():
            try:
                import rich
            except ImportError:
                pass
            else:
                rich.print(self)
                return
        print(self)

    def __str__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        return self.html()

    def __rich__(self) -> Any:
        """Return the table as rich draws it, in the width of its console."""
        from rich.console import Group
        from rich.markup import escape
        from rich.table import Table as RichTable
        from rich.text import Text

        has_heads = any(column.head for column in self.columns)
        drawn = RichTable(
            title=escape(self.title) or None, title_justify="left", show_header=has_heads, box=None
        )
        for column in self.columns:
            overflow: Literal["fold", "ellipsis"] = "fold" if column.shorten else "ellipsis"
            justify: Literal["left", "right"] = "right" if column.align == "right" else "left"
            drawn.add_column(
                escape(column.head), justify=justify, overflow=overflow, header_style="bold",
                no_wrap=not column.shorten,
            )  # fmt: skip
        for row in self._texts()[1:]:
            drawn.add_row(*(Text(cell) for cell in row))
        return Group(drawn, *(Text(line) for line in self.footer))

    def _texts(self) -> list[list[str]]:
        """Return the heads and all cells as texts of one line."""
        rows = [
            [column.text(cell) for column, cell in zip(self.columns, row, strict=True)]
            for row in self.rows
        ]
        return [[column.head for column in self.columns], *rows]

    def _shortened(self, cells: list[list[str]], width: int) -> list[list[str]]:
        """Return the cells, those of the widest columns cut until the lines fit."""
        widths = _widths(cells)

        def room(index: int) -> int:
            return widths[index] - self.columns[index].least if self.columns[index].shorten else 0

        while sum(widths) + len(_GAP) * (len(widths) - 1) > width:
            widest = max(range(len(widths)), key=room)
            if room(widest) <= 0:
                break
            widths[widest] -= 1
        return [
            [
                shortened(cell, size, column.shorten or "end")
                for column, cell, size in zip(self.columns, row, widths, strict=True)
            ]
            for row in cells
        ]

    def _html_of_row(self, row: Sequence[Any]) -> str:
        first, *others = zip(self.columns, row, strict=True)
        cells = [f'<th scope="row"{_class(first[0])}>{first[0].html(first[1])}</th>']
        for column, cell in others:
            is_long = column.shorten == "end" and len(column.text(cell)) > _LONG
            cells.append(f"<td{_class(column, is_long)}>{column.html(cell)}</td>")
        return f"<tr>{''.join(cells)}</tr>"


def shortened(text: str, size: int, part: str = "end") -> str:
    """Return a text of at most `size` characters, with an ellipsis for the part that is cut.

    >>> shortened("block_1/conv/kernel", 12, "start"), shortened("every kernel", 8)
    ('…conv/kernel', 'every k…')
    """
    if len(text) <= size:
        return text
    return f"…{text[len(text) - size + 1 :]}" if part == "start" else f"{text[: size - 1]}…"


def bars_as_text(shares: Sequence[float]) -> str:
    """Return shares as blocks of a text, relative to the largest; 0 is a dot.

    >>> bars_as_text([0.5, 0.25, 0, 0.25])
    '█▄·▄'
    """
    heights = _relative(shares, _MOST_BLOCKS)
    return "".join(
        _BLOCKS[max(round(height * len(_BLOCKS)), 1) - 1] if height else "·" for height in heights
    )


def bars_as_svg(shares: Sequence[float]) -> str:
    """Return shares as a small picture for HTML, with a text for those who do not see it."""
    heights, width, height = _relative(shares, _MOST_BARS), 7, 18
    words = "shares " + ", ".join(f"{100 * share:.3g} %" for share in shares[:_MOST_BARS])
    words += " …" if len(shares) > _MOST_BARS else ""
    bars = ""
    for index, part in enumerate(heights):
        tall, opacity = max(height * part, 1), 1 if part else 0.35
        bars += f'<rect x="{width * index}" y="{height - tall:.4g}" width="{width - 1}" '
        bars += f'height="{tall:.4g}" opacity="{opacity}"/>'
    return (
        f'<svg role="img" aria-label="{words}" width="{width * len(heights)}" height="{height}">'
        f"<title>{words}</title>{bars}</svg>"
    )


def frame(columns: dict[str, Sequence[Any]]) -> Any:
    """Return a `pandas.DataFrame` of columns.

    Raises:
        ImportError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise ImportError(
            "pandas is not installed. Expected it for to_frame. Run "
            "pip install 'quantal[command]', or use to_dict."
        ) from error
    return pandas.DataFrame(columns)


def _relative(shares: Sequence[float], most: int) -> list[float]:
    """Return shares relative to the largest; neighbours are added up where they are many."""
    size = -(-len(shares) // most)
    sums = [float(sum(shares[start : start + size])) for start in range(0, len(shares), size or 1)]
    largest = max(sums, default=0.0)
    return [share / largest if largest else 0.0 for share in sums]


def _widths(cells: list[list[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*cells, strict=True)]


def _class(column: Column, is_long: bool = False) -> str:
    if column.align == "right":
        return ' class="right"'
    return ' class="long"' if is_long else ""
