"""hls4ml converts quantal's layers with the exact precision of their lists."""

import importlib.util
import types

import keras
import numpy as np
import pytest
from keras import layers

import quantal
from conftest import on_one_backend
from quantal import Discrete, DiscreteActivation, LearnableMultiplier, Values
from quantal._export.fixed_point import FixedPoint, fixed_point_of, with_significant_bits
from quantal._export.hls4ml.activation import read_activation
from quantal._export.hls4ml.layers import read_discrete
from quantal._export.hls4ml.weights import split_weight
from quantal._export.levels import Levels
from quantal._registration import register_with_hls4ml

needs_hls4ml = pytest.mark.skipif(
    importlib.util.find_spec("hls4ml") is None,
    reason="not installed: hls4ml; see scripts/test-runtimes",
)
INPUTS = Values.signed(8, 1 / 64)


@on_one_backend
@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([1, -1], (2, 2, True)),
        ([0, 1], (1, 1, False)),
        ([-4, 3], (3, 3, True)),
        ([0.25, 0.75], (2, 0, False)),
        ([1, 2**-10], (11, 1, False)),
        ([0, 0], (1, 1, False)),
        (np.float32([0.7, -0.2]), (27, 1, True)),
    ],
)
def test_the_narrowest_fixed_point(numbers, expected):
    precision = fixed_point_of(numbers)
    assert precision == FixedPoint(*expected)
    integers = np.asarray(numbers, np.float64) / precision.step
    np.testing.assert_array_equal(integers, np.round(integers))
    low = -(2 ** (precision.width - 1)) if precision.signed else 0
    assert (integers >= low).all()
    assert (integers < low + 2**precision.width).all()


def built(layer, size=6):
    keras.Sequential([keras.Input((size,)), layer])
    return layer


@on_one_backend
@pytest.mark.parametrize(
    ("values", "scale", "width", "scaled"),
    [
        ("ternary", None, 2, False),
        ([1, -1, 0.5, -0.5], None, 3, False),
        ("binary", quantal.Scale("learned", axis="output"), 2, True),
        ([-0.3, -0.1, 0.1, 0.3], None, 3, True),
        ([1, 0.7, -0.23], None, 8, True),
        ([1, 0.7, np.pi / 9], None, 25, False),
        ("ternary", quantal.Scale("learned", power_of_two=True), 2, False),
    ],
)
def test_a_weight_has_the_precision_of_its_list(values, scale, width, scaled):
    layer = built(Discrete(layers.Dense(4), values, scale=scale))
    (parameter,) = layer.discrete_parameters
    split = split_weight(parameter, scalable=True)
    assert split.precision.width == width
    assert (split.factor is not None) == scaled
    weight = split.numbers * (1 if split.factor is None else split.factor)
    expected = keras.ops.convert_to_numpy(parameter.weight)
    np.testing.assert_allclose(weight, expected, rtol=1e-6)
    steps = split.numbers / split.precision.step
    np.testing.assert_array_equal(steps, np.round(steps))


@on_one_backend
@pytest.mark.parametrize(
    ("values", "levels"),
    [
        ("binary", Levels(2, 0.5, 1, True, by_sign=True)),
        ("zero_one", Levels(1, 0, 1, False)),
        ("ternary", Levels(1, 0, 2, True, symmetric=True)),
        (Values.unsigned(4, 0.1), Levels(np.float32(0.1), 0, 4, False)),
        (Values.signed(3), Levels(1, 0, 3, True)),
        ([2, 3, 4, 5], Levels(1, 2, 2, False)),
        ([-1, 1, 3], Levels(2, 0.5, 2, True, symmetric=True)),
    ],
)
def test_levels_of_an_activation(values, levels):
    result = Levels.of(Values(values).numbers, "a")
    assert result == pytest.approx(levels, abs=1e-7)
    integers = np.arange(2**result.bits) - (2 ** (result.bits - 1) if result.signed else 0)
    numbers = result.step * (integers[result.symmetric :] + result.offset)
    np.testing.assert_allclose(numbers, Values(values).ascending, atol=1e-6)


@on_one_backend
@pytest.mark.parametrize("values", [[1, -1, 0.5, -0.5], [0, 1, 2, 3, 4], [[0, 1], [0, 2]]])
def test_lists_that_are_no_fixed_point_are_refused(values):
    with pytest.raises(ValueError, match=r"'a' has the values .*expected 2\^k or 2\^k - 1 values"):
        Levels.of(Values(values).numbers, "a")


@on_one_backend
def test_inputs_that_are_rounded_to_no_list_are_refused():
    inputs = keras.Input((6,))
    outputs = DiscreteActivation("ternary", name="a")(layers.Dense(3, name="d")(inputs))
    before = keras.Model(inputs, outputs).layers[1].output
    with pytest.raises(ValueError, match=r"'a' rounds .* input goes into the layer 'd' as it is"):
        read_activation(keras.Model(inputs, outputs).layers[-1], [before], [outputs])


