"""How time grows with the number of elements n, and with the length of the list K.

    KERAS_BACKEND=jax python benchmarks/growth.py --rows growth.jsonl
    python benchmarks/growth.py --rows growth.jsonl --picture docs/pictures/growth.svg

The first command measures on one backend and adds a JSON row for each point: the fastest and the
median of several rounds, in seconds, and the least processor time of all threads together, which
says more where other processes run (`--by processor`). n goes from 10^3 to `--largest` with 256
values, K from 2 to 65,536 with 10^6 elements. Each work is repeated until a quarter of a second
has passed. What floats take is measured in turn with it, in another order each round: a step of
the plain layer, and a pass that adds 1 to each number.

The second draws the rows, and prints tables of exponents. For n: the slope of a line through the
logarithms, of times less that of 10^3 elements, which is mostly overhead, from three times that on.
For K: the slope over all K from 16 on; the logarithm of K itself has the slope 0.16 there, and
what is linear has 1. Memory bends the times of floats, too, where tensors leave the caches, and
where each one is asked of the system anew. So the last table has the ratio to floats, whose
exponent is 0 if a list costs no more with more elements.
"""

import argparse
import gc
import json
import os
import pathlib
import sys
import tempfile
import time

import numpy as np

SIZES = [1000, 3162, 10**4, 31_623, 10**5, 316_228, 10**6, 3_162_278, 10**7, 31_622_777, 10**8]
LENGTHS = [2, 4, 16, 64, 256, 1024, 4096, 16_384, 65_536]
LENGTH, ELEMENTS = 256, 10**6
"""The list's length while n grows, and the number of elements while K grows."""

REUSED = {
    "MALLOC_MMAP_THRESHOLD_": "4000000000",
    "MALLOC_TRIM_THRESHOLD_": "16000000000",
    "MALLOC_TOP_PAD_": "268435456",
    "MALLOC_ARENA_MAX": "1",
}
"""With these glibc keeps memory that is freed, and gives it out again. As a rule it asks the system
for each tensor above 32 MB anew, which clears every page of it: most of a pass over floats."""

SECONDS, MOST_ROUNDS = 0.25, 50
"""A work is repeated until so many seconds have passed, at least thrice, at most so often."""

OVERHEAD = 3.0
"""From so many times the time of the smallest size on, a work is fitted."""

SHORTEST = 16
"""From this length on growth with K is fitted: shorter lists have another form."""

GUIDE = 6e-10
"""The gray line of the picture takes so many seconds an element: it lies below the others."""

WORKS = ("projection", "step", "codes", "save", "load", "nearest in NumPy", "list")
FLOATS = {"projection": "float pass", "codes": "float pass", "step": "float step"}
"""What is measured in turn with a work, and what its ratio is to."""

SMALLEST = 10**6
"""From so many elements on ratios are fitted: below, the overhead of calls differs."""


def values_of(length):
    """A list of distinct numbers with a normal distribution's quantiles."""
    from statistics import NormalDist

    from quantal import Values

    shares = (np.arange(length) + 0.5) / length
    return Values([NormalDist().inv_cdf(share) for share in shares])


def wait(result):
    """Until the result is there: JAX computes ahead."""
    if hasattr(result, "block_until_ready"):
        result.block_until_ready()


def seconds_of(works):
    """The times of each work, in turn in another order each round, after a first that compiles."""
    for work in works.values():
        wait(work())
    times, processor = ({name: [] for name in works} for _ in range(2))
    order, random = list(works), np.random.default_rng(0)
    rounds, began = 0, time.perf_counter()
    while rounds < 3 or (
        rounds < MOST_ROUNDS and time.perf_counter() - began < SECONDS * len(works)
    ):
        rounds += 1
        random.shuffle(order)
        for name in order:
            start, begin = time.perf_counter(), time.process_time()
            wait(works[name]())
            times[name].append(time.perf_counter() - start)
            processor[name].append(time.process_time() - begin)
    rows = {}
    for name in works:
        row = rows[name] = {
            "fastest": min(times[name]),
            "median": float(np.median(times[name])),
            "processor": max(min(processor[name]), 1e-6),
        }
        floats = times.get(FLOATS.get(name))
        if floats is not None:
            row["ratio"] = float(np.median(np.divide(times[name], floats)))
    return rows


