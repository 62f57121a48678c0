"""Simulate Verilog modules with iverilog."""

import pathlib
import re
import shutil
import subprocess
import tempfile
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from quantal._export.c.text import filled
from quantal._export.verilog.clocked import ClockedModule
from quantal._export.verilog.module import VerilogModule
from quantal._export.verilog.text import packed, template

SIMULATOR = "iverilog"
_PATIENCE = 4
"""A clocked module is given up after so many times the clocks that it should take: the bench
makes it wait in half of them."""


class Simulated(NamedTuple):
    """A simulation gives the outputs and counts the clocks.

    Attributes:
        outputs: Integers, shape (samples, outputs).
        clocks: The clocks of the first sample; 0 where the module has no clock.
    """

    outputs: NDArray[np.int64]
    clocks: int = 0


def simulator() -> str | None:
    """Return the path of the simulator, or None where it is not installed."""
    return shutil.which(SIMULATOR)


def simulate(
    module: VerilogModule | ClockedModule, source: pathlib.Path, codes: NDArray[Any]
) -> Simulated:
    """Simulate a module on samples.

    Args:
        module: The module.
        source: Its file.
        codes: Integers, shape (samples, inputs).

    Raises:
        ValueError: It does not compile, or gives other than one result for each sample.
    """
    if isinstance(module, ClockedModule):
        return _clocked(module, source, codes)
    return _combinational(module, source, codes)


def _combinational(module: VerilogModule, source: pathlib.Path, codes: NDArray[Any]) -> Simulated:
    inputs = module.input_size * module.input_bits
    outputs = module.output_size * module.output_bits
    bench = filled(
        template("bench.v"),
        inputs=str(inputs - 1),
        outputs=str(outputs - 1),
        last=str(len(codes) - 1),
        name=_name_in(source),
    )
    rows = [f"{packed(sample, module.input_bits):0{inputs}b}" for sample in codes]
    lines = _run_bench(bench, rows, source).split()
    bits = module.output_bits
    # The last output stands first.
    numbers = [
        [int(line[begin : begin + bits], 2) for begin in range(0, len(line), bits)][::-1]
        for line in lines
    ]
    unsigned = np.array(numbers, np.int64)
    return Simulated(unsigned - (unsigned >> (bits - 1) << bits))


def _clocked(module: ClockedModule, source: pathlib.Path, codes: NDArray[Any]) -> Simulated:
    bits = module.input.bits
    bench = filled(
        template("clocked_bench.v"),
        input_end=str(bits - 1),
        output_end=str(module.output_bits - 1),
        inputs=str(module.input_size),
        outputs=str(module.output_size),
        all_inputs=str(codes.size),
        all_outputs=str(len(codes) * module.output_size),
        most=str(_PATIENCE * module.clocks * len(codes)),
        name=_name_in(source),
    )
    rows = [f"{packed([code], bits):0{bits}b}" for code in codes.ravel()]
    first, *lines = _run_bench(bench, rows, source).split()
    try:
        outputs = np.array([int(line) for line in lines], np.int64).reshape(len(codes), -1)
    except ValueError:
        raise ValueError(
            f"{SIMULATOR} simulated {source.name!r} with {len(lines)} outputs, the last of them "
            f"{lines[-1:]}. Expected {len(codes) * module.output_size} integers. Report it with "
            "the model; check=False writes the file as it is."
        ) from None
    return Simulated(outputs, int(first))


def _name_in(source: pathlib.Path) -> str:
    """Return the name of the first module in a file."""
    return re.findall(r"^module (\w+)", source.read_text(), re.MULTILINE)[0]


def _run_bench(bench: str, rows: list[str], source: pathlib.Path) -> str:
    """Return what a bench prints, which reads rows of bits from `samples.mem`."""
    program = simulator() or SIMULATOR
    with tempfile.TemporaryDirectory() as folder:
        files = pathlib.Path(folder)
        (files / "samples.mem").write_text("\n".join(rows))
        (files / "bench.v").write_text(bench)
        _run([program, "-g2005", "-o", "bench", "bench.v", str(source.resolve())], folder)
        return _run([str(pathlib.Path(program).with_name("vvp")), "bench"], folder)


def _run(command: list[str], folder: str) -> str:
    process = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    if process.returncode:
        lines = (process.stderr or process.stdout).strip().splitlines()
        raise ValueError(
            f"{SIMULATOR} says {(lines or ['nothing'])[0]}. Expected a module that it simulates. "
            "Take the file as it is with check=False."
        )
    return process.stdout
