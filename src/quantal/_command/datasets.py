"""Tables of numbers with a target: read by pandas, checked, and split by scikit-learn.

A table comes from a CSV, Parquet or NPZ file or from a data set that scikit-learn
ships. Rows count from 1, the first one below a header. Nothing here knows Keras.
"""

import dataclasses
import difflib
import functools
import pathlib
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas
import sklearn.datasets
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from quantal._command.errors import Unfit, Unreadable, first_line

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
    """A data set has features and a target, all numbers.

    Attributes:
        name: The file or the data set that it was read from.
        features: float32, shape (rows, features), finite.
        target: For classification the classes as integers from 0, otherwise float64;
            shape (rows,).
        labels: For classification the name of each class in the data, sorted; otherwise
            None.
    """

    name: str
    features: NDArray[np.float32]
    target: NDArray[Any]
    labels: NDArray[Any] | None

    @property
    def task(self) -> str:
        """The task is `"classification"` or `"regression"`."""
        return "regression" if self.labels is None else "classification"

    @property
    def outputs(self) -> int:
        """A model gives so many numbers for a row: one for each class, or one."""
        return 1 if self.labels is None else len(self.labels)

    @property
    def description(self) -> str:
        """The description names the task and the sizes."""
        rows, columns = self.features.shape
        classes = "" if self.labels is None else f", {len(self.labels)} classes"
        return f"{self.name}: {self.task}, {rows} rows, {columns} features{classes}"

    def names_of(self, predictions: NDArray[Any]) -> NDArray[Any]:
        """Return classes by their names in the data; numbers as they are."""
        return predictions if self.labels is None else self.labels[predictions]


@dataclasses.dataclass(frozen=True)
class Split:
    """A split says which rows are trained on, and how the training rows are scaled.

    Attributes:
        training: Positions of the training rows, integers from 0.
        held_out: Positions of the others, ascending.
        features: The scaling of the features.
        target: The scaling of the target; None for classification.
    """

    training: NDArray[np.intp]
    held_out: NDArray[np.intp]
    features: StandardScaler
    target: StandardScaler | None


def split(dataset: Dataset, seed: int) -> Split:
    """Hold out a fifth of the rows, by `seed`; of each class alike for classification."""
    classes = None if dataset.labels is None else dataset.target
    training, held_out = train_test_split(
        np.arange(len(dataset.target)), test_size=HELD_OUT, random_state=seed, stratify=classes
    )
    features = StandardScaler().fit(dataset.features[training].astype(np.float64))
    target = None
    if dataset.labels is None:
        target = StandardScaler().fit(dataset.target[training, None])
    return Split(training, np.sort(held_out), features, target)


def read_dataset(source: str, target: str | None = None, task: str = "auto") -> Dataset:
    """Read a table, take its target, and check that the rest are numbers.

    Args:
        source: A path that ends in .csv, .parquet or .npz, or a name in `SHIPPED`.
        target: The target's column (of an NPZ file: its array). None: a table's last
            column, an NPZ file's `y`.
        task: "classification", "regression" or "auto": classification where the target
            is text, boolean, or whole numbers of at most 20 different values.

    Raises:
        Unreadable: There is no such file, or it is not what its ending says.
        Unfit: Its contents cannot be trained on.
    """
    frame, target_column = _read(source, target)
    if len(target_column) < FEWEST_ROWS:
        raise Unfit(
            f"{source} has {len(target_column)} rows. Expected at least {FEWEST_ROWS}, of which a "
            "fifth is held out. Give more rows."
        )
    if frame.shape[1] == 0:
        raise Unfit(
            f"{source} has one column, {target_column.name!r}, which is the target. Expected "
            "columns of features beside it. Separate the columns of a CSV file by commas, not by "
            "semicolons or tabs."
        )
    features = np.stack([_numbers(source, frame[name]) for name in frame], axis=1)
    numbers, labels = _target(source, target_column, task)
    return Dataset(source, features.astype(np.float32), numbers, labels)


