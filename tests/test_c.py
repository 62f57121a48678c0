"""The C that is written compiles without a warning and computes what the model does."""

import re
import shutil
import subprocess

import keras
import numpy as np
import pytest
from keras import layers, ops

import quantal
from conftest import numpy, on_one_backend
from quantal import Discrete, LearnableMultiplier, Scale, Values, parameters_of
from quantal._export.c.functions import EXPRESSIONS
from quantal._export.c.program import _Program
from quantal._export.fidelity import Reference
from quantal._export.graph.reader import read_graph
from quantal._export.graph.steps import FUNCTIONS
from quantal._export.operations import Operations

# The C is the same from every backend; its reader of Keras models is what may differ.
pytestmark = [pytest.mark.product, pytest.mark.usefixtures("numbers_from_numpy")]
needs_gcc = pytest.mark.skipif(
    shutil.which("gcc") is None, reason="gcc, which compiles the C, is not installed"
)
MAIN = """\
#include <stdio.h>
#include "{header}"
int main(void)
{{
    static float input[{NAME}_INPUT_SIZE], output[{NAME}_OUTPUT_SIZE];
    while (fread(input, sizeof input, 1, stdin) == 1) {{
        {name}_predict(input, output);
        fwrite(output, sizeof output, 1, stdout);
    }}
    return 0;
}}
"""
WARNINGS = [
    "-std=c99", "-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Wdouble-promotion",
    "-Werror",
]  # fmt: skip


def computed(source, x, name="net", *options):
    """What the program makes of each sample, in one row each."""
    main = source.with_name("main.c")
    header = source.with_suffix(".h").name
    main.write_text(MAIN.format(header=header, name=name, NAME=name.upper()))
    program = source.with_name("program")
    checks = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    files = [str(source), str(main), "-o", str(program), "-lm"]
    subprocess.run(["gcc", "-O1", *WARNINGS, *checks, *options, *files], check=True, timeout=60)
    samples = np.ascontiguousarray(x, np.float32).tobytes()
    run = subprocess.run([program], input=samples, capture_output=True, check=True, timeout=60)
    return np.frombuffer(run.stdout, np.float32).reshape(len(x), -1)


def macro(source, name):
    text = source.with_suffix(".h").read_text()
    return int(re.search(rf"_{name} (\d+)", text).group(1))


def assert_same(model, tmp_path, random, samples=8):
    """The program and the model agree; the source is returned."""
    x = random.normal(size=(samples, *model.input_shape[1:])).astype(np.float32)
    expected = numpy(model(x, training=False)).reshape(samples, -1)
    source, header = quantal.export(model, tmp_path / "net.c").paths
    assert (source, header) == (tmp_path / "net.c", tmp_path / "net.h")
    outputs = computed(source, x)
    assert outputs.shape == expected.shape
    assert np.abs(expected).max() > 0
    assert np.abs(outputs - expected).max() <= 1e-5 * np.abs(expected).max()
    assert macro(source, "INPUT_SIZE") == x[0].size
    assert macro(source, "OUTPUT_SIZE") == expected.shape[1]
    return source.read_text()


def chain_model(*shape_and_layers):
    shape, *rest = shape_and_layers
    return keras.Sequential([keras.Input(shape), *rest])


def randomize(model, random):
    """Biases, scales and the state of batch normalization that mean something."""
    for parameter in parameters_of(model):
        if parameter.scale_state is not None:
            shape = parameter.scale_state.start.shape
            parameter.scale_state.begin(random.uniform(0.5, 2, size=shape))
    for layer in model.layers:
        if isinstance(layer, quantal.DiscreteActivation):
            scale = layer.scale_value()
            if layer.get_config()["scale"] is not None:
                layer.set_scale(random.uniform(0.2, 0.5, size=scale.shape))
    for variable in model.weights:
        if variable.name in ("bias", "beta", "moving_mean"):
            variable.assign(random.normal(size=variable.shape))
        elif variable.name in ("gamma", "moving_variance"):
            variable.assign(random.uniform(0.5, 2, size=variable.shape))
    return model


PER_OUTPUT = Scale("learned", "output")
LISTS = {
    "signs": ([1, -1], None, 1),
    "binary, scaled": ("binary", PER_OUTPUT, 1),
    "thirds, one scale": ([1 / 3, -1 / 3], "learned", 1),
    "ternary": ("ternary", None, 2),
    "ternary, scaled": ([0.7, 0, -0.7], PER_OUTPUT, 2),
    "zero_one": ("zero_one", PER_OUTPUT, 1),
    "bits below 0": ([0, -2], None, 1),
    "two others": ([0.3, 2], None, 1),
    "four": ([1, -1, 0.5, -0.5], None, 2),
    "four, scaled": ([1, -1, 0.5, -0.5], PER_OUTPUT, 2),
    "five": ([0, 3, -1, 0.25, 10], "learned", 3),
    "powers of two": ("powers_of_two:4", PER_OUTPUT, 4),
    "sixteen": ("nf4", "learned", 4),
    "forty": (np.linspace(-1, 2, 40), None, 6),
    "300": (np.linspace(-1, 2, 300), PER_OUTPUT, 9),
    "1000": (np.linspace(-1, 2, 1000), None, 10),
    "learned": (Values([-1, 0.1, 1], learnable=True), None, 2),
}


