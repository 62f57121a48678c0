"""A summary says what every weight of a model is, wherever the model comes from."""

import json
import re

import keras
import numpy as np
import pytest
from keras import layers

import quantal
from conftest import numpy, on_one_backend
from models import OwnLayer, Subclassed, rows, sequential
from quantal import (
    Discrete,
    DiscreteActivation,
    LearnableMultiplier,
    Scale,
    Values,
    discretize,
    summary,
)
from quantal._storage import container


def hand_built():
    inputs = keras.Input((6,))
    x = LearnableMultiplier([1, -1, 0], name="signs")(inputs)
    x = Discrete(layers.Dense(4), "binary", scale=Scale("learned", -1), name="hidden")(x)
    x = layers.BatchNormalization(name="norm")(x)
    return keras.Model(inputs, layers.Dense(2, name="last")(x))


def test_a_model_built_by_hand():
    report = summary(hand_built())
    assert [(row.shape, row.why) for row in report.rows] == [
        ((6,), "listed"),
        ((6, 4), "listed"),
        ((4,), "free: bias"),
        ((4,), "free: gamma"),
        ((4,), "free: beta"),
        ((4,), "free: moving_mean"),
        ((4,), "free: moving_variance"),
        ((4, 2), "free: kernel"),
        ((2,), "free: bias"),
    ]
    signs, hidden, *free = report.rows
    assert (signs.values, signs.bits_before, signs.bits_after) == (Values([1, -1, 0]), 192, 12)
    assert (hidden.bits_before, hidden.bits_after) == (32 * 24, 24 + 32 * 4)
    assert all(row.bits_before == row.bits_after and row.values is None for row in free)
    assert [row.error for row in report.rows] == [None] * 9
    assert report.bits_before == 32 * sum(int(np.prod(row.shape)) for row in report.rows)
    lines = str(report).splitlines()
    heads = ["weight", "shape", "values", "estimator", "scales", "bits", "used", "MACs", "as"]
    assert lines[0].split() == [*heads, "bytes"]
    assert len(lines) == 1 + 9 + 3
    assert [signs.estimator, hidden.estimator] == ["settling", "straight_through"]
    assert (signs.scale, signs.scales) == (None, 0)
    assert (hidden.scale, hidden.scales) == ("learned", 4)


def test_a_model_from_a_file_and_a_final_one(tmp_path):
    model = hand_built()
    expected = summary(model)
    quantal.save(model, tmp_path / "model.quantal")
    assert summary(quantal.load(tmp_path / "model.quantal")) == expected
    final = quantal.finalize(model)
    assert summary(final) == expected
    final.save(tmp_path / "model.keras")
    assert summary(keras.saving.load_model(tmp_path / "model.keras")) == expected


def test_a_plain_model(random):
    model, _ = sequential(random)
    report = summary(model)
    assert len(report.rows) == len(model.weights)
    assert report.bits_after == report.bits_before


def test_as_data():
    report = summary(hand_built())
    data = report.to_dict()
    assert json.loads(json.dumps(data)) == data
    assert data["rows"][0]["values"] == [1.0, -1.0, 0.0]
    assert json.loads(report.to_json()) == data
    assert data["rows"][0]["list"] == "ternary"
    assert data["bytes"] == sum(row["bytes"] for row in data["rows"]) < data["file_bytes"]
    assert data["macs"] == {"XNORs": 0, "additions": 30, "shifts": 0, "look-ups": 0, "products": 8}


@on_one_backend
def test_as_a_frame():
    pytest.importorskip("pandas")
    report = summary(hand_built())
    frame = report.to_frame()
    assert frame["path"].tolist() == [row.path for row in report.rows]
    assert frame["macs"].tolist() == [6, 24, 0, 0, 0, 0, 0, 8, 0]


@on_one_backend
def test_as_html():
    text = summary(hand_built())._repr_html_()
    assert text.count("<tr>") == 1 + 9
    assert text.count("<svg") == 2


@on_one_backend
def test_codes_are_counted_as_they_are_now():
    model = hand_built()
    model.layers[1].set_codes([0, 0, 0, 1, 1, 0])
    row = summary(model).rows[0]
    assert row.usage == pytest.approx((4 / 6, 2 / 6, 0))
    assert row.entropy == pytest.approx(-(4 * np.log2(4 / 6) + 2 * np.log2(2 / 6)) / 6)
    # The list is 1, -1, 0: the bar is in ascending order, and 0 is never used.
    assert "0.918 of 2  ▄·█" in str(summary(model)).splitlines()[1]


