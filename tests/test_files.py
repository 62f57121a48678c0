"""A model on disk: the same numbers again, in few bytes; nothing but ValueError on others."""

import json
import threading
import zlib

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

import quantal
from conftest import numpy, on_one_backend
from lists import lists
from quantal import Discrete, LearnableMultiplier, Scale, Values, parameters_of
from quantal._storage import atomic, container
from quantal._storage.packing import entropy
from test_discrete import CASES, model_of


def saved_and_loaded(model, folder):
    quantal.save(model, folder / "model.quantal")
    return quantal.load(folder / "model.quantal")


def assert_same(model, again, x):
    for one, other in zip(parameters_of(model), parameters_of(again), strict=True):
        np.testing.assert_array_equal(numpy(one.codes), numpy(other.codes))
        np.testing.assert_array_equal(one.values.numbers, other.values.numbers)
    np.testing.assert_array_equal(model.predict(x, verbose=0), again.predict(x, verbose=0))


def small(values="ternary", compiled=False, **arguments):
    kernel = Discrete(layers.Dense(5), values, **arguments)
    model = keras.Sequential([keras.Input((7,)), LearnableMultiplier(), kernel])
    if compiled:
        model.compile("adam", "mse")
    return model


def moved(model, random):
    """The model with other numbers in every weight, as after training."""
    for variable in model.weights:
        numbers = numpy(variable)
        if numbers.dtype.kind == "f":
            variable.assign(numbers + 0.1 * random.random(numbers.shape).astype(numbers.dtype))
    return model


@pytest.mark.parametrize("name", CASES)
def test_every_kind_of_layer(name, tmp_path, random):
    case = CASES[name]
    model = moved(model_of(case, case.wrapped(scale="learned")), random)
    assert_same(model, saved_and_loaded(model, tmp_path), case.data())


ARGUMENTS = [
    {"values": Values([0.3, -2, 1.5, 0], learnable=True)},
    {"values": Values([100, 101, 103], learnable=True)},
    {"values": Values([[1, -1, 0.5], [2, -2, 0], [3, 1, 2], [1, 5, 2], [1, 2, 3]], axis=-1)},
    {"scale": Scale("learned", "output", power_of_two=True)},
    {"scale": Scale("least_squares", 0), "estimator": "annealed"},
    {"values": "nf4", "estimator": "gumbel_softmax"},
    {"values": [0.25]},
]


@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_every_kind_of_parameter(arguments, tmp_path, random):
    model = moved(small(**arguments), random)
    assert_same(model, saved_and_loaded(model, tmp_path), random.normal(size=(9, 7)))


def test_mixed_precision_and_half_precision_weights(tmp_path, random):
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = small()
    model.add(layers.Dense(3, dtype="bfloat16"))
    assert_same(moved(model, random), saved_and_loaded(model, tmp_path), np.ones((2, 7)))


def test_a_layer_that_is_called_twice_and_layers_with_one_name(tmp_path, random):
    shared = Discrete(layers.Dense(7), "ternary")
    inputs = keras.Input((7,))
    inner = keras.Sequential([keras.Input((7,)), layers.Dense(7, name="dense")], name="dense")
    model = keras.Model(inputs, inner(shared(shared(inputs))))
    assert_same(moved(model, random), saved_and_loaded(model, tmp_path), random.normal(size=(3, 7)))


def test_latents_and_optimizer_stay_behind(tmp_path, random):
    model = small(compiled=True)
    model.fit(random.normal(size=(64, 7)), random.normal(size=(64, 5)), verbose=0)
    quantal.save(model, tmp_path / "model.quantal")
    arrays, about = container.read(tmp_path / "model.quantal")
    names = [entry["name"] for entry in about["weights"]]
    assert [name.rsplit("/", 1)[1] for name in names] == ["kernel", "kernel", "bias"]
    assert {array.size for name, array in arrays.items() if "kernel" in name} <= {1, 7, 2, 3}
    again = quantal.load(tmp_path / "model.quantal")
    assert not again.compiled
    again.compile("adam", "mse")
    again.fit(random.normal(size=(64, 7)), random.normal(size=(64, 5)), verbose=0)


