"""A model of a class of its own comes back in it, on lists or off, from files, too."""

import pickle

import keras
import numpy as np
import pytest
from keras import layers, ops

import quantal
from conftest import numpy, on_one_backend
from quantal import Discrete, LearnableMultiplier, parameters_of


@keras.saving.register_keras_serializable(package="quantal_tests")
class Scaling(layers.Layer):
    """A layer whose config does not fit its constructor."""

    def __init__(self, factor, *, must_be_given, **kwargs):
        super().__init__(**kwargs)
        self.factor, self.must_be_given = factor, must_be_given
        self.dense = layers.Dense(4, name="inside")

    def build(self, shape):
        self.dense.build(shape)
        self.gain = self.add_weight(name="gain", shape=(4,), initializer="ones")

    def call(self, x):
        return self.dense(x) * self.gain * self.factor

    def get_config(self):
        return {"neither": self.name_of_nothing}


@keras.saving.register_keras_serializable(package="quantal_tests")
class Encoder(keras.Model):
    """A graph that its constructor makes, as the backbones of keras-hub."""

    def __init__(self, tokens, **kwargs):
        embedding = layers.ReversibleEmbedding(tokens, 4, name="tokens")
        blocks = [Scaling(2.0, must_be_given=True, name=f"block_{i}") for i in range(2)]
        inputs = keras.Input((5,), dtype="int32", name="ids")
        x = embedding(inputs)
        for block in blocks:
            x = block(x) + x
        super().__init__(inputs, x, **kwargs)
        self.tokens, self.embedding, self.blocks = tokens, embedding, blocks

    def get_config(self):
        return {"tokens": self.tokens, "name": self.name}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


@keras.saving.register_keras_serializable(package="quantal_tests")
class Speaker(keras.Model):
    """A head that is tied to a weight inside the model in it."""

    def __init__(self, encoder, **kwargs):
        head = layers.Dense(4, name="head")
        inputs = encoder.input
        outputs = encoder.embedding(head(encoder(inputs)), reverse=True)
        super().__init__(inputs, outputs, **kwargs)
        self.encoder, self.head = encoder, head

    def get_config(self):
        return {"encoder": keras.saving.serialize_keras_object(self.encoder), "name": self.name}

    @classmethod
    def from_config(cls, config):
        encoder = keras.saving.deserialize_keras_object(config["encoder"])
        return cls(encoder, name=config["name"])

    def generate(self, ids):
        """Computes with layers of the graph by their names."""
        x = self.encoder.embedding(ids)
        for block in self.encoder.blocks:
            x = block(x) + x
        return ops.argmax(self.encoder.embedding(self.head(x), reverse=True), axis=-1)


X = np.arange(10).reshape(2, 5) % 7
ALL = {"": "ternary", "tokens/embeddings": "ternary"}


def same(one, other):
    assert type(one).__name__ == type(other).__name__
    np.testing.assert_array_equal(numpy(one(X)), numpy(other(X)))
    if isinstance(one, Speaker):
        np.testing.assert_array_equal(numpy(one.generate(X)), numpy(other.generate(X)))


MAKERS = {"encoder": lambda: Encoder(7), "tied": lambda: Speaker(Encoder(7))}
every_maker = pytest.mark.parametrize("make", MAKERS)


@every_maker
def test_it_keeps_its_class(make, tmp_path):
    model = MAKERS[make]()
    before = numpy(model(X))
    discrete = quantal.discretize(model, ALL)
    kernels = [w for w in model.weights if w.name.endswith(("kernel", "embeddings"))]
    assert isinstance(discrete, type(model))
    assert len(parameters_of(discrete)) == len(kernels)
    assert isinstance(discrete.layers[1] if make == "encoder" else discrete.head, Discrete)
    np.testing.assert_array_equal(numpy(model(X)), before)
    assert not [layer for layer in model._flatten_layers() if isinstance(layer, Discrete)]

    baked = quantal.bake(discrete)
    assert type(baked) is type(model)
    same(baked, discrete)
    same(quantal.discretize(baked, ALL), discrete)
    # To the bit, on the model of the user, too.
    model.set_weights(baked.get_weights())
    same(model, discrete)

    final = quantal.finalize(discrete)
    same(final, discrete)
    for other in (discrete, final):
        other.save(tmp_path / "m.keras")
        same(keras.saving.load_model(tmp_path / "m.keras"), discrete)
        quantal.save(other, tmp_path / "m.quantal")
        loaded = quantal.load(tmp_path / "m.quantal")
        same(loaded, discrete)
        assert isinstance(loaded, type(model))
    same(quantal.bake(loaded), discrete)
    thawed = quantal.discretize(final, {"gain": [1, 2]})
    assert len(parameters_of(thawed)) == len(kernels) + 2
    assert thawed.trainable_variables


