"""The layers and models that tests go through, one table of each, and how they are compared."""

import keras
import numpy as np
import pytest
from keras import layers, ops

# Keras has no public home for its checks of a layer: this is the only place that imports them.
from keras.src.testing import TestCase as KerasTestCase  # noqa: F401

from conftest import numpy
from quantal import Discrete, LearnableMultiplier, Scale, Values, parameters_of

# On this list the usual sum, latent + stop_gradient(value - latent), rounds.
ROUNDED = Values([0.1, -0.1, 0.3, -0.3])
VALUES = Values([0.5, -0.7, 0.1])


# Lists and scales that a layer is exported with.
BY_COLUMN = Values([[1, -1, 0.5], [2, -2, 0]], axis=-1)
ARGUMENTS = [
    {"values": [1, -1, 0.5, -0.5]},
    {"values": "ternary", "scale": Scale("learned", "output")},
    {"values": BY_COLUMN},
    {"values": Values(np.linspace(-1, 1, 300))},
]


@keras.saving.register_keras_serializable(package="quantal-tests")
class OwnLayer(layers.Layer):
    """A user's own layer: a kernel in a layer inside it, and one of its own."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.dense = layers.Dense(units, activation="tanh")

    def build(self, input_shape):
        self.dense.build(input_shape)
        self.kernel = self.add_weight(shape=(self.units, self.units), name="kernel")

    def call(self, inputs):
        return ops.matmul(self.dense(inputs), self.kernel)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


class Case:
    """A layer to wrap, the shape and kind of its input, and which weights to restrict."""

    def __init__(self, make, shape, weights="kernel", integers=0):
        self.make, self.shape, self.weights, self.integers = make, shape, weights, integers

    def wrapped(self, **arguments):
        return Discrete(self.make(), VALUES, self.weights, **arguments)

    def data(self, rows=8):
        random = np.random.default_rng(0)
        if self.integers:
            return random.integers(self.integers, size=(rows, *self.shape))
        return random.normal(size=(rows, *self.shape)).astype("float32")

    def input(self):
        return keras.Input(self.shape, dtype="int32" if self.integers else None)


CASES = {
    "Dense": Case(lambda: layers.Dense(4), (5,)),
    "Conv1D": Case(lambda: layers.Conv1D(4, 3), (6, 3)),
    "Conv2D": Case(lambda: layers.Conv2D(4, 3, activation="relu"), (5, 5, 3)),
    "DepthwiseConv2D": Case(lambda: layers.DepthwiseConv2D(3), (5, 5, 3)),
    "SeparableConv1D": Case(lambda: layers.SeparableConv1D(4, 3), (6, 3),
                            ("depthwise_kernel", "pointwise_kernel")),
    "EinsumDense": Case(lambda: layers.EinsumDense("btd,de->bte", output_shape=(None, 4)), (3, 5)),
    "Embedding": Case(lambda: layers.Embedding(7, 4), (5,), "embeddings", integers=7),
    "LSTM": Case(lambda: layers.LSTM(4), (3, 5), ("kernel", "recurrent_kernel")),
    "Bidirectional GRU": Case(lambda: layers.Bidirectional(layers.GRU(3)), (3, 5)),
    "TimeDistributed": Case(lambda: layers.TimeDistributed(layers.Dense(3)), (4, 5)),
    "composite": Case(
        lambda: keras.Sequential(
            [layers.Dense(6), layers.BatchNormalization(), layers.Dropout(0.3), layers.Dense(3)]
        ),
        (5,),
    ),
    "own layer": Case(lambda: OwnLayer(4), (5,)),
}  # fmt: skip
every_case = pytest.mark.parametrize("name", CASES)


def model_of(case, discrete, **compile_arguments):
    inputs = case.input()
    model = keras.Model(inputs, discrete(inputs))
    model.compile("adam", "mse", **compile_arguments)
    return model


def targets(model, rows=8):
    shape = tuple(d or 3 for d in model.output_shape[1:])
    return np.random.default_rng(1).normal(size=(rows, *shape)).astype("float32")


def codes_of(model):
    return [numpy(parameter.codes) for parameter in parameters_of(model)]


def assert_same(model, again, x):
    """Both models have the same lists and codes, and predict the same."""
    for one, other in zip(parameters_of(model), parameters_of(again), strict=True):
        np.testing.assert_array_equal(numpy(one.codes), numpy(other.codes))
        np.testing.assert_array_equal(one.values.numbers, other.values.numbers)
    np.testing.assert_array_equal(model.predict(x, verbose=0), again.predict(x, verbose=0))


# Whole models, by functions that return a model and data for it.


@keras.saving.register_keras_serializable(package="quantal_tests")
class Block(layers.Layer):
    """A user's layer with two layers inside and a weight of its own."""

    def __init__(self, units=4, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.first = layers.Dense(units, activation="relu")
        self.second = layers.Dense(units, use_bias=False)

    def build(self, shape):
        self.first.build(shape)
        self.second.build((*shape[:-1], self.units))
        self.gain = self.add_weight(name="gain", shape=(self.units,))

    def call(self, x):
        return self.second(self.first(x)) * self.gain

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable(package="quantal_tests")
class Subclassed(keras.Model):
    """Layers as attributes, in a list, in a dict, and a model inside."""

    def __init__(self, units=5, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.first = layers.Dense(units)
        self.blocks = [Block(units), Block(units)]
        self.heads = {"only": layers.Dense(2)}
        self.inner = keras.Sequential([layers.Dense(units), layers.BatchNormalization()])
        self.again = self.first

    def call(self, x, training=False):
        x = self.first(x)
        for block in self.blocks:
            x = x + block(x)
        return self.heads["only"](self.inner(x, training=training))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def rows(random, *shape):
    return random.normal(size=(6, *shape)).astype("float32")


def sequential(random):
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(8, activation="relu", name="one"),
            layers.BatchNormalization(),
            layers.Dropout(0.3),
            layers.Dense(5, name="two"),
            layers.Dense(3, name="three"),
        ]
    )
    return model, rows(random, 6)


