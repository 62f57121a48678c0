"""Break quantal's source in small ways, one at a time, and see whether its tests notice.

    KERAS_BACKEND=torch python scripts/mutants.py                      a sample of 150 mutants
    KERAS_BACKEND=torch python scripts/mutants.py --count 0            all of them
    KERAS_BACKEND=torch python scripts/mutants.py --file values.py     those of one file
    KERAS_BACKEND=torch python scripts/mutants.py --mutant values.py:290:18:0   one of them

A mutant is the source with one operator, number, condition or statement changed. Each is run
against the tests that `mutants.toml` names for its file, up to the first that fails. Which mutants
are drawn depends on the seed alone, which is printed, as is the share that was noticed ("killed")
and, with its file, line and difference, each that was not ("survived").

Mutants that compute the same as the source are named in `mutants.toml`, with the reason; they are
not run. The framework is imported once; each mutant runs in a fork of that process, into which
quantal is imported with the changed file, so that a mutant takes the seconds of its tests alone.
The tests of a file run in the order of the time that they took with the unchanged source.
"""

import argparse
import ast
import copy
import difflib
import gc
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import io
import json
import os
import pathlib
import signal
import sys
import tempfile
import time
import tomllib
import traceback
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from random import Random
from typing import Any, NamedTuple

ROOT = pathlib.Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src"
SETTINGS = pathlib.Path(__file__).with_suffix(".toml")
LEAST_SECONDS = 20.0
"""A mutant that takes longer than this and three times the unchanged source is stopped."""
SLOWER = 3
LONGEST_SECONDS = 600.0

COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
OPERATORS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.LShift: ast.RShift,
    ast.RShift: ast.LShift, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitAnd,
    ast.MatMult: ast.Mult,
}  # fmt: skip
ERRORS = {"damage", "refusal"}
"""Functions that return an error from its words."""


class Mutant(NamedTuple):
    """A mutant is a piece of a file, and what stands there instead.

    Attributes:
        path: The file, relative to `src`.
        line: The line at which the piece starts, from 1.
        column: Its first byte in that line.
        number: How many mutants start at the same place before this one.
        start: The first byte of the piece in the file.
        stop: The byte after its last one.
        text: What stands there instead.
    """

    path: str
    line: int
    column: int
    number: int
    start: int
    stop: int
    text: str

    @property
    def name(self) -> str:
        """The name says where the mutant is."""
        return f"{self.path}:{self.line}:{self.column}:{self.number}"

    def source(self) -> str:
        """Return the whole file with the piece replaced."""
        data = (SOURCE / self.path).read_bytes()
        return (data[: self.start] + self.text.encode() + data[self.stop :]).decode()

    def difference(self) -> list[str]:
        """Return the lines that differ, as `diff` writes them."""
        old = (SOURCE / self.path).read_text().splitlines()
        lines = difflib.unified_diff(old, self.source().splitlines(), n=0, lineterm="")
        return [line for line in lines if not line.startswith(("---", "+++", "@@"))]


