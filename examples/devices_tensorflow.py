"""A network with ternary weights is trained on several devices by TensorFlow's MirroredStrategy.

`python examples/devices_tensorflow.py` uses all GPUs; where there is none, two devices that
TensorFlow makes of the processor.
"""

import os

os.environ["KERAS_BACKEND"] = "tensorflow"


def strategy():
    """Return the strategy, for all GPUs or for two halves of the processor."""
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        return tf.distribute.MirroredStrategy()
    (processor,) = tf.config.list_physical_devices("CPU")
    parts = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(processor, parts)
    return tf.distribute.MirroredStrategy(
        ["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice()
    )


def train():
    """Train, and save the model."""
    mirrored = strategy()
    import keras
    import numpy as np

    import quantal

    keras.utils.set_random_seed(0)
    with mirrored.scope():  # Whatever makes variables: models, discretize, bake, load.
        model = keras.Sequential(
            [
                keras.Input((16,)),
                quantal.Discrete(keras.layers.Dense(32, "relu"), "ternary", scale="learned"),
                keras.layers.Dense(1),
            ]
        )
        model.compile(keras.optimizers.Adam(0.01), "mse")
    random = np.random.default_rng(0)
    x = random.normal(size=(512, 16)).astype("float32")
    y = np.abs(x[:, :4]).sum(1, keepdims=True)
    history = model.fit(x, y, 64, 20, verbose=0)
    size = quantal.save(model, os.path.join(os.environ.get("FOLDER", "."), "tensorflow.quantal"))
    loss = history.history["loss"][-1]
    print(f"{mirrored.num_replicas_in_sync} devices: loss {loss:.4f}, {size} bytes")


if __name__ == "__main__":
    train()