@needs_gcc
@pytest.mark.parametrize(("values", "scale", "bits"), LISTS.values(), ids=LISTS)
def test_lists(values, scale, bits, tmp_path, random):
    def dense(units, **arguments):
        return Discrete(layers.Dense(units, **arguments), values, scale=scale)

    hidden = dense(41, activation="relu")
    model = randomize(chain_model((23,), hidden, dense(19, use_bias=False)), random)
    assert len(np.unique(numpy(hidden.codes))) > 2 ** (bits - 1)
    text = assert_same(model, tmp_path, random)
    # All values occur in the first layer: its codes, and what is read behind their end.
    (codes,) = re.findall(r"codes_1\[(\d+)\]", text)[:1]
    assert int(codes) - -(-bits * 23 * 41 // 8) == (0 if 8 % bits == 0 else -(-(bits - 1) // 8))
    assert "values" not in text or bits > 1 or values == [0.3, 2]


@needs_gcc
@on_one_backend
def test_signs_without_products_are_the_same_to_the_bit(tmp_path, random):
    def on_list(layer):
        return Discrete(layer, "ternary", scale=PER_OUTPUT)

    body = on_list(layers.Conv2D(5, 3, padding="same")), layers.Flatten(), on_list(layers.Dense(4))
    model = randomize(chain_model((9, 30, 2), *body), random)
    source = quantal.export(model, tmp_path / "net.c").paths[0]
    x = random.normal(size=(2, 9, 30, 2))
    expected = computed(source, x)
    assert np.ptp(expected) > 0
    assert np.array_equal(computed(source, x, "net", "-DNET_WITHOUT_PRODUCTS"), expected)


@needs_gcc
def test_lists_of_each_output_are_codes_and_of_each_input_floats(tmp_path, random):
    lists = random.normal(size=(12, 3))
    for axis, kind in ((-1, "codes_1"), (0, "weights_1")):
        layer = Discrete(layers.Dense(12), Values(lists, axis=axis), scale="learned")
        model = randomize(chain_model((12,), layer), random)
        assert kind in assert_same(model, tmp_path, random)
    layer = Discrete(layers.Dense(12), "ternary", scale=Scale("learned", axis=0))
    assert "weights_1" in assert_same(
        randomize(chain_model((12,), layer), random), tmp_path, random
    )


@needs_gcc
def test_long_lists_for_few_weights_are_floats(tmp_path, random):
    values = np.linspace(-1, 1, 300)
    model = chain_model((3,), Discrete(layers.Dense(2), values))
    text = assert_same(model, tmp_path, random)
    assert "weights_1[6]" in text
    assert "codes" not in text


@needs_gcc
@pytest.mark.parametrize(
    ("values", "padding"), [("ternary", "same"), ("ternary", "valid"), (None, "same")]
)
def test_convnets(values, padding, tmp_path, random):
    def on_list(layer, scale=None):
        return layer if values is None else Discrete(layer, values, scale=scale)

    model = chain_model(
        (11, 14, 2),
        layers.Rescaling(0.5, offset=0.1),
        on_list(layers.Conv2D(6, (3, 4), strides=2, padding=padding, use_bias=False), PER_OUTPUT),
        layers.BatchNormalization(),
        layers.ReLU(6, 0.1, 0.2),
        layers.Dropout(0.5),
        layers.BatchNormalization(),
        layers.AveragePooling2D(2, strides=1, padding=padding),
        on_list(layers.DepthwiseConv2D(2, depth_multiplier=2, padding=padding)),
        layers.MaxPooling2D((1, 2), padding=padding),
        on_list(layers.Conv2D(8, 2, dilation_rate=(1, 1), groups=4, padding="same")),
        layers.LeakyReLU(0.2),
        layers.Flatten(),
        on_list(layers.Dense(5)),
        layers.BatchNormalization(scale=False),
        layers.Softmax(),
    )
    randomize(model, random)
    text = assert_same(model, tmp_path, random)
    # Of three normalizations two are part of the layers before them.
    assert text.count("floats" if values else "window_") >= 1
    assert len(re.findall(r"^    product_", text, re.MULTILINE)) == 6


@needs_gcc
def test_dilated_convolutions_on_images_and_pooling_of_all(tmp_path, random):
    for pool in (layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D):
        model = chain_model(
            (9, 8, 3),
            layers.Conv2D(4, 3, dilation_rate=(2, 3), padding="same", activation="tanh"),
            layers.MaxPooling2D(3, strides=2, padding="same"),
            layers.AveragePooling2D(3, strides=1, padding="same"),
            pool(keepdims=True),
        )
        assert_same(randomize(model, random), tmp_path, random)


@needs_gcc
def test_means_with_uneven_padding(tmp_path, random):
    model = chain_model((8, 3), layers.AveragePooling1D(3, strides=2, padding="same", name="mean"))
    if keras.config.backend() == "torch":
        # There Keras 3.15 repeats the edge, so that it counts twice.
        with pytest.raises(ValueError, match=r"'mean' .* Keras on PyTorch counts"):
            quantal.export(model, tmp_path / "net.c")
    else:
        assert_same(model, tmp_path, random)


@needs_gcc
def test_sequences(tmp_path, random):
    def convolution(**arguments):
        return Discrete(layers.Conv1D(5, 3, **arguments), [1, -1, 0.5])

    model = chain_model(
        (17, 3),
        layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[1.0, 2.0, 3.0]),
        convolution(padding="causal", dilation_rate=2),
        layers.MaxPooling1D(2, padding="same"),
        layers.DepthwiseConv1D(2),
        Discrete(layers.Dense(4, activation="sigmoid"), "ternary"),
        layers.AveragePooling1D(3, strides=1, padding="same"),
        convolution(padding="same", strides=2, activation=layers.LeakyReLU()),
        layers.GlobalMaxPooling1D(),
        layers.Reshape((5, 1)),
        layers.GlobalAveragePooling1D(),
        layers.Dense(3, activation="softmax"),
    )
    assert_same(randomize(model, random), tmp_path, random)


