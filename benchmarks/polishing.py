"""What `quantal.polish` adds to training with the default: every seed is shown.

    python benchmarks/polishing.py planted perceptron fashion --data DIR

Planted vectors of 64 elements in correlated rows, four values and nine powers of two, 10 s
each; perceptrons of 1,001 signs, followed until patterns stop being satisfied; Fashion-MNIST
networks with binary and ternary kernels, 50,000 images to polish on, 10,000 to validate, 120 s.
With `--arm` and `--evaluations`, networks are polished in several ways from the same weights, each
with as many evaluations: P changes codes alone, V trains the variables that are on no list with the
codes frozen, P+V is `continuous=True`. The seconds of these are the processor's.

    python benchmarks/polishing.py fashion --data DIR --values binary --evaluations 1500 \\
        --arm P --arm V --arm P+V

`DIR` holds fashion_mnist/. Prints a Markdown table for each.
"""

import argparse
import pathlib
import time

import fashion_mnist
import keras
import numpy as np
from learning import cases, vectors
from peers.protocol import load

import quantal


def planted(_, seeds, budget):
    print("| planted | seed | loss / planted loss, trained | polished | seconds |")
    print("|---|---|---|---|---|")
    met = {}
    for name in ("four_values", "nine_powers"):
        case = cases.PLANTED[f"planted-{name}-64-0.9-squared"]
        for seed in seeds or range(20):
            keras.utils.set_random_seed(seed)
            problem = case.instance(seed)
            model = vectors.unit(64, cases.LISTS[name], "auto")
            model.compile(keras.optimizers.Adam(1e-2), "mse")
            rows, targets = problem.rows, problem.targets[:, None]
            model.fit(
                np.tile(rows, (500, 1)), np.tile(targets, (500, 1)), batch_size=len(rows),
                epochs=6, shuffle=False, verbose=0,
            )  # fmt: skip
            before = problem.score(vectors.weights_of(model))
            report = quantal.polish(model, rows, targets, budget or 10, seed=seed, verbose=0)
            after = problem.score(vectors.weights_of(model))
            met[name] = met.get(name, 0) + (after <= cases.SOLVED)
            seconds = report.history[-1][0]
            print(f"| {name} | {seed} | {before:.4g} | {after:.6g} | {seconds:.2f} |", flush=True)
    print("at most the planted vector's:", met)


def perceptron(_, seeds, budget):
    print("| load | seed | patterns missed, trained | polished | after, s |")
    print("|---|---|---|---|---|")

    def missed(y, outputs):
        return keras.ops.mean(keras.ops.cast(outputs <= 0, "float32"))

    for load_ in (0.65, 0.7, 0.72):
        for seed in seeds or range(3):
            keras.utils.set_random_seed(seed)
            patterns = cases.perceptron(load_, seed)
            ones = np.ones((len(patterns), 1), np.float32)
            size = patterns.shape[1]
            outputs = keras.layers.Rescaling(6 / np.sqrt(size))
            model = vectors.unit(size, [-1, 1], "auto", outputs)
            loss = keras.losses.BinaryCrossentropy(from_logits=True)
            model.compile(keras.optimizers.Adam(1e-2), loss)
            model.fit(patterns, ones, batch_size=32, epochs=100, verbose=0)
            before = cases.unsatisfied(patterns, vectors.weights_of(model))
            report = quantal.polish(
                model, patterns, ones, budget or 60, monitor=missed, seed=seed, verbose=0
            )
            after = cases.unsatisfied(patterns, vectors.weights_of(model))
            seconds = report.history[-1][0]
            print(f"| {load_} | {seed} | {before} | {after} | {seconds:.1f} |", flush=True)


def trained_network(values, seed, given):
    """Return a network of benchmarks/fashion_mnist.py, trained along a cosine."""
    keras.utils.set_random_seed(seed)
    model = fashion_mnist.network("mlp", values)
    steps = fashion_mnist.EPOCHS * -(-len(given[0]) // fashion_mnist.BATCH)
    rate = keras.optimizers.schedules.CosineDecay(1e-2, steps)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
    model.fit(*given, batch_size=fashion_mnist.BATCH, epochs=fashion_mnist.EPOCHS, verbose=0)
    return model


def fashion(data, seeds, budget, values=(), arms=()):
    print(
        "| kernels | seed | arm | loss | polished | validation loss | polished "
        "| test accuracy, % | polished | changed |"
    )
    print("|" + "---|" * 10)
    (images, labels), (test, test_labels) = (load(str(data), part) for part in ("train", "t10k"))
    mean = images.mean(axis=0)
    images, test = images - mean, test - mean
    given, validation = (images[:50_000], labels[:50_000]), (images[50_000:], labels[50_000:])
    for name in values or ("binary", "ternary"):
        for seed in seeds or range(3):
            model = trained_network(name, seed, given)
            weights = model.get_weights()
            before = model.evaluate(test, test_labels, batch_size=1000, verbose=0)[1]
            for arm in arms or ("P",):
                model.set_weights(weights)
                for layer in model.layers:
                    layer.trainable = arm != "V" or not isinstance(layer, quantal.Discrete)
                began = time.process_time()
                report = quantal.polish(
                    model, *given, budget or 120, validation_data=validation,
                    continuous=arm != "P", seed=seed, verbose=0,
                )  # fmt: skip
                took = time.process_time() - began
                after = model.evaluate(test, test_labels, batch_size=1000, verbose=0)[1]
                print(
                    f"| {name} | {seed} | {arm} | {report.loss_before:.4f} | {report.loss:.4f} "
                    f"| {report.validation_before:.4f} | {report.validation:.4f} "
                    f"| {100 * before:.2f} | {100 * after:.2f} "
                    f"| {report.changed:,} of {report.elements:,}, {report.evaluations:,} "
                    f"evaluations, {took:.0f} s |",
                    flush=True,
                )


def main():
    cases_ = {"planted": planted, "perceptron": perceptron, "fashion": fashion}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case", nargs="+", choices=cases_)
    parser.add_argument("--data", type=pathlib.Path)
    parser.add_argument("--seeds", type=int, nargs="+", help="such as 0 1 2")
    parser.add_argument("--budget", type=float, help="seconds")
    parser.add_argument("--evaluations", type=int, help="in place of seconds")
    parser.add_argument("--values", action="append", help="of the networks' kernels")
    parser.add_argument("--arm", action="append", choices=["P", "V", "P+V"], help="of networks: P")
    arguments = parser.parse_args()
    budget = arguments.budget
    if arguments.evaluations is not None:
        budget = quantal.Budget(budget, arguments.evaluations)
    networks = {"values": arguments.values, "arms": arguments.arm}
    folder = None if arguments.data is None else arguments.data / "fashion_mnist"
    for case in arguments.case:
        cases_[case](folder, arguments.seeds, budget, **(networks if case == "fashion" else {}))


if __name__ == "__main__":
    main()
