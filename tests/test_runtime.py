"""A file runs as Keras predicts: every kind of layer, list and scale that the runtime knows."""

import keras
import numpy as np
import pytest
from keras import layers

import quantal
from conftest import on_one_backend
from quantal import Discrete, DiscreteActivation, LearnableMultiplier, Scale, Values
from quantal._models.files import contents_of
from quantal._models.table_features import TableFeatures
from quantal.runtime import _window_steps, load
from quantal.runtime._functions import FUNCTIONS
from quantal.runtime._layers import _READERS
from quantal.runtime._machine import Machine
from quantal.runtime.loading import network_of

pytestmark = on_one_backend

VALUES = [1, -1, 0.5, -0.25]


def network_like(model):
    """The runtime's network of a model, whose statistics are no longer those of the start."""
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if any(part in weight.path for part in ("gamma", "beta", "moving", "bias")):
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
    for parameter in quantal.parameters_of(model):
        if parameter.scale_state is not None:
            shape = parameter.scale_state.start.shape
            parameter.scale_state.begin(rng.uniform(0.5, 1.5, shape).astype(np.float32))
    for layer in model.layers:
        if isinstance(layer, DiscreteActivation) and layer.weights:
            layer.set_scale(rng.uniform(0.5, 1.5, layer.scale_value().shape))
    contents = contents_of(model)
    return network_of("m.quantal", contents.arrays, contents.metadata, Machine(1))


def assert_same(model, network, x):
    expected = model.predict(x, verbose=0)
    assert network.input_shape == model.input_shape[1:]
    assert network.output_shape == expected.shape[1:]
    result = network.predict(x, batch_size=9)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, rtol=2e-5, atol=2e-5 * np.abs(expected).max())


def discrete(layer, **options):
    return Discrete(layer, VALUES, **options)


def adapted():
    layer = layers.Normalization(axis=(1, -1))
    layer.adapt(np.random.default_rng(1).normal(2, 3, (20, 8, 7, 6)).astype(np.float32))
    return layer


IMAGES, SERIES = (8, 7, 6), (9, 4)
PLAN = {"width": 2, "source": [1, 1, 0], "kind": ["number", "missing", "equal"],
        "number": [0.5, 0.0, 0.0], "name": ["a", "a is missing", "b"]}  # fmt: skip
