"""Feed the loader of `quantal.save`'s files with damaged ones, led by coverage.

    pip install atheris
    python benchmarks/fuzz_files.py -runs=100000 corpus

The options are libFuzzer's; `corpus` is a folder for what it finds. Checksums are made right again
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

with atheris.instrument_imports(include=["quantal"]):
    import quantal
    from quantal._storage import container, packing  # noqa: F401

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


def checked(data):
    """The same file with right checksums, as far as it can be read."""
    try:
        length = int.from_bytes(data[:8], "little")
        header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
        about = json.loads(header["__metadata__"]["quantal"])
        for name, entry in header.items():
            if name != "__metadata__":
                begin, end = entry["data_offsets"]
                about["checksums"][name] = f"{zlib.crc32(body[begin:end]):08x}"
        header["__metadata__"] = {"quantal": json.dumps(about), "checksum": "00000000"}
        text = json.dumps(header, separators=(",", ":")).encode()
        own = f'"checksum":"{zlib.crc32(text):08x}"'.encode()
        text = text.replace(b'"checksum":"00000000"', own, 1)
        return len(text).to_bytes(8, "little") + text + body
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        return data


ODD = [0, 1, -1, 2, 3, 7, 2**20, 2**31, 2**60, 1.5, True, None, "", "x", "coded", [], [0], {}]


def changed(tree, random):
    """JSON with one thing in it replaced by another."""
    tree = json.loads(json.dumps(tree))
    at = tree
    while True:
        places = list(at) if isinstance(at, dict) else range(len(at))
        if not places:
            return tree
        place = random.choice(places)
        if isinstance(at[place], (dict, list)) and at[place] and random.random() < 0.8:
            at = at[place]
            continue
        at[place] = random.choice(ODD)
        return tree


def mutated(data, most, seed):
    """Half the time libFuzzer's mutations; else one in the header or in the architecture."""
    random = Random(seed)
    try:
        if random.random() < 0.5:
            raise ValueError
        length = int.from_bytes(data[1:9], "little")
        header, body = json.loads(data[9 : 9 + length]), data[9 + length :]
        kind = random.randrange(3)
        if kind == 0:
            header = changed(header, random)
        elif kind == 1:
            about = json.loads(header["__metadata__"]["quantal"])
            header["__metadata__"]["quantal"] = json.dumps(changed(about, random))
        else:
            begin, end = header["architecture"]["data_offsets"]
            config = changed(json.loads(zlib.decompress(body[begin:end])), random)
            new = zlib.compress(json.dumps(config).encode(), 9)
            header["architecture"]["shape"] = [len(new)]
            for name, entry in header.items():
                if name != "__metadata__":
                    offsets = entry["data_offsets"]
                    entry["data_offsets"] = [
                        n + (len(new) - end if n >= end else 0) for n in offsets
                    ]
            body = body[:begin] + new + body[end:]
        text = json.dumps(header).encode()
        return b"1" + len(text).to_bytes(8, "little") + text + body
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
        RecursionError,
        zlib.error,
    ):
        return atheris.Mutate(data, most)


COUNTS = {"inputs": 0, "loaded": 0, "refused": 0}


def one(data):
    # The first byte says whether the checksums are made right.
    data = checked(data[1:]) if data[:1] == b"1" else data[1:]
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
