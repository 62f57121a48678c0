"""Tables of numbers with a target: read, checked, and split for training.

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

FEWEST_ROWS = 10
MOST_CLASSES = 20
HELD_OUT = 0.2

_LARGEST = float(np.finfo(np.float32).max)

SHIPPED: dict[str, Callable[..., Any]] = {
    "digits": sklearn.datasets.load_digits,
    "breast-cancer": sklearn.datasets.load_breast_cancer,
    "wine": sklearn.datasets.load_wine,
    "diabetes": sklearn.datasets.load_diabetes,
}


class Unreadable(ValueError):
    """A file or data set cannot be read: missing, corrupt, of an unknown kind."""


class Unfit(ValueError):
    """What was read does not fit: a missing column, text, NaN, one class, other shapes."""


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Features and a target, all numbers.

    Attributes:
        name: Where it came from.
        features: float32, shape (rows, features), finite.
        target: For classification the classes as integers from 0, otherwise float64;
            shape (rows,).
        labels: For classification what each class is called in the data, sorted;
            otherwise None.
    """

    name: str
    features: NDArray[np.float32]
    target: NDArray[Any]
    labels: NDArray[Any] | None

    @property
    def task(self) -> str:
        """`"classification"` or `"regression"`."""
        return "regression" if self.labels is None else "classification"

    @property
    def outputs(self) -> int:
        """How many numbers a model gives for a row: one for each class, or one."""
        return 1 if self.labels is None else len(self.labels)


@dataclasses.dataclass(frozen=True)
class Scaling:
    """`scaled = (number - mean) / deviation`, for each column; float64, shape (columns,)."""

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]

    def scaled(self, numbers: NDArray[Any]) -> NDArray[np.float32]:
        """The numbers in units of the deviation: float32, of the same shape."""
        return ((numbers.astype(np.float64) - self.mean) / self.deviation).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Split:
    """Which rows are trained on, which are held out, and the training rows' scaling.

    Attributes:
        training: Positions of the training rows, integers from 0.
        held_out: Positions of the others, ascending.
        features: Scaling of the features.
        target: Scaling of the target; None for classification.
    """

    training: NDArray[np.intp]
    held_out: NDArray[np.intp]
    features: Scaling
    target: Scaling | None


def split(dataset: Dataset, seed: int) -> Split:
    """Hold out a fifth of the rows, by `seed`; of each class alike for classification."""
    classes = None if dataset.labels is None else dataset.target
    training, held_out = train_test_split(
        np.arange(len(dataset.target)), test_size=HELD_OUT, random_state=seed, stratify=classes
    )
    target = _scaling(dataset.target[training, None]) if dataset.labels is None else None
    return Split(training, np.sort(held_out), _scaling(dataset.features[training]), target)


def _scaling(numbers: NDArray[Any]) -> Scaling:
    scaler = StandardScaler().fit(numbers.astype(np.float64))
    return Scaling(scaler.mean_, scaler.scale_)


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
        Unfit: What it holds cannot be trained on.
    """
    columns, wanted = _read(source, target)
    if len(wanted) < FEWEST_ROWS:
        raise Unfit(
            f"{source} has {len(wanted)} rows. Expected at least {FEWEST_ROWS}, of which a "
            "fifth is held out. Give more rows."
        )
    if columns.shape[1] == 0:
        raise Unfit(
            f"{source} has one column, {wanted.name!r}, which is the target. Expected columns "
            "of features beside it. Separate the columns of a CSV file by commas, not by "
            "semicolons or tabs."
        )
    features = np.empty(columns.shape, np.float32)
    for place, name in enumerate(columns):
        features[:, place] = _numbers(source, columns[name])
    numbers, labels = _target(source, wanted, task)
    return Dataset(source, features, numbers, labels)


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


def first_line(error: Exception) -> str:
    """What an error says, short enough for a message of one's own."""
    return (str(error).strip().splitlines() or ["no reason given"])[0].rstrip(".")


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
    columns = pandas.DataFrame(x, columns=[f"x[:, {place}]" for place in range(x.shape[1])])
    return columns, pandas.Series(y, name=wanted)


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
    """The column as float64, NaN where it is missing or no number."""
    if not _is_numeric(column):
        column = pandas.to_numeric(column.astype(str), errors="coerce")
    return np.asarray(column.to_numpy(np.float64, na_value=np.nan))


def _numbers(source: str, column: pandas.Series) -> NDArray[np.float64]:
    """The column as numbers that float32 holds, or an error that names the first other."""
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
    """(classes or numbers, labels or None)."""
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
