"""A model on disk: the same numbers again, in few bytes; nothing but ValueError on others."""

import contextlib
import json
import os
import re
import sys
import threading
import time
import traceback
import zlib

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers
from safetensors import safe_open
from safetensors.numpy import save_file

import hostile
import quantal
from conftest import numpy, on_one_backend
from lists import lists
from models import CASES, assert_same, model_of
from quantal import Discrete, LearnableMultiplier, Scale, Values, parameters_of
from quantal._core.numbers.entropy import entropy
from quantal._models import files
from quantal._models.config_limits import check_config
from quantal._models.table_features import TableFeatures
from quantal._storage import atomic, container


def saved_and_loaded(model, folder):
    quantal.save(model, folder / "model.quantal")
    return quantal.load(folder / "model.quantal")


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


@pytest.mark.product
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
    arrays, metadata = container.read(tmp_path / "model.quantal")
    names = [entry["name"] for entry in metadata["weights"]]
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


def test_the_architecture_is_written_without_spaces(tmp_path):
    quantal.save(small(), tmp_path / "model")
    text = zlib.decompress(container.read(tmp_path / "model").arrays["architecture"].tobytes())
    assert b" " not in text


@pytest.mark.parametrize(("values", "shares"), [([1, -1], [1, 1]), ("ternary", [0.7, 0.2, 0.1])])
def test_size(values, shares, tmp_path, random):
    layer = Discrete(layers.Dense(400, use_bias=False), values)
    model = keras.Sequential([keras.Input((250,)), layer])
    codes = random.choice(len(shares), (250, 400), p=np.divide(shares, sum(shares)))
    layer.set_codes(codes)
    assert quantal.save(model, tmp_path / "m") <= 1.01 * entropy(codes) * 1e5 / 8 + 2000


@on_one_backend
def test_a_list_of_one_value_serves_a_million_elements_at_most(tmp_path):
    # It takes no bytes, whatever the weight's shape.
    for excess in (0, 1):
        model = keras.Sequential([keras.Input((2**20 + excess,)), LearnableMultiplier([0.25])])
        if excess:
            with pytest.raises(ValueError, match=r"1,048,577 elements.*Expected at most 1,048,576"):
                quantal.save(model, tmp_path / "m")
        else:
            (parameter,) = parameters_of(saved_and_loaded(model, tmp_path))
            assert parameter.shape == (2**20,)


@on_one_backend
def test_a_weight_without_elements_comes_back(tmp_path):
    model = keras.Sequential([keras.Input((0,)), LearnableMultiplier([1, -1]), layers.Dense(2)])
    assert_same(model, saved_and_loaded(model, tmp_path), np.zeros((3, 0)))


@on_one_backend
def test_a_large_weight_on_no_list_comes_back(tmp_path):
    # The limits for hostile files leave room for what a file really holds.
    plain = layers.Dense(1200, use_bias=False, kernel_initializer="ones", name="plain")
    model = keras.Sequential([keras.Input((1000,)), plain, Discrete(layers.Dense(2), "ternary")])
    assert_same(model, saved_and_loaded(model, tmp_path), np.ones((1, 1000)))


def two_of_one_name():
    inputs = keras.Input((7,))
    inner = keras.Sequential([keras.Input((7,)), layers.Dense(7, name="dense")], name="dense")
    return keras.Model(inputs, layers.Dense(2, name="dense2")(inner(inner(inputs))), name="net")


def two_of_one_name_with_dots():
    def inner(name):
        inputs = keras.Input((7,))
        return keras.Model(inputs, layers.Dense(7, name="a.b")(inputs), name=name)

    inputs = keras.Input((7,))
    return keras.Model(inputs, inner("one")(inner("two")(inputs)), name="net")


def with_names():
    plain = [layers.Dense(5, name="a"), layers.Dense(4, name="b")]
    return keras.Sequential([keras.Input((7,)), *plain], name="net")


# Keras on PyTorch takes no name with a dot.
MODELS_WITH_NAMES = [
    (with_names, {"a/": "ternary", "b/": [1, -1, 0.5]}),
    (two_of_one_name, {"dense/": "ternary", "dense2": [1, -1, 0.5]}),
]
if keras.config.backend() != "torch":
    MODELS_WITH_NAMES.append((two_of_one_name_with_dots, "ternary"))