def test_the_bytes_are_those_of_the_file(tmp_path, random):
    for model in (hand_built(), discretize(sequential(random)[0], "nf4", scale="auto")):
        report = summary(model)
        path = tmp_path / "model.quantal"
        assert report.file_bytes == quantal.save(model, path) == path.stat().st_size
        arrays, _metadata = container.read(path)
        # Arrays that are the same are stored once: their views have the same memory.
        stored = {
            array.__array_interface__["data"][0]: array.nbytes
            for name, array in arrays.items()
            if name != "architecture"
        }
        assert report.bytes == sum(stored.values())
        assert f"the file of quantal.save has {report.file_bytes:,}" in str(report)


@on_one_backend
def test_a_model_that_cannot_be_saved_has_no_bytes():
    model = hand_built()
    model.layers[1].discrete_parameters[0].latent.assign(np.full(6, np.nan))
    report = summary(model)
    assert report.bytes is report.file_bytes is None
    assert report.rows[0].bytes is report.rows[0].entropy is report.rows[0].usage is None
    assert report.rows[0].bits_after == 12
    assert "bytes are not known: 6 of 6 latents of " in str(report)


@keras.saving.register_keras_serializable(package="quantal-tests")
class WithoutArguments(keras.Model):
    """A subclassed model that Keras cannot make again: it takes neither a name nor a dtype."""

    def __init__(self):
        super().__init__()
        self.dense = Discrete(layers.Dense(2, name="dense"), "ternary")

    def call(self, x):
        return self.dense(x)


@on_one_backend
def test_a_model_that_could_not_be_loaded_has_no_file(random):
    model = WithoutArguments()
    model(rows(random, 8))
    report = summary(model)
    # 16 codes of 2 bits, the list of three float32 numbers, a bias of two.
    assert report.file_bytes is None
    assert report.bytes == 4 + 3 * 4 + 2 * 4
    assert "packed (" in str(report)
    assert "the file of quantal.save has" not in str(report)
    (note,) = [note for note in report.notes if "quantal.save refuses the model" in note]
    with pytest.raises(ValueError, match="is not saved") as error:
        quantal.save(model, "never.quantal")
    assert str(error.value) in note


def listed(layer, names="kernel", values="ternary"):
    return Discrete(layer, values, names)


def larq_mnist():
    """The network of Larq's tutorial on MNIST, without its binary activations."""
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            listed(layers.Conv2D(32, 3, use_bias=False), values="binary"),
            layers.MaxPooling2D(2),
            layers.BatchNormalization(scale=False),
            listed(layers.Conv2D(64, 3, use_bias=False), values="binary"),
            layers.MaxPooling2D(2),
            layers.BatchNormalization(scale=False),
            listed(layers.Conv2D(64, 3, use_bias=False), values="binary"),
            layers.BatchNormalization(scale=False),
            layers.Flatten(),
            listed(layers.Dense(64, use_bias=False), values="binary"),
            layers.BatchNormalization(scale=False),
            listed(layers.Dense(10, use_bias=False), values="binary"),
            layers.BatchNormalization(scale=False),
            layers.Activation("softmax"),
        ],
        name="larq",
    )


def test_multiplications_are_those_that_larq_counts():
    """The numbers are those of `larq.models.summary`, Larq 0.14.0, for its tutorial's network."""
    report = summary(larq_mnist())
    kernels = {row.path.split("/")[-2]: row for row in report.rows if row.values is not None}
    assert [row.macs for row in kernels.values()] == [194688, 2230272, 331776, 36864, 640]
    others = dict.fromkeys(("XNORs", "shifts", "look-ups", "products"), 0)
    assert report.macs == {"additions": 2599552 + 194688, **others}
    # Larq counts weights of 1 bit in whole bits, too.
    assert [row.bits_after for row in kernels.values()] == [288, 18432, 36864, 36864, 640]
    assert report.float_bytes == 4 * 93_088 + 4 * 3 * 234


def macs(*stack, shape, dtype=None, **arguments):
    model = keras.Sequential([keras.Input(shape, dtype=dtype), *stack])
    return [row.macs for row in summary(model, **arguments).rows if row.macs != 0]