LAYERS = {
    "Dense": (SERIES, lambda: discrete(layers.Dense(5, activation="tanh"))),
    "Dense of floats": ((6,), lambda: layers.Dense(5, activation=layers.LeakyReLU(0.1))),
    "Conv1D": (SERIES, lambda: discrete(layers.Conv1D(5, 3, padding="causal", dilation_rate=2))),
    "Conv1D same": (SERIES, lambda: discrete(layers.Conv1D(5, 4, strides=2, padding="same"))),
    "Conv2D": (IMAGES, lambda: discrete(layers.Conv2D(5, (3, 2), activation="relu"))),
    "Conv2D same": (IMAGES, lambda: discrete(layers.Conv2D(70, 3, (2, 1), padding="same"))),
    "Conv2D 1x1": (IMAGES, lambda: discrete(layers.Conv2D(5, 1, 2, use_bias=False))),
    "Conv2D in groups": (
        IMAGES,
        lambda: discrete(layers.Conv2D(6, 3, groups=2), scale=Scale("mean_absolute", axis=-1)),
    ),
    "DepthwiseConv1D": (SERIES, lambda: discrete(layers.DepthwiseConv1D(3, padding="same"))),
    "DepthwiseConv2D": (
        IMAGES,
        lambda: discrete(layers.DepthwiseConv2D(3, 2, depth_multiplier=2), scale="learned"),
    ),
    "MaxPooling1D": (SERIES, lambda: layers.MaxPooling1D(3, 2, padding="same")),
    "MaxPooling2D": (IMAGES, lambda: layers.MaxPooling2D((2, 3))),
    "AveragePooling1D": (SERIES, lambda: layers.AveragePooling1D(2, padding="same")),
    "AveragePooling2D": (IMAGES, lambda: layers.AveragePooling2D(2, 1, padding="same")),
    "GlobalMaxPooling1D": (SERIES, lambda: layers.GlobalMaxPooling1D()),
    "GlobalMaxPooling2D": (IMAGES, lambda: layers.GlobalMaxPooling2D(keepdims=True)),
    "GlobalAveragePooling1D": (SERIES, lambda: layers.GlobalAveragePooling1D()),
    "GlobalAveragePooling2D": (IMAGES, lambda: layers.GlobalAveragePooling2D()),
    "BatchNormalization": (IMAGES, lambda: layers.BatchNormalization(axis=1)),
    "BatchNormalization, plain": (
        IMAGES, lambda: layers.BatchNormalization(scale=False, center=False)
    ),
    "Normalization": (IMAGES, adapted),
    "Normalization, given": (
        IMAGES, lambda: layers.Normalization(mean=[1.0] * 6, variance=[4.0] * 6, invert=True)
    ),
    "Normalization of one": (IMAGES, lambda: layers.Normalization(None, mean=1.0, variance=4.0)),
    "Rescaling": (IMAGES, lambda: layers.Rescaling(1 / 255, offset=[1.0, 2, 3, 4, 5, 6])),
    "LearnableMultiplier": (IMAGES, lambda: LearnableMultiplier(VALUES, axis=(1, 3))),
    "LearnableMultiplier, scaled": (IMAGES, lambda: LearnableMultiplier(VALUES, scale="learned")),
    "TableFeatures": ((2,), lambda: TableFeatures(PLAN)),
    "DiscreteActivation": (IMAGES, lambda: DiscreteActivation("binary")),
    "DiscreteActivation, scaled": (SERIES, lambda: DiscreteActivation("signed:4", scale="learned")),
    "Dense with DiscreteActivation": (
        SERIES, lambda: discrete(layers.Dense(5, activation=DiscreteActivation(VALUES)))
    ),
    "ReLU": (SERIES, lambda: layers.ReLU(0.5, negative_slope=0.2, threshold=0.1)),
    "LeakyReLU": (SERIES, lambda: layers.LeakyReLU()),
    "ELU": (SERIES, lambda: layers.ELU(0.7)),
    "Softmax": (SERIES, lambda: layers.Softmax()),
    "Reshape": (IMAGES, lambda: layers.Reshape((6, -1))),
    "Flatten": (IMAGES, lambda: layers.Flatten()),
    **{f"Activation of {n}": (SERIES, lambda n=n: layers.Activation(n)) for n in FUNCTIONS},
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_computes_as_in_keras(name, random):
    shape, layer = LAYERS[name]
    # Nothing folds into an activation that stands before.
    model = keras.Sequential([keras.Input(shape), layers.Activation("tanh"), layer()])
    x = random.normal(size=(10, *shape)).astype(np.float32)
    if name == "TableFeatures":
        x[1, 0], x[2, 1] = 0, np.nan
    assert_same(model, network_like(model), x)


ACTIVATIONS = {
    "binary": {"values": "binary"},
    "a list in another order": {"values": [0.3, -0.1, 0.1]},
    "256 values, learned": {"values": "unsigned:8", "scale": "learned", "axis": -1},
    "a power of two": {"values": "signed:4", "scale": Scale("percentile", power_of_two=True)},
    "a scale for each of two axes": {"values": VALUES, "scale": "mean_absolute", "axis": (1, 2)},
    "auto, with a scale": {"values": "signed:3", "scale": "auto"},
    "auto, without": {"values": "zero_one", "scale": "auto"},
    "a list for each channel": {"values": Values(np.arange(12.0).reshape(4, 3) - 5, axis=-1)},
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_nearest_values_are_those_of_keras_to_the_bit(name, random):
    layer = DiscreteActivation(**ACTIVATIONS[name])
    model = keras.Sequential([keras.Input(SERIES), layer])
    network = network_like(model)
    if np.ndim(layer.scale_value()):
        assert len(np.unique(layer.scale_value())) > 1
    ends = (layer.values.midpoints * layer.scale_value().ravel()[:1]).ravel()
    around = [np.nextafter(ends, np.float32(end)) for end in (-np.inf, np.inf)]
    hostile = np.concatenate([ends, *around, np.float32([0, -0.0, np.inf, -np.inf, np.nan])])
    x = random.normal(0, 4, (40, *SERIES)).astype(np.float32)
    x.reshape(-1)[: hostile.size] = hostile
    expected = keras.ops.convert_to_numpy(layer(x))
    np.testing.assert_array_equal(network(x), expected)
    assert len(np.unique(network(x))) > 1


def test_a_scale_of_activations_of_another_shape_is_refused():
    layer = DiscreteActivation("signed:4", scale="learned", axis=-1)
    contents = contents_of(keras.Sequential([keras.Input((3,)), layer]))
    path = next(name for name in contents.arrays if name.endswith("scale_start"))
    contents.arrays[path] = np.ones((1, 2), np.float32)
    with pytest.raises(ValueError, match=r"m\.quantal: .*(scale_start|list of weights|discrete)"):
        network_of("m.quantal", contents.arrays, contents.metadata, Machine(1))


@pytest.mark.parametrize("values", ["binary", VALUES])
@pytest.mark.parametrize("numbers", [1, 500, 3000])
def test_parts_of_a_convolution_fit_together(values, numbers, random, monkeypatch):
    """One line of outputs, a few, and several images at a time."""
    monkeypatch.setattr(_window_steps, "_PATCHES", numbers)
    layer = Discrete(layers.Conv2D(5, 3, strides=(2, 1), padding="same"), values)
    model = keras.Sequential([keras.Input(IMAGES), layer])
    assert_same(model, network_like(model), random.normal(size=(10, *IMAGES)).astype(np.float32))


def test_the_table_of_layers_is_whole():
    idle = {"Identity", "Dropout", "SpatialDropout1D", "SpatialDropout2D", "AlphaDropout",
            "GaussianDropout", "GaussianNoise", "ActivityRegularization"}  # fmt: skip
    assert {name.split()[0].strip(",") for name in LAYERS} == {*_READERS} - idle - {"Embedding"}


LISTS = {
    "one value": {"values": [0.5]},
    "a learned scale for each channel": {"values": VALUES, "scale": Scale(axis=-1)},
    "a scale for each input": {"values": VALUES, "scale": Scale("mean_absolute", axis=0)},
    "a list for each channel": {"values": Values(np.arange(12.0).reshape(4, 3) - 5, axis=-1)},
    "a list for each input": {"values": Values(np.arange(18.0).reshape(6, 3) - 5, axis=0)},
    "twenty values": {"values": np.linspace(-1, 1, 20)},
    "three hundred values": {"values": np.linspace(-1, 1, 300)},
    "a learned list": {"values": Values([0.1, 0.5, -1], learnable=True)},
}


@pytest.mark.parametrize("name", LISTS)
def test_lists_and_scales(name, random):
    model = keras.Sequential([keras.Input((6,)), Discrete(layers.Dense(4), **LISTS[name])])
    x = random.normal(size=(4, 6)).astype(np.float32)
    assert_same(model, network_like(model), x)


@pytest.mark.parametrize("scale", [None, Scale(axis=0), Scale(axis=1)])
def test_embeddings(scale, random):
    embedding = Discrete(layers.Embedding(30, 5), VALUES, "embeddings", scale=scale)
    model = keras.Sequential(
        [keras.Input((7,), dtype="int32"), embedding, layers.GlobalAveragePooling1D()]
    )
    network = network_like(model)
    assert_same(model, network, random.integers(0, 30, (4, 7)))
    with pytest.raises(ValueError, match=r"'embedding.*reach from 0 to 30. Expected 0 to 29"):
        network(np.array([[0, 30, 1, 1, 1, 1, 1]]))


def convnet():
    """A functional model with models inside it, where all multiplications fold."""
    inner = keras.Sequential(
        [
            keras.Input((4, 4, 6)),
            discrete(layers.DepthwiseConv2D(3, padding="same")),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
            layers.Flatten(),
        ]
    )
    inputs = keras.Input((8, 8, 2))
    x = layers.Rescaling(1 / 255)(inputs)
    x = discrete(layers.Conv2D(6, 3, padding="same", use_bias=False))(x)
    x = LearnableMultiplier(VALUES)(layers.BatchNormalization()(x))
    x = layers.MaxPooling2D()(layers.ReLU()(x))
    x = inner(x)
    return keras.Model(inputs, discrete(layers.Dense(10, activation="softmax"))(x))


def test_a_file_of_a_whole_model(tmp_path, random):
    model, path = convnet(), tmp_path / "model.quantal"
    network_like(model)
    quantal.save(model, path)
    network = load(path)
    assert_same(model, network, random.uniform(0, 255, (5, 8, 8, 2)).astype(np.float32))
    assert_same(model, network, random.integers(0, 255, (5, 8, 8, 2)))


def test_a_layer_that_is_called_twice_is_refused():
    inputs, layer = keras.Input((3,)), discrete(layers.Dense(3))
    with pytest.raises(ValueError, match=r"with branches: 'discrete.*' is not called once"):
        network_like(keras.Model(inputs, layer(layer(inputs))))


def test_a_model_with_branches_is_refused():
    inputs = keras.Input((3,))
    model = keras.Model(inputs, layers.Add()([inputs, discrete(layers.Dense(3))(inputs)]))
    with pytest.raises(ValueError, match=r"with branches: 'add.*quantal\.export"):
        network_like(model)


def test_inputs_stay_as_they_are(random):
    model = keras.Sequential([keras.Input((2, 3)), layers.Flatten()])
    network, x = network_like(model), random.normal(size=(4, 2, 3)).astype(np.float32)
    network(x)[:] = 0
    assert x.all()