@pytest.mark.product
@pytest.mark.parametrize(("make", "rules"), MODELS_WITH_NAMES)
def test_a_loaded_model_has_the_names_and_gives_the_same_bytes(make, rules, tmp_path):
    model = quantal.discretize(make(), rules)
    again = saved_and_loaded(model, tmp_path)
    assert [p.path for p in parameters_of(again)] == [p.path for p in parameters_of(model)]
    assert_same(model, again, np.eye(7))
    quantal.save(again, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "model.quantal").read_bytes()


def adapted():
    lookup = layers.IntegerLookup(output_mode="multi_hot")
    lookup.adapt(np.array([[10, 20, 30, 40]]))
    normal = layers.Normalization()
    normal.adapt(np.array([[1.0, 20, 3], [3, 5, 100]]))
    inputs = keras.Input((3,), dtype="int64")
    x = layers.Concatenate()([lookup(inputs), normal(inputs)])
    inner = keras.Model(inputs, Discrete(layers.Dense(3), [-1, 1])(x))
    return keras.Model(inputs, layers.Dense(2)(inner(inputs)))


@pytest.mark.filterwarnings("ignore:Explicitly requested dtype int64")  # Of lookups on JAX.
def test_what_layers_keep_besides_weights_comes_back(tmp_path):
    model, x = adapted(), np.array([[10, 20, 99], [30, 40, 10]])
    again = saved_and_loaded(model, tmp_path)
    np.testing.assert_array_equal(numpy(model(x)), numpy(again(x)))
    quantal.save(again, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "model.quantal").read_bytes()


@on_one_backend
@pytest.mark.parametrize("name", ["../outside", "0/x", "99/vocabulary.txt", "", "a/b"])
def test_an_asset_of_no_layer_is_refused(name, tmp_path):
    quantal.save(adapted(), tmp_path / "bad.quantal")
    arrays, metadata = container.read(tmp_path / "bad.quantal")
    (array,) = metadata["assets"].values()
    container.write(tmp_path / "bad.quantal", arrays, {**metadata, "assets": {name: array}})
    assert "the assets" in refusal(tmp_path, (tmp_path / "bad.quantal").read_bytes())


# What could not be loaded is not saved, and what stood there before stays.


def doubled(x):
    return 2 * x


