"""Tables with a target: read, encoded as numbers, and split by scikit-learn.

Rows count from 1, the first one below a header. Nothing here knows Keras.
"""

import dataclasses
import difflib
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

import numpy as np
import pandas
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from quantal._command.columns import finite_numbers, is_numeric, parsed
from quantal._command.encoding import TableEncoding, learn_columns, useful_columns
from quantal._command.errors import Unfit
from quantal._command.reading import SHIPPED, read

FEWEST_ROWS = 10
MOST_CLASSES = 20
"""Whole numbers of at most so many different values are taken for classes."""
HELD_OUT = 0.2


class Wanted(NamedTuple):
    """What is wanted of a table says what to predict, from which columns, and how to split.

    Attributes:
        target: The target's column (of an NPZ file: its array). None: a table's last
            column, an NPZ file's `y`.
        task: "classification", "regression" or "auto": classification where the target
            is text, boolean, or whole numbers of at most 20 different values.
        seed: Decides which rows are held out; of each class alike.
        drop: Columns to leave out.
        keep: Columns to keep that look like row numbers, identifiers or free text.
        held_out: The share of the rows that is held out.
    """

    target: str | None = None
    task: str = "auto"
    seed: int = 0
    drop: Collection[str] = ()
    keep: Collection[str] = ()
    held_out: float = HELD_OUT


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set has rows of numbers and a target, and some of the rows held out.

    Attributes:
        name: The file or the data set that it was read from.
        encoding: How the table became these numbers.
        features: float32, shape (rows, numbers); NaN where a number is missing.
        target: Classes as integers from 0, or float64 for regression; shape (rows,).
        labels: The names of the classes in the data, sorted; None for regression.
        training: Positions of the rows to train on, integers from 0.
        held_out: Positions of the other rows, ascending.
        feature_scaler: The scaling of what `expanded` returns, from the training rows.
        target_scaler: The scaling of the target; None for classification.
        remarks: What is to say of columns that were dropped.
    """

    name: str
    encoding: TableEncoding
    features: NDArray[np.float32]
    target: NDArray[Any]
    labels: NDArray[Any] | None
    training: NDArray[np.intp]
    held_out: NDArray[np.intp]
    feature_scaler: StandardScaler
    target_scaler: StandardScaler | None
    remarks: tuple[str, ...] = ()

    @property
    def outputs(self) -> int:
        """A model gives so many numbers for a row: one for each class, or one."""
        return 1 if self.labels is None else len(self.labels)

    @property
    def width(self) -> int:
        """The count of features that a model gets: of numbers, gaps and words."""
        return len(self.encoding.plan.features)

    def expanded(self, rows: NDArray[np.intp]) -> NDArray[np.float64]:
        """Return the features of some rows, shape (rows, width), not scaled."""
        features: NDArray[Any] = self.encoding.plan.expand(self.features[rows])
        return features.astype(np.float64)

    def __str__(self) -> str:
        """Name the task and the sizes."""
        task = "regression" if self.labels is None else "classification"
        columns, classes = len(self.encoding.columns), ""
        if self.labels is not None:
            classes = f", {len(self.labels)} classes"
        features = f"{self.width} features"
        if self.width != columns:
            features += f" of {columns} columns"
        return f"{self.name}: {task}, {len(self.features)} rows, {features}{classes}"

    def names_of(self, predictions: NDArray[Any]) -> NDArray[Any]:
        """Return classes by their names in the data; numbers as they are."""
        return predictions if self.labels is None else self.labels[predictions]


def read_dataset(source: str, wanted: Wanted | None = None) -> Dataset:
    """Read a table, take its target, turn the rest into numbers, and hold rows out.

    Args:
        source: What `reading.read` takes.
        wanted: What to predict, from which columns, and how to split.

    Raises:
        Unreadable: There is no such file, or it is not what its ending says.
        Unfit: Its contents cannot be trained on.
    """
    wanted = wanted or Wanted()
    content = read(source)
    try:
        table, target_column = _parts(content, wanted)
    except (KeyError, ValueError) as error:
        names = content if isinstance(content, dict) else content.columns
        reason = f"it has no array {error}" if isinstance(error, KeyError) else str(error)
        raise Unfit(
            f"{source} does not fit: {reason.rstrip('.')}. It has "
            f"{', '.join(map(str, names))}. Expected a table with a header and the target's "
            "column; or arrays x (rows, features) and y (rows,)."
        ) from error
    rows, columns = table.shape
    if rows < FEWEST_ROWS or columns < 1:
        raise Unfit(
            f"{source} has {rows} rows and {columns} columns of features. Expected at least "
            f"{FEWEST_ROWS} and 1: a header above the rows, and the target's column."
        )
    remarks: list[str] = []
    if isinstance(content, dict):
        _check_numbers(source, table)
    if source not in SHIPPED:
        table, remarks = useful_columns(source, table, wanted.keep)
    return _encoded(source, table, target_column, wanted, remarks)


def _encoded(
    source: str,
    table: pandas.DataFrame,
    target_column: pandas.Series,
    wanted: Wanted,
    remarks: list[str],
) -> Dataset:
    """Return the data set of features and a target; medians and words are the training rows'."""
    numbers, labels = _target(source, target_column, wanted.task)
    training, held_out = _split(source, numbers, labels is not None, wanted)
    classes = None if labels is None else tuple(labels.tolist())
    columns = learn_columns(source, table, training)
    encoding = TableEncoding(columns, str(target_column.name), classes)
    features = encoding.encode(source, table)
    expanded = encoding.plan.expand(features[training]).astype(np.float64)
    return Dataset(
        name=source,
        encoding=encoding,
        features=features,
        target=numbers,
        labels=labels,
        training=training,
        held_out=held_out,
        feature_scaler=StandardScaler().fit(expanded),
        target_scaler=StandardScaler().fit(numbers[training, None]) if labels is None else None,
        remarks=tuple(remarks),
    )