@on_one_backend
def test_an_activation_within_a_layer_is_refused():
    layer = built(Discrete(layers.Dense(3, activation=DiscreteActivation("ternary")), "binary"))
    with pytest.raises(ValueError, match=r"has a DiscreteActivation as its activation, which hls4"):
        read_discrete(layer, [], [])


@on_one_backend
def test_a_weight_with_scales_of_groups_is_multiplied_with_them():
    scale = quantal.Scale("learned", group=3)
    (parameter,) = built(Discrete(layers.Dense(4), "ternary", scale=scale)).discrete_parameters
    split = split_weight(parameter, scalable=True)
    # Each group of inputs has its scale, so nothing is left to multiply sums with.
    assert split.factor is None
    weight = keras.ops.convert_to_numpy(parameter.weight)
    # Scales have 16 significant bits.
    np.testing.assert_allclose(split.numbers, weight, rtol=2**-16)
    steps = split.numbers / split.precision.step
    np.testing.assert_array_equal(steps, np.round(steps))


@on_one_backend
def test_quantal_enters_its_layers():
    table = types.SimpleNamespace(layer_handlers={})
    register_with_hls4ml(table)
    for kind in (Discrete, LearnableMultiplier, DiscreteActivation):
        assert callable(table.layer_handlers[f"{kind.__module__}.{kind.__name__}"])


def test_significant_bits():
    assert with_significant_bits([0.3, 100, 0], 3).tolist() == [0.3125, 96, 0]


def mlp():
    return [
        keras.Input((16,)),
        DiscreteActivation(INPUTS),
        Discrete(layers.Dense(8), "ternary", scale="learned"),
        DiscreteActivation(Values.unsigned(4), scale=quantal.Scale("learned", power_of_two=True)),
        LearnableMultiplier(),
        Discrete(layers.Dense(6, use_bias=False), [1, -1, 0.5, -0.5]),
        DiscreteActivation("binary"),
        Discrete(layers.Dense(3), "binary"),
    ]


def convnet():
    return [
        keras.Input((8, 8, 1)),
        DiscreteActivation(INPUTS),
        Discrete(layers.Conv2D(4, 3), [-0.3, -0.1, 0.1, 0.3]),
        layers.MaxPooling2D(),
        DiscreteActivation(Values.unsigned(4, 0.3)),
        Discrete(layers.DepthwiseConv2D(3), "ternary", scale=quantal.Scale("learned", axis=2)),
        DiscreteActivation(Values.unsigned(4), scale="learned", axis=-1),
        layers.Flatten(),
        Discrete(layers.Dense(5), "binary"),
    ]


def with_scales(model, random):
    """Scales and biases of a trained network, so that each of them is seen."""
    for layer in model.layers:
        if isinstance(layer, DiscreteActivation) and layer.scale is not None:
            layer.set_scale(random.uniform(0.2, 0.5, layer.scale_value().shape))
        elif getattr(layer, "use_bias", False):
            layer.bias.assign(random.integers(-8, 8, layer.bias.shape) / 8)
    return model


@needs_hls4ml
@pytest.mark.filterwarnings("ignore")  # hls4ml's, about itself.
@pytest.mark.parametrize("network", [mlp, convnet])
def test_hls4ml_computes_what_keras_computes(network, tmp_path, random):
    import hls4ml

    model = with_scales(keras.Sequential(network()), random)
    x = random.normal(size=(100, *model.input_shape[1:])).astype(np.float32)
    converted = hls4ml.converters.convert_from_keras_model(model, output_dir=str(tmp_path / "p"))
    precisions = {
        node.name: str(node.weights["weight"].type.precision)
        for node in converted.get_layers()
        if "weight" in node.weights
    }
    names = [layer.name for layer in model.layers if isinstance(layer, Discrete)]
    widths = [precisions[name][: precisions[name].index(",")] for name in names]
    expected = ["fixed<2", "fixed<3", "fixed<2"]
    assert [w for w in widths if w in expected] == (
        expected if network is mlp else ["fixed<3", "fixed<2"]
    )
    converted.compile()
    outputs = converted.predict(x).reshape(100, -1)
    np.testing.assert_allclose(outputs, model.predict(x, verbose=0), atol=1e-3)


@needs_hls4ml
@pytest.mark.filterwarnings("ignore")
def test_without_discrete_activations_hls4ml_still_has_the_weights(tmp_path):
    import hls4ml

    inner = layers.Dense(4, activation="relu")
    model = keras.Sequential([keras.Input((6,)), Discrete(inner, "ternary", name="d")])
    config = hls4ml.utils.config_from_keras_model(model, granularity="name")
    assert config["LayerName"]["d"]["Precision"]["weight"].startswith("fixed<2,2,")
    assert "d_relu" in config["LayerName"]


@needs_hls4ml
def test_layers_that_hls4ml_does_not_know_are_refused():
    import hls4ml

    model = keras.Sequential(
        [keras.Input((6, 2)), Discrete(layers.Conv1DTranspose(4, 3), "ternary")]
    )
    with pytest.raises(ValueError, match=r"Conv1DTranspose, for which hls4ml has no handler"):
        hls4ml.utils.config_from_keras_model(model, granularity="name")