def works_of(elements, length, folder):
    """Name and function of each work on a kernel with so many elements, about square."""
    import keras

    import quantal
    from quantal._core.tensors.projection import projection_of
    from quantal.testing import compiled

    numbers = values_of(length)
    rows = max(1, round(elements**0.5))
    units = round(elements / rows)
    layer = quantal.Discrete(keras.layers.Dense(units, use_bias=False), numbers)
    model = keras.Sequential([keras.Input((rows,)), layer])
    model.compile("adam", "mse")
    x, y = np.ones((4, rows), "float32"), np.zeros((4, units), "float32")
    plain = keras.Sequential([keras.Input((rows,)), keras.layers.Dense(units, use_bias=False)])
    plain.compile("adam", "mse")
    # A copy: training steps of JAX take the memory of the latents themselves.
    array = np.array(keras.ops.convert_to_numpy(layer.discrete_parameters[0].latent))
    latent = keras.ops.convert_to_tensor(array)
    path = os.path.join(folder, "model.quantal")
    projected = compiled(projection_of(numbers).nearest)
    passed = compiled(lambda tensor: tensor + 1.0)
    ascending = numbers.tolist()
    return {
        "projection": lambda: projected(latent),
        "float pass": lambda: passed(latent),
        "step": lambda: model.train_on_batch(x, y),
        "float step": lambda: plain.train_on_batch(x, y),
        "codes": lambda: layer.codes,
        "save": lambda: quantal.save(model, path),
        "load": lambda: quantal.load(path),
        "nearest in NumPy": lambda: numbers.nearest(array),
        "list": lambda: quantal.Values(ascending).midpoints,
    }


def groups_of(works, names, against):
    """The works that are measured in turn: what is compared with the same floats, or one alone."""
    wanted = [name for name in names if name != "list" or against == "K"]
    for floats in dict.fromkeys(FLOATS.get(name, name) for name in wanted):
        group = [name for name in wanted if FLOATS.get(name, name) == floats]
        yield {name: works[name] for name in dict.fromkeys([*group, floats])}


def measure(path, largest, names, directions):
    """Add the rows of one backend to a file."""
    import keras

    points = [("n", size, LENGTH) for size in SIZES if size <= largest]
    points += [("K", ELEMENTS, length) for length in LENGTHS]
    points = [point for point in points if point[0] in directions]
    with tempfile.TemporaryDirectory() as folder, open(path, "a", encoding="utf-8") as rows:
        for against, size, length in points:
            works = works_of(size, length, folder)
            for group in groups_of(works, names, against):
                for name, times in seconds_of(group).items():
                    row = {"backend": keras.config.backend(), "work": name, "against": against}
                    row |= {"n": size, "K": length, **times}
                    print(json.dumps(row), file=rows, flush=True)
                    print(json.dumps(row), flush=True)
            del works
            keras.backend.clear_session()
            gc.collect()


def curves_of(rows, by):
    """The sizes and times of each backend, work and direction; a later row counts."""
    curves = {}
    for row in rows:
        curve = curves.setdefault((row["against"], row["work"], row["backend"]), {})
        if by in row:
            curve[row[row["against"]]] = row[by]
    return {key: tuple(np.array(sorted(curve.items())).T) for key, curve in curves.items() if curve}


def exponent_of(against, sizes, times):
    """The slope of the logarithms, and the first and last size that were fitted; or None."""
    fitted = times >= OVERHEAD * times[0] if against == "n" else sizes >= SHORTEST
    times = times - times[0] if against == "n" else times
    if fitted.sum() < 3:
        return None
    slope = np.polyfit(np.log(sizes[fitted]), np.log(times[fitted]), 1)[0]
    return float(slope), int(sizes[fitted].min()), int(sizes[fitted].max())