@needs_gcc
def test_multipliers(tmp_path, random):
    five = [1, -1, 0.5, 0, 3]
    model = chain_model(
        (6, 5, 4),
        LearnableMultiplier(five, axis=1),
        LearnableMultiplier([-1, 1], axis=(2, 3), scale=PER_OUTPUT),
        layers.Conv2D(4, 2),
        LearnableMultiplier(five),
        layers.BatchNormalization(axis=1),
        layers.Rescaling([1, 2, 3, 4], offset=[[1], [2], [3], [4]]),
        layers.Flatten(),
        LearnableMultiplier("ternary"),
    )
    text = assert_same(randomize(model, random), tmp_path, random)
    # What is for each channel is part of the step before.
    assert len(re.findall(r"^    product_", text, re.MULTILINE)) == 3
    assert "codes" in assert_same(chain_model((80,), LearnableMultiplier()), tmp_path, random)


@needs_gcc
def test_models_of_other_kinds(tmp_path, random):
    inner = chain_model((6,), layers.Dense(5, activation="relu"), layers.Dropout(0.1))
    inputs = keras.Input((2, 3))
    outputs = Discrete(layers.Dense(4), "binary")(inner(layers.Flatten()(inputs)))
    assert_same(keras.Model(inputs, outputs), tmp_path, random)
    shared = layers.Dense(3, activation="tanh")
    inputs = keras.Input((3,))
    assert_same(keras.Model(inputs, shared(shared(inputs))), tmp_path, random)
    assert "memcpy" in assert_same(chain_model((2, 3), layers.Flatten()), tmp_path, random)


def on_images(*branches, shape=(5, 6, 4)):
    """A model of one image, whose outputs are those of the branches."""
    inputs = keras.Input(shape)
    return keras.Model(inputs, [branch(inputs) for branch in branches])


def residual():
    """Blocks with shortcuts: what several layers read is neither folded nor overwritten."""

    def block(x):
        y = layers.Conv2D(4, 3, padding="same")(x)
        normal = layers.BatchNormalization()(y)
        z = layers.BatchNormalization()(Discrete(layers.Conv2D(4, 1), "ternary")(normal))
        return layers.Add()([layers.ReLU()(z), layers.ReLU()(normal), y, x])

    def padded(x):
        zeros = layers.ZeroPadding2D(1)(x)
        return layers.Subtract()([layers.DepthwiseConv2D(1)(zeros), zeros])

    return on_images(block, padded)


def operating():
    """Operations of tensors and numbers, as `keras.applications` has them, and of tensors."""

    def branch(x):
        y = layers.ReLU(6.0)(x + 3.0) * (1 / 6)
        z = (2.0 - x) / 4.0 - 1.0
        return layers.Flatten()((y - z) * x + y / (z * z + 1.0))

    return on_images(branch)


def squeezing():
    """Sources that are broadcast: numbers of channels, of positions, of rows, and one number."""

    def branch(x):
        channels = layers.Dense(4, activation="sigmoid")(
            layers.GlobalAveragePooling2D(keepdims=True)(x)
        )
        positions = layers.Conv2D(1, 1)(x)
        rows = layers.Reshape((5, 1, 4))(layers.Dense(20)(layers.Flatten()(x)))
        number = layers.Reshape((1, 1, 1))(layers.Dense(1)(layers.Flatten()(x)))
        y = layers.Multiply()([layers.Subtract()([x, positions]), channels])
        return layers.Maximum()([layers.Average()([y, rows]), layers.Minimum()([x, number])])

    return on_images(branch)


