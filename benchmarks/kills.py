"""Kill programs while they write, and see that nothing is half-written and nothing stays behind.

    python benchmarks/kills.py             all jobs, 20 kills each
    python benchmarks/kills.py save -n 5   one job
    python benchmarks/kills.py --list      the jobs, and what each needs

A job writes again and again in a process of its own, in turns for two models, and is killed
(kill -9): every other time at a random moment, else at one of its file operations. Then its
files must be whole; of a target that writes several they must be of one model, where some may be
missing. After the job has written once more, the folder must hold its files and no others. Jobs
whose packages are not installed are skipped by name. The exit status is 1 if anything was wrong.
A new job is an entry of JOBS: what it writes, and how its files are read.
"""

import argparse
import collections
import contextlib
import functools
import importlib
import importlib.util
import io
import itertools
import os
import pathlib
import random
import re
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
OPERATIONS = {"open", "os.rename", "os.remove", "os.link", "os.chmod", "os.mkdir", "os.rmdir"}
"""What Python reports before it changes a file."""


class Job(NamedTuple):
    """A job writes files in a folder, and can tell whether they are whole.

    Attributes:
        prepare: Returns the function that writes once; called once in each process.
        check: Reads the files, as a user would; raises an error where one is damaged.
        files: The names of the files that it writes.
        packages: What has to be installed.
        backend: The backend on which it runs; None for any.
        read_together: Whether its files are read together, and the same for the same model.
    """

    prepare: Callable[[pathlib.Path], Callable[[], object]]
    check: Callable[[pathlib.Path], object]
    files: frozenset[str]
    packages: tuple[str, ...] = ()
    backend: str | None = None
    read_together: bool = False


def a_model(seed=0):
    """Return a discrete model of another size for each seed."""
    import keras

    import quantal

    keras.utils.set_random_seed(seed)
    units = 64 + 16 * seed
    layers = [
        quantal.Discrete(keras.layers.Dense(units, name=name), "ternary", scale="learned")
        for name in ("first", "second")
    ]
    return keras.Sequential([keras.Input((256,)), *layers], name="model")


def in_turns(write, make=a_model):
    """Return a function that writes two models in turns."""
    models = itertools.cycle([make(seed) for seed in (0, 1)])
    return lambda: write(next(models))


def prepare_save(folder):
    import quantal

    return in_turns(lambda model: quantal.save(model, folder / "model.quantal"))


def check_save(folder):
    import quantal

    quantal.load(folder / "model.quantal")


def prepare_finalize(folder):
    import quantal

    return in_turns(lambda model: quantal.finalize(model, folder / "model.keras"))


def check_keras(folder):
    import keras

    import quantal

    assert quantal.parameters_of(keras.saving.load_model(folder / "model.keras"))


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

    x = np.random.default_rng(0).normal(size=(64, 256)).astype("float32")
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
    import pandas

    check_keras(folder)
    assert {"row", "target", "discrete"} <= set(pandas.read_csv(folder / "predictions.csv"))
    assert (folder / "values.png").read_bytes().endswith(b"IEND\xaeB`\x82")


def a_multiplier(seed):
    import keras

    import quantal

    keras.utils.set_random_seed(seed)
    return keras.Sequential([keras.Input((5000,)), quantal.LearnableMultiplier()])


def prepare_export(folder, file, target):
    import quantal

    return in_turns(
        lambda model: quantal.export(model, folder / file, target, check=False),
        a_multiplier if file.endswith(".csv") else a_model,
    )


def check_export(folder, file):
    """Read an exported file as its users do; C is compiled with its header."""
    path = folder / file
    if path.suffix == ".c":
        subprocess.run(["cc", "-fsyntax-only", str(path)], check=True)
    elif path.suffix == ".onnx":
        import onnx

        onnx.checker.check_model(path, full_check=True)
    elif path.suffix == ".xml":
        import openvino

        openvino.Core().compile_model(path, "CPU")
    elif path.suffix == ".tflite":
        from ai_edge_litert.interpreter import Interpreter

        Interpreter(str(path)).allocate_tensors()
    elif path.suffix == ".keras":
        import keras

        keras.saving.load_model(path)
    elif path.suffix == ".npz":
        import numpy as np

        with np.load(path) as archive:
            assert [archive[name].size for name in archive.files]
    elif path.suffix == ".pt":
        import torch

        assert torch.load(path, weights_only=True)
    elif path.suffix == ".mem":
        assert len(path.read_text().split()) >= 64 * 64
    else:
        assert path.read_text().count("\n") > 5000


