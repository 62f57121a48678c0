"""Report what every weight of a model is: its list, its bits, and what rounding loses."""

import dataclasses
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from quantal._core.by_identity import ByIdentity
from quantal._core.numbers.values import Values
from quantal._core.parameter import Parameter, parameters_of
from quantal._models.rules import Rules
from quantal._models.walk import check_model, weights_of

LONGEST_SHOWN = 4
"""The longest list that a summary prints number by number, so that lines fit a screen."""


@dataclasses.dataclass(frozen=True)
class SummaryRow:
    """A row says what one weight of a model is.

    Attributes:
        path: The weight's path in the model.
        shape: Its shape.
        values: The list that it is on, with the numbers it has now, or None.
        why: Why it is on a list or stays free: the rule that says so, where rules are
            known.
        bits_before: Bits of the weight as a free one.
        bits_after: Bits of its codes, scales and learned numbers; `bits_before` where it
            is free.
        error: Relative distance to the weight of the model compared with,
            `norm(w - v) / norm(w)`; None for free weights, and where there is no such
            model.
        output_error: Relative distance of the weight's outputs to those of the trained one, on
            the samples that `discretize` calibrated with; None where it did not.
    """

    path: str
    shape: tuple[int, ...]
    values: Values | None
    why: str
    bits_before: int
    bits_after: int
    error: float | None
    output_error: float | None = None


