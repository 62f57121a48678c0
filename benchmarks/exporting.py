"""How small files are, and how fast and exact the runtimes that read them.

    python benchmarks/exporting.py entropy          packed codes against their entropy
    python benchmarks/exporting.py network --data DIR    a trained network in every format
    python benchmarks/exporting.py layer            one layer of 8192 x 8192 in ONNX
    python benchmarks/exporting.py speed            one layer of 4096 x 4096, one sample a call
    python benchmarks/exporting.py fidelity         100,000 arrays saved and loaded again

Each prints a Markdown table. `speed` runs every file in three rounds in turn, each round in a
process of its own on one thread, and gives medians over the rounds and their extremes, as ratios
to the float file of the same round.
"""

import argparse
import pathlib
import statistics
import tempfile

import keras
import numpy as np
from keras import layers

import quantal
from quantal._core.numbers.entropy import entropy
from quantal._export.fidelity import Reference
from quantal._export.registry import TARGETS
from quantal._export.report import size_of
from quantal._export.running import run_file
from quantal._storage.packing import pack
from quantal._storage.record import record_of, restore

FOUR = [1, -1, 0.5, -0.5]


def rows_of(title, rows):
    print(f"| {' | '.join(title)} |\n|{'---|' * len(title)}")
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |", flush=True)


def codes_used(shares, count, random):
    return random.choice(len(shares), count, p=np.asarray(shares) / np.sum(shares))


def bell(length):
    """Normal use of the values of a list."""
    return np.exp(-0.5 * np.linspace(-3, 3, length) ** 2)


USES = {
    "2, uniform": [1, 1],
    "2, 70/30": [70, 30],
    "2, 90/10": [90, 10],
    "3, uniform": [1, 1, 1],
    "3, 70/20/10": [70, 20, 10],
    "4, uniform": [1] * 4,
    "4, 70/20/7/3": [70, 20, 7, 3],
    "5, uniform": [1] * 5,
    "16, uniform": [1] * 16,
    "16, normal": bell(16),
    "256, uniform": [1] * 256,
    "256, normal": bell(256),
}


def entropy_table(arguments):
    """Packed codes of 10^5 elements and of a layer of 2,048 x 2,048."""
    random = np.random.default_rng(0)
    rows = []
    for name, shares in USES.items():
        cells = [name]
        for count in (100_000, 2048 * 2048):
            codes = codes_used(shares, count, random)
            least, packed = entropy(codes), pack(codes, len(shares))
            bits = 8 * len(packed.data) / count
            cells += [f"{least:.4f}", f"{bits:.4f}", f"{100 * (bits / least - 1):+.2f} %"]
        layer = quantal.Discrete(layers.Dense(250, use_bias=False), np.arange(len(shares)))
        model = keras.Sequential([keras.Input((400,)), layer])
        codes = codes_used(shares, 100_000, random).reshape(400, 250)
        layer.set_codes(codes)
        with tempfile.TemporaryDirectory() as folder:
            size = quantal.save(model, pathlib.Path(folder) / "m")
        data = len(pack(codes, len(shares)).data)
        rows.append([*cells, "coded" if packed.coded else "words", size - data])
    rows_of(
        ["list, use", *["entropy", "bits", "above"] * 2, "packing", "bytes besides in a file"], rows
    )


def network_table(arguments):
    """The files of a Fashion-MNIST network, ternary, after one epoch."""
    from fashion_mnist import network
    from peers.protocol import load

    images, labels = load(arguments.data, "train")
    test = load(arguments.data, "t10k")
    keras.utils.set_random_seed(0)
    model = network("mlp", "ternary")
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(images, labels, batch_size=128, epochs=1, verbose=0)
    expected = model.predict(test[0], batch_size=1000, verbose=0)
    print(f"test accuracy {100 * np.mean(expected.argmax(1) == test[1]):.2f} %\n")
    weights = sum(int(np.prod(p.shape)) for p in quantal.parameters_of(model))
    rows = []

    def row(name, *paths, largest="-"):
        size = size_of(list(paths))
        rows.append([name, f"{size:,}", f"{8 * size / weights:.3f}", largest])

    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        model.save(folder / "with_adam.keras")
        row("`.keras`, latents and Adam", folder / "with_adam.keras")
        plain = quantal.bake(model)
        plain.compile(None)
        plain.save(folder / "floats.keras")
        row("`.keras`, floats (`bake`)", folder / "floats.keras")
        quantal.finalize(model).save(folder / "final.keras")
        row("`.keras` of `finalize`", folder / "final.keras")
        quantal.save(model, folder / "m.quantal")
        row("`quantal.save`", folder / "m.quantal")
        for name, target in TARGETS.items():
            if name in ("csv", "torch"):
                continue
            try:
                report = quantal.export(
                    model, folder / f"m{target.ending}", name, inputs=test[0][:1000]
                )
            except (ValueError, ImportError) as error:
                rows.append([f"`{name}`", str(error).split(".")[0], "-", "-"])
                continue
            if report.floats:
                rows.append([f"`{name}`, floats", f"{report.floats.bytes:,}", "-", "-"])
            largest = "-" if report.largest is None else f"{report.largest:.1e}"
            row(f"`{name}`", *report.paths, largest=largest)
    rows_of(["file", "bytes", "bits a kernel weight", "largest difference"], rows)


