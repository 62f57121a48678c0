"""Small files that ask for much memory or time; `python tests/hostile.py FOLDER` tries them.

Each is a file of a small model in which sizes are changed and all digests are right again.
"""

import json
import os
import pathlib
import sys
import zlib

import keras
import numpy as np
from keras import layers

import quantal
from quantal._storage import container

HUGE = 2**31 - 1


def saved(model, folder):
    """The arrays and the metadata of a model's file."""
    path = pathlib.Path(folder) / "whole"
    quantal.save(model, path)
    return container.read(path)


def dense_model(values="ternary"):
    layer = quantal.Discrete(layers.Dense(3, name="dense"), values, name="listed")
    return keras.Sequential([keras.Input((8,)), layer], name="net")


def config_of(arrays):
    return json.loads(zlib.decompress(arrays["architecture"].tobytes()))


def with_config(arrays, config):
    text = config if isinstance(config, bytes) else json.dumps(config).encode()
    return {**arrays, "architecture": np.frombuffer(zlib.compress(text, 9), np.uint8)}


def set_deep(config, changes):
    """Change entries of a config by their keys, wherever they stand."""
    if isinstance(config, list):
        return [set_deep(entry, changes) for entry in config]
    if not isinstance(config, dict):
        return config
    return {
        key: changes[key] if key in changes else set_deep(entry, changes)
        for key, entry in config.items()
    }


def without(config, name):
    """A config without the entries of a name."""
    if isinstance(config, list):
        return [without(entry, name) for entry in config]
    if not isinstance(config, dict):
        return config
    return {key: without(entry, name) for key, entry in config.items() if key != name}


def model_with(layer, shape=(8,), dtype=None):
    inputs = keras.Input(shape, dtype=dtype)
    return keras.Model(inputs, layer(inputs), name="net")


IMAGE = (8, 8, 3)
STEPS = (4, 3)
# ruff: noqa: E501 (a table)
RESIZED = {
    "units": (lambda: layers.Dense(3), (8,), {"units": HUGE}),
    "units times inputs": (lambda: layers.Dense(3), (8,), {"units": 2**20, "batch_shape": [None, 2**20]}),
    "units below the largest": (lambda: layers.Dense(3), (8,), {"units": 2**22}),
    "negative units": (lambda: layers.Dense(3), (8,), {"units": -5}),
    "units that are a fraction": (lambda: layers.Dense(3), (8,), {"units": 1e30}),
    "units of a thousand digits": (lambda: layers.Dense(3), (8,), {"units": 10**999}),
    "units that are text": (lambda: layers.Dense(3), (8,), {"units": "9" * 9999}),
    "infinite units": (lambda: layers.Dense(3), (8,), {"units": float("inf")}),
    "vocabulary": (lambda: layers.Embedding(5, 3), (8,), {"input_dim": 2**27}),
    "embedding": (lambda: layers.Embedding(5, 3), (8,), {"input_dim": 2**16, "output_dim": 2**16}),
    "filters": (lambda: layers.Conv2D(3, 2), IMAGE, {"filters": 2**28}),
    "kernel size": (lambda: layers.Conv2D(3, 2), IMAGE, {"kernel_size": [2**14, 2**14]}),
    "depth": (lambda: layers.DepthwiseConv2D(2), IMAGE, {"depth_multiplier": 2**28}),
    "einsum": (lambda: layers.EinsumDense("ab,bc->ac", 3), (8,), {"output_shape": [2**28]}),
    "lstm": (lambda: layers.LSTM(3), STEPS, {"units": 2**14}),
    "gru": (lambda: layers.GRU(3), STEPS, {"units": 2**20}),
    "steps": (lambda: layers.LSTM(3), STEPS, {"batch_shape": [None, 2**24, 2**24]}),
    "unrolled": (lambda: layers.SimpleRNN(3, unroll=True), STEPS, {"batch_shape": [None, 2**20, 3]}),
    "stateful": (lambda: layers.SimpleRNN(3), STEPS, {"stateful": True, "batch_shape": [2**22, 4, 2**10], "units": 2**20}),
    "bidirectional": (lambda: layers.Bidirectional(layers.LSTM(3)), STEPS, {"units": 2**14}),
    "convolutional lstm": (lambda: layers.ConvLSTM1D(3, 2), (2, 4, 3), {"filters": 2**16}),
    "separable": (lambda: layers.SeparableConv2D(3, 2), IMAGE, {"filters": 2**28}),
    "normalization": (lambda: layers.BatchNormalization(), (8,), {"batch_shape": [None, 2**28]}),
    "constants": (lambda: layers.Normalization(mean=1.0, variance=2.0), (8,), {"batch_shape": [None, 2**28]}),
    "constants below": (lambda: layers.Normalization(mean=1.0, variance=2.0), (8,), {"batch_shape": [None, 2**24 + 2**23]}),
    "input": (lambda: layers.Flatten(), IMAGE, {"batch_shape": [None, 2**15, 2**15, 2**10]}),
    "repeat": (lambda: layers.RepeatVector(3), (8,), {"n": HUGE}),
    "upsampling": (lambda: layers.UpSampling2D(2), IMAGE, {"size": [2**20, 2**20]}),
    "padding": (lambda: layers.ZeroPadding2D(1), IMAGE, {"padding": [[2**30, 2**30], [1, 1]]}),
    "resizing": (lambda: layers.Resizing(4, 4), IMAGE, {"height": 2**20, "width": 2**20}),
    "pooling": (lambda: layers.AveragePooling2D(2), IMAGE, {"pool_size": [2**30, 2**30]}),
    "categories": (lambda: layers.CategoryEncoding(5), (8,), {"num_tokens": HUGE}),
    "spectrogram": (lambda: layers.STFTSpectrogram(), (512, 1), {"fft_length": 2**20, "frame_length": 2**20}),
    "mel": (lambda: layers.MelSpectrogram(fft_length=64, num_mel_bins=4), (512,), {"num_mel_bins": 2**20, "fft_length": 2**24}),
    "groups": (lambda: layers.GroupNormalization(3), IMAGE, {"batch_shape": [None, 8, 8, 3 * 2**27]}),
    "lora": (lambda: layers.Dense(3), (8,), {"lora_rank": 2**28}),
    "perspective": (lambda: layers.RandomPerspective(), IMAGE, {"batch_shape": [None, 4096, 4096, 3]}),
    "elastic": (lambda: layers.RandomElasticTransform(), IMAGE, {"batch_shape": [None, 4096, 2048, 3]}),
    "mixed": (lambda: layers.AugMix(), IMAGE, {"batch_shape": [None, 4096, 2048, 3]}),
    "chains": (lambda: layers.AugMix(), IMAGE, {"chain_depth": 2**24, "num_chains": 2**24}),
    "hashing": (lambda: layers.Discretization(bin_boundaries=[0.0, 1.0]), (8,), {"batch_shape": [None, 2**25]}),
    "attention": (lambda: layers.SpectralNormalization(layers.Dense(3)), (8,), {"power_iterations": 2**24}),
    "drawn": (lambda: layers.Dense(3, kernel_initializer=keras.initializers.RandomNormal()), (8,), {"units": 2**20, "batch_shape": [None, 2**20]}),
}  # fmt: skip


