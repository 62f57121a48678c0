"""How much longer a training step takes with listed weights than with float ones.

    KERAS_BACKEND=jax python benchmarks/speed.py
    KERAS_BACKEND=torch python benchmarks/speed.py --compiled --case "Dense, batch 256"
    KERAS_BACKEND=torch python benchmarks/speed.py --kinds --case "Dense, batch 32"

For each case a model with float weights and one model for each list are compiled with Adam. A
round trains each of them by `fit`, for a few steps on the same batches, in shuffled order, in one
process; ratios are taken within a round. Prints a Markdown table, a row a list:

- `float ms`: one step of the float model, the median over the rounds;
- `ratio`: the listed model's time over the float model's, the median, with quartiles and minimum;
- `fastest`: the fastest round of the listed model over the fastest one of the float model. Beside
  other processes it says the most: they only ever add time;
- `processor`: the same of processor time, all threads together.
"""

import argparse
import functools
import os
import time

import keras
import numpy as np
from keras import layers, ops

import quantal

random = np.random.default_rng(0)

FOUR = [1, -1, 0.5, -0.5]

LISTS = {
    "±1": "binary",
    "four": FOUR,
    "16": "nf4",
    "256 integers": "signed:8",
    "256 normal": random.normal(size=256),
}
SHORT = ("±1", "four", "256 integers", "256 normal")

MOST_COMPILED = 512
"""Each model of a run is compiled up to three times; PyTorch's own limit is 8 in a process."""

UNITS = 2048
FEATURES = 10**6


def numbers(*shape):
    return random.normal(size=shape).astype("float32")


class Multiplied(layers.Layer):
    """The plain layer that a `LearnableMultiplier` stands for has a float for each feature."""

    def build(self, shape):
        self.kernel = self.add_weight(name="kernel", shape=(shape[-1],), initializer="uniform")

    def call(self, inputs):
        return inputs * self.kernel


def dense(put, tail=None):
    inputs = keras.Input((UNITS,))
    outputs = put(layers.Dense(UNITS), "kernel")(inputs)
    return keras.Model(inputs, outputs if tail is None else tail(outputs))


def averaged(outputs):
    return ops.mean(outputs, -1, keepdims=True)


def with_one_unit(outputs):
    return layers.Dense(1)(outputs)


def dot_product(put):
    """One layer embeds two inputs."""
    inputs = [keras.Input((UNITS,)), keras.Input((UNITS,))]
    layer = put(layers.Dense(UNITS), "kernel")
    return keras.Model(inputs, layers.Dot(1)([layer(x) for x in inputs]))


def attention(put):
    inputs = keras.Input((32, 512))
    outputs = put(layers.MultiHeadAttention(8, 64), "kernel")(inputs, inputs)
    return keras.Model(inputs, outputs)


def multiplier(put, estimator):
    inputs = keras.Input((FEATURES,))
    return keras.Model(inputs, put(Multiplied(), "kernel", estimator)(inputs))


def convolutions(put):
    inputs = outputs = keras.Input((16, 16, 64))
    for _ in range(2):
        outputs = put(layers.Conv2D(128, 3, padding="same", activation="relu"), "kernel")(outputs)
    return keras.Model(inputs, layers.GlobalAveragePooling2D()(outputs))


def lstm(put):
    inputs = keras.Input((20, 64))
    layer = put(layers.LSTM(128), ("kernel", "recurrent_kernel"))
    return keras.Model(inputs, layer(inputs))


CASES = {
    "Dense, batch 256": (dense, 256, LISTS),
    "Dense, batch 32": (dense, 32, LISTS),
    "mean of Dense, batch 32": (functools.partial(dense, tail=averaged), 32, LISTS),
    "Dense(1) of Dense, batch 32": (functools.partial(dense, tail=with_one_unit), 32, SHORT),
    "dot product of Dense twice, batch 32": (dot_product, 32, SHORT),
    "attention, batch 8": (attention, 8, SHORT),
    "multiplier, batch 8": (functools.partial(multiplier, estimator="auto"), 8, SHORT),
    "multiplier, straight-through, batch 8": (
        functools.partial(multiplier, estimator="straight_through"),
        8,
        SHORT,
    ),
    "convolutions, batch 16": (convolutions, 16, SHORT),
    "LSTM, batch 64": (lstm, 64, SHORT),
}
"""Each case: a function of how to put a layer on a list, the batch, and names of lists."""


def put_float(layer, names, estimator="auto"):
    return layer


def put_on(values, scale):
    def put(layer, names, estimator="auto"):
        return quantal.Discrete(layer, values, names, estimator=estimator, scale=scale)

    return put


def put_kind(values, estimator="auto", scale=None):
    def put(layer, names, _="auto"):
        return quantal.Discrete(layer, values, names, estimator=estimator, scale=scale)

    return put


def rows_of(length, channels):
    """A list for each output channel: normal numbers."""
    return quantal.Values(np.random.default_rng(1).normal(size=(channels, length)), axis=-1)