@keras.saving.register_keras_serializable(package="quantal-tests")
class TwoLayers(keras.Model):
    """A user's model, which `discretize` can change and its config cannot describe then."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first, self.last = layers.Dense(5), layers.Dense(2)

    def call(self, x):
        return self.last(self.first(x))


class NotRegistered(layers.Layer):
    def call(self, x):
        return x


@keras.saving.register_keras_serializable(package="quantal-tests")
class LateLayer(layers.Layer):
    """A layer whose config leaves out how many weights it has."""

    def __init__(self, count=0, **kwargs):
        super().__init__(**kwargs)
        self.count = count

    def build(self, shape):
        self.kept = [self.add_weight(shape=(1,), name=f"w{i}") for i in range(self.count)]

    def call(self, x):
        return x

    def get_config(self):
        return {"name": self.name}


def with_layer(layer):
    return keras.Sequential([keras.Input((7,)), layer, Discrete(layers.Dense(2), "ternary")])


def discretized():
    model = TwoLayers()
    model(np.ones((1, 3), "float32"))
    return quantal.discretize(model, "ternary")


CANNOT_BE_LOADED = {
    "lambda": (lambda: with_layer(layers.Lambda(lambda x: x, name="mine")), "'mine' holds code"),
    "function": (lambda: with_layer(layers.Dense(7, activation=doubled)), "doubled"),
    "lambda inside": (
        lambda: with_layer(keras.Sequential([layers.Lambda(lambda x: x, name="deep")])),
        "'deep' holds code",
    ),
    "class": (lambda: with_layer(NotRegistered()), "NotRegistered.*register_keras_serializable"),
    "missing argument": (lambda: with_layer(LateLayer(2)), "late_layer/w0' is on no list"),
    "subclassed": (discretized, "on a list, of shape .3, 5., and .* on no list"),
}


@on_one_backend
@pytest.mark.parametrize("name", CANNOT_BE_LOADED)
def test_what_could_not_be_loaded_is_not_saved(name, tmp_path):
    make, words = CANNOT_BE_LOADED[name]
    (tmp_path / "model").write_bytes(b"good")
    with pytest.raises(ValueError, match=f"is not saved.*{words}") as raised:
        quantal.save(make(), tmp_path / "model")
    assert (tmp_path / "model").read_bytes() == b"good"
    # Keras's errors repeat the config of the whole model, pages of it.
    assert "config={" not in "".join(traceback.format_exception(raised.value))


@on_one_backend
def test_a_class_of_another_program_is_named_when_a_file_is_loaded(tmp_path, monkeypatch):
    model = with_layer(LateLayer())
    quantal.save(model, tmp_path / "model.quantal")
    monkeypatch.delitem(
        keras.saving.get_custom_objects(), keras.saving.get_registered_name(LateLayer)
    )
    monkeypatch.delattr(sys.modules[__name__], "LateLayer")  # Keras looks there, too.
    with pytest.raises(ValueError, match=r"has 'LateLayer'.*Import the module") as raised:
        quantal.load(tmp_path / "model.quantal")
    assert "config={" not in "".join(traceback.format_exception(raised.value))


def own_loss(y, prediction):
    return keras.ops.mean((y - prediction) ** 2)


@pytest.mark.product
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_what_a_model_inside_was_compiled_with_stays_behind(depth, tmp_path):
    model = small()
    for _ in range(depth):
        model.compile(keras.optimizers.SGD(0.125), own_loss)
        model = keras.Sequential([keras.Input((7,)), model])
    model.compile("adam", lambda y, prediction: own_loss(y, prediction))
    again = saved_and_loaded(model, tmp_path)
    assert (model.compiled, model.layers[0].compiled) == (True, True)
    assert (again.compiled, again.layers[0].compiled) == (False, False)
    assert_same(model, again, np.ones((2, 7)))


DIVERGED = {
    "latent": lambda p: p.latent.assign(np.full(p.shape, np.nan)),
    "one latent": lambda p: p.latent.assign(np.where(np.arange(5) == 2, np.inf, numpy(p.latent))),
    "scale": lambda p: p.scale_state.relative.assign(np.full(p.scale_state.relative.shape, np.nan)),
    "list": lambda p: p.entries.assign(np.array([0.1, np.nan], "float32")),
}


@pytest.mark.product
@pytest.mark.parametrize("name", DIVERGED)
def test_a_diverged_model_is_not_saved(name, tmp_path):
    model = small(Values([1, -1], learnable=True), scale="learned")
    parameter = parameters_of(model)[1]
    DIVERGED[name](parameter)
    (tmp_path / "model").write_bytes(b"good")
    with pytest.raises(ValueError, match=rf"of {parameter.path} are not finite"):
        quantal.save(model, tmp_path / "model")
    assert (tmp_path / "model").read_bytes() == b"good"


def test_code_in_a_file_does_not_run_where_keras_allows_it(whole, tmp_path):
    data = attacked(replaced_architecture(lambda_layer), whole, tmp_path)
    keras.config.enable_unsafe_deserialization()
    try:
        assert "Lambda" in refusal(tmp_path, data)
    finally:
        keras.src.backend.common.global_state.set_global_attribute("safe_mode_saving", None)


# Any safetensors tool reads the files, and may write them again.


def rewritten(path, target, change=lambda arrays, metadata: None):
    """Write a file again by safetensors alone, without regard to its digests."""
    with safe_open(path, "np") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    change(arrays, metadata)
    save_file(arrays, target, metadata)
    return target


def reordered(data):
    """The same content with the arrays in the opposite order and other padding."""
    header, body = parts_of(data)
    entries = sorted(header.keys() - {"__metadata__"}, reverse=True)
    new, parts, end = {}, [], 0
    for name in entries:
        parts.append(body[slice(*header[name]["data_offsets"])])
        new[name] = {**header[name], "data_offsets": [end, end + len(parts[-1])]}
        end += len(parts[-1])
    return joined({**new, "__metadata__": header["__metadata__"]}, b"".join(parts), padding=21)


def test_a_file_written_again_by_safetensors_still_loads(tmp_path, random):
    model = moved(small(scale="learned"), random)
    quantal.save(model, tmp_path / "model")
    again = quantal.load(rewritten(tmp_path / "model", tmp_path / "again"))
    assert_same(model, again, random.normal(size=(9, 7)))
    more = rewritten(tmp_path / "model", tmp_path / "more", lambda _, m: m.update(format="np"))
    assert_same(model, quantal.load(more), random.normal(size=(9, 7)))


def test_order_and_padding_do_not_matter(whole, tmp_path):
    other = reordered(whole)
    assert len(other) != len(whole)
    (tmp_path / "whole").write_bytes(whole)
    (tmp_path / "other").write_bytes(other)
    ones, others = (container.read(tmp_path / name) for name in ("whole", "other"))
    assert ones.metadata == others.metadata
    for name, array in ones.arrays.items():
        np.testing.assert_array_equal(others.arrays[name], array)
    assert_same(quantal.load(tmp_path / "whole"), quantal.load(tmp_path / "other"), np.ones((2, 7)))


CHANGES = {
    "a missing tensor": lambda tensors, _: tensors.pop("float32"),
    "another tensor": lambda tensors, _: tensors.update({"float64": np.ones(3)}),
    "another list": lambda tensors, _: tensors["float32"].__imul__(2),
    "another dtype": lambda tensors, _: tensors.update(float32=tensors["float32"].view(np.int32)),
    "another shape": lambda tensors, _: tensors.update(float32=tensors["float32"][None]),
    "other codes": lambda tensors, _: tensors["uint8"].__ixor__(1),
    "another table": lambda tensors, _: tensors["contents"].__ixor__(1),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_tensor_is_refused_by_name(name, whole, tmp_path):
    (tmp_path / "model").write_bytes(whole)
    path = rewritten(tmp_path / "model", tmp_path / "changed", CHANGES[name])
    with pytest.raises(
        ValueError, match=r"changed: the tensor '(float|uint|conte).*' is not readable"
    ):
        quantal.load(path)


def test_a_file_without_its_metadata_is_refused(whole, tmp_path):
    (tmp_path / "model").write_bytes(whole)
    path = rewritten(tmp_path / "model", tmp_path / "changed", lambda _, metadata: metadata.clear())
    with pytest.raises(ValueError, match="changed: the metadata is not readable: KeyError"):
        quantal.load(path)


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
    container.write(path, arrays, {"list": [1, "é"]})
    read, metadata = container.read(path)
    assert metadata == {"list": [1, "é"]}
    assert read.keys() == arrays.keys()
    for name, array in arrays.items():
        assert (read[name].dtype, read[name].shape) == (array.dtype, array.shape)
        assert read[name].tobytes() == array.tobytes()


@on_one_backend
def test_arrays_of_any_layout_come_back(tmp_path):
    whole = np.arange(24, dtype=np.float32).reshape(4, 6)
    arrays = {"big": whole.astype(">f4"), "strided": whole[::2, 1::3], "turned": whole.T}
    container.write(tmp_path / "arrays", arrays, {})
    for name, array in container.read(tmp_path / "arrays").arrays.items():
        np.testing.assert_array_equal(array, arrays[name])


@pytest.mark.product
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
@pytest.mark.parametrize("ending", [".keras", ".h5", ".KERAS"])
def test_an_ending_of_keras_is_refused_and_an_old_file_stays(ending, tmp_path):
    path = tmp_path / f"model{ending}"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match=r"Keras could not load .* call model\.save") as caught:
        quantal.save(small(), path)
    assert "'.quantal'" in str(caught.value)
    assert path.read_bytes() == b"old"


@on_one_backend
@pytest.mark.parametrize("name", ["model.keras", "model.weights.h5"])
def test_a_file_of_keras_is_named_as_one(name, tmp_path):
    model = small()
    (model.save if name.endswith("keras") else model.save_weights)(tmp_path / name)
    with pytest.raises(ValueError, match=r"is a file of Keras, .* keras\.saving\.load_model"):
        quantal.load(tmp_path / name)


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


def parts_of(data):
    """The header and the arrays' bytes of a safetensors file."""
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def joined(header, body, padding=0):
    text = json.dumps(header).encode() + b" " * padding
    return len(text).to_bytes(8, "little") + text + body