def resized(make, shape, changes, folder):
    arrays, metadata = saved(model_with(make(), shape), folder)
    # Layers are built from what they are called with.
    config = without(config_of(arrays), "build_config")
    return with_config(arrays, set_deep(config, changes)), metadata


def nested(depth, calls, folder):
    """A model in a model in a model, each called so many times."""
    arrays, metadata = saved(dense_model(), folder)
    inputs = keras.Input((4,))
    config = keras.saving.serialize_keras_object(keras.Model(inputs, layers.ReLU()(inputs)))
    config = json.loads(json.dumps(config))
    for level in range(depth):
        inner = json.dumps(config)
        names = [f"in{level}", f"model{level}"]
        tensor = {
            "class_name": "__keras_tensor__",
            "config": {"shape": [None, 4], "dtype": "float32", "keras_history": [names[0], 0, 0]},
        }
        nodes = []
        for call in range(calls):
            source = [names[0], 0, 0] if call == 0 else [names[1], call - 1, 0]
            argument = {**tensor, "config": {**tensor["config"], "keras_history": source}}
            nodes.append({"args": [argument], "kwargs": {}})
        first = {
            "module": "keras.layers", "class_name": "InputLayer", "registered_name": None,
            "config": {"batch_shape": [None, 4], "dtype": "float32", "name": names[0]},
            "name": names[0], "inbound_nodes": [],
        }  # fmt: skip
        config = {
            "module": "keras.src.models.functional", "class_name": "Functional",
            "registered_name": "Functional",
            "config": {
                "name": f"level{level}", "trainable": True,
                "layers": [first, {**json.loads(inner), "name": names[1], "inbound_nodes": nodes}],
                "input_layers": [[names[0], 0, 0]],
                "output_layers": [[names[1], calls - 1, 0]],
            },
        }  # fmt: skip
        config["config"]["layers"][1]["config"]["name"] = names[1]
    return with_config(arrays, config), metadata


def many_layers(count, folder):
    arrays, metadata = saved(dense_model(), folder)
    config = config_of(arrays)
    first, last = config["config"]["layers"][0], config["config"]["layers"][-1]
    layer = {"module": "keras.layers", "class_name": "Identity", "registered_name": None}
    between = [{**layer, "config": {"name": f"i{i}"}} for i in range(count)]
    config["config"]["layers"] = [first, *between, last]
    return with_config(arrays, config), metadata


def text_of(text, folder):
    arrays, metadata = saved(dense_model(), folder)
    return with_config(arrays, text), metadata