def export_job(target, file, files=None, packages=(), backend=None):
    """Return the job of an export to a file, beside which a target may write others."""
    files = [file] if files is None else files
    return Job(
        functools.partial(prepare_export, file=file, target=target),
        functools.partial(check_export, file=files[0]),
        frozenset(files),
        packages,
        backend,
        len(files) > 1,
    )


ONNX = ("onnx", "onnxscript")
JOBS = {
    "c": export_job("c", "net.c", ["net.c", "net.h"]),
    "csv": export_job("csv", "net.csv"),
    "keras": export_job("keras", "net.keras"),
    "litert": export_job(
        "litert",
        "net.tflite",
        packages=("ai_edge_litert", "ai_edge_quantizer", "tensorflow"),
        backend="tensorflow",
    ),
    "npz": export_job("npz", "net.npz"),
    "onnx": export_job("onnx", "net.onnx", packages=ONNX, backend="torch"),
    "onnx_fast": export_job("onnx_fast", "net.onnx", packages=ONNX, backend="torch"),
    "openvino": export_job(
        "openvino", "net.xml", ["net.xml", "net.bin"], ("openvino", *ONNX), backend="torch"
    ),
    "torch": export_job("torch", "net.pt", packages=("torch",), backend="torch"),
    "verilog": export_job(
        "verilog", "net.mem", ["net.model_first_kernel.mem", "net.model_second_kernel.mem"]
    ),
    "finalize": Job(prepare_finalize, check_keras, frozenset({"model.keras"})),
    "save": Job(prepare_save, check_save, frozenset({"model.quantal"})),
    "search": Job(prepare_search, check_members, frozenset({"good.npz"})),
    "polish": Job(prepare_polish, check_members, frozenset({"good.npz"})),
    "train": Job(
        prepare_train,
        check_train,
        frozenset({"model.keras", "predictions.csv", "values.png"}),
        ("pandas", "matplotlib", "typer"),
    ),
}


def serve(name):
    """Start a process that writes for each folder that a line names, each after the other.

    The packages are imported once; the processes that write are its children.
    """
    import quantal

    _ = quantal.Discrete  # Keras and its backend are imported now.
    for package in JOBS[name].packages:
        importlib.import_module(package)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            write_and_be_killed(name, pathlib.Path(line.rstrip("\n")))
            os._exit(0)
        os.waitpid(child, 0)
        print("ended", flush=True)


def write_and_be_killed(name, folder):
    """Write once; then as a line says: end, write once more, or write until a kill comes."""
    count, last = itertools.count(), None

    def before_operation(event, arguments):
        is_here = event in OPERATIONS and str(arguments[0]).startswith(str(folder))
        if is_here and next(count) == last:
            os.kill(os.getpid(), signal.SIGKILL)

    write = JOBS[name].prepare(folder)
    sys.addaudithook(before_operation)
    write()
    operations = next(count)
    print("written", os.getpid(), flush=True)
    order, *numbers = sys.stdin.readline().split()
    if order == "again":
        write()
        print("written", flush=True)
    elif order == "go":
        if numbers:  # The kill comes at an operation of the second writing.
            last = int(operations * (1 + float(numbers[0])))
        print("goes", flush=True)
        while True:
            write()