@on_one_backend
@pytest.mark.parametrize("is_registered", [True, False])
def test_a_file_that_is_loaded_without_quantal_names_it(tmp_path, monkeypatch, is_registered):
    models = [Encoder(7), keras.Sequential([keras.Input((5,)), layers.Dense(2)])]
    registered = keras.saving.get_custom_objects()
    for index, model in enumerate(models):
        path = tmp_path / f"{index}.keras"
        quantal.discretize(model, "ternary").save(path)
        # As in a process that has not imported quantal, nor what defines the user's class.
        for name in [name for name in registered if name.startswith("quantal")]:
            if not (is_registered and name.startswith("quantal_tests")):
                monkeypatch.delitem(registered, name)
        with pytest.raises(TypeError) as refusal:
            keras.saving.load_model(path)
        text = str(refusal.value)
        words = "Import quantal before the model is loaded" if index == 0 else "quantal>Discrete"
        assert words in text
        assert index == 0 or "quantal.layers.discrete" in text.split("Exception encountered")[1]
        monkeypatch.undo()


@every_maker
def test_it_trains(make):
    discrete = quantal.discretize(MAKERS[make](), ALL)
    discrete.compile(keras.optimizers.SGD(1.0), "mse")
    before = [numpy(parameter.latent) for parameter in parameters_of(discrete)]
    discrete.fit(X, np.ones(discrete.predict(X, verbose=0).shape), verbose=0)
    for parameter, latent in zip(parameters_of(discrete), before, strict=True):
        assert not np.array_equal(numpy(parameter.latent), latent)
    quantal.testing.assert_listed(quantal.discretize(MAKERS[make](), {"": "ternary"}))


@on_one_backend
def test_inside_another_model_and_pickled():
    inputs = keras.Input((5,), dtype="int32")
    encoder = Encoder(7)
    # The layer of the encoder is used outside of it before the encoder is.
    early = encoder.embedding(inputs)
    model = keras.Model(inputs, encoder.embedding(encoder(inputs) + early, reverse=True))
    discrete = quantal.discretize(model, ALL)
    assert len(parameters_of(discrete)) == 3
    same(quantal.bake(discrete), discrete)
    other = quantal.discretize(Speaker(encoder), ALL)
    same(pickle.loads(pickle.dumps(other)), other)


@on_one_backend
def test_a_model_inside_another_goes_its_own_way(tmp_path):
    discrete = quantal.discretize(Speaker(Encoder(7)), ALL)
    encoder = discrete.encoder
    assert len(parameters_of(encoder)) == 3
    same(quantal.bake(encoder), encoder)
    same(quantal.finalize(encoder), encoder)
    encoder.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    same(loaded, encoder)
    assert len(parameters_of(loaded)) == 3


SHARED = layers.Dense(3, name="shared")


class AroundOneLayer(keras.Model):
    """A class all of whose models have the same layer."""

    def __init__(self):
        inputs = keras.Input((3,))
        super().__init__(inputs, SHARED(inputs))

    def get_config(self):
        return {}

    @classmethod
    def from_config(cls, config):
        return cls()


@on_one_backend
def test_the_model_of_the_user_stays_as_it_is_where_its_class_shares_layers(random):
    x, model = random.normal(size=(2, 3)).astype("float32"), AroundOneLayer()
    before = numpy(model(x))
    discrete = quantal.discretize(model, [0.5, 1])
    assert model.layers[1] is SHARED
    np.testing.assert_array_equal(numpy(model(x)), before)
    assert len(parameters_of(discrete)) == 1
    assert discrete.layers[1] is not SHARED