class DenseTwice(layers.Dense):
    def call(self, inputs, training=None):
        return super().call(super().call(inputs))


LAYERS = {
    "Dense": (lambda: layers.Dense(3), (5, 4), [5 * 4 * 3]),
    "EinsumDense": (lambda: layers.EinsumDense("...x,xy->...y", 3), (5, 2, 4), [5 * 2 * 4 * 3]),
    "Conv1D": (
        lambda: layers.Conv1D(4, 3, strides=2, padding="same", groups=2), (12, 6), [6 * 3 * 3 * 4],
    ),
    "Conv2D": (lambda: listed(layers.Conv2D(4, 3)), (9, 8, 2), [7 * 6 * 9 * 2 * 4]),
    "Conv2DTranspose": (lambda: layers.Conv2DTranspose(3, 2, strides=2), (5, 5, 2), [25 * 4 * 6]),
    "DepthwiseConv2D": (lambda: listed(layers.DepthwiseConv2D(3)), (5, 5, 2), [9 * 9 * 2]),
    "SeparableConv2D": (
        lambda: listed(layers.SeparableConv2D(4, 3, strides=2), "depthwise_kernel"),
        (5, 5, 2), [4 * 9 * 2, 4 * 2 * 4],
    ),
    "LSTM": (lambda: listed(layers.LSTM(4), ("kernel", "recurrent_kernel")), (7, 3),
             [7 * 3 * 16, 7 * 4 * 16]),
    "Bidirectional": (lambda: layers.Bidirectional(layers.GRU(2)), (7, 3),
                      [7 * 3 * 6, 7 * 2 * 6] * 2),
    "TimeDistributed": (lambda: layers.TimeDistributed(listed(layers.Dense(2))), (7, 3), [7 * 6]),
    "LearnableMultiplier": (lambda: LearnableMultiplier([1, -1]), (5, 3), [5 * 3]),
    "LayerNormalization": (layers.LayerNormalization, (5, 3), []),
    "of another call": (lambda: OwnLayer(4), (5,), [None, 5 * 4]),
    "a Dense with a call of its own": (lambda: DenseTwice(4), (4,), [None]),
    "ConvLSTM1D": (lambda: layers.ConvLSTM1D(2, 3), (4, 6, 3), [None, None]),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_multiplications_of_layers(name):
    create, shape, expected = LAYERS[name]
    assert sorted(macs(create(), shape=shape), key=str) == sorted(expected, key=str)


def test_an_embedding_is_read_and_not_multiplied():
    assert macs(layers.Embedding(7, 4), shape=(5,), dtype="int32") == []


def test_multiplications_of_attention_and_of_a_layer_that_is_called_twice():
    inputs = keras.Input((6, 8))
    attention, twice = listed(layers.MultiHeadAttention(2, 3)), layers.Dense(8)
    model = keras.Model(inputs, twice(twice(attention(inputs, inputs))))
    counts = [row.macs for row in summary(model).rows if row.macs]
    assert counts == [6 * 8 * 6] * 4 + [2 * 6 * 64]


@on_one_backend
def test_open_sizes_and_models_without_inputs_ask_for_a_shape(random):
    conv = layers.Conv2D(2, 3, use_bias=False)
    model = keras.Sequential([keras.Input((None, None, 1)), conv])
    report = summary(model)
    assert report.rows[0].macs is None
    assert report.macs["products"] == 0
    assert "a sample has the open shape (None, None, 1); give input_shape" in str(report)
    assert [row.macs for row in summary(model, input_shape=(8, 8, 1)).rows] == [36 * 18]
    model = Subclassed()
    model(rows(random, 6))
    assert summary(model, input_shape=(6,)).to_dict() == summary(model).to_dict()
    assert any(row.macs is None for row in summary(model).rows)
    assert "those of Block are not known" in str(summary(model))
    assert "\nat least " in str(summary(model))
    with pytest.raises(TypeError, match=r"input_shape is 'big'. Expected the shape of one sample"):
        summary(model, input_shape="big")


@on_one_backend
def test_a_model_of_several_inputs_and_one_of_a_fixed_batch():
    a, b = keras.Input((3,), name="a"), keras.Input((4,), name="b")
    model = keras.Model({"a": a, "b": b}, layers.Concatenate()([layers.Dense(2)(a), b]))
    assert summary(model).rows[0].macs == 6
    assert summary(model, input_shape={"a": (3,), "b": (4,)}).rows[0].macs == 6
    fixed = keras.Input(batch_shape=(8, 3))
    assert summary(keras.Model(fixed, layers.Dense(2)(fixed))).rows[0].macs == 6


class Untraceable(layers.Layer):
    def call(self, inputs):
        raise RuntimeError("no call")

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs.shape, inputs.dtype)


