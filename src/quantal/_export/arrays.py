"""Codes and values as arrays for other tools: NumPy, CSV, Verilog."""

import csv
import io
import os
import pathlib
import re
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from quantal._core.parameter import Parameter, parameters_of
from quantal._storage.atomic import replace_file
from quantal._storage.names import unused_name

Path = str | os.PathLike[str]


def write_npz(model: keras.Layer, path: Path) -> list[pathlib.Path]:
    """The codes, list and scale of every parameter as a NumPy archive.

    It holds `<name>.codes` (uint8 or uint16, the parameter's shape), `<name>.values`
    (float32, the list in the order of its codes) and, where there is one,
    `<name>.scale` (float32, broadcasts over the weight). The weight is
    `values[codes] * scale`; for lists per channel `values` has a row for each.

    Args:
        model: A built model or layer.
        path: The file.

    Returns:
        The files written.

    Raises:
        ValueError: The model has no parameter.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for name, parameter in _named(model).items():
        arrays[f"{name}.codes"] = _codes(parameter)
        arrays[f"{name}.values"] = parameter.values.numbers
        if parameter.scale is not None:
            arrays[f"{name}.scale"] = ops.convert_to_numpy(parameter.scale)
    with replace_file(path) as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    return [pathlib.Path(path)]


def write_csv(model: keras.Layer, path: Path) -> list[pathlib.Path]:
    """One vector as a table: index, code and value of every element, scale included.

    Args:
        model: A built model or layer with one parameter, all of whose elements lie
            along one axis.
        path: The file.

    Returns:
        The files written.

    Raises:
        ValueError: The model has another number of parameters, or no vector.
    """
    named = _named(model)
    shapes = {name: parameter.shape for name, parameter in named.items()}
    if len(named) > 1 or any(np.prod(s) != max(s, default=1) for s in shapes.values()):
        raise ValueError(
            f"The model has the parameters {shapes}. CSV holds one vector. Export to '.npz', "
            "which holds any number of any shape."
        )
    (parameter,) = named.values()
    codes, weights = _codes(parameter).ravel(), _weights(parameter).ravel()
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["index", "code", "value"])
    # A float32 as text that gives it back.
    rows.writerows(zip(range(len(codes)), codes, map(str, weights), strict=True))
    with replace_file(path) as file:
        file.write(text.getvalue().encode())
    return [pathlib.Path(path)]


def write_verilog(model: keras.Layer, path: Path) -> list[pathlib.Path]:
    """The codes of every parameter as a file that Verilog's `$readmemh` reads.

    One code a line, as a hexadecimal number, the last axis running fastest; above them,
    as comments, the shape, the scale and which value each code stands for. A memory for
    it has as many bits as the list needs: `reg [1:0] kernel [0:99];
    initial $readmemh("kernel.mem", kernel);`.

    Args:
        model: A built model or layer.
        path: The file. For several parameters each has a file of its own,
            `weights.mem` becoming `weights.dense_kernel.mem` and so on.

    Returns:
        The files written.

    Raises:
        ValueError: The model has no parameter.

    Source: IEEE Std 1364-2005, section 17.2.9.
    """
    place, named = pathlib.Path(path), _named(model)
    written = []
    for name, parameter in named.items():
        identifier = re.sub(r"\W+", "_", name)
        own = place
        if len(named) > 1:
            own = place.with_name(f"{place.stem}.{identifier}{place.suffix}")
        with replace_file(own) as file:
            file.write(_memory(name, parameter).encode())
        written.append(own)
    return written


def _named(model: keras.Layer) -> dict[str, Parameter]:
    """The parameters by names of their own."""
    named: dict[str, Parameter] = {}
    for parameter in parameters_of(model):
        named[unused_name(parameter.path, named)] = parameter
    if not named:
        raise ValueError(
            f"The model {model.name!r} has no discrete weight. Expected one, whose codes can "
            "be written. Put weights on a list with quantal.discretize first."
        )
    return named


def _codes(parameter: Parameter) -> NDArray[Any]:
    """The codes, in the smallest of NumPy's integers."""
    dtype = np.uint8 if len(parameter.values) <= 256 else np.uint16
    return ops.convert_to_numpy(parameter.codes).astype(dtype)  # type: ignore[no-any-return]


def _weights(parameter: Parameter) -> NDArray[np.float32]:
    """What the layer computes with: the values, times the scale."""
    return ops.convert_to_numpy(parameter.weight)  # type: ignore[no-any-return]


def _memory(name: str, parameter: Parameter) -> str:
    values, codes = parameter.values, _codes(parameter)
    digits = max(1, -(-values.bits // 4))
    lines = [f"// {name}, shape {'x'.join(map(str, parameter.shape))}, {values.bits} bits a code"]
    if parameter.scale is not None:
        scale = np.asarray(ops.convert_to_numpy(parameter.scale))
        lines.append(f"// scale {', '.join(map(str, scale.ravel()))}")
    rows = np.atleast_2d(values.numbers)
    for channel, row in enumerate(rows):
        of = "" if values.channels is None else f"channel {channel}, "
        lines += [f"// {of}{code:0{digits}x} = {value}" for code, value in enumerate(row)]
    return "\n".join([*lines, *(f"{code:0{digits}x}" for code in codes.ravel().tolist())]) + "\n"
