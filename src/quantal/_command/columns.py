"""The columns of a table: each becomes numbers of a row, and features of these.

A column is described by plain data, so that the description travels in a model's file.
"""

import abc
import dataclasses
import zlib
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pandas
from numpy.typing import NDArray

from quantal._command.errors import Unfit
from quantal._models.feature_plan import Feature

MOST_VALUES = 32
"""So many values of a category, the most frequent ones, have a feature each."""
BUCKETS = 16
"""The other values share so many features, by a checksum of their text."""
MOSTLY = 0.9
"""A column with such a share of numbers is one of numbers, and its words are damage."""
_LARGEST = float(np.finfo(np.float32).max)
_DATES = (
    "ISO8601",
    "%d.%m.%Y",
    "%d.%m.%Y %H:%M",
    "%d.%m.%Y %H:%M:%S",
    "%m/%d/%Y",
    "%d/%m/%Y",
    "%m/%d/%Y %H:%M",
    "%d/%m/%Y %H:%M",
    "%Y/%m/%d",
    "%Y/%m/%d %H:%M",
    "%d-%m-%Y",
    "%d %b %Y",
    "%b %d, %Y",
    "%d %B %Y",
    "%B %d, %Y",
)
"""Formats of dates in the order of trials: an ambiguous date has the month first."""
_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_PARTS: dict[str, Callable[[Any], Any]] = {
    "month": lambda dates: dates.dt.month,
    "weekday": lambda dates: dates.dt.day_name().str[:3],
    "hour": lambda dates: dates.dt.hour,
}
_TRUTHS = {"true": 1.0, "false": 0.0}


@dataclasses.dataclass(frozen=True)
class Column(abc.ABC):
    """A column says how its entries become numbers, and the numbers features.

    Attributes:
        name: The column's name in the table.
        gaps: Whether entries were missing where the column was learned.
    """

    kind: ClassVar[str]
    name: str
    gaps: bool

    @abc.abstractmethod
    def numbers(self, source: str, entries: pandas.Series) -> list[NDArray[np.float64]]:
        """Return the numbers of each row, NaN where one is missing.

        Args:
            source: The table's name, for messages.
            entries: The column.

        Raises:
            Unfit: An entry is no such one.
        """

    @abc.abstractmethod
    def features(self, first: int) -> list[Feature]:
        """Return the features of the numbers that begin at a position of a row."""

    def remarks(self, entries: pandas.Series) -> list[str]:
        """Return what is to say of entries of a new table."""
        count = int(entries.isna().sum())
        if not count or self.gaps:
            return []
        rows = "1 row" if count == 1 else f"{count} rows"
        return [f"{self.name} is missing in {rows}, and never was in training"]

    def to_dict(self) -> dict[str, Any]:
        """Return the column as data that JSON can hold."""
        return {"kind": self.kind, **dataclasses.asdict(self)}


@dataclasses.dataclass(frozen=True)
class NumberColumn(Column):
    """A column of numbers or truth values.

    Attributes:
        fill: What stands for a missing number: the median.
    """

    kind = "number"
    fill: float

    @classmethod
    def learned(cls, source: str, entries: pandas.Series) -> "NumberColumn":
        """Return the column of these entries."""
        numbers = finite_numbers(source, entries)
        return cls(str(entries.name), bool(np.isnan(numbers).any()), float(np.nanmedian(numbers)))

    def numbers(self, source: str, entries: pandas.Series) -> list[NDArray[np.float64]]:
        numbers = finite_numbers(source, entries)
        return [numbers if self.gaps else np.nan_to_num(numbers, nan=self.fill)]

    def features(self, first: int) -> list[Feature]:
        features = [Feature(first, "number", self.fill if self.gaps else 0.0, self.name)]
        return features + _gap_feature(self, first)


