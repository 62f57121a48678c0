"""Write a model as a Verilog module, and compare its simulation with the reference."""

import dataclasses
import pathlib
import re
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from quantal._export.c_integer.checking import drawn_codes
from quantal._export.integer.model import IntegerModel
from quantal._export.integer.to_integer import to_integer
from quantal._export.report import Report
from quantal._export.target import Written
from quantal._export.verilog.clocked import ClockedModule
from quantal._export.verilog.module import VerilogModule, is_small_chain
from quantal._export.verilog.simulation import SIMULATOR, simulate, simulator

_SAMPLES = 64
"""At most so many samples are simulated."""
_CLOCKS = 2**15
"""So many clocks are simulated, which takes a second or two, or those of the fewest samples."""
_FEWEST_SAMPLES = 4
"""Drawn samples begin with all smallest and all largest integers; two more are drawn."""

_Module = VerilogModule | ClockedModule


def write_verilog_module(model: keras.Model | IntegerModel, path: pathlib.Path) -> Written:
    """Write a model as a Verilog module: biases and normalization are in its integers.

    It computes what `quantal.to_integer(model).run` does, to the bit. A small chain of Dense layers
    becomes logic without a clock, all products beside each other; anything else is
    written as `write_verilog_clocked` does. Where `iverilog` is installed, it is simulated and
    compared.

    Args:
        model: A built model that has an integer form.
        path: The file, `net.v`; the module has its name.

    Raises:
        TypeError: It is no Keras model.
        ValueError: It has no integer form, or a step that a module does not hold.

    Source: IEEE Std 1364-2005.
    """
    return _written(
        model,
        path,
        lambda integer: (VerilogModule if is_small_chain(integer) else ClockedModule)(integer),
    )


def write_verilog_clocked(model: keras.Model | IntegerModel, path: pathlib.Path) -> Written:
    """Write a model as a Verilog module with a clock: one layer computes at a time.

    Numbers go in and come out one a clock, with `valid` and `ready` on both sides. Weights are
    codes in memories; up to 64 outputs of a layer are summed up at a time, each by an adder that
    takes one of a few multiples of the input, which are computed once.

    Args:
        model: A built model that has an integer form.
        path: The file, `net.v`; the module has its name.

    Raises:
        TypeError: It is no Keras model.
        ValueError: It has no integer form, or a step that a module does not hold.

    Source: IEEE Std 1364-2005.
    """
    return _written(model, path, ClockedModule)


def _written(
    model: keras.Model | IntegerModel,
    path: pathlib.Path,
    module_of: Callable[[IntegerModel], _Module],
) -> Written:
    integer = model if isinstance(model, IntegerModel) else to_integer(model)
    module = module_of(integer)
    name = re.sub(r"\W", "_", path.stem, flags=re.ASCII)
    name = name if name[:1].isalpha() else f"model_{name}"
    path.write_bytes(module.text(name).encode())

    def verify(report: Report, inputs: Any) -> Report:
        codes = drawn_codes(integer)[0] if inputs is None else np.asarray(integer.codes(inputs))
        codes = codes[: _samples_of(module)]
        return _verified(report, integer, module, path, codes.reshape(len(codes), -1))

    return Written([path], verify=verify)


def _samples_of(module: _Module) -> int:
    """Return how many samples are simulated."""
    if isinstance(module, VerilogModule):
        return _SAMPLES
    return int(np.clip(_CLOCKS // module.clocks, _FEWEST_SAMPLES, _SAMPLES))


def _verified(
    report: Report,
    integer: IntegerModel,
    module: _Module,
    path: pathlib.Path,
    codes: NDArray[Any],
) -> Report:
    """Return the report of a simulated module.

    Raises:
        ValueError: It does not compile, or its outputs are others than the reference's.
    """
    if simulator() is None:
        return dataclasses.replace(report, remark=f"not run: {SIMULATOR} is not installed")
    shape = integer.program.inputs[0].shape
    expected = integer.run(codes.reshape(-1, *shape)).reshape(len(codes), -1)
    outputs, clocks = simulate(module, path, codes)
    if not np.array_equal(outputs, expected):
        raise ValueError(
            f"The module {path.name!r} computes others than the integers of the reference, for "
            f"{np.count_nonzero((outputs != expected).any(axis=1))} of {len(codes)} samples. "
            "Expected the same to the bit. Export to '.c' with the target 'c_integer' instead, and "
            "report this as an error of quantal."
        )
    remark = f"the same integers as the reference in NumPy on {len(codes)} samples"
    if clocks:
        remark += f"; a sample takes {clocks:,} clocks"
    return dataclasses.replace(report, remark=remark)