def functional(random):
    first, second = keras.Input((6,), name="first"), keras.Input((6,), name="second")
    shared = layers.Dense(4, name="shared")
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="inside")], name="inner")
    left = inner(shared(first))
    right = layers.Lambda(lambda t: t * 3)(shared(second) + left * 2)
    outputs = {"a": layers.Dense(2, name="a")(right), "b": layers.Dense(1, name="b")(left)}
    model = keras.Model({"first": first, "second": second}, outputs)
    return model, {"first": rows(random, 6), "second": rows(random, 6)}


def subclassed(random):
    model, x = Subclassed(), rows(random, 6)
    model(x)
    return model, x


def sequences(random):
    inputs = keras.Input((7, 6))
    x = layers.MultiHeadAttention(2, 3)(inputs, inputs)
    x = layers.Bidirectional(layers.GRU(3, return_sequences=True))(x)
    x = layers.TimeDistributed(layers.Dense(3))(x)
    x = layers.EinsumDense("abc,cd->abd", (None, 4))(x)
    return keras.Model(inputs, layers.LSTM(4)(x)), rows(random, 7, 6)


def images(random):
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, padding="same"),
            layers.SeparableConv2D(5, 3),
            layers.DepthwiseConv2D(3, depth_multiplier=2),
            layers.Conv2DTranspose(4, 3),
            layers.GlobalAveragePooling2D(),
            Block(3),
        ]
    )
    return model, rows(random, 8, 8, 3)


WHOLE_MODELS = [sequential, functional, subclassed, sequences, images]


# Models all of whose weights that meet the data are listed.


def listed(layer, weights="kernel", **arguments):
    return Discrete(layer, ROUNDED, weights, **arguments)


def stack_of(*stack, shape, dtype=None):
    return keras.Sequential([keras.Input(shape, dtype=dtype), *stack])


