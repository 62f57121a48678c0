"""DiscreteActivation: what flows through a network is listed."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from conftest import gradient_to, numpy, on_one_backend
from lists import NAMED
from quantal import (
    Discrete,
    DiscreteActivation,
    Scale,
    Values,
    bake,
    discretize,
    finalize,
    load,
    save,
    summary,
    testing,
)
from quantal._core.keras_internals.layers import flatten_layers
from quantal._core.numbers.scaled_steps import scaled_steps
from quantal._models.walk import activations_of

METHODS = ["learned", "least_squares", "mean_absolute", "percentile"]
DTYPES = ["float32", "mixed_float16", "mixed_bfloat16", "float16", "bfloat16"]


def inputs_of(shape=(40, 6), size=3.0, seed=0):
    """Inputs within and beyond most lists, with zeros among them."""
    inputs = np.random.default_rng(seed).normal(size=shape).astype(np.float32) * size
    inputs[0] = 0.0
    return inputs


def expected(layer, inputs):
    """The layer's formula in NumPy, in float32."""
    scale = layer.scale_value()
    return scale * layer.values.nearest(inputs * (np.float32(1) / scale))


# The nearest listed value, by equality, in every dtype, eager and compiled.


@pytest.mark.parametrize("name", ["tenths", "uneven", "nf4", "four"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("compile", [False, True], ids=["eager", "compiled"])
def test_outputs_are_the_nearest_listed_values(name, dtype, compile):
    layer = DiscreteActivation(NAMED[name], dtype=dtype)
    inputs = ops.cast(inputs_of(size=1.0), layer.compute_dtype)
    layer.build(inputs.shape)  # PyTorch's compiler traces no `build`.
    outputs = (testing.compiled(layer) if compile else layer)(inputs)
    assert keras.backend.standardize_dtype(outputs.dtype) == layer.compute_dtype
    nearest = ops.cast(layer.values.nearest(numpy(ops.cast(inputs, "float32"))), outputs.dtype)
    np.testing.assert_array_equal(numpy(outputs), numpy(nearest))


@pytest.mark.parametrize("axis", [None, -1, (1, 2)])
@pytest.mark.parametrize("method", METHODS)
def test_with_a_scale_they_are_its_multiples(method, axis):
    layer = DiscreteActivation("signed:4", scale=method, axis=axis)
    inputs = inputs_of((16, 3, 4))
    np.testing.assert_array_equal(numpy(layer(inputs)), layer.values.nearest(inputs))
    outputs = layer(inputs, training=True)
    shape = {None: (), -1: (1, 1, 4), (1, 2): (1, 3, 4)}[axis]
    assert layer.scale_value().shape == shape
    np.testing.assert_array_equal(numpy(outputs), expected(layer, inputs))
    np.testing.assert_array_equal(numpy(layer(inputs)), numpy(outputs))


# Baked: plain Keras, equal to the bit.


def hostile_inputs(layer, rank=2):
    """Random inputs, those at every threshold and next to it, and the ends of float32."""
    thresholds, _ = scaled_steps(layer.values, layer.scale_value(), rank)
    edges = np.broadcast_to(thresholds, (len(thresholds), 1, 4)).reshape(-1, 4)
    ends = np.float32([[np.inf, -np.inf, 0, -0.0], [np.nan, 3e38, -3e38, 1e-30]])
    # Not next to 0: processors differ in what they make of subnormal numbers.
    edges = edges[np.all(edges != 0, axis=1)]
    around = [np.nextafter(edges, np.float32(end)) for end in (-np.inf, np.inf)]
    size = layer.values.high * layer.scale_value().max()
    return np.concatenate([inputs_of((50, 4), size), edges, *around, ends]).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "scale", "axis"),
    [
        ("binary", None, None),
        ("signed:4", "learned", -1),
        ("unsigned:8", None, None),
        ("unsigned:8", "learned", None),
        ("unsigned:8", "learned", -1),
        ("unsigned:8", Scale(power_of_two=True), None),
        ("powers_of_two:6", "learned", None),
        ("rows", "learned", -1),
    ],
    ids=str,
)
def test_a_baked_activation_is_the_same_to_the_bit(name, scale, axis):
    rows = Values([[1, -1, 0.5], [0.25, 3, -2], [0, 1, 2], [-1, 0, 1]])
    layer = DiscreteActivation(rows if name == "rows" else name, scale=scale, axis=axis)
    layer.build((None, 4))
    if scale is not None:
        layer.set_scale(np.exp(np.random.default_rng(0).normal(size=layer.scale_value().shape)))
    inputs = ops.convert_to_tensor(hostile_inputs(layer))
    baked = bake(keras.Sequential([keras.Input((4,)), layer]))
    outputs = numpy(layer(inputs))
    np.testing.assert_array_equal(numpy(baked(inputs)), outputs)
    if keras.config.backend() != "torch":
        np.testing.assert_array_equal(numpy(testing.compiled(baked)(inputs)), outputs)
    assert isinstance(baked.layers[-1], layers.Activation)