def moving():
    """What moves numbers about."""
    branches = [
        lambda x: layers.Cropping2D(((1, 2), (0, 3)))(layers.ReLU()(x)),
        lambda x: layers.ZeroPadding2D(((1, 2), (0, 3)))(layers.ReLU()(x)),
        lambda x: layers.UpSampling2D((2, 3))(x),
        lambda x: layers.UpSampling2D((3, 2), interpolation="bilinear")(x),
        lambda x: layers.Permute((3, 1, 2))(x),
        lambda x: layers.Permute((2, 1, 3))(layers.ReLU()(x)),
        lambda x: layers.Concatenate()([x, layers.ReLU()(x), x]),
        lambda x: layers.Concatenate(axis=1)([x, layers.ZeroPadding2D((1, 0))(x)]),
        lambda x: layers.RepeatVector(3)(layers.Flatten()(x)),
        lambda x: layers.ZeroPadding1D(2)(layers.Reshape((30, 4))(x)),
        lambda x: layers.Cropping1D((1, 2))(layers.Reshape((30, 4))(x)),
        lambda x: layers.UpSampling1D(2)(layers.Reshape((30, 4))(x)),
    ]
    return on_images(*branches)


def convolving():
    """Convolutions of other kinds."""
    branches = [
        lambda x: layers.Conv2D(3, 3, strides=2)(layers.ZeroPadding2D(((1, 0), (2, 1)))(x)),
        lambda x: layers.DepthwiseConv2D(3)(layers.ZeroPadding2D(1)(x)),
        lambda x: layers.SeparableConv2D(5, 3, depth_multiplier=2, padding="same")(x),
        lambda x: layers.SeparableConv1D(5, 3, activation="relu")(layers.Reshape((30, 4))(x)),
        lambda x: Discrete(layers.Conv2DTranspose(3, 3, strides=2, padding="same"), "nf4")(x),
        lambda x: layers.Conv2DTranspose(3, (4, 2), strides=(2, 3), activation="relu")(x),
        lambda x: layers.Conv2DTranspose(2, 3, dilation_rate=2, padding="same")(x),
        lambda x: layers.Conv1DTranspose(2, 4, strides=2, padding="same")(
            layers.Reshape((30, 4))(x)
        ),
    ]
    return on_images(*branches)


def several():
    """Several inputs and outputs: an output that another layer reads, twice the same, an input."""
    first, second = keras.Input((3,)), keras.Input((2, 2))
    x = layers.Dense(5, activation="tanh")(first)
    y = layers.Dense(4)(layers.Concatenate()([x, layers.Flatten()(second)]))
    return keras.Model([first, second], [layers.ReLU()(y), y, x, second, x])


def nesting():
    """A model that is called twice, within a model, and a layer that is shared by both."""
    shared = layers.Dense(3, activation="sigmoid")
    a, b = keras.Input((3,)), keras.Input((3,))
    inner = keras.Model([a, b], [layers.Add()([shared(a), b]), layers.Multiply()([a, b])])
    x, y = keras.Input((3,)), keras.Input((3,))
    total, product = inner([x, shared(y)])
    sequence = chain_model((3,), layers.Dense(3), layers.ReLU())
    return keras.Model([x, y], inner([sequence(total), product]))


def normalizing():
    """Normalization of a sample by its own numbers, and slopes below 0."""

    def slopes(**arguments):
        return layers.PReLU(alpha_initializer="uniform", **arguments)

    branches = [
        lambda x: layers.LayerNormalization(epsilon=1e-5)(layers.LayerNormalization((2, 3))(x)),
        lambda x: layers.GroupNormalization(2)(x),
        lambda x: layers.RMSNormalization()(layers.UnitNormalization()(x)),
        lambda x: slopes(shared_axes=[1])(slopes(shared_axes=[1, 2])(slopes()(x))),
    ]
    return on_images(*branches)


