"""What a discrete layer shows of itself: names, attributes, arrays and tracked variables."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

import quantal
from conftest import gradient_to, numpy, on_one_backend
from quantal import Discrete, LearnableMultiplier, Values, parameters_of, testing

# Weights that are used outside of their layer's call.


@keras.saving.register_keras_serializable("quantal tests")
class TiedAutoencoder(keras.Model):
    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.encoder = layers.Dense(4, use_bias=False)

    def call(self, inputs):
        return ops.matmul(self.encoder(inputs), ops.transpose(self.encoder.kernel))

    def get_config(self):
        return {}


@keras.saving.register_keras_serializable("quantal tests")
class TiedDense(layers.Layer):
    def __init__(self, tied, **arguments):
        super().__init__(**arguments)
        self.tied = tied

    def call(self, inputs):
        return ops.matmul(inputs, ops.transpose(self.tied.kernel))

    def compute_output_shape(self, shape):
        return (*shape[:-1], 6)

    def get_config(self):
        tied = keras.saving.serialize_keras_object(self.tied)
        return {**super().get_config(), "tied": tied}

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config.pop("tied")), **config)


def tied_functional():
    inputs = keras.Input((6,))
    dense = layers.Dense(4, use_bias=False)
    return keras.Model(inputs, TiedDense(dense)(dense(inputs)))


@pytest.mark.parametrize("make", [TiedAutoencoder, tied_functional])
def test_tied_weights_stay_tied(make, random):
    x = random.normal(size=(32, 6)).astype("float32")
    model = make()
    model(x)
    discrete = quantal.discretize(model, "ternary")
    assert len(parameters_of(discrete)) == 1
    (weight,) = (numpy(parameter.weight) for parameter in parameters_of(discrete))
    outputs = discrete.predict(x, verbose=0)
    np.testing.assert_allclose(outputs, x @ weight @ weight.T, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(quantal.bake(discrete).predict(x, verbose=0), outputs)
    discrete.compile(keras.optimizers.Adam(0.01), "mse")
    losses = discrete.fit(x, x, epochs=8, batch_size=8, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


@on_one_backend
def test_free_weights_that_are_tied_stay_so(random):
    x = random.normal(size=(4, 6)).astype("float32")
    inputs = keras.Input((6,))
    dense, first = layers.Dense(4, use_bias=False), layers.Dense(6, name="first")
    hidden = dense(first(inputs))
    # The second one is held by a layer inside a layer.
    block = layers.TimeDistributed(TiedDense(dense))
    model = keras.Model(inputs, [TiedDense(dense)(hidden), block(hidden[:, None])])
    for new in (quantal.discretize(model, {"first": "ternary"}), quantal.bake(model)):
        assert len(quantal.summary(new).rows) == 3
        for layer in new.layers:
            if isinstance(layer, layers.Dense) and layer.name != "first":
                layer.kernel.assign(ops.ones((6, 4)))
        for outputs in new.predict(x, verbose=0):
            np.testing.assert_allclose(outputs - outputs[..., :1], 0, atol=1e-5)


@on_one_backend
@pytest.mark.parametrize("user", ["operation", "closure", "default"])
def test_weights_that_a_clone_would_share_with_the_old_model_are_refused(user):
    inputs = keras.Input((6,))
    dense = layers.Dense(6)
    hidden = dense(inputs)

    def captured(x):
        return x * dense.bias

    if user == "operation":
        outputs = ops.matmul(hidden, dense.kernel)
    elif user == "closure":
        outputs = layers.Lambda(captured)(hidden)
    else:
        outputs = layers.Lambda(lambda x, weight=dense.bias: x * weight)(hidden)
    model = keras.Model(inputs, outputs)
    with pytest.raises(ValueError, match=r"(operation|Lambda).* uses .*dense.* directly"):
        quantal.discretize(model, "ternary")


def test_both_uses_of_a_tied_weight_have_a_gradient():
    discrete = Discrete(layers.Dense(3, use_bias=False), "ternary", scale="learned")
    discrete.build((None, 3))
    (parameter,) = discrete.discrete_parameters
    x = np.eye(3, dtype="float32")
    uses = {
        "called": lambda: discrete(x),
        "read": lambda: discrete.kernel,
        "twice": lambda: discrete(x) + discrete.kernel,
    }
    for variable in parameter.variables:
        gradient = {use: gradient_to(variable, function) for use, function in uses.items()}
        assert np.any(gradient["called"])
        np.testing.assert_array_equal(gradient["read"], gradient["called"])
        np.testing.assert_allclose(gradient["twice"], 2 * gradient["called"], rtol=1e-6)


def test_a_kernel_is_soft_where_its_layer_trains():
    seen = []

    class Asking(layers.Layer):
        def __init__(self):
            super().__init__()
            self.multiplier = LearnableMultiplier([1, -1], estimator="annealed")

        def call(self, x):
            y = self.multiplier(x)
            seen.append([numpy(y)[0], numpy(self.multiplier.kernel)])
            return y

    layer = Asking()
    x = np.ones((1, 5), "float32")
    layer(x)
    for training in (False, True):
        layer(x, training=training)
        # The state has moved on by a step in between.
        np.testing.assert_allclose(*seen[-1], rtol=0.01)
        assert np.isin(seen[-1][1], [1, -1]).all() == (not training)
    testing.assert_members(layer.multiplier.kernel, Values([1, -1]))


class Penalized(keras.Model):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        return loss + self.strength * ops.sum(self.layers[1].kernel)


@pytest.mark.parametrize("strength", [0.0, 100.0])
def test_a_penalty_on_a_kernel_trains(strength, random):
    x = random.normal(size=(64, 8)).astype("float32")
    inputs = keras.Input((8,))
    mask = LearnableMultiplier([0, 1])
    model = Penalized(inputs, mask(inputs))
    model.strength = strength
    model.compile(keras.optimizers.Adam(0.05), "mse")
    model.fit(x, x, epochs=12, batch_size=16, verbose=0)
    assert numpy(mask.codes).tolist() == [float(strength == 0)] * 8


# The attributes of a wrapped layer.


class Table(layers.Layer):
    """An embedding with a method that uses its weight the other way round."""

    def __init__(self, size=5, width=3, **arguments):
        super().__init__(**arguments)
        self.size, self.width = size, width

    def build(self, shape=None):
        self.embeddings = self.add_weight(shape=(self.size, self.width), name="embeddings")
        self.offset = self.add_weight(shape=(self.width,), name="offset")
        self.inner = layers.Dense(2)
        self.inner.build((None, self.width))

    def call(self, ids):
        return ops.take(self.embeddings, ids, axis=0) + self.offset

    def scores(self, x):
        return ops.matmul(x, ops.transpose(self.embeddings))


def test_a_wrapper_gives_what_it_lacks():
    discrete = Discrete(Table(), "ternary", ("embeddings", "kernel"), scale="learned")
    assert discrete.size == 5
    discrete(np.array([0, 1]))
    embeddings = next(p for p in discrete.discrete_parameters if "embeddings" in p.path)
    np.testing.assert_array_equal(numpy(discrete.embeddings), numpy(embeddings.weight))
    assert discrete.offset is discrete.layer.offset
    x = np.eye(3, dtype="float32")
    np.testing.assert_array_equal(numpy(discrete.scores(x)), numpy(embeddings.weight).T)
    gradient = gradient_to(embeddings.latent, lambda: discrete.scores(x))
    assert np.any(gradient)
    discrete.width = 7
    assert discrete.layer.width == 7
    for name in ("nothing", "fit", "layers", "inner"):
        assert not hasattr(discrete, name)
    with pytest.raises(AttributeError, match=r"'dense.*', whose weights are latents"):
        _ = discrete.inner
    with pytest.raises(AttributeError, match=r"embeddings of the layer .* is on a list"):
        discrete.embeddings = 1


def test_latents_are_called_so():
    discrete = Discrete(layers.Dense(2, name="head"), "ternary")
    discrete.build((None, 3))
    (parameter,) = discrete.discrete_parameters
    assert parameter.path.endswith("head/kernel")
    names = [variable.path.rsplit("/", 1)[1] for variable in discrete.weights]
    assert names == ["kernel_latent", "bias"]
    multiplier = LearnableMultiplier(name="signs", estimator="straight_through")
    multiplier.build((None, 3))
    assert [variable.path for variable in multiplier.weights] == ["signs/kernel_latent"]
    # A second wrapper, after the first is gone, renames nothing again.
    inner = discrete.layer
    del discrete, parameter
    again = Discrete(inner, [-1, 1])
    again.build()
    assert again.discrete_parameters[0].path.endswith("head/kernel")
    assert again.weights[0].name == "kernel_latent"


@keras.saving.register_keras_serializable("tests")
class Assigning(keras.Layer):
    """A layer that assigns to its own weight in training."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1],), name="kernel")

    def call(self, inputs, training=False):
        if training:
            self.kernel.assign(self.kernel / 2)
        return inputs * self.kernel


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(Assigning, id="own"),
        pytest.param(lambda: layers.SpectralNormalization(layers.Dense(2)), id="spectral"),
    ],
)
def test_a_layer_that_assigns_to_a_listed_weight_is_refused(make):
    discrete = Discrete(make(), "ternary")
    data = np.ones((2, 3), "float32")
    discrete(data)
    with pytest.raises(ValueError, match=r"assigns to its weight .*kernel, which is on a list"):
        discrete(data, training=True)


