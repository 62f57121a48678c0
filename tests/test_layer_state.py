"""What a layer keeps besides its weights is there in every model made of it."""

import collections
import pathlib

import keras
import numpy as np
import pytest
from keras import layers, ops

import quantal
from conftest import BACKEND, numpy, on_one_backend
from quantal import Values
from quantal._models.layer_state import assets_of, load_assets

pytestmark = pytest.mark.product


def discretized(model):
    """Dense layers on a list that has every weight as it is."""
    rules = {"dense": lambda weights: Values(np.unique(weights))}
    return quantal.discretize(model, rules, scale=None)


WAYS = {
    "discretize": discretized,
    "bake": lambda model: quantal.bake(discretized(model)),
    "finalize": lambda model: quantal.finalize(discretized(model)),
}
on_tensorflow = pytest.mark.skipif(BACKEND != "tensorflow", reason="others take no texts")
every_way = pytest.mark.parametrize("way", WAYS)


@keras.saving.register_keras_serializable(package="quantal_tests")
class Counter(layers.Layer):
    """It counts its calls in a metric, and keeps a file, a cache and plain attributes."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.calls = keras.metrics.Sum(name="calls")
        self.words = []
        self.factor = 1.0

    def build(self, shape):
        self.gain = self.add_weight(name="gain", shape=(shape[-1],), initializer="ones")
        self.finalize_state()

    def finalize_state(self):
        self.doubled = 2 * ops.convert_to_tensor(self.gain)

    def save_assets(self, folder):
        (pathlib.Path(folder) / "deep").mkdir()
        (pathlib.Path(folder) / "deep" / "words.txt").write_text("\n".join(self.words))

    def load_assets(self, folder):
        self.words = (pathlib.Path(folder) / "deep" / "words.txt").read_text().split()

    def save_own_variables(self, store):
        store["gain"] = numpy(self.gain)

    def load_own_variables(self, store):
        self.gain.assign(store["gain"])

    def call(self, x):
        self.calls.update_state(1.0)
        return x * self.doubled * self.factor


@keras.saving.register_keras_serializable(package="quantal_tests")
class Holder(layers.Layer):
    """A layer with others inside, which its config does not describe."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.norm = layers.Normalization()
        self.dense = layers.Dense(2)

    def build(self, shape):
        self.norm.build(shape)
        self.dense.build(shape)

    def call(self, x):
        return self.dense(self.norm(x))


@keras.saving.register_keras_serializable(package="quantal_tests")
class Normalizing(layers.Layer):
    """A layer with a layer inside that normalizes by the batch, unless it is frozen."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.norm = layers.BatchNormalization()

    def build(self, shape):
        self.norm.build(shape)

    def call(self, x, training=None):
        return self.norm(x, training=training)


def adapted(layer, data):
    layer.adapt(data)
    return layer


def normalization(random):
    data = random.normal(5, 10, size=(20, 6)).astype("float32")
    return stack(adapted(layers.Normalization(), data), layers.Dense(2)), data


def inside(random):
    data = random.normal(5, 10, size=(20, 6)).astype("float32")
    holder = Holder()
    inner = keras.Sequential([keras.Input((6,)), adapted(layers.Normalization(), data), holder])
    holder.norm.adapt(data)
    return stack(inner), data


def boundaries(random):
    data = random.normal(size=(20, 6)).astype("float32")
    layer = adapted(layers.Discretization(num_bins=4, output_mode="multi_hot"), data)
    return stack(layer, layers.Dense(2)), data


def integers(random):
    data = random.integers(10, 90, (20, 3)).astype("int32")
    layer = adapted(layers.IntegerLookup(output_mode="multi_hot"), data)
    return stack(layer, layers.Dense(2), shape=(3,), dtype="int32"), data


def spectral(random):
    model = stack(layers.SpectralNormalization(layers.Dense(3)), layers.Dense(2))
    data = random.normal(size=(20, 6)).astype("float32")
    model(data, training=True)
    return model, data


def stateful(random):
    data = random.normal(size=(4, 3, 6)).astype("float32")
    model = keras.Sequential(
        [keras.Input((3, 6), batch_size=4), layers.LSTM(2, stateful=True), layers.Dense(2)]
    )
    model(data)
    return model, data


def of_the_user(random):
    data = random.normal(size=(4, 6)).astype("float32")
    counter = Counter()
    model = stack(counter, layers.Dense(2))
    counter.gain.assign([1, 2, 3, 4, 5, 6])
    counter.finalize_state()
    counter.factor, counter.words, counter.note = 3.0, ["one", "two"], {"seen": [np.arange(3)]}
    return model, data


@keras.saving.register_keras_serializable(package="quantal_tests")
class Remembers(layers.Layer):
    """It keeps numbers and a cache where nobody looks, in objects of another library."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.latest, self.cache = collections.deque([0.0]), collections.deque()

    def build(self, shape):
        self.gain = self.add_weight(name="gain", shape=(shape[-1],), initializer="ones")
        self.finalize_state()

    def finalize_state(self):
        self.cache.clear()
        self.cache.append(2 * ops.convert_to_tensor(self.gain))

    def save_own_variables(self, store):
        store["gain"], store["latest"] = numpy(self.gain), np.array(self.latest)

    def load_own_variables(self, store):
        self.gain.assign(store["gain"])
        self.latest = collections.deque(np.asarray(store["latest"]).tolist())

    def call(self, x):
        return x * self.cache[0] + sum(self.latest)


