"""Integer networks: they agree with Keras, and what has no integer form is refused by name."""

import pickle

import keras
import numpy as np
import pytest
from keras import layers

from conftest import on_one_backend
from quantal import Discrete, DiscreteActivation, LearnableMultiplier, Scale, Values, to_integer
from quantal._export.graph.steps import Function, Normalize, Slopes, Window
from quantal._export.integer.layer_steps import _roots
from quantal._export.integer.meaning import Affine, Meaning, uniform
from quantal._export.integer.multiples import multiples_of
from quantal._export.integer.normalizing import bounds_of_normalized, fraction_of, normalized
from quantal._export.integer.rounding import codes_of, requantization_of, thresholds_of
from quantal._export.integer.staircase import staircase_of
from quantal._export.integer.steps import Products, Range
from quantal._export.integer.sums import bounds_of_products

pytestmark = pytest.mark.usefixtures("numbers_from_numpy")
PIXELS = np.random.default_rng(0).integers(256, size=(16, 8, 8, 1))


def randomize(model, random):
    """Biases, normalization and scales of activations that mean something, of both signs."""
    for variable in model.weights:
        if variable.name in ("bias", "beta", "moving_mean"):
            variable.assign(random.normal(size=variable.shape) * 0.3)
        elif variable.name == "gamma":
            variable.assign(random.normal(size=variable.shape))
        elif variable.name == "moving_variance":
            variable.assign(random.uniform(0.5, 2, size=variable.shape))
    for layer in model.layers:
        if isinstance(layer, DiscreteActivation) and layer.scale is not None:
            layer.set_scale(np.full(layer.scale_value().shape, 0.02))
    return model


def convolution(values, filters=4, scale=None, **arguments):
    return Discrete(layers.Conv2D(filters, 3, **arguments), values, scale=scale)


def convnet(random, values, activation, scale=None, rescaling=(1 / 255, 0.0), padding="same"):
    """Padding, normalization with scales below 0, pooling before and after, a relu, a mean."""
    activation = {"scale": None, **activation}
    return randomize(
        keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                layers.Rescaling(*rescaling),
                convolution(values, scale=scale, padding=padding, use_bias=False),
                layers.BatchNormalization(),
                layers.MaxPooling2D(),
                DiscreteActivation(**activation),
                convolution(values, 6, scale, padding="same", strides=2),
                layers.ReLU(),
                DiscreteActivation(**activation),
                layers.GlobalAveragePooling2D(),
                Discrete(layers.Dense(5), values, scale=scale),
                layers.Softmax(),
            ]
        ),
        random,
    )


PER_OUTPUT = Scale("learned", "output")
CONVNETS = {
    "signs": {"values": "binary", "activation": {"values": "binary"}},
    "ternary, 4 bits": {"values": "ternary", "activation": {"values": "unsigned:4"}},
    "uneven": {"values": "zero_one", "activation": {"values": [0, 0.1, 0.5, 1]}},
    "powers of two, 8 bits": {
        "values": "powers_of_two:4",
        "activation": {"values": "signed:8"},
        "rescaling": (1 / 127.5, -1.0),
    },
    "four values, scaled": {
        "values": [1, -1, 0.5, -0.5],
        "activation": {"values": "unsigned:8", "scale": "learned"},
        "scale": PER_OUTPUT,
    },
    "no padding, zero point": {
        "values": "signed:4",
        "activation": {"values": "signed:6", "scale": Scale("learned", power_of_two=True)},
        "rescaling": (1 / 100, -1.003),
        "padding": "valid",
    },
}