@keras.saving.register_keras_serializable("tests")
class Caching(keras.Layer):
    """A layer that keeps something of its weights, and may compute with it instead of them."""

    def __init__(self, reads_kernel=False, **kwargs):
        super().__init__(**kwargs)
        self.reads_kernel = reads_kernel

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1],), name="kernel")
        self.gain = self.add_weight(shape=(shape[-1],), name="gain", initializer="ones")
        self.finalize_state()

    def finalize_state(self):
        self.doubled_kernel = 2 * ops.convert_to_tensor(self.kernel)
        self.doubled_gain = 2 * ops.convert_to_tensor(self.gain)

    def call(self, inputs):
        if self.reads_kernel:
            return inputs * self.kernel * self.doubled_gain
        return inputs * self.doubled_kernel * self.gain


def test_a_layer_that_keeps_something_of_its_listed_weight_is_refused():
    data = np.ones((2, 3), "float32")
    right = Discrete(Caching(reads_kernel=True), "ternary")
    np.testing.assert_array_equal(numpy(right(data)), 2 * data * numpy(right.listed_values))
    wrong = Discrete(Caching(), "ternary")
    with pytest.raises(ValueError, match=r"has not read its weight .*kernel, which is on a list"):
        wrong(data)
    model = keras.Sequential([keras.Input((3,)), Discrete(Caching(), "ternary")])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"has not read its weight .*kernel"):
        model.fit(data, data, verbose=0)