@pytest.mark.parametrize("dtype", ["mixed_float16", "bfloat16"])
def test_in_half_precision_too(dtype):
    layer = DiscreteActivation(NAMED["tenths"], scale="learned", dtype=dtype)
    layer.build((None, 4))
    layer.set_scale(0.3)
    inputs = ops.cast(inputs_of((50, 4), 0.2), layer.compute_dtype)
    baked = bake(keras.Sequential([keras.Input((4,), dtype=layer.compute_dtype), layer]))
    np.testing.assert_array_equal(
        numpy(ops.cast(baked(inputs), "float32")), numpy(ops.cast(layer(inputs), "float32"))
    )


# Files, clones, and layers that have one inside.


def in_sequence():
    return [
        Discrete(layers.Dense(5), "ternary", scale="learned"),
        DiscreteActivation("signed:4", scale="learned", axis=-1),
        layers.Dense(4),
    ]


def inside():
    activations = [DiscreteActivation("signed:4", scale=s) for s in ("percentile", "learned")]
    return [
        Discrete(layers.Dense(5, activation=activations[0]), "ternary"),
        layers.Dense(4, activation=activations[1]),
    ]


@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer")
@pytest.mark.parametrize("parts", [in_sequence, inside])
def test_a_trained_model_comes_back_from_every_file(parts, tmp_path):
    model = keras.Sequential([keras.Input((4,)), *parts()])
    model.compile("adam", "mse")
    inputs = inputs_of()[:, :4]
    model.fit(inputs, inputs, verbose=0)
    outputs = model.predict(inputs, verbose=0)
    bake(model).save(tmp_path / "baked.keras")
    model.save(tmp_path / "model.keras")
    save(model, tmp_path / "model.quantal")
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    loaded = [keras.models.load_model(tmp_path / f"{n}.keras") for n in ("model", "baked")]
    assert not [x for x in flatten_layers(loaded[1]) if type(x).__module__.startswith("quantal")]
    for other in [*loaded, load(tmp_path / "model.quantal"), clone, finalize(model)]:
        np.testing.assert_array_equal(other.predict(inputs, verbose=0), outputs)
    scales = [float(np.max(x.scale_value())) for x in activations_of(model)]
    assert all(scale not in (0.0, 1.0) for scale in scales)


def test_masks_pass_and_what_they_leave_out_does_not_count():
    inputs = keras.Input((None, 2))
    layer = DiscreteActivation("signed:4", scale="learned")
    outputs = layers.GlobalAveragePooling1D()(layer(layers.Masking(mask_value=9.0)(inputs)))
    model = keras.Model(inputs, outputs)
    steps = inputs_of((6, 5, 2), 1.0)
    model(steps, training=True)
    expected_scale = layer.scale_value()
    padded = np.concatenate([steps, np.full((6, 3, 2), 9.0, np.float32)], axis=1)
    expected_outputs = numpy(model(steps))
    layer._scale._batches.assign(0.0)
    model(padded, training=True)
    np.testing.assert_allclose(layer.scale_value(), expected_scale, rtol=1e-6)
    np.testing.assert_allclose(numpy(model(padded)), expected_outputs, rtol=1e-5)
    np.testing.assert_array_equal(numpy(bake(model)(padded)), numpy(model(padded)))


# Gradients: of a clipped identity to the inputs, of LSQ and PACT to the scale.


