"""DiscreteActivation: what flows through a network is listed."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from conftest import numpy
from lists import NAMED
from quantal import Discrete, DiscreteActivation, Scale, Values, bake, finalize, load, save, testing
from quantal._core.keras_internals import flatten_layers
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
    around = [np.nextafter(edges, np.float32(end)) for end in (-np.inf, np.inf)]
    size = layer.values.high * layer.scale_value().max()
    return np.concatenate([inputs_of((50, 4), size), edges, *around, ends]).astype(np.float32)


@pytest.mark.parametrize("scale", [None, "learned", Scale(power_of_two=True)], ids=str)
@pytest.mark.parametrize("axis", [None, -1])
@pytest.mark.parametrize("name", ["binary", "signed:4", "unsigned:8", "powers_of_two:6", "rows"])
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