def kinds(is_vector):
    """Return how to put a layer on lists with other estimators, scales and lists than usual."""
    lists = {
        f"learned list of {length}": quantal.Values(np.linspace(-1, 1, length), learnable=True)
        for length in (4, 16)
    }
    scales = {
        "scale learned": quantal.Scale(),
        "scale learned, power of two": quantal.Scale(power_of_two=True),
        "scale least squares": quantal.Scale("least_squares"),
        "scale mean absolute": quantal.Scale("mean_absolute"),
    }
    if not is_vector:
        channels = {f"list of {n} a channel": rows_of(n, UNITS) for n in (4, 16)}
        lists.update(channels)
        scales["scale a channel, learned"] = quantal.Scale(axis="output")
        scales["scale a channel, mean absolute"] = quantal.Scale("mean_absolute", "output")
        scales["scale a group of 128"] = quantal.Scale(group=128)
    named = ("annealed", "settling", "binary_relax", "element_wise_scaled", "residual")
    softmax = ("argmax_straight_through", "gumbel_softmax", "mean_field")
    surrogates = ("clip", "tanh", "approx_sign", "swish_sign")
    estimators = {name: name for name in (*named, *softmax)}
    estimators.update(
        {f"surrogate {name}": quantal.estimators.StraightThrough(name) for name in surrogates}
    )
    return {
        "straight_through": put_kind(FOUR, "straight_through"),
        **{name: put_kind(values) for name, values in lists.items()},
        **{name: put_kind(FOUR, scale=scale) for name, scale in scales.items()},
        **{name: put_kind(FOUR, estimator) for name, estimator in estimators.items()},
    }


class Contender:
    """A contender is a compiled model that trains for a few steps when it is called."""

    def __init__(self, build, put, data, batch, compiled):
        keras.utils.set_random_seed(0)
        self.model = build(put)
        options = {"jit_compile": True} if compiled else {}
        self.model.compile(keras.optimizers.Adam(), "mse", **options)
        self.data, self.batch = data, batch
        self.wall, self.processor = [], []

    def train(self):
        x, y = self.data
        self.model.fit(x, y, batch_size=self.batch, epochs=1, shuffle=False, verbose=0)

    def run(self):
        processor, wall = time.process_time(), time.perf_counter()
        self.train()
        self.wall.append(time.perf_counter() - wall)
        self.processor.append(time.process_time() - processor)


def row_of(case, name, steps, plain, listed):
    ratios = np.divide(listed.wall, plain.wall)
    low, median, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    fastest = min(listed.wall) / min(plain.wall)
    processor = min(listed.processor) / min(plain.processor)
    milliseconds = 1000 * np.median(plain.wall) / steps
    cells = [
        case, name, f"{milliseconds:.1f}", f"{median:.2f}", f"{low:.2f} to {high:.2f}",
        f"{ratios.min():.2f}", f"{fastest:.2f}", f"{processor:.2f}",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def compare(case, arguments):
    """Train a case's models in turn; print a row for each list."""
    build, batch, names = CASES[case]
    steps, compiled = arguments.steps, arguments.compiled
    names = [name for name in names if arguments.list is None or name in arguments.list]
    puts = {name: put_on(LISTS[name], arguments.scale) for name in names}
    if arguments.kinds:
        puts = kinds(is_vector=case.startswith("multiplier"))
        puts = {n: p for n, p in puts.items() if arguments.kind is None or n in arguments.kind}
        names = list(puts)
    puts = {"float": put_float, **puts}
    shapes = build(put_float)
    x = [numbers(batch * steps, *tensor.shape[1:]) for tensor in shapes.inputs]
    data = x if len(x) > 1 else x[0], numbers(batch * steps, *shapes.output_shape[1:])
    contenders = {name: Contender(build, put, data, batch, compiled) for name, put in puts.items()}
    for contender in contenders.values():
        # Twice: the first trains and compiles, the second shows what compiles once more.
        contender.train()
        contender.train()
    for _ in range(arguments.rounds):
        for name in random.permutation(list(contenders)):
            contenders[name].run()
    for name in names:
        print(row_of(case, name, steps, contenders["float"], contenders[name]), flush=True)


def let_pytorch_compile_every_model():
    """Raise the number of models after which PyTorch computes a function as it is written."""
    if keras.config.backend() == "torch":
        import torch._dynamo.config

        torch._dynamo.config.recompile_limit = MOST_COMPILED
        torch._dynamo.config.accumulated_recompile_limit = MOST_COMPILED


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--case", action="append", choices=CASES, help="run only this case")
    parser.add_argument("--list", action="append", choices=LISTS, help="run only this list")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=8, help="the steps of a model in a round")
    parser.add_argument("--compiled", action="store_true", help="compile(jit_compile=True)")
    parser.add_argument("--kinds", action="store_true", help="estimators, scales, kinds of lists")
    parser.add_argument("--kind", action="append", help="with --kinds, run only this one")
    parser.add_argument("--scale", help="a method of scales, such as learned")
    arguments = parser.parse_args()
    let_pytorch_compile_every_model()
    mode = ", jit_compile" if arguments.compiled else ""
    print(f"{keras.config.backend()}{mode}, {os.cpu_count()} cores, {arguments.rounds} rounds of")
    print(f"{arguments.steps} steps by fit; the machine's load before: {os.getloadavg()[0]:.1f}\n")
    print("| case | list | float ms | ratio | quartiles | least | fastest | processor |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for case in arguments.case or CASES:
        compare(case, arguments)
        keras.utils.clear_session()


if __name__ == "__main__":
    main()