# The arrays of `get_weights` and `set_weights`.

LISTS_OF_USERS = {
    "signs": [1, -1],
    "mask": [0, 1],
    "thirds": [0, 0.5, 1],
    "integers": [0, 1, 2, 3],
    "around zero": [-3, -2, -1, 0, 1, 2, 3],
    "small": [-0.01, 0, 0.01],
    "far": [10, 11, 12],
    "learned": Values([0.1, -0.2, 0.3], learnable=True),
    "per channel": Values([[1, 2, 3], [0, 5, 7], [-1, 0, 1], [2, 4, 8]], axis=-1),
}


def discrete_with(values, scale=None):
    discrete = Discrete(layers.Dense(4, use_bias=False), values, scale=scale)
    discrete.build((None, 9))
    return discrete


@pytest.mark.parametrize("scale", [None, "learned"])
@pytest.mark.parametrize("name", LISTS_OF_USERS)
def test_listed_values_are_set_as_they_are(name, scale, random):
    discrete = discrete_with(LISTS_OF_USERS[name], scale)
    (parameter,) = discrete.discrete_parameters
    if scale:
        parameter.scale_state.relative.assign(0.3 * numpy(parameter.scale_state.relative))
    wanted = parameter.values.take(random.integers(len(parameter.values), size=(9, 4)))
    arrays = discrete.get_weights()
    index = [v is parameter.latent for v in discrete.weights].index(True)
    arrays[index] = wanted.astype(float)
    discrete.set_weights(arrays)
    np.testing.assert_array_equal(numpy(discrete.listed_values), wanted)


