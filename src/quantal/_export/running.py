"""Run an exported file in a process of its own, and report what it took."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from quantal._export import runtimes

Outputs = dict[int, list[NDArray[Any]]]
"""Outputs in the order of the model's, by the number of samples that were run together."""


class Batches(NamedTuple):
    """Batches are samples, and how many of them are run together.

    Attributes:
        arrays: The inputs in the model's order, samples first.
        names: The names of the inputs.
        sizes: The first samples, so many of them, are run together; each of the sizes in turn.
        timed: The size that is timed.
    """

    arrays: Sequence[NDArray[Any]]
    names: Sequence[str]
    sizes: Sequence[int]
    timed: int


class Run(NamedTuple):
    """A run of a file on given inputs.

    Attributes:
        outputs: The outputs at the runtime's defaults; empty where it was not run.
        precise: The outputs in float32, where the runtime's defaults on this machine are
            another precision; else None.
        precision: The name of that other precision, or empty.
        milliseconds: Median time of a call with the timed samples, on one thread.
        memory: Bytes that the runtime holds after loading and one call; None where the
            system does not say.
        missing: Why the file was not run, such as a runtime that is not installed; or empty.
    """

    outputs: Outputs
    precise: Outputs | None = None
    precision: str = ""
    milliseconds: float | None = None
    memory: int | None = None
    missing: str = ""


def run_file(path: pathlib.Path, batches: Batches, loader: str = "") -> Run:
    """Run an exported file on inputs, in the runtime that its ending or a name says.

    A C file is compiled first.

    Args:
        path: The file, of a target that has a bound.
        batches: The samples.
        loader: The name of a loader in `runtimes.RUNTIMES`; empty for the one of the ending.

    Raises:
        RuntimeError: The file does not compile or does not run.
    """
    with tempfile.TemporaryDirectory() as folder:
        inputs, outputs = os.path.join(folder, "inputs.npz"), os.path.join(folder, "outputs.npz")
        arrays = {f"{i:03}": array for i, array in enumerate(batches.arrays)}
        np.savez(inputs, **arrays)  # type: ignore[arg-type]
        if path.suffix == ".c":
            compiler = shutil.which("cc") or shutil.which("gcc")
            if compiler is None:
                return Run({}, missing="no C compiler (cc) was found")
            path = _compile(compiler, path, pathlib.Path(folder))
        request = json.dumps(
            {
                "names": [*batches.names],
                "batches": [*batches.sizes],
                "timed": batches.timed,
                "loader": loader or path.suffix,
            }
        )
        # -P: not from the folder of the script, whose files are named as the runtimes are.
        command = [sys.executable, "-P", runtimes.__file__, str(path), inputs, outputs, request]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        process = subprocess.run(command, capture_output=True, text=True, env=environment)
        if process.returncode:
            raise RuntimeError(_why(process))
        report = json.loads(process.stdout.strip().splitlines()[-1])
        if "error" in report:
            raise RuntimeError(report["error"])
        if "missing" in report:
            return Run({}, missing=report["missing"])
        with np.load(outputs) as stored:
            ways = {way: _by_batch(stored, way) for way in ("default", "float32")}
        return Run(
            ways["default"],
            ways["float32"] or None,
            report["precision"],
            report["milliseconds"],
            report["memory"],
        )


def _by_batch(stored: Any, way: str) -> Outputs:
    """Return the outputs that were computed one way, by the number of samples."""
    outputs: Outputs = {}
    for name in sorted(stored.files):
        kind, batch, _ = name.split("/")
        if kind == way:
            outputs.setdefault(int(batch), []).append(stored[name])
    return outputs


def _why(process: "subprocess.CompletedProcess[str]") -> str:
    """Return the last line of what a process wrote, or the signal that ended it."""
    if process.returncode < 0:
        return f"the process was ended by {signal.Signals(-process.returncode).name}"
    lines = process.stderr.strip().splitlines()
    return lines[-1] if lines else f"the process ended with the code {process.returncode}"


_BRIDGE = """\
#include "{header}"
const int quantal_output_sizes[] = {{{sizes}}};
const int quantal_outputs = {count};
void quantal_predict(const float *const *inputs, float *const *outputs) {{
    {predict}({arguments});
}}
"""
"""C: gives an exported model the names that `runtimes.shared_library` asks for."""


def _bridge(header: pathlib.Path) -> str:
    """Return the C of a bridge to an exported model, as its header declares it."""
    text = header.read_text()
    predict, parameters = re.findall(r"^void (\w+_predict)\((.*)\);$", text, re.MULTILINE)[0]
    inputs = parameters.count("const float")
    sizes = re.findall(r"^#define (\w+_OUTPUT(?:_\d+)?_SIZE)\b", text, re.MULTILINE)
    arguments = [f"inputs[{index}]" for index in range(inputs)]
    arguments += [f"outputs[{index}]" for index in range(len(sizes))]
    return _BRIDGE.format(
        header=header.name,
        sizes=", ".join(sizes),
        count=len(sizes),
        predict=predict,
        arguments=", ".join(arguments),
    )


def _compile(compiler: str, path: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """Compile an exported C file into a shared library in a folder."""
    header = path.with_suffix(".h")
    bridge, library = folder / "bridge.c", folder / "library.so"
    bridge.write_text(_bridge(header))
    command = [
        compiler, "-std=c99", "-O2", "-shared", "-fPIC", f"-I{path.parent}",
        str(bridge), str(path), "-o", str(library), "-lm",
    ]  # fmt: skip
    process = subprocess.run(command, capture_output=True, text=True)
    if process.returncode:
        # The first error; those after it often follow from it.
        lines = [line for line in process.stderr.splitlines() if "error:" in line]
        raise RuntimeError(f"{compiler} says {(lines or [_why(process)])[0]}")
    return library
