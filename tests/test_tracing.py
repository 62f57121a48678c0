import keras
import numpy as np
import pytest
from keras import layers, ops

from conftest import numpy, on_one_backend
from models import (
    LISTED_MODELS,
    ROUNDED,
    every_listed_model,
    listed,
    masked,
    stack_of,
)
from quantal import DiscreteActivation, LearnableMultiplier, Parameter, Values, parameters_of
from quantal.estimators import StraightThrough
from quantal.testing import allowed_numbers, assert_listed, uses_of

# What computes with its list passes.


@pytest.mark.product
@every_listed_model
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_listed_models_pass(name, dtype):
    keras.config.set_dtype_policy(dtype)
    model = LISTED_MODELS[name]()
    before = [numpy(variable) for variable in model.variables]
    assert_listed(model)
    assert_listed(model, training=True)
    for variable, old in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(numpy(variable), old)


@pytest.mark.parametrize("dtype", ["float32", "mixed_float16", "float64"])
@pytest.mark.parametrize(
    "make", [LearnableMultiplier, lambda *a, **k: listed(layers.Dense(3), **k)]
)
def test_listed_numbers_times_a_scale_pass(make, dtype):
    if dtype == "float64" and keras.config.backend() == "jax":
        pytest.skip("JAX has float64 only where it is asked for beforehand")
    keras.config.set_dtype_policy(dtype)
    model = stack_of(make(ROUNDED, scale="learned", estimator="straight_through"), shape=(64,))
    assert_listed(model)
    (parameter,) = parameters_of(model)
    parameter.scale_state.begin(0.37)
    assert set(allowed_numbers(parameter)) == set(ROUNDED.numbers * np.float32(0.37))
    assert_listed(model, training=True)


def test_a_subclassed_model_and_a_layer_pass_on_given_data():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.first, self.second = listed(layers.Dense(4)), LearnableMultiplier(ROUNDED)

        def call(self, inputs):
            return self.second(self.first(inputs["x"])) + inputs["y"]

    model, x = Own(), np.ones((2, 3))
    data = {"x": x, "y": np.ones((2, 4), "float32")}
    model(data)
    assert_listed(model, data)
    assert_listed(model.first, x)
    with pytest.raises(ValueError, match=r"has no Input .* Expected example data .* Give a batch"):
        assert_listed(model)


@pytest.mark.parametrize("estimator", ["annealed", "binary_relax"])
def test_a_soft_estimator_passes_in_inference_alone(estimator):
    model = stack_of(listed(layers.Dense(4), estimator=estimator), shape=(5,))
    assert_listed(model)
    with pytest.raises(AssertionError, match="are not in"):
        assert_listed(model, training=True)
    state = numpy(parameters_of(model)[0].state)
    np.testing.assert_array_equal(state, [0, 0])


def test_uses_name_parameter_operation_and_numbers():
    model = masked()
    uses = uses_of(model)
    result = {parameter.path: 0 for parameter in parameters_of(model)}
    for use in uses:
        (parameter,) = use.parameters
        assert use.value.size == np.prod(parameter.shape)
        assert use.operation
        result[parameter.path] += 1
    # One use each, however many steps of time there are.
    assert set(result.values()) == {1}


def test_half_precision_is_rounded_once():
    keras.config.set_dtype_policy("mixed_bfloat16")
    (use,) = uses_of(LISTED_MODELS["Dense"]())
    listed = ops.convert_to_numpy(ops.cast(ops.cast(ROUNDED.numbers, "bfloat16"), "float32"))
    assert use.dtype == "bfloat16"
    assert set(use.value.flat) <= set(listed.astype(float))


# What does not, fails, and the message says where.


class Claiming(layers.Layer):
    """A layer that says it is discrete; `compute` is what it does."""

    def __init__(self, compute, values=ROUNDED):
        super().__init__()
        self.compute, self.values = compute, values

    def build(self, input_shape):
        size = input_shape[-1]
        wide = keras.initializers.RandomUniform(-3, 3, seed=0)
        weights = [self.add_weight((size, size), wide, name=name) for name in ("kernel", "other")]
        self.other = weights[1]
        # One for each argument of `compute` after the layer and the data.
        count = self.compute.__code__.co_argcount - 2
        self.discrete_parameters = [
            Parameter(weight, self.values, StraightThrough()) for weight in weights[:count]
        ]

    def call(self, inputs, training=None):
        return self.compute(self, inputs, *self.discrete_parameters)


