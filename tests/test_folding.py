"""A multiplier goes into its neighbour where that changes no output."""

import keras
import numpy as np
import pytest
from keras import layers

import quantal
from conftest import numpy
from quantal import Discrete, LearnableMultiplier
from quantal._export.folding import folded

POWERS = [1, -1, 0.5, 0, -4]


def kinds(model):
    return [type(layer).__name__ for layer in model.layers]


def spread(model, random):
    """Weights other than those of a new model."""
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([random.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
        for variable in layer.weights:
            if variable.path.endswith("bias"):
                variable.assign(random.normal(size=variable.shape))
    return model


def same(model, random, shape):
    x = random.normal(size=(5, *shape)).astype("f4")
    plain = folded(model)
    assert quantal.parameters_of(plain) == []
    np.testing.assert_array_equal(numpy(model(x)), numpy(plain(x)))
    return kinds(plain)


BEFORE = {
    "dense": ((6,), lambda: [layers.Dense(9), LearnableMultiplier(POWERS)]),
    "no bias": ((6,), lambda: [layers.Dense(9, use_bias=False), LearnableMultiplier()]),
    "discrete": ((6,), lambda: [Discrete(layers.Dense(9), [1, 0.3], scale="learned"),
                                LearnableMultiplier(POWERS)]),
    "convolution": ((8, 8, 2), lambda: [layers.Conv2D(4, 3), LearnableMultiplier(POWERS)]),
    "one axis": ((8, 2), lambda: [layers.Conv1D(4, 3), LearnableMultiplier(POWERS)]),
    "normalization": ((6,), lambda: [layers.BatchNormalization(), LearnableMultiplier(POWERS)]),
    "after": ((6,), lambda: [LearnableMultiplier(POWERS), layers.Dense(9, activation="relu")]),
    "after it a convolution": ((8, 8, 2), lambda: [LearnableMultiplier(POWERS),
                                                   layers.Conv2D(4, 3, padding="same")]),
    "between": ((6,), lambda: [layers.Dense(4), layers.ReLU(), LearnableMultiplier(POWERS),
                               Discrete(layers.Dense(9), "ternary")]),
}  # fmt: skip


@pytest.mark.parametrize("name", BEFORE)
def test_it_is_folded(name, random):
    shape, layers_of = BEFORE[name]
    model = spread(keras.Sequential([keras.Input(shape), *layers_of()]), random)
    kinds_of_plain = same(model, random, shape)
    assert "Identity" in kinds_of_plain
    assert "Rescaling" not in kinds_of_plain


KEPT = {
    "no powers": ((6,), lambda: [layers.Dense(9), LearnableMultiplier([1, 0.3])]),
    "activation": ((6,), lambda: [layers.Dense(9, activation="tanh"), LearnableMultiplier()]),
    "another axis": ((8, 2), lambda: [layers.Dense(4), LearnableMultiplier(axis=1)]),
    "both axes": ((8, 2), lambda: [layers.Dense(4), LearnableMultiplier(axis=(1, 2))]),
    "alone": ((6,), lambda: [LearnableMultiplier()]),
    "groups": ((8, 4), lambda: [LearnableMultiplier(), layers.Conv1D(4, 3, groups=2)]),
    "no scale": ((6,), lambda: [layers.BatchNormalization(scale=False), LearnableMultiplier()]),
}


@pytest.mark.parametrize("name", KEPT)
def test_it_is_a_product_elsewhere(name, random):
    if name == "groups" and keras.config.backend() == "tensorflow":
        pytest.skip("TensorFlow has no grouped convolution on a CPU")
    shape, layers_of = KEPT[name]
    kinds_of_plain = same(
        spread(keras.Sequential([keras.Input(shape), *layers_of()]), random), random, shape
    )
    assert "Rescaling" in kinds_of_plain
    assert "Identity" not in kinds_of_plain


def test_one_weight_takes_one_multiplier(random):
    model = keras.Sequential(
        [keras.Input((6,)), LearnableMultiplier(POWERS), layers.Dense(9), LearnableMultiplier()]
    )
    kinds_of_plain = same(model, random, (6,))
    assert sorted(kind for kind in kinds_of_plain if kind != "Dense") == ["Identity", "Rescaling"]


def test_what_others_see_stays(random):
    inputs = keras.Input((6,))
    hidden = layers.Dense(9)(inputs)
    model = keras.Model(inputs, [hidden, LearnableMultiplier()(hidden)])
    plain = folded(model)
    assert "Rescaling" in kinds(plain)
    x = random.normal(size=(5, 6))
    for first, second in zip(model(x), plain(x), strict=True):
        np.testing.assert_array_equal(numpy(first), numpy(second))


def test_a_layer_called_twice_stays(random):
    inputs = keras.Input((6,))
    shared, multiplier = layers.Dense(6), LearnableMultiplier()
    model = keras.Model(inputs, shared(multiplier(shared(inputs))))
    x = random.normal(size=(5, 6))
    plain = folded(model)
    assert "Rescaling" in kinds(plain)
    np.testing.assert_array_equal(numpy(model(x)), numpy(plain(x)))