def gradients_of(layer, inputs, upstream):
    """The gradients of sum(upstream * outputs) to the inputs and to the scale."""
    if not layer.built:
        layer.build(inputs.shape)
    x, factor = keras.Variable(inputs), ops.convert_to_tensor(upstream)
    variables = [x, *layer.trainable_variables]
    return [gradient_to(v, lambda: layer(1.0 * x) * factor) for v in variables]


@pytest.mark.parametrize("name", ["binary", "unsigned:2", "signed:4", "four"])
def test_the_gradient_to_inputs_is_that_of_clipping(name):
    layer = DiscreteActivation(NAMED.get(name, name))
    inputs = inputs_of((30, 4), 2.0 * layer.values.high)
    upstream = inputs_of((30, 4), 1.0, seed=1)
    (gradient,) = gradients_of(layer, inputs, upstream)
    inside = (inputs >= layer.values.low) & (inputs <= layer.values.high)
    np.testing.assert_array_equal(gradient, np.where(inside, upstream, 0))


@pytest.mark.parametrize("axis", [None, -1])
@pytest.mark.parametrize("name", ["unsigned:2", "signed:4", "nf4"])
def test_the_gradient_to_the_scale_is_lsqs(name, axis):
    layer = DiscreteActivation(name, scale="learned", axis=axis)
    layer.build((None, 4))
    start = np.full(layer.scale_value().shape, 0.7)
    layer.set_scale(start)
    inputs = inputs_of((30, 4), 1.5 * layer.values.high)
    upstream = inputs_of((30, 4), 1.0, seed=1)
    _, gradient = gradients_of(layer, inputs, upstream)
    # With values fixed, d(s P(x / s)) / ds is P - x / s within the ends, and the end beyond.
    numbers = inputs.astype(float) / 0.7
    nearest = layer.values.nearest(numbers).astype(float)
    inside = (numbers >= layer.values.low) & (numbers <= layer.values.high)
    slopes = upstream * np.where(inside, nearest - numbers, nearest)
    features = 4 if axis is None else 1
    largest = max(-layer.values.low, layer.values.high)
    expected_gradient = slopes.sum(axis=None if axis is None else 0, keepdims=axis is not None)
    # Relative to the start, and damped by LSQ's factor: the features of one sample count.
    expected_gradient = expected_gradient * 0.7 / np.sqrt(features * largest)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=2e-4, atol=1e-5)


@on_one_backend
def test_a_list_from_zero_has_pacts_gradient_beyond_its_end():
    """PACT: what lies beyond the end adds its gradient to the end, the largest value's scale."""
    layer = DiscreteActivation("unsigned:4", scale="learned")
    layer.build((None, 1))
    layer.set_scale(0.1)
    gradient, to_scale = gradients_of(layer, np.float32([[9.0], [-3.0]]), np.float32([[1], [1]]))
    assert gradient.tolist() == [[0], [0]]
    np.testing.assert_allclose(to_scale, 15 * 0.1 / np.sqrt(15), rtol=1e-5)


# The scale starts from the first training batch.


@pytest.mark.parametrize("name", ["binary", "unsigned:2", "signed:4"])
def test_the_first_batch_sets_the_scale_with_the_least_error(name):
    layer = DiscreteActivation(name, scale="learned")
    inputs = inputs_of((200, 4), 3.0)
    layer(inputs)
    assert layer.scale_value() == 1
    layer(inputs, training=True)
    first = layer.scale_value()

    def error(scale):
        return np.square(inputs - scale * layer.values.nearest(inputs / scale)).mean()

    grid = first * np.geomspace(0.2, 5, 400)
    assert error(first) <= 1.01 * min(map(error, grid.astype(np.float32)))
    layer(10 * inputs, training=True)
    assert layer.scale_value() == first


@on_one_backend
def test_a_batch_that_says_nothing_changes_nothing():
    layer = DiscreteActivation("unsigned:2", scale="learned", axis=-1)
    layer(np.zeros((5, 3), np.float32), training=True)
    assert layer.scale_value().tolist() == [[1, 1, 1]]
    layer(np.float32([[0, 3, 9], [0, 3, 9]]), training=True)
    np.testing.assert_allclose(layer.scale_value(), [[2, 1, 3]], rtol=1e-6)


