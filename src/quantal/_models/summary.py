"""Report what every weight of a model is: its list, its bits, and what rounding loses."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray

from quantal._core.by_identity import ByIdentity
from quantal._core.parameter import Parameter, parameters_of
from quantal._core.table import Table, frame
from quantal._core.tensors.distributed import whole_array
from quantal._core.views import Views
from quantal._models.files import check_loadable, contents_of
from quantal._models.multiplications import KINDS, multiplications_of
from quantal._models.rules import Rules
from quantal._models.summary_row import SummaryActivation, SummaryRow
from quantal._models.summary_table import table_of
from quantal._models.walk import activations_of, check_model, outermost_layers, weights_of
from quantal.estimators.registry import name_of


@dataclasses.dataclass(frozen=True, repr=False)
class Summary(Views):
    """A summary lists the weights of a model.

    `print` draws it as a table, a notebook shows it as HTML; `to_dict`, `to_json` and `to_frame`
    give the data.

    Attributes:
        rows: One `SummaryRow` for each weight, in the order of the model's layers.
        file_bytes: The exact size of the file that `quantal.save` writes; None where it would
            refuse the model.
        notes: What is not known, and why.
        activations: One `SummaryActivation` for each `DiscreteActivation`.
    """

    rows: tuple[SummaryRow, ...]
    file_bytes: int | None = dataclasses.field(default=None, compare=False)
    notes: tuple[str, ...] = dataclasses.field(default=(), compare=False)
    activations: tuple[SummaryActivation, ...] = ()

    @property
    def bits_before(self) -> int:
        """The bits that all weights would take if none were on a list."""
        return sum(row.bits_before for row in self.rows)

    @property
    def bits_after(self) -> int:
        """The number of bits that all weights take as they are."""
        return sum(row.bits_after for row in self.rows)

    @property
    def float_bytes(self) -> int:
        """The bytes that all weights would take if none were on a list."""
        return self.bits_before // 8

    @property
    def bytes(self) -> int | None:
        """The bytes that all weights take packed; None where one of them cannot be."""
        sizes = [row.bytes for row in self.rows]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    @property
    def macs(self) -> dict[str, int]:
        """The multiply-accumulates of one sample by their kind, as far as they are known."""
        totals = dict.fromkeys(KINDS, 0)
        for row in self.rows:
            totals[row.kind] += row.macs or 0
        return totals

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as data that JSON can hold."""
        return {
            "bits_before": self.bits_before,
            "bits_after": self.bits_after,
            "float_bytes": self.float_bytes,
            "bytes": self.bytes,
            "file_bytes": self.file_bytes,
            "macs": self.macs,
            "notes": list(self.notes),
            "rows": [row.to_dict() for row in self.rows],
            "activations": [each.to_dict() for each in self.activations],
        }

    def to_frame(self) -> Any:
        """Return a `pandas.DataFrame` with a row for each weight.

        Raises:
            ImportError: pandas is not installed.
        """
        rows = [row.to_dict() for row in self.rows]
        return frame({name: [row[name] for row in rows] for name in rows[0]} if rows else {})

    def table(self) -> Table:
        """Return the summary as a table; of many weights it shows some, and `rows` all."""
        footer = [self._sizes(), *self._products(), *self.notes]
        return table_of(self.rows, footer, self.activations)

    def _sizes(self) -> str:
        """Return a line on the bytes."""
        sizes = f"{self.float_bytes:,} bytes as floats"
        if self.bytes is None:
            return sizes
        ratio = self.float_bytes / max(self.bytes, 1)
        sizes += f", {self.bytes:,} packed ({ratio:.3g} times smaller)"
        return sizes + (
            "" if self.file_bytes is None else f"; the file of quantal.save has {self.file_bytes:,}"
        )

    def _products(self) -> Iterator[str]:
        """Yield a line on the multiply-accumulates, if any are known."""
        macs = {kind: count for kind, count in self.macs.items() if count}
        if macs:
            parts = ", ".join(f"{count:,} {kind}" for kind, count in macs.items())
            least = "at least " if any(row.macs is None for row in self.rows) else ""
            yield f"{least}{sum(macs.values()):,} MACs for a sample: {parts}"

    def __repr__(self) -> str:
        return str(self)