@pytest.mark.parametrize("arguments", CONVNETS.values(), ids=CONVNETS)
def test_convnets_agree_with_keras(arguments, random):
    model = convnet(random, **arguments)
    integer = to_integer(model)
    comparison = integer.compare(PIXELS)
    assert [a.codes for a in comparison.activations] == [
        np.prod(layer.output.shape[1:]) * len(PIXELS)
        for layer in model.layers
        if isinstance(layer, DiscreteActivation)
    ]
    assert comparison.is_exact
    assert comparison.largest < 1e-5
    assert integer.left_to_floats == ["softmax"]
    expected = model.predict(PIXELS, verbose=0)
    outputs = integer.predict(PIXELS)
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-6)
    codes = integer.run(PIXELS)
    assert codes.dtype == np.int32
    assert (codes.argmax(axis=1) == expected.argmax(axis=1)).all()


def test_another_rounding_is_reported(random):
    """The comparison sees thresholds that are one off, and says of which layer."""
    model = convnet(random, "ternary", {"values": "unsigned:4", "name": None})
    integer = to_integer(model)
    nodes = integer.program.nodes
    index = next(i for i, node in enumerate(nodes) if type(node.step).__name__ == "Thresholds")
    step = nodes[index].step
    nodes[index] = nodes[index]._replace(step=step._replace(limits=step.limits + 1))
    first, _ = integer.compare(PIXELS).activations
    assert 0 < first.differing < first.codes
    assert first.most == 1
    assert first.way == "thresholds"
    assert f"{first.differing:,}" in str(integer.compare(PIXELS))


def graph(random):
    """Two inputs, a sum of different scales, a concatenation, borders, several outputs."""
    one, two = keras.Input((6, 6, 2)), keras.Input((6, 6, 2))
    a = DiscreteActivation("signed:4", scale="learned", name="first")(one)
    b = DiscreteActivation("unsigned:5")(layers.Rescaling(1 / 16)(two))
    left = convolution("ternary", 3, padding="same")(a)
    right = convolution("binary", 3, padding="same", scale=PER_OUTPUT)(b)
    summed = DiscreteActivation("signed:8", scale="learned")(layers.Add()([left, right]))
    joined = layers.Concatenate()([summed, a])
    joined = DiscreteActivation("signed:6", scale="learned")(layers.ZeroPadding2D(1)(joined))
    end = layers.Flatten()(layers.AveragePooling2D(2)(joined))
    outputs = [Discrete(layers.Dense(3), "ternary")(end), layers.Cropping2D(1)(summed)]
    model = randomize(keras.Model([one, two], outputs), random)
    model.get_layer("first").set_scale(0.0437)
    return model


def test_graphs(random):
    model = graph(random)
    x = [random.normal(size=(8, 6, 6, 2)) * 0.1, random.integers(256, size=(8, 6, 6, 2))]
    integer = to_integer(model)
    assert [each.grid is None for each in integer.program.inputs] == [False, True]
    comparison = integer.compare(x)
    assert comparison.is_exact
    assert comparison.largest < 1e-5
    for ours, keras_s in zip(integer.predict(x), model(x), strict=True):
        assert ours.shape == tuple(keras_s.shape)


def pooled_sums(random):
    """Sums are pooled as they are, since no activation follows: the smallest where scales fall."""
    return randomize(
        keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                convolution("ternary", 6),
                layers.BatchNormalization(),
                layers.MaxPooling2D(),
            ]
        ),
        random,
    )


def test_pooled_sums(random):
    model = pooled_sums(random)
    expected = model.predict(PIXELS, verbose=0)
    outputs = to_integer(model).predict(PIXELS)
    np.testing.assert_allclose(outputs, expected, atol=1e-5 * np.abs(expected).max())


def on_list(values="signed:8", **options):
    """An activation on a list with a scale, which `rescale` sets."""
    return DiscreteActivation(values, scale="learned", **options)


def rescale(model, random):
    """Scales that no product is a midpoint of: Keras's floats would round those either way."""
    randomize(model, random)
    for layer in model.layers:
        if isinstance(layer, DiscreteActivation):
            layer.set_scale(random.uniform(0.015, 0.045))
    return model


