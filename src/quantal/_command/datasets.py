"""Tables of numbers with a target: read by pandas, checked, and split by scikit-learn.

A table comes from a CSV, Parquet or NPZ file or from a data set that scikit-learn
ships. Rows count from 1, the first one below a header. Nothing here knows Keras.
"""

import dataclasses
import functools
import pathlib
import textwrap
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas
import sklearn.datasets
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from quantal._command.errors import Unfit, Unreadable

FEWEST_ROWS = 10
MOST_CLASSES = 20
"""Whole numbers of at most so many different values are taken for classes."""
HELD_OUT = 0.2
_LARGEST = float(np.finfo(np.float32).max)

SHIPPED: dict[str, Callable[..., Any]] = {
    "digits": sklearn.datasets.load_digits,
    "breast-cancer": sklearn.datasets.load_breast_cancer,
    "wine": sklearn.datasets.load_wine,
    "diabetes": sklearn.datasets.load_diabetes,
}


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set has features and a target, all numbers, and a fifth of the rows held out.

    Attributes:
        name: The file or the data set that it was read from.
        features: float32, shape (rows, features), finite.
        target: Classes as integers from 0, or float64 for regression; shape (rows,).
        labels: The names of the classes in the data, sorted; None for regression.
        training: Positions of the rows to train on, integers from 0.
        held_out: Positions of the other rows, ascending.
        feature_scaler: The scaling of the features, from the training rows.
        target_scaler: The scaling of the target; None for classification.
    """

    name: str
    features: NDArray[np.float32]
    target: NDArray[Any]
    labels: NDArray[Any] | None
    training: NDArray[np.intp]
    held_out: NDArray[np.intp]
    feature_scaler: StandardScaler
    target_scaler: StandardScaler | None

    @property
    def outputs(self) -> int:
        """A model gives so many numbers for a row: one for each class, or one."""
        return 1 if self.labels is None else len(self.labels)

    def __str__(self) -> str:
        """Name the task and the sizes."""
        task = "regression" if self.labels is None else "classification"
        rows, columns = self.features.shape
        classes = "" if self.labels is None else f", {len(self.labels)} classes"
        return f"{self.name}: {task}, {rows} rows, {columns} features{classes}"

    def names_of(self, predictions: NDArray[Any]) -> NDArray[Any]:
        """Return classes by their names in the data; numbers as they are."""
        return predictions if self.labels is None else self.labels[predictions]


def read_dataset(
    source: str, target: str | None = None, task: str = "auto", seed: int = 0
) -> Dataset:
    """Read a table, take its target, check that the rest are numbers, and hold rows out.

    Args:
        source: A path that ends in .csv, .parquet or .npz, or a name in `SHIPPED`.
        target: The target's column (of an NPZ file: its array). None: a table's last
            column, an NPZ file's `y`.
        task: "classification", "regression" or "auto": classification where the target
            is text, boolean, or whole numbers of at most 20 different values.
        seed: Decides which fifth of the rows is held out; of each class alike.

    Raises:
        Unreadable: There is no such file, or it is not what its ending says.
        Unfit: Its contents cannot be trained on.
    """
    content = _read(source)
    try:
        table, target_column = _parts(content, target)
    except (LookupError, ValueError) as error:
        raise Unfit(
            f"{source} does not fit: {type(error).__name__}: {error}. It has "
            f"{textwrap.shorten(', '.join(map(str, content)), 300)}. Expected a column for the "
            "target, or arrays x (rows, features) and y (rows,)."
        ) from error
    rows, columns = table.shape
    if rows < FEWEST_ROWS or columns < 1:
        raise Unfit(
            f"{source} has {rows} rows and {columns} columns of features. Expected at least "
            f"{FEWEST_ROWS} rows and a column. Separate the columns of a CSV file by commas."
        )
    columns_of_numbers = [_numbers(source, column) for _, column in table.items()]
    features = np.stack(columns_of_numbers, axis=1).astype(np.float32)
    numbers, labels = _target(source, target_column, task)
    training, held_out = _split(source, numbers, labels is not None, seed)
    return Dataset(
        name=source,
        features=features,
        target=numbers,
        labels=labels,
        training=training,
        held_out=held_out,
        feature_scaler=StandardScaler().fit(features[training].astype(np.float64)),
        target_scaler=StandardScaler().fit(numbers[training, None]) if labels is None else None,
    )


def _read(source: str) -> Any:
    """Return a table of pandas, or a mapping from names to arrays."""
    if source in SHIPPED:
        return SHIPPED[source](as_frame=True).frame
    path = pathlib.Path(source)
    if path.suffix.lower() not in _READERS or not path.is_file():
        raise Unreadable(
            f"{source!r} is neither a data set nor a file. Expected one of {', '.join(SHIPPED)}, "
            f"or a path that ends in {', '.join(_READERS)}, from the folder {pathlib.Path.cwd()}."
        )
    try:
        return _READERS[path.suffix.lower()](path)
    except ImportError:
        raise
    # Which exceptions a damaged file brings forth is up to three other libraries.
    except Exception as error:
        raise Unreadable(
            f"{source} cannot be read: {type(error).__name__}: {error}. Expected a sound file: "
            "CSV in UTF-8 with a header and commas, Parquet, or NPZ without Python objects."
        ) from error


def _read_npz(path: pathlib.Path) -> dict[str, NDArray[Any]]:
    # Opened here, for NumPy leaves a damaged file open.
    with path.open("rb") as stream, warnings.catch_warnings():
        warnings.simplefilter("error")  # NumPy warns of some damaged headers, and reads on.
        return dict(np.load(stream, allow_pickle=False))


_READERS: dict[str, Callable[[pathlib.Path], Any]] = {
    ".csv": functools.partial(pandas.read_csv, low_memory=False, index_col=False),
    ".parquet": pandas.read_parquet,
    ".npz": _read_npz,
}


def _parts(content: Any, target: str | None) -> tuple[pandas.DataFrame, pandas.Series]:
    """Return the features and the target.

    Raises:
        KeyError: There is no such column or array.
        ValueError: The arrays have other shapes, or a table has no header.
    """
    if isinstance(content, dict):
        name = target or "y"
        table = pandas.DataFrame(content["x"]).add_prefix("x")
        return table, pandas.Series(content[name], index=table.index, name=name)
    table = content.set_axis([str(name) for name in content.columns], axis="columns")
    numbers = pandas.to_numeric(pandas.Series(table.columns), errors="coerce")
    # Positions are what pandas writes for a table without names: those are a header.
    if numbers.notna().all() and set(np.diff(numbers)) - {1.0}:
        raise ValueError("the first line holds numbers only; put a header above it")
    target = target or str(table.columns[-1])
    return table.drop(columns=target), table[target]


def _split(
    source: str, target: NDArray[Any], is_classes: bool, seed: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the positions of rows to train on, and of a fifth that is held out, ascending."""
    rows, classes = np.arange(len(target)), target if is_classes else None
    try:
        training, held_out = train_test_split(
            rows, test_size=HELD_OUT, random_state=seed, stratify=classes
        )
    except ValueError as error:
        raise Unfit(
            f"A fifth of {source} cannot be held out: {error} Give more rows of each class, or "
            "--task regression for a target of numbers."
        ) from error
    return training, np.sort(held_out)