def one_value(folder):
    """A list of one value takes no bytes, whatever the shape."""
    arrays, metadata = saved(dense_model([0.25]), folder)
    config = set_deep(config_of(arrays), {"units": 2**15, "batch_shape": [None, 2**15]})
    config = set_deep(config, {"input_shape": [None, 2**15]})
    metadata["weights"][0]["shape"] = [2**15, 2**15]
    bias = metadata["weights"][1]["name"]
    return with_config({**arrays, bias: np.zeros(2**15, "float32")}, config), metadata


def equal_codes(folder):
    """Equal codes take next to nothing, so few bytes stand for many."""
    arrays, metadata = saved(dense_model(), folder)
    config = set_deep(config_of(arrays), {"units": 2**14, "batch_shape": [None, 2**14]})
    config = set_deep(config, {"input_shape": [None, 2**14]})
    entry = metadata["weights"][0]
    entry.update(shape=[2**14, 2**14], packing="coded")
    bias = metadata["weights"][1]["name"]
    lanes = 1 << ((2**28 >> 13).bit_length() - 1)
    head = np.array([65533, 0, 0], "<u2").tobytes() + np.full(lanes, 2**16, "<u4").tobytes()
    codes = np.frombuffer(head, np.uint8)
    arrays = {**arrays, f"{entry['name']}.codes": codes, bias: np.zeros(2**14, "float32")}
    return with_config(arrays, config), metadata


def claims(change, folder):
    arrays, metadata = saved(dense_model(), folder)
    change(metadata)
    return arrays, metadata


CONTENTS = {
    **{name: (lambda f, a=arguments: resized(*a, f)) for name, arguments in RESIZED.items()},
    "models in models": lambda f: nested(60, 2, f),
    "models ten times in models": lambda f: nested(8, 10, f),
    "a deep model": lambda f: nested(150, 1, f),
    "many layers": lambda f: many_layers(20_000, f),
    "some layers": lambda f: many_layers(1500, f),
    "zeros": lambda f: text_of(b'{"a":"' + b"0" * 2**27 + b'"}', f),
    "empty lists": lambda f: text_of(b"[" + b"[]," * 2**24 + b"[]]", f),
    "numbers": lambda f: text_of(b"[" + b"1," * 2**24 + b"1]", f),
    "deep lists": lambda f: text_of(b"[" * 2**20, f),
    "deep objects": lambda f: text_of(b'{"config":' * 2**18, f),
    "one value": one_value,
    "equal codes": equal_codes,
    "claimed shape": lambda f: claims(lambda m: m["weights"][0].update(shape=[2**40, 2**40]), f),
    "negative shape": lambda f: claims(lambda m: m["weights"][0].update(shape=[-1, -24]), f),
    "claimed base": lambda f: claims(lambda m: m["weights"][0].update(base=2**62), f),
    "many weights": lambda f: claims(lambda m: m["weights"].extend(m["weights"][:1] * 2**17), f),
}


def raw(text):
    return len(text).to_bytes(8, "little") + text


RAW = {
    "header of eight exabytes": (2**63 - 1).to_bytes(8, "little"),
    "header of a hundred megabytes": (99 * 2**20).to_bytes(8, "little") + b" " * 1000,
    "tensor of an exabyte": raw(b'{"a":{"dtype":"U8","shape":[1152921504606846976],"data_offsets":[0,1152921504606846976]}}'),
    "nothing": b"",
    "deep header": raw(b"[" * 10**6),
    "many tensors": raw(b"{" + b",".join(b'"%d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}' % i for i in range(20_000)) + b"}"),
}  # fmt: skip


def write_all(folder):
    """Write all hostile files into a folder and return their paths by name."""
    folder = pathlib.Path(folder)
    paths = {}
    for index, (name, make) in enumerate(CONTENTS.items()):
        paths[name] = folder / f"{index:02d}.quantal"
        container.write(paths[name], *make(folder))
    for index, (name, data) in enumerate(RAW.items(), len(CONTENTS)):
        paths[name] = folder / f"{index:02d}.quantal"
        paths[name].write_bytes(data)
    return paths


def kib_of(name):
    """A figure of this process in KiB, as Linux reports it."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    raise KeyError(name)


def attack(path):
    """Load a file; return the error, the seconds and the megabytes above what was taken before."""
    import time

    before = kib_of("VmRSS")
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # The peak begins anew.
    start = time.process_time()
    try:
        quantal.load(path)
        error = "none"
    except Exception as problem:
        error = f"{type(problem).__name__}: {problem}"
    seconds = time.process_time() - start
    return error, seconds, (kib_of("VmHWM") - before) / 1024


if __name__ == "__main__":
    for name, path in write_all(sys.argv[1]).items():
        if len(sys.argv) > 2 and name not in sys.argv[2:]:
            continue
        print(json.dumps([name, os.path.getsize(path), *attack(path)]), flush=True)