def set_entry(name, **fields):
    """An attack on the header's entry of a tensor; digests do not come into play."""

    def attack(path):
        header, body = parts_of(path.read_bytes())
        header[name].update(fields)
        path.write_bytes(joined(header, body))

    return attack


def no_dtype(path):
    header, body = parts_of(path.read_bytes())
    del header["uint8"]["dtype"]
    path.write_bytes(joined(header, body))


def entry_that_is_none(path):
    header, body = parts_of(path.read_bytes())
    header["uint8"] = [1]
    path.write_bytes(joined(header, body))


def with_right_digests(change):
    """An attack that changes arrays or metadata and makes the digests right again."""

    def attack(path):
        arrays, metadata = container.read(path)
        change(arrays, metadata)
        container.write(path, arrays, metadata)

    return attack


def codes_name(arrays):
    return min(name for name in arrays if name.endswith(".codes"))


def bias_name(arrays):
    return min(name for name in arrays if name.endswith("/bias"))


def set_weight(**fields):
    return with_right_digests(lambda arrays, metadata: metadata["weights"][0].update(fields))


def set_number(kind, number):
    """An attack on the first number of a list, or of a scale."""

    def change(arrays, metadata):
        name = min(name for name in arrays if name.endswith(f".{kind}"))
        numbers = arrays[name].copy()
        numbers.reshape(-1)[0] = number
        arrays[name] = numbers

    return with_right_digests(change)