@on_one_backend
def test_a_frozen_layer_of_a_class_stays_frozen_in_a_file(tmp_path):
    discrete = quantal.discretize(Speaker(Encoder(7)), ALL)
    discrete.head.trainable = False
    discrete.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert not loaded.head.trainable
    assert loaded.encoder.trainable
    same(loaded, discrete)


@on_one_backend
def test_some_layers_at_a_time():
    model = quantal.discretize(Speaker(Encoder(7)), {"head": [1, -1]})
    model = quantal.discretize(model, {"block_0": "ternary"})
    model = quantal.discretize(model, {"gain": [1, 3]}, scale=None)
    names = sorted(parameter.path.split("/", 1)[1] for parameter in parameters_of(model))
    assert names == ["gain", "gain", "inside/kernel", "kernel"]
    same(quantal.bake(model), model)
    same(quantal.finalize(model), model)


class Own(keras.Sequential):
    def double(self, x):
        return 2 * self(x)


@keras.saving.register_keras_serializable(package="quantal_tests")
class WithLists(keras.Model):
    """A class whose constructor puts layers on lists."""

    def __init__(self, **kwargs):
        inputs = keras.Input((3,))
        x = LearnableMultiplier([1, -1])(inputs)
        super().__init__(inputs, Discrete(layers.Dense(2), "ternary")(x), **kwargs)

    def get_config(self):
        return {"name": self.name}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


@on_one_backend
def test_stacks_and_classes_that_make_lists_themselves(tmp_path, random):
    x = random.normal(size=(4, 3)).astype("float32")
    stack = Own([keras.Input((3,)), layers.Dense(3), layers.Dense(2)], name="stack")
    discrete = quantal.discretize(stack, "ternary")
    for other in (discrete, quantal.bake(discrete), quantal.finalize(discrete)):
        np.testing.assert_array_equal(numpy(discrete.double(x)), numpy(other.double(x)))

    model = WithLists()
    final = quantal.finalize(model)
    assert isinstance(final, WithLists)
    assert not final.trainable_variables or len(final.trainable_variables) == 1
    final.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    for other in (final, again, quantal.bake(model), quantal.bake(final)):
        np.testing.assert_array_equal(numpy(model(x)), numpy(other(x)))
    assert [layer.finalized for layer in again.layers[1:]] == [True, True]


@on_one_backend
def test_a_class_that_cannot_be_made_again_is_cloned_by_its_graph(random):
    class NoConfig(keras.Model):
        def __init__(self, width):
            inputs = keras.Input((3,))
            super().__init__(inputs, layers.Dense(width)(inputs))

    x = random.normal(size=(4, 3)).astype("float32")
    model = NoConfig(2)
    discrete = quantal.discretize(model, "ternary")
    assert len(parameters_of(discrete)) == 1
    np.testing.assert_array_equal(numpy(quantal.bake(discrete)(x)), numpy(discrete(x)))


@keras.saving.register_keras_serializable(package="quantal_tests")
class Head(layers.Layer):
    """A layer that shares an embedding with others and has weights of its own."""

    def __init__(self, embedding, **kwargs):
        super().__init__(**kwargs)
        self.embedding = embedding

    def build(self, shape):
        self.dense = layers.Dense(4, name="inside")
        self.dense.build(shape)
        self.bias = self.add_weight(name="bias", shape=(7,))
        self.mean = self.add_weight(name="mean", shape=(7,), trainable=False)
        self.factor = 1.0

    def call(self, x):
        return self.factor * self.embedding(self.dense(x), reverse=True) + self.bias - self.mean

    def get_config(self):
        embedding = keras.saving.serialize_keras_object(self.embedding)
        return {**super().get_config(), "embedding": embedding}

    @classmethod
    def from_config(cls, config):
        embedding = keras.saving.deserialize_keras_object(config.pop("embedding"))
        return cls(embedding, **config)


