"""Give a model the tables that it was trained on, and others like them."""

from typing import Any, NamedTuple

import keras
import numpy as np
import pandas
from numpy.typing import NDArray

from quantal._command.columns import finite_numbers, parsed
from quantal._command.encoding import TableEncoding
from quantal._command.errors import Unfit
from quantal._command.reading import read
from quantal._models.table_features import TableFeatures
from quantal._models.walk import outermost_layers


class Rows(NamedTuple):
    """The rows of a table are numbers for a model, and the table that they are from.

    Attributes:
        numbers: float32, (rows, numbers); or an array of another shape, from an NPZ file.
        table: The table, with the target if it has one.
        remarks: What is to say of words and gaps that training never had.
    """

    numbers: NDArray[np.float32]
    table: pandas.DataFrame
    remarks: list[str]


def encoding_of(model: keras.Model) -> TableEncoding | None:
    """Return how a table becomes rows of numbers for a model; None where it does not know."""
    for layer in outermost_layers(model):
        if isinstance(layer, TableFeatures) and layer.table:
            return TableEncoding.from_dict(layer.table)
    return None


def read_rows(model: keras.Model, source: str, target: str | None = None) -> Rows:
    """Read a table for a model.

    Args:
        model: A built model. Where it knows no table, all columns but the target are numbers,
            in the order of its inputs.
        source: What `reading.read` takes.
        target: A column that is no input, for a model that knows no table.

    Raises:
        Unreadable: There is no such file, or it is not what its ending says.
        Unfit: The table does not fit.
    """
    encoding = encoding_of(model)
    content = read(source, () if encoding is None else encoding.names_of_words)
    if isinstance(content, dict):
        if "x" not in content:
            raise Unfit(f"{source} has {', '.join(content)}. Expected the inputs in an array x.")
        if encoding is None:
            _check_shape(model, source, np.shape(content["x"]))
            names = {name: column for name, column in content.items() if np.ndim(column) == 1}
            return Rows(np.asarray(content["x"], np.float32), pandas.DataFrame(names), [])
        table = pandas.DataFrame(content["x"]).add_prefix("x")
        table = table.assign(**{name: c for name, c in content.items() if np.ndim(c) == 1})
    else:
        table = content.set_axis([str(name) for name in content.columns], axis="columns")
        table = table.reset_index(drop=True)
    if encoding is not None:
        return Rows(encoding.encode(source, table), table, encoding.remarks(table))
    return Rows(_plain_numbers(model, source, table, target), table, [])


def _check_shape(model: keras.Model, source: str, shape: tuple[int, ...]) -> None:
    """Refuse an array of another shape than a model with one input takes."""
    expected = model.input_shape
    if not isinstance(expected, tuple) or any(isinstance(size, tuple) for size in expected):
        return
    is_same = len(shape) == len(expected) and all(
        size in (None, given) for given, size in zip(shape[1:], expected[1:], strict=True)
    )
    if not is_same:
        sizes = ", ".join("any" if size is None else str(size) for size in expected[1:])
        raise Unfit(f"{source} has an array x of the shape {shape}. Expected (rows, {sizes}).")


def _plain_numbers(
    model: keras.Model, source: str, table: pandas.DataFrame, target: str | None
) -> NDArray[np.float32]:
    """Return all columns but the target as the inputs of a model that knows no table."""
    features = table.drop(columns=[target] if target in table else [])
    width = model.input_shape[-1] if isinstance(model.input_shape, tuple) else None
    if len(features.columns) != width:
        raise Unfit(
            f"{source} has {len(features.columns)} columns of features, and the model takes the "
            f"shape {model.input_shape}. Expected as many columns, in the order of its inputs. "
            "Name the target with --target; or give the inputs as an array x in an .npz file."
        )
    columns = [finite_numbers(source, column) for _, column in features.items()]
    numbers: NDArray[np.float32] = np.stack(columns, axis=1).astype(np.float32)
    if np.isnan(numbers).any():
        raise Unfit(
            f"{source} has gaps, and the model does not know what stands for them. Expected a "
            "number everywhere, or a model that quantal train wrote."
        )
    return numbers