@on_one_backend
def test_a_model_that_cannot_be_traced_has_no_multiplications():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2), Untraceable()])
    report = summary(model)
    assert {row.macs for row in report.rows} == {None}
    assert "the model could not be traced: RuntimeError: " in str(report)


@on_one_backend
@pytest.mark.parametrize(
    ("values", "scale", "kind"),
    [
        ("binary", None, "additions"),
        ([0.3, 0, -0.3], "learned", "additions"),
        ([5], None, "additions"),
        ("powers_of_two:4", Scale("learned", "output"), "shifts"),
        ([3, 0, -6], None, "shifts"),
        ([0.3, 0.6, 0.9], None, "look-ups"),
        ("nf4", None, "look-ups"),
        ("signed:5", None, "products"),
        ("binary", Scale("learned", 0), "additions"),
        ("binary", Scale("learned", (0, 1)), "products"),
        (Values([[1, -1], [4, -2]]), None, "shifts"),
        (Values([[1, -1], [3, -2]]), None, "look-ups"),
    ],
)
def test_what_a_multiplication_comes_down_to(values, scale, kind):
    layer = Discrete(layers.Dense(2), values, scale=scale)
    model = keras.Sequential([keras.Input((3,)), layer])
    assert summary(model).rows[0].kind == kind


@on_one_backend
def test_a_large_model_fits_a_screen():
    stack = []
    for _ in range(70):
        stack += [listed(layers.Dense(2), values="powers_of_two:4"), layers.BatchNormalization()]
    model = keras.Sequential([keras.Input((2,)), *stack], name="resnet")
    report = summary(model)
    assert len(report.rows) == 70 * 6
    lines = str(report).splitlines()
    assert max(map(len, lines)) <= 100
    assert len(lines) == 1 + 61 + 5 + 3
    assert "… 10 more …" in lines[41]
    groups = [line for line in lines if line.startswith("70 x ")]
    assert [line.split()[2] for line in groups] == [
        "bias", "gamma", "beta", "moving_mean", "moving_variance",
    ]  # fmt: skip
    assert groups[0].split()[3:] == ["140", "free", "32", "-", "-", "-", "8"]


def test_the_numbers_that_training_moved_are_those_of_the_summary():
    layer = LearnableMultiplier(Values([1, -1], learnable=True))
    model = keras.Sequential([keras.Input((3,)), layer])
    layer.discrete_parameters[0].set_values([2, -3])
    (row,) = summary(model).rows
    assert row.values.tolist() == [2, -3]
    assert row.bits_after == 3 + 2 * 32


@pytest.mark.parametrize("rule", ["block_?[0-9]*/.*kernel", "^subclassed[_0-9]*/dense[_0-9]*/"])
def test_a_subclassed_model_is_compared_weight_by_weight(rule, random):
    model = Subclassed()
    model(rows(random, 6))
    # Some layers among its attributes are exchanged, others stay: `weights` changes its order.
    rules = {rule: "ternary"}
    discrete = discretize(model, rules)
    report = summary(discrete, compared_with=model, rules=rules)
    listed = {row.path: row for row in report.rows if row.values is not None}
    assert len(listed) == len(quantal.parameters_of(discrete)) > 1
    originals = {w.path.removeprefix("subclassed/"): w for w in model.weights}
    for parameter in quantal.parameters_of(discrete):
        distance = [
            np.linalg.norm(numpy(weight) - numpy(parameter.weight)) / np.linalg.norm(numpy(weight))
            for path, weight in originals.items()
            if tuple(weight.shape) == parameter.shape
        ]
        row = listed[parameter.path]
        assert row.why == f"rule {rule!r}"
        assert row.error == pytest.approx(min(distance), rel=1e-5)