@keras.saving.register_keras_serializable(package="quantal_tests")
class Classifier(keras.Model):
    """A graph whose model has weights and layers outside of it."""

    def __init__(self, **kwargs):
        embedding = layers.ReversibleEmbedding(7, 4, name="tokens")
        head = Head(embedding, name="head")
        inputs = keras.Input((5,), dtype="int32")
        super().__init__(inputs, head(layers.Dense(4, name="first")(embedding(inputs))), **kwargs)
        self.head = head
        self.temperature = self.add_weight(name="temperature", shape=(1,))
        self.extra = layers.Dense(7, name="extra")
        self.stack = [keras.Sequential([keras.Input((5, 7)), layers.Dense(7, name="last")])]
        self.extra.build((None, 5, 7))

    def get_config(self):
        return {"name": self.name}

    @classmethod
    def from_config(cls, config):
        return cls(**config)

    def decode(self, x):
        return self.stack[0](self.extra(self(x))) * self.temperature


def test_weights_around_and_beside_tied_layers_go_on(random, tmp_path):
    model = Classifier()
    model.set_weights([random.normal(size=w.shape).astype("float32") for w in model.get_weights()])
    model.head.dense.trainable = False
    discrete = quantal.discretize(model, {"first|inside|tokens/embeddings": [0.5, 1]})
    assert len(parameters_of(discrete)) == 3

    def weights(m):
        last = m.stack[0].layers[0]
        return [m.head.bias, m.head.mean, m.temperature, *m.extra.weights, *last.weights]

    for weight, expected in zip(weights(discrete), weights(model), strict=True):
        np.testing.assert_array_equal(numpy(weight), numpy(expected))
    assert not discrete.head.dense.trainable

    quantal.save(discrete, tmp_path / "m.quantal")
    discrete.save(tmp_path / "m.keras")
    final = quantal.finalize(discrete, tmp_path / "final.keras")
    others = [
        *(quantal.bake(discrete), final, quantal.load(tmp_path / "m.quantal")),
        *(keras.saving.load_model(tmp_path / f"{name}.keras") for name in ("m", "final")),
    ]
    for other in others:
        np.testing.assert_array_equal(numpy(other.decode(X)), numpy(discrete.decode(X)))
    # The user's model with the same weights computes the same, so nothing began anew.
    model.set_weights(others[0].get_weights())
    np.testing.assert_array_equal(numpy(model.decode(X)), numpy(discrete.decode(X)))
    # What is set after the constructor goes on, too, as in any other layer.
    discrete.head.factor = 2.0
    assert quantal.bake(discrete).head.factor == 2.0


@on_one_backend
def test_a_weight_that_no_layer_continues_is_refused():
    class NoConfig(keras.Model):
        def __init__(self, width):
            inputs = keras.Input((3,))
            super().__init__(inputs, layers.Dense(width)(inputs))
            self.temperature = self.add_weight(name="temperature", shape=(1,))

    with pytest.raises(ValueError, match=r"temperature' of the model .* would be lost.*Create"):
        quantal.discretize(NoConfig(2), "ternary")


class Draws:
    """A sampler that has a random stream, as those of keras-hub."""

    def __init__(self, spread=1.0, seed=3):
        self.spread, self.seed = spread, seed
        self.generator = keras.random.SeedGenerator(seed)

    @property
    def variables(self):
        return [self.generator.state]

    def __call__(self):
        return numpy(keras.random.uniform((3,), maxval=self.spread, seed=self.generator))

    def get_config(self):
        return {"spread": self.spread, "seed": self.seed}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


class Untold(Draws):
    """A sampler whose config leaves an argument out."""

    def get_config(self):
        return {"seed": self.seed}


class Adversary(keras.Model):
    """A model with a `compile` of its own, as in Keras's examples of adversarial training."""

    def __init__(self, **kwargs):
        inputs = keras.Input((3,))
        super().__init__(inputs, layers.Dense(2)(inputs), **kwargs)
        self.compile(keras.optimizers.SGD(), None, "default")

    def compile(self, first, second, sampler, *, strength=1.0, **kwargs):
        super().compile(loss="mse", **kwargs)
        self.first, self.second, self.sampler, self._strength = first, second, sampler, strength
        self.seen = keras.metrics.Mean(name="seen")

    def get_config(self):
        return {"name": self.name}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