def listed_attention():
    query, value = keras.Input((4, 6)), keras.Input((5, 6))
    layer = listed(layers.MultiHeadAttention(2, 3))
    return keras.Model([query, value], layer(query, value, use_causal_mask=True))


def shared():
    inputs = {name: keras.Input((4,), name=name) for name in ("one", "other")}
    kernel = listed(layers.Dense(4))
    return keras.Model(inputs, kernel(kernel(inputs["one"])) + kernel(inputs["other"]))


def nested():
    inner = stack_of(layers.Dense(4), listed(layers.Dense(3)), shape=(5,))
    return stack_of(
        inner,
        LearnableMultiplier([2, 4], estimator="straight_through"),
        layers.Dense(1),
        shape=(5,),
    )


def masked():
    inputs = keras.Input((None,), dtype="int32")
    x = listed(layers.Embedding(7, 4, mask_zero=True), "embeddings")(inputs)
    recurrent = ("kernel", "recurrent_kernel")
    x = listed(layers.Bidirectional(layers.GRU(3, return_sequences=True)), recurrent)(x)
    return keras.Model(inputs, listed(layers.SimpleRNN(2), recurrent)(x))


LISTED_MODELS = {
    "LearnableMultiplier": lambda: stack_of(
        LearnableMultiplier(ROUNDED, axis=(1, 2)), shape=(3, 4)
    ),
    "Dense": lambda: stack_of(listed(layers.Dense(4, activation="relu")), shape=(5,)),
    "Conv1D": lambda: stack_of(
        listed(layers.Conv1D(4, 3, padding="causal", dilation_rate=2)), shape=(8, 3)
    ),
    "Conv2D in groups": lambda: stack_of(listed(layers.Conv2D(4, 3, groups=2)), shape=(5, 5, 4)),
    "Conv2DTranspose": lambda: stack_of(listed(layers.Conv2DTranspose(2, 3)), shape=(4, 4, 3)),
    "DepthwiseConv2D": lambda: stack_of(listed(layers.DepthwiseConv2D(3)), shape=(5, 5, 3)),
    "SeparableConv2D": lambda: stack_of(
        listed(layers.SeparableConv2D(4, 3), ("depthwise_kernel", "pointwise_kernel")),
        shape=(5, 5, 3),
    ),
    "Embedding": lambda: stack_of(
        listed(layers.Embedding(7, 4), "embeddings"), shape=(5,), dtype="int32"
    ),
    "EinsumDense": lambda: stack_of(
        listed(layers.EinsumDense("btd,dhe->bthe", output_shape=(None, 2, 4))), shape=(3, 5)
    ),
    "LSTM": lambda: stack_of(
        listed(layers.LSTM(4, recurrent_dropout=0.2), ("kernel", "recurrent_kernel")),
        shape=(3, 5),
    ),
    "unrolled LSTM": lambda: stack_of(
        listed(layers.LSTM(4, unroll=True), ("kernel", "recurrent_kernel")), shape=(3, 5)
    ),
    "ConvLSTM1D": lambda: stack_of(
        listed(layers.ConvLSTM1D(2, 2, padding="same"), ("kernel", "recurrent_kernel")),
        shape=(3, 4, 2),
    ),
    "MultiHeadAttention": listed_attention,
    "composite": lambda: stack_of(
        listed(
            keras.Sequential(
                [
                    layers.Dense(6, kernel_regularizer="l2", activity_regularizer="l2"),
                    layers.BatchNormalization(),
                    layers.Dropout(0.3),
                    layers.Dense(3),
                ]
            )
        ),
        shape=(5,),
    ),
    "shared": shared,
    "nested": nested,
    "masked": masked,
    "long list": lambda: stack_of(
        Discrete(layers.Dense(4), Values(np.linspace(-1, 1, 40) ** 3)), shape=(5,)
    ),
    "argmax": lambda: stack_of(
        listed(layers.Dense(4), estimator="argmax_straight_through"), shape=(5,)
    ),
}
every_listed_model = pytest.mark.parametrize("name", LISTED_MODELS)
