"""What pictures are drawn of: the parameters of a model or a layer, or an array and its list.

Keras is looked at only where it is loaded: pictures of arrays need no framework.
"""

import dataclasses
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from quantal._core.numbers.values import Values, ValuesLike
from quantal._core.table import shortened
from quantal._core.views import Views

if TYPE_CHECKING:
    from quantal._core.parameter import Parameter

MOST_NUMBERS = 256
"""An array with more different numbers is drawn with a list that the user gives."""

LEAST_OF_PATH = 20
"""A title has so many characters of a path, if need be in place of the scale."""

_TOLERANCE = 0.01
"""A number is a listed one where it is nearer to it than this share of the smallest gap: half
precision is enough for that."""

_EXPECTED = (
    "Expected a Keras model or layer with discrete layers, a parameter, a list of parameters as "
    "quantal.parameters_of(model) returns, a result of quantal.search, or an array of numbers."
)


@dataclasses.dataclass(frozen=True)
class Listed:
    """A listed array is what a picture draws of one parameter.

    Attributes:
        path: The parameter's path; empty for an array.
        values: The list.
        codes: The elements' codes, (*shape).
        latents: What the codes come from, (*shape), in the units of the list.
        scales: The factors that multiply the values, or None.
        names: The names of the positions of the first axis; empty for none.
    """

    path: str
    values: Values
    codes: NDArray[Any]
    latents: NDArray[np.float32]
    scales: NDArray[np.float32] | None = None
    names: tuple[str, ...] = ()

    @property
    def ranks(self) -> NDArray[np.intp]:
        """The positions of the elements' values in their ascending list, (*shape)."""
        order = self.values.order
        if self.values.channels is None:
            return np.argsort(order)[self.codes]
        rows = np.moveaxis(self.codes, self.values.axis, 0)
        flat = np.take_along_axis(np.argsort(order, axis=-1), rows.reshape(len(rows), -1), axis=1)
        return np.moveaxis(flat.reshape(rows.shape), 0, self.values.axis)

    @property
    def ascending(self) -> NDArray[np.float64]:
        """The list in ascending order, (K,); for lists per channel, the means of their ranks."""
        ascending = self.values.ascending.astype(float)
        return ascending if ascending.ndim == 1 else ascending.mean(axis=0)

    @property
    def usage(self) -> NDArray[np.int64]:
        """The number of elements at each rank, (K,)."""
        return np.bincount(self.ranks.ravel(), minlength=len(self.values))

    def title(self, size: int) -> str:
        """Return the path, the shape, and the scale where there is one, in so many characters.

        The start of a long path gives way to an ellipsis.
        """
        parts = [" × ".join(map(str, self.codes.shape))]
        if self.codes.ndim < 2:
            parts = [f"{self.codes.size} element" + "s" * (self.codes.size != 1)]
        if self.scales is not None:
            low, high = (f"{number:.2g}" for number in (self.scales.min(), self.scales.max()))
            parts.append(f"scale {low}" + (f" to {high}" if low != high else ""))
        facts = ",  ".join(parts)
        if not self.path:
            return facts
        if min(len(self.path), LEAST_OF_PATH) + len(facts) + 3 > size:
            facts = parts[0]  # Which weight it is says more than its scale.
        return f"{_end_of(self.path, max(size - len(facts) - 3, 8))},  {facts}"


def _end_of(path: str, size: int) -> str:
    """Return the end of a path in so many characters, whole parts where two of them fit."""
    end = shortened(path, size, "start")
    parts = end.partition("/")[2]
    return f"…/{parts}" if end != path and "/" in parts else end


def listed_in(
    source: Any, values: ValuesLike | None = None, names: Sequence[str] | None = None
) -> list[Listed]:
    """Return what is drawn of a source, one entry a parameter.

    Args:
        source: A model, a layer, a parameter, a list of parameters, a result of a search, or an
            array.
        values: The list of an array; None to take the result's, or the array's different numbers.
        names: Names of the positions of the first axis, for the parameters of that length.

    Raises:
        TypeError: The source is something else.
        ValueError: There is nothing to draw, no parameter has as many positions as there are
            names, or `values` came with parameters.
    """
    parameters = _parameters_in(source)
    if parameters is None:
        listed = [_listed_array(source, values)]
    elif values is not None:
        raise ValueError(
            f"values is {values!r}, and the source is {source!r}, whose parameters have lists of "
            "their own. Expected values with an array alone. Leave values out."
        )
    else:
        listed = [_listed_parameter(parameter) for parameter in parameters]
    return _with_names(listed, names) if names is not None else listed


def parameters_in(source: Any) -> "list[Parameter]":
    """Return the parameters of a model, a layer or a list of parameters.

    Raises:
        TypeError: It is something else.
        ValueError: There is no parameter.
    """
    parameters = _parameters_in(source)
    if parameters is None:
        raise TypeError(
            f"The source is {source!r} of type {type(source).__name__}. Expected a model or layer "
            "with discrete layers, or a list of parameters as quantal.parameters_of(model) returns."
        )
    return parameters