def inputs_of(model: keras.Model, source: str) -> NDArray[np.float32]:
    """Return the inputs of a model from the rows of a table that have no gaps.

    Raises:
        Unreadable: There is no such file, or it is not what its ending says.
        Unfit: The table does not fit.
    """
    numbers = read_rows(model, source, "y").numbers
    whole = numbers[~np.isnan(numbers).any(axis=tuple(range(1, numbers.ndim)))]
    if not len(whole):
        raise Unfit(f"{source} has a gap in every row. Expected some rows without gaps.")
    return whole


def samples_of(model: keras.Model, source: str, target: str | None) -> tuple[Any, Any]:
    """Return inputs and targets from the rows of a table, as a model is trained on them.

    Args:
        model: A built model.
        source: What `reading.read` takes.
        target: The target's column, for a model that knows no table; None for `y`.
    """
    encoding, name = encoding_of(model), target or "y"
    rows = read_rows(model, source, name)
    if encoding is not None:
        return rows.numbers, targets_of(encoding, source, rows)
    if name not in rows.table:
        raise Unfit(
            f"{source} has no column {name!r}. It has "
            f"{', '.join(map(str, rows.table.columns)) or 'none for a target'}. Name the target "
            "with --target; in an .npz file it is an array y."
        )
    numbers = finite_numbers(source, rows.table[name])
    is_whole = bool(np.all(numbers == np.floor(numbers)))
    return rows.numbers, numbers.astype(np.int32 if is_whole else np.float32)


def compile_for_table(model: keras.Model, path: str) -> None:
    """Compile a model that quantal train wrote with the loss of its target; keep another's.

    Raises:
        Unfit: The model is not compiled, and knows no table.
    """
    encoding = encoding_of(model)
    if encoding is None:
        if getattr(model, "loss", None) is None:
            raise Unfit(
                f"{path} is a model without a loss. Expected one that was compiled when it was "
                "saved, or that quantal train wrote."
            )
        return
    loss: Any = "mean_squared_error"
    if encoding.classes is not None:
        is_single = model.output_shape[-1] == 1
        loss = "binary_crossentropy" if is_single else "sparse_categorical_crossentropy"
    metrics = [] if encoding.classes is None else ["accuracy"]
    model.compile("adam", loss, metrics=metrics)


def targets_of(encoding: TableEncoding, source: str, rows: Rows) -> Any:
    """Return the target of rows as a model is trained on it: classes as integers, or numbers.

    Raises:
        Unfit: The table has no such column, or another class.
    """
    if encoding.target not in rows.table:
        raise Unfit(
            f"{source} has no column {encoding.target!r}, which the model predicts. It has "
            f"{', '.join(map(str, rows.table.columns))}."
        )
    column = rows.table[encoding.target]
    if encoding.classes is None:
        numbers = finite_numbers(source, column)
        if np.isnan(numbers).any():
            raise Unfit(f"The target {encoding.target!r} of {source} has gaps. Drop those rows.")
        return numbers
    codes = _codes(encoding.classes, column)
    unknown = np.flatnonzero(np.isnan(codes))
    if unknown.size:
        raise Unfit(
            f"The target {encoding.target!r} of {source} is {str(column.iloc[unknown[0]])!r} in "
            f"row {unknown[0] + 1}. Expected one of {', '.join(map(str, encoding.classes))}."
        )
    return codes.astype(np.int32)


def _codes(classes: tuple[Any, ...], column: pandas.Series) -> NDArray[np.float64]:
    """Return the position of each entry among the classes; NaN where it is none of them."""
    if all(isinstance(label, (int, float)) for label in classes):
        known: dict[Any, int] = {float(label): code for code, label in enumerate(classes)}
        return np.asarray(pandas.Series(parsed(column)).map(known), np.float64)
    known = {str(label): code for code, label in enumerate(classes)}
    return np.asarray(column.astype(str).map(known), np.float64)