def honest(layer, x, parameter):
    return ops.matmul(x, parameter.compute(False))


def by_way_of_other_shapes(layer, x, parameter):
    kernel = ops.reshape(ops.transpose(parameter.compute(False)), (-1,))
    kernel = ops.concatenate([kernel[:7], ops.flip(kernel[7:])])
    kernel = ops.where(np.arange(kernel.shape[0]) % 2 == 0, kernel, 0.3)
    return x[:, :1] * ops.cast(ops.cast(ops.take(kernel, [3, 2, 0, 1]), "float32"), x.dtype)


def by_the_shape_of_the_data(layer, x, parameter):
    # Zeros in the data's shape are not data: nothing meets them here.
    latent = parameter.latent_in_list_units + ops.zeros_like(x[0])
    return ops.matmul(x, parameter.estimator(latent, parameter.values))


def in_a_scan(layer, x, parameter):
    def step(total, row):
        return total + ops.sum(x) * row, -row

    total, rows = ops.scan(step, ops.zeros((8,)), parameter.compute(False), reverse=True)
    return total + ops.matmul(x, rows)


def on_a_condition(layer, x, parameter):
    return ops.cond(ops.sum(x) < 1e9, lambda: honest(layer, x, parameter), lambda: x)


def by_way_of_a_weight(layer, x, parameter):
    # As with embeddings of relative positions: what is listed meets a weight, then the data.
    product = ops.einsum("ij,kj->ik", ops.convert_to_tensor(layer.other), parameter.compute(False))
    return ops.matmul(x, ops.softmax(product))


def by_way_of_each_other(layer, x, one, other):
    return ops.matmul(x, ops.matmul(one.compute(False), ops.transpose(other.compute(False))))


def latent_by_way_of_a_weight(layer, x, parameter):
    return ops.matmul(x, ops.matmul(ops.convert_to_tensor(layer.other), parameter.latent))


def one_of_a_product(layer, x, parameter):
    product = ops.matmul(layer.other, parameter.compute(False))
    return ops.matmul(x, product + parameter.compute(False))


def latent_itself(layer, x, parameter):
    return ops.matmul(x, parameter.latent)


def latent_beside_the_values(layer, x, parameter):
    return honest(layer, x, parameter) + ops.sum(ops.convert_to_tensor(parameter.latent))


def usual_sum(layer, x, parameter):
    latent = parameter.latent_in_list_units
    return ops.matmul(x, latent + ops.stop_gradient(parameter.listed_values - latent))


def thousandth_more(layer, x, parameter):
    return ops.matmul(x, parameter.compute(False) + 1e-3)


def normalized(layer, x, parameter):
    kernel = parameter.compute(False)
    return ops.matmul(x, kernel / ops.norm(kernel))


def normalized_afterwards(layer, x, parameter):
    kernel = parameter.compute(False)
    return ops.matmul(x, kernel) / ops.norm(kernel)


def low_rank(layer, x, parameter):
    factor = ops.convert_to_tensor(layer.other)[:, :1]
    return ops.matmul(x, parameter.compute(False) + factor * ops.transpose(factor))


def in_a_loop(layer, x, parameter):
    def step(index, x):
        return index + 1, ops.matmul(x, ops.convert_to_tensor(parameter.latent))

    return ops.while_loop(lambda index, x: index < 2, step, (0, x))[1]


def signs_of_data(layer, x, parameter):
    return ops.where(x > 0, ops.convert_to_tensor(parameter.latent)[0], 0.0)


def in_a_slice(layer, x, parameter):
    return ops.slice_update(x, (0, 0), parameter.latent[:1])


FLOATS = [
    latent_itself, latent_beside_the_values, usual_sum, thousandth_more, normalized,
    normalized_afterwards, low_rank, latent_by_way_of_a_weight, one_of_a_product,
    in_a_loop, signs_of_data, in_a_slice,
]  # fmt: skip


def model_that(compute, values=ROUNDED):
    return stack_of(Claiming(compute, values), shape=(8,))


HONEST = [
    honest, by_way_of_other_shapes, by_the_shape_of_the_data, in_a_scan, on_a_condition,
    by_way_of_a_weight, by_way_of_each_other,
]  # fmt: skip


@pytest.mark.parametrize("compute", HONEST)
def test_the_claiming_layer_can_pass(compute):
    assert_listed(model_that(compute))