def recurring():
    """Recurrent layers, with weights on lists, in both directions."""

    def on_list(layer, values="ternary"):
        names = ["kernel", "recurrent_kernel"]
        return Discrete(layer, values, scale=PER_OUTPUT, weight_names=names)

    sequences, backwards = {"return_sequences": True}, {"go_backwards": True}
    gates = {"activation": "softsign", "recurrent_activation": "hard_sigmoid"}
    level = quantal.DiscreteActivation("signed:6", scale="learned")
    level.build((None, 3))
    level.set_scale(0.043)
    steps = quantal.DiscreteActivation([0, 0.25, 0.5, 0.75, 1])
    branches = [
        lambda x: layers.LSTM(3, **gates)(on_list(layers.LSTM(4, **sequences, **backwards))(x)),
        lambda x: layers.GRU(3, **backwards)(on_list(layers.GRU(4, **sequences))(x)),
        lambda x: layers.GRU(3, use_bias=False)(
            on_list(layers.GRU(4, reset_after=False, **sequences), "nf4")(x)
        ),
        lambda x: layers.SimpleRNN(3, activation="linear")(layers.SimpleRNN(4, **sequences)(x)),
        lambda x: layers.Bidirectional(layers.LSTM(3, **sequences))(x),
        lambda x: layers.GRU(3, activation=level, recurrent_activation=steps)(x),
        lambda x: layers.Bidirectional(layers.GRU(3), merge_mode="sum")(x),
        lambda x: layers.TimeDistributed(layers.Dense(3, activation="gelu"))(x),
    ]
    return on_images(*branches, shape=(5, 4))


def looking_up():
    """Embeddings in floats, and in codes with a scale for each row and for each column."""

    def table(**arguments):
        return Discrete(layers.Embedding(60, 4), "nf4", weight_names="embeddings", **arguments)

    branches = [
        lambda x: layers.Embedding(4, 3)(x),
        lambda x: layers.GlobalAveragePooling1D()(table(scale=Scale("learned", axis=0))(x)),
        lambda x: table(scale=Scale("learned", axis=1))(x),
    ]
    positive = chain_model((6,), layers.ReLU(3))
    return on_images(*(lambda x, b=branch: b(positive(x)) for branch in branches), shape=(6,))


def on_levels():
    """Activations on lists: as listed, with one scale, and with one for each channel."""

    def level(values, **arguments):
        return quantal.DiscreteActivation(values, scale="learned", **arguments)

    def branch(x):
        y = quantal.DiscreteActivation("binary")(layers.Conv2D(4, 3)(x))
        y = level([0, 0.3, 1, 2], axis=-1)(Discrete(layers.Conv2D(4, 1), "binary")(y))
        return level("signed:4")(layers.Dense(3)(y))

    return on_images(branch)


GRAPHS = {
    model.__name__: model
    for model in (
        residual, operating, squeezing, moving, convolving, several, nesting, normalizing,
        recurring, looking_up, on_levels,
    )
}  # fmt: skip


def computed_of_all(sources, inputs, tmp_path):
    """What the programs make of their samples, an array of floats for each program."""
    lines, includes = [], []
    for source, arrays in zip(sources, inputs, strict=True):
        text, name = source.with_suffix(".h").read_text(), source.stem.upper()
        includes.append(f'#include "{source.with_suffix(".h").name}"\n')
        outputs = re.findall(rf"define ({name}_OUTPUT\w*_SIZE)", text)
        ins, outs = ([f"{kind}{i}" for i in range(len(all_of))] for kind, all_of in
                     (("in", arrays), ("out", outputs)))  # fmt: skip
        sizes = [array[0].size for array in arrays]
        declared = [f"{n}[{s}]" for n, s in zip([*ins, *outs], [*sizes, *outputs], strict=True)]
        lines.append(f"    for (int n = 0; n < {len(arrays[0])}; n++) {{\n")
        lines.append(f"        static float {', '.join(declared)};\n")
        lines += [f"        if (!fread({n}, sizeof {n}, 1, stdin)) return 1;\n" for n in ins]
        lines.append(f"        {source.stem}_predict({', '.join([*ins, *outs])});\n")
        lines += [f"        fwrite({n}, sizeof {n}, 1, stdout);\n" for n in outs]
        lines.append("    }\n")
    main, program = tmp_path / "main.c", tmp_path / "program"
    body = "".join(lines)
    main.write_text(
        f"#include <stdio.h>\n{''.join(includes)}int main(void)\n{{\n{body}    return 0;\n}}\n"
    )
    checks = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    files = [*map(str, sources), str(main), "-o", str(program), "-lm"]
    subprocess.run(["gcc", "-O1", *WARNINGS, *checks, *files], check=True, timeout=120)
    samples = b"".join(
        np.ascontiguousarray(array[n], np.float32).tobytes()
        for arrays in inputs
        for n in range(len(arrays[0]))
        for array in arrays
    )
    run = subprocess.run([program], input=samples, capture_output=True, check=True, timeout=60)
    return np.frombuffer(run.stdout, np.float32)


