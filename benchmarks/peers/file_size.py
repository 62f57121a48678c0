"""Bytes of the ternary 784-256-256-10 network's file as each library saves it.

    .env/larq/bin/python file_size.py larq
    .env/qkeras/bin/python file_size.py qkeras
    .env/quantal/bin/python file_size.py keras-int4

Sizes do not depend on the weights; without the optimizer. Prints a JSON line.
"""

import json
import os
import sys
import tempfile

library = sys.argv[1]
os.environ["TF_USE_LEGACY_KERAS"] = "1" if library == "larq" else "0"
os.environ.setdefault("KERAS_BACKEND", "jax")

if library == "larq":
    import larq
    import tf_keras as keras

    def dense(units):
        quantizer = larq.quantizers.SteTern(ternary_weight_networks=True)
        return larq.layers.QuantDense(units, use_bias=False, kernel_quantizer=quantizer)

else:
    import keras

    if library == "qkeras":
        import qkeras

    def dense(units):
        if library == "qkeras":
            quantizer = qkeras.ternary(alpha="auto_po2")
            return qkeras.QDense(units, use_bias=False, kernel_quantizer=quantizer)
        return keras.layers.Dense(units, use_bias=False)


def main():
    blocks = [
        layer
        for units in (256, 256)
        for layer in (dense(units), keras.layers.BatchNormalization(), keras.layers.ReLU())
    ]
    last = [dense(10), keras.layers.BatchNormalization()]
    model = keras.Sequential([keras.layers.InputLayer((784,)), *blocks, *last])
    if library == "keras-int4":
        model.quantize("int4")
    sizes = {}
    with tempfile.TemporaryDirectory() as folder:
        for ending in (".keras", ".weights.h5"):
            path = os.path.join(folder, f"model{ending}")
            (model.save if ending == ".keras" else model.save_weights)(path)
            sizes[ending] = os.path.getsize(path)
    print(json.dumps({"library": library, "bytes": sizes}))


main()