def _is_numeric(column: pandas.Series) -> bool:
    # Nullable and Arrow types have no NumPy kind of their own; complex ones are no numbers.
    return bool(pandas.api.types.is_numeric_dtype(column)) and not (
        pandas.api.types.is_complex_dtype(column)
    )


def _parsed(column: pandas.Series) -> NDArray[np.float64]:
    """Return the column as float64, NaN where it is missing or no number."""
    if not _is_numeric(column):
        column = pandas.to_numeric(column.astype(str), errors="coerce")
    return np.asarray(column.to_numpy(np.float64, na_value=np.nan))


def _numbers(source: str, column: pandas.Series) -> NDArray[np.float64]:
    """Return the column as numbers that float32 holds; refuse others and name the first."""
    numbers = _parsed(column)
    bad = np.flatnonzero(~(np.abs(numbers) <= _LARGEST))
    if bad.size:
        raise Unfit(
            f"The column {column.name!r} of {source} holds {str(column.iloc[bad[0]])!r} in row "
            f"{bad[0] + 1}, and {bad.size} such entries in all. Expected finite numbers up to "
            f"{_LARGEST:.2g}. Drop those rows or the column, or write words as numbers."
        )
    return numbers


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
    is_text = not _is_numeric(column)
    parsed = _parsed(column)
    # Mostly numbers and a few words is a damaged column rather than classes.
    if is_text and task == "auto" and np.mean(~np.isnan(parsed)) >= 0.5:
        is_text, task = False, "regression" if np.isnan(parsed).any() else task
    if task == "regression" or not is_text:
        parsed = _numbers(source, column)
    if task == "auto":
        few = len(np.unique(parsed)) <= MOST_CLASSES and np.all(parsed == np.round(parsed))
        task = "classification" if is_text or few else "regression"
    entries = (column.astype(str) if is_text else column).to_numpy()
    labels, classes = np.unique(parsed if task == "regression" else entries, return_inverse=True)
    if len(labels) < 2:
        raise Unfit(
            f"The target {column.name!r} of {source} is {labels[0]} in every row. Expected "
            "different ones. Name the column to predict with --target."
        )
    return (parsed, None) if task == "regression" else (classes.astype(np.int32), labels)