def test_the_same_model_gives_the_same_bytes(tmp_path):
    model = small()
    quantal.save(model, tmp_path / "one")
    quantal.save(model, tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize(("values", "shares"), [([1, -1], [1, 1]), ("ternary", [0.7, 0.2, 0.1])])
def test_size(values, shares, tmp_path, random):
    layer = Discrete(layers.Dense(400, use_bias=False), values)
    model = keras.Sequential([keras.Input((250,)), layer])
    codes = random.choice(len(shares), (250, 400), p=np.divide(shares, sum(shares)))
    layer.set_codes(codes)
    assert quantal.save(model, tmp_path / "m") <= 1.01 * entropy(codes) * 1e5 / 8 + 2000


def test_safetensors_reads_it(tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")
    quantal.save(small(), tmp_path / "model")
    theirs = safetensors.load_file(tmp_path / "model")
    ours = container.read(tmp_path / "model").arrays
    assert theirs.keys() == ours.keys()
    for name, array in ours.items():
        np.testing.assert_array_equal(theirs[name], array)


# Any arrays come back as they were.

DTYPES = ["?", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8"]


@on_one_backend
@given(st.lists(st.tuples(st.text(), st.sampled_from(DTYPES), st.lists(st.integers(0, 4)))))
def test_arrays_come_back(tmp_path_factory, wanted):
    random = np.random.default_rng(0)
    arrays = {
        name: np.frombuffer(random.bytes(np.dtype(t).itemsize * int(np.prod(s))), t).reshape(s)
        if t != "?"
        else random.random(s) < 0.5
        for name, t, s in wanted
        if name != "__metadata__"
    }
    path = tmp_path_factory.getbasetemp() / "arrays"
    container.write(path, arrays, {"told": [1, "é"]})
    found, about = container.read(path)
    assert about["told"] == [1, "é"]
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        assert found[name].tobytes() == array.tobytes()


@settings(max_examples=20)
@given(lists(longest=40), st.integers(0, 2**32 - 1))
def test_any_list(tmp_path_factory, values, seed):
    layer = LearnableMultiplier(values)
    model = keras.Sequential([keras.Input((50,)), layer])
    layer.set_codes(np.random.default_rng(seed).integers(len(values), size=50))
    path = tmp_path_factory.getbasetemp() / "any_list"
    quantal.save(model, path)
    again = quantal.load(path)
    np.testing.assert_array_equal(numpy(again.layers[0].codes), numpy(layer.codes))
    assert again.layers[0].values == layer.values


# What is not such a file is refused by name; so is what was changed.


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    keras.utils.set_random_seed(0)
    path = tmp_path_factory.mktemp("whole") / "model.quantal"
    quantal.save(small(scale="learned"), path)
    return path.read_bytes()


def refusal(tmp_path, data):
    path = tmp_path / "bad.quantal"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"bad\.quantal: .* is not readable") as caught:
        quantal.load(path)
    assert "Take an unchanged copy" in str(caught.value)
    return str(caught.value)


@on_one_backend
def test_every_flipped_bit_is_found(whole, tmp_path, random):
    for bit in random.permutation(8 * len(whole))[:400]:
        data = bytearray(whole)
        data[bit // 8] ^= 1 << (bit % 8)
        refusal(tmp_path, bytes(data))


@on_one_backend
def test_every_cut_is_found(whole, tmp_path, random):
    for end in [*range(20), *random.permutation(len(whole))[:100], len(whole) - 1]:
        refusal(tmp_path, whole[:end])
    refusal(tmp_path, whole + b"\0")


@on_one_backend
@settings(max_examples=300)
@given(st.data())
def test_any_bytes(tmp_path_factory, whole, data):
    """Nothing but ValueError, whatever stands in the file."""
    head = data.draw(st.sampled_from([0, 8, 20, 200, len(whole) - 40]))
    path = tmp_path_factory.getbasetemp() / "bad.quantal"
    path.write_bytes(whole[:head] + data.draw(st.binary(max_size=300)))
    with pytest.raises(ValueError, match="is not readable"):
        quantal.load(path)


def attacked(whole, change, checksums=True):
    """The file with a changed header, its checksums made right again."""
    length = int.from_bytes(whole[:8], "little")
    header, body = json.loads(whole[8 : 8 + length]), whole[8 + length :]
    about = json.loads(header["__metadata__"]["quantal"])
    body = change(header, about, body) or body
    for name, entry in header.items():
        if name != "__metadata__" and checksums:
            try:
                begin, end = entry["data_offsets"]
                about["checksums"][name] = f"{zlib.crc32(body[begin:end]):08x}"
            except (TypeError, KeyError):
                continue
    header["__metadata__"] = {"quantal": json.dumps(about), "checksum": "00000000"}
    text = json.dumps(header, separators=(",", ":")).encode()
    own = f'"checksum":"{zlib.crc32(text):08x}"'.encode()
    text = text.replace(b'"checksum":"00000000"', own, 1)
    return len(text).to_bytes(8, "little") + text + body


def replaced_architecture(change):
    """An attack that changes the architecture's JSON."""

    def attack(header, about, body):
        begin, end = header["architecture"]["data_offsets"]
        config = json.loads(zlib.decompress(body[begin:end]))
        text = zlib.compress(json.dumps(change(config)).encode())
        shift = len(text) - (end - begin)
        header["architecture"].update(shape=[len(text)], data_offsets=[begin, begin + len(text)])
        for name, entry in header.items():
            if name not in ("__metadata__", "architecture"):
                entry["data_offsets"] = [place + shift for place in entry["data_offsets"]]
        return body[:begin] + text + body[end:]

    return attack


def codes_name(header):
    return next(name for name in header if name.endswith(".codes"))


def values_name(header):
    return codes_name(header).replace(".codes", ".values")


def set_entry(name_of, **fields):
    return lambda header, about, body: header[name_of(header)].update(fields)


def set_weight(**fields):
    return lambda header, about, body: about["weights"][0].update(fields)


def nan_in_the_list(header, about, body):
    begin = header[values_name(header)]["data_offsets"][0]
    return body[:begin] + np.float32("nan").tobytes() + body[begin + 4 :]


def another_list(header, about, body):
    begin = header[values_name(header)]["data_offsets"][0]
    return body[:begin] + np.float32(7).tobytes() + body[begin + 4 :]


def bomb(header, about, body):
    return replaced_architecture(lambda config: {"zeros": "0" * 2**26})(header, about, body)


def lambda_layer(config):
    layer = layers.Lambda(lambda x: x)
    config["config"]["layers"].append(keras.saving.serialize_keras_object(layer))
    return config


def wide(config):
    config["config"]["layers"][2]["config"]["layer"]["config"]["units"] = 2**40
    return config


def foreign(config):
    config["config"]["layers"][1].update(module="os", class_name="system", registered_name="system")
    return config


ATTACKS = {
    "elements": set_entry(codes_name, shape=[2**60]),
    "negative": set_entry(codes_name, shape=[-1]),
    "booleans": set_entry(codes_name, shape=[True]),
    "overlap": set_entry(values_name, data_offsets=[0, 8]),
    "beyond the end": set_entry(codes_name, shape=[10**9], data_offsets=[0, 10**9]),
    "dtype": set_entry(codes_name, dtype="OBJECT"),
    "no dtype": lambda header, about, body: header[codes_name(header)].pop("dtype") and None,
    "entry": lambda header, about, body: header.update({codes_name(header): [1]}),
    "huge weight": set_weight(shape=[2**60]),
    "huge weight of two": set_weight(shape=[2**20, 2**20]),
    "another shape": set_weight(shape=[6]),
    "another base": set_weight(base=3),
    "no base": lambda header, about, body: about["weights"][0].pop("base") and None,
    "another packing": set_weight(packing="coded"),
    "a name that is none": set_weight(name=["x"]),
    "a weight that is none": lambda header, about, body: about["weights"].__setitem__(0, 7),
    "a weight too few": lambda header, about, body: about["weights"].pop() and None,
    "another version": lambda header, about, body: about.update(format=2),
    "NaN in the list": nan_in_the_list,
    "another list": another_list,
    "inflates": bomb,
    "lambda": replaced_architecture(lambda_layer),
    "foreign": replaced_architecture(foreign),
    "no config": replaced_architecture(lambda config: {}),
    "nested": replaced_architecture(lambda config: {"a": [[[[[[1]]]]]]}),
}


@on_one_backend
@pytest.mark.parametrize("name", ATTACKS)
def test_attack(name, whole, tmp_path):
    refusal(tmp_path, attacked(whole, ATTACKS[name]))


def test_a_wide_architecture_is_refused_before_it_is_built(whole, tmp_path):
    assert "has the size" in refusal(tmp_path, attacked(whole, replaced_architecture(wide)))


def test_an_attack_without_a_change_is_none(whole, tmp_path):
    (tmp_path / "model").write_bytes(attacked(whole, lambda header, about, body: None))
    quantal.load(tmp_path / "model")


def test_deep_json(tmp_path):
    text = b"[" * 200_000
    refusal(tmp_path, len(text).to_bytes(8, "little") + text)


def test_names_twice(tmp_path):
    text = b'{"__metadata__":{"quantal":"{}","checksum":"00000000"},"a":1,"a":2}'
    assert "twice" in refusal(tmp_path, len(text).to_bytes(8, "little") + text)


# Nothing is lost.


def test_a_failing_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "model"
    quantal.save(small(), path)
    before = path.read_bytes()
    monkeypatch.setattr(atomic.os, "fsync", lambda number: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        quantal.save(small(), path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


def test_writers_at_the_same_time_do_not_mix(tmp_path):
    path = tmp_path / "arrays"
    parts = [np.full(100_000, number, np.uint8) for number in range(8)]
    threads = [
        threading.Thread(target=container.write, args=(path, {"a": part}, {})) for part in parts
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(container.read(path).arrays["a"].tolist())) == 1


def test_bad_input(tmp_path):
    with pytest.raises(TypeError, match=r"Expected a Keras model\. Put the layer into"):
        quantal.save(LearnableMultiplier(), tmp_path / "m")
    with pytest.raises(ValueError, match="is not built"):
        quantal.save(keras.Sequential([layers.Dense(1)]), tmp_path / "m")
    with pytest.raises(TypeError, match="complex64"):
        container.write(tmp_path / "m", {"a": np.zeros(1, np.complex64)}, {})
    with pytest.raises(FileNotFoundError):
        quantal.load(tmp_path / "none")
    assert not list(tmp_path.iterdir())
