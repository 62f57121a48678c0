"""A binary network learns from labels, and again from a float network's outputs, too.

The networks 784-256-256-10 learn Fashion-MNIST. The binary one has its kernels on ±1, and trains
once by itself and once as the student of `keras.distillation.Distiller`: as long, from the same
weights, by a plain `fit` that ends with `Finish()`. The script prints the accuracy of all.

    KERAS_BACKEND=jax python examples/distill.py --data FOLDER

FOLDER holds the four .gz files of Fashion-MNIST; without it Keras downloads them.
"""

import argparse

import keras
from fine_tune import accuracy, read
from keras import layers

import quantal

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def network(units: int = 256) -> keras.Model:
    """Return a network of two hidden layers, normalized between, which gives logits."""
    hidden = [
        layer
        for _ in range(2)
        for layer in (
            layers.Dense(units, use_bias=False),
            layers.BatchNormalization(momentum=0.9),
            layers.ReLU(),
        )
    ]
    last = [layers.Dense(10, use_bias=False), layers.BatchNormalization(momentum=0.9)]
    return keras.Sequential(
        [keras.Input((28, 28)), layers.Rescaling(1 / 255), layers.Flatten(), *hidden, *last]
    )


def train(model: keras.Model, data, epochs: int) -> keras.Model:
    """Fit a model as a user does who sets nothing."""
    model.compile("adam", LOSS)
    finish = quantal.callbacks.Finish()
    model.fit(*data, batch_size=128, epochs=epochs, verbose=0, callbacks=[finish])
    return model


def distilled(teacher: keras.Model, student: keras.Model, data, epochs: int) -> keras.Model:
    """Train a student on labels and on the teacher's outputs, half and half."""
    # The object, not its name: for the name Keras 3.15 compares logits without a softmax.
    divergence = keras.losses.KLDivergence()
    losses = keras.distillation.LogitsDistillation(temperature=2.0, loss=divergence)
    distiller = keras.distillation.Distiller(teacher, student, distillation_losses=losses)
    train(distiller, data, epochs)
    return student


def compare(training, testing, epochs: int, units: int = 256) -> dict[str, float]:
    """Return the accuracy of teacher, student by itself and distilled student, in per cent."""
    teacher = train(network(units), training, epochs)
    start = network(units)

    def student() -> keras.Model:
        return quantal.discretize(start, {"kernel": "binary"}, scale=None)

    return {
        "float teacher": accuracy(teacher, testing),
        "binary": accuracy(train(student(), training, epochs), testing),
        "binary, distilled": accuracy(distilled(teacher, student(), training, epochs), testing),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="the folder of Fashion-MNIST's .gz files")
    parser.add_argument("--epochs", type=int, default=5, help="of each training")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    keras.utils.set_random_seed(arguments.seed)
    for name, percent in compare(*read(arguments.data), arguments.epochs).items():
        print(f"{name}: {percent:.2f} %", flush=True)


if __name__ == "__main__":
    main()
