"""Whether an exported file computes what the model computes, and what it takes."""

import dataclasses
import json
import math
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from quantal._export import runtimes
from quantal._models.inputs import arrays_in_order


@dataclasses.dataclass(frozen=True)
class Figures:
    """What a file takes.

    Attributes:
        bytes: Of all its files.
        milliseconds: Median time of a call with all inputs, on one thread; None where
            it was not run.
        memory: Bytes that the runtime holds after loading and one call; None where it
            was not run.
    """

    bytes: int
    milliseconds: float | None = None
    memory: int | None = None


@dataclasses.dataclass(frozen=True)
class Report:
    """What was exported, and how near it is to the model; printed, a table.

    Attributes:
        target: Its name.
        paths: The files written.
        weights: Numbers in the model's weights.
        figures: What the export takes.
        floats: What the export of the same model with float weights takes; None where
            there is none to compare with.
        largest: Largest difference of an output from Keras's, in units of the root mean
            square of the outputs; None where it was not run.
        mean: The mean difference, in the same units.
        bound: The largest difference that the target allows.
        remark: Why it was not run, or empty.
    """

    target: str
    paths: list[pathlib.Path]
    weights: int
    figures: Figures
    floats: Figures | None = None
    largest: float | None = None
    mean: float | None = None
    bound: float | None = None
    remark: str = ""

    def __str__(self) -> str:
        figures = [self.figures] if self.floats is None else [self.figures, self.floats]
        lines = [["", self.target, "as floats"][: 1 + len(figures)]]
        for name, cells in (
            ("bytes", [f"{f.bytes:,}" for f in figures]),
            ("bits a weight", [f"{8 * f.bytes / max(self.weights, 1):.3f}" for f in figures]),
            ("milliseconds", [_number(f.milliseconds, 1) for f in figures]),
            ("memory, MB", [_number(f.memory, 1e6) for f in figures]),
        ):
            lines.append([name, *cells])
        widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
        table = [
            "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip()
            for line in lines
        ]
        if self.largest is not None:
            table.append(
                f"difference to Keras: largest {self.largest:.2g}, mean {self.mean:.2g} of the "
                f"outputs' spread (bound {self.bound:g})"
            )
        if self.remark:
            table.append(self.remark)
        return "\n".join(table)


def _number(number: float | None, unit: float) -> str:
    return "-" if number is None else f"{number / unit:.2f}"


def weights_of(model: keras.Model) -> int:
    """How many numbers a model's weights have."""
    return sum(math.prod(variable.shape) for variable in model.variables)


def size_of(paths: Sequence[pathlib.Path]) -> int:
    """Bytes of files."""
    return sum(path.stat().st_size for path in paths)


def run_file(
    path: pathlib.Path, arrays: Sequence[NDArray[Any]]
) -> tuple[list[NDArray[Any]], dict[str, Any]]:
    """A file's outputs for inputs, and what it took; `{"missing": why}` without a runtime."""
    with tempfile.TemporaryDirectory() as folder:
        inputs, outputs = os.path.join(folder, "inputs.npz"), os.path.join(folder, "outputs.npz")
        np.savez(inputs, **{f"{i:03}": array for i, array in enumerate(arrays)})  # type: ignore[arg-type]
        if path.suffix == ".c":
            library, why = _compiled(path, folder)
            if library is None:
                return [], {"missing": why}
            path = library
        # -P: not from the folder of the script, whose files are named as the runtimes are.
        command = [sys.executable, "-P", runtimes.__file__, str(path), inputs, outputs]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        if done.returncode:
            raise RuntimeError(f"{path.name} does not run: {done.stderr.strip()[-2000:]}")
        took = json.loads(done.stdout.strip().splitlines()[-1])
        if "missing" in took:
            return [], took
        with np.load(outputs) as stored:
            return [stored[name] for name in sorted(stored.files)], took


def difference(
    model: keras.Model, inputs: Any, found: Sequence[NDArray[Any]]
) -> tuple[float, float]:
    """Largest and mean difference to the model, in units of its outputs' spread."""
    outputs = [
        ops.convert_to_numpy(out).astype(np.float64)
        for out in keras.tree.flatten(model(inputs, training=False))
    ]
    if len(outputs) != len(found):
        raise RuntimeError(f"{len(found)} outputs came, {len(outputs)} were expected")
    left = [f.astype(np.float64).reshape(o.shape) for f, o in zip(found, outputs, strict=True)]
    apart = [np.abs(f - o) for f, o in zip(left, outputs, strict=True)]
    spreads = [float(np.sqrt(np.mean(out**2))) or 1.0 for out in outputs]
    largest = max(float(a.max()) / s for a, s in zip(apart, spreads, strict=True))
    mean = float(np.mean([a.mean() / s for a, s in zip(apart, spreads, strict=True)]))
    return largest, mean


def compared(
    model: keras.Model,
    target: str,
    paths: list[pathlib.Path],
    floats: list[pathlib.Path] | None,
    inputs: Any,
    bound: float,
) -> Report:
    """The report of an export, from running it.

    Raises:
        ValueError: The outputs differ by more than the target's bound.
    """
    arrays = arrays_in_order(model, inputs)
    found, took = run_file(paths[0], arrays)
    report = Report(target, paths, weights_of(model), Figures(size_of(paths)))
    if "missing" in took:
        return dataclasses.replace(report, remark=f"not run: {took['missing']}")
    largest, mean = difference(model, inputs, found)
    if not largest <= bound:
        raise ValueError(
            f"The outputs of {paths[0].name!r} differ from Keras's by {largest:.2g} of their "
            f"spread. Expected at most {bound:g} of the target {target!r}. Give inputs like those "
            "that the model is for; or export to '.onnx', which is nearest; or take the file as it "
            "is with check=False."
        )
    figures = Figures(size_of(paths), took["milliseconds"], took["memory"])
    other = None
    if floats:
        _, beside = run_file(floats[0], arrays)
        other = Figures(size_of(floats), beside["milliseconds"], beside["memory"])
    return dataclasses.replace(
        report, figures=figures, floats=other, largest=largest, mean=mean, bound=bound
    )


def _compiled(path: pathlib.Path, folder: str) -> tuple[pathlib.Path | None, str]:
    """A shared library of an exported C file; None, with the reason, without a compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None, "no C compiler (cc) was found"
    name = path.stem
    bridge = pathlib.Path(folder) / "bridge.c"
    bridge.write_text(
        f'#include "{path.with_suffix(".h").name}"\n'
        f"const int quantal_output_size = {_c_names(path)[1]};\n"
        "void quantal_predict(const float *input, float *output) {\n"
        f"    {_c_names(path)[0]}(input, output);\n}}\n"
    )
    library = pathlib.Path(folder) / f"{name}.so"
    command = [
        compiler, "-std=c99", "-O2", "-shared", "-fPIC", f"-I{path.parent}",
        str(bridge), str(path), "-o", str(library), "-lm",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{path.name} does not compile: {done.stderr.strip()[-2000:]}")
    return library, ""


def _c_names(path: pathlib.Path) -> tuple[str, str]:
    """The names of the function and of its output's size, as the header has them."""
    words = path.with_suffix(".h").read_text().replace("(", " ").split()
    predict = next(word for word in words if word.endswith("_predict"))
    return predict, next(word for word in words if word.endswith("_OUTPUT_SIZE"))