def test_a_scan_keeps_rows_in_their_order():
    model = model_that(in_a_scan)
    kernel = numpy(parameters_of(model)[0].listed_values).astype(float)
    uses = [use.value for use in uses_of(model)]
    assert sum(np.array_equal(value, -kernel) for value in uses) == 1
    assert {value.tobytes() for value in uses} > {row.tobytes() for row in kernel}


def test_what_is_overwritten_in_place_is_read_before():
    if keras.config.backend() != "torch":
        pytest.skip("the other backends overwrite nothing")

    def in_place(layer, x, parameter):
        kernel = ops.zeros_like(layer.other.value)
        kernel[:4], kernel[4:] = parameter.compute(False)[:4], 0.3
        return ops.matmul(x, kernel.mul_(ops.sum(x)))

    assert_listed(model_that(in_place))

    def latent_in_place(layer, x, parameter):
        kernel = ops.zeros_like(layer.other.value)
        kernel[2, 1:3] = parameter.latent.value[2, 1:3]
        return x * kernel.view(64)[16:24].mul_(ops.sum(x))

    with pytest.raises(AssertionError, match="are not in"):
        assert_listed(model_that(latent_in_place))


def test_what_a_call_writes_into_a_latent_is_undone():
    if keras.config.backend() != "torch":
        pytest.skip("the other backends overwrite nothing")

    def overwriting(layer, x, parameter):
        kernel = parameter.compute(False)
        ops.convert_to_tensor(parameter.latent)[1:3].mul_(-2.0)
        return ops.matmul(x, kernel)

    model = model_that(overwriting)
    latent = parameters_of(model)[0].latent
    before = numpy(latent).copy()
    assert_listed(model)
    np.testing.assert_array_equal(numpy(latent), before)


@pytest.mark.parametrize("compute", FLOATS)
def test_silent_floats_fail(compute):
    with pytest.raises(AssertionError, match=r"kernel met the data in \w+ .*are not in"):
        assert_listed(model_that(compute))


def test_silent_floats_in_mixed_precision_fail():
    # Not in the list, though all that the sum lost is less than half precision holds.
    class Wide(layers.Dense):
        def call(self, inputs, training=None):
            return ops.matmul(ops.cast(inputs, "float32"), self.kernel + 1e-7)

    with pytest.raises(AssertionError, match="are not in"):
        assert_listed(stack_of(listed(Wide(4)), shape=(5,)))


def test_a_low_rank_term_within_a_wrapped_layer_fails():
    class Adapted(layers.Dense):
        def build(self, input_shape):
            super().build(input_shape)
            self.down = self.add_weight(name="down", shape=(input_shape[-1], 1))
            self.up = self.add_weight(name="up", shape=(1, self.units))

        def call(self, inputs, training=None):
            return ops.matmul(inputs, self.kernel + ops.matmul(self.down, self.up))

    with pytest.raises(AssertionError, match=r"adapted.*/kernel met the data .*are not in"):
        assert_listed(stack_of(listed(Adapted(4)), shape=(5,)))


def test_a_scale_that_is_not_declared_fails():
    model = stack_of(listed(layers.Dense(4), scale="learned"), shape=(5,))
    (parameter,) = parameters_of(model)
    parameter.scale_state.begin(0.37)
    assert_listed(model)
    compute = parameter.compute
    parameter.compute = lambda training, advance=False: compute(training, advance) * 1.1
    with pytest.raises(AssertionError, match="times its scale"):
        assert_listed(model)


def test_a_latent_that_is_never_used_fails():
    with pytest.raises(AssertionError, match="kernel: its latent was never used"):
        assert_listed(model_that(lambda layer, x, parameter: ops.matmul(x, layer.other)))


def test_a_latent_that_meets_no_data_fails():
    def constant(layer, x, parameter):
        return ops.matmul(ops.ones((1, 8)), parameter.compute(False))

    with pytest.raises(AssertionError, match="never used"):
        assert_listed(model_that(constant))


def test_a_mixture_of_two_parameters_fails():
    def product(layer, x, one, other):
        return ops.matmul(x, one.compute(False) * other.compute(False))

    # Even where every product is in the list.
    with pytest.raises(AssertionError, match=r"a mixture of .*kernel and .*other met the data"):
        assert_listed(model_that(product, Values([-1, 1])))


def test_a_model_without_parameters_fails():
    with pytest.raises(AssertionError, match="nothing in 'plain' is discrete"):
        assert_listed(keras.Sequential([keras.Input((3,)), layers.Dense(2)], name="plain"))