def _check_numbers(source: str, table: pandas.DataFrame) -> None:
    """Refuse words in arrays, which have no columns of their own kinds."""
    for _, column in table.items():
        finite_numbers(source, column)


def _parts(content: Any, wanted: Wanted) -> tuple[pandas.DataFrame, pandas.Series]:
    """Return the features and the target.

    Raises:
        KeyError: There is no such array.
        ValueError: There is no such column, the arrays have other shapes, or a table has no
            header.
    """
    if isinstance(content, dict):
        name = wanted.target or "y"
        table = pandas.DataFrame(content["x"]).add_prefix("x")
        target = pandas.Series(content[name], index=table.index, name=name)
        return table.drop(columns=list(wanted.drop)), target
    table = content.set_axis([str(name) for name in content.columns], axis="columns")
    numbers = pandas.to_numeric(pandas.Series(table.columns), errors="coerce")
    # Positions are what pandas writes for a table without names: those are a header.
    if numbers.notna().all() and set(np.diff(numbers)) - {1.0}:
        raise ValueError("the first line holds numbers only; put a header above it")
    asked = [*wanted.drop, *wanted.keep, *([wanted.target] if wanted.target else [])]
    for name in asked:
        if name not in table:
            raise ValueError(f"it has no column {name!r}{_like(name, table.columns)}")
    table = table.drop(columns=list(wanted.drop)).reset_index(drop=True)
    for name in asked[len(wanted.drop) :]:
        if name not in table:
            raise ValueError(f"the column {name!r} is wanted, and dropped")
    name = wanted.target or str(table.columns[-1])
    return table.drop(columns=name), table[name]


def _like(name: str, names: Iterable[str]) -> str:
    """Return which name one may have meant; empty where none is near."""
    of_lower = {other.lower(): other for other in names}
    near = difflib.get_close_matches(name.lower(), of_lower, 1)
    return f"; {of_lower[near[0]]!r} is near" if near else ""


def _split(
    source: str, target: NDArray[Any], is_classes: bool, wanted: Wanted
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the positions of rows to train on, and of those held out, ascending."""
    rows, classes = np.arange(len(target)), target if is_classes else None
    try:
        training, held_out = train_test_split(
            rows, test_size=wanted.held_out, random_state=wanted.seed, stratify=classes
        )
    except ValueError as error:
        share = "A fifth" if wanted.held_out == HELD_OUT else f"{wanted.held_out:.0%}"
        raise Unfit(
            f"{share} of {source} cannot be held out: {error} Give more rows of each class, or "
            "--task regression for a target of numbers."
        ) from error
    return training, np.sort(held_out)


def _target(
    source: str, column: pandas.Series, task: str
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Return (classes or numbers, labels or None)."""
    missing = np.flatnonzero(column.isna())
    if missing.size:
        raise Unfit(
            f"The target {column.name!r} of {source} is missing in row {missing[0] + 1}, and in "
            f"{missing.size} rows in all. Expected a target in every row. Drop those rows."
        )
    is_text = not is_numeric(column)
    numbers = parsed(column)
    # Mostly numbers and a few words is a damaged column rather than classes.
    if is_text and task == "auto" and np.mean(~np.isnan(numbers)) >= 0.5:
        is_text, task = False, "regression" if np.isnan(numbers).any() else task
    if task == "regression" or not is_text:
        numbers = finite_numbers(source, column)
    if task == "auto":
        few = len(np.unique(numbers)) <= MOST_CLASSES and np.all(numbers == np.round(numbers))
        task = "classification" if is_text or few else "regression"
    entries = (column.astype(str) if is_text else column).to_numpy()
    labels, classes = np.unique(numbers if task == "regression" else entries, return_inverse=True)
    if len(labels) < 2:
        raise Unfit(
            f"The target {column.name!r} of {source} is {labels[0]} in every row. Expected "
            "different ones. Name the column to predict with --target."
        )
    return (numbers, None) if task == "regression" else (classes.astype(np.int32), labels)