@dataclasses.dataclass(frozen=True)
class Summary:
    """A summary lists the weights of a model; `str` draws it as a table.

    Attributes:
        rows: One `SummaryRow` for each weight, in the order of the model's layers.
    """

    rows: tuple[SummaryRow, ...]

    @property
    def bits_before(self) -> int:
        """The bits that all weights would take if none were on a list."""
        return sum(row.bits_before for row in self.rows)

    @property
    def bits_after(self) -> int:
        """The number of bits that all weights take as they are."""
        return sum(row.bits_after for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as data that JSON can hold.

        A row's list is given as its numbers, a list of lists for lists per channel.
        """
        rows = [
            {
                **{field.name: getattr(row, field.name) for field in dataclasses.fields(row)},
                "shape": list(row.shape),
                "values": None if row.values is None else row.values.tolist(),
            }
            for row in self.rows
        ]
        return {"bits_before": self.bits_before, "bits_after": self.bits_after, "rows": rows}

    def __str__(self) -> str:
        lines: list[tuple[str, ...]] = [
            ("weight", "shape", "values", "bits", "error", "outputs", "why")
        ]
        lines += [_cells(row) for row in self.rows]
        if all(row.output_error is None for row in self.rows):
            lines = [(*line[:-2], line[-1]) for line in lines]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        table = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in lines
        ]
        ratio = self.bits_before / max(self.bits_after, 1)
        total = (
            f"{self.bits_before / 8e3:.4g} kB of weights become {self.bits_after / 8e3:.4g} kB "
            f"({ratio:.3g} times smaller)"
        )
        return "\n".join([*table, total])


def summary(
    model: keras.Model, compared_with: keras.Model | None = None, rules: Any = None
) -> Summary:
    """Summarize a model weight by weight: lists, bits, and what rounding loses.

    Use it on any built model: discretized, loaded, or with discrete layers of your own.
    With the model before `discretize`, it says how far rounding moved each weight; with
    the rules too, which of them chose it.

    Args:
        model: A built model.
        compared_with: A model with the same weights in the same layers, such as the one
            that `discretize` was given, for the column `error`. None leaves it empty.
        rules: The rules that `discretize` was given, for the column `why`. They need
            `compared_with`, because they are matched with its paths.

    Returns:
        A `Summary`: `print` it, or read its `rows` or `to_dict()`.

    Raises:
        TypeError: A model is no Keras model.
        ValueError: A model is not built, `compared_with` has other weights, or `rules`
            came without it.

    Example:
    >>> import keras, quantal
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="hidden"),
    ...                           keras.layers.Dense(2, name="last")], name="net")
    >>> rules = {"hidden": "ternary"}
    >>> discrete = quantal.discretize(model, rules)
    >>> [(row.path, row.why) for row in quantal.summary(discrete).rows][:2]
    [('net/hidden/kernel', 'listed'), ('net/hidden/bias', 'free: bias')]
    >>> report = quantal.summary(discrete, compared_with=model, rules=rules)
    >>> report.rows[0].why, 0 < report.rows[0].error < 1
    ("rule 'hidden'", True)
    """
    check_model(model)
    if rules is not None and compared_with is None:
        raise ValueError(
            "rules came without compared_with. Expected the model whose paths they name. "
            "Give the model that discretize was given."
        )
    parameters = ByIdentity([(parameter.latent, parameter) for parameter in parameters_of(model)])
    variables = weights_of(model)
    reasons = [
        "listed" if variable in parameters else f"free: {variable.name}" for variable in variables
    ]
    errors: list[float | None] = [None] * len(variables)
    if compared_with is not None:
        originals = _same_weights(compared_with, variables)
        errors = _errors(compared_with, originals, variables, parameters)
        if rules is not None:
            is_listed = [variable in parameters for variable in variables]
            reasons = _reasons(compared_with, rules, originals, is_listed)
    return Summary(
        tuple(
            _row(variable, parameters.get(variable), why, error)
            for variable, why, error in zip(variables, reasons, errors, strict=True)
        )
    )


def _row(
    variable: keras.Variable, parameter: Parameter | None, why: str, error: float | None
) -> SummaryRow:
    shape = tuple(variable.shape)
    calibration = None if parameter is None else parameter.calibration
    if calibration is not None and calibration.note:
        why = f"{why}; not calibrated: {calibration.note}"
    if parameter is not None and parameter.choice is not None:
        option, count = parameter.choice.option, len(parameter.choice.options)
        why = f"chosen of {count} lists: {option.bytes / 1e3:.4g} kB, costs {option.loss:.3g}"
    bits = int(np.prod(shape)) * 8 * np.dtype(_numpy_name(variable.dtype)).itemsize
    return SummaryRow(
        path=variable.path if parameter is None else parameter.path,
        shape=shape,
        values=None if parameter is None else parameter.values,
        why=why,
        bits_before=bits,
        bits_after=bits if parameter is None else parameter.bits,
        error=error,
        output_error=None if calibration is None else calibration.error,
    )


def _numpy_name(dtype: str) -> str:
    """Return the name of a NumPy dtype of the same size; NumPy has no bfloat16."""
    return "float16" if dtype == "bfloat16" else str(dtype)


def _same_weights(
    compared_with: keras.Model, variables: list[keras.Variable]
) -> list[keras.Variable]:
    """Return the weights of another model, in step with the given ones."""
    check_model(compared_with, "compared_with")
    originals = weights_of(compared_with)
    shapes, expected = (
        [tuple(variable.shape) for variable in weights] for weights in (originals, variables)
    )
    if shapes != expected:
        raise ValueError(
            f"compared_with has {len(shapes)} weights of the shapes {shapes}. Expected "
            f"{len(expected)} of the shapes {expected}, as model has. Give the model that "
            "discretize was given."
        )
    return originals


def _errors(
    compared_with: keras.Model,
    originals: list[keras.Variable],
    variables: list[keras.Variable],
    parameters: ByIdentity[Parameter],
) -> list[float | None]:
    """Return the relative distance of each listed weight to that of another model."""
    others = ByIdentity([(p.latent, p) for p in parameters_of(compared_with)])
    return [
        _relative_distance(_numbers(original, others), _numbers(variable, parameters))
        if variable in parameters
        else None
        for original, variable in zip(originals, variables, strict=True)
    ]


def _numbers(variable: keras.Variable, parameters: ByIdentity[Parameter]) -> NDArray[np.float64]:
    """Return what meets the data for a weight: listed values times their scale, or itself."""
    parameter = parameters.get(variable)
    tensor = variable if parameter is None else parameter.weight
    return np.asarray(ops.convert_to_numpy(tensor)).astype(np.float64)


def _relative_distance(weights: NDArray[np.float64], listed: NDArray[np.float64]) -> float:
    """Return `norm(weights - listed) / norm(weights)`, 0 for weights that are all zero."""
    size = float(np.sum(weights**2))
    return float(np.sum((weights - listed) ** 2) / size) ** 0.5 if size else 0.0


def _reasons(
    compared_with: keras.Model, rules: Any, originals: list[keras.Variable], is_listed: list[bool]
) -> list[str]:
    """Return why each weight is on a list or free, as the rules of `discretize` say."""
    parsed = Rules.of(rules)
    matches, with_free_ends = (parsed.match_all(compared_with, keep) for keep in (False, True))

    def reason(original: keras.Variable, listed: bool) -> str:
        match = matches[original]
        if listed or match.rule is None:
            return match.why
        if with_free_ends[original].rule is None:
            return with_free_ends[original].why
        return f"free in spite of the rule: {match.why}"

    return [reason(*pair) for pair in zip(originals, is_listed, strict=True)]


def _cells(row: SummaryRow) -> tuple[str, ...]:
    """Return the cells of a row in the table that `str` draws."""
    return (
        row.path,
        "x".join(map(str, row.shape)),
        "-" if row.values is None else _short(row.values),
        f"{row.bits_after / max(int(np.prod(row.shape)), 1):.4g}",
        "-" if row.error is None else f"{row.error:.3f}",
        "-" if row.output_error is None else f"{row.output_error:.3f}",
        row.why,
    )


def _short(values: Values) -> str:
    if values.channels is not None or len(values) > LONGEST_SHOWN:
        return f"{len(values)} {'learned' if values.learnable else 'values'}"
    return str(values.tolist())