def assert_all_same(models, tmp_path, random, samples=3):
    """The programs of models, compiled into one, and the models agree; the sources are returned.

    Args:
        models: Models by the names of their files.
    """
    sources, inputs, expected = [], [], []
    for name, model in models.items():
        randomize(model, random)
        shapes = [(samples, *tensor.shape[1:]) for tensor in model.inputs]
        arrays = [random.normal(size=shape).astype(np.float32) for shape in shapes]
        outputs = keras.tree.flatten(model(arrays if len(arrays) > 1 else arrays[0]))
        sources.append(quantal.export(model, tmp_path / f"{name}.c", check=False).paths[0])
        inputs.append(arrays)
        expected.append([numpy(output).reshape(samples, -1) for output in outputs])
    results, start = computed_of_all(sources, inputs, tmp_path), 0
    for name, outputs in zip(models, expected, strict=True):
        for n in range(samples):
            for index, output in enumerate(outputs):
                end = start + output.shape[1]
                difference = np.abs(results[start:end] - output[n]).max()
                assert difference <= 1e-5 * np.abs(output).max(), (name, index)
                start = end
    assert start == len(results)
    return {name: source.read_text() for name, source in zip(models, sources, strict=True)}


@needs_gcc
def test_functions(tmp_path, random):
    names = [*FUNCTIONS, "relu6", "leaky_relu", "linear", "log_softmax"]
    # Beyond what exp and its like can bear on the way.
    x = np.array([[-200, -3, -1e-3, 0, 0.5, 2.9, 7, 80]], np.float32)
    models = [chain_model((8,), layers.Activation(name)) for name in names]
    sources = [
        quantal.export(model, tmp_path / f"{name}.c", check=False).paths[0]
        for name, model in zip(names, models, strict=True)
    ]
    rows = computed_of_all(sources, [[x]] * len(names), tmp_path).reshape(-1, 8)
    for name, model, row in zip(names, models, rows, strict=True):
        # Keras's squareplus of -200 is a difference of numbers of 200, and has their rounding.
        error = 2e-5 if name == "squareplus" else 1e-6
        np.testing.assert_allclose(row, numpy(model(x))[0], rtol=1e-5, atol=error, err_msg=name)
    assert {*EXPRESSIONS, "relu"} == set(FUNCTIONS)
    activations = [layers.ELU(0.5), layers.Softmax(), layers.ReLU(max_value=2, threshold=0.5)]
    models = {f"layer_{n}": chain_model((3, 4), layer) for n, layer in enumerate(activations)}
    assert_all_same(models, tmp_path, random)


@needs_gcc
@pytest.mark.parametrize("name", GRAPHS)
def test_graphs(name, tmp_path, random):
    assert_all_same({name: GRAPHS[name]()}, tmp_path, random)


@on_one_backend
def test_what_graphs_are_written_as(tmp_path, random):
    names = ("residual", "moving", "convolving", "several", "looking_up", "recurring")
    texts = {}
    for name in names:
        model = GRAPHS[name]()
        randomize(model, random)
        paths = quantal.export(model, tmp_path / f"{name}.c", check=False).paths
        texts[name] = paths[0].read_text()
    # A normalization is part of the product before it, unless something else reads between.
    assert len(re.findall(r"^    product_", texts["residual"], re.MULTILINE)) == 4
    # Zeros around an image are a step only where no convolution follows.
    assert re.search(r"^    pad_", texts["moving"], re.MULTILINE)
    assert not re.search(r"^    pad_", texts["convolving"], re.MULTILINE)
    assert "const float *input_1, const float *input_2, float *output_1" in texts["several"]
    assert texts["several"].count("    memcpy(output_") == 2
    # Tables of numbers on a list are codes; so are recurrent kernels, unless they are too small.
    lookups = re.findall(r"^    lookup_([a-z]+)_", texts["looking_up"], re.MULTILINE)
    assert lookups == ["floats", "listed", "listed"]
    assert len(re.findall(r"^static const uint8_t codes", texts["looking_up"], re.MULTILINE)) == 2
    assert len(re.findall(r"^static const uint8_t codes", texts["recurring"], re.MULTILINE)) >= 6


@needs_gcc
def test_names(tmp_path, random):
    model, x = chain_model((4,), layers.Dense(3)), random.normal(size=(2, 4))
    for index, (stem, name) in enumerate(
        {"2 é-net": "model_2___net", "int": "int", "_a.b": "model__a_b"}.items()
    ):
        folder = tmp_path / str(index)
        folder.mkdir()
        source, _ = quantal.export(model, folder / f"{stem}.c").paths
        np.testing.assert_allclose(computed(source, x, name), numpy(model(x)), rtol=1e-5)
    with pytest.raises(ValueError, match=r"without .*control characters\. Rename it"):
        quantal.export(model, tmp_path / 'a"b.c')


