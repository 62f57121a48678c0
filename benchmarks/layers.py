"""Layers are tried one by one, in two dtypes, eager and compiled, on one backend.

For each layer: a model around it is put on [1, -1, 0.5, -0.5] by `discretize`, trained
for a few steps by `fit`, traced to see that its forward pass used listed values only,
saved, loaded and compared to the bit. Prints a Markdown table, a row a layer:

    KERAS_BACKEND=jax python benchmarks/layers.py

`+` says that all of it worked; anything else says what went wrong.
"""

import argparse
import os
import tempfile

import keras
import numpy as np
from keras import layers

import quantal
from quantal.testing import assert_listed

VALUES = [1, -1, 0.5, -0.5]


@keras.saving.register_keras_serializable(package="quantal_benchmarks")
class TwoWeights(layers.Layer):
    """A user's layer has two weights; no convention calls the second a kernel."""

    def build(self, shape):
        self.kernel = self.add_weight(name="kernel", shape=(shape[-1], 4))
        self.mixture = self.add_weight(name="mixture", shape=(4, 4))

    def call(self, x):
        return keras.ops.matmul(keras.ops.relu(keras.ops.matmul(x, self.kernel)), self.mixture)


def attention(x):
    return layers.MultiHeadAttention(2, 3)(x, x)


def grouped_attention(x):
    return layers.GroupQueryAttention(4, 4, 2)(x, x)


def inner_model(x):
    return keras.Sequential([layers.Dense(4), layers.ReLU()])(x)


def normalized(x):
    return layers.BatchNormalization()(layers.Dense(4)(x))


def hub_block(x):
    from keras_hub.layers import TransformerEncoder

    return TransformerEncoder(8, 2)(x)


ROW, SEQUENCE, IMAGE, FILM = (6,), (5, 6), (8, 8, 3), (3, 6, 6, 2)
CASES = {
    "LearnableMultiplier": (ROW, quantal.LearnableMultiplier(VALUES), None),
    "Dense": (ROW, layers.Dense(4), "kernel"),
    "EinsumDense": (SEQUENCE, layers.EinsumDense("abc,cd->abd", (5, 4)), "kernel"),
    "Embedding": (None, layers.Embedding(11, 4), "embeddings"),
    "Conv1D": (SEQUENCE, layers.Conv1D(4, 3), "kernel"),
    "Conv2D": (IMAGE, layers.Conv2D(4, 3), "kernel"),
    "Conv2D, groups": (IMAGE, layers.Conv2D(6, 3, groups=3), "kernel"),
    "Conv3D": (FILM, layers.Conv3D(4, 2), "kernel"),
    "DepthwiseConv2D": (IMAGE, layers.DepthwiseConv2D(3, depth_multiplier=2), "kernel"),
    "SeparableConv2D": (IMAGE, layers.SeparableConv2D(4, 3), "wise_kernel"),
    "Conv2DTranspose": (IMAGE, layers.Conv2DTranspose(4, 3), "kernel"),
    "SimpleRNN": (SEQUENCE, layers.SimpleRNN(4), "kernel"),
    "LSTM": (SEQUENCE, layers.LSTM(4), "kernel"),
    "GRU": (SEQUENCE, layers.GRU(4), "kernel"),
    "Bidirectional LSTM": (SEQUENCE, layers.Bidirectional(layers.LSTM(3)), "kernel"),
    "ConvLSTM2D": (FILM, layers.ConvLSTM2D(3, 2), "kernel"),
    "TimeDistributed Dense": (SEQUENCE, layers.TimeDistributed(layers.Dense(4)), "kernel"),
    "MultiHeadAttention": (SEQUENCE, attention, "kernel"),
    "GroupQueryAttention": (SEQUENCE, grouped_attention, "kernel"),
    "Dense, BatchNormalization": (ROW, normalized, "kernel"),
    "LayerNormalization": (ROW, layers.LayerNormalization(), "gamma"),
    "a user's layer": (ROW, TwoWeights(), "kernel|mixture"),
    "a model inside": (ROW, inner_model, "kernel"),
    "keras-hub TransformerEncoder": (SEQUENCE, hub_block, "kernel"),
}  # fmt: skip


def model_around(case: str) -> keras.Model:
    """Return a small model with the layer in its middle."""
    shape, layer, _ = CASES[case]
    inputs = keras.Input((7,), dtype="int32") if shape is None else keras.Input(shape)
    if isinstance(layer, layers.Layer):
        # A new layer: the same case runs under other dtypes.
        layer = type(layer).from_config(
            {**layer.get_config(), "dtype": keras.config.dtype_policy().name}
        )
    return keras.Model(inputs, layers.Flatten()(layer(inputs)))


def outcome(case: str, dtype: str, compiled: bool, folder: str) -> str:
    """Try a layer; return `+`, or what went wrong."""
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(dtype)
    random = np.random.default_rng(0)
    try:
        model = model_around(case)
    except ImportError as error:
        return f"not installed: {error.name}"
    shape, _, weights = CASES[case]
    if shape is None:
        x = random.integers(0, 11, (16, 7))
    else:
        x = random.normal(size=(16, *shape)).astype("float32")
    if weights is not None:
        rule = dict.fromkeys(weights.split("|"), VALUES)
        model = quantal.discretize(model, rule)
    parameters = quantal.parameters_of(model)
    before = [keras.ops.convert_to_numpy(p.latent).copy() for p in parameters]
    options = {"jit_compile": True} if compiled else {"run_eagerly": True}
    if keras.config.backend() == "torch" and compiled:
        options = {}  # Keras compiles nothing there unless asked to, and says why not.
    model.compile(keras.optimizers.Adam(0.01), "mse", **options)
    y = random.normal(size=(16, *model.output_shape[1:])).astype("float32")
    history = model.fit(x, y, batch_size=4, epochs=2, verbose=0).history["loss"]
    if not np.isfinite(history).all():
        return f"loss {history[-1]}"
    for parameter, latent in zip(parameters, before, strict=True):
        if np.array_equal(keras.ops.convert_to_numpy(parameter.latent), latent):
            return f"{parameter.path} does not move"
    assert_listed(model, x[:2])
    path = os.path.join(folder, "model.keras")
    model.save(path)
    loaded = keras.saving.load_model(path)
    same = np.array_equal(model.predict(x, verbose=0), loaded.predict(x, verbose=0))
    return "+" if same else "loaded, it predicts otherwise"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", action="append", choices=CASES, help="run only this case")
    arguments = parser.parse_args()
    columns = [(d, c) for d in ("float32", "mixed_bfloat16") for c in (False, True)]
    names = [f"{dtype}, {'compiled' if c else 'eager'}" for dtype, c in columns]
    print(f"| {keras.config.backend()} | {' | '.join(names)} |")
    print("|---" * (len(columns) + 1) + "|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for case in arguments.case or CASES:
            cells = []
            for dtype, compiled in columns:
                try:
                    cells.append(outcome(case, dtype, compiled, folder))
                except Exception as error:  # The table says what happened.
                    first_line = str(error).strip().splitlines()[0]
                    cells.append(f"{type(error).__name__}: {first_line[:90]}")
            print(f"| {case} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