@on_one_backend
@pytest.mark.parametrize("scale", [None, "learned"])
@pytest.mark.parametrize("name", LISTS_OF_USERS)
def test_what_get_weights_gives_set_weights_restores(name, scale, random):
    discrete = discrete_with(LISTS_OF_USERS[name], scale)
    (parameter,) = discrete.discrete_parameters
    for latents in (
        random.normal(size=(9, 4)),
        # They are members of the list, too, and mean others there.
        parameter.values.take(random.integers(len(parameter.values), size=(9, 4))),
        parameter.latents_of(np.zeros((9, 4), int)),
    ):
        parameter.latent.assign(latents)
        codes, before = numpy(discrete.codes), numpy(parameter.latent).copy()
        arrays = discrete.get_weights()
        parameter.latent.assign(np.zeros((9, 4)))
        discrete.set_weights(arrays)
        np.testing.assert_array_equal(numpy(discrete.codes), codes)
        np.testing.assert_allclose(numpy(parameter.latent), before, rtol=1e-6, atol=1e-38)
        assert (numpy(parameter.latent) != before).sum() <= 1


@on_one_backend
def test_a_multiplier_and_several_weights_take_listed_values(random):
    multiplier = LearnableMultiplier([0, 0.5, 1])
    multiplier.build((None, 5))
    multiplier.set_weights([np.array([0.5, 1, 0, 0.5, 1])])
    assert numpy(multiplier.codes).tolist() == [1, 2, 0, 1, 2]
    scaled = discrete_with("ternary", "learned")
    scaled.set_weights([np.ones((9, 4))])
    assert (numpy(scaled.listed_values) == 1).all()
    inner = Discrete(layers.LSTM(2), [10, 11, 12], "kernel")
    outer = Discrete(inner, [-0.01, 0, 0.01], "recurrent_kernel")
    outer.build((None, 4, 3))
    wanted = [random.choice([10, 11, 12], (3, 8)), random.choice([-0.01, 0, 0.01], (2, 8))]
    outer.set_weights([*wanted, np.zeros(8)])
    for parameter, listed in zip(parameters_of(outer)[::-1], wanted, strict=True):
        np.testing.assert_array_equal(numpy(parameter.listed_values), listed.astype("float32"))
    with pytest.raises(ValueError, match="shape"):
        multiplier.set_weights([np.zeros(4)])


# What frameworks track and transform.


def several_layers():
    """Layers with every kind of variable: scales, learned lists, states, seeds, wrappers inside."""
    recurrent = layers.LSTM(2, name="recurrent")
    inner = Discrete(recurrent, "ternary", "kernel", scale="learned")
    learned = Values([0.1, -0.2, 0.3], learnable=True)
    return [
        Discrete(inner, [-0.5, 0.25, 1], "recurrent_kernel", estimator="settling"),
        Discrete(layers.Dense(3), learned, scale="learned"),
        LearnableMultiplier([1, -1], estimator="gumbel_softmax", scale="least_squares"),
    ]


def model_of_several(is_final=False):
    model = keras.Sequential([keras.Input((4, 3)), *several_layers()])
    return quantal.finalize(model) if is_final else model


def shuffle(model, random):
    for variable in model.variables:
        if "float" in str(variable.dtype):
            variable.assign(random.uniform(0.5, 1.5, size=variable.shape))


@pytest.mark.skipif(keras.config.backend() != "tensorflow", reason="TensorFlow's checkpoints")
@pytest.mark.parametrize("is_final", [False, True])
def test_checkpoints_of_tensorflow_hold_every_variable(is_final, tmp_path, random):
    import tensorflow as tf

    model = model_of_several(is_final)
    shuffle(model, random)
    path = tf.train.Checkpoint(model=model).save(str(tmp_path / "checkpoint"))
    keys = [key for key, _ in tf.train.list_variables(path)]
    stored = [key for key in keys if "VARIABLE_VALUE" in key and "save_counter" not in key]
    assert len(stored) == len(model.variables)
    again = model_of_several(is_final)
    tf.train.Checkpoint(model=again).restore(path).assert_existing_objects_matched()
    for old, new in zip(model.variables, again.variables, strict=True):
        np.testing.assert_array_equal(old.numpy(), new.numpy())
    if not is_final:
        tf.saved_model.save(model, str(tmp_path / "saved"))
        served = tf.saved_model.load(str(tmp_path / "saved")).signatures["serving_default"]
        x = random.normal(size=(2, 4, 3)).astype("float32")
        (outputs,) = served(tf.constant(x)).values()
        np.testing.assert_allclose(outputs.numpy(), numpy(model(x)), rtol=1e-5)