def _parameters_in(source: Any) -> "list[Parameter] | None":
    """Return the parameters of a source, or None for what has no parameters, such as an array."""
    if "keras" in sys.modules:
        import keras

        from quantal._core.parameter import Parameter, parameters_of

        if isinstance(source, keras.Layer):
            parameters = parameters_of(source)
            if not parameters:
                raise ValueError(
                    f"{source.name!r} has no parameter on a list, so there is nothing to draw. "
                    "Expected discrete layers in it. Wrap layers with quantal.Discrete, or call "
                    "quantal.discretize."
                )
            return parameters
        if isinstance(source, Parameter):
            return [source]
        if isinstance(source, Sequence) and any(isinstance(entry, Parameter) for entry in source):
            if not all(isinstance(entry, Parameter) for entry in source):
                raise TypeError(f"The source is {source!r}. {_EXPECTED}")
            return list(source)
    if isinstance(source, Sequence) and len(source) == 0:
        raise ValueError(
            "There are 0 parameters to draw. Expected at least one. Give a model with discrete "
            "layers, or what quantal.parameters_of returns for it."
        )
    return None


def _listed_parameter(parameter: "Parameter") -> Listed:
    codes, latents = (
        np.asarray(numbers_of(tensor))
        for tensor in (parameter.codes, parameter.latent_in_list_units)
    )
    scale = None if parameter.scale is None else np.atleast_1d(numbers_of(parameter.scale))
    return Listed(parameter.path, parameter.values, codes, latents, scale)


def _listed_array(source: Any, values: ValuesLike | None) -> Listed:
    numbers = checked_array(source)
    if values is None and vector_of_result(source) is not None:
        # A list for each element is no list of the whole.
        values = None if any(isinstance(entry, list) for entry in source.values) else source.values
    if values is None:
        different = np.unique(numbers)
        if len(different) > MOST_NUMBERS:
            raise ValueError(
                f"The array has {len(different):,} different numbers, and no list came with it. "
                f"Expected at most {MOST_NUMBERS} without a list. Give the list: values=[1, -1]."
            )
        values = different if len(different) else [0.0]
    parsed = values if isinstance(values, Values) else Values(values)
    return Listed("", parsed, parsed.codes(numbers), numbers)


def checked_array(source: Any) -> NDArray[np.float32]:
    """Return a source as a float32 array.

    Raises:
        TypeError: It is no array of real numbers.
        ValueError: A number is NaN or infinite.
    """
    try:
        numbers = np.asarray(numbers_of(source))
    except (TypeError, ValueError):
        numbers = np.asarray(None)
    if np.iscomplexobj(numbers):
        raise TypeError(
            "The array has complex numbers. Expected real ones. Draw numpy.angle of them, or the "
            "beam that they form with quantal.plots.plot_beam."
        )
    if numbers.dtype.kind not in "biuf":
        raise TypeError(f"The source is {source!r} of type {type(source).__name__}. {_EXPECTED}")
    numbers = numbers.astype(np.float32)
    if not np.isfinite(numbers).all():
        count = int(np.sum(~np.isfinite(numbers)))
        raise ValueError(
            f"{count} of {numbers.size} numbers of the array are NaN or infinite. Expected finite "
            "numbers. Training has diverged, or they were computed wrongly."
        )
    return numbers


def vector_of_result(source: Any) -> NDArray[Any] | None:
    """Return the vector of a result of `quantal.search`, and None for all else."""
    return getattr(source, "vector", None) if isinstance(source, Views) else None


def numbers_of(tensor: Any) -> Any:
    """Return a tensor, a variable or a result's vector as a NumPy array, and all else as it is."""
    vector = vector_of_result(tensor)
    if vector is not None:
        return vector
    if "keras" in sys.modules:
        from keras import KerasTensor, Variable, ops

        from quantal._core.tensors.distributed import whole_array

        if isinstance(tensor, Variable) or ops.is_tensor(tensor):
            if isinstance(tensor, KerasTensor):
                raise TypeError("a symbolic tensor has no numbers")
            return whole_array(tensor)
    return tensor


def check_listed(listed: Listed) -> None:
    """Refuse an array whose numbers are not those of its list.

    Raises:
        ValueError: A number is not in the list.
    """
    if listed.path:
        return
    ascending = listed.values.ascending
    gap = float(np.diff(ascending).min()) if len(ascending) > 1 else 1.0
    distance = np.abs(listed.latents - listed.values.take(listed.codes))
    off = int(np.sum(distance > _TOLERANCE * gap))
    if off:
        raise ValueError(
            f"{off:,} of {listed.codes.size:,} numbers of the array are not in the list "
            f"{listed.values!r}. Expected listed numbers. Draw latents with "
            "quantal.plots.plot_latents, or give the list that the numbers are on."
        )


def checked_most(most: int) -> int:
    """Return the number of parameters to draw.

    Raises:
        ValueError: It is below 1.
    """
    if most < 1:
        raise ValueError(f"most is {most}. Expected the number of parameters to draw, at least 1.")
    return most


def heading_of(title: str, left_out: int) -> str:
    """Return what stands above a figure: its title, and how many parameters are not drawn."""
    rest = f"and {left_out} more not drawn" if left_out else ""
    return ", ".join(part for part in (title, rest) if part)


def _with_names(listed: list[Listed], names: Sequence[str]) -> list[Listed]:
    words = tuple(map(str, names))
    named = [
        dataclasses.replace(entry, names=words) if entry.codes.shape[:1] == (len(words),) else entry
        for entry in listed
    ]
    if not any(entry.names for entry in named):
        shapes = ", ".join(str(entry.codes.shape) for entry in listed[:8])
        raise ValueError(
            f"names has {len(words)} names, and the shapes are {shapes}. Expected a name for each "
            "position of the first axis of one of them, such as the columns of the table that "
            "meets the first layer."
        )
    return named