@on_one_backend
@pytest.mark.parametrize("method", METHODS)
def test_empty_batches_and_numbers_too_small_for_a_reciprocal_change_nothing(method):
    layer = DiscreteActivation("signed:4", scale=method)
    assert layer(np.zeros((0, 3), np.float32), training=True).shape == (0, 3)
    layer(np.full((5, 3), 1e-44, np.float32), training=True)
    assert layer.scale_value() == 1


def test_a_learned_activation_is_called_twice_in_a_step():
    """PyTorch's gradient reads what the second call's first batch moves in place."""
    inputs, layer = keras.Input((3,)), DiscreteActivation("unsigned:4", scale="learned")
    outputs = layer(layers.Dense(4)(layer(layers.Dense(4)(inputs))))
    model = keras.Model(inputs, outputs)
    model.compile("sgd", "mse")
    model.fit(inputs_of((8, 3), 1.0), inputs_of((8, 4), 1.0), verbose=0)
    assert layer.scale_value() not in (0, 1)


def test_a_scale_within_a_recurrent_layer():
    def fitted(**options):
        activation = DiscreteActivation("signed:8", scale="learned")
        steps = inputs_of((8, 3, 2), 1.0)
        recurrent = layers.SimpleRNN(2, activation=activation, **options)
        model = keras.Sequential([keras.Input((3, 2)), recurrent])
        model.compile("sgd", "mse")
        model.fit(steps, steps[:, 0], verbose=0)
        return activation.scale_value()

    if keras.config.backend() == "jax":
        # JAX compiles the loop, and what is assigned within is lost.
        with pytest.raises(ValueError, match="called in a loop that JAX compiles"):
            fitted()
    assert fitted(unroll=keras.config.backend() == "jax") not in (0, 1)


@on_one_backend
def test_a_frozen_scale_stays():
    layer = DiscreteActivation("unsigned:2", scale="percentile", trainable=False)
    layer(inputs_of(), training=True)
    assert layer.scale_value() == 1


def test_a_percentile_follows_the_batches():
    layer = DiscreteActivation("signed:4", scale="percentile")
    batches = [inputs_of((500, 4), size, seed=int(size)) for size in (1.0, 3.0)]
    for batch in batches:
        layer(batch, training=True)
    # 2 of 2,000 numbers may lie beyond, on the side where the list ends first.
    tops = [np.sort(np.maximum(b / 7, b / -8).ravel())[-3] for b in batches]
    np.testing.assert_allclose(layer.scale_value(), np.mean(tops), rtol=1e-5)


def test_powers_of_two_alone():
    layer = DiscreteActivation("unsigned:4", scale=Scale(power_of_two=True))
    outputs = numpy(layer(inputs_of(), training=True))
    assert np.log2(layer.scale_value()) % 1 == 0
    np.testing.assert_array_equal(outputs, expected(layer, inputs_of()))


# Arguments.


@on_one_backend
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"estimator": "settling"}, "has a state that moves"),
        ({"estimator": "argmax_straight_through"}, "for each value of the list and each input"),
        ({"estimator": "gumbel_softmax"}, "Expected one for tensors without latents"),
        ({"values": Values([1, 2], learnable=True)}, "learnable list for an activation"),
        ({"values": Values([1, 2], noise=0.1)}, "noise for an activation"),
        ({"scale": Scale(axis="output")}, "Give -1"),
        ({"scale": Scale(axis=1), "axis": 2}, "Give the axis to the layer alone"),
        ({"scale": "other"}, "activations 'percentile'"),
    ],
)
def test_bad_arguments_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        DiscreteActivation(**{"values": "binary", **arguments})


@on_one_backend
def test_other_refusals():
    with pytest.raises(ValueError, match="axis 0 is the batch"):
        DiscreteActivation("binary", scale="learned", axis=0).build((None, 3))
    with pytest.raises(ValueError, match="no axis but that of the batch"):
        DiscreteActivation("binary", axis=-1).build((3,))
    with pytest.raises(ValueError, match="no fixed size"):
        DiscreteActivation("binary", scale="learned", axis=1).build((None, None, 3))
    with pytest.raises(ValueError, match="has no scale"):
        DiscreteActivation("binary").set_scale(2)
    with pytest.raises(ValueError, match="is not built"):
        DiscreteActivation("binary", scale="learned").scale_value()
    layer = DiscreteActivation("signed:4", scale="learned", axis=-1)
    layer.build((None, 3))
    for wrong in ("big", [1, 2], None, 0, -1, np.nan, 1e-45, np.inf):
        with pytest.raises(ValueError, match=r"scale is .*Expected (a )?positive number"):
            layer.set_scale(wrong)
    with pytest.raises(ValueError, match="for weights"):
        Discrete(layers.Dense(3), "ternary", scale="percentile")


