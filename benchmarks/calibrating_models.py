"""The networks of benchmarks/calibrating.py that other libraries define.

- transformer: keras-hub's `GPT2CausalLM`, two layers of width 64, predicts each next character
  of War and Peace from up to 64 before it. The first eight tenths of the text train it, one epoch
  being 40,000 sequences; it is tested on 1,000 sequences of the last tenth, in nats a character.
  The embeddings stay free.
- mobilenet: `keras.applications.MobileNetV2`, alpha .35, on Fashion-MNIST, enlarged from 28x28 to
  32x32 by zeros, from scratch on 10,000 images. Its depthwise kernels are kernels of fan-in 9.

Both are trained with Adam along a cosine from 0.003, the images end with `Finish()`: the moving
statistics of MobileNet keep .999 a step and lag behind otherwise.
"""

import argparse
import pathlib

import keras
import numpy as np
from calibrating import Task, accuracy, train_once
from peers.protocol import load

import quantal

SAMPLES = 1024
RATE = 3e-3
LENGTH, WIDTH, LAYERS, HEADS = 64, 64, 2, 4
TEXT_BATCH, TEXT_EPOCHS, TEXT_TESTS = 64, 3, 1000
IMAGE_BATCH, IMAGE_EPOCHS, IMAGE_COUNT, SIDE = 64, 6, 10_000, 32


def fit(model: keras.Model, data, epochs: int, batch: int, seed: int, callbacks=()) -> None:
    """Train a model with a rate that falls to zero."""
    labels = data[1]
    rate = keras.optimizers.schedules.CosineDecay(RATE, epochs * -(-len(labels) // batch))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss)
    keras.utils.set_random_seed(seed)
    model.fit(*data, batch_size=batch, epochs=epochs, verbose=0, callbacks=list(callbacks))


def sequences(part: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Cut a text into what `GPT2CausalLM` takes, and the next character of each."""
    count = (len(part) - 1) // LENGTH
    x = part[: count * LENGTH].reshape(count, LENGTH).astype("int32")
    y = part[1 : count * LENGTH + 1].reshape(count, LENGTH).astype("int32")
    return {"token_ids": x, "padding_mask": np.ones_like(x)}, y


def first(inputs: dict[str, np.ndarray], rows) -> dict[str, np.ndarray]:
    """Return some rows of the inputs."""
    return {name: array[rows] for name, array in inputs.items()}


def transformer(seed: int, arguments: argparse.Namespace) -> Task:
    """Return the language model, trained."""
    import keras_hub

    content = np.frombuffer(pathlib.Path(arguments.text).read_bytes(), np.uint8)
    letters, text = np.unique(content, return_inverse=True)
    x, y = sequences(text[: len(text) * 8 // 10])
    test, answers = sequences(text[len(text) * 9 // 10 :])
    test, answers = first(test, slice(TEXT_TESTS)), answers[:TEXT_TESTS]

    def train(model: keras.Model, epochs: int) -> None:
        fit(model, (x, y), epochs, TEXT_BATCH, seed)

    def nats(model: keras.Model) -> float:
        logits = model.predict(test, batch_size=100, verbose=0)
        loss = keras.losses.sparse_categorical_crossentropy(answers, logits, from_logits=True)
        return round(float(keras.ops.mean(loss)), 4)

    keras.utils.set_random_seed(seed)
    backbone = keras_hub.models.GPT2Backbone(
        vocabulary_size=len(letters),
        num_layers=LAYERS,
        num_heads=HEADS,
        hidden_dim=WIDTH,
        intermediate_dim=4 * WIDTH,
        dropout=0.0,
        max_sequence_length=LENGTH,
    )
    model = keras_hub.models.GPT2CausalLM(backbone, preprocessor=None)
    name = f"transformer{seed}"
    train_once(model, name, arguments.floats, lambda: train(model, TEXT_EPOCHS))
    chosen = np.random.default_rng(seed).permutation(len(y))[:SAMPLES]
    return Task(model, train, nats, first(x, chosen), "test_nats")


def enlarged(images: np.ndarray) -> np.ndarray:
    """Return images with a margin of zeros, in [-1, 1] as the network expects them."""
    margin = (SIDE - 28) // 2
    square = images.reshape(-1, 28, 28, 1)
    return 2 * np.pad(square, [(0, 0), (margin, margin), (margin, margin), (0, 0)]) - 1


def mobilenet(seed: int, arguments: argparse.Namespace) -> Task:
    """Return the network of images, trained."""
    images, labels = load(arguments.data, "train")
    test, answers = load(arguments.data, "t10k")
    chosen = np.random.default_rng(seed).permutation(len(images))[:IMAGE_COUNT]
    data, tests = (enlarged(images[chosen]), labels[chosen]), (enlarged(test), answers)

    def train(model: keras.Model, epochs: int) -> None:
        fit(model, data, epochs, IMAGE_BATCH, seed, [quantal.callbacks.Finish()])

    keras.utils.set_random_seed(seed)
    model = keras.applications.MobileNetV2(
        (SIDE, SIDE, 1), alpha=0.35, weights=None, classes=10, classifier_activation=None
    )
    name = f"mobilenet{seed}"
    train_once(model, name, arguments.floats, lambda: train(model, IMAGE_EPOCHS))
    return Task(model, train, lambda model: accuracy(model, tests), data[0][:SAMPLES])


TASKS = {"transformer": transformer, "mobilenet": mobilenet}