def changed(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what may stand in the place of a node."""
    if isinstance(node, ast.Compare):
        for index, operator in enumerate(node.ops):
            new = copy.deepcopy(node)
            new.ops[index] = COMPARISONS[type(operator)]()
            yield new
    elif isinstance(node, ast.BinOp):
        new = copy.deepcopy(node)
        new.op = OPERATORS[type(node.op)]()
        yield new
    elif isinstance(node, ast.BoolOp):
        new = copy.deepcopy(node)
        new.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield new
    elif isinstance(node, ast.UnaryOp):
        yield node.operand
    elif isinstance(node, ast.Constant):
        yield from _changed_constant(node)
    elif isinstance(node, (ast.IfExp, ast.If, ast.While)):
        yield from _negated(node)
    elif isinstance(node, ast.Call):
        for index in range(len(node.keywords)):
            new = copy.deepcopy(node)
            del new.keywords[index]
            yield new
    else:
        yield from _changed_statement(node)


def _changed_constant(node: ast.Constant) -> Iterator[ast.Constant]:
    value = node.value
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, int):
        yield ast.Constant(value + 1)
    elif isinstance(value, float):
        yield ast.Constant(value * 2 + 1)
    elif isinstance(value, str):
        yield ast.Constant(f"{value}_")


def _negated(node: Any) -> Iterator[ast.AST]:
    """Yield the condition's opposite; it replaces the condition alone."""
    if isinstance(node.test, (ast.Compare, ast.UnaryOp)):
        return  # They have mutants of their own that do so.
    new = ast.UnaryOp(ast.Not(), copy.deepcopy(node.test))
    new.replaces = node.test  # type: ignore[attr-defined]
    yield new


def _changed_statement(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.Return) and node.value is not None:
        if not (isinstance(node.value, ast.Constant) and node.value.value is None):
            yield ast.Return(ast.Constant(None))
    elif _may_be_left_out(node):
        yield ast.Pass()
    elif isinstance(node, ast.Break):
        yield ast.Continue()
    elif isinstance(node, ast.Continue):
        yield ast.Break()


def _may_be_left_out(node: ast.AST) -> bool:
    """Return whether the names that follow are there without a statement."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Call)
    if isinstance(node, ast.Assign):
        return not isinstance(node.targets[0], ast.Name)
    return isinstance(node, (ast.Raise, ast.AugAssign, ast.Delete))


def nodes_that_compute(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a file, without types, docstrings, decorators and texts of errors."""
    skipped: list[ast.AST | None] = []
    if isinstance(tree, (ast.FunctionDef, ast.ClassDef)):
        skipped += tree.decorator_list
        skipped += tree.bases if isinstance(tree, ast.ClassDef) else [tree.returns]
    elif isinstance(tree, (ast.arg, ast.AnnAssign)):
        skipped.append(tree.annotation)
    elif isinstance(tree, ast.Raise):
        yield tree
        return  # The words of errors have tests of their own.
    elif isinstance(tree, ast.JoinedStr) or _is_text(tree):
        return
    yield tree
    for child in ast.iter_child_nodes(tree):
        if child not in skipped:
            yield from nodes_that_compute(child)


def _is_text(node: ast.AST) -> bool:
    """Return whether a node is a docstring, or an error from its words."""
    if isinstance(node, ast.Call):
        return getattr(node.func, "id", "") in ERRORS
    is_constant = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return is_constant and isinstance(node.value.value, str)


def mutants_of(path: str) -> list[Mutant]:
    """Return all mutants of a file, in the order of the source."""
    data = (SOURCE / path).read_bytes()
    lines = data.splitlines(keepends=True)
    starts = [sum(map(len, lines[:number])) for number in range(len(lines))]
    result: list[Mutant] = []
    for node in nodes_that_compute(ast.parse(data)):
        for new in changed(node):
            piece: Any = getattr(new, "replaces", node)
            text = ast.unparse(ast.fix_missing_locations(new))
            if isinstance(new, ast.expr):
                text = f"({text})"
            start = starts[piece.lineno - 1] + piece.col_offset
            stop = starts[piece.end_lineno - 1] + piece.end_col_offset
            number = sum(m.start == start for m in result)
            mutant = Mutant(path, piece.lineno, piece.col_offset, number, start, stop, text)
            try:
                compile(mutant.source(), path, "exec")
            except SyntaxError:
                continue  # A name of a keyword that has to be there, and the like.
            result.append(mutant)
    return result


class _Changed(importlib.abc.MetaPathFinder, importlib.machinery.SourceFileLoader):
    """A finder that loads one module from a changed source."""

    def __init__(self, module: str, path: pathlib.Path, source: str) -> None:
        super().__init__(module, str(path))
        self._source = source

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        if fullname != self.name:
            return None
        return importlib.util.spec_from_file_location(fullname, self.path, loader=self)

    def get_code(self, fullname: str) -> Any:
        return compile(self._source, self.path, "exec")


class Outcome(NamedTuple):
    """An outcome of the tests: whether they passed, failed or took too long."""

    word: str
    seconds: float
    output: str


class QuickestFirst:
    """A plugin of pytest that runs the tests of a file in the order of the time they take.

    Args:
        path: A JSON file of the seconds of each test by its name. Where it is not there, tests run
            in their own order, and it is written.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.seconds = json.loads(path.read_text()) if path.exists() else None
        self.measured: dict[str, float] = {}

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Sort the tests, each file by itself: the fixtures of a file are made once."""
        if self.seconds is not None:
            first = {item.path: index for index, item in reversed(list(enumerate(items)))}
            items.sort(key=lambda item: (first[item.path], self.seconds.get(item.nodeid, 0.0)))

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Add the seconds of a test, its fixtures included."""
        seconds = self.measured.get(report.nodeid, 0.0)
        self.measured[report.nodeid] = seconds + report.duration

    def pytest_unconfigure(self) -> None:
        """Write the seconds, if they were not known."""
        if self.seconds is None:
            self.path.write_text(json.dumps(self.measured))


def run_tests(
    path: str, source: str, options: list[str], limit: float, seconds: pathlib.Path
) -> Outcome:
    """Run pytest with some options and one changed file, in a fork of this process.

    Args:
        path: The changed file.
        source: What stands in it.
        options: Those of pytest.
        limit: The seconds after which the tests are stopped.
        seconds: The file of the tests' seconds; see `QuickestFirst`.
    """
    start = time.monotonic()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _run_in_child(path, source, options, writer, QuickestFirst(seconds))
    os.close(writer)
    word = None
    with os.fdopen(reader, "rb") as pipe:
        os.set_blocking(pipe.fileno(), False)
        output = b""
        while word is None:
            output += pipe.read() or b""
            if time.monotonic() - start > limit:
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
                word = "timeout"
            elif (ended := os.waitpid(child, os.WNOHANG))[0]:
                word = "passed" if ended[1] == 0 else "failed"
            else:
                time.sleep(0.02)
        output += pipe.read() or b""
    return Outcome(word, time.monotonic() - start, output.decode(errors="replace"))


def _run_in_child(
    path: str, source: str, options: list[str], writer: int, plugin: QuickestFirst
) -> None:
    """Run the tests and leave the process: 0 where all passed."""
    code = 1
    try:
        os.setsid()
        os.dup2(writer, 1)
        os.dup2(writer, 2)
        module = path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        sys.meta_path.insert(0, _Changed(module, SOURCE / path, source))
        os.chdir(ROOT)
        import pytest

        output = io.StringIO()
        with redirect_stdout(output), redirect_stderr(output):
            # Nobody reads how an assertion failed, so none is rewritten.
            quick = ["--assert=plain", "-p", "no:cacheprovider"]
            code = int(pytest.main(["-x", "-q", "--tb=line", *quick, *options], [plugin]))
        os.write(writer, output.getvalue()[-2000:].encode())
    except BaseException:
        os.write(writer, traceback.format_exc().encode())
    finally:
        os._exit(code)


def warm_up() -> None:
    """Import what tests import besides quantal."""
    sys.path[:0] = [str(SOURCE), str(ROOT / "benchmarks"), str(ROOT / "tests")]
    # Keras imports TensorFlow to seed it, whatever its backend.
    for name in ("keras", "hypothesis", "pytest", "safetensors.numpy", "tensorflow"):
        if importlib.util.find_spec(name):
            importlib.import_module(name)
    if any(name.split(".")[0] == "quantal" for name in sys.modules):
        raise RuntimeError("quantal is imported already. Expected a fresh process. Start it anew.")
    # Tests need no plugins of other packages.
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    # pytest collects garbage several times, which takes a second with all that was imported.
    gc.collect()
    gc.freeze()


def equivalents(settings: dict[str, Any]) -> dict[tuple[str, str, str], str]:
    """Return the mutants that compute the same: file, line before, line after, and the reason."""
    return {(e["file"], e["before"], e["after"]): e["reason"] for e in settings["equivalent"]}


def key_of(mutant: Mutant) -> tuple[str, str, str]:
    """Return what an equivalent mutant is recognised by: its file and the lines that differ."""
    lines = mutant.difference()
    before = " ".join(line[1:].strip() for line in lines if line.startswith("-"))
    after = " ".join(line[1:].strip() for line in lines if line.startswith("+"))
    return pathlib.Path(mutant.path).name, before, after


def chosen_mutants(arguments: argparse.Namespace, settings: dict[str, Any]) -> list[Mutant]:
    """Return the mutants to run."""
    names = settings["tests"]
    paths = [p for p in names if not arguments.file or any(p.endswith(f) for f in arguments.file)]
    mutants = [mutant for path in paths for mutant in mutants_of(path)]
    if arguments.mutant:
        return [m for m in mutants if any(m.name.endswith(name) for name in arguments.mutant)]
    known = equivalents(settings)
    different = [mutant for mutant in mutants if key_of(mutant) not in known]
    print(f"{len(mutants)} mutants, {len(mutants) - len(different)} of them known to be equivalent")
    if arguments.count:
        count = min(arguments.count, len(different))
        different = Random(arguments.seed).sample(different, count)
        print(f"a sample of {count}, seed {arguments.seed}")
    return sorted(different)


def unchanged_seconds(path: str, options: list[str], seconds: pathlib.Path) -> float:
    """Run the tests of an unchanged file, in their own order and the quickest first."""
    source = (SOURCE / path).read_text()
    for _ in range(2):
        outcome = run_tests(path, source, options, LONGEST_SECONDS, seconds)
        if outcome.word != "passed":
            sys.exit(f"The tests of the unchanged {path} {outcome.word}.\n{outcome.output}")
    print(f"{path}: {outcome.seconds:.1f} s unchanged", flush=True)
    return outcome.seconds


def run(mutants: list[Mutant], settings: dict[str, Any], folder: pathlib.Path) -> list[Mutant]:
    """Run mutants and print what came of each; return those that no test noticed.

    Args:
        mutants: The mutants.
        settings: What stands in `mutants.toml`.
        folder: A folder for the seconds of tests.
    """
    limits: dict[str, float] = {}
    survivors: list[Mutant] = []
    for number, mutant in enumerate(mutants, 1):
        options = [*settings["tests"][mutant.path], "-k", settings["deselect"]]
        seconds = folder / f"{mutant.path.replace('/', '.')}.json"
        if mutant.path not in limits:
            unchanged = unchanged_seconds(mutant.path, options, seconds)
            limits[mutant.path] = LEAST_SECONDS + SLOWER * unchanged
        limit = limits[mutant.path]
        outcome = run_tests(mutant.path, mutant.source(), options, limit, seconds)
        if outcome.word == "passed":
            survivors.append(mutant)
        word = {"passed": "SURVIVED", "failed": "killed", "timeout": "killed (time)"}[outcome.word]
        counts = f"{number} of {len(mutants)}, {len(survivors)} survived"
        print(f"{word}: {mutant.name}, {outcome.seconds:.1f} s ({counts})", flush=True)
        if outcome.word == "passed":
            print("\n".join(f"    {line}" for line in mutant.difference()), flush=True)
    return survivors


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=150, help="the sample's size; 0 for all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--file", action="append", help="the end of a file's path")
    parser.add_argument("--mutant", action="append", help="the end of a mutant's name")
    parser.add_argument("--least", type=float, default=0.0, help="fail below this share, in %%")
    parser.add_argument("--list", action="store_true", help="print the mutants, run nothing")
    arguments = parser.parse_args()
    settings = tomllib.loads(SETTINGS.read_text())
    mutants = chosen_mutants(arguments, settings)
    if arguments.list:
        for mutant in mutants:
            print("\n".join([mutant.name, *(f"    {line}" for line in mutant.difference())]))
        return
    warm_up()
    with tempfile.TemporaryDirectory() as folder:
        survivors = run(mutants, settings, pathlib.Path(folder))
    killed = len(mutants) - len(survivors)
    share = 100 * killed / max(len(mutants), 1)
    print(f"\n{killed} of {len(mutants)} killed: {share:.1f} %")
    for mutant in survivors:
        print("\n".join([mutant.name, *(f"    {line}" for line in mutant.difference())]))
    if share < arguments.least:
        sys.exit(f"Expected at least {arguments.least} %.")


if __name__ == "__main__":
    main()