def squeezed(x):
    """Squeeze and excitation of 6 channels: each is multiplied by a gate."""
    gate = on_list("unsigned:8")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    gate = Discrete(layers.Conv2D(3, 1, activation="relu"), "ternary")(gate)
    gate = Discrete(layers.Conv2D(6, 1), "ternary")(on_list("unsigned:8")(gate))
    return layers.Multiply()([x, on_list("unsigned:7")(layers.Activation("hard_sigmoid")(gate))])


def mobile_block(random):
    """A block as in MobileNetV3: hard_silu before lists, a gate of channels, and a bypass."""
    inputs = keras.Input((8, 8, 1))
    first = convolution("ternary", 4, strides=2, padding="same")(layers.Rescaling(1 / 128)(inputs))
    bypass = on_list()(layers.Activation("hard_silu")(layers.BatchNormalization()(first)))
    x = Discrete(layers.Conv2D(6, 1, use_bias=False), "ternary")(bypass)
    x = on_list("signed:4")(layers.Activation("hard_silu")(layers.BatchNormalization()(x)))
    depthwise = Discrete(layers.DepthwiseConv2D(3, padding="same"), "ternary")
    x = on_list()(layers.Activation("silu")(layers.BatchNormalization()(depthwise(x))))
    x = Discrete(layers.Conv2D(4, 1), "ternary")(on_list("signed:6")(squeezed(x)))
    x = on_list()(layers.BatchNormalization()(x))
    x = on_list("signed:6")(layers.Add()([bypass, x]))
    outputs = Discrete(layers.Dense(3), "ternary")(layers.Flatten()(x))
    return rescale(keras.Model(inputs, outputs), random)


@on_one_backend
def test_squeeze_and_excitation(random):
    """All codes are Keras's, also of gates; and the gates are no constants."""
    model = mobile_block(random)
    integer = to_integer(model)
    comparison = integer.compare(PIXELS)
    assert comparison.is_exact, str(comparison)
    assert comparison.largest < 1e-5
    names = [type(node.step).__name__ for node in integer.program.nodes]
    assert names.count("Staircase") == 3
    gates = integer.program.nodes[names.index("BroadcastProduct")].sources[1]
    values = integer.program.values(PIXELS.reshape(len(PIXELS), -1))
    assert len(np.unique(values[gates])) > 5


def single_numbers(random):
    """PReLU with a slope for each channel, means at the border, a function between two lists."""
    slopes = {"shared_axes": [1, 2], "alpha_initializer": keras.initializers.RandomNormal(0, 0.5)}
    inputs = keras.Input((5, 5, 2))
    x = on_list("signed:6")(inputs)
    left = on_list("signed:4")(layers.PReLU(**slopes)(convolution("ternary", 3)(x)))
    x = on_list("signed:6")(layers.Activation("gelu")(x))
    middle = layers.AveragePooling2D(2, padding="same")(x)
    maxima = layers.MaxPooling2D(2)(layers.Activation("mish")(convolution("ternary", 3)(x)))
    scaled = layers.Add()([left, layers.GlobalMaxPooling2D(keepdims=True)(left)])
    outputs = [on_list("signed:6")(each) for each in (scaled, middle, maxima)]
    return rescale(keras.Model(inputs, outputs), random)


@on_one_backend
def test_functions_of_single_numbers(random):
    model = single_numbers(random)
    x = random.normal(size=(16, 5, 5, 2))
    integer = to_integer(model)
    comparison = integer.compare(x)
    assert comparison.is_exact, str(comparison)
    names = {type(node.step).__name__ for node in integer.program.nodes}
    assert {"Staircase", "EvenTotal", "WeightedSum", "Copied"} <= names


def state(values="signed:8", step=1 / 16):
    """An activation for the state of a recurrent layer."""
    return DiscreteActivation(np.asarray(Values.get(values).numbers) * step)


def recurrent(units, activation, **options):
    layer = layers.SimpleRNN(units, activation=activation, **options)
    return Discrete(layer, "ternary", ("kernel", "recurrent_kernel"))