def replaced_architecture(change):
    """An attack that changes the architecture's JSON."""

    def replace(arrays, metadata):
        config = json.loads(zlib.decompress(arrays["architecture"].tobytes()))
        text = zlib.compress(json.dumps(change(config)).encode())
        arrays["architecture"] = np.frombuffer(text, np.uint8)

    return with_right_digests(replace)


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
    "elements": set_entry("uint8", shape=[2**60]),
    "negative": set_entry("uint8", shape=[-1]),
    "booleans": set_entry("uint8", shape=[True]),
    "overlap": set_entry("float32", data_offsets=[0, 8]),
    "beyond the end": set_entry("uint8", shape=[10**9], data_offsets=[0, 10**9]),
    "dtype": set_entry("uint8", dtype="OBJECT"),
    "a dtype that NumPy lacks": set_entry("uint8", dtype="F8_E4M3"),
    "too many dimensions": set_entry("uint8", shape=[2] + [1] * 99),
    "no dtype": no_dtype,
    "entry": entry_that_is_none,
    "huge weight": set_weight(shape=[2**60]),
    "huge weight of two": set_weight(shape=[2**20, 2**20]),
    "another shape": set_weight(shape=[6]),
    "another base": set_weight(base=3),
    "no base": with_right_digests(lambda _, metadata: metadata["weights"][0].pop("base")),
    "another packing": set_weight(packing="coded"),
    "a name that is none": set_weight(name=["x"]),
    "a weight that is none": with_right_digests(
        lambda _, metadata: metadata["weights"].__setitem__(0, 7)
    ),
    "a weight too few": with_right_digests(lambda _, metadata: metadata["weights"].pop()),
    "another version": with_right_digests(lambda _, metadata: metadata.update(format=2)),
    "a missing array": with_right_digests(lambda arrays, _: arrays.pop(codes_name(arrays))),
    "NaN in the list": set_number("values", np.nan),
    "another list": set_number("values", 7),
    "an infinite scale": set_number("scale", np.inf),
    "a scale that is NaN": set_number("scale", np.nan),
    "a scale of 0": set_number("scale", 0),
    "inflates": replaced_architecture(lambda config: {"zeros": "0" * 2**26}),
    "lambda": replaced_architecture(lambda_layer),
    "no config": replaced_architecture(lambda config: {}),
    "nested": replaced_architecture(lambda config: {"a": [[[[[[1]]]]]]}),
}


