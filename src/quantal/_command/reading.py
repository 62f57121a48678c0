"""Read a table: from a file of text, Parquet or NPZ, from standard input, or a shipped data set."""

import bz2
import csv
import gzip
import io
import lzma
import pathlib
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas
import sklearn.datasets
from numpy.typing import NDArray

from quantal._command.errors import Unreadable

SHIPPED: dict[str, Callable[..., Any]] = {
    "digits": sklearn.datasets.load_digits,
    "breast-cancer": sklearn.datasets.load_breast_cancer,
    "wine": sklearn.datasets.load_wine,
    "diabetes": sklearn.datasets.load_diabetes,
}
STANDARD_INPUT = "-"
SEPARATORS = (",", ";", "\t", "|")
_TEXTS = (".csv", ".tsv", ".tab", ".txt")
_UNPACKERS: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_BYTE_ORDER_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
_HEAD = 50
"""The separator and the decimal mark are looked for in so many lines."""
_MISSING = ["?", "-", "--"]
"""Entries that stand for a missing one, beside those that pandas knows (empty, NA, NULL, nan)."""


class Dialect(NamedTuple):
    """A dialect says how a text separates entries and writes decimals."""

    separator: str
    decimal: str


def read(source: str, as_text: Sequence[str] = ()) -> pandas.DataFrame | dict[str, NDArray[Any]]:
    """Return a table, or the arrays of an NPZ file by their names.

    Args:
        source: A path; "-" for a text on standard input; or a name in `SHIPPED`.
        as_text: Columns whose entries stay as they are written, such as postal codes.

    Raises:
        Unreadable: There is no such file, or it is not what its ending says.
    """
    if source in SHIPPED:
        return SHIPPED[source](as_frame=True).frame
    path = pathlib.Path(source)
    reader = _reader_of(path)
    if source != STANDARD_INPUT and (reader is None or not path.is_file()):
        raise Unreadable(
            f"{source!r} is neither a data set nor a file. Expected one of {', '.join(SHIPPED)}, "
            f"or a path that ends in {', '.join([*_TEXTS, '.parquet', '.npz'])}, from the folder "
            f"{pathlib.Path.cwd()}; text also packed as {', '.join(_UNPACKERS)}; - for a text on "
            "standard input."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # pandas and NumPy warn of some damage, and read on.
            if source == STANDARD_INPUT:
                return _table_of_text(sys.stdin.buffer.read(), as_text)
            return reader(path, as_text) if reader is not None else {}
    except ImportError:
        raise
    # Which exceptions a damaged file brings forth is up to three other libraries.
    except Exception as error:
        raise Unreadable(
            f"{source} cannot be read: {type(error).__name__}: {error}. Expected a sound file: "
            "a text with a header and the same number of entries in each line, separated by "
            "commas, semicolons, tabs or bars; Parquet; or NPZ without Python objects."
        ) from error


def _reader_of(path: pathlib.Path) -> Callable[[pathlib.Path, Sequence[str]], Any] | None:
    """Return what reads a file of this ending; None where nothing does."""
    ending = path.suffix.lower()
    if ending in _UNPACKERS and path.with_suffix("").suffix.lower() in _TEXTS:
        return lambda path, as_text: _table_of_text(_UNPACKERS[ending](path).read(), as_text)
    if ending in _TEXTS:
        return lambda path, as_text: _table_of_text(path.read_bytes(), as_text)
    return {
        ".parquet": lambda path, _: pandas.read_parquet(path),
        ".npz": lambda path, _: _read_npz(path),
    }.get(ending)


def _read_npz(path: pathlib.Path) -> dict[str, NDArray[Any]]:
    # Opened here, for NumPy leaves a damaged file open.
    with path.open("rb") as stream:
        return dict(np.load(stream, allow_pickle=False))


def _table_of_text(content: bytes, as_text: Sequence[str]) -> pandas.DataFrame:
    """Return the table that a text holds, whatever its separator and decimal mark."""
    text = _decoded(content)
    if len(text.splitlines()) < 2 and not text.endswith(("\n", "\r")):
        raise ValueError("it has no line of a header and no rows")
    dialect = dialect_of(text)
    return pandas.read_csv(
        io.StringIO(text),
        sep=dialect.separator,
        decimal=dialect.decimal,
        low_memory=False,
        index_col=False,
        skipinitialspace=True,
        na_values=_MISSING,
        dtype=dict.fromkeys(as_text, str),
    )


def _decoded(content: bytes) -> str:
    """Return bytes as text: by their mark, in UTF-8, or else as Windows writes it in Europe."""
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if content.startswith(mark):
            return content.decode(encoding)
    if b"\0" in content:
        raise ValueError("it holds bytes of zero, so it is no text")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("cp1252")


def dialect_of(text: str) -> Dialect:
    r"""Return how a text separates entries and writes decimals, from its first lines.

    The separator is the one that splits every line into the same number of entries, the
    largest such number. A decimal comma needs another separator.

    >>> dialect_of("a;b\n1,5;2\n3,25;4\n")
    Dialect(separator=';', decimal=',')
    """
    lines = [line for line in text.splitlines()[:_HEAD] if line.strip()]
    best, rows, most = SEPARATORS[0], [], 1
    for separator in SEPARATORS:
        split = list(csv.reader(lines, delimiter=separator, skipinitialspace=True))
        widths = {len(row) for row in split}
        if len(widths) == 1 and max(widths) > most:
            best, rows, most = separator, split, max(widths)
    return Dialect(best, "," if best != "," and _has_decimal_commas(rows) else ".")


def _has_decimal_commas(rows: Sequence[Sequence[str]]) -> bool:
    entries = [entry.strip() for row in rows for entry in row]
    with_comma = any(re.fullmatch(r"[+-]?\d*,\d+", entry) for entry in entries)
    return with_comma and not any(re.fullmatch(r"[+-]?\d*\.\d+", entry) for entry in entries)
