"""Files of format 1 stay readable to the bit, and are written alike.

`python tests/test_golden.py` writes them; only for a new format, beside the old ones.
"""

import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers

import quantal
from conftest import on_one_backend
from quantal import Discrete, LearnableMultiplier, Values, parameters_of
from quantal._storage import container
from repository import ROOT, code_blocks

FOLDER = pathlib.Path(__file__).parent / "golden"
LISTS = {
    "words": {"values": [1, 0, -1], "scale": "learned"},
    "coded": {"values": [1, -1]},
    "channels": {"values": Values([[1, -1, 0.5], [2, -2, 0], [1, 2, 4]], axis=-1)},
    "learned": {"values": Values([0.1, 0.5, -1], learnable=True)},
}


def model_of(name):
    """A model whose codes follow from arithmetic."""
    layer = Discrete(layers.Dense(3, name="dense"), name="discrete", **LISTS[name])
    multiplier = LearnableMultiplier([1, -1, 0.5, -0.5], name="multiplier")
    model = keras.Sequential(
        [keras.Input((700,), name="input"), multiplier, layer], name=f"golden_{name}"
    )
    for parameter in parameters_of(model):
        places = np.arange(np.prod(parameter.shape)) ** 2 % 23
        codes = np.minimum(places * len(parameter.values) // 23, len(parameter.values) - 1)
        if name == "coded":
            codes = codes * (places == 4)
        if parameter.scale_state is not None:
            parameter.scale_state.begin(np.float32(0.3))
        parameter.set_codes(codes.reshape(parameter.shape))
    layer.layer.bias.assign([0.25, -1, 3])
    return model


@pytest.mark.parametrize("name", LISTS)
def test_golden(name, tmp_path):
    expected, path = model_of(name), FOLDER / f"{name}.quantal"
    found = quantal.load(path)
    for old, new in zip(parameters_of(expected), parameters_of(found), strict=True):
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(old.weight),
            keras.ops.convert_to_numpy(new.weight),
        )
    x = np.random.default_rng(0).normal(size=(3, 700))
    np.testing.assert_array_equal(expected.predict(x, verbose=0), found.predict(x, verbose=0))
    # Written again, all but the architecture is the same: that is Keras's, and its versions differ.
    quantal.save(expected, tmp_path / "again")
    first, second = container.read(path), container.read(tmp_path / "again")
    assert list(first.arrays) == list(second.arrays)
    for key in set(first.arrays) - {"architecture"}:
        np.testing.assert_array_equal(first.arrays[key], second.arrays[key])
    assert first.metadata["weights"] == second.metadata["weights"]
    assert first.metadata.keys() == second.metadata.keys()
    assert second.metadata["keras"] == keras.__version__
    packings = {entry.get("packing") for entry in first.metadata["weights"]}
    assert ("coded" if name == "coded" else "words") in packings


READER = """
import sys


class NotInstalled:
    def find_spec(name, path, target=None):
        if name in ("keras", "tensorflow", "jax", "torch"):
            raise ModuleNotFoundError(name)


sys.meta_path.insert(0, NotInstalled)
{reader}
from quantal._storage import container

path, target = sys.argv[1:]
weights, _ = read(path)
np.savez(target, *weights.values())
assert container.read(path).metadata["format"] == 1
"""


@on_one_backend
@pytest.mark.parametrize("name", LISTS)
def test_the_documented_reader_needs_no_backend(name, tmp_path):
    if not (ROOT / "docs").exists():
        pytest.skip("docs is not beside the installed package")
    (reader,) = [block for block in code_blocks("docs/format.md") if "def read(" in block]
    program = READER.format(reader=reader)
    arguments = [FOLDER / f"{name}.quantal", tmp_path / "weights.npz"]
    subprocess.run([sys.executable, "-c", program, *arguments], check=True)
    model = model_of(name)
    expected = [parameter.weight for parameter in parameters_of(model)]
    with np.load(tmp_path / "weights.npz") as weights:
        for array, number in zip(weights.values(), [*expected, model.weights[-1]], strict=True):
            np.testing.assert_array_equal(array, keras.ops.convert_to_numpy(number))


if __name__ == "__main__":
    for name in LISTS:
        quantal.save(model_of(name), FOLDER / f"{name}.quantal")