def attacked(attack, whole, tmp_path):
    path = tmp_path / "attacked"
    path.write_bytes(whole)
    attack(path)
    return path.read_bytes()


@on_one_backend
def test_no_function_of_another_module_is_taken_for_a_layer(whole, tmp_path):
    path = tmp_path / "attacked"
    path.write_bytes(attacked(replaced_architecture(foreign), whole, tmp_path))
    with pytest.raises(ValueError, match="it has 'system', which is not registered"):
        quantal.load(path)


@on_one_backend
@pytest.mark.parametrize("name", ATTACKS)
def test_attack(name, whole, tmp_path):
    refusal(tmp_path, attacked(ATTACKS[name], whole, tmp_path))


@on_one_backend
@pytest.mark.parametrize("shape", [[np.nan], [-7, -5], [True, 35], [35.0], [2**60]])
def test_a_shape_that_cannot_be_is_refused_before_the_model_is_built(
    shape, whole, tmp_path, monkeypatch
):
    # Of NaN numbers, no limit is exceeded.
    data = attacked(set_weight(shape=shape), whole, tmp_path)
    monkeypatch.setattr(files, "_skeleton", lambda *arguments: 1 / 0)
    assert re.search(r"the shape \[|codes in \d+ bytes", refusal(tmp_path, data))


@on_one_backend
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda arrays, name: arrays.pop(name), "KeyError"),
        (lambda arrays, name: arrays.update({name: np.ones((5, 1), "f4")}), "(5, 1) for (5,)"),
        (lambda arrays, name: arrays.update({name: np.ones((), "f4")}), "the shape () for (5,)"),
    ],
)
def test_a_plain_weight_of_another_shape_is_refused_before_memory_is_taken(
    change, words, whole, tmp_path, monkeypatch
):
    attack = with_right_digests(lambda arrays, _: change(arrays, bias_name(arrays)))
    data = attacked(attack, whole, tmp_path)
    monkeypatch.setattr(files.Skeleton, "allocate", lambda skeleton: 1 / 0)
    assert words in refusal(tmp_path, data)


def check_hostile_files(folder):
    """No file takes much before it is refused; some sizes cost nothing, and load."""
    outcomes = {name: hostile.attack(path) for name, path in hostile.write_all(folder).items()}
    for name, (error, seconds, megabytes) in outcomes.items():
        assert error == "none" or re.search("ValueError: .* is not readable", error), (name, error)
        assert seconds < 5, name
        assert megabytes < 200, name
    assert sum(error != "none" for error, *_ in outcomes.values()) >= 40