def test_same_bytes_and_what_they_take(tmp_path, random):
    def written(folder, scaled=True):
        keras.utils.set_random_seed(1)
        signs = Discrete(layers.Dense(16, activation="relu"), "binary", scale=PER_OUTPUT)
        model = chain_model((20,), signs, layers.Dense(4), layers.Dense(2))
        if scaled:
            parameters_of(model)[0].scale_state.begin(np.linspace(0.5, 2, 16).reshape(1, 16))
        (tmp_path / folder).mkdir()
        return quantal.export(model, tmp_path / folder / "net.c").paths

    first, second = written("a"), written("b")
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]
    source, text = first[0], first[0].read_text()
    assert str(tmp_path) not in text
    # Codes and scales of the first layer; kernels of the others; no bias is all zero.
    assert macro(source, "WEIGHT_BYTES") == 20 * 16 // 8 + 4 * (16 + 16 * 4 + 4 * 2)
    sizes = {"uint8_t": 1, "float": 4}
    arrays = re.findall(r"^static const (uint8_t|float) \w+\[(\d+)\]", text, re.MULTILINE)
    assert macro(source, "WEIGHT_BYTES") == sum(sizes[kind] * int(n) for kind, n in arrays)
    buffers = re.findall(r"^static float memory\[(\d+)\]", text, re.MULTILINE)
    assert macro(source, "BUFFER_BYTES") == 4 * sum(map(int, buffers)) == 4 * (16 + 4)
    # Scales that are equal are one.
    source, _ = written("c", scaled=False)
    assert macro(source, "WEIGHT_BYTES") == 20 * 16 // 8 + 4 * (1 + 16 * 4 + 4 * 2)


def test_equal_arrays_are_written_once(tmp_path):
    dense = layers.Dense(3, bias_initializer="ones")
    inputs = keras.Input((3,))
    model = keras.Model(inputs, dense(dense(inputs)))
    source, _ = quantal.export(model, tmp_path / "net.c").paths
    assert macro(source, "WEIGHT_BYTES") == 4 * (9 + 3)


def attending():
    first, second = keras.Input((2, 3)), keras.Input((2, 3))
    return keras.Model([first, second], layers.Attention(name="look")([first, second]))


def quantized():
    model = chain_model((3,), layers.Dense(2, name="q"))
    model.layers[0].quantize("int8")
    return model


class Own(layers.Dense):
    """Might compute anything."""


class OwnModel(keras.Sequential):
    def call(self, inputs, training=None, mask=None):
        return 2 * super().call(inputs)


REFUSED = {
    "ConvLSTM": (
        lambda: chain_model((4, 3, 3), layers.ConvLSTM1D(2, 2, name="memory")),
        "'memory' .* class ConvLSTM1D",
    ),
    "LSTM": (
        lambda: chain_model((4, 3), layers.LSTM(2, activation="softmax")),
        "class LSTM with the activation 'softmax'",
    ),
    "masks": (
        lambda: chain_model((4,), layers.Embedding(5, 3, mask_zero=True, name="words")),
        "'words' .* class Embedding with mask_zero=True",
    ),
    "distributed": (
        lambda: chain_model((4, 6, 3), layers.TimeDistributed(layers.Conv1D(2, 3, name="c"))),
        "'c' is of the class Conv1D inside 'time_distributed",
    ),
    "lists of channels": (
        lambda: chain_model((2,), quantal.DiscreteActivation([[0, 1], [0, 2]])),
        "class DiscreteActivation with a list for each channel",
    ),
    "attention": (attending, "'look' is of the class Attention with 2 inputs"),
    "interpolation": (
        lambda: chain_model((2, 2, 1), layers.UpSampling2D(2, interpolation="bicubic")),
        "class UpSampling2D with the interpolation 'bicubic'",
    ),
    "open shape": (
        lambda: chain_model((None, 3), layers.Dense(2)), r"with the open input shape \(None, 3\)",
    ),
    "channels first": (
        lambda: chain_model((2, 3, 4), layers.Flatten(data_format="channels_first")),
        "class Flatten with the channels first",
    ),
    "own layer": (lambda: chain_model((3,), Own(2, name="mine")), "'mine' is of the class Own"),
    "own call": (
        lambda: OwnModel([keras.Input((3,)), layers.Dense(2)]), "OwnModel with a call of its own",
    ),
    "training": (
        lambda: keras.Model(
            *(lambda x: (x, layers.Dropout(0.1)(x, training=True)))(keras.Input((3,)))
        ),
        "Dropout called with training=True",
    ),
    "own activation": (
        lambda: chain_model((3,), layers.Dense(2, activation=ops.sin)), "with the activation 'sin'",
    ),
    "operation": (
        lambda: keras.Model(*(lambda x: (x, ops.sin(x)))(keras.Input((3,)))), "of the class Sin",
    ),
    "softmax": (lambda: chain_model((3, 4), layers.Softmax(axis=1)), "along the axis 1"),
    "quantized": (quantized, "'q' .* with Keras's quantization"),
}  # fmt: skip


@pytest.mark.parametrize(("model", "words"), REFUSED.values(), ids=REFUSED)
def test_refusals(model, words, tmp_path):
    with pytest.raises(ValueError, match=words) as error:
        quantal.export(model(), tmp_path / "net.c")
    assert "export to '.keras', which holds every model." in str(error.value)
    assert not list(tmp_path.iterdir())