def stack(*stacked, shape=(6,), dtype=None):
    return keras.Sequential([keras.Input(shape, dtype=dtype), *stacked])


KEPT = [normalization, inside, boundaries, integers, spectral, stateful, of_the_user]


@pytest.mark.product
@every_way
@pytest.mark.parametrize("make", KEPT)
def test_it_computes_what_it_computed(make, way, random):
    model, data = make(random)
    changed = WAYS[way](model)
    # A stateful layer moves on with each call.
    first, second = numpy(model(data)), numpy(model(data))
    np.testing.assert_array_equal(first, numpy(changed(data)))
    np.testing.assert_array_equal(second, numpy(changed(data)))


@on_one_backend
@every_way
@pytest.mark.parametrize("part", ["latest", "gain"])
def test_what_the_methods_of_a_class_alone_know_goes_along(part, way, random):
    layer = Remembers()
    model = stack(layer, layers.Dense(2))
    data = random.normal(size=(4, 6)).astype("float32")
    if part == "latest":
        layer.latest = collections.deque([1.5, 2.0])
    else:
        layer.gain.assign([1, 2, 3, 4, 5, 6])
        layer.finalize_state()
    changed = WAYS[way](model)
    assert changed.layers[0].latest == layer.latest
    np.testing.assert_array_equal(numpy(changed.layers[0](data)), numpy(layer(data)))


@every_way
def test_counts_files_and_attributes(way, random):
    model, data = of_the_user(random)
    model(data)
    calls = float(model.layers[0].calls.result())
    counter = WAYS[way](model).layers[0]
    assert float(counter.calls.result()) == calls > 0
    assert (counter.words, counter.factor) == (["one", "two"], 3.0)
    assert counter.note["seen"][0].tolist() == [0, 1, 2]
    assert counter.note["seen"][0] is not model.layers[0].note["seen"][0]


@on_tensorflow
@every_way
def test_texts(way):
    texts = ops.convert_to_tensor(["a b c", "b c", "c d d"])
    lookup = adapted(layers.StringLookup(output_mode="count"), [["x", "y"]])
    words = adapted(layers.TextVectorization(output_mode="tf_idf"), texts)
    inputs = keras.Input((), dtype="string"), keras.Input((1,), dtype="string")
    joined = layers.Concatenate()([words(inputs[0]), lookup(inputs[1])])
    model = keras.Model(inputs, layers.Dense(2)(joined))
    data = [texts, ops.convert_to_tensor([["x"], ["y"], ["z"]])]
    np.testing.assert_array_equal(numpy(model(data)), numpy(WAYS[way](model)(data)))