@on_one_backend
@pytest.mark.skipif(sys.platform != "linux", reason="reads memory as Linux reports it")
def test_hostile_files(tmp_path):
    check_hostile_files(tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads memory as Linux reports it")
def test_hostile_files_on_every_backend(tmp_path):
    check_hostile_files(tmp_path)


@on_one_backend
def test_what_is_no_file_is_refused(tmp_path):
    path = tmp_path / "bad.quantal"
    os.mkfifo(path)
    for wrong, kind in ((path, "device"), ("/dev/zero", "device"), (tmp_path, "folder")):
        with pytest.raises(ValueError, match=rf"is not readable: it is a {kind}.*Take an"):
            quantal.load(wrong)
        with pytest.raises(OSError, match="Expected the path of a file"):
            quantal.save(small(), wrong)


@on_one_backend
def test_a_learned_list_with_nan_is_refused(tmp_path):
    quantal.save(small(Values([1, -1], learnable=True)), tmp_path / "bad.quantal")
    set_number("values", np.nan)(tmp_path / "bad.quantal")
    assert "1 of 2 numbers" in refusal(tmp_path, (tmp_path / "bad.quantal").read_bytes())


@on_one_backend
def test_a_layer_that_is_called_often_is_no_attack(tmp_path):
    shared, x = Discrete(layers.Dense(7), "ternary"), keras.Input((7,))
    inner = keras.Model(x, shared(shared(x)))
    y = x
    for _ in range(100):
        y = inner(y)
    model = keras.Model(x, y)
    assert_same(model, saved_and_loaded(model, tmp_path), np.ones((1, 7)))


@on_one_backend
@pytest.mark.parametrize(("calls", "words"), [(2000, "layers and calls"), (1000, "")])
def test_the_limit_of_layers(calls, words):
    layer = {"class_name": "ReLU", "config": {}, "inbound_nodes": [0] * calls}
    model = {"class_name": "Functional", "config": {"layers": [layer]}}
    refused = pytest.raises(ValueError, match=words) if words else contextlib.nullcontext()
    with refused:
        check_config(model, 1, 0)


def test_a_wide_architecture_is_refused_before_it_is_built(whole, tmp_path):
    data = attacked(replaced_architecture(wide), whole, tmp_path)
    assert "has the size" in refusal(tmp_path, data)


@pytest.mark.parametrize("attack", [set_entry("uint8"), set_weight(), set_number("values", 1)])
def test_an_attack_without_a_change_is_none(attack, tmp_path):
    quantal.save(small([1, -1, 0]), tmp_path / "model")
    attack(tmp_path / "model")
    quantal.load(tmp_path / "model")


def test_the_longest_header_is_read_and_a_longer_one_refused(whole, tmp_path):
    header, body = parts_of(whole)
    for excess in (0, 8):
        padding = 2**20 + excess - len(json.dumps(header))
        (tmp_path / "padded").write_bytes(joined(header, body, padding))
        if not excess:
            container.read(tmp_path / "padded")
    with pytest.raises(ValueError, match="the header is not readable: its size is 1048584 bytes"):
        container.read(tmp_path / "padded")


TABLES = {
    "metadata is no object": ({"arrays": {}, "metadata": []}, {}, "the metadata is no object"),
    "another tensor": ({"int8": [["a", [2]]]}, {}, "it names other tensors"),
    "a dimension more": ({"uint8": [["a", [2] + [1] * 32]]}, {}, r"the shape \[2, 1, 1"),
    "negative": ({"uint8": [["a", [-1, -2]]]}, {}, r"the shape \[-1, -2\]"),
    "a fraction": ({"uint8": [["a", [2.0]]]}, {}, r"the shape \[2.0\]"),
    "too few": ({"uint8": [["a", [1]]]}, {}, "1 numbers for 2 of 'uint8'"),
    "two dimensions": ({"uint8": [["a", [2]]]}, {"shape": (1, 2)}, "2 numbers for 2 of 'uint8'"),
    "a name twice": ({"uint8": [["a", [2]], ["a", 0]]}, {}, "the name 'a' twice, or none"),
    "no name": ({"uint8": [[7, [2]]]}, {}, "the name 7 twice, or none"),
    "a later array": ({"uint8": [["a", 1], ["b", [2]]]}, {}, "IndexError"),
}


@on_one_backend
@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_contents_that_cannot_be_is_refused(name, tmp_path):
    table, tensor, words = TABLES[name]
    table = table if "arrays" in table else {"arrays": table, "metadata": {}}
    text = zlib.compress(json.dumps(table).encode())
    tensors = {"contents": np.frombuffer(text, np.uint8)}
    if table["arrays"]:
        tensors["uint8"] = np.zeros(tensor.get("shape", 2), np.uint8)
    (tmp_path / "bad").write_bytes(container.with_digests(tensors))
    with pytest.raises(ValueError, match=f"the table of contents is not readable: .*{words}"):
        container.read(tmp_path / "bad")


@on_one_backend
def test_an_array_of_many_dimensions_comes_back(tmp_path):
    container.write(tmp_path / "deep", {"a": np.zeros([1] * 32)}, {})
    assert container.read(tmp_path / "deep").arrays["a"].ndim == 32


@on_one_backend
def test_the_limits_of_json():
    # Small texts may have half a million parts, large ones four a byte more.
    text = b"[" + b"0," * (2**19 + 4 * 1000 - 1) + b"0]"
    assert len(container.loaded_json(text, 1000)) == 2**19 + 4000
    with pytest.raises(ValueError, match="it has 528288 parts, more than 528284"):
        container.loaded_json(text, 999)
    stream = np.frombuffer(zlib.compress(bytes(1000)), np.uint8)
    assert container.inflated(stream, 1000) == bytes(1000)
    more = np.append(stream, np.uint8(0))
    for wrong, most in ((stream, 999), (stream[:-1], 1000), (more, 1000)):
        with pytest.raises(ValueError, match=f"it is cut, or holds more than {most} bytes"):
            container.inflated(wrong, most)


def test_deep_json(whole, tmp_path):
    text = b"[" * 200_000
    refusal(tmp_path, len(text).to_bytes(8, "little") + text)
    header, body = parts_of(whole)
    header["__metadata__"]["quantal"] = "[" * 200_000
    refusal(tmp_path, joined(header, body))


@pytest.mark.parametrize("part", ["same entry", "other shape", "metadata"])
def test_names_twice(whole, tmp_path, part):
    # Every other check passes where the second entry is the right one, or the same.
    header, body = parts_of(whole)
    name = "float32"
    text = json.dumps(header)
    if part == "same entry":
        text = text[:-1] + "," + json.dumps({name: header[name]})[1:]
    elif part == "other shape":
        other = {name: {**header[name], "shape": [*header[name]["shape"], 1]}}
        text = json.dumps(other)[:-1] + "," + text[1:]
    else:
        name = "digests"
        metadata = header["__metadata__"]["quantal"]
        again = metadata[:-1] + f',"digests":{json.dumps(json.loads(metadata)["digests"])}}}'
        text = json.dumps({**header, "__metadata__": {"quantal": again}})
    text = text.encode()
    message = refusal(tmp_path, len(text).to_bytes(8, "little") + text + body)
    assert f"the name {name!r} is there twice" in message


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


def test_a_file_that_another_writer_takes_for_a_leftover_is_created_again(tmp_path):
    removed = []

    def create(path):
        path.touch()
        if removed:
            return
        removed.append(path)
        lock = atomic._lock(path)

        def remove():
            time.sleep(0.05)
            path.unlink()
            atomic._unlock(lock)

        threading.Thread(target=remove).start()

    path, lock = atomic._create_beside(tmp_path / "arrays", create)
    atomic._unlock(lock)
    assert path.exists()
    assert len(removed) == 1
    assert path not in removed


def test_bad_input(tmp_path):
    with pytest.raises(TypeError, match=r"Expected a Keras model\. Give a keras\.Model"):
        quantal.save(LearnableMultiplier(), tmp_path / "m")
    with pytest.raises(ValueError, match="is not built"):
        quantal.save(keras.Sequential([layers.Dense(1)]), tmp_path / "m")
    with pytest.raises(TypeError, match="complex64"):
        container.write(tmp_path / "m", {"a": np.zeros(1, np.complex64)}, {})
    with pytest.raises(FileNotFoundError):
        quantal.load(tmp_path / "none")
    assert not list(tmp_path.iterdir())


@on_one_backend
def test_names_and_seeds_of_later_layers_are_as_without_saving(tmp_path):
    def names_and_seeds(saves):
        keras.utils.set_random_seed(0)
        keras.backend.clear_session()
        model = keras.Sequential([keras.Input((3,)), Inside(), keras.layers.Dropout(0.5)])
        if saves:
            quantal.save(model, tmp_path / "model.quantal")
        return keras.layers.Dense(2).name, keras.initializers.GlorotUniform().seed

    assert names_and_seeds(True) == names_and_seeds(False)


@on_one_backend
def test_a_layer_of_tables_keeps_lists_of_numbers(tmp_path):
    # Their products are beyond what a size may be.
    plan = {"width": 40, "source": list(range(1, 40)), "kind": ["number"] * 39}
    plan |= {"number": [0.0] * 39, "name": list(map(str, range(39)))}
    table = TableFeatures(plan, {"classes": list(range(1, 30))})
    model = keras.Sequential([keras.Input((40,)), table, LearnableMultiplier()])
    again = saved_and_loaded(model, tmp_path)
    assert again.layers[0].table == {"classes": list(range(1, 30))}
    assert again.layers[0].plan == table.plan


@keras.saving.register_keras_serializable(package="quantal-tests")
class Inside(keras.layers.Layer):
    """A layer with another one in it, which Keras names."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(2)

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x):
        return self.dense(x)
