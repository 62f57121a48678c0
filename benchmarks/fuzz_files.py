"""Feed the loader of `quantal.save`'s files with damaged ones, led by coverage.

    pip install atheris
    python benchmarks/fuzz_files.py -runs=100000 corpus

The options are libFuzzer's; `corpus` is a folder for what it finds. Digests are made right again
in half of the inputs: else hardly anything would come past them. Anything but ValueError ends the
run with a traceback and the input in a file.
"""

import json
import os
import pathlib
import sys
import tempfile
import zlib
from random import Random

import atheris
import numpy as np
from safetensors import SafetensorError, safe_open

with atheris.instrument_imports(include=["quantal"]):
    import quantal
    from quantal._storage import container, packing, radix, rans  # noqa: F401

import keras
from keras import layers

FOLDER = pathlib.Path(tempfile.mkdtemp())
PATH = FOLDER / "input.quantal"


def seeds():
    """Whole files of small models: words, coded, learned, per channel, a scale."""
    for arguments in (
        {"values": [1, -1]},
        {"values": [1, 0, -1], "scale": "learned"},
        {"values": quantal.Values([0.1, 0.5, 1], learnable=True)},
        {"values": quantal.Values([[1, -1], [2, 0]], axis=-1)},
    ):
        model = keras.Sequential(
            [keras.Input((4,)), quantal.Discrete(layers.Dense(2), **arguments)]
        )
        quantal.save(model, PATH)
        yield PATH.read_bytes()


def with_right_digests(data):
    """The same tensors with right digests, as far as safetensors can read them."""
    PATH.write_bytes(data)
    try:
        with safe_open(PATH, framework="np") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return container.with_digests(tensors)
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return data


ODD = [0, 1, -1, 2, 3, 7, 2**20, 2**31, 2**60, 1.5, True, None, "", "x", "coded", [], [0], {}]


def changed(tree, random):
    """JSON with one thing in it replaced by another."""
    tree = json.loads(json.dumps(tree))
    branch = tree
    while True:
        keys = list(branch) if isinstance(branch, dict) else range(len(branch))
        if not keys:
            return tree
        key = random.choice(keys)
        if isinstance(branch[key], (dict, list)) and branch[key] and random.random() < 0.8:
            branch = branch[key]
            continue
        branch[key] = random.choice(ODD)
        return tree


def with_changed_header(data, random):
    length = int.from_bytes(data[:8], "little")
    text = json.dumps(changed(json.loads(data[8 : 8 + length]), random)).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def with_changed_content(data, random):
    """A change in the metadata or in the architecture; the digests are right again."""
    PATH.write_bytes(data)
    arrays, metadata = container.read(PATH)
    if random.random() < 0.5:
        metadata = changed(metadata, random)
    else:
        config = json.loads(zlib.decompress(arrays["architecture"].tobytes()))
        text = json.dumps(changed(config, random)).encode()
        arrays["architecture"] = np.frombuffer(zlib.compress(text, 9), np.uint8)
    container.write(PATH, arrays, metadata)
    return PATH.read_bytes()


def mutated(data, most, seed):
    """Half the time libFuzzer's mutations; else one in the header, metadata or architecture."""
    random = Random(seed)
    try:
        if random.random() < 0.5:
            raise ValueError("libFuzzer's turn")
        change = random.choice([with_changed_header, with_changed_content, with_changed_content])
        return b"1" + change(data[1:], random)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, zlib.error):
        return atheris.Mutate(data, most)


COUNTS = {"inputs": 0, "loaded": 0, "refused": 0}


def one(data):
    # The first byte says whether the digests are made right.
    data = with_right_digests(data[1:]) if data[:1] == b"1" else data[1:]
    PATH.write_bytes(data)
    COUNTS["inputs"] += 1
    try:
        quantal.load(PATH)
        COUNTS["loaded"] += 1
    except ValueError:
        COUNTS["refused"] += 1
    if COUNTS["inputs"] % 1000 == 0:
        keras.backend.clear_session()
        print(COUNTS, flush=True)


def main():
    folders = [pathlib.Path(a) for a in sys.argv[1:] if not a.startswith("-")]
    for folder in folders:
        folder.mkdir(exist_ok=True)
    for number, data in enumerate(seeds()):
        for flag in (b"0", b"1"):
            (folders[0] / f"seed{number}{flag.decode()}").write_bytes(flag + data)
    atheris.Setup(sys.argv, one, custom_mutator=mutated)
    atheris.Fuzz()


if __name__ == "__main__":
    if "KERAS_BACKEND" not in os.environ:
        sys.exit("Set KERAS_BACKEND.")
    main()