@every_way
def test_random_streams_go_on(way):
    x = np.ones((4, 6), "float32")
    model = stack(layers.Dropout(0.5), layers.GaussianNoise(1.0), layers.Dense(2))
    model(x, training=True)
    changed = WAYS[way](model)
    for one, other in zip(model.layers[:2], changed.layers[:2], strict=True):
        np.testing.assert_array_equal(numpy(one.variables[0]), numpy(other.variables[0]))
    noise, other = model.layers[1], changed.layers[1]
    for _ in range(2):
        np.testing.assert_array_equal(
            numpy(noise(x, training=True)), numpy(other(x, training=True))
        )


@on_tensorflow
def test_assets_have_a_way_into_files():
    words = adapted(layers.TextVectorization(output_mode="count"), ["a b c", "b c", "c d d"])
    inputs = keras.Input((), dtype="string")
    model = keras.Model(inputs, words(inputs))
    other = keras.Model.from_config(model.get_config())
    files = assets_of(model)
    assert all(isinstance(data, bytes) for data in files.values())
    load_assets(other, files)
    assert other.layers[1].get_vocabulary() == model.layers[1].get_vocabulary()
    assert assets_of(stack(layers.Dense(1))) == {}
    for name in ("9/vocabulary.txt", "0/a", "1/../a", "1//a", "1/", "x", "1/C:a", "²/a"):
        with pytest.raises(ValueError, match="belongs to no layer"):
            load_assets(other, {name: b""})


@on_one_backend
def test_what_cannot_be_handed_on_is_refused():
    model, x = stack(Counter(), layers.Dense(2)), object()
    model.layers[0].secret = x
    with pytest.raises(ValueError, match=r"attribute 'secret' of type object.*get_config"):
        quantal.discretize(model, "ternary")

    class Failing(layers.Layer):
        def save_assets(self, folder):
            raise RuntimeError("no words")

        def load_assets(self, folder):
            raise AssertionError("not reached")

    with pytest.raises(ValueError, match=r"cannot hand on what it keeps \(no words\)"):
        quantal.bake(stack(Failing(), layers.Dense(2)))


@every_way
def test_what_is_frozen_stays_frozen(way):
    inner = stack(
        layers.Dense(6, name="dense_in"), layers.Dense(6, trainable=False, name="dense_still")
    )
    holder = Holder()
    model = stack(
        inner, layers.Dense(6, trainable=False, name="dense_base"), holder, layers.Dense(6)
    )
    holder.dense.trainable = False
    changed = WAYS[way](model)
    for old, new in zip(model.layers, changed.layers, strict=True):
        assert old.trainable == new.trainable
    assert [layer.trainable for layer in changed.layers[0].layers] == [True, False]
    if way != "finalize":
        count = len(model.trainable_variables)
        listed = quantal.parameters_of(changed)
        scales = [v for p in listed for v in p.other_variables if v.trainable]
        assert len(changed.trainable_variables) == count + len(scales)


@on_one_backend
@every_way
def test_a_layer_that_computes_otherwise_while_it_is_frozen_goes_on_so(way, random):
    holder = Normalizing()
    model = stack(holder, layers.Dense(2))
    holder.norm.trainable = False
    data = random.normal(5, 10, size=(20, 6)).astype("float32")
    expected = numpy(holder(data, training=True))
    changed = WAYS[way](model).layers[0]
    assert not changed.norm.trainable
    np.testing.assert_array_equal(numpy(changed(data, training=True)), expected)


@every_way
def test_a_frozen_model_stays_frozen(way):
    model = stack(layers.Dense(3), layers.Dense(2))
    model.trainable = False
    changed = WAYS[way](model)
    assert not changed.trainable
    assert not changed.trainable_variables


class Settings:
    """An object that a layer keeps."""

    def __init__(self, factor):
        self.factor, self.inner = factor, {"seen": [np.arange(2)]}