def sequences(random):
    """Rows of two tables, states of steps read backwards, and a last state of signs."""
    rows = keras.Input((5,), dtype="int32")
    lists = np.arange(-128, 128) / 100, Values.ternary()
    tables = [Discrete(layers.Embedding(60, 2), values, "embeddings") for values in lists]
    x = on_list("signed:4")(layers.Concatenate()([table(rows) for table in tables]))
    x = recurrent(3, state(), return_sequences=True, go_backwards=True)(x)
    outputs = Discrete(layers.Dense(2), "ternary")(recurrent(3, state("binary"))(x))
    model = rescale(keras.Model(rows, [outputs, x]), random)
    next(each for each in model.layers if isinstance(each, DiscreteActivation)).set_scale(0.213)
    for table in tables:
        table.set_weights([random.choice(table.values.numbers, size=(60, 2))])
    return model


def test_sequences(random):
    """Rows go in; compiled loops of Keras give the same states, and the first state is 0."""
    model = sequences(random)
    rows = random.integers(60, size=(32, 5))
    integer = to_integer(model)
    assert integer.program.inputs[0].bounds == (0, 59)
    comparison = integer.compare(rows)
    assert comparison.is_exact, str(comparison)
    assert comparison.largest < 1e-5
    states = model.predict(rows, verbose=0)[1]
    assert len(np.unique(states)) > 20
    with pytest.raises(ValueError, match=r"hold 60. Expected rows, whole numbers from 0 to 59"):
        integer.codes(rows - rows.max() + 60)


NORMALIZATIONS = {
    "standard": lambda: layers.LayerNormalization(),
    "rms": lambda: layers.RMSNormalization(),
    "unit": lambda: layers.UnitNormalization(),
    "groups": lambda: layers.GroupNormalization(2),
}


def normalizations(random):
    """Sums with biases and their lists are normalized by themselves; one is an output itself."""
    inputs = keras.Input((4, 3))
    x = on_list("signed:6")(inputs)
    outputs = []
    for make in NORMALIZATIONS.values():
        sums = make()(Discrete(layers.Dense(6), "ternary")(x))
        listed = on_list("signed:8")(sums)
        outputs.append(on_list("signed:8")(make()(listed)))
    outputs.append(layers.UnitNormalization(name="itself")(listed))
    model = rescale(keras.Model(inputs, outputs), random)
    model.get_layer(index=1).set_scale(0.0437)
    return model


@on_one_backend
def test_normalizations(random):
    """Fixed point of 20 bits and more: codes are Keras's but for sums close to a midpoint."""
    comparison = to_integer(normalizations(random)).compare(random.normal(size=(64, 4, 3)))
    assert len(comparison.activations) == 1 + 2 * len(NORMALIZATIONS)
    assert comparison.is_exact, str(comparison)


