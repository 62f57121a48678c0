"""QONNX files compute what Keras computes, with the integers of each list in them."""

import importlib.util

import keras
import numpy as np
import pytest
from keras import layers

import quantal
from conftest import numpy, on_one_backend
from quantal import Discrete, DiscreteActivation, LearnableMultiplier, Scale, Values

onnx = pytest.importorskip("onnx")
# Of ONNX's reference, in sigmoids of large numbers.
pytestmark = pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
needs_qonnx = pytest.mark.skipif(
    importlib.util.find_spec("qonnx") is None,
    reason="not installed: qonnx; see scripts/test-runtimes",
)


def quant(x, scale, zero, bits, signed=1, narrow=0, rounding_mode="ROUND"):
    """What QONNX's operator computes, as its documentation says."""
    assert rounding_mode == "ROUND"
    low = -(2 ** (bits - 1)) + narrow if signed else 0
    high = 2 ** (bits - 1) - 1 if signed else 2**bits - 1 - narrow
    integers = np.round(np.clip(x / scale + zero, low, high))
    return ((integers - zero) * scale).astype(np.float32)


def run(path, *arrays):
    """Run a file in ONNX's own reference, sample by sample, with QONNX's operators."""
    from onnx.reference import ReferenceEvaluator
    from onnx.reference.op_run import OpRun

    class Quant(OpRun):
        op_domain = "qonnx.custom_op.general"

        def _run(self, x, scale, zero, bits, **attributes):
            return (quant(x, scale, zero, bits, **attributes),)

    class BipolarQuant(OpRun):
        op_domain = "qonnx.custom_op.general"

        def _run(self, x, scale):
            return (np.where(x >= 0, scale, -scale).astype(np.float32),)

    model = onnx.load(path)
    onnx.checker.check_model(model)
    evaluator = ReferenceEvaluator(model, new_ops=[Quant, BipolarQuant])
    samples = [
        evaluator.run(None, dict(zip(evaluator.input_names, sample, strict=True)))
        for sample in zip(*(array[:, None] for array in arrays), strict=True)
    ]
    return [np.concatenate(outputs) for outputs in zip(*samples, strict=True)]


def mlp():
    return keras.Sequential(
        [
            keras.Input((16,)),
            DiscreteActivation(Values.signed(8, 1 / 64)),
            Discrete(layers.Dense(8), "ternary", scale=Scale("learned", axis="output")),
            layers.BatchNormalization(),
            DiscreteActivation(Values.unsigned(4), scale="learned"),
            LearnableMultiplier([1, -1, 0.5, -0.5]),
            # Their sums are exact, so that the sign of one near 0 is no matter of rounding.
            Discrete(layers.Dense(8), [1, -1, 0.5, -0.5]),
            DiscreteActivation("binary"),
            Discrete(layers.Dense(5), "binary"),
            layers.Softmax(),
        ]
    )


def convnet():
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            Discrete(layers.Conv2D(6, 3, strides=2, padding="same"), "powers_of_two:4"),
            layers.BatchNormalization(),
            layers.ReLU(),
            DiscreteActivation(Values.unsigned(4, 0.25)),
            layers.MaxPooling2D(),
            Discrete(layers.DepthwiseConv2D(3, padding="same"), "ternary", scale="learned"),
            DiscreteActivation(Values.signed(3, 0.5), scale="learned", axis=-1),
            Discrete(layers.Conv2D(4, 1), "binary"),
            layers.GlobalAveragePooling2D(),
            Discrete(layers.Dense(5), [2, 3, 4, 5]),
        ]
    )


def branches():
    image, factor = keras.Input((8, 8, 4)), keras.Input((8, 8, 1))
    first = Discrete(layers.Conv2D(4, 3, padding="same"), "ternary")(image)
    both = layers.Concatenate()([layers.Add()([first, image]), first])
    x = layers.ZeroPadding2D(1)(layers.Multiply()([both, factor]))
    x = layers.Permute((3, 1, 2))(layers.UpSampling2D()(layers.Cropping2D(2)(x)))
    x = Discrete(layers.Dense(3, activation="silu"), "binary")(layers.Flatten()(x))
    other = layers.Dense(2, activation="leaky_relu")(layers.Reshape((8, 8, 4))(first))
    last = layers.Average()([layers.Dense(3, activation="hard_sigmoid")(x), x])
    return keras.Model([image, factor], [last, other, image])