def test_baked_it_is_no_further_from_the_original_than_the_discrete_model(random):
    model, _ = sequential(random)
    discrete = discretize(model, "nf4")
    back = summary(discrete, compared_with=quantal.bake(discrete))
    assert {row.error for row in back.rows if row.values is not None} == {0.0}
    first = summary(discrete, compared_with=model)
    assert all(0 < row.error < 0.2 for row in first.rows if row.values is not None)


def test_reasons_are_the_rules(random):
    model, _ = sequential(random)
    discrete = discretize(model, "binary", keep_ends=True)
    report = summary(discrete, compared_with=model, rules="binary")
    why = {row.path.split("/", 1)[1]: row.why for row in report.rows}
    assert why["one/kernel"] == why["three/kernel"] == "first or last layer"
    assert why["two/kernel"] == "every kernel, also of fan-in 8"
    assert why["two/bias"] == "stays free unless its name is spelled"
    other = summary(
        model, compared_with=model, rules={"one": "binary", "two": "nf4", "three": None}
    )
    why = [row.why for row in other.rows if row.path.endswith("kernel")]
    assert why == ["first or last layer", "first or last layer", "rule 'three' leaves it free"]
    three = summary(model, compared_with=model, rules="binary").rows
    assert [row.why for row in three if "two/kernel" in row.path] == [
        "free in spite of the rule: every kernel, also of fan-in 8"
    ]


def test_bad_input(random):
    model, _ = sequential(random)
    with pytest.raises(TypeError, match=r"model is .* Expected a Keras model"):
        summary(layers.Dense(3))
    with pytest.raises(ValueError, match="is not built"):
        summary(keras.Sequential([layers.Dense(3)]))
    with pytest.raises(TypeError, match=r"compared_with is .* Expected a Keras model"):
        summary(model, compared_with="ternary")
    with pytest.raises(ValueError, match=r"compared_with has 9 weights of .* Expected 10 of"):
        summary(model, compared_with=hand_built())
    with pytest.raises(ValueError, match="rules came without compared_with"):
        summary(model, rules="ternary")