@on_one_backend
@pytest.mark.parametrize("kind", ["standard", "rms", "unit"])
@pytest.mark.parametrize("largest", [1, 127, 30000])
def test_normalization_is_that_of_floats(kind, largest, random):
    """Within some units of the last bit; also where all integers are equal, and no root is 0."""
    step = normalized(Normalize(kind, 2, 2, 3, 1e-3), 0.05, Range(-largest, largest))
    x = random.integers(-largest, largest + 1, size=(200, 12))
    x[0], x[1] = 0, largest
    groups = (x * 0.05).reshape(200, 2, 2, 3)
    mean = groups.mean(axis=(1, 3), keepdims=True) if kind == "standard" else 0
    square = ((groups - mean) ** 2).mean(axis=(1, 3), keepdims=True)
    root = np.sqrt(np.maximum(6 * square, 1e-3) if kind == "unit" else square + 1e-3)
    expected = ((groups - mean) / root).reshape(200, 12)
    results = step.run(x)
    assert bounds_of_normalized(step).low <= results.min()
    assert results.max() <= bounds_of_normalized(step).high
    np.testing.assert_allclose(results * 2.0 ** -fraction_of(step), expected, atol=2e-6)
    quarters = step._replace(shift=step.spread // 2 + 2).run(x)
    assert np.abs(quarters - 4 * expected).max() < 0.501


@on_one_backend
def test_integer_roots():
    """Those of squares, and beside them, up to the largest of an int64."""
    roots = np.array([1, 2, 3, 1000, 2**26 + 1, 2**30 + 3, 2**31 - 1])
    assert (_roots(roots * roots) == roots).all()
    assert (_roots(roots * roots - 1) == roots - 1).all()
    assert (_roots(roots * roots + 1) == roots).all()


SCALES = np.array([0.1137, 0.2371, 0.3119]).reshape(1, 1, 1, 3)


def test_channels_of_their_own_scale(random):
    """Any scales of channels pass a depthwise convolution; others multiply small ratios in."""
    start = [keras.Input((5, 5, 3)), DiscreteActivation("signed:4", scale="learned", axis=-1)]
    depthwise = Discrete(layers.DepthwiseConv2D(3, padding="same"), "ternary")
    model = keras.Sequential([*start, depthwise, DiscreteActivation("signed:8")])
    model.layers[0].set_scale(SCALES)
    integer = to_integer(model)
    assert integer.compare(random.normal(size=(8, 5, 5, 3))).is_exact
    ratios = keras.Sequential([*start, convolution("ternary"), DiscreteActivation("signed:8")])
    ratios.layers[0].set_scale(np.array([0.5, 0.25, 0.75]).reshape(1, 1, 1, 3))
    assert to_integer(ratios).compare(random.normal(size=(8, 5, 5, 3))).is_exact
    refused = keras.Sequential([*start, convolution("ternary")])
    refused.layers[0].set_scale(SCALES)
    with pytest.raises(ValueError, match=r"'conv2d.*' adds up inputs of different scales"):
        to_integer(refused)


def test_multipliers_between_layers(random):
    """Signs and powers of two on codes, and offsets of channels, become part of the next sums."""
    start = [keras.Input((4, 4, 3)), layers.Rescaling(1 / 16, [-3.0, 0.0, 2.0])]
    model = keras.Sequential(
        [
            *start,
            convolution("ternary", 5),
            layers.ReLU(),
            DiscreteActivation("unsigned:6"),
            LearnableMultiplier([1, -1, 0.5, -2], axis=-1),
            layers.Flatten(),
            Discrete(layers.Dense(3), "ternary"),
            DiscreteActivation("signed:8"),
        ]
    )
    randomize(model, random)
    pixels = random.integers(256, size=(16, 4, 4, 3))
    comparison = to_integer(model).compare(pixels)
    assert comparison.is_exact
    assert len(np.unique(model.predict(pixels, verbose=0))) > 5


def sequential(*rest):
    return keras.Sequential([keras.Input((300,)), *rest])


def dense(values="ternary"):
    return Discrete(layers.Dense(3, name="dense"), values)


def wide(name):
    return Discrete(layers.Dense(400, use_bias=False, name=name), "binary")


REFUSED = {
    "a free weight": (
        lambda: [layers.Dense(3, name="dense")],
        "'dense' has weights on no list",
    ),
    "no grid": (
        lambda: [dense([1, 2**0.5])],
        "'dense' has the list .1, 1.41421.. Expected",
    ),
    "floats": (
        lambda: [wide("one"), layers.ReLU(), dense()],
        "'dense' reads the results of a function, which lie on no grid",
    ),
    "no grid of an activation": (
        lambda: [dense(), DiscreteActivation([0, 1, 2**0.5], name="act")],
        "'act' has the list .0, 1, 1.41421.. Expected values",
    ),
    "softmax": (
        lambda: [dense(), layers.Softmax(), DiscreteActivation("binary", name="act")],
        "'act' stands after a softmax, which integers do not compute. Expected",
    ),
    "moved softmax": (
        lambda: [
            layers.Reshape((100, 3)),
            dense(),
            layers.Softmax(),
            layers.Permute((2, 1), name="turned"),
        ],
        "'turned' moves the results of a softmax. Expected",
    ),
    "largest": (
        lambda: [
            layers.Reshape((300, 1)),
            Discrete(layers.Conv1D(2, 3, activation="silu"), "binary"),
            layers.MaxPooling1D(),
            layers.ReLU(),
            dense(),
        ],
        "'dense' reads the largest of numbers that rise and fall. Expected",
    ),
    "a state of floats": (
        lambda: [
            layers.Reshape((30, 10)),
            Discrete(layers.LSTM(2, name="rnn"), "ternary", ("kernel", "recurrent_kernel")),
        ],
        "'rnn' has a state on no list. Expected a SimpleRNN with a list for its state",
    ),
    "a row of floats": (
        lambda: [
            DiscreteActivation([0, 1, 3]),
            Discrete(layers.Embedding(3, 2, name="rows"), "ternary", "embeddings"),
        ],
        "'rows' looks up rows by numbers that are no integers from 0 to 2. Expected",
    ),
    "free rows": (
        lambda: [layers.Embedding(3, 2, name="rows")],
        "'rows' has weights on no list",
    ),
    "a wide normalization": (
        lambda: [wide("one"), wide("two"), layers.LayerNormalization(name="norm")],
        "'norm' normalizes 400 numbers of too wide a range for an int64. Expected",
    ),
    "overflow": (
        lambda: [wide("one"), wide("two"), wide("three")],
        r"'three' can sum up to [\d,]+. Expected at most 2,147,483,646, since",
    ),
}


@on_one_backend
@pytest.mark.parametrize(("make", "words"), REFUSED.values(), ids=REFUSED)
def test_refusals_name_the_layer(make, words):
    model = sequential(*make())
    with pytest.raises(ValueError, match=words):
        to_integer(model)


@on_one_backend
def test_rows_of_a_softmax_are_copied(random):
    """They are the same rows again, so the softmax is still computed at the end."""
    model = sequential(dense(), layers.Softmax(), layers.RepeatVector(2))
    pixels = random.integers(256, size=(2, 300))
    expected = model.predict(pixels, verbose=0)
    np.testing.assert_allclose(to_integer(model).predict(pixels), expected, rtol=1e-4, atol=1e-6)


@on_one_backend
def test_inputs_are_checked(random):
    integer = to_integer(sequential(dense()))
    with pytest.raises(ValueError, match=r"hold 0\.5. Expected pixels, whole numbers"):
        integer.predict(np.full((1, 300), 0.5))
    with pytest.raises(TypeError, match=r"type float64. Expected integers"):
        integer.run(np.zeros((1, 300)))
    with pytest.raises(ValueError, match=r"shape \(1, 5\). Expected \(samples, 300\)"):
        integer.run(np.zeros((1, 5), int))
    with pytest.raises(ValueError, match=r"from 1 to 300. Expected integers from 0 to 255"):
        integer.run(np.arange(300)[None] + 1)
    again = pickle.loads(pickle.dumps(integer))
    codes = random.integers(256, size=(3, 300))
    assert (again.run(codes) == integer.run(codes)).all()
    with pytest.raises(ValueError, match="no Keras model to compare with"):
        again.compare(codes)


@on_one_backend
@pytest.mark.parametrize(
    "name", ["tanh", "sigmoid", "elu", "softplus", "hard_sigmoid", "hard_tanh"]
)
def test_thresholds_are_where_the_function_crosses(name):
    """All integers one by one: a longer list after a curved function is searched, too."""
    numbers = (1.0,) if name == "elu" else ()
    factor = np.array([0.03, -0.02, 0.0])
    meaning = Meaning((Affine(factor, np.array([0.1, 0.2, 0.3])), Function(name, 3, numbers)))
    levels, scale = np.arange(-8.0, 30), np.array([0.05])
    thresholds = thresholds_of(meaning, Range(-300, 300), levels, scale, levels.astype(int))
    every = np.repeat(np.arange(-300, 301)[:, None], 3, axis=1)
    codes = codes_of(meaning.numbers(every.astype(float)), levels, scale)
    assert (thresholds.run(every) == levels[codes]).all()


@on_one_backend
@pytest.mark.parametrize(
    "function",
    [
        *(Function(name, 3) for name in ("silu", "gelu", "mish", "hard_silu")),
        Function("relu", 3, (-0.3, -0.5, 2.0)),
        Function("elu", 3, (-0.7,)),
        Slopes(3, np.array([-0.5, 0.25, -2.0])),
    ],
    ids=lambda function: type(function).__name__ + "_" + getattr(function, "name", ""),
)
def test_stairs_are_where_the_function_crosses(function):
    """All integers one by one: down, up, down again behind a factor below 0, and constants."""
    factor = np.array([0.03, -0.02, 0.0])
    meaning = Meaning((Affine(factor, np.array([0.1, 0.2, 0.3])), function))
    twice = meaning.then(uniform(-1.5, -0.1), Function("silu", 3))
    levels, scale = np.arange(-8.0, 30), np.array([0.05])
    every = np.repeat(np.arange(-300, 301)[:, None], 3, axis=1)
    for each in (meaning, twice):
        stairs = staircase_of(each, Range(-300, 300), levels, scale, levels.astype(int))
        codes = codes_of(each.numbers(every.astype(float)), levels, scale)
        assert (np.diff(codes, axis=0).min(axis=0)[:2] < 0).any()
        assert (stairs.run(every) == levels[codes]).all()


@on_one_backend
def test_requantization_rounds_like_keras_on_every_integer(random):
    """Also halves, which go up, and powers of two, which are exact."""
    levels = np.arange(-128.0, 128)
    for factor, offset in [(0.5, 0.25), (0.5, 0.5), (-0.25, 3.0), (0.0371, -1.234), (0.0, 7.5)]:
        meaning = Meaning((uniform(factor, offset), Function("relu", 1, (0.0, 0.0, 6.0))))
        arguments = meaning, Range(-4000, 4000), levels * 0.5, np.array([0.25]), levels.astype(int)
        rounding = requantization_of(*arguments)
        every = np.arange(-4000, 4001)[:, None]
        codes = codes_of(meaning.numbers(every.astype(float)), *arguments[2:4])
        assert (rounding.run(every) == levels[codes]).all()
        assert (rounding.low, rounding.high) == ((0, 48) if factor else (48, 48))


@on_one_backend
def test_multiples():
    for numbers, integers in [
        ([1, -1, 0.5, -0.5], [2, -2, 1, -1]),
        (np.float32([0.1, -0.3, 0]), [1, -3, 0]),
        ([0.3, 0.2], [3, 2]),
        ([0, 0], [0, 0]),
        (np.arange(-128, 128) / 7, np.arange(-128, 128)),
    ]:
        multiples = multiples_of(np.asarray(numbers))
        assert (multiples.integers == integers).all()
        np.testing.assert_allclose(multiples.integers * multiples.step, numbers, rtol=1e-6)
    for numbers in ([1, 2**0.5], [1, 40000], Values.get("nf4").numbers):
        assert multiples_of(np.asarray(numbers)) is None


@on_one_backend
def test_bounds_hold_before_all_is_added():
    """Inputs from 5 to 7: the last product takes away again what the first two add."""
    window = Window(1, 1, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 1)
    step = Products(window, np.array([[2, 3, -4]]))
    assert bounds_of_products(step, Range(5, 7)) == (-28, 35)


@on_one_backend
def test_products_beyond_floats_of_32_bits():
    """Sums of an int32 are exact in the reference."""
    window = Window(1, 1, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 1)
    step = Products(window, np.array([[32767, 32767, 1]]))
    assert step.run(np.array([[32767, 32766, 1]])) == 32767 * 32767 + 32767 * 32766 + 1