def moved(model, random):
    """Other statistics and scales than those of a new model, so that each is seen."""
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([random.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
        elif isinstance(layer, DiscreteActivation) and layer.scale is not None:
            layer.set_scale(random.choice([0.25, 0.5], layer.scale_value().shape))
    return model


@pytest.mark.parametrize("network", [mlp, convnet, branches])
def test_a_file_computes_what_keras_computes(network, tmp_path, random):
    model = moved(network(), random)
    shapes = [tensor.shape[1:] for tensor in model.inputs]
    arrays = [random.normal(size=(9, *shape)).astype(np.float32) for shape in shapes]
    quantal.export(model, tmp_path / "m.onnx", "qonnx", check=False)
    expected = keras.tree.flatten(model(arrays if len(arrays) > 1 else arrays[0]))
    for output, other in zip(run(tmp_path / "m.onnx", *arrays), expected, strict=True):
        np.testing.assert_allclose(output, numpy(other), rtol=1e-4, atol=1e-5)


@on_one_backend
def test_the_larger_value_wins_on_the_middle(tmp_path):
    model = keras.Sequential(
        [
            keras.Input((2,)),
            DiscreteActivation(Values.signed(3)),
            LearnableMultiplier([0.5]),
            DiscreteActivation("ternary"),
        ]
    )
    quantal.export(model, tmp_path / "m.onnx", "qonnx", check=False)
    x = np.linspace(-5, 5, 21, dtype=np.float32).repeat(2).reshape(21, 2)
    (outputs,) = run(tmp_path / "m.onnx", x)
    np.testing.assert_array_equal(outputs, model.predict(x, verbose=0))


def quantizers(path):
    """The quantizers of weights: their operator, their integers, and their attributes."""
    graph = onnx.load(path).graph
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type in ("Quant", "BipolarQuant") and node.input[0] in arrays:
            weights, scale, *others = (arrays[name] for name in node.input)
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            yield node.op_type, weights, scale, [float(n) for n in others], attributes


@on_one_backend
@pytest.mark.parametrize(
    ("values", "bits", "signed", "narrow", "step"),
    [
        ("binary", None, None, None, 1),
        ([-0.3, 0.3], None, None, None, 0.3),
        ("ternary", 2, 1, 1, 1),
        ("zero_one", 1, 0, 0, 1),
        ([1, -1, 0.5, -0.5], 3, 1, 1, 0.5),
        (Values.signed(4), 4, 1, 0, 1),
        ("powers_of_two:4", 8, 1, 1, 1 / 64),
        (Values.powers_of_two(5), 16, 1, 1, 2.0**-14),
    ],
)
def test_quantizers_say_the_integers_of_a_list(values, bits, signed, narrow, step, tmp_path):
    layer = Discrete(layers.Dense(7), values, scale=Scale("learned", axis="output"))
    model = keras.Sequential([keras.Input((40,)), layer])
    quantal.export(model, tmp_path / "m.onnx", "qonnx", check=False)
    ((kind, weights, scale, others, attributes),) = quantizers(tmp_path / "m.onnx")
    assert kind == ("BipolarQuant" if bits is None else "Quant")
    np.testing.assert_allclose(weights, numpy(layer.listed_values), rtol=1e-6)
    assert float(scale) == pytest.approx(step)
    if bits is not None:
        assert others == [0, bits]
        assert (attributes["signed"], attributes["narrow"]) == (signed, narrow)
        np.testing.assert_array_equal(quant(weights, scale, 0, bits, signed, narrow), weights)


@on_one_backend
def test_lists_of_each_channel_have_steps_of_their_own(tmp_path):
    layer = Discrete(layers.Conv2D(2, 3), Values([[-1, 0, 1], [-0.5, 0, 0.5]]))
    model = keras.Sequential([keras.Input((4, 4, 1)), layer])
    quantal.export(model, tmp_path / "m.onnx", "qonnx", check=False)
    ((_, weights, scale, (_, bits), _),) = quantizers(tmp_path / "m.onnx")
    assert scale.shape == (2, 1, 1, 1)
    assert scale.ravel().tolist() == [1, 0.5]
    assert (bits, weights.shape) == (2, (2, 1, 3, 3))


@on_one_backend
def test_scales_of_groups_are_in_the_file(tmp_path, random):
    layer = Discrete(layers.Dense(4), "ternary", scale=Scale("learned", group=3))
    model = keras.Sequential([keras.Input((6,)), layer])
    quantal.export(model, tmp_path / "m.onnx", "qonnx", check=False)
    x = random.normal(size=(5, 6)).astype(np.float32)
    (outputs,) = run(tmp_path / "m.onnx", x)
    np.testing.assert_allclose(outputs, model.predict(x, verbose=0), rtol=1e-5, atol=1e-6)


@on_one_backend
def test_a_relu_before_levels_from_0_is_left_out(tmp_path):
    nodes = [keras.Input((4,)), layers.ReLU(), DiscreteActivation(Values.unsigned(2))]
    quantal.export(keras.Sequential(nodes), tmp_path / "m.onnx", "qonnx", check=False)
    assert [node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node] == [
        "Add", "Relu", "Quant",
    ]  # fmt: skip


@on_one_backend
@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (Discrete(layers.Dense(3), [1, 0.7, -0.2345]), r"list \[1, 0\.7, -0\.2345\].* no even ste"),
        (DiscreteActivation([1, 0.7, -0.2345]), r"has the values .* expected 2\^k or 2\^k - 1 val"),
        (layers.ReLU(threshold=1.0), r"relu with a threshold, which the target 'qonnx' does not"),
    ],
)
def test_what_qonnx_does_not_hold_is_refused(layer, message, tmp_path):
    model = keras.Sequential([keras.Input((4,)), layer])
    with pytest.raises(ValueError, match=message):
        quantal.export(model, tmp_path / "m.onnx", "qonnx")
    assert not list(tmp_path.iterdir())


@needs_qonnx
@pytest.mark.filterwarnings("ignore")
def test_qonnx_executes_it(tmp_path, random):
    report = quantal.export(moved(mlp(), random), tmp_path / "m.onnx", "qonnx")
    assert report.largest < 1e-5