@pytest.mark.parametrize("sampler", [Draws, Untold])
def test_what_a_class_has_compiled_goes_on(sampler):
    model = Adversary()
    sampler = sampler(spread=5.0)
    sampler()
    optimizer = keras.optimizers.AdamW(0.25, weight_decay=0.5)
    model.compile(optimizer, None, {"sampler": sampler}, strength=2.0, jit_compile=False)
    discrete = quantal.discretize(model, "ternary")
    for new in (discrete, quantal.bake(discrete)):
        assert type(new.first) is type(optimizer)
        assert new.first is not optimizer
        assert numpy(new.first.learning_rate) == 0.25
        assert (new.second, new._strength, new.jit_compile) == (None, 2.0, False)
    assert not discrete.first._use_weight_decay(parameters_of(discrete)[0].latent)
    baked = quantal.bake(discrete)
    draws = [m.sampler["sampler"] for m in (model, discrete, baked)]
    if type(sampler) is Untold:
        # No other one can be made, and this one draws as it did.
        assert all(one is sampler for one in draws)
    else:
        first, second, third = (one() for one in draws)
        np.testing.assert_array_equal(second, first)
        np.testing.assert_array_equal(third, first)


@on_one_backend
def test_a_compiled_model_of_its_own_class_is_finalized():
    model = quantal.discretize(Adversary(), "ternary")
    assert quantal.finalize(model)._strength == 1.0


@on_one_backend
def test_an_argument_that_no_attribute_tells_is_refused():
    class Silent(Adversary):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.compiled = False

        def compile(self, first, second=None, sampler=None):
            keras.Model.compile(self, first, "mse")

    model = Silent()
    model.compile("sgd")
    with pytest.raises(ValueError, match=r"'first', which no attribute.*Write self\.first = first"):
        quantal.discretize(model, "ternary")


@keras.saving.register_keras_serializable(package="quantal_tests")
class Partial(keras.Model):
    """A graph whose config leaves out what says which one it is."""

    def __init__(self, kind="plain", **kwargs):
        inputs = keras.Input((3,))
        activation = "tanh" if kind == "activation" else None
        first = layers.Dense(3, activation=activation)(inputs)
        second = layers.Dense(3)(first)
        pair = [second, first] if kind == "order" else [first, second]
        dropout = layers.Dropout(0.5)(layers.Subtract()(pair), training=kind == "training")
        super().__init__(inputs, dropout, **kwargs)

    def get_config(self):
        return {"name": self.name}

    @classmethod
    def from_config(cls, config):
        return cls(**config)

    def double(self, x):
        return 2 * self(x)


@on_one_backend
@pytest.mark.parametrize("kind", ["activation", "order", "training"])
def test_a_class_that_makes_another_model_of_its_config_is_not_kept(kind, random):
    x = random.normal(size=(4, 3)).astype("float32")
    model = Partial(kind)
    with pytest.warns(UserWarning, match="Partial comes back as a Functional without double"):
        discrete = quantal.discretize(model, "ternary")
    model.set_weights(quantal.bake(discrete).get_weights())
    outputs = []
    for m in (model, discrete):
        keras.utils.set_random_seed(0)
        m.layers[-1].seed_generator.state.assign([1, 2])
        outputs.append(numpy(m(x)))
    np.testing.assert_array_equal(*outputs)
    assert isinstance(quantal.discretize(Partial(), "ternary"), Partial)


@on_one_backend
def test_a_graph_that_neither_class_nor_layers_describe_is_refused():
    @keras.saving.register_keras_serializable(package="quantal_tests")
    class Neither(Encoder):
        def get_config(self):
            return {"tokens": self.tokens + 1}

    with pytest.raises(ValueError, match="not what its class Neither makes from its config"):
        quantal.discretize(Neither(7), "ternary")