def table_of(curves):
    """Exponents as a Markdown table."""
    lines = [
        "| against | work | backend | exponent | fitted | seconds at the end |",
        "|---" * 6 + "|",
    ]
    for (against, work, backend), (sizes, times) in sorted(curves.items()):
        result = exponent_of(against, sizes, times)
        slope, low, high = ("-", "", "") if result is None else result
        cells = [against, work, backend, f"{slope:.2f}" if result else "-"]
        cells += [f"{low:,} to {high:,}" if result else "too few points", f"{times[-1]:.3g}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def ratios_of(rows):
    """A Markdown table of ratios to floats, and their exponents against n."""
    medians, fastest = curves_of(rows, "ratio"), curves_of(rows, "fastest")
    sizes_shown = [10**6, 10**7, 10**8]
    lines = [
        "| work / floats | backend | exponent of medians | of the fastest | "
        + " | ".join(f"ratio at 10^{len(str(size)) - 1}" for size in sizes_shown)
        + " | fitted |",
        "|---" * (5 + len(sizes_shown)) + "|",
    ]
    for (against, work, backend), (sizes, ratios) in sorted(medians.items()):
        if against != "n":
            continue
        by_size = dict(zip(*fastest[against, FLOATS[work], backend], strict=True))
        times = dict(zip(*fastest[against, work, backend], strict=True))
        of_fastest = np.array([times[size] / by_size[size] for size in sizes])
        fitted = sizes >= SMALLEST
        if fitted.sum() < 3:
            continue
        slopes = [
            np.polyfit(np.log(sizes[fitted]), np.log(numbers[fitted]), 1)[0]
            for numbers in (ratios, of_fastest)
        ]
        shown = dict(zip(sizes, ratios, strict=True))
        cells = [f"{work} / {FLOATS[work]}", backend, *(f"{slope:+.3f}" for slope in slopes)]
        cells += [f"{shown[size]:.2f}" if size in shown else "-" for size in sizes_shown]
        cells.append(f"{int(sizes[fitted].min()):,} to {int(sizes.max()):,}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(curves, path, by):
    """Draw time against n and K, with a line for each work and a style for each backend."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "quantal"
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 5), layout="constrained", sharey=True)
    colors = dict(zip(WORKS, plt.get_cmap("tab10").colors, strict=False))
    colors |= {"float step": "tab:olive", "float pass": "tab:cyan"}
    styles = {"jax": "-", "tensorflow": "--", "torch": ":"}
    titles = {
        "n": f"elements n, with {LENGTH} values",
        "K": f"values K, with {ELEMENTS:,} elements",
    }
    for axis, (against, title) in zip(axes, titles.items(), strict=True):
        for (direction, work, backend), (sizes, times) in sorted(curves.items()):
            if direction == against and (direction == "n" or work not in FLOATS.values()):
                axis.loglog(sizes, times, styles[backend], color=colors[work], marker=".")
        axis.set_xlabel(title)
        axis.grid(alpha=0.3)
    kind = "processor time" if by == "processor" else f"the {by} round"
    axes[0].set_ylabel(f"seconds, {kind}")
    guide = np.array([3e4, axes[0].get_xlim()[1]])
    axes[0].loglog(guide, guide * GUIDE, color="gray", linewidth=1)
    axes[0].annotate(" linear", (guide[0], guide[0] * GUIDE), color="gray", va="top")
    axes[0].set_ylim(bottom=5e-6)
    lines = [plt.Line2D([], [], color=color, label=work) for work, color in colors.items()]
    shown = {backend for _, _, backend in curves}
    lines += [plt.Line2D([], [], color="black", linestyle=style, label=backend)
              for backend, style in styles.items() if backend in shown]  # fmt: skip
    figure.legend(handles=lines, loc="outside right upper", frameon=False)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=pathlib.Path, required=True)
    parser.add_argument("--largest", type=float, default=1e7)
    parser.add_argument("--work", action="append", choices=WORKS, help="measure only this")
    parser.add_argument("--against", action="append", choices=("n", "K"), help="not both")
    parser.add_argument(
        "--reuse-memory", action="store_true", help="let glibc keep what is freed (Linux)"
    )
    parser.add_argument("--by", choices=("fastest", "median", "processor"), default="fastest")
    parser.add_argument("--picture", type=pathlib.Path, help="draw the rows, measure nothing")
    arguments = parser.parse_args()
    if arguments.reuse_memory and not REUSED.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **REUSED})
    if arguments.picture is None:
        directions = arguments.against or ("n", "K")
        measure(arguments.rows, arguments.largest, arguments.work or WORKS, directions)
        return
    lines = arguments.rows.read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    curves = curves_of(rows, arguments.by)
    print(table_of(curves), ratios_of(rows), sep="\n\n")
    draw(curves, arguments.picture, arguments.by)


if __name__ == "__main__":
    main()
