"""Write a model as a Verilog module, and simulate it."""

import dataclasses
import pathlib
import re
import shutil
import subprocess
import tempfile
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from quantal._export.c_integer.checking import drawn_codes
from quantal._export.integer.model import IntegerModel
from quantal._export.integer.to_integer import to_integer
from quantal._export.report import Report
from quantal._export.target import Written
from quantal._export.verilog.module import VerilogModule, packed

_SIMULATOR = "iverilog"
_SAMPLES = 64
"""At most so many samples are simulated."""
_BENCH = """\
module bench;
  reg [{inputs}:0] samples [0:{last}];
  reg [{inputs}:0] x;
  wire [{outputs}:0] y;
  integer n;
  {name} module_under_test (x, y);
  initial begin
    $readmemb("samples.mem", samples);
    for (n = 0; n <= {last}; n = n + 1) begin
      x = samples[n];
      #1 $display("%b", y);
    end
  end
endmodule
"""


def write_verilog_module(model: keras.Model | IntegerModel, path: pathlib.Path) -> Written:
    """Write a model as one Verilog module: biases and normalization are in its integers.

    It computes what `quantal.to_integer(model).run` does, to the bit, without a clock: all products
    stand beside each other. Where `iverilog` is installed, it is simulated and compared.

    Args:
        model: A built model of Dense layers and DiscreteActivation.
        path: The file, `net.v`; the module has its name.

    Raises:
        TypeError: It is no Keras model.
        ValueError: It has no integer form, or one that is no such chain.

    Source: IEEE Std 1364-2005.
    """
    integer = model if isinstance(model, IntegerModel) else to_integer(model)
    module = VerilogModule(integer)
    name = re.sub(r"\W", "_", path.stem, flags=re.ASCII)
    name = name if name[:1].isalpha() else f"model_{name}"
    path.write_bytes(module.text(name).encode())

    def verify(report: Report, inputs: Any) -> Report:
        codes = drawn_codes(integer)[0] if inputs is None else np.asarray(integer.codes(inputs))
        codes = codes[:_SAMPLES].reshape(len(codes[:_SAMPLES]), -1)
        return _verified(report, integer, module, path, codes)

    return Written([path], verify=verify)


def _verified(
    report: Report,
    integer: IntegerModel,
    module: VerilogModule,
    path: pathlib.Path,
    codes: NDArray[Any],
) -> Report:
    """Return the report of a simulated module.

    Raises:
        ValueError: It does not compile, or its outputs are others than the reference's.
    """
    simulator = shutil.which(_SIMULATOR)
    if simulator is None:
        return dataclasses.replace(report, remark=f"not run: {_SIMULATOR} is not installed")
    shape = integer.program.inputs[0].shape
    expected = integer.run(codes.reshape(-1, *shape)).reshape(len(codes), -1)
    outputs = _simulated(simulator, module, path, codes)
    if not np.array_equal(outputs, expected):
        raise ValueError(
            f"The module {path.name!r} computes others than the integers of the reference, for "
            f"{np.count_nonzero((outputs != expected).any(axis=1))} of {len(codes)} samples. "
            "Expected the same to the bit. Export to '.c' with the target 'c_integer' instead, and "
            "report this as an error of quantal."
        )
    return dataclasses.replace(
        report, remark=f"the same integers as the reference in NumPy on {len(codes)} samples"
    )


def _simulated(
    simulator: str, module: VerilogModule, path: pathlib.Path, codes: NDArray[Any]
) -> NDArray[np.int64]:
    """Return the outputs of a module for samples, shape (samples, outputs)."""
    inputs, outputs = (
        module.input_size * module.input_bits,
        module.output_size * module.output_bits,
    )
    source = path.resolve()
    name = re.findall(r"^module (\w+)", source.read_text(), re.MULTILINE)[0]
    with tempfile.TemporaryDirectory() as folder:
        bench_folder = pathlib.Path(folder)
        rows = [f"{packed(sample, module.input_bits):0{inputs}b}" for sample in codes]
        (bench_folder / "samples.mem").write_text("\n".join(rows))
        bench = _BENCH.format(
            inputs=inputs - 1, outputs=outputs - 1, last=len(codes) - 1, name=name
        )
        (bench_folder / "bench.v").write_text(bench)
        _run([simulator, "-g2005", "-o", "bench", "bench.v", str(source)], folder)
        lines = _run([str(pathlib.Path(simulator).with_name("vvp")), "bench"], folder)
    bits = module.output_bits
    # The last output stands first.
    numbers = [
        [int(line[begin : begin + bits], 2) for begin in range(0, len(line), bits)][::-1]
        for line in lines.split()
    ]
    unsigned = np.array(numbers, np.int64)
    return unsigned - (unsigned >> (bits - 1) << bits)


def _run(command: list[str], folder: str) -> str:
    process = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    if process.returncode:
        lines = (process.stderr or process.stdout).strip().splitlines()
        raise ValueError(
            f"{_SIMULATOR} says {(lines or ['nothing'])[0]}. Expected a module that it simulates. "
            "Take the file as it is with check=False."
        )
    return process.stdout