def test_a_model_that_is_not_built_is_refused():
    with pytest.raises(ValueError, match="is not built"):
        assert_listed(keras.Sequential([listed(layers.Dense(2))]))


def test_the_call_of_a_compiled_function_is_seen_within():
    if keras.config.backend() == "torch":
        pytest.skip("PyTorch's compiler needs a mode of its own")
    compile = {"jax": "jax.jit", "tensorflow": "tf.function"}[keras.config.backend()]
    if compile == "jax.jit":
        import jax

        wrap = jax.jit
    else:
        import tensorflow

        def wrap(function):
            return tensorflow.function(function, jit_compile=True)

    assert_listed(model_that(lambda layer, x, p: wrap(lambda x: honest(layer, x, p))(x)))
    with pytest.raises(AssertionError, match="are not in"):
        assert_listed(model_that(lambda layer, x, p: wrap(lambda x: latent_itself(layer, x, p))(x)))


# Discrete activations are followed, too.


class Shifting(DiscreteActivation):
    """An activation whose outputs are not those of its list, at least in one channel."""

    def call(self, inputs, training=None):
        outputs = super().call(inputs, training)
        return outputs + ops.cast([0.0, 0.0, 0.25], outputs.dtype)


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("options", [{}, {"scale": "learned", "axis": -1}], ids=["plain", "scaled"])
def test_outputs_of_activations_are_on_their_list(dtype, options):
    keras.config.set_dtype_policy(dtype)
    numbers = [[-1.25, 0.1, 0.7], [0.3, 1.1, 2.0], [-2.0, 5.0, 7.3]]
    for kind in (DiscreteActivation, Shifting):
        activation = kind(Values(numbers, axis=-1), name="act", **options)
        model = stack_of(listed(layers.Dense(3)), activation, shape=(4,))
        if options:
            activation.set_scale(np.array([0.37, 1.1, 2.7], "float32"))
        before = [numpy(variable) for variable in model.variables]
        if kind is DiscreteActivation:
            assert_listed(model)
            assert_listed(model, training=True)
        else:
            with pytest.raises(AssertionError, match=r"2 of 6 outputs of the activation 'act'"):
                assert_listed(model)
        for variable, old in zip(model.variables, before, strict=True):
            np.testing.assert_array_equal(numpy(variable), old)


def test_activations_within_loops_are_read():
    class Cell(layers.SimpleRNNCell):
        def __init__(self, activation):
            super().__init__(3)
            self.inner = activation

        def call(self, inputs, states, training=False):
            outputs, states = super().call(inputs, states, training)
            return self.inner(outputs), states

    for kind in (DiscreteActivation, Shifting):
        model = keras.Sequential(
            [keras.Input((4, 2)), layers.RNN(Cell(kind("binary", name="act")))]
        )
        if kind is DiscreteActivation:
            assert_listed(model)
        else:
            with pytest.raises(AssertionError, match=r"2 of 6 outputs of the activation 'act'"):
                assert_listed(model)


@on_one_backend
@pytest.mark.parametrize("axis", [None, -1])
def test_an_activation_in_each_time_step_is_read(axis):
    for kind in (DiscreteActivation, Shifting):
        activation = kind("signed:4", scale="learned", axis=axis, name="act")
        model = keras.Sequential([keras.Input((2, 3)), layers.TimeDistributed(activation)])
        activation.set_scale(0.3 if axis is None else [0.3, 0.7, 1.1])
        if kind is DiscreteActivation:
            assert_listed(model)
        else:
            with pytest.raises(AssertionError, match="outputs of the activation 'act'"):
                assert_listed(model)


@on_one_backend
def test_an_activation_that_is_not_called_fails():
    class Forgetful(layers.Layer):
        def __init__(self):
            super().__init__()
            self.activation = DiscreteActivation("binary", name="act")

        def build(self, input_shape):
            self.activation.build(input_shape)

        def call(self, inputs):
            return inputs

    with pytest.raises(AssertionError, match=r"activation 'act' gave no numbers .* not called"):
        assert_listed(keras.Sequential([keras.Input((3,)), Forgetful()]))


def signs(*after, values="binary", shape=(6, 6, 2)):
    """A model of an activation named act and what comes after it."""
    return stack_of(DiscreteActivation(values, name="act"), *after, shape=shape)


def same(size=3, **options):
    return layers.Conv2D(2, size, **{"padding": "same", "name": "conv", **options})


def causal(size):
    return layers.Conv1D(2, size, strides=2, padding="causal", name="conv")


