"""Models of keras.applications and keras-hub are put on three values, trained, saved and loaded.

All 14 families of keras.applications in their smallest member, and backbones and tasks of keras-hub
with a layer or two; all with random weights, for small inputs (`zoo_models.py`). Of each model:
`discretize(model, "ternary")`, `assert_listed`, one step of `fit`, `save`, `load`, `bake` and
`finalize`, the last three compared with the discrete model's predictions to the bit; the file's
bytes against the entropy of the codes and all other floats; the seconds of discretizing and loading
against those of `keras.models.clone_model`.

    pip install keras-hub
    KERAS_BACKEND=torch python benchmarks/zoo.py
    KERAS_BACKEND=jax python benchmarks/zoo.py --model 'MobileNet*' --model 'Bert*'
    python benchmarks/zoo.py --list

Each model runs in a process of its own. Its row is printed and kept in a file of JSON lines as it
finishes: an interrupted run goes on where it stopped, as long as quantal's code is the same;
`--again` repeats the rows that failed, `--table` prints the table of what is there.
"""

import argparse
import fnmatch
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

HERE = pathlib.Path(__file__).parent
LONGEST_SECONDS = 1800
# The stages of zoo_trial.py, in the order of the table.
CHECKS = {
    "discretize": "discretize",
    "class": "class kept",
    "assert_listed": "listed",
    "fit": "fit",
    "save": "save",
    "load": "load",
    "load_equal": "loaded, equal",
    "bake_equal": "baked, equal",
    "finalize_equal": "finalized, equal",
}
REQUIRED = ["make", *CHECKS]
Row = dict[str, Any]


def code_version() -> str:
    """Return a digest of what a row depends on: quantal's source and the trial itself."""
    import quantal

    digest = hashlib.sha256()
    source = pathlib.Path(quantal.__file__).parent
    for path in [*sorted(source.rglob("*.py")), *sorted(HERE.glob("zoo_*.py"))]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def try_model(name: str, seconds: float) -> Row:
    """Run one model in a process of its own; return its row, whatever happens to it."""
    command = [sys.executable, str(HERE / "zoo_trial.py"), name]
    start = time.monotonic()
    row: Row = {"model": name, "backend": os.environ["KERAS_BACKEND"], "code": code_version()}
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
        output, end = process.stdout, f"exit code {process.returncode}"
        row["log"] = process.stderr[-4000:]
    except subprocess.TimeoutExpired as error:
        output = error.stdout.decode() if error.stdout else ""
        end = f"more than {seconds:.0f} s"
    for line in output.splitlines():
        if line.startswith("{"):
            row |= json.loads(line)
    if not row.pop("done", False):
        row["stopped"] = end
    row["wall"] = round(time.monotonic() - start, 1)
    return row


def failures(row: Row) -> dict[str, str]:
    """Return what did not pass, by stage; stages that were not reached are left out."""
    result = {
        key: row[key]
        for key in [*REQUIRED, "plain", "bake", "finalize", "predict", "generate", "generate_equal"]
        if row.get(key, "+") not in ("+", "-")
    }
    if "stopped" in row:
        result["stopped"] = row["stopped"]
    return result


def ratio(numerator: float | None, denominator: float | None) -> str:
    return f"{numerator / denominator:.2f}" if numerator and denominator else ""


def cells(row: Row) -> Iterator[str]:
    yield row["model"]
    yield f"{row.get('numbers', 0) / 1e6:.2f}"
    for key in CHECKS:
        yield {"+": "+", "-": "-", "": ""}.get(row.get(key, ""), "no")
    yield str(row.get("bytes", ""))
    yield ratio(row.get("bytes"), row.get("bound"))
    for key in ("clone_seconds", "discretize_seconds", "load_seconds"):
        yield str(row.get(key, ""))
    yield str(row.get("mebibytes", ""))


def table(rows: Iterable[Row]) -> str:
    """Return rows in Markdown, with the failures below."""
    heads = ["model", "numbers, M", *CHECKS.values(), "bytes", "/ bound"]
    heads += ["clone, s", "discretize, s", "load, s", "MiB"]
    rows = list(rows)
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    lines += ["| " + " | ".join(cells(row)) + " |" for row in rows]
    passed = sum(not failures(row) for row in rows)
    lines += ["", f"{passed} of {len(rows)} without a failure.", ""]
    for row in rows:
        lines += [f"- {row['model']}, {stage}: {text}" for stage, text in failures(row).items()]
    return "\n".join(lines)


def read_rows(path: pathlib.Path) -> dict[str, Row]:
    """Return the last row of each model; a line that was cut off is left out."""
    rows = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        rows[row["model"]] = row
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", action="append", help="names, as in a shell: 'MobileNet*'")
    parser.add_argument("--results", type=pathlib.Path, help="the file of JSON lines")
    parser.add_argument("--seconds", type=float, default=LONGEST_SECONDS, help="for one model")
    parser.add_argument("--again", action="store_true", help="repeat the rows that failed")
    parser.add_argument("--list", action="store_true", help="print the names of the models")
    parser.add_argument("--table", action="store_true", help="run nothing, print the table")
    arguments = parser.parse_args()
    if "KERAS_BACKEND" not in os.environ:
        sys.exit("Set KERAS_BACKEND.")
    from zoo_models import MODELS

    patterns = arguments.model or ["*"]
    names = [n for n in MODELS if any(fnmatch.fnmatch(n, pattern) for pattern in patterns)]
    if arguments.list:
        print("\n".join(names))
        return
    path = arguments.results or HERE.parent / f".cache/zoo-{os.environ['KERAS_BACKEND']}.jsonl"
    path.parent.mkdir(exist_ok=True)
    rows = read_rows(path)
    code = code_version()
    for number, name in enumerate(names, 1):
        row = rows.get(name)
        is_done = row is not None and row["code"] == code
        if arguments.table or (is_done and not (arguments.again and failures(row))):
            continue
        rows[name] = row = try_model(name, arguments.seconds)
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        outcome = "; ".join(f"{k}: {v}" for k, v in failures(row).items()) or "passed"
        print(f"{number} of {len(names)}: {name}, {row['wall']:.0f} s: {outcome}", flush=True)
    print(table(rows[name] for name in names if name in rows))


if __name__ == "__main__":
    main()