@keras.saving.register_keras_serializable(package="quantal_tests")
class OfObjects(layers.Layer):
    """A layer whose constructor sets attributes that a user may change."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.settings, self.function, self.other = Settings(2.0), ops.sin, lambda x: x
        self.root = np.sqrt

    def call(self, x):
        return self.other(self.function(x)) * self.settings.factor


def change_object(layer):
    layer.settings = Settings(5.0)


def change_inside(layer):
    layer.settings.factor = 5.0


def change_function(layer):
    layer.function, layer.other, layer.root = ops.cos, lambda x: 3 * x, np.square


CHANGES = [change_object, change_inside, change_function]


@every_way
@pytest.mark.parametrize("change", CHANGES)
def test_changed_objects_and_functions_go_along(change, way, random):
    layer, data = OfObjects(), random.normal(size=(4, 6)).astype("float32")
    change(layer)
    model = stack(layer, layers.Dense(2))
    changed = WAYS[way](model)
    np.testing.assert_array_equal(numpy(model(data)), numpy(changed(data)))
    assert changed.layers[0].settings is not layer.settings
    assert changed.layers[0].root is layer.root


@on_one_backend
def test_changed_attributes_that_are_no_data_are_refused():
    layer = OfObjects()
    model = stack(layer, layers.Dense(2))
    layer.function = lambda x: x * ops.sum(model.layers[1].kernel)
    with pytest.raises(ValueError, match="attribute 'function' of type function"):
        quantal.discretize(model, "ternary")
    layer.function, layer.settings.inner = ops.sin, object()
    with pytest.raises(ValueError, match="attribute 'settings' of type Settings"):
        quantal.discretize(model, "ternary")


@on_one_backend
def test_a_finalized_layer_of_a_user_is_baked(random):
    @keras.saving.register_keras_serializable(package="quantal_tests")
    class Scaled(layers.Layer):
        def build(self, shape):
            self.kernel = self.add_weight(name="kernel", shape=(shape[-1], 2))

        def call(self, x):
            return ops.matmul(x, self.kernel)

    data = random.normal(size=(4, 6)).astype("float32")
    model = stack(quantal.Discrete(Scaled(), "ternary"))
    final = quantal.finalize(model)
    np.testing.assert_array_equal(numpy(model(data)), numpy(quantal.bake(final)(data)))


@on_one_backend
def test_a_subclassed_model_on_lists_is_not_finalized(random):
    class Pair(keras.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.norm, self.dense = layers.Normalization(), layers.Dense(2)

        def call(self, x):
            return self.dense(self.norm(x))

    model = Pair()
    model(np.ones((2, 6), "float32"))
    with pytest.raises(ValueError, match=r"layers that it makes are others.*subclassed model"):
        quantal.finalize(quantal.discretize(model, "ternary"))


@keras.saving.register_keras_serializable(package="quantal_tests")
class Counting(layers.Layer):
    """A layer whose own way of saving holds a number that is no weight."""

    def build(self, shape):
        self.gain = self.add_weight(name="gain", shape=(shape[-1],), initializer="ones")
        self.seen = 5.0

    def save_own_variables(self, store):
        store["gain"], store["seen"] = 2 * numpy(self.gain), np.array(self.seen)

    def load_own_variables(self, store):
        self.gain.assign(np.asarray(store["gain"]) / 2)
        self.seen = float(np.asarray(store["seen"]))

    def call(self, x):
        return x * self.gain * self.seen


@on_one_backend
def test_save_refuses_what_a_layer_saves_besides_its_weights(tmp_path, random):
    model, path = discretized(stack(Counting(), layers.Dense(2))), tmp_path / "model.quantal"
    model.layers[0].gain.assign(np.arange(6))
    data = random.normal(size=(4, 6)).astype("float32")
    quantal.save(model, path)
    np.testing.assert_array_equal(numpy(model(data)), numpy(quantal.load(path)(data)))
    before = path.read_bytes()
    model.layers[0].seen = 7.0
    with pytest.raises(ValueError, match=r"'counting\w*' .*keeps 'seen'.*add_weight"):
        quantal.save(model, path)
    assert path.read_bytes() == before
