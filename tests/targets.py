"""Which layers go to which targets: every cell of docs/targets.md, by trying it.

    KERAS_BACKEND=torch python tests/targets.py            the cells of this backend, and the page
    KERAS_BACKEND=torch python tests/targets.py c runtime  these columns alone, and the page

`scripts/docs-targets` does it on each backend. Cells stand in docs/targets.json, from which the
page is drawn; tests/test_targets.py holds both to the truth.
"""

import functools
import json
import os
import pathlib
import re
import sys
import tempfile

os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers

import quantal
from models import OwnLayer
from quantal import Discrete, DiscreteActivation
from quantal._export.registry import TARGETS
from repository import ROOT

JSON, PAGE = ROOT / "docs" / "targets.json", ROOT / "docs" / "targets.md"
WORKS, NOT_TRIED = "yes", "not tried yet"

LINE, IMAGE, SERIES = (6,), (8, 8, 4), (6, 4)


def dense(units=4, **options):
    return Discrete(layers.Dense(units, **options), "ternary")


def convolution(filters=4, **options):
    return Discrete(layers.Conv2D(filters, 3, padding="same", **options), "ternary")


def on_list(layer, weights="kernel"):
    return Discrete(layer, "ternary", weights)


def signs():
    """Activations on whole numbers, for what computes with integers."""
    return DiscreteActivation("signed:4")


