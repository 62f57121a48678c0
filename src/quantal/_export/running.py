"""Run an exported file in a process of its own, and report what it took."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from quantal._export import runtimes


class Run(NamedTuple):
    """A run of a file on given inputs.

    Attributes:
        outputs: The outputs in the order of the model's; empty where it was not run.
        milliseconds: Median time of a call with all inputs.
        memory: Bytes that the runtime holds after loading and one call; None where the
            system does not say.
        missing: Why the file was not run, such as a runtime that is not installed; or empty.
    """

    outputs: list[NDArray[Any]]
    milliseconds: float | None = None
    memory: int | None = None
    missing: str = ""


def run_file(path: pathlib.Path, arrays: Sequence[NDArray[Any]]) -> Run:
    """Run an exported file on inputs, in the runtime that its ending says.

    A C file is compiled first.

    Args:
        path: The file, of a target that has a bound.
        arrays: The inputs in the model's order, each for the same number of samples.

    Raises:
        RuntimeError: The file does not compile or does not run.
    """
    with tempfile.TemporaryDirectory() as folder:
        inputs, outputs = os.path.join(folder, "inputs.npz"), os.path.join(folder, "outputs.npz")
        np.savez(inputs, **{f"{i:03}": array for i, array in enumerate(arrays)})  # type: ignore[arg-type]
        if path.suffix == ".c":
            compiler = shutil.which("cc") or shutil.which("gcc")
            if compiler is None:
                return Run([], missing="no C compiler (cc) was found")
            path = _compile(compiler, path, pathlib.Path(folder))
        # -P: not from the folder of the script, whose files are named as the runtimes are.
        command = [sys.executable, "-P", runtimes.__file__, str(path), inputs, outputs]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        process = subprocess.run(command, capture_output=True, text=True, env=environment)
        if process.returncode:
            raise RuntimeError(f"{path.name} does not run: {_why(process)}")
        report = json.loads(process.stdout.strip().splitlines()[-1])
        if "missing" in report:
            return Run([], missing=report["missing"])
        with np.load(outputs) as stored:
            arrays = [stored[name] for name in sorted(stored.files)]
        return Run(arrays, report["milliseconds"], report["memory"])


def _why(process: "subprocess.CompletedProcess[str]") -> str:
    """Return the end of what a process wrote, or how it ended where it wrote nothing."""
    text = process.stderr.strip()[-2000:]
    return text or f"the process ended with the code {process.returncode}"


_BRIDGE = """\
#include "{header}"
const int quantal_output_size = {size};
void quantal_predict(const float *input, float *output) {{
    {predict}(input, output);
}}
"""
"""C: gives an exported model the names that `runtimes.shared_library` asks for."""


def _compile(compiler: str, path: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """Compile an exported C file into a shared library in a folder."""
    header = path.with_suffix(".h")
    words = header.read_text().replace("(", " ").split()
    predict = next(word for word in words if word.endswith("_predict"))
    size = next(word for word in words if word.endswith("_OUTPUT_SIZE"))
    bridge, library = folder / "bridge.c", folder / f"{path.stem}.so"
    bridge.write_text(_BRIDGE.format(header=header.name, predict=predict, size=size))
    command = [
        compiler, "-std=c99", "-O2", "-shared", "-fPIC", f"-I{path.parent}",
        str(bridge), str(path), "-o", str(library), "-lm",
    ]  # fmt: skip
    process = subprocess.run(command, capture_output=True, text=True)
    if process.returncode:
        raise RuntimeError(f"{path.name} does not compile: {_why(process)}")
    return library