@dataclasses.dataclass(frozen=True)
class CategoryColumn(Column):
    """A column of words.

    Attributes:
        values: The words that have a feature each.
        buckets: How many features the other words share; 0 where training had no others.
    """

    kind = "category"
    values: tuple[str, ...]
    buckets: int

    @classmethod
    def learned(cls, source: str, entries: pandas.Series) -> "CategoryColumn":
        """Return the column of these entries."""
        counts = _words(entries).value_counts()
        # By frequency, then by the alphabet: the same table gives the same column.
        ranked = sorted(counts.index, key=lambda word: (-counts[word], word))
        gaps = bool(entries.isna().any())
        buckets = BUCKETS if len(ranked) > MOST_VALUES else 0
        return cls(str(entries.name), gaps, tuple(sorted(ranked[:MOST_VALUES])), buckets)

    def numbers(self, source: str, entries: pandas.Series) -> list[NDArray[np.float64]]:
        codes = {word: float(code) for code, word in enumerate(self.values, 1)}
        words = _words(entries)
        numbers = words.map(lambda word: codes.get(word, self._bucket(word)))
        return [numbers.reindex(entries.index).to_numpy(np.float64, na_value=np.nan)]

    def _bucket(self, word: str) -> float:
        """Return the code of a word without a feature of its own; 0 stands for none."""
        if not self.buckets:
            return 0.0
        return 1.0 + len(self.values) + zlib.crc32(word.encode()) % self.buckets

    def features(self, first: int) -> list[Feature]:
        names = [*self.values, *(f"others {index + 1}" for index in range(self.buckets))]
        features = [
            Feature(first, "equal", float(code), f"{self.name}={name}")
            for code, name in enumerate(names, 1)
        ]
        # Of two values without gaps one feature says all.
        return (features[1:] if len(features) == 2 and not self.gaps else features) + _gap_feature(
            self, first
        )

    def remarks(self, entries: pandas.Series) -> list[str]:
        unknown = sorted(set(_words(entries)) - set(self.values)) if not self.buckets else []
        if not unknown:
            return super().remarks(entries)
        listed = ", ".join(map(repr, unknown[:5])) + (", …" if len(unknown) > 5 else "")
        return [
            *super().remarks(entries),
            f"{self.name} holds {listed}, which was never in training: it counts as no value there",
        ]


@dataclasses.dataclass(frozen=True)
class DateColumn(Column):
    """A column of dates: its days are a number; month, weekday and hour are categories.

    Attributes:
        format: How the dates are written, as pandas names it; "" for those that are dates already.
        fill: What stands for a missing date, in days since 1970: the median.
        parts: The values of month, weekday and hour that training had, where it had several.
    """

    kind = "date"
    format: str
    fill: float
    parts: dict[str, tuple[str, ...]]

    @classmethod
    def learned(cls, source: str, entries: pandas.Series, format: str) -> "DateColumn":
        """Return the column of these entries."""
        dates = _dates(entries, format)
        parts = {}
        for part, values_of in _PARTS.items():
            values = tuple(sorted(set(values_of(dates.dropna()).astype(str)), key=_rank))
            if len(values) > 1:
                parts[part] = values
        gaps = bool(dates.isna().any())
        return cls(str(entries.name), gaps, format, float(_days(dates.dropna()).median()), parts)

    def numbers(self, source: str, entries: pandas.Series) -> list[NDArray[np.float64]]:
        dates = _dates(entries, self._format_of(entries))
        unread = np.flatnonzero(dates.isna() & entries.notna())
        if unread.size:
            raise Unfit(
                f"The column {self.name!r} of {source} holds {str(entries.iloc[unread[0]])!r} in "
                f"row {unread[0] + 1}, and {unread.size} such entries in all. Expected dates as in "
                f"training{f', written like {_example(self.format)}' if self.format else ''}, or "
                "all in one other format that leaves no doubt. Write them in one of the two."
            )
        days = _days(dates).to_numpy(np.float64, na_value=np.nan)
        numbers = [days if self.gaps else np.nan_to_num(days, nan=self.fill)]
        for part, column in self._categories().items():
            values = _PARTS[part](dates.dropna()).astype(str)
            numbers += column.numbers(source, values.reindex(entries.index))
        return numbers

    def _format_of(self, entries: pandas.Series) -> str:
        """Return training's format, or another that all entries have and that leaves no doubt."""
        if not self.format or _all_read(entries, _dates(entries, self.format)):
            return self.format
        readings = {format: _dates(entries, format) for format in _DATES if format != self.format}
        readings = {f: dates for f, dates in readings.items() if _all_read(entries, dates)}
        first = next(iter(readings), self.format)
        agree = all(dates.equals(readings[first]) for dates in readings.values())
        return first if agree else self.format

    def remarks(self, entries: pandas.Series) -> list[str]:
        format = self._format_of(entries)
        if format == self.format:
            return super().remarks(entries)
        return [
            *super().remarks(entries),
            f"{self.name} is written like {_example(format)}, and in training like "
            f"{_example(self.format)}: read so",
        ]

    def _categories(self) -> dict[str, CategoryColumn]:
        return {
            part: CategoryColumn(f"{self.name}.{part}", False, tuple(values), 0)
            for part, values in self.parts.items()
        }

    def features(self, first: int) -> list[Feature]:
        fill = self.fill if self.gaps else 0.0
        features = [Feature(first, "number", fill, f"{self.name}.days"), *_gap_feature(self, first)]
        for position, column in enumerate(self._categories().values(), first + 1):
            features += column.features(position)
        return features