class Server:
    """A server is the process that writes for one job, in one folder."""

    def __init__(self, name, folder):
        backend = JOBS[name].backend
        self._folder = folder
        self._process = subprocess.Popen(
            [sys.executable, __file__, name, "--serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            bufsize=1,
            env={**os.environ, **({"KERAS_BACKEND": backend} if backend else {})},
        )

    def say(self, text):
        """Send a line."""
        self._process.stdin.write(f"{text}\n")

    def answer(self, expected):
        """Read a line of which the first word is expected; return the others."""
        word, *others = self._process.stdout.readline().split() or [""]
        if word != expected:
            raise RuntimeError(f"the writing fails: {word!r} came, expected {expected!r}")
        return others

    def start(self):
        """Start a process that writes once and waits."""
        self.say(self._folder)
        (self._writer,) = self.answer("written")

    def kill(self, generator, at_operation):
        """Let the process write, until it is killed."""
        self.say(f"go {generator.random()}" if at_operation else "go")
        self.answer("goes")
        if not at_operation:
            time.sleep(generator.uniform(0, LONGEST_WAIT))
            os.kill(int(self._writer), signal.SIGKILL)
        self.answer("ended")

    def end(self, order="end"):
        """Let the process that waits end."""
        self.say(order)
        if order == "again":
            self.answer("written")
        self.answer("ended")

    def stop(self):
        """Stop the server; a process that waits ends, too."""
        self._process.stdin.close()
        self._process.wait()


def files_in(folder):
    """Return the contents of the files of a folder by their names.

    OpenVINO numbers the layers of all models of a process, so their names are left out.
    """
    return {
        path.name: re.sub(rb' names?="[^"]*"', b"", path.read_bytes())
        for path in folder.iterdir()
        if path.is_file()
    }


def damage_of(job, folder, models):
    """Return what is wrong with the files that a kill left, or ""."""
    files = {name: data for name, data in files_in(folder).items() if name in job.files}
    if models and not any(files.items() <= model.items() for model in models):
        return "files of two models"
    if models and len(files) < len(job.files):
        return ""
    try:
        job.check(folder)
    except Exception as error:
        return f"after the kill: {error!r}"
    return ""


def outcomes(name, kills, generator):
    """Yield what came of each kill of a job: "ok" and more, or what is wrong."""
    job = JOBS[name]
    with tempfile.TemporaryDirectory() as name_of_folder:
        folder = pathlib.Path(name_of_folder)
        server = Server(name, folder)
        models = []
        for order in ("end", "again") if job.read_together else ():
            server.start()
            server.end(order)
            models.append(files_in(folder))
        assert not models or models[0] != models[1]
        server.start()
        for number in range(kills):
            server.kill(generator, at_operation=number % 2 > 0)
            present = set(os.listdir(folder))
            damage = damage_of(job, folder, models)
            server.start()
            job.check(folder)
            stay = sorted(set(os.listdir(folder)) - job.files)
            wrong = damage or (stay and f"{stay} stay behind")
            left, missing = len(present - job.files), len(job.files - present)
            yield wrong or f"ok, with {left} left by the kill and {missing} missing"
        server.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("jobs", nargs="*", default=sorted(JOBS), help=", ".join(sorted(JOBS)))
    parser.add_argument("-n", type=int, default=KILLS, help="kills of each job")
    parser.add_argument("--list", action="store_true", help="print the jobs and what they need")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        return serve(arguments.jobs[0])
    generator, failures = random.Random(0), 0
    for name in arguments.jobs:
        job = JOBS[name]
        absent = [package for package in job.packages if not importlib.util.find_spec(package)]
        if arguments.list or absent:
            needs = f", needs {', '.join(job.packages)}" if job.packages else ""
            print(f"{name}: {', '.join(sorted(job.files))}{needs}")
            if absent and not arguments.list:
                print(f"{name}: skipped, {', '.join(absent)} is not installed")
            continue
        started = time.monotonic()
        counts = collections.Counter(outcomes(name, arguments.n, generator))
        failures += sum(count for text, count in counts.items() if not text.startswith("ok"))
        for outcome, count in sorted(counts.items()):
            print(f"{name}: {count} times {outcome}", flush=True)
        print(f"{name}: {counts.total()} kills, {time.monotonic() - started:.0f} s", flush=True)
    print(f"{failures} failures")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
