"""The binary networks with larq's layers and its documentation's settings, in Keras 2."""

import os
import tempfile

os.environ["TF_USE_LEGACY_KERAS"] = "1"

import binary_networks
import larq
import tensorflow as tf

keras = tf.keras


def parts() -> binary_networks.Parts:
    """Return larq's layers as its tutorials have them."""
    signs = {
        "kernel_quantizer": "ste_sign",
        "kernel_constraint": "weight_clip",
        "use_bias": False,
    }

    def conv(filters, padding, is_first):
        inputs = {} if is_first else {"input_quantizer": "ste_sign"}
        return [larq.layers.QuantConv2D(filters, 3, padding=padding, **inputs, **signs)]

    def dense(units):
        return [larq.layers.QuantDense(units, input_quantizer="ste_sign", **signs)]

    return binary_networks.Parts(conv, dense)


def sizes(model) -> dict[str, int]:
    """Return the bytes of the file that larq's documentation saves for inference."""
    with tempfile.TemporaryDirectory() as folder, larq.context.quantized_scope(True):
        path = os.path.join(folder, "binary_model.h5")
        model.save(path, include_optimizer=False)
        return {".h5": os.path.getsize(path)}


def run(asked, data) -> binary_networks.Outcome:
    """Train as larq's documentation does."""
    keras.utils.set_random_seed(asked.seed)
    model = binary_networks.network(keras, asked.network, parts(), asked.momentum)
    optimizer = binary_networks.optimizer_of_larq(keras, asked.network)
    model.compile(optimizer, "sparse_categorical_crossentropy")
    batch = binary_networks.SETTINGS[asked.network].batch
    seconds = binary_networks.train(keras, model, data, batch, asked.epochs)
    with larq.context.quantized_scope(True):
        kernels = [layer.get_weights()[0] for layer in model.layers if "quant" in layer.name]
    settings = "ste_sign, weight_clip"
    return binary_networks.Outcome(model, seconds, kernels, sizes(model), settings)


binary_networks.main("larq", "tensorflow", run, ("larq",))