def _read(source: str, target: str | None) -> tuple[pandas.DataFrame, pandas.Series]:
    if source in SHIPPED:
        return _take_target(source, SHIPPED[source](as_frame=True).frame, target)
    path = pathlib.Path(source)
    ending = path.suffix.lower()
    if ending not in _READERS:
        raise Unreadable(
            f"{source!r} is neither a data set nor a file of a known ending. Expected one of "
            f"{', '.join(SHIPPED)}, or a path that ends in {', '.join(_READERS)}. Convert the "
            "file to one of these."
        )
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise Unreadable(
            f"{source} {what}. Expected a {ending} file. Check the path; it is taken from "
            f"the folder {pathlib.Path.cwd()}."
        )
    try:
        content = _READERS[ending](path)
    # Which exceptions a damaged file brings forth is up to three other libraries.
    except Exception as error:
        raise Unreadable(
            f"{source} cannot be read: {type(error).__name__}: {first_line(error)}. Expected a "
            f"sound {ending} file{_DEMANDS[ending]}. Write it again, or check that nothing cut "
            "it short."
        ) from error
    if ending == ".npz":
        return _take_arrays(source, content, target)
    return _take_target(source, content, target)


def _read_npz(path: pathlib.Path) -> dict[str, NDArray[Any]]:
    # Opened here, for NumPy leaves a damaged file open.
    with path.open("rb") as stream, warnings.catch_warnings():
        warnings.simplefilter("error")  # NumPy warns of some damaged headers, and reads on.
        file = np.load(stream, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise ValueError("it holds a single array, as .npy files do")
        with file:
            return {name: file[name] for name in file.files}


_READERS: dict[str, Callable[[pathlib.Path], Any]] = {
    ".csv": functools.partial(pandas.read_csv, low_memory=False, index_col=False),
    ".parquet": pandas.read_parquet,
    ".npz": _read_npz,
}

_DEMANDS = {
    ".csv": " in UTF-8: a header, then rows of as many fields, separated by commas",
    ".parquet": "",
    ".npz": " of NumPy arrays without Python objects (text as dtype U)",
}


def _take_target(
    source: str, frame: pandas.DataFrame, target: str | None
) -> tuple[pandas.DataFrame, pandas.Series]:
    frame = frame.set_axis([str(name) for name in frame.columns], axis="columns")
    names = list(frame.columns)
    _check_names(source, names)
    if target is None:
        target = names[-1]
    if target not in names:
        raise Unfit(_unknown(source, "column", target, names))
    return frame.drop(columns=target), frame[target]


def _check_names(source: str, names: list[str]) -> None:
    if not names:
        raise Unfit(
            f"{source} has no columns. Expected columns of features and a target. Check how "
            "it was written."
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise Unfit(
            f"{source} has several columns {twice[0]!r}. Expected a name of its own for each "
            "column. Rename them."
        )
    numbers = pandas.to_numeric(pandas.Series(names), errors="coerce")
    # Positions are what pandas writes for a table without names: those are a header.
    if numbers.notna().all() and set(np.diff(numbers)) - {1.0}:
        raise Unfit(
            f"The first line of {source} holds numbers only ({', '.join(names[:4])}...). "
            "Expected a header with the columns' names. Put one above the first row."
        )


def _take_arrays(
    source: str, arrays: dict[str, NDArray[Any]], target: str | None
) -> tuple[pandas.DataFrame, pandas.Series]:
    wanted = "y" if target is None else target
    for name in ("x", wanted):
        if name not in arrays:
            raise Unfit(_unknown(source, "array", name, list(arrays)))
    x, y = arrays["x"], arrays[wanted]
    if x.ndim != 2 or y.ndim != 1 or len(x) != len(y):
        raise Unfit(
            f"{source} has x of shape {x.shape} and {wanted} of shape {y.shape}. Expected "
            "(rows, features) and (rows,). Reshape them before saving, for example "
            "x.reshape(len(x), -1) and y.ravel()."
        )
    if y.dtype.kind == "S":
        y = np.char.decode(y, "utf-8", "replace")
    frame = pandas.DataFrame(x, columns=[f"x[:, {column}]" for column in range(x.shape[1])])
    return frame, pandas.Series(y, name=wanted)


def _unknown(source: str, what: str, name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(name, names) or names[:10]
    more = "" if len(names) <= len(close) else f" (of {len(names)})"
    return (
        f"{source} has no {what} {name!r}. Expected one of its {what}s: "
        f"{', '.join(map(repr, close)) or 'none'}{more}. Give one of them, in the same letters."
    )


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
    if not bad.size:
        return numbers
    row, entry = bad[0], column.iloc[bad[0]]
    where = f"The column {column.name!r} of {source} holds"
    if pandas.isna(entry):
        raise Unfit(
            f"{where} no number (NaN or nothing) in row {row + 1}, and {bad.size} such entries "
            "in all. Expected a number in every row. Drop those rows or fill them in."
        )
    if np.isnan(numbers[row]):
        raise Unfit(
            f"{where} {str(entry)!r} in row {row + 1}, and {bad.size} such entries in all. "
            "Expected numbers. Remove the column, or turn it into numbers, for example one "
            "column of 0 and 1 for each word."
        )
    raise Unfit(
        f"{where} {entry} in row {row + 1}. Expected finite numbers up to {_LARGEST:.2g}. "
        "Drop that row, or divide the column by a factor."
    )


def _target(
    source: str, column: pandas.Series, task: str
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Return (classes or numbers, labels or None)."""
    _check_complete(source, column)
    is_text = not _is_numeric(column)
    parsed = _parsed(column)
    # Mostly numbers and a few words is a damaged column rather than classes.
    if is_text and task == "auto" and np.mean(~np.isnan(parsed)) >= 0.5:
        is_text, task = False, "regression" if np.isnan(parsed).any() else task
    if task == "regression" or not is_text:
        parsed = _numbers(source, column)
    different = len(np.unique(parsed))
    if task == "auto":
        few = different <= MOST_CLASSES and bool(np.all(parsed == np.round(parsed)))
        task = "classification" if is_text or few else "regression"
    if task == "regression":
        if different < 2:
            raise Unfit(
                f"The target {column.name!r} of {source} is {parsed[0]:g} in every row. "
                "Expected different numbers. Name the column to predict with --target."
            )
        return parsed, None
    return _classes(source, column, column.astype(str) if is_text else column)


def _check_complete(source: str, column: pandas.Series) -> None:
    missing = np.flatnonzero(column.isna())
    if missing.size:
        raise Unfit(
            f"The target {column.name!r} of {source} is missing (NaN or nothing) in row "
            f"{missing[0] + 1}, and in {missing.size} rows in all. Expected a target in every "
            "row. Drop those rows."
        )


def _classes(
    source: str, column: pandas.Series, entries: pandas.Series
) -> tuple[NDArray[Any], NDArray[Any]]:
    labels, classes, counts = np.unique(entries.to_numpy(), return_inverse=True, return_counts=True)
    target = f"The target {column.name!r} of {source}"
    if len(labels) < 2:
        raise Unfit(
            f"{target} has a single class, {labels[0]}. Expected at least 2. Name the column to "
            "predict with --target, or add rows of another class."
        )
    if counts.min() < 2:
        raise Unfit(
            f"{target} has the class {labels[counts.argmin()]} in one row only. Expected at "
            "least 2 rows of each class, one to train on and one to hold out. Drop that class, or "
            "give --task regression for a target of numbers."
        )
    if np.ceil(len(classes) * HELD_OUT) < len(labels):
        raise Unfit(
            f"{target} has {len(labels)} classes in {len(classes)} rows. Expected at least "
            f"{round(1 / HELD_OUT)} rows for each class on average, as a fifth is held out. Give "
            "more rows, or --task regression for a target of numbers."
        )
    return classes.astype(np.int32), labels