# discretize puts them where activations are.


def network():
    """A float network with an activation of each kind: arguments, layers, operations, nested."""
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(4, 3, activation="relu", name="first")(inputs)
    x = layers.Activation("swish", name="swish")(x)
    x = layers.GlobalAveragePooling2D()(ops.relu(x))
    inner = [keras.Input((4,)), layers.Dense(5, activation="tanh", name="inner")]
    x = keras.Sequential(inner, name="nested")(x)
    outputs = layers.Dense(3, activation="softmax", name="last")(x)
    model = keras.Model(inputs, outputs, name="net")
    model.compile("adam", "mse")
    return model


def test_discretize_puts_them_where_activations_are():
    model, inputs = network(), inputs_of((64, 6, 6, 2), 1.0)
    before = model.predict(inputs, verbose=0)
    listed = discretize(model, "ternary", activations="signed:8", calibrate=inputs, verbose=0)
    names = [layer.name for layer in activations_of(listed)]
    assert [*names[:2], names[2][:4], names[3]] == [
        "first_listed", "swish_listed", "relu", "inner_listed",
    ]  # fmt: skip
    assert all(0 < layer.scale_value() < 0.1 for layer in activations_of(listed))
    floats = discretize(model, activations={"inner": None, ".": "unsigned:8"}, calibrate=inputs)
    # A ReLU is what the list does.
    assert activations_of(floats)[0].name == "first_listed"
    assert floats.get_layer("first").activation is keras.activations.linear
    np.testing.assert_allclose(floats.predict(inputs, verbose=0), before, atol=0.02)
    np.testing.assert_array_equal(model.predict(inputs, verbose=0), before)
    outputs = listed.predict(inputs, verbose=0)
    np.testing.assert_array_equal(bake(listed).predict(inputs, verbose=0), outputs)
    listed.fit(inputs, before, verbose=0)
    assert [row.path for row in summary(listed).rows] == [row.path for row in summary(model).rows]


@on_one_backend
def test_layers_that_do_the_same_are_replaced():
    parts = [layers.ReLU(name="a"), layers.Dense(3, activation="hard_tanh", name="b"),
             layers.ReLU(6.0, name="c"), layers.Dense(1, name="d")]  # fmt: skip
    model = keras.Sequential([keras.Input((4,)), *parts])
    lists = {"a|c": "unsigned:4", "b": "binary"}
    listed = discretize(model, activations=lists)
    kinds = [(layer.name, type(layer).__name__) for layer in listed.layers]
    assert kinds == [
        ("a", "DiscreteActivation"),
        ("b", "Dense"),
        ("b_listed", "DiscreteActivation"),
        ("c", "ReLU"),
        ("c_listed", "DiscreteActivation"),
        ("d", "Dense"),
    ]
    # Without a scale on ±1, and with a learned one elsewhere.
    assert [layer.scale for layer in activations_of(listed)] == ["auto"] * 3
    assert listed.get_layer("b_listed").scale_value() == 1


@on_one_backend
def test_what_cannot_be_reached_is_refused_by_name():
    steps = [keras.Input((3, 2)), layers.LSTM(2, name="lstm"), layers.Dense(1)]
    with pytest.raises(ValueError, match="'tanh' of 'lstm' cannot be reached"):
        discretize(keras.Sequential(steps), activations="signed:8")
    with pytest.raises(ValueError, match="all become 1 on the list binary"):
        discretize(network(), activations="binary")
    with pytest.raises(ValueError, match="names no activation"):
        discretize(network(), activations={"frist": "binary"})
    with pytest.raises(ValueError, match="no activation between its layers"):
        discretize(keras.Sequential([keras.Input((2,)), layers.Dense(1)]), activations="signed:8")

    class Own(keras.Model):
        def call(self, inputs):
            return inputs

    own = Own()
    own(np.ones((1, 2)))
    with pytest.raises(ValueError, match="whose call is its own"):
        discretize(own, activations="binary")