def wide_model(size, values):
    """A Dense layer of random listed weights, the latents left to their codes."""
    layer = quantal.Discrete(layers.Dense(size, use_bias=False), values)
    return keras.Sequential([keras.Input((size,)), layer])


def layer_table(arguments):
    """Bits a weight of one large layer in ONNX, and its output."""
    rows = []
    for name, values in {
        "±1": [1, -1],
        "ternary": "ternary",
        "four values": FOUR,
        "16 values": np.linspace(-1, 1, 16),
    }.items():
        model = wide_model(arguments.size, values)
        x = np.random.default_rng(0).standard_normal((4, arguments.size)).astype("f4")
        with tempfile.TemporaryDirectory() as folder:
            report = quantal.export(model, pathlib.Path(folder) / "m.onnx", inputs=x)
            bits = 8 * report.figures.bytes / arguments.size**2
            rows.append([name, f"{report.figures.bytes:,}", f"{bits:.4f}", f"{report.largest:.1e}"])
            print(rows[-1], flush=True)
    rows_of(["list", "bytes", "bits a weight", "largest difference to Keras"], rows)


def speed_table(arguments):
    """Runtimes on one sample, packed against floats."""
    x = np.random.default_rng(0).standard_normal((1, arguments.size)).astype("f4")
    rows = []
    for name, values in (("±1", [1, -1]), ("four values", FOUR)):
        model = wide_model(arguments.size, values)
        for target in arguments.target or ("onnx", "onnx_fast", "openvino", "litert"):
            try:
                cells = compare_speed(model, target, x)
            except (ValueError, ImportError) as error:
                cells = [str(error).split(".")[0], *["-"] * 6]
            rows.append([name, target, *cells])
            print(rows[-1], flush=True)
    rows_of(
        [
            "list", "target", "floats, ms", "packed, ms", "times as fast", "largest difference",
            "memory of floats, MB", "of packed, MB", "bytes",
        ],
        rows,
    )  # fmt: skip


def compare_speed(model, name, x):
    """Return the cells of a target: three rounds in turn, medians and extremes of ratios."""
    target = TARGETS[name]
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        (folder / "floats").mkdir()
        written = target.write(model, folder / f"m{target.ending}")
        floats = written.write_floats(folder / "floats" / f"m{target.ending}")
        reference = Reference(model, x)
        rounds = [
            [run_file(paths[0], reference.batches) for paths in (floats, written.paths)]
            for _ in range(3)
        ]
        size = size_of(written.paths)
    packed = rounds[-1][1]
    if packed.missing:
        return [packed.missing, *["-"] * 6]
    times = [[run.milliseconds for run in runs] for runs in zip(*rounds, strict=True)]
    memory = [[run.memory for run in runs] for runs in zip(*rounds, strict=True)]
    ratios = [f / p for f, p in zip(*times, strict=True)]
    return [
        *(f"{statistics.median(each):.2f}" for each in times),
        f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
        f"{reference.difference(packed.precise or packed.outputs).largest:.1e}",
        *(f"{statistics.median(each) / 1e6:.0f}" for each in memory),
        f"{size:,}",
    ]


def fidelity_table(arguments):
    """Random arrays over random lists: packed, put into a file's arrays, and back."""
    random = np.random.default_rng(0)
    layer = quantal.LearnableMultiplier([1.0])
    layer.build((None, 1))
    wrong = coded = 0
    for _ in range(arguments.arrays):
        length = int(random.integers(1, 40)) if random.random() < 0.9 else 300
        values = random.choice(10_000, length, replace=False) / 1000 - 5
        count = int(random.integers(1, 400)) if random.random() < 0.98 else 20_000
        shares = random.dirichlet(np.full(length, random.choice([0.1, 1, 10])))
        codes = random.choice(length, count, p=shares)
        parameter = parameter_like(values, count)
        parameter.set_codes(codes)
        kernel = keras.ops.convert_to_numpy(parameter.listed_values)
        record = record_of(parameter)
        other = parameter_like(values, count)
        restore(other, record)
        wrong += not np.array_equal(kernel, keras.ops.convert_to_numpy(other.kernel))
        wrong += not np.array_equal(codes, keras.ops.convert_to_numpy(other.codes))
        coded += record.coded
    print(f"{arguments.arrays} arrays, {coded} of them coded: {wrong} not identical")


def parameter_like(values, count):
    variable = keras.Variable(np.zeros(count, "f4"))
    return quantal.Parameter(
        variable, quantal.Values(values), quantal.estimators.get("straight_through")
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["entropy", "network", "layer", "speed", "fidelity"])
    parser.add_argument("--data", help="the folder of Fashion-MNIST's four files")
    parser.add_argument("--size", type=int, help="of the layer")
    parser.add_argument("--target", action="append", help="of `speed`; all where left out")
    parser.add_argument("--arrays", type=int, default=100_000)
    arguments = parser.parse_args()
    arguments.size = arguments.size or {"layer": 8192, "speed": 4096}.get(arguments.what)
    tables = {
        "entropy": entropy_table,
        "network": network_table,
        "layer": layer_table,
        "speed": speed_table,
        "fidelity": fidelity_table,
    }
    tables[arguments.what](arguments)


if __name__ == "__main__":
    main()