@on_one_backend
def test_layers_and_keras_summary_name_the_list(monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    model = hand_built()
    signs, hidden = model.layers[1:3]
    assert repr(signs) == "<LearnableMultiplier name=signs, values=ternary, bits=2, built=True>"
    assert repr(hidden) == (
        "<Discrete name=hidden, layer=Dense, values=binary, bits=1, scale=learned, built=True>"
    )
    assert "layer=Dense" in str(Discrete(layers.Dense(2), "nf4", scale="auto"))
    lines = []
    model.summary(line_length=140, print_fn=lambda text: lines.append(text))
    shown = "".join(lines)
    # The latents, and for the second one a bias, and scales with their starts.
    assert f"{signs.count_params()} (ternary, 2 bits)" in shown
    assert f"{24 + 4 + 8} (binary, 1 bit)" in shown
    assert hidden.count_params() == 36
    assert f"{hidden.count_params()}" == "36"


@on_one_backend
def test_with_rules_the_table_says_what_they_decided(random):
    model, _ = sequential(random)
    discrete = discretize(model, "powers_of_two:4", scale="auto")
    report = summary(discrete, compared_with=model, rules="powers_of_two:4")
    lines = str(report).splitlines()
    assert lines[0].split() == [
        "weight", "shape", "values", "scales", "bits", "bytes", "error", "why",
    ]  # fmt: skip
    assert max(map(len, lines)) <= 100
    assert "every kernel" in str(report)
    assert all(row.macs for row in report.rows if row.values is not None)


def kinds(*stack, shape):
    """Return what the products of each listed weight of a stack of layers come down to."""
    model = keras.Sequential([keras.Input(shape), *stack])
    return [row.kind for row in summary(model).rows if row.values is not None]


def signs(**arguments):
    return DiscreteActivation("binary", **arguments)


def dense(values="binary", **arguments):
    return Discrete(layers.Dense(2, use_bias=False), values, **arguments)


def conv(padding="valid"):
    return Discrete(layers.Conv2D(2, 3, padding=padding, use_bias=False), "binary")


def chain_of_signs():
    """Return what reshapes, repeats or selects signs, and a convolution that has some."""
    inner = Discrete(layers.Conv2D(2, 3, activation=signs()), "binary")
    return [inner, layers.MaxPooling2D(2), layers.Dropout(0.5), layers.Flatten(), dense()]


BINARY = {
    "directly": (lambda: [signs(), dense()], (3,), ["XNORs"]),
    "a chain": (chain_of_signs, (6, 6, 1), ["additions", "XNORs"]),
    "a model within": (lambda: [signs(), keras.Sequential(chain_of_signs())], (6, 6, 1),
                       ["XNORs", "XNORs"]),
    "one scale": (lambda: [signs(scale="learned"), dense(scale="auto")], (3,), ["XNORs"]),
    "scales of channels": (lambda: [signs(scale="learned", axis=-1), dense()], (3,), ["additions"]),
    "scales of outputs": (lambda: [signs(), dense(scale=Scale(axis="output"))], (3,), ["XNORs"]),
    "scales of inputs": (lambda: [signs(), dense(scale=Scale(axis=0))], (3,), ["additions"]),
    "ternary weights": (lambda: [signs(), dense("ternary")], (3,), ["additions"]),
    "0 and 1": (lambda: [DiscreteActivation("zero_one"), dense()], (3,), ["additions"]),
    "normalized": (lambda: [signs(), layers.BatchNormalization(), dense()], (3,), ["additions"]),
    "zeros around": (lambda: [signs(), conv("same")], (5, 5, 1), ["additions"]),
    "padded by zeros": (lambda: [signs(), layers.ZeroPadding2D(), conv()], (5, 5, 1),
                        ["additions"]),
    "floats": (lambda: [dense()], (3,), ["additions"]),
}  # fmt: skip


@on_one_backend
@pytest.mark.parametrize("name", BINARY)
def test_signs_times_signs_are_xnors(name):
    stack, shape, expected = BINARY[name]
    assert kinds(*stack(), shape=shape) == expected


@on_one_backend
@pytest.mark.parametrize(("number", "kind"), [(1, "XNORs"), (-1, "XNORs"), (0, "additions")])
def test_padding_by_a_sign_keeps_xnors(number, kind):
    inputs = keras.Input((4, 4, 1))
    widths = [[0, 0], [1, 1], [1, 1], [0, 0]]
    padded = keras.ops.pad(signs()(inputs), widths, constant_values=number)
    report = summary(keras.Model(inputs, conv()(padded)))
    assert report.rows[0].kind == kind
    assert report.macs[kind] == 4 * 4 * 9 * 2


@on_one_backend
def test_a_weight_that_meets_other_inputs_too_has_no_xnors():
    inputs, shared = keras.Input((2,)), dense()
    model = keras.Model(inputs, shared(shared(signs()(inputs))))
    assert summary(model).rows[0].kind == "additions"


def test_activations_stand_below_the_weights(tmp_path):
    last = Discrete(layers.Dense(2, activation=signs(name="sign")), "binary", name="last")
    scaled = DiscreteActivation("unsigned:4", scale="learned", name="steps")
    model = keras.Sequential([keras.Input((3,)), scaled, last])
    scaled.set_scale(0.25)
    report = summary(model)
    assert [(each.path, each.bits) for each in report.activations] == [
        ("steps", 4),
        ("last/sign", 1),
    ]
    data = report.to_dict()
    assert json.loads(json.dumps(data)) == data
    steps, sign = data["activations"]
    assert (steps["list"], steps["scale"], steps["scale_values"]) == (
        "unsigned:4",
        "learned",
        [0.25],
    )
    assert (sign["values"], sign["scale"], sign["scale_values"]) == ([-1, 1], None, [])
    text, html = str(report), report._repr_html_()
    assert text.splitlines()[3].split()[:6] == [
        "steps", "activation", "unsigned:4", "x", "0.25", "1",
    ]  # fmt: skip
    assert "scales of activations: learned" in text
    assert html.count("<tr>") == 1 + 2 + 2
    assert re.search(r"last/sign</t[dh]>\s*<td[^>]*>activation</td>", html)
    quantal.save(model, tmp_path / "model.quantal")
    assert summary(quantal.load(tmp_path / "model.quantal")) == report


@on_one_backend
def test_activations_of_a_large_model_share_a_row_for_each_list():
    stack = [layer for _ in range(7) for layer in (layers.Dense(2), signs())]
    report = summary(keras.Sequential([keras.Input((2,)), *stack]))
    assert len(report.activations) == 7
    (line,) = [line for line in str(report).splitlines() if "activation" in line]
    assert line.split()[:5] == ["7", "x", "activation", "-", "binary"]