class Row:
    """A layer in a small model.

    Args:
        shape: The shape of a sample.
        make: Returns layers that stand one after another, or a function of the input tensor.
        integers: The input has numbers below this one; 0 for floats.
    """

    def __init__(self, shape, make, integers=0):
        self.shape, self.make, self.integers = shape, make, integers

    def model(self, in_integers=False):
        """Return the model; with all that flows on whole numbers, where that is asked."""
        keras.utils.set_random_seed(0)
        first = keras.Input(self.shape, dtype="int32" if self.integers else None, name="input")
        x = signs()(first) if in_integers and not self.integers else first
        made = self.make()
        if callable(made) and not isinstance(made, keras.Layer):
            x = made(x)
        else:
            for layer in made if isinstance(made, list) else [made]:
                x = layer(x)
        if in_integers:
            x = signs()(x)
            x = dense(2)(x if len(x.shape) == 2 else layers.Flatten()(x))
        model = keras.Model(first, x)
        for layer in model.layers:
            if isinstance(layer, layers.BatchNormalization):
                random = np.random.default_rng(0)
                layer.set_weights([random.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
        return model

    def samples(self, count=8):
        random = np.random.default_rng(0)
        if self.integers:
            return random.integers(self.integers, size=(count, *self.shape))
        return random.normal(0, 2, (count, *self.shape)).astype("float32")


def branches(layer):
    def function(x):
        return layer([dense(6)(x), dense(6)(x)])

    return function


def attention(x):
    return on_list(layers.MultiHeadAttention(2, 3))(x, x)


def shared(x):
    layer = dense(6)
    return layer(layer(x))


ROWS = {
    "Dense": Row(LINE, dense),
    "Dense with a bias and ReLU": Row(LINE, lambda: dense(activation="relu")),
    "EinsumDense": Row(
        SERIES, lambda: on_list(layers.EinsumDense("btd,de->bte", output_shape=(6, 4)))
    ),
    "Conv1D": Row(SERIES, lambda: on_list(layers.Conv1D(4, 3))),
    "Conv2D": Row(IMAGE, convolution),
    "Conv2D in groups": Row(IMAGE, lambda: convolution(groups=2)),
    "Conv2DTranspose": Row(IMAGE, lambda: on_list(layers.Conv2DTranspose(4, 3, strides=2))),
    "Conv3D": Row((4, 4, 4, 2), lambda: on_list(layers.Conv3D(2, 2))),
    "DepthwiseConv2D": Row(IMAGE, lambda: on_list(layers.DepthwiseConv2D(3))),
    "SeparableConv2D": Row(
        IMAGE,
        lambda: on_list(layers.SeparableConv2D(4, 3), ("depthwise_kernel", "pointwise_kernel")),
    ),
    "Embedding": Row(LINE, lambda: on_list(layers.Embedding(9, 4), "embeddings"), integers=9),
    "SimpleRNN": Row(SERIES, lambda: on_list(layers.SimpleRNN(4), ("kernel", "recurrent_kernel"))),
    "SimpleRNN with a state on a list": Row(
        SERIES,
        lambda: on_list(layers.SimpleRNN(4, activation=signs()), ("kernel", "recurrent_kernel")),
    ),
    "LSTM": Row(SERIES, lambda: on_list(layers.LSTM(4), ("kernel", "recurrent_kernel"))),
    "GRU": Row(SERIES, lambda: on_list(layers.GRU(4), ("kernel", "recurrent_kernel"))),
    "Bidirectional LSTM": Row(
        SERIES,
        lambda: on_list(layers.Bidirectional(layers.LSTM(3)), ("kernel", "recurrent_kernel")),
    ),
    "ConvLSTM1D": Row(
        (3, 6, 2), lambda: on_list(layers.ConvLSTM1D(2, 2), ("kernel", "recurrent_kernel"))
    ),
    "MultiHeadAttention": Row(SERIES, lambda: attention),
    "TimeDistributed Dense": Row(SERIES, lambda: on_list(layers.TimeDistributed(layers.Dense(3)))),
    "LearnableMultiplier": Row(LINE, lambda: quantal.LearnableMultiplier()),
    "DiscreteActivation": Row(LINE, lambda: [dense(), DiscreteActivation("signed:4")]),
    "DiscreteActivation with a scale for each channel": Row(
        LINE, lambda: [dense(), DiscreteActivation("unsigned:8", scale="learned", axis=-1)]
    ),
    "DiscreteActivation on an uneven list": Row(
        LINE, lambda: [dense(), DiscreteActivation([-1, 0.1, 0.7])]
    ),
    "BatchNormalization": Row(LINE, lambda: [dense(), layers.BatchNormalization()]),
    "LayerNormalization": Row(LINE, lambda: [dense(), layers.LayerNormalization()]),
    "GroupNormalization": Row(IMAGE, lambda: [convolution(), layers.GroupNormalization(2)]),
    "Rescaling": Row(LINE, lambda: [layers.Rescaling(0.5, 0.25), dense()]),
    "ReLU": Row(LINE, lambda: [dense(), layers.ReLU()]),
    "LeakyReLU": Row(LINE, lambda: [dense(), layers.LeakyReLU()]),
    "PReLU": Row(LINE, lambda: [dense(), layers.PReLU()]),
    "sigmoid": Row(LINE, lambda: [dense(), layers.Activation("sigmoid")]),
    "tanh": Row(LINE, lambda: [dense(), layers.Activation("tanh")]),
    "gelu": Row(LINE, lambda: [dense(), layers.Activation("gelu")]),
    "hard_silu": Row(LINE, lambda: [dense(), layers.Activation("hard_silu")]),
    "Softmax": Row(LINE, lambda: [dense(), layers.Softmax()]),
    "MaxPooling2D": Row(IMAGE, lambda: [convolution(), layers.MaxPooling2D()]),
    "AveragePooling2D": Row(IMAGE, lambda: [convolution(), layers.AveragePooling2D(2)]),
    "GlobalAveragePooling2D": Row(IMAGE, lambda: [convolution(), layers.GlobalAveragePooling2D()]),
    "UpSampling2D": Row(IMAGE, lambda: [convolution(), layers.UpSampling2D()]),
    "ZeroPadding2D": Row(IMAGE, lambda: [layers.ZeroPadding2D(), convolution()]),
    "Cropping2D": Row(IMAGE, lambda: [layers.Cropping2D(), convolution()]),
    "Flatten": Row(IMAGE, lambda: [layers.Flatten(), dense()]),
    "Permute": Row(SERIES, lambda: [layers.Permute((2, 1)), on_list(layers.Conv1D(4, 3))]),
    "Dropout": Row(LINE, lambda: [dense(), layers.Dropout(0.5)]),
    "Add": Row(LINE, lambda: branches(layers.Add())),
    "Multiply": Row(LINE, lambda: branches(layers.Multiply())),
    "Concatenate": Row(LINE, lambda: branches(layers.Concatenate())),
    "a layer called twice": Row(LINE, lambda: shared),
    "a layer of your own": Row(LINE, lambda: on_list(OwnLayer(4))),
}
"""The rows: a layer, with weights on a list in it or beside it."""


# How each column is tried, on a model, its samples and an empty folder. An error is a refusal.


def exported(target, model, x, folder, check):
    path = folder / f"model{TARGETS[target].ending}"
    quantal.export(model, path, target, inputs=x, check=check)


def in_runtime(model, x, folder, check):
    quantal.save(model, folder / "model.quantal")
    result = quantal.runtime.load(folder / "model.quantal").predict(x)
    np.testing.assert_allclose(result, model.predict(x, verbose=0), rtol=1e-4, atol=1e-5)


def baked(model, x, folder, check):
    plain = quantal.bake(model)
    assert not quantal.parameters_of(plain)
    np.testing.assert_allclose(
        plain.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-5, atol=1e-6
    )


def in_integers(model, x, folder, check):
    comparison = quantal.to_integer(model).compare(x)
    assert max(each.most for each in comparison.activations) <= 1


OTHERS = {"runtime": in_runtime, "bake": baked, "to_integer": in_integers}
COLUMNS = {name: functools.partial(exported, name) for name in TARGETS} | {
    name: way for name, way in OTHERS.items() if hasattr(quantal, name)
}
"""The columns by their names: all targets of `quantal.export`, and what else takes a model."""

INTEGER_COLUMNS = (
    "c_integer", "to_integer", "litert_int8", "qonnx", "verilog_module", "verilog_clocked",
)  # fmt: skip
"""What these take flows in integers: the rows stand between activations on a list."""

ON_TENSORFLOW = ("onnx", "onnx_fast", "openvino", "litert", "litert_int8")
"""These columns are tried on TensorFlow; the others on PyTorch, which compiles nothing."""

HEAVY = (*ON_TENSORFLOW, "qonnx")
"""These start a converter for every model, which is for the nights."""


def backend_of(column):
    """Return the backend on which a column is tried."""
    return "tensorflow" if column in ON_TENSORFLOW else "torch"


def cell(row, column, check=True):
    """Try a cell: `WORKS`, or the reason why not; without a check a file is not run."""
    model = ROWS[row].model(in_integers=column in INTEGER_COLUMNS)
    with tempfile.TemporaryDirectory() as folder:
        try:
            COLUMNS[column](model, ROWS[row].samples(), pathlib.Path(folder), check)
        except (ValueError, ImportError, NotImplementedError) as error:
            return reason(str(error), folder)
    return WORKS


def reason(text, folder):
    """Return what an error says came: without the way out, the path, and numbers of names."""
    text = re.sub(re.escape(folder) + r"[^:\s]*:?\s*", "", text)
    text = re.sub(r"_\d+(?=['/])", "", " ".join(text.split()))
    text = re.sub(r", which the target '\w+' does not hold", "", text)
    text = re.sub(r"by \S+ of their spread", "by more than the bound", text)
    sentences = re.split(r"(?<=[.)])\s+(?=[A-Z])", text)
    # What came is all parameters: which is no reason.
    first = next((s for s in sentences if "has the parameters" not in s), sentences[0])
    return without_names(first.strip().rstrip("."))


def without_names(text):
    """Return a reason without the names of layers and weights, so that equal reasons are one."""
    text = re.sub(r"^[Tt]he layer '\S+' is of the class ", "it takes no ", text)
    text = re.sub(r"^it takes no [\w>-]+(?=$|,| with \d)", "it takes no layer of this class", text)
    text = re.sub(r"\b([Tt]he layer) '\S+'", r"\1", text)
    text = re.sub(r"the weights \[[^\]]*\]", "the weights", text)
    text = re.sub(r" for its recurrent layers '.*\)(?=:)", " for its recurrent layers", text)
    return re.sub(r", for '\S+' of the model '\S+'", "", text)


# The page.

HEAD = """# Layers and targets

Which layer can go where. Each cell was tried: a small model with the layer, its weights on the list
of -1, 0 and 1, was exported or loaded, run, and compared with Keras within the target's bound. A
number stands for the reason that the target gives; the reasons follow the table. For `npz`, `csv`
and `verilog`, which hold no model, `yes` says that the weights are written.
{integer}
```sh
scripts/docs-targets    # tries every cell, and writes this page
```

"""

INTEGER = """In the columns {columns} the layer stands between activations on whole numbers,
`DiscreteActivation("signed:4")`.
"""


def page(cells):
    """Draw the page of all cells."""
    columns = list(next(iter(cells.values())))
    reasons = {}
    lines = [
        # A browser breaks long names at their underscores alone.
        f"| layer | {' | '.join(column.replace('_', '_<wbr>') for column in columns)} |",
        "|---" * (1 + len(columns)) + "|",
    ]
    for row, of_row in cells.items():
        texts = [
            WORKS if of_row[column] == WORKS
            else f"[{reasons.setdefault(of_row[column], len(reasons) + 1)}](#reasons)"
            for column in columns
        ]  # fmt: skip
        lines.append(f"| {row} | {' | '.join(texts)} |")
    notes = [f"{number}. {escaped(text)}" for text, number in reasons.items()]
    named = [f"`{column}`" for column in columns if column in INTEGER_COLUMNS]
    head = HEAD.format(integer=INTEGER.format(columns=", ".join(named)) if named else "")
    return head + "\n".join([*lines, "", "## Reasons", "", *notes]) + "\n"


def escaped(text):
    """Return a reason as Markdown shows it."""
    return re.sub(r"([|<>*_`])", r"\\\1", text)


def main(columns):
    """Try the columns of this backend, or those that are named; write cells and page."""
    backend = keras.config.backend()
    tried = [c for c in COLUMNS if backend_of(c) == backend and (not columns or c in columns)]
    new = {}
    for row in ROWS:
        new[row] = {c: cell(row, c) for c in tried}
        print(row, new[row], flush=True)
    known = json.loads(JSON.read_text()) if JSON.exists() else {}
    cells = {
        row: {c: new[row].get(c, known.get(row, {}).get(c, NOT_TRIED)) for c in COLUMNS}
        for row in ROWS
    }
    JSON.write_text(json.dumps(cells, indent=1, ensure_ascii=False) + "\n")
    PAGE.write_text(page(cells))


if __name__ == "__main__":
    main(sys.argv[1:])