def channels_first():
    convolution = same((1, 2), strides=(1, 2), data_format="channels_first")
    return signs(layers.Permute((3, 1, 2)), convolution, shape=(2, 7, 2))


def as_an_activation():
    activation = DiscreteActivation("binary", name="act")
    return stack_of(same(name="first", activation=activation), same(), shape=(6, 6, 2))


PADDED = {
    "same": lambda: signs(same()),
    "listed": lambda: signs(listed(same(name="inner"), name="conv")),
    "behind pooling": lambda: signs(layers.MaxPooling2D(), layers.Dropout(0.5), same()),
    "depthwise": lambda: signs(layers.DepthwiseConv2D(3, padding="same", name="conv")),
    "strides": lambda: signs(same(2, strides=5)),
    "causal": lambda: signs(causal(2), shape=(6, 2)),
    "channels first": channels_first,
    "as an activation": as_an_activation,
}


@on_one_backend
@pytest.mark.parametrize("make", PADDED.values(), ids=PADDED)
def test_zeros_around_a_list_without_0_are_reported(make):
    with pytest.warns(
        UserWarning,
        match=r"'act' has a list without 0, .*'conv' puts zeros around it \(padding='(same|causal)'"
        r"\).*keras\.ops\.pad.*constant_values.*padding='valid'",
    ):
        assert_listed(make())


@on_one_backend
def test_a_layer_that_pads_with_zeros_is_reported_before_a_convolution():
    padding = layers.ZeroPadding2D(1, name="zeros")
    with pytest.warns(UserWarning, match=r"'act' has .* 'zeros' puts zeros .* before 'conv'"):
        assert_listed(signs(padding, same(padding="valid")))


def surrounded(put):
    """A model of a 'valid' convolution over signs that a function puts something around."""
    inputs = keras.Input((6, 6, 2))
    x = put(DiscreteActivation("binary", name="act")(inputs))
    return keras.Model(inputs, same(padding="valid")(x))


AROUND = [[0, 0], [1, 1], [1, 1], [0, 0]]
SURROUNDED = {
    "zeros": (lambda x: ops.pad(x, AROUND), "puts zeros around it before 'conv'"),
    "by reshape": (lambda x: ops.pad(ops.reshape(x, (-1, 4, 9, 2)), AROUND), "puts zeros"),
    "halves": (
        lambda x: ops.pad(x, AROUND, constant_values=0.5),
        "puts 0.5, which it does not give, around it",
    ),
    "joined": (lambda x: ops.concatenate([x, ops.zeros_like(x)], axis=1), "puts zeros around"),
    "layer": (lambda x: layers.Concatenate(axis=1)([0 * x, x]), "'concatenate.*' puts zeros"),
}


@on_one_backend
@pytest.mark.parametrize(("put", "words"), SURROUNDED.values(), ids=SURROUNDED)
def test_operations_that_put_other_numbers_around_are_reported(put, words):
    with pytest.warns(UserWarning, match=f"'act' has a list without 0, .*{words}"):
        assert_listed(surrounded(put))


UNPADDED = {
    "reflected": lambda: surrounded(lambda x: ops.pad(x, AROUND, "reflect")),
    "joined": lambda: surrounded(lambda x: ops.concatenate([x, ops.flip(x, 1), x], axis=1)),
    "joined twice": lambda: surrounded(lambda x: ops.concatenate([x, x], axis=1)),
    "a list with 0": lambda: signs(same(), values="ternary"),
    "valid": lambda: signs(same(padding="valid")),
    "of size 1": lambda: signs(same(1, strides=2)),
    "causal of size 1": lambda: signs(causal(1), shape=(6, 2)),
    "strides that fit": lambda: signs(same(2, strides=2)),
    "other numbers": lambda: signs(layers.AveragePooling2D(2), same()),
    "means": lambda: signs(layers.UpSampling2D(interpolation="bilinear"), same()),
    "no zeros": lambda: signs(layers.ZeroPadding2D(0), same(padding="valid")),
    "zeros before no convolution": lambda: signs(layers.ZeroPadding2D(), layers.Flatten()),
    "a listed value": lambda: surrounded(lambda x: ops.pad(x, AROUND, constant_values=1)),
}


@on_one_backend
@pytest.mark.parametrize("make", UNPADDED.values(), ids=UNPADDED)
def test_what_puts_no_zeros_around_a_list_passes(make):
    assert_listed(make())