def test_other_refusals(tmp_path):
    with pytest.raises(TypeError, match="Expected a Keras model"):
        quantal.export("model", tmp_path / "net.c")
    with pytest.raises(ValueError, match="0 inputs and 0 outputs"):
        quantal.export(keras.Sequential([layers.Dense(2)]), tmp_path / "net.c")
    model = chain_model((3,), layers.Dense(2))
    model.layers[0].kernel.assign(np.full((3, 2), np.nan))
    with pytest.raises(ValueError, match=r"has nan among its weights.*Expected finite"):
        quantal.export(model, tmp_path / "net.c")
    assert not list(tmp_path.iterdir())


@needs_gcc
def test_export_compiles_and_reports(tmp_path):
    model = keras.Sequential([keras.Input((20,)), Discrete(layers.Dense(9), "ternary")])
    report = quantal.export(model, tmp_path / "my net.c")
    assert report.largest <= report.bound == 1e-4
    assert [path.name for path in report.paths] == ["my net.c", "my net.h"]
    report = quantal.export(several(), tmp_path / "several.c")
    assert report.largest <= report.bound
    final = quantal.export(quantal.finalize(model), tmp_path / "final.c", check=False)
    assert final.largest is None
    text = [(tmp_path / f"{name}.c").read_text() for name in ("my net", "final")]
    for name in ("my net", "my_net"):
        text[0] = text[0].replace(name, "final").replace(name.upper(), "FINAL")
    assert text[0] == text[1]


@needs_gcc
@on_one_backend
def test_samples_of_the_user_become_a_program_that_checks(tmp_path, random):
    model = several()
    x = [random.normal(size=(3, *tensor.shape[1:])).astype("float32") for tensor in model.inputs]
    report = quantal.export(model, tmp_path / "net.c", inputs=x)
    assert [path.name for path in report.paths] == ["net.c", "net.h", "net_check.c"]
    assert re.search(r"compiled here with -Os: flash [\d,]+ bytes .* RAM 36 bytes", str(report))
    check, program = tmp_path / "net_check.c", tmp_path / "program"
    command = ["gcc", *WARNINGS, str(tmp_path / "net.c"), str(check), "-o", str(program), "-lm"]
    subprocess.run(command, check=True, timeout=60)
    run = subprocess.run([program], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (0, "0 of 66 outputs are wrong\n")
    text = check.read_text()
    number = re.search(r"expected_output_2\[SAMPLES\]\[4\] = \{\s*\{\s*([-.\de]+f)", text)
    check.write_text(text[: number.start(1)] + "100.0f" + text[number.end(1) :])
    subprocess.run(command, check=True, timeout=60)
    run = subprocess.run([program], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (1, "1 of 66 outputs are wrong\n")


def test_what_a_sample_takes_is_counted(tmp_path):
    """Additions, products, comparisons and functions of a network whose numbers are known."""
    model = chain_model(
        (6, 6, 2),
        Discrete(layers.Conv2D(3, 3, use_bias=False), "ternary"),  # 16 positions of 18 additions
        layers.MaxPooling2D(2),  # 4 of 3 channels, of 4
        layers.Flatten(),
        layers.Dense(5, bias_initializer="ones"),  # 12 products each
        layers.Reshape((1, 5)),
        layers.SimpleRNN(2),  # 10 products of the input and 4 of the state
    )
    program = _Program(read_graph(model, ".c"))
    assert program.operations == Operations(
        additions=16 * 3 * 18 + 5 * 12 + 5 + 14 + 2, products=60 + 14, comparisons=48, functions=2
    )


@on_one_backend
def test_a_rounding_across_a_threshold_is_no_error():
    """Where activations are on a list, Keras itself varies by a step, and a file may, too."""

    def bound(activation):
        model = chain_model((20,), layers.Dense(2000), activation, layers.Dense(2))
        return Reference(model).bound(1e-4, 0.6)

    assert 1e-3 < bound(quantal.DiscreteActivation("binary")) <= 0.5
    assert bound(layers.Activation("tanh")) < 1e-3


@needs_gcc
def test_a_source_refuses_the_header_of_another(tmp_path):
    for units in (3, 4):
        folder = tmp_path / str(units)
        folder.mkdir()
        quantal.export(chain_model((5,), layers.Dense(units)), folder / "net.c", check=False)
    command = ["gcc", "-fsyntax-only", "-x", "c", "-"]
    for folder, is_refused in (("3", False), ("4", True)):
        run = subprocess.run(
            [*command, f"-I{tmp_path / folder}"], input=(tmp_path / "3" / "net.c").read_bytes(),
            capture_output=True,
        )  # fmt: skip
        assert (run.returncode != 0) == is_refused
        assert (b"net.h was written for another source file" in run.stderr) == is_refused
