"""The binary networks with quantal's layers, as larq's documentation trains them or by default."""

import os
import tempfile

os.environ.setdefault("KERAS_BACKEND", "tensorflow")  # As larq does.

import binary_networks
import keras

import quantal


def parts() -> binary_networks.Parts:
    """Return layers of Keras with weights and inputs on the list of ±1."""

    def conv(filters, padding, is_first):
        layer = keras.layers.Conv2D(filters, 3, padding=padding, use_bias=False)
        activation = [] if is_first else [quantal.DiscreteActivation("binary")]
        return [*activation, quantal.Discrete(layer, "binary")]

    def dense(units):
        layer = keras.layers.Dense(units, use_bias=False)
        return [quantal.DiscreteActivation("binary"), quantal.Discrete(layer, "binary")]

    return binary_networks.Parts(conv, dense)


def sizes(model) -> dict[str, int]:
    """Return the bytes of the model as a file of quantal's and as one of Keras'."""
    with tempfile.TemporaryDirectory() as folder:
        packed, whole = (os.path.join(folder, name) for name in ("model.quantal", "model.keras"))
        quantal.save(model, packed)
        model.save(whole)
        return {"packed": os.path.getsize(packed), ".keras": os.path.getsize(whole)}


def run(asked, data) -> binary_networks.Outcome:
    """Train by larq's schedule, or as a user does who sets nothing but the callback."""
    keras.utils.set_random_seed(asked.seed)
    model = binary_networks.network(keras, asked.network, parts(), asked.momentum)
    is_plain = asked.end == "finish"
    optimizer = "adam" if is_plain else binary_networks.optimizer_of_larq(keras, asked.network)
    model.compile(optimizer, "sparse_categorical_crossentropy")
    callbacks = [quantal.callbacks.Finish()] if is_plain else []
    batch = binary_networks.SETTINGS[asked.network].batch
    seconds = binary_networks.train(keras, model, data, batch, asked.epochs, callbacks)
    quantal.testing.assert_listed(model)
    kernels = [
        keras.ops.convert_to_numpy(layer.listed_values)
        for layer in model.layers
        if isinstance(layer, quantal.Discrete)
    ]
    settings = "Adam by default, Finish()" if is_plain else "larq's schedule"
    return binary_networks.Outcome(model, seconds, kernels, sizes(model), settings)


binary_networks.main("quantal", keras.backend.backend(), run, ("finish", "larq"))
