"""Write an integer model as C, and check what was written."""

import dataclasses
import pathlib
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from quantal._export.c.text import names_in_c
from quantal._export.c.vectors import Vectors, check_program, samples_of_vectors
from quantal._export.c_integer.checking import checked, drawn_codes
from quantal._export.c_integer.program import IntegerSource
from quantal._export.integer.model import IntegerModel
from quantal._export.integer.to_integer import to_integer
from quantal._export.object_size import object_size
from quantal._export.report import Figures, Report, size_of
from quantal._export.target import Written


def write_c_integer(model: keras.Model | IntegerModel, path: pathlib.Path) -> Written:
    """Write a model as C in integers: `void net_predict(const uint8_t *, int32_t *)`.

    It computes what `quantal.to_integer(model).run` does, to the bit, without a float, without
    memory from the heap and without a header besides stdint.h. Pixels, or codes of int8, go in;
    int32 come out, one of which stands for the number `NET_OUTPUT_SCALE`.

    | weights | stored | computed |
    |---|---|---|
    | ±1, where the inputs are ±1 | 1 bit | 32 at once: XNOR, and bits counted |
    | ±1; 0 and 1; 0 and ±1 | 1, 1 and 2 bits | by multiplying, or adding and subtracting |
    | powers of two times one step, with a 0 or without | a sign and a shift | or by shifting |
    | other lists of less than 129 values | codes | by looking the integer up and multiplying |
    | others | int8 or int16 | by multiplying |

    The weights of one output at a time are unpacked into an array of int16, and serve all positions
    of a convolution, or 32 positions and more. Compilers turn sums of their products into
    instructions for several numbers at once. Where `NET_WITHOUT_PRODUCTS` is defined, products
    with ±1, 0 and powers of two are written as additions, subtractions and shifts, for processors
    without a fast multiplier.

    Args:
        model: A built model, or what `quantal.to_integer` returned.
        path: The source file, `net.c`; beside it stand the header `net.h` and `net_check.c`, a
            program that checks the network on samples of known outputs.

    Raises:
        TypeError: It is no Keras model.
        ValueError: It has no integer form (the message names the layer); or the file's name cannot
            stand in C.
    """
    integer = model if isinstance(model, IntegerModel) else to_integer(model)
    header, name = names_in_c(path)
    source = IntegerSource(integer)
    path.write_bytes(source.source(name, header.name).encode())
    header.write_bytes(source.header(name).encode())
    vectors = path.with_name(f"{path.stem}_check.c")
    _write_vectors(vectors, integer, drawn_codes(integer), path)

    def verify(report: Report, inputs: Any) -> Report:
        return _verified(report, integer, source, path, inputs)

    return Written([path, header, vectors], verify=verify)


def _write_vectors(
    vectors: pathlib.Path, integer: IntegerModel, codes: list[NDArray[Any]], path: pathlib.Path
) -> None:
    """Write a program that checks the network on the first samples."""
    header, name = names_in_c(path)
    program = integer.program
    count = samples_of_vectors(sum(each.size for each in program.inputs))
    firsts = [array[:count] for array in codes]
    outputs = integer.run(firsts if len(firsts) > 1 else firsts[0])
    arrays = outputs if len(program.outputs) > 1 else [outputs]
    rows = len(firsts[0])
    text = check_program(
        header.name,
        name,
        [Vectors(f"{array.dtype.name}_t", array.reshape(rows, -1)) for array in firsts],
        [Vectors("int32_t", array.reshape(rows, -1)) for array in arrays],
    )
    vectors.write_bytes(text.encode())


def _verified(
    report: Report, integer: IntegerModel, source: IntegerSource, path: pathlib.Path, inputs: Any
) -> Report:
    """Return the report of a compiled and checked network.

    Raises:
        ValueError: It does not compile, or its outputs are others than the reference's.
    """
    if inputs is None:
        codes = drawn_codes(integer)
    else:
        given = integer.codes(inputs)
        codes = [given] if len(integer.program.inputs) == 1 else given
        codes = [np.asarray(array) for array in codes]
        _write_vectors(path.with_name(f"{path.stem}_check.c"), integer, codes, path)
    remark = [f"a sample takes {source.operations}"]
    try:
        check = checked(path, names_in_c(path).name, integer, codes)
        size = None if check.missing else object_size(path)
    except RuntimeError as error:
        raise ValueError(
            f"The file {path.name!r} does not run: {error}. Expected a C99 compiler; take the file "
            "as it is with check=False."
        ) from None
    if check.missing:
        remark.append(f"not run: {check.missing}")
        return dataclasses.replace(report, remark="; ".join(remark))
    remark.insert(0, f"the same integers as the reference in NumPy on {check.samples:,} samples")
    if size is not None:
        remark.append(f"compiled here with -Os: {size}")
    figures = Figures(size_of(report.paths), 1e3 * check.seconds)
    return dataclasses.replace(report, figures=figures, remark="\n".join(remark))
