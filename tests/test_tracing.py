import keras
import numpy as np
import pytest
from keras import layers, ops

from conftest import numpy
from models import (
    LISTED_MODELS,
    ROUNDED,
    every_listed_model,
    listed,
    masked,
    stack_of,
)
from quantal import LearnableMultiplier, Parameter, Values, parameters_of
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
