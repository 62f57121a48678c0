"""An encoding turns a table into rows of numbers, the same in training and ever after."""

import dataclasses
import re
from collections.abc import Collection
from typing import Any, Self

import numpy as np
import pandas
from numpy.typing import NDArray

from quantal._command.columns import (
    MOST_VALUES,
    CategoryColumn,
    Column,
    column_from,
    date_format,
    is_number_like,
    is_numeric,
    learn_column,
)
from quantal._command.errors import Unfit
from quantal._models.feature_plan import FeaturePlan

VERSION = 1
"""The version of the description that a model's file has."""
_INDEX_NAME = re.compile(r"(Unnamed: ?\d+|index|level_\d+|)", re.IGNORECASE)
"""How pandas and R call the column of row numbers."""
_IDENTIFIER_NAME = re.compile(
    r"(.*[_\W])?(id|ids|uuid|guid|key|nr|no)|.*[a-z](Id|ID)", re.IGNORECASE
)
_FEWEST_FOR_IDENTIFIERS = 20
"""In so few rows, entries that are all different may be measurements or words."""


@dataclasses.dataclass(frozen=True)
class TableEncoding:
    """An encoding has the columns of a table, and what is predicted from them.

    Attributes:
        columns: The columns, in the order of the numbers in a row.
        target: The name of the column that is predicted.
        classes: The classes in the order of the model's outputs; None for a number.
    """

    columns: tuple[Column, ...]
    target: str
    classes: tuple[Any, ...] | None

    @property
    def plan(self) -> FeaturePlan:
        """How numbers become features."""
        features, width = [], 0
        for column in self.columns:
            added = column.features(width)
            features += added
            width += 1 + len(getattr(column, "parts", ()))
        return FeaturePlan(tuple(features), width)

    @property
    def names_of_words(self) -> list[str]:
        """The columns whose entries are words, which no reader is to take for numbers."""
        return [column.name for column in self.columns if isinstance(column, CategoryColumn)]

    def encode(self, source: str, table: pandas.DataFrame) -> NDArray[np.float32]:
        """Return the numbers of each row, float32 (rows, numbers), NaN where one is missing.

        Args:
            source: The table's name, for messages.
            table: A table with these columns, in any order, and maybe others.

        Raises:
            Unfit: A column is not there, or an entry is none of its kind.
        """
        absent = [column.name for column in self.columns if column.name not in table]
        if absent:
            raise Unfit(
                f"{source} has no column {', '.join(map(repr, absent))}. It has "
                f"{', '.join(map(str, table.columns))}. Expected all columns that the model was "
                f"trained on: {', '.join(column.name for column in self.columns)}."
            )
        numbers = [
            rows for column in self.columns for rows in column.numbers(source, table[column.name])
        ]
        return np.stack(numbers, axis=1).astype(np.float32)

    def remarks(self, table: pandas.DataFrame) -> list[str]:
        """Return what is to say of a new table: words and gaps that training never had."""
        names = {column.name for column in self.columns} | {self.target}
        extra = [str(name) for name in table.columns if name not in names]
        said = [f"not used: {', '.join(extra)}"] if extra else []
        return said + [
            remark for column in self.columns for remark in column.remarks(table[column.name])
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return the encoding as data that JSON can hold."""
        return {
            "version": VERSION,
            "columns": [column.to_dict() for column in self.columns],
            "target": self.target,
            "classes": None if self.classes is None else list(self.classes),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Return the encoding that `to_dict` described.

        Raises:
            Unfit: It is of another version.
        """
        if data.get("version") != VERSION:
            raise Unfit(
                f"The model's table is described in version {data.get('version')!r}. Expected "
                f"{VERSION}. Train the model again, or use the quantal that trained it."
            )
        columns = tuple(map(column_from, data["columns"]))
        classes = None if data["classes"] is None else tuple(data["classes"])
        return cls(columns, data["target"], classes)


def useful_columns(
    source: str, table: pandas.DataFrame, keep: Collection[str]
) -> tuple[pandas.DataFrame, list[str]]:
    """Return the table without columns that cannot help, and what is to say of them.

    Args:
        source: The table's name, for messages.
        table: The features.
        keep: Columns that stay, whatever they look like.
    """
    reasons = {
        str(name): reason
        for name, column in table.items()
        if name not in keep and (reason := _why_useless(column))
    }
    remarks = [f"{name or 'the first column'} {why}: dropped" for name, why in reasons.items()]
    if len(reasons) == len(table.columns):
        first, why = next(iter(reasons.items()))
        value = repr(str(table[first].iloc[0]))
        raise Unfit(
            f"No column of {source} is left to predict from: the column {first!r} of {source} "
            f"{why} (it holds {value} in row 1). Expected a column that tells rows apart. Name "
            "one to keep with --keep."
        )
    return table.drop(columns=list(reasons)), remarks


def learn_columns(
    source: str, table: pandas.DataFrame, rows: NDArray[np.intp]
) -> tuple[Column, ...]:
    """Return the columns of a table, learned from some of its rows."""
    return tuple(learn_column(source, column, rows) for _, column in table.items())


def _why_useless(column: pandas.Series) -> str:
    """Return why a column cannot help to predict; empty where it may."""
    if column.isna().all():
        return "is missing in every row"
    if is_number_like(column):
        return _why_row_number(column)
    if pandas.api.types.is_datetime64_any_dtype(column):
        return ""
    words = column.dropna().astype(str)
    different = words.nunique()
    if different == 1 and len(words) == len(column):
        return "is the same in every row"
    is_name = different == len(words) >= _FEWEST_FOR_IDENTIFIERS
    is_free = is_name or different > max(MOST_VALUES, len(words) / 2)
    if is_free and date_format(column) is None:
        return f"has {different} different texts in {len(words)} rows, as names or free text do"
    return ""


def _why_row_number(column: pandas.Series) -> str:
    """Return why numbers only count or name rows; empty where they do not."""
    if not is_numeric(column) or pandas.api.types.is_bool_dtype(column) or column.isna().any():
        return ""
    numbers = column.to_numpy(np.float64)
    if len(numbers) < 2 or len(np.unique(numbers)) < len(numbers):
        return ""
    if np.any(numbers != np.floor(numbers)) or np.isinf(numbers).any():
        return ""
    steps = np.diff(numbers)
    name = str(column.name)
    if (np.all(steps == 1) and numbers[0] in (0, 1)) or _INDEX_NAME.fullmatch(name):
        return "counts the rows"
    if len(numbers) >= _FEWEST_FOR_IDENTIFIERS and _IDENTIFIER_NAME.fullmatch(name):
        return "is a number of its own in every row, as identifiers are"
    return ""
