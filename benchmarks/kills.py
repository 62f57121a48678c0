"""Kill programs while they write, and see that nothing is half-written and nothing stays behind.

    python benchmarks/kills.py             all jobs, 20 kills each
    python benchmarks/kills.py save -n 5   one job

A job writes again and again in a process of its own, which is killed (kill -9) at a random time.
Then its files must be whole or missing; and after the job has run once to its end, the folder must
hold its files and no others. The exit status is 1 if anything was wrong. A new job is an entry of
JOBS: what it does in an endless loop, and how its files are read.
"""

import argparse
import contextlib
import functools
import io
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import NamedTuple

KILLS = 20
LONGEST_WAIT = 2.0
"""Seconds from the first written file to the kill, at most."""


class Job(NamedTuple):
    """A job writes files in a folder, and can tell whether they are whole.

    Attributes:
        prepare: Returns the function that writes once; called once in each process.
        check: Reads the files, as a user would; raises an error where one is damaged.
        files: The names of the files that it writes.
    """

    prepare: Callable[[pathlib.Path], Callable[[], object]]
    check: Callable[[pathlib.Path], object]
    files: frozenset[str]


def a_model(units=256):
    """Return a discrete model whose file takes some time to write."""
    import keras

    import quantal

    keras.utils.set_random_seed(0)
    layer = quantal.Discrete(keras.layers.Dense(units), "ternary", scale="learned")
    return keras.Sequential([keras.Input((4 * units,)), layer])


def prepare_save(folder):
    import quantal

    model = a_model()
    return lambda: quantal.save(model, folder / "model.quantal")


def check_save(folder):
    import quantal

    quantal.load(folder / "model.quantal")


def prepare_search(folder):
    """Search again and again from the file, for less than a second, with many members."""
    import numpy as np

    import quantal

    objective = quantal.objectives.Quadratic(np.random.default_rng(0).normal(size=(3000, 3000)))
    budget = quantal.Budget(evaluations=100_000)
    return lambda: quantal.search(
        objective, [1, -1], budget=budget, file=folder / "good.npz", verbose=0
    )


def prepare_polish(folder):
    import keras
    import numpy as np

    import quantal

    x = np.random.default_rng(0).normal(size=(64, 1024)).astype("float32")
    model = a_model()
    model.compile(loss="mse")
    y, budget = model.predict(x[::-1], verbose=0), quantal.Budget(evaluations=20)
    keras.utils.set_random_seed(0)
    return lambda: quantal.polish(model, x, y, budget, file=folder / "good.npz", verbose=0)


def check_members(folder):
    import numpy as np

    with np.load(folder / "good.npz") as archive:
        assert len(archive["members"])


def prepare_train(folder):
    """Train with a file after each step."""
    from quantal._command import command, results

    results.SECONDS_BETWEEN_WRITES = 0.0
    arguments = ["train", "wine", "--epochs", "2", "--batch-size", "80", "--out", str(folder)]

    def train():
        with contextlib.redirect_stdout(io.StringIO()):
            if command.main(arguments):
                raise SystemExit("the training failed")

    return train


def check_train(folder):
    import keras
    import pandas

    import quantal

    model = keras.saving.load_model(folder / "model.keras")
    assert quantal.parameters_of(model)
    assert {"row", "target", "discrete"} <= set(pandas.read_csv(folder / "predictions.csv"))
    assert (folder / "values.png").read_bytes().endswith(b"IEND\xaeB`\x82")


def prepare_export(folder, ending):
    import keras

    import quantal

    model = a_model()
    if ending == ".csv":
        model = keras.Sequential([keras.Input((5000,)), quantal.LearnableMultiplier()])
    return lambda: quantal.export(model, folder / f"net{ending}", check=False)


def check_export(folder, ending):
    """Read an exported file as its users do; C is compiled with its header."""
    path = folder / f"net{ending}"
    if ending == ".c":
        subprocess.run(["cc", "-fsyntax-only", str(path)], check=True)
    elif ending == ".onnx":
        import onnx

        onnx.checker.check_model(path, full_check=True)
    elif ending == ".xml":
        import openvino

        openvino.Core().compile_model(path, "CPU")
    elif ending == ".tflite":
        from ai_edge_litert.interpreter import Interpreter

        Interpreter(str(path)).allocate_tensors()
    elif ending == ".keras":
        import keras

        keras.saving.load_model(path)
    elif ending == ".npz":
        import numpy as np

        with np.load(path) as archive:
            assert [archive[name].size for name in archive.files]
    else:
        assert path.read_text().count("\n") > 5000


def export_job(ending, *others):
    """Return the job of an export to files with these endings."""
    return Job(
        functools.partial(prepare_export, ending=ending),
        functools.partial(check_export, ending=ending),
        frozenset(f"net{end}" for end in (ending, *others)),
    )


JOBS = {
    "c": export_job(".c", ".h"),
    "onnx": export_job(".onnx"),
    "openvino": export_job(".xml", ".bin"),
    "litert": export_job(".tflite"),
    "keras": export_job(".keras"),
    "npz": export_job(".npz"),
    "csv": export_job(".csv"),
    "verilog": export_job(".mem"),
    "save": Job(prepare_save, check_save, frozenset({"model.quantal"})),
    "search": Job(prepare_search, check_members, frozenset({"good.npz"})),
    "polish": Job(prepare_polish, check_members, frozenset({"good.npz"})),
    "train": Job(
        prepare_train, check_train, frozenset({"model.keras", "predictions.csv", "values.png"})
    ),
}


def run_child(name, folder, once):
    """Write again and again, and say when the first file is written."""
    write = JOBS[name].prepare(folder)
    while True:
        write()
        print("written", flush=True)
        if once:
            return


def child(name, folder, *options):
    """Start a job in a process of its own."""
    program = [sys.executable, __file__, name, "--child", folder, *options]
    return subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def trial(name, folder, generator):
    """Kill a job once; return what is wrong, or ""."""
    job = JOBS[name]
    process = child(name, folder)
    if process.stdout.readline() != "written\n":
        return "it does not run"
    time.sleep(generator.uniform(0, LONGEST_WAIT))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    left = sorted(set(os.listdir(folder)) - job.files)
    try:
        job.check(folder)
    except Exception as error:
        return f"after the kill: {error!r}"
    if child(name, folder, "--once").wait():
        return "the next run fails"
    job.check(folder)
    stays = sorted(set(os.listdir(folder)) - job.files)
    return f"{stays} stay behind" if stays else f"ok, with {len(left)} left by the kill"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("jobs", nargs="*", default=sorted(JOBS), help=", ".join(sorted(JOBS)))
    parser.add_argument("-n", type=int, default=KILLS, help="kills of each job")
    parser.add_argument("--child", type=pathlib.Path, help=argparse.SUPPRESS)
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        return run_child(arguments.jobs[0], arguments.child, arguments.once)
    generator, failures = random.Random(0), 0
    for name in arguments.jobs:
        for number in range(arguments.n):
            with tempfile.TemporaryDirectory() as folder:
                outcome = trial(name, pathlib.Path(folder), generator)
            failures += not outcome.startswith("ok")
            print(f"{name} {number + 1}: {outcome}", flush=True)
    print(f"{failures} failures")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