@pytest.mark.skipif(keras.config.backend() != "torch", reason="PyTorch's dictionaries")
def test_the_state_dict_of_pytorch_holds_every_variable(random):
    import copy

    import torch

    # Keras sorts by names, of which layer_100 is before layer_99.
    keras.utils.clear_session(free_memory=False)
    model, again = model_of_several(), model_of_several()
    shuffle(model, random)
    state = model.state_dict()
    tensors = {tensor.data_ptr() for tensor in state.values()}
    assert {variable.value.data_ptr() for variable in model.variables} <= tensors
    renamed = dict(zip(again.state_dict(), state.values(), strict=True))
    again.load_state_dict(renamed)
    x = torch.tensor(random.normal(size=(2, 4, 3)).astype("float32"))
    for other in (again, copy.deepcopy(model)):
        torch.testing.assert_close(other(x), model(x), rtol=0, atol=0)


@pytest.mark.skipif(keras.config.backend() != "torch", reason="PyTorch's transforms")
@pytest.mark.parametrize("kind", ["wrapped", "scaled", "learned", "multiplier"])
def test_the_transforms_of_pytorch_work(kind, random):
    import torch
    from torch.utils.checkpoint import checkpoint

    layer = {
        "wrapped": lambda: Discrete(layers.Dense(5), [-1, 1]),
        "scaled": lambda: Discrete(layers.Dense(5), "ternary", scale="learned"),
        "learned": lambda: Discrete(layers.Dense(5), Values([0.1, -0.2], learnable=True)),
        "multiplier": lambda: LearnableMultiplier([-1, 1, 0.5]),
    }[kind]()
    model = keras.Sequential([keras.Input((5,)), layer])
    x = torch.tensor(random.normal(size=(3, 5)).astype("float32"))
    rows = torch.stack([model(row[None])[0] for row in x])
    for grad_mode in (torch.enable_grad, torch.no_grad):
        with grad_mode():
            torch.testing.assert_close(torch.vmap(lambda row: model(row[None])[0])(x), rows)
    jacobians = [
        transform(lambda row: model(row[None])[0])(x[0])
        for transform in (torch.func.jacrev, torch.func.jacfwd)
    ]
    torch.testing.assert_close(*jacobians)

    def loss(weights, row):
        others = [variable.value for variable in model.non_trainable_variables]
        outputs, _ = model.stateless_call(weights, others, row[None], training=True)
        return (outputs**2).sum()

    weights = [variable.value for variable in model.trainable_variables]
    each = torch.vmap(torch.func.grad(loss), in_dims=(None, 0))(weights, x)
    total = torch.autograd.grad(sum(loss(weights, row) for row in x), weights)
    for gradients, gradient in zip(each, total, strict=True):
        torch.testing.assert_close(gradients.sum(0), gradient)
    checkpoint(model, x.clone().requires_grad_(), use_reentrant=False).sum().backward()
    assert layer.discrete_parameters[0].latent.value.grad is not None


