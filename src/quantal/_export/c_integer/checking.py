"""Compile an integer network, and compare it with the reference in NumPy: to the bit."""

import pathlib
import shutil
import subprocess
import tempfile
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from quantal._export.c.memory import names_of
from quantal._export.integer.model import IntegerModel
from quantal._export.integer.program import IntegerInput

_SAMPLES = 64
"""So many samples are drawn where none are given, besides the ends of each range."""

_RUNNER = """\
#include <stdio.h>
#include <time.h>
#include "{header}"
int main(void)
{{
    double seconds = 0;
    {buffers}
    while ({reads}) {{
        const clock_t start = clock();
        {name}_predict({arguments});
        seconds += (double)(clock() - start) / CLOCKS_PER_SEC;
        {writes}
    }}
    fprintf(stderr, "%.9g", seconds);
    return 0;
}}
"""
"""C: computes the samples that it reads, and says how long it took."""


class Checked(NamedTuple):
    """A check of a compiled network.

    Attributes:
        samples: The number of samples on which it gave the reference's integers.
        seconds: Time of all samples, on one thread.
        missing: Why it was not run; or empty.
    """

    samples: int
    seconds: float = 0.0
    missing: str = ""


def drawn_codes(model: IntegerModel, samples: int = _SAMPLES, seed: int = 0) -> list[NDArray[Any]]:
    """Return codes for each input, drawn evenly: first all smallest and all largest ones.

    Args:
        model: The integer model.
        samples: The number of samples that are drawn.
        seed: The same seed draws the same codes.
    """
    random = np.random.default_rng(seed)
    return [_drawn(each, samples, random) for each in model.program.inputs]


def _drawn(each: IntegerInput, samples: int, random: np.random.Generator) -> NDArray[Any]:
    listed = np.arange(each.bounds.low, each.bounds.high + 1)
    if each.grid is not None:
        listed = each.grid.integers
    codes = random.choice(listed, size=(samples, *each.shape))
    ends = np.broadcast_to(listed[[0, -1]].reshape(-1, *[1] * len(each.shape)), (2, *each.shape))
    return np.concatenate([ends, codes]).astype(each.bounds.dtype)


def checked(
    source: pathlib.Path, name: str, model: IntegerModel, codes: list[NDArray[Any]]
) -> Checked:
    """Compile a network and run it on codes.

    Args:
        source: The C file; its header lies beside it.
        name: The beginning of the names in C.
        model: The integer model that it was written from.
        codes: Integers of each input.

    Raises:
        RuntimeError: It does not compile or run.
        ValueError: An output is another integer than the reference's.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return Checked(0, missing="no C compiler (cc) was found")
    expected = model.run(codes if len(codes) > 1 else codes[0])
    arrays = [expected] if len(model.program.outputs) == 1 else expected
    with tempfile.TemporaryDirectory() as folder:
        program = pathlib.Path(folder) / "program"
        runner = pathlib.Path(folder) / "runner.c"
        runner.write_text(_runner(source, name, model))
        files = [str(source), str(runner), "-o", str(program)]
        _run([compiler, "-std=c99", "-O2", f"-I{source.parent}", *files])
        samples = len(codes[0])
        rows = np.concatenate(
            [np.ascontiguousarray(c).reshape(samples, -1).view(np.uint8) for c in codes], axis=1
        )
        process = _run([str(program)], rows.tobytes())
    outputs = np.frombuffer(process.stdout, np.int32)
    wanted = np.concatenate([array.reshape(samples, -1) for array in arrays], axis=1)
    if outputs.size != wanted.size or (outputs.reshape(wanted.shape) != wanted).any():
        differing = int((outputs != wanted.ravel()[: outputs.size]).sum())
        raise ValueError(
            f"{source.name!r} gives {outputs.size} outputs, of which {differing} differ from the "
            f"integer reference. Expected the same {wanted.size}. Report it with the model; "
            "check=False writes the file as it is."
        )
    return Checked(samples, float(process.stderr))


def _runner(source: pathlib.Path, name: str, model: IntegerModel) -> str:
    """Return the C of a program that reads samples and writes their outputs."""
    inputs, outputs = (
        names_of("input", len(model.program.inputs)),
        names_of("output", len(model.program.outputs)),
    )
    buffers = [
        f"static {each.bounds.dtype.name}_t {label}[{each.size}];"
        for label, each in zip(inputs, model.program.inputs, strict=True)
    ]
    buffers += [
        f"static int32_t {label}[{int(np.prod(each.shape))}];"
        for label, each in zip(outputs, model.program.outputs, strict=True)
    ]
    return _RUNNER.format(
        header=source.with_suffix(".h").name,
        name=name,
        buffers="\n    ".join(buffers),
        reads=" && ".join(f"fread({each}, sizeof {each}, 1, stdin) == 1" for each in inputs),
        arguments=", ".join([*inputs, *outputs]),
        writes="\n        ".join(f"fwrite({each}, sizeof {each}, 1, stdout);" for each in outputs),
    )


def _run(command: list[str], data: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    process = subprocess.run(command, input=data, capture_output=True)
    if process.returncode:
        lines = process.stderr.decode(errors="replace").strip().splitlines()
        errors = [line for line in lines if "error:" in line] or lines
        raise RuntimeError(
            f"{command[0]} ended with the code {process.returncode}"
            + (f": {errors[0]}" if errors else "")
        )
    return process
