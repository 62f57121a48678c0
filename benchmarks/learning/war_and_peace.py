"""War and Peace, character by character: an LSTM whose two kernels are on a list.

A reduced protocol: 128 units, sequences of 100, batches of 100 at random, one epoch (261 steps)
of Adam with a rate that falls to zero along a cosine, the text split 80/10/10 in its order. The
published results have 512 units and 200 epochs.
"""

import functools
import pathlib

import keras
import numpy as np
from keras import layers
from learning.cases import LISTS
from learning.ends import callbacks_of, rate_of

import quantal

UNITS, LENGTH, BATCH, EPOCHS = 128, 100, 100, 1
# A list, and how the scale of each output (each unit of each gate) comes about.
ARMS = {
    "floats": None,
    "floats-wide": None,
    "signs": ("signs", None),
    "signs-mean_absolute": ("signs", "mean_absolute"),
    "signs-learned": ("signs", "learned"),
    "signs-learned-wide": ("signs", "learned"),
    "ternary-learned": ("ternary", "learned"),
    "ternary-learned-wide": ("ternary", "learned"),
    "four_values-learned-wide": ("four_values", "learned"),
}
# "wide": of a one-hot input one row of the kernel counts, so its spread is 1, not Glorot's 0.058.
# A learned scale starts at the spread of the layer's initializer.
WIDE = 1.0


@functools.cache
def _data(path: pathlib.Path) -> tuple:
    """Sequences (characters, the next ones) for training and testing; how many letters."""
    letters, text = np.unique(np.frombuffer(path.read_bytes(), np.uint8), return_inverse=True)
    parts = text[: len(text) * 8 // 10], text[len(text) * 9 // 10 :]
    sequences = []
    for part in parts:
        count = (len(part) - 1) // LENGTH
        sequences.append(part[: count * LENGTH].reshape(count, LENGTH).astype("int32"))
        sequences.append(part[1 : count * LENGTH + 1].reshape(count, LENGTH).astype("int32"))
    return *sequences, len(letters)


def train(
    arm: str,
    estimator: str,
    rate: float,
    seed: int,
    path: pathlib.Path,
    batches: int | None = None,
    end: str = "cosine",
) -> float:
    """The test text's mean negative log likelihood, nats a character."""
    keras.utils.set_random_seed(seed)
    x, y, x_test, y_test, letters = _data(path)
    if batches:
        x, y, x_test, y_test = (part[: batches * BATCH] for part in (x, y, x_test, y_test))
    start = (
        {"kernel_initializer": keras.initializers.RandomNormal(0, WIDE)}
        if arm.endswith("wide")
        else {}
    )
    recurrent = layers.LSTM(UNITS, return_sequences=True, **start)
    if estimator != "float":
        values, scale = ARMS[arm]
        if scale is not None:
            scale = quantal.Scale(scale, axis="output")
        recurrent = quantal.Discrete(
            recurrent,
            LISTS[values],
            ("kernel", "recurrent_kernel"),
            estimator=estimator,
            scale=scale,
        )
    # One-hot characters: a frozen identity.
    one_hot = layers.Embedding(letters, letters, embeddings_initializer="identity", trainable=False)
    model = keras.Sequential(
        [keras.Input((LENGTH,), dtype="int32"), one_hot, recurrent, layers.Dense(letters)]
    )
    adam = rate_of(end, rate, EPOCHS * -(-len(x) // BATCH))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(adam), loss)
    model.fit(x, y, batch_size=BATCH, epochs=EPOCHS, verbose=0, callbacks=callbacks_of(end))
    return round(float(model.evaluate(x_test, y_test, batch_size=BATCH, verbose=0)), 4)
