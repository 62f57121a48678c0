"""Write codes and values as arrays for other tools: NumPy, CSV, Verilog."""

import csv
import io
import pathlib
import re
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from quantal._core.parameter import Parameter, parameters_of
from quantal._core.tensors.distributed import whole_array
from quantal._export.target import Written
from quantal._storage.names import unused_name

_LONGEST_IDENTIFIER = 100
"""A file's name holds the last characters of a parameter's: file systems allow 255 bytes."""


def write_npz(model: keras.Model, path: pathlib.Path) -> Written:
    """Write the codes, list and scale of every parameter as a NumPy archive.

    It holds `<name>.codes` (uint8 or uint16, the parameter's shape), `<name>.values`
    (float32, the list in the order of its codes) and, where there is one,
    `<name>.scale` (float32, broadcasts over the weight). The weight is
    `values[codes] * scale`; for lists per channel `values` has a row for each.

    Args:
        model: A built model.
        path: The file.

    Raises:
        ValueError: The model has no parameter.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for name, parameter in _named(model).items():
        arrays[f"{name}.codes"] = _codes(parameter)
        arrays[f"{name}.values"] = parameter.values.numbers
        if parameter.scale is not None:
            arrays[f"{name}.scale"] = whole_array(parameter.scale)
    with open(path, "wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    return Written([path])


def write_csv(model: keras.Model, path: pathlib.Path) -> Written:
    """Write one vector as a table: index, code and value of every element, scale included.

    Args:
        model: A built model with one parameter, all of whose elements lie along one axis.
        path: The file.

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
    codes, weights = _codes(parameter).ravel(), whole_array(parameter.weight).ravel()
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["index", "code", "value"])
    # A float32 as text that gives it back.
    rows.writerows(zip(range(len(codes)), codes, map(str, weights), strict=True))
    path.write_bytes(text.getvalue().encode())
    return Written([path])


def write_verilog(model: keras.Model, path: pathlib.Path) -> Written:
    """Write the codes of every parameter as a file that Verilog's `$readmemh` reads.

    A line holds one code as a hexadecimal number, the last axis running fastest; above them
    stand, as comments, the shape, the scale and the value of each code. A memory for
    it has as many bits as the list needs: `reg [1:0] kernel [0:99];
    initial $readmemh("kernel.mem", kernel);`.

    Args:
        model: A built model.
        path: The file. For several parameters there is a file for each,
            `weights.mem` becoming `weights.dense_kernel.mem` and so on; names that are equal
            in letters, digits and `_` are numbered. `Report.paths` has them in order.

    Raises:
        ValueError: The model has no parameter.

    Source: IEEE Std 1364-2005, section 17.2.9.
    """
    named = _named(model)
    identifiers: dict[str, None] = {}
    paths = []
    for name, parameter in named.items():
        identifier = re.sub(r"\W+", "_", name, flags=re.ASCII)[-_LONGEST_IDENTIFIER:]
        # Names that differ in such characters or in their case alone are numbered: some file
        # systems do not tell cases apart.
        unused = unused_name(identifier.lower(), identifiers)
        identifiers[unused] = None
        number = unused.removeprefix(identifier.lower()).replace("#", "_")
        one = len(named) == 1
        file = path if one else path.with_name(f"{path.stem}.{identifier}{number}{path.suffix}")
        file.write_bytes(_memory(name, parameter).encode())
        paths.append(file)
    return Written(paths)


def _named(model: keras.Model) -> dict[str, Parameter]:
    """Return the parameters by their paths, with a number behind a path that is taken.

    Characters that do not print, such as line ends, are written as escapes: layers may have
    any name, and the names stand in comments and archives.
    """
    named: dict[str, Parameter] = {}
    for parameter in parameters_of(model):
        name = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in parameter.path)
        named[unused_name(_within(name), named)] = parameter
    if not named:
        raise ValueError(
            f"The model {model.name!r} has no discrete weight. Expected one, whose codes can "
            "be written. Put weights on a list with quantal.discretize first."
        )
    return named


def _within(name: str) -> str:
    """Return a name of which no part leads out of the folder that an archive is unpacked in."""
    return "/".join("_" if part in ("", ".", "..") else part for part in name.split("/"))


def _codes(parameter: Parameter) -> NDArray[Any]:
    """Return the codes in the smallest of NumPy's unsigned integers."""
    dtype = np.uint8 if len(parameter.values) <= 256 else np.uint16
    return whole_array(parameter.codes).astype(dtype)


def _memory(name: str, parameter: Parameter) -> str:
    """Return the text of a memory file."""
    values, codes = parameter.values, _codes(parameter)
    digits = max(1, -(-values.bits // 4))
    lines = [f"// {name}, shape {'x'.join(map(str, parameter.shape))}, {values.bits} bits a code"]
    if parameter.scale_state is not None:
        scale = np.asarray(whole_array(parameter.scale_state.compact()))
        lines.append(f"// scale {', '.join(map(str, scale.ravel()))}")
    for channel, row in enumerate(np.atleast_2d(values.numbers)):
        prefix = "" if values.channels is None else f"channel {channel}, "
        lines += [f"// {prefix}{code:0{digits}x} = {value}" for code, value in enumerate(row)]
    return "\n".join([*lines, *(f"{code:0{digits}x}" for code in codes.ravel().tolist())]) + "\n"