@pytest.mark.skipif(keras.config.backend() != "torch", reason="TorchScript is PyTorch's")
@pytest.mark.parametrize("kind", ["trained", "frozen", "finalized"])
@pytest.mark.parametrize(
    ("values", "arguments"),
    [
        ([-1, 1], {}),
        ("ternary", {"estimator": "annealed", "scale": "learned"}),
        ("nf4", {"estimator": "mean_field", "scale": quantal.Scale("learned", power_of_two=True)}),
        (Values([0.1, -0.2, 1], learnable=True), {"estimator": "gumbel_softmax"}),
    ],
)
def test_torch_script_traces_and_saves_discrete_models(values, arguments, kind, random, tmp_path):
    import torch

    layer = Discrete(layers.Dense(5), values, **arguments)
    model = keras.Sequential([keras.Input((5,)), layer, LearnableMultiplier([-1, 0.5])])
    model.trainable = kind != "frozen"
    if kind == "finalized":
        model = quantal.finalize(model)
    x = torch.tensor(random.normal(size=(3, 5)).astype("float32"))
    with warnings.catch_warnings():
        # It warns of plain Keras layers, too.
        warnings.simplefilter("ignore")
        # With its check, which traces once more without gradients.
        torch.jit.trace(model, x).save(tmp_path / "model.pt")
    traced = torch.jit.load(tmp_path / "model.pt")
    for inputs in (x, torch.cat([x, -x])):
        torch.testing.assert_close(traced(inputs), model(inputs), rtol=1e-6, atol=1e-6)
    if kind == "trained":
        # The latents are here within the list's ends, where the gradient is the layers' own.
        latents = [p.latent.value for p in parameters_of(model)]
        expected = torch.autograd.grad((model(x) ** 2).sum(), latents)
        (traced(x) ** 2).sum().backward()
        gradients = {tuple(p.shape): p.grad for n, p in traced.named_parameters() if "latent" in n}
        torch.testing.assert_close([gradients[tuple(p.shape)] for p in latents], [*expected])
    # The file has the latents and computes from them.
    with torch.no_grad():
        for tensor in [*traced.parameters(), *model.parameters()]:
            if tensor.shape == (5, 5):
                tensor.neg_()
    torch.testing.assert_close(traced(x), model(x), rtol=1e-6, atol=1e-6)


@pytest.mark.skipif(keras.config.backend() != "jax", reason="JAX's trees")
def test_the_state_of_a_model_is_a_tree_of_jax(random):
    import jax

    model = model_of_several()
    x = random.normal(size=(2, 4, 3)).astype("float32")
    both = (model.trainable_variables, model.non_trainable_variables)
    tree = [[variable.value for variable in variables] for variables in both]
    assert len(jax.tree.leaves(tree)) == len(model.variables)
    outputs, _ = model.stateless_call(*tree, x)
    np.testing.assert_allclose(outputs, model(x), rtol=1e-6)
    moved = jax.tree.map(lambda leaf: 1.25 * leaf if leaf.dtype == "float32" else leaf, tree)
    outputs, _ = jax.jit(model.stateless_call)(*moved, x)
    for variable, leaf in zip([*both[0], *both[1]], jax.tree.leaves(moved), strict=True):
        variable.assign(leaf)
    np.testing.assert_allclose(outputs, model(x), rtol=1e-5, atol=1e-6)


# What a wrapped layer keeps besides its listed variables.


@keras.saving.register_keras_serializable("quantal tests")
class Counting(layers.Dense):
    """A layer that updates a metric, which Keras does not list among its variables."""

    def build(self, shape):
        super().build(shape)
        self.mean = keras.metrics.Mean(name="size")

    def call(self, inputs, training=None):
        outputs = super().call(inputs)
        self.mean.update_state(ops.mean(ops.abs(inputs)))
        return outputs


def test_a_stateful_layer_remembers(random):
    x = random.normal(size=(2, 3, 4)).astype("float32")
    plain = layers.LSTM(3, stateful=True)
    discrete = Discrete(layers.LSTM(3, stateful=True), "ternary", ("kernel", "recurrent_kernel"))
    plain(x), discrete(x)
    plain.set_weights(
        [numpy(p.weight) for p in discrete.discrete_parameters] + [numpy(discrete.layer.cell.bias)]
    )
    for layer in (plain, discrete):
        layer.reset_state()
    outputs = [[numpy(layer(x)) for _ in range(3)] for layer in (plain, discrete)]
    np.testing.assert_allclose(*outputs, rtol=1e-5, atol=1e-6)
    assert not np.allclose(outputs[0][0], outputs[0][1])
    if keras.config.backend() != "tensorflow":
        return  # A plain stateful layer cannot be trained there, or forgets.
    model = keras.Sequential([keras.Input(batch_shape=(2, 3, 4)), discrete])
    discrete.reset_state()
    model.compile("sgd", "mse")
    model.fit(x, np.zeros((2, 3)), batch_size=2, verbose=0)
    assert np.any(numpy(discrete.states[0]))