def column_from(data: dict[str, Any]) -> Column:
    """Return the column that `Column.to_dict` described."""
    kinds: dict[str, Any] = {kind.kind: kind for kind in (NumberColumn, CategoryColumn, DateColumn)}
    fields = {name: entry for name, entry in data.items() if name != "kind"}
    if isinstance(fields.get("values"), list):
        fields["values"] = tuple(fields["values"])
    return kinds[data["kind"]](**fields)


def learn_column(source: str, entries: pandas.Series, rows: NDArray[np.intp]) -> Column:
    """Return a column of the kind that all entries have, learned from some rows.

    Args:
        source: The table's name, for messages.
        entries: The whole column; some entry is there.
        rows: The positions of the rows to learn medians and words from.

    Raises:
        Unfit: Most entries are numbers and some are words, or a number is infinite.
    """
    part = entries.iloc[rows]
    if part.isna().all():
        part = entries
    if pandas.api.types.is_datetime64_any_dtype(entries):
        return DateColumn.learned(source, part, "")
    if is_number_like(entries):
        finite_numbers(source, entries)
        return NumberColumn.learned(source, part)
    format = date_format(entries)
    if format is not None:
        return DateColumn.learned(source, part, format)
    return CategoryColumn.learned(source, part)


def is_number_like(entries: pandas.Series) -> bool:
    """Return whether the entries are numbers, or most of them are: then words are damage."""
    if is_numeric(entries) or pandas.api.types.is_complex_dtype(entries):
        return True
    return bool(np.mean(~np.isnan(parsed(entries.dropna()))) >= MOSTLY)


def date_format(entries: pandas.Series) -> str | None:
    """Return the format in which all entries that are there are dates; None where there is none."""
    words = _words(entries)
    if not words.str.contains(r"\d").all():
        return None
    for format in _DATES:
        if not pandas.to_datetime(words, format=format, errors="coerce", utc=True).isna().any():
            return format
    return None


def is_numeric(column: pandas.Series) -> bool:
    """Return whether the column's type is one of real numbers or truth values."""
    # Nullable and Arrow types have no NumPy kind of their own; complex ones are no numbers.
    return bool(pandas.api.types.is_numeric_dtype(column)) and not (
        pandas.api.types.is_complex_dtype(column)
    )


def parsed(column: pandas.Series) -> NDArray[np.float64]:
    """Return the column as float64, NaN where it is missing or no number."""
    if not is_numeric(column):
        words = column.astype(str).str.strip()
        truths = words.str.lower().map(_TRUTHS)
        column = pandas.to_numeric(words, errors="coerce").fillna(truths)
    return np.asarray(column.to_numpy(np.float64, na_value=np.nan))


def finite_numbers(source: str, column: pandas.Series) -> NDArray[np.float64]:
    """Return the column as numbers that float32 holds, NaN where missing; refuse others."""
    numbers = parsed(column)
    bad = np.flatnonzero(~(np.abs(numbers) <= _LARGEST) & column.notna().to_numpy())
    if bad.size:
        raise Unfit(
            f"The column {column.name!r} of {source} holds {str(column.iloc[bad[0]])!r} in row "
            f"{bad[0] + 1}, and {bad.size} such entries in all. Expected finite numbers up to "
            f"{_LARGEST:.2g}. Drop those rows, or the column with --drop, or write words as "
            "numbers."
        )
    return numbers


def _gap_feature(column: Column, first: int) -> list[Feature]:
    return [Feature(first, "missing", 0.0, f"{column.name} is missing")] if column.gaps else []


def _words(entries: pandas.Series) -> pandas.Series:
    """Return the entries that are there as words without spaces around."""
    return entries.dropna().astype(str).str.strip()


def _dates(entries: pandas.Series, format: str) -> pandas.Series:
    """Return dates without a time zone, missing where an entry is none."""
    if not format:
        return pandas.to_datetime(entries, errors="coerce", utc=True).dt.tz_localize(None)
    words = entries.astype(object).where(entries.notna(), None)
    dates = pandas.to_datetime(words, format=format, errors="coerce", utc=True)
    return dates.dt.tz_localize(None)


def _all_read(entries: pandas.Series, dates: pandas.Series) -> bool:
    """Return whether each entry that is there became a date."""
    return not bool((dates.isna() & entries.notna()).any())


def _example(format: str) -> str:
    """Return a date in a format, of a day that no month has the number of."""
    day = pandas.Timestamp(2020, 12, 31)
    return day.strftime("%Y-%m-%d" if format == "ISO8601" else format)


def _rank(part: str) -> int:
    """Return where a month, weekday or hour stands among others."""
    return _WEEKDAYS.index(part) if part in _WEEKDAYS else int(part)


def _days(dates: pandas.Series) -> pandas.Series:
    return (dates - pandas.Timestamp(0)) / pandas.Timedelta(days=1)
