"""Write test vectors: a C program that checks an exported one on samples of known outputs."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from quantal._export.c.memory import names_of
from quantal._export.c.text import filled, initializers, template

_MOST_SAMPLES = 8
_MOST_NUMBERS = 2**14
"""Vectors hold so many numbers of inputs at most, since they have to fit a microcontroller, too."""


class Vectors(NamedTuple):
    """Samples, one input or output each.

    Attributes:
        type: The type of the numbers in C.
        numbers: Shape (samples, size), in the dtype of that type.
    """

    type: str
    numbers: NDArray[Any]


def samples_of_vectors(size: int) -> int:
    """Return how many samples of so many numbers make good test vectors."""
    return max(1, min(_MOST_SAMPLES, _MOST_NUMBERS // max(size, 1)))


def check_program(
    header: str, name: str, inputs: Sequence[Vectors], outputs: Sequence[Vectors], bound: float = 0
) -> str:
    """Return the source of a program whose `main` checks an exported network.

    It prints how many outputs are wrong, and returns 0 where none is.

    Args:
        header: The file name of the network's header.
        name: The beginning of the network's names in C.
        inputs: Samples for each input.
        outputs: The outputs that are right for them.
        bound: The largest difference that is right; 0 for the same numbers.
    """
    of_inputs, of_outputs = names_of("input", len(inputs)), names_of("output", len(outputs))
    arrays = [
        _array(f"static const {each.type} {label}", each.numbers)
        for label, each in [
            *zip(of_inputs, inputs, strict=True),
            *zip([f"expected_{n}" for n in of_outputs], outputs, strict=True),
        ]
    ]
    arrays += [
        f"static {each.type} {label}[{each.numbers.shape[1]}];"
        for label, each in zip(of_outputs, outputs, strict=True)
    ]
    comparisons = [
        _comparison(label, each.numbers.shape[1], bound)
        for label, each in zip(of_outputs, outputs, strict=True)
    ]
    arguments = ", ".join([*(f"{label}[sample]" for label in of_inputs), *of_outputs])
    return filled(
        template("vectors.c"),
        header=header,
        includes="#include <math.h>\n" if bound else "",
        samples=str(len(inputs[0].numbers)),
        arrays="\n".join(arrays),
        call=f"{name}_predict({arguments});",
        comparisons="\n".join(comparisons),
    )


def _array(declaration: str, numbers: NDArray[Any]) -> str:
    """Return the definition of an array of samples."""
    rows = ",\n".join(f"    {{\n{initializers(row)}\n    }}" for row in numbers)
    return f"{declaration}[SAMPLES][{numbers.shape[1]}] = {{\n{rows}\n}};"


def _comparison(label: str, size: int, bound: float) -> str:
    """Return the lines that count wrong outputs."""
    expected, output = f"expected_{label}[sample][i]", f"{label}[i]"
    # Written so that a NaN is wrong.
    differs = f"{output} != {expected}"
    if bound:
        differs = f"!(fabsf({output} - {expected}) <= {np.float32(bound):.9g}f)"
    return f"        for (int i = 0; i < {size}; i++, total++)\n            wrong += {differs};"
