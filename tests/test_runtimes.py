"""What is exported, run by the runtimes that it is for."""

import importlib.util
import sys

import keras
import numpy as np
import pytest
from keras import layers

import quantal
from conftest import numpy, on_one_backend
from quantal._models.table_features import TableFeatures

BACKEND = keras.config.backend()
CONVERTER = {"tensorflow": "tf2onnx", "jax": "jax2onnx", "torch": "onnxscript"}[BACKEND]


def needs(*names):
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(
        bool(missing), reason=f"not installed: {', '.join(missing)}; see scripts/test-runtimes"
    )


def onnx_target(test):
    test = pytest.mark.filterwarnings("ignore")(test)  # Of the exporters, about themselves.
    return needs("onnx", "onnxruntime", CONVERTER)(test)


def convnet():
    return keras.Sequential(
        [
            keras.Input((12, 12, 1)),
            layers.Conv2D(16, 3, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPooling2D(),
            layers.Conv2D(16, 3, strides=2, padding="same"),
            layers.Flatten(),
            layers.Dense(60),
            quantal.LearnableMultiplier(),
            layers.ReLU(),
            layers.Dense(10),
        ]
    )


def attention():
    inputs = keras.Input((7, 16))
    x = layers.MultiHeadAttention(4, 16)(inputs, inputs)
    x = layers.LayerNormalization()(x + inputs)
    return keras.Model(inputs, layers.Dense(32)(x))


def recurrent():
    return keras.Sequential([keras.Input((9, 12)), layers.LSTM(32), layers.Dense(10)])


def dense(units=(120, 30), size=200):
    hidden = [layer for n in units for layer in (layers.Dense(n), layers.ReLU())]
    return keras.Sequential([keras.Input((size,)), *hidden[:-1]])


def moved(model, random):
    """Other statistics than those of a new model, so that folding them is seen."""
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([random.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    return model


NETWORKS = [convnet, attention, recurrent]
LISTS = ["ternary", [1, 0.7, 0, -0.1, -0.2]]


@onnx_target
@pytest.mark.parametrize("values", LISTS)
@pytest.mark.parametrize("network", NETWORKS)
def test_onnx_is_the_same_to_the_bit(network, values, tmp_path, random):
    import onnx

    from quantal._export.fidelity import Reference
    from quantal._export.onnx.convert import convert
    from quantal._export.onnx.shrink import shrink
    from quantal._export.running import run_file

    model = moved(quantal.discretize(network(), values), random)
    reference = Reference(model)
    before = convert(model)
    # Here all that is shorter is shrunk, to see each way in small networks.
    after = shrink(before, [p.values.numbers for p in quantal.parameters_of(model)])
    outputs = []
    for name, graph in (("before", before), ("after", after)):
        path = tmp_path / f"{name}.onnx"
        onnx.save(graph, path)
        onnx.checker.check_model(path, full_check=True)
        outputs.append(run_file(path, reference.batches).outputs)
    for size in (1, 7, 8, 64):
        np.testing.assert_array_equal(outputs[0][size][0], outputs[1][size][0])
    assert reference.difference(outputs[1]).largest < 1e-5
    assert any("packed" in tensor.name for tensor in after.graph.initializer)
    assert after.ByteSize() < before.ByteSize()


@onnx_target
def test_onnx_reports(tmp_path, random):
    model = quantal.discretize(dense(), [1, -1, 0.5, -0.5])
    report = quantal.export(model, tmp_path / "m.onnx")
    assert report.largest <= report.bound == 1e-5
    assert report.figures.bytes == (tmp_path / "m.onnx").stat().st_size
    assert report.floats.bytes > 5 * report.figures.bytes
    assert report.figures.milliseconds > 0
    assert "difference to Keras: largest" in str(report)
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
    unchecked = quantal.export(model, tmp_path / "m.onnx", check=False)
    assert unchecked.largest is None
    assert "milliseconds        -" in str(unchecked)


@onnx_target
@pytest.mark.parametrize(
    ("values", "bits"), [([1, -1], 2), ("ternary", 2), ([1, -1, 0.5, -0.5], 4), ([0, 1, 2, 3], 2)]
)
def test_onnx_fast(values, bits, tmp_path):
    import onnx

    model = quantal.discretize(dense(), values, scale="learned")
    report = quantal.export(model, tmp_path / "m.onnx", "onnx_fast")
    assert 1e-5 < report.largest <= report.bound == 0.1
    products = [n for n in onnx.load(tmp_path / "m.onnx").graph.node if n.op_type == "MatMulNBits"]
    attributes = [{a.name: a.i for a in node.attribute} for node in products]
    assert [(a["bits"], a["accuracy_level"]) for a in attributes] == [(bits, 4)] * 2


@onnx_target
def test_onnx_fast_refuses_lists_without_even_steps(tmp_path):
    model = quantal.discretize(dense(), [1, 0.7, np.pi / 9, -0.2], scale=None)
    with pytest.raises(ValueError, match=r"has no even steps.*Export to '\.onnx' without target"):
        quantal.export(model, tmp_path / "m.onnx", "onnx_fast")
    assert not list(tmp_path.iterdir())


@onnx_target
def test_a_difference_above_the_bound_is_refused(tmp_path, random):
    model = quantal.discretize(dense(), "ternary")
    parameter = quantal.parameters_of(model)[0]
    # One large input that has no effect: rounded to 8 bits with it, the others are lost.
    codes = numpy(parameter.codes).copy()
    codes[0] = parameter.values.codes([0.0])[0]
    parameter.set_codes(codes)
    x = random.normal(size=(8, 200)).astype("f4")
    x[:, 0] = 1e4
    with pytest.raises(ValueError, match=r"differ from Keras's by .* Expected at most 0\.1 "):
        quantal.export(model, tmp_path / "m.onnx", "onnx_fast", inputs=x)
    assert not list(tmp_path.iterdir())
    assert quantal.export(model, tmp_path / "m.onnx", inputs=x).largest <= 1e-5


@onnx_target
def test_an_export_converts_once(tmp_path, monkeypatch):
    conversions = []
    export = keras.Sequential.export

    def counted(self, *args, **kwargs):
        conversions.append(self.name)
        return export(self, *args, **kwargs)

    monkeypatch.setattr(keras.Sequential, "export", counted)
    for target in ("onnx", "onnx_fast"):
        conversions.clear()
        report = quantal.export(quantal.discretize(dense(), "ternary"), tmp_path / "m.onnx", target)
        assert report.floats.bytes > report.figures.bytes
        assert len(conversions) == 1


@onnx_target
def test_given_inputs_are_run(tmp_path, random):
    model = quantal.discretize(dense(), "ternary")
    report = quantal.export(model, tmp_path / "m.onnx", inputs=random.normal(size=(3, 200)))
    assert report.largest <= 1e-5
    with pytest.raises(ValueError, match=r"inputs have the shapes \[\(3, 7\)\]. Expected"):
        quantal.export(model, tmp_path / "m.onnx", inputs=np.zeros((3, 7)))


@onnx_target
def test_a_table_with_gaps_and_words(tmp_path):
    """What `quantal train` puts first is computed in the file, too."""
    kinds = ["number", "missing", "equal", "equal"]
    names = ["age", "age is missing", "town=Bern", "town=Chur"]
    plan = {"width": 2, "source": [0, 0, 1, 1], "kind": kinds, "name": names}
    features = TableFeatures({**plan, "number": [40.0, 0.0, 1.0, 2.0]})
    dense = quantal.Discrete(layers.Dense(3, use_bias=False), [1, -1])
    model = keras.Sequential([keras.Input((2,)), features, dense])
    report = quantal.export(model, tmp_path / "model.onnx", check=False)
    assert report.paths == [tmp_path / "model.onnx"]
    import onnxruntime

    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    rows = np.float32([[25, 1], [np.nan, 2], [0, 0], [60, np.nan]])
    expected = np.float32([[25, 0, 1, 0], [40, 1, 0, 1], [0, 0, 0, 0], [60, 0, 0, 0]])
    name = session.get_inputs()[0].name
    # PyTorch's exporter may leave the batch fixed at one row.
    outputs = [session.run(None, {name: row[None]})[0][0] for row in rows]
    np.testing.assert_allclose(outputs, expected @ numpy(model.layers[-1].kernel), rtol=1e-6)


@onnx_target
def test_several_inputs(tmp_path):
    first, second = keras.Input((6,), name="b"), keras.Input((4,), name="a")
    joined = layers.Concatenate()([first, layers.Dense(50)(second)])
    model = keras.Model({"b": first, "a": second}, layers.Dense(40)(joined))
    report = quantal.export(quantal.discretize(model, "ternary"), tmp_path / "m.onnx")
    assert report.largest <= 1e-5


def test_inputs_that_a_model_does_not_tell(tmp_path):
    class Own(keras.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.layer = layers.Dense(3)

        def call(self, x):
            return self.layer(x)

    from quantal._export.inputs import inputs_of

    with pytest.raises(ValueError, match=r"does not tell its inputs.*export to '\.npz'"):
        inputs_of(Own())


@onnx_target
@needs("openvino")
@pytest.mark.parametrize("values", [*LISTS, [1, -1, 0.5, -0.5]])
@pytest.mark.parametrize("network", NETWORKS)
def test_openvino(network, values, tmp_path, random):
    model = moved(quantal.discretize(network(), values), random)
    report = quantal.export(model, tmp_path / "m.xml")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.bin", "m.xml"]
    assert report.largest <= report.bound == 1e-5
    assert (tmp_path / "m.bin").stat().st_size < report.floats.bytes / 2


@onnx_target
@needs("openvino")
@pytest.mark.parametrize(
    ("size", "values"), [(33, [1, -1, 0.5, -0.5]), (34, "ternary"), (32, [0, 1, 2, 3])]
)
def test_openvino_is_right_at_every_batch(size, values, tmp_path, random):
    import openvino

    x = random.normal(size=(64, size)).astype("f4")
    layer = quantal.Discrete(layers.Dense(40), values, scale="learned")
    model = keras.Sequential([keras.Input((size,)), layer])
    # Few samples are given, and yet all batches are checked.
    report = quantal.export(model, tmp_path / "m.xml", inputs=x[:4])
    for settings, bound in (({"INFERENCE_PRECISION_HINT": "f32"}, 1e-5), ({}, 0.05)):
        run = openvino.Core().compile_model(tmp_path / "m.xml", "CPU", settings)
        for batch in (1, 7, 8, 64):
            expected = numpy(model(x[:batch]))
            deltas = np.abs(run([x[:batch]])[0] - expected)
            assert deltas.max() < bound * np.sqrt(np.mean(expected**2))
    precision = openvino.Core().get_property("CPU", "INFERENCE_PRECISION_HINT").get_type_name()
    assert (report.default is not None) == (precision != "f32")


@onnx_target
@needs("openvino")
@on_one_backend
def test_a_form_that_the_runtime_computes_wrongly_is_exchanged(tmp_path, monkeypatch):
    from quantal._export import openvino

    monkeypatch.setattr(openvino, "_packed", lambda integers: np.zeros(40 * 64 // 4, np.uint8))
    model = quantal.discretize(dense((40,), 64), "ternary")
    report = quantal.export(model, tmp_path / "m.xml")
    assert "computes packed integers wrongly here: they are floats in memory" in str(report)
    assert report.largest <= 1e-5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.bin", "m.xml"]


@needs("ai_edge_quantizer", "ai_edge_litert")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("values", ["ternary", [1, -1, 0.5, -0.5]])
def test_litert(values, tmp_path, random):
    model = moved(quantal.discretize(convnet(), values), random)
    if BACKEND != "tensorflow":
        with pytest.raises(ValueError, match="load with KERAS_BACKEND=tensorflow"):
            quantal.export(model, tmp_path / "m.tflite")
        return
    report = quantal.export(model, tmp_path / "m.tflite")
    assert report.largest <= report.bound == 0.1
    assert report.figures.bytes < report.floats.bytes / 2
    alone = quantal.export(quantal.discretize(dense((300,)), values), tmp_path / "one.tflite")
    assert alone.figures.bytes < alone.floats.bytes / 6
    off_grid = quantal.discretize(dense(), [1, 0.7, np.pi / 9, -0.2], scale=None)
    with pytest.raises(ValueError, match=r"no kernel on a list with even steps.*'\.onnx'"):
        quantal.export(off_grid, tmp_path / "m.tflite")


@pytest.mark.parametrize("ending", [".onnx", ".xml", ".tflite"])
def test_what_is_missing_is_told(ending, tmp_path, monkeypatch):
    if ending == ".tflite" and BACKEND != "tensorflow":
        pytest.skip("LiteRT files are written on TensorFlow")
    for package in ("onnx", "openvino", "ai_edge_quantizer"):
        monkeypatch.setitem(sys.modules, package, None)  # Its import then fails.
    model = quantal.discretize(dense((4,), 8), "ternary")
    with pytest.raises(ImportError, match=r"pip install 'quantal\["):
        quantal.export(model, tmp_path / f"m{ending}")


def test_numbers_are_converted(random):
    # The report's difference is in units of the outputs' spread, of each output.
    from quantal._export.fidelity import difference

    inputs = keras.Input((4,))
    model = keras.Model(inputs, [inputs * 1.0, inputs * 100.0])
    x = random.normal(size=(50, 4)).astype("f4")
    expected = [numpy(out) for out in model(x)]
    largest, mean = difference([expected[0], expected[1] + 1], expected)
    assert largest == pytest.approx(1 / np.sqrt(np.mean((100 * x) ** 2)), rel=1e-3)
    assert mean == pytest.approx(largest / 2, rel=1e-3)


@onnx_target
def test_what_keras_itself_varies_is_allowed(tmp_path):
    # Layers of ±1 without scales: large sums, whose roundings differ between batches.
    def on_signs(layer):
        return quantal.Discrete(layer, [-1, 1], weight_names=("kernel", "bias"))

    keras.utils.set_random_seed(2)
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            on_signs(layers.Conv2D(16, 3)),
            layers.BatchNormalization(),
            layers.Activation("tanh"),
            layers.MaxPooling2D(),
            on_signs(layers.Conv2D(12, 3)),
            layers.BatchNormalization(),
            layers.MaxPooling2D(),
            layers.Flatten(),
            on_signs(layers.Dense(10)),
            layers.Softmax(),
        ]
    )
    report = quantal.export(model, tmp_path / "m.onnx")
    assert report.largest <= report.bound < 0.01


@onnx_target
def test_a_wrong_file_is_refused_whatever_keras_varies(tmp_path, monkeypatch):
    from quantal._export import fidelity

    monkeypatch.setattr(fidelity.Reference, "variation", lambda self: 100.0)
    x = np.ones((8, 4), "f4")
    reference = fidelity.Reference(keras.Sequential([keras.Input((4,)), layers.Dense(2)]), x)
    assert reference.bound(1e-5, largest=1e-6) == 1e-5
    assert reference.bound(1e-5, largest=5.0) == pytest.approx(0.1)
    assert list(reference.batches.sizes) == [1, 7, 8, 64]
    assert reference.batches.timed == 8


def stack(*stack_of_layers, shape):
    return keras.Sequential([keras.Input(shape), *stack_of_layers])


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16"])
@pytest.mark.parametrize("target", ["onnx", "c", "openvino"])
@pytest.mark.filterwarnings("ignore")
def test_half_precision_is_exported_as_float32(target, policy, tmp_path):
    package = {"onnx": "onnxruntime", "openvino": "openvino", "c": "keras"}[target]
    for name in (package, *(() if target == "c" else ("onnx", CONVERTER))):
        pytest.importorskip(name)
    keras.config.set_dtype_policy(policy)
    model = stack(
        layers.Normalization(mean=[1.0] * 16, variance=[4.0] * 16),
        quantal.Discrete(layers.Dense(32, activation="relu"), [-1, 1]),
        layers.Dense(4),
        shape=(16,),
    )
    ending = {"onnx": ".onnx", "c": ".c", "openvino": ".xml"}[target]
    report = quantal.export(model, tmp_path / f"m{ending}")
    if report.bound is None and target == "c":
        pytest.skip(report.remark)
    assert report.largest <= 1e-5
    assert keras.config.dtype_policy().name == policy


def wide_inputs():
    inputs = [keras.Input((3,), name=f"in_{12 - i}") for i in range(12)]
    joined = layers.Concatenate()(inputs)
    outputs = [quantal.Discrete(layers.Dense(i + 1), "ternary")(joined) for i in range(12)]
    return keras.Model(inputs, outputs)


@onnx_target
def test_inputs_and_outputs_keep_their_order(tmp_path):
    assert quantal.export(wide_inputs(), tmp_path / "m.onnx").largest <= 1e-5
    if BACKEND == "tensorflow" and importlib.util.find_spec("ai_edge_quantizer"):
        assert quantal.export(wide_inputs(), tmp_path / "m.tflite").largest <= 0.1


ONE_NETWORK = {
    "two poolings": lambda: stack(
        layers.MaxPooling2D(), layers.MaxPooling2D(), layers.AveragePooling2D(2), shape=(16, 16, 2)
    ),
    "gelu": lambda: stack(layers.Dense(9, activation="gelu"), shape=(6,)),
    "statistics": lambda: stack(
        layers.Normalization(mean=[3.0, 900.0], variance=[1.0, 4.0]), layers.Dense(3), shape=(2,)
    ),
    "causal": lambda: stack(
        layers.Conv1D(4, 3, padding="causal", dilation_rate=2), layers.Flatten(), shape=(12, 3)
    ),
}


@onnx_target
@pytest.mark.product
@pytest.mark.parametrize("name", ONE_NETWORK)
def test_networks_that_exporters_write_wrongly_are_repaired(name, tmp_path):
    assert quantal.export(ONE_NETWORK[name](), tmp_path / "m.onnx").largest <= 1e-5


@onnx_target
def test_what_an_exporter_cannot_convert_is_named(tmp_path):
    grouped = stack(layers.Conv2D(6, 3, groups=3), layers.Flatten(), shape=(5, 5, 6))
    backwards = stack(layers.Bidirectional(layers.LSTM(2)), shape=(4, 3))
    lengths = stack(layers.LSTM(2), shape=(None, 3))
    model, words = {
        "tensorflow": (grouped, r"'(Stateful)?PartitionedCall', which is none of ONNX's.*BACKEND="),
        "jax": (backwards, r"cannot be converted to ONNX on the backend 'jax': Reverse scan"),
        "torch": (lengths, r"Fix the open lengths of the inputs \[\(None, None, 3\)\]"),
    }[BACKEND]
    with pytest.raises(ValueError, match=words) as error:
        quantal.export(model, tmp_path / "m.onnx")
    assert "Traceback" not in str(error.value)
    assert not list(tmp_path.iterdir())


@needs("ai_edge_quantizer", "ai_edge_litert")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(BACKEND != "tensorflow", reason="LiteRT files are written on TensorFlow")
def test_litert_names_the_layers_that_it_cannot_hold(tmp_path):
    def network(unroll):
        recurrent = quantal.Discrete(layers.LSTM(4, unroll=unroll, name="memory"), "ternary")
        return stack(recurrent, quantal.Discrete(layers.Dense(40), [-1, 1]), shape=(5, 3))

    with pytest.raises(
        ValueError, match=r"'memory' \(LSTM\): Flex.*Create .* unroll=True"
    ) as error:
        quantal.export(network(unroll=False), tmp_path / "m.tflite")
    assert "Traceback" not in str(error.value)
    assert not list(tmp_path.iterdir())
    assert quantal.export(network(unroll=True), tmp_path / "m.tflite").largest <= 0.1


only_tensorflow = pytest.mark.skipif(BACKEND != "tensorflow", reason="LiteRT's converter")


def int8_weights(path):
    """The weights of products in a file: integers with the outputs first, and their scales."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        from tensorflow.lite.python.interpreter import Interpreter
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    for entry in interpreter.get_tensor_details():
        numbers = entry["quantization_parameters"]
        if entry["dtype"] == np.int8 and len(numbers["scales"]) > 1:
            tensor = interpreter.get_tensor(entry["index"])
            rows = np.moveaxis(tensor, numbers["quantized_dimension"], 0)
            yield rows.reshape(len(rows), -1), numbers["scales"]


@only_tensorflow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("values", "largest"),
    [("ternary", 127), ([1, -1, 0.5, -0.5], 126), (quantal.Values.signed(4), 127)],
)
def test_litert_int8_has_the_integers_of_the_list(values, largest, tmp_path, random):
    scale = quantal.Scale("learned", axis="output")
    model = keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            quantal.Discrete(layers.Conv2D(3, 3), values, scale=scale),
            quantal.Discrete(layers.DepthwiseConv2D(3), values),
            layers.Flatten(),
            quantal.Discrete(layers.Dense(5), values),
        ]
    )
    kernels = [numpy(parameter.weight) for parameter in quantal.parameters_of(model)]
    quantal.export(model, tmp_path / "m.tflite", "litert_int8", check=False)
    rows = [np.moveaxis(k, -1, 0).reshape(k.shape[-1], -1) for k in kernels]
    rows[1] = kernels[1].reshape(9, 3).T
    weights = sorted(int8_weights(tmp_path / "m.tflite"), key=lambda pair: pair[0].shape[1])
    for (codes, scales), row in zip(
        weights, sorted(rows, key=lambda row: row.shape[1]), strict=True
    ):
        np.testing.assert_allclose(codes * scales[:, None], row, rtol=1e-6)
        assert np.abs(codes).max() <= largest


@only_tensorflow
@pytest.mark.product
@pytest.mark.filterwarnings("ignore")
def test_litert_int8_runs_as_integers(tmp_path, random):
    model = quantal.discretize(convnet(), [1, -1, 0.5, -0.5])
    gamma = model.layers[1].gamma
    gamma.assign(numpy(gamma) * random.choice([-1, 1], gamma.shape))
    x = random.normal(size=(64, 12, 12, 1)).astype(np.float32)
    report = quantal.export(model, tmp_path / "m.tflite", "litert_int8", inputs=x)
    assert 1e-5 < report.largest < 0.2
    assert report.mean < 0.03
    # The first kernel, of few inputs, stays free.
    listed = [codes for codes, _ in int8_weights(tmp_path / "m.tflite") if codes.shape[1] > 9]
    assert len(listed) == 3
    assert {number for codes in listed for number in np.abs(codes).ravel()} == {126, 63}


@only_tensorflow
@pytest.mark.product
@pytest.mark.filterwarnings("ignore")
def test_litert_int8_has_the_steps_of_discrete_activations(tmp_path, random):
    """Sums lie on a grid here, so many are on the middle between two values."""
    values, scale = quantal.Values, quantal.Scale("learned", power_of_two=True)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            quantal.DiscreteActivation(values.signed(8, 1 / 32)),
            quantal.Discrete(layers.Conv2D(8, 3), "ternary"),
            quantal.DiscreteActivation(values.unsigned(4, 0.5)),
            quantal.Discrete(layers.Conv2D(8, 3), [1, -1, 0.5, -0.5]),
            quantal.DiscreteActivation("ternary", scale=scale),
            layers.Flatten(),
            quantal.Discrete(layers.Dense(5), "binary"),
        ]
    )
    model.layers[4].set_scale(2.0)
    report = quantal.export(model, tmp_path / "m.tflite", "litert_int8")
    # What is left is the rounding of the outputs.
    assert report.largest < 0.02
    model = keras.Sequential([keras.Input((3,)), quantal.DiscreteActivation("binary", name="a")])
    with pytest.raises(ValueError, match=r"'a' has 2 values that LiteRT's integers do not hold"):
        quantal.export(model, tmp_path / "m.tflite", "litert_int8")


def test_litert_int8_refuses_what_it_cannot_hold(tmp_path):
    model = quantal.discretize(dense(), [1, 0.7, np.pi / 9, -0.2], scale=None)
    message = "has no even steps" if BACKEND == "tensorflow" else "Set|load with KERAS_BACKEND=tens"
    with pytest.raises(ValueError, match=message):
        quantal.export(model, tmp_path / "m.tflite", "litert_int8")
    assert not list(tmp_path.iterdir())


@only_tensorflow
@pytest.mark.filterwarnings("ignore")
def test_litert_int8_names_weights_that_the_converter_changes(tmp_path):
    embedding = quantal.Discrete(layers.Embedding(10, 4, name="e"), "ternary", 0)
    model = keras.Sequential(
        [keras.Input((3,), dtype="int32"), embedding, layers.Flatten(), layers.Dense(3)]
    )
    with pytest.raises(ValueError, match=r"changed the weights .*e/embeddings"):
        quantal.export(model, tmp_path / "m.tflite", "litert_int8")