def test_a_metric_inside_a_wrapped_layer_counts(random):
    x = random.normal(size=(8, 4)).astype("float32")
    discrete = Discrete(Counting(3), "ternary")
    model = keras.Sequential([keras.Input((4,)), discrete])
    model(x)
    assert float(discrete.mean.result()) == pytest.approx(abs(x).mean(), rel=1e-5)
    if keras.config.backend() == "jax":
        return  # A plain layer with a metric cannot be trained there.
    model.compile("sgd", "mse")
    logs = model.fit(x, np.zeros((8, 3)), batch_size=4, verbose=0).history
    assert logs["size"][0] == pytest.approx(abs(x).mean(), rel=1e-5)


# Discrete layers inside Keras's own.


@pytest.mark.parametrize("named", [False, True])
def test_attention_is_built_with_all_its_shapes(named):
    discrete = Discrete(layers.MultiHeadAttention(2, 3), "ternary")
    shape = (None, 4, 6)
    if named:
        discrete.build(query_shape=shape, value_shape=shape)
    else:
        discrete.build(shape, shape)
    assert len(discrete.discrete_parameters) == 4


def test_a_discrete_layer_runs_in_both_directions(random):
    x = random.normal(size=(2, 4, 3)).astype("float32")
    recurrent = Discrete(layers.LSTM(2, return_sequences=True), "ternary", ("kernel",))
    both = layers.Bidirectional(recurrent)
    model = keras.Sequential([keras.Input((4, 3)), both])
    assert both.backward_layer.layer.go_backwards
    forward, backward = (numpy(layer(x)) for layer in (both.forward_layer, both.backward_layer))
    expected = np.concatenate([forward, backward[:, ::-1]], axis=-1)
    np.testing.assert_allclose(numpy(model(x)), expected, rtol=1e-5, atol=1e-6)
    assert len(parameters_of(model)) == 2


@on_one_backend
def test_a_discrete_cell_is_refused():
    for cells in (lambda cell: cell, lambda cell: [cell]):
        with pytest.raises(ValueError, match=r"Write Discrete\(RNN\(cell\)"):
            layers.RNN(cells(Discrete(layers.LSTMCell(2), "ternary")))(keras.Input((4, 3)))


class KernelKeptInBuild(layers.Layer):
    """A user's layer that keeps the kernel of another layer in its build."""

    def __init__(self, other):
        super().__init__()
        self.other = other

    def build(self, input_shape):
        self.kernel = self.other.kernel

    def call(self, inputs):
        return inputs @ ops.transpose(self.kernel)


@on_one_backend
@pytest.mark.parametrize("wrapper", [layers.SpectralNormalization, KernelKeptInBuild])
def test_a_layer_that_keeps_a_listed_weight_in_its_build_is_refused(wrapper):
    discrete = Discrete(layers.Dense(3), "ternary")
    discrete.build((None, 3))
    with pytest.raises(ValueError, match=rf"a {wrapper.__name__}, reads kernel .* in its build"):
        wrapper(discrete)(np.ones((2, 3)))
    embedding = Discrete(layers.Embedding(5, 3), "ternary", weight_names="embeddings")
    with pytest.raises(ValueError, match="reads kernel of the layer"):
        layers.SpectralNormalization(embedding)(np.ones((2, 3)))


@on_one_backend
def test_a_kernel_is_not_set_from_outside():
    discrete = Discrete(layers.Dense(3), "ternary")
    discrete.build((None, 3))
    with pytest.raises(AttributeError, match=r"kernel of the layer .* is on a list"):
        discrete.kernel = np.ones((3, 3))


@on_one_backend
@pytest.mark.filterwarnings("ignore:Layer InputLayer does not have")
def test_quantization_and_lora_are_refused_before_anything_changes():
    dense = layers.Dense(3)
    discrete = Discrete(dense, "ternary")
    model = keras.Sequential([keras.Input((4,)), discrete])
    before = [numpy(variable).copy() for variable in model.variables]
    for change in (
        lambda: model.quantize("int8"),
        lambda: discrete.quantize("int8"),
        lambda: dense.quantize("int8"),
        lambda: discrete.enable_lora(2),
        lambda: dense.enable_lora(2),
    ):
        with pytest.raises(ValueError, match="would put other numbers in their place"):
            change()
    for old, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, numpy(variable))