def summary(
    model: keras.Model,
    compared_with: keras.Model | None = None,
    rules: Any = None,
    *,
    input_shape: Any = None,
) -> Summary:
    """Summarize a model weight by weight: lists, bits, bytes, multiplications, and losses.

    Use it on any built model: discretized, loaded, or with discrete layers of your own.
    With the model before `discretize`, it says how far rounding moved each weight; with
    the rules too, which of them chose it. Activations on lists stand below the weights.

    Args:
        model: A built model.
        compared_with: A model with the same weights in the same layers, such as the one
            that `discretize` was given, for the column `error`. None leaves it empty.
        rules: The rules that `discretize` was given, for the column `why`. They need
            `compared_with`, because they are matched with its paths.
        input_shape: The shape of one sample, such as (28, 28, 1), for which to count
            multiplications, or a list or dict of shapes for several inputs. It is needed where
            the model leaves sizes open or has no Inputs; None takes those of the model.

    Returns:
        A `Summary`: `print` it, or read its `rows`, `to_dict()` or `to_frame()`.

    Raises:
        TypeError: A model is no Keras model, or `input_shape` is no shape.
        ValueError: A model is not built, `compared_with` has other weights, or `rules`
            came without it.

    Example:
    >>> import keras, quantal
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="hidden"),
    ...                           keras.layers.Dense(2, name="last")], name="net")
    >>> rules = {"hidden": "ternary"}
    >>> discrete = quantal.discretize(model, rules)
    >>> [(row.path, row.why, row.macs) for row in quantal.summary(discrete).rows][:2]
    [('net/hidden/kernel', 'listed', 32), ('net/hidden/bias', 'free: bias', 0)]
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
    products, stored = multiplications_of(model, input_shape), _stored(model)
    rows = [
        _row(variable, parameters.get(variable), why, error)
        for variable, why, error in zip(variables, reasons, errors, strict=True)
    ]
    rows = [
        dataclasses.replace(
            row,
            macs=products.counts.get(variable),
            kind=products.kind_of(variable, parameters.get(variable)),
            bytes=stored.sizes.get(variable),
        )
        for variable, row in zip(variables, rows, strict=True)
    ]
    notes = [stored.note, products.note and f"multiply-accumulates: {products.note}"]
    return Summary(tuple(rows), stored.size, tuple(filter(None, notes)), _activations(model))


def _activations(model: keras.Model) -> tuple[SummaryActivation, ...]:
    """Return what the discrete activations of a model are, also those inside other layers."""
    seen: ByIdentity[None] = ByIdentity()
    activations = []
    for layer in [*outermost_layers(model), model]:
        for inner in activations_of(layer):
            if inner not in seen:
                seen[inner] = None
                is_alone = inner is layer or layer is model
                path = inner.name if is_alone else f"{layer.name}/{inner.name}"
                activations.append(SummaryActivation.of(inner, path))
    return tuple(activations)


class _Stored(NamedTuple):
    """What is stored of a model has a size for the file, and one for each weight."""

    size: int | None
    sizes: ByIdentity[int]
    note: str = ""


def _stored(model: keras.Model) -> _Stored:
    """Return what `save` writes for each weight, or why it has no number or refuses the model."""
    try:
        contents = contents_of(model)
    except ValueError as error:
        return _Stored(None, ByIdentity(), f"bytes are not known: {error}")
    variables = [slot.latent if isinstance(slot, Parameter) else slot for slot in contents.slots]
    sizes = ByIdentity(zip(variables, contents.sizes, strict=True))
    try:
        check_loadable(model, contents)
    except ValueError as error:
        return _Stored(None, sizes, f"quantal.save refuses the model: {error}")
    return _Stored(contents.size, sizes)


def _row(
    variable: keras.Variable, parameter: Parameter | None, why: str, error: float | None
) -> SummaryRow:
    shape = tuple(variable.shape)
    bits = int(np.prod(shape)) * 8 * np.dtype(_numpy_name(variable.dtype)).itemsize
    if parameter is None:
        return SummaryRow(variable.path, shape, None, why, bits, bits)
    values, calibration, scale = parameter.values, parameter.calibration, parameter.scale_state
    codes = _codes(parameter)
    if calibration is not None and calibration.note:
        why = f"{why}; not calibrated: {calibration.note}"
    if parameter.choice is not None:
        option, count = parameter.choice.option, len(parameter.choice.options)
        why = f"chosen of {count} lists: {option.bytes / 1e3:.4g} kB, costs {option.loss:.3g}"
    return SummaryRow(
        path=parameter.path,
        shape=shape,
        values=values,
        why=why,
        bits_before=bits,
        bits_after=parameter.bits,
        error=error,
        output_error=None if calibration is None else calibration.error,
        estimator=name_of(parameter.estimator),
        scale=None if scale is None else scale.scale.method,
        scales=0 if scale is None else math.prod(scale.start.shape),
        entropy=None if codes is None else values.entropy(codes),
        usage=None if codes is None else _shares(values.usage(codes)),
    )


def _codes(parameter: Parameter) -> NDArray[np.int32] | None:
    """Return the codes of a parameter; None where training has diverged, so that it has none."""
    try:
        return whole_array(parameter.codes)
    except ValueError:
        return None


def _shares(counts: NDArray[np.int64]) -> tuple[float, ...]:
    return tuple((counts / max(int(counts.sum()), 1)).tolist())


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
    return np.asarray(whole_array(tensor)).astype(np.float64)


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
