import keras
import numpy as np
import pytest
from keras import layers, ops

from conftest import BACKEND, numpy, on_one_backend
from models import CASES, VALUES, KerasTestCase, every_case, model_of, targets
from quantal import Discrete, LearnableMultiplier, Values, parameters_of, testing
from quantal._core.tensors.latent_units import LatentUnits


def give_listed_weights(plain, discrete):
    """Set a plain layer's weights to the discrete layer's listed ones."""
    chosen = {id(p.latent): p.listed_values for p in discrete.discrete_parameters}
    for target, source in zip(plain.variables, discrete.layer.variables, strict=True):
        target.assign(numpy(chosen.get(id(source), source)))


def listed_copy(case, discrete):
    """A plain layer whose weights are the discrete layer's listed ones."""
    plain = case.make()
    plain(case.data())
    give_listed_weights(plain, discrete)
    return plain


# Law 8: the wrapped layer is the plain layer given the listed weights.


@pytest.mark.product
@every_case
@pytest.mark.parametrize("training", [False, True])
def test_wrapped_equals_plain_with_listed_weights(name, training):
    case = CASES[name]
    discrete = case.wrapped()
    x = case.data()
    discrete(x)
    for parameter in discrete.discrete_parameters:
        testing.assert_members(parameter.listed_values, VALUES)
    if training and name == "composite":
        # Dropout draws anew at each call: leave it out of the comparison.
        discrete.layer.layers[2].rate = 0.0
    plain = listed_copy(case, discrete)
    if training and name == "composite":
        plain.layers[2].rate = 0.0
    np.testing.assert_array_equal(
        numpy(discrete(x, training=training)), numpy(plain(x, training=training))
    )


# Law 7: wrapping a layer whose weights are listed changes nothing.


@pytest.mark.product
@every_case
def test_wrapping_a_layer_on_the_list_changes_nothing(name):
    case = CASES[name]
    first = case.wrapped()
    x = case.data()
    first(x)
    plain = listed_copy(case, first)
    before = numpy(plain(x))
    again = Discrete(plain, VALUES, case.weights)
    np.testing.assert_array_equal(numpy(again(x)), before)
    for one, other in zip(first.discrete_parameters, again.discrete_parameters, strict=True):
        np.testing.assert_array_equal(numpy(one.codes), numpy(other.codes))


def test_a_built_layer_keeps_its_weights_as_latents():
    dense = layers.Dense(3)
    dense.build((None, 4))
    kernel = numpy(dense.kernel)
    discrete = Discrete(dense, [10, 0.25, -0.25])
    discrete.build((None, 4))
    np.testing.assert_array_equal(numpy(discrete.listed_values), discrete.values.nearest(kernel))


# It trains: every weight that the plain layer would move, moves; on every compiler.


@pytest.mark.product
@every_case
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("jit", [False, "auto"])
def test_everything_trains(name, dtype, jit):
    keras.config.set_dtype_policy(dtype)
    case = CASES[name]
    discrete = case.wrapped()
    model = model_of(case, discrete, jit_compile=jit)
    before = [numpy(v) for v in discrete.variables]
    model.fit(case.data(), targets(model), epochs=2, batch_size=4, verbose=0)
    for variable, old in zip(discrete.variables, before, strict=True):
        # Without dropout nothing draws; PyTorch's dropout keeps its own generator.
        draws = name == "composite" and keras.config.backend() != "torch"
        if "seed_generator" in variable.path and not draws:
            continue
        assert not np.array_equal(old, numpy(variable)), f"{variable.path} did not move"
    for parameter in discrete.discrete_parameters:
        assert parameter.latent.dtype == "float32"
        testing.assert_members(parameter.listed_values, VALUES)


@pytest.mark.product
@pytest.mark.parametrize("name", ["Dense", "composite"])
def test_everything_trains_under_the_compiler_of_pytorch(name):
    if keras.config.backend() != "torch":
        pytest.skip("the other backends compile in test_everything_trains")
    case = CASES[name]
    discrete = case.wrapped()
    model = model_of(case, discrete, jit_compile=True)
    before = [numpy(v) for v in discrete.trainable_variables]
    model.fit(case.data(), targets(model), verbose=0)
    for variable, old in zip(discrete.trainable_variables, before, strict=True):
        assert not np.array_equal(old, numpy(variable)), f"{variable.path} did not move"


def test_attention():
    discrete = Discrete(layers.MultiHeadAttention(2, 3), "ternary")
    query, value = keras.Input((4, 6)), keras.Input((5, 6))
    model = keras.Model([query, value], discrete(query, value, use_causal_mask=True))
    model.compile("adam", "mse")
    assert len(discrete.discrete_parameters) == 4
    with pytest.raises(ValueError, match="has 4 discrete weights"):
        _ = discrete.listed_values
    random = np.random.default_rng(0)
    x = [random.normal(size=(8, n, 6)).astype("float32") for n in (4, 5)]
    outputs = numpy(discrete(*x, use_causal_mask=True))
    expected = np.mean((outputs - x[0]) ** 2)
    np.testing.assert_allclose(
        model.evaluate(x, x[0], batch_size=8, verbose=0), expected, rtol=1e-4
    )
    before = [numpy(v) for v in model.trainable_variables]
    fitted = model.fit(x, x[0], batch_size=8, verbose=0).history["loss"][0]
    np.testing.assert_allclose(fitted, expected, rtol=1e-4)
    moved = [
        not np.array_equal(old, numpy(v))
        for old, v in zip(before, model.trainable_variables, strict=True)
    ]
    assert sum(moved) >= len(moved) - 1  # a bias of the keys cancels in the softmax
    plain = layers.MultiHeadAttention(2, 3)
    plain(*x)
    give_listed_weights(plain, discrete)
    np.testing.assert_allclose(
        model.predict(x, verbose=0), numpy(plain(*x, use_causal_mask=True)), atol=1e-5
    )


# The traps of the scope wrapper, one by one (docs/design.md).


def with_losses():
    return Discrete(
        keras.Sequential(
            [
                layers.Dense(
                    6, activity_regularizer=keras.regularizers.L2(0.3),
                    kernel_regularizer=keras.regularizers.L2(0.2),
                ),
                layers.BatchNormalization(),
                layers.Dense(3, activity_regularizer=keras.regularizers.L1(0.1)),
            ]
        ),
        VALUES,
    )  # fmt: skip


def loss_in_numpy(discrete, x, y, training):
    """The loss by hand: mean squared error, activities per row, latents' penalty."""
    first, norm, second = discrete.layer.layers
    kernels = [numpy(parameter.listed_values) for parameter in discrete.discrete_parameters]
    hidden = x @ kernels[0] + numpy(first.bias)
    if training:
        mean, variance = hidden.mean(0), hidden.var(0)
    else:
        mean, variance = numpy(norm.moving_mean), numpy(norm.moving_variance)
    normal = (hidden - mean) / np.sqrt(variance + norm.epsilon)
    outputs = (normal * numpy(norm.gamma) + numpy(norm.beta)) @ kernels[1] + numpy(second.bias)
    latent = numpy(discrete.discrete_parameters[0].latent)
    return (
        np.mean((outputs - y) ** 2)
        + 0.3 * np.sum(hidden**2) / len(x)
        + 0.1 * np.sum(np.abs(outputs)) / len(x)
        + 0.2 * np.sum(latent**2)
    )


@pytest.mark.parametrize("eagerly", [False, True])
def test_losses_count_once(eagerly):
    discrete = with_losses()
    model = keras.Sequential([keras.Input((5,)), discrete])
    model.compile(keras.optimizers.SGD(0.0), "mse", run_eagerly=eagerly)
    random = np.random.default_rng(0)
    x, y = random.normal(size=(16, 5)).astype("f4"), random.normal(size=(16, 3)).astype("f4")
    np.testing.assert_allclose(
        model.evaluate(x, y, batch_size=16, verbose=0),
        loss_in_numpy(discrete, x, y, False),
        rtol=1e-4,
    )
    expected = loss_in_numpy(discrete, x, y, True)
    fitted = model.fit(x, y, batch_size=16, verbose=0).history["loss"][0]
    np.testing.assert_allclose(fitted, expected, rtol=1e-4)


@pytest.mark.product
@every_case
def test_first_fit_loss_is_the_loss_of_the_call(name):
    case = CASES[name]
    discrete = case.wrapped()
    if name == "composite":
        discrete.layer.layers[2].rate = 0.0
    discrete.layer.activity_regularizer = keras.regularizers.L2(0.1)
    model = model_of(case, discrete)
    x, y = case.data(), targets(model)
    outputs = numpy(discrete(x, training=True))
    expected = np.mean((outputs - y) ** 2) + 0.1 * np.sum(outputs**2) / len(x)
    calls = numpy(model(x))
    evaluated = model.evaluate(x, y, batch_size=8, verbose=0)
    if name != "composite":
        in_calls = np.mean((calls - y) ** 2) + 0.1 * np.sum(calls**2) / len(x)
        np.testing.assert_allclose(evaluated, in_calls, rtol=1e-4)
    fitted = model.fit(x, y, batch_size=8, verbose=0).history["loss"][0]
    np.testing.assert_allclose(fitted, expected, rtol=1e-4)


def test_statistics_and_seeds_are_written_back():
    discrete = CASES["composite"].wrapped()
    model = model_of(CASES["composite"], discrete)
    norm = discrete.layer.layers[1]
    x = CASES["composite"].data()
    model.fit(x, targets(model), batch_size=8, verbose=0)
    assert not np.allclose(numpy(norm.moving_mean), 0)
    outputs = [numpy(discrete(x, training=True)) for _ in range(2)]
    assert not np.array_equal(*outputs)


def test_a_frozen_layer_keeps_its_latents():
    # Non-trainable variables are written back; latents, frozen or not, must not be.
    discrete = CASES["Dense"].wrapped()
    model = model_of(CASES["Dense"], discrete)
    discrete.trainable = False
    latent = numpy(discrete.discrete_parameters[0].latent)
    model.predict(CASES["Dense"].data(), verbose=0)
    discrete(CASES["Dense"].data(), training=True)
    np.testing.assert_array_equal(numpy(discrete.discrete_parameters[0].latent), latent)
    assert not set(np.unique(latent)) <= set(VALUES.numbers)


def test_a_layer_that_assigns_its_kernel_is_refused_and_touches_no_latent():
    class Assigning(layers.Dense):
        def call(self, inputs, training=None):
            self._kernel.assign(self._kernel * 2.0)
            return super().call(inputs, training=training)

    discrete = Discrete(Assigning(2), VALUES)
    discrete.build((None, 3))
    latent = numpy(discrete.discrete_parameters[0].latent)
    with pytest.raises(ValueError, match="assigns to its weight"):
        discrete(np.ones((1, 3)))
    np.testing.assert_array_equal(numpy(discrete.discrete_parameters[0].latent), latent)


def test_latents_are_read_in_float32_under_mixed_precision():
    # Rounded to bfloat16, a latent just below the midpoint would be on it, and flip.
    keras.config.set_dtype_policy("mixed_bfloat16")
    values = Values([1, 2])
    discrete = Discrete(layers.Dense(1, use_bias=False), values)
    discrete.build((None, 1))
    units = LatentUnits(values)
    just_below = np.nextafter(np.float32(1.5), np.float32(0))
    discrete.discrete_parameters[0].latent.assign([[units.latents_of(just_below)]])
    assert float(numpy(discrete.listed_values)[0, 0]) == 1
    assert float(numpy(ops.cast(discrete(np.ones((1, 1))), "float32"))[0, 0]) == 1


def test_annealing_steps_in_layers_whose_call_takes_no_training():
    discrete = CASES["Embedding"].wrapped(estimator="annealed")
    model = model_of(CASES["Embedding"], discrete)
    model.fit(CASES["Embedding"].data(), targets(model), batch_size=4, verbose=0)
    assert numpy(discrete.discrete_parameters[0].state)[0] == 2
    model.predict(CASES["Embedding"].data(), verbose=0)
    assert numpy(discrete.discrete_parameters[0].state)[0] == 2


def test_masks_reach_the_wrapped_layer_and_leave_it():
    inputs = keras.Input((4,), dtype="int32")
    embedding = Discrete(layers.Embedding(5, 3, mask_zero=True), VALUES, "embeddings")
    lstm = Discrete(layers.LSTM(2), VALUES)
    model = keras.Model(inputs, lstm(embedding(inputs)))
    padded = model.predict(np.array([[1, 2, 0, 0]]), verbose=0)
    other = model.predict(np.array([[1, 2, 3, 4]]), verbose=0)
    short = numpy(lstm(embedding(np.array([[1, 2]]))))
    np.testing.assert_allclose(padded, short, rtol=1e-6)
    assert not np.allclose(padded, other)


def test_an_unbuilt_model_starts_on_the_list_within_fit():
    model = keras.Sequential(
        [Discrete(layers.Dense(40), [1, 2, 4]), Discrete(layers.Dense(1), "binary")]
    )
    model.compile(keras.optimizers.SGD(0.0), "mse")
    model.fit(np.ones((8, 30)), np.ones((8, 1)), verbose=0)
    usage = Values([1, 2, 4]).usage(numpy(model.layers[0].codes))
    assert usage.min() > 200  # a quarter, a half and a quarter of 1,200


def test_a_custom_training_loop_without_training_argument_gets_gradients():
    discrete = CASES["Dense"].wrapped()
    x = CASES["Dense"].data()
    discrete(x)
    latent = discrete.discrete_parameters[0].latent

    def outputs(number):
        with keras.StatelessScope([(latent, number)]):
            return discrete(x)

    # Each output is a sum of inputs times values, and a value moves with its latent.
    expected = np.broadcast_to(LatentUnits(VALUES).unit * x.sum(axis=0)[:, None], latent.shape)
    gradient = testing.gradient_of(outputs, numpy(latent))
    np.testing.assert_allclose(gradient, expected, rtol=1e-5)


# Which weights, and what is refused.


def test_weights_by_the_end_of_their_path():
    attention = Discrete(layers.MultiHeadAttention(2, 3), "ternary", weight_names=("query/kernel",))
    x = np.ones((2, 4, 6), "float32")
    attention(x, x)
    assert [p.path.split("/")[-2:] for p in attention.discrete_parameters] == [["query", "kernel"]]


def test_no_such_weight_lists_what_there_is():
    with pytest.raises(ValueError, match=r"no such weight. It has: dense.*/kernel, dense.*/bias"):
        Discrete(layers.Dense(2, name="dense"), VALUES, "kernels")(np.ones((1, 2)))


def test_weights_are_chosen_by_their_position_too():
    discrete = Discrete(layers.LSTM(3), VALUES, weight_names=1)
    discrete.build((None, 4, 2))
    (parameter,) = discrete.discrete_parameters
    assert parameter.latent.name == "recurrent_kernel_latent"
    again = Discrete.from_config(discrete.get_config())
    assert again.weight_names == (1,)


def test_a_config_is_read_with_the_classes_that_are_given():
    class Mine(layers.Dense):
        pass

    config = Discrete(Mine(2), VALUES).get_config()
    for again in (
        Discrete.from_config(config, {"Mine": Mine}),
        Discrete.from_config(config, custom_objects={"Mine": Mine}),
    ):
        assert type(again.layer) is Mine


@pytest.mark.parametrize("weights", [(), "", [3.5], -1, True, None])
def test_bad_names_are_refused(weights):
    with pytest.raises(TypeError, match="weight_names is"):
        Discrete(layers.Dense(2), VALUES, weights)


def test_quantizers_of_other_libraries_are_refused():
    with pytest.raises(TypeError, match=r"input_quantizer came.*activations stay floats"):
        Discrete(layers.Dense(2), VALUES, input_quantizer="ste_sign")


@pytest.mark.parametrize("layer", [layers.Activation("relu"), layers.Flatten()])
def test_a_layer_without_weights_is_refused(layer):
    with pytest.raises(ValueError, match=r"has no weights.*For binary activations"):
        Discrete(layer, VALUES)(np.ones((2, 3)))


def test_what_is_no_layer_is_refused():
    with pytest.raises(TypeError, match="Expected a Keras layer"):
        Discrete(layers.Dense, VALUES)


def test_lora_is_refused_before_and_after():
    dense = layers.Dense(4)
    dense.build((None, 4))
    dense.enable_lora(2)
    with pytest.raises(ValueError, match="uses LoRA"):
        Discrete(dense, VALUES)(np.ones((1, 4)))
    discrete = CASES["Dense"].wrapped()
    discrete(CASES["Dense"].data())
    with pytest.raises(ValueError, match="LoRA would put other numbers"):
        discrete.layer.enable_lora(2)


def test_keras_quantization_is_refused():
    discrete = CASES["Dense"].wrapped()
    discrete(CASES["Dense"].data())
    with pytest.raises(ValueError, match="Keras's quantization would put other numbers"):
        discrete.layer.quantize("int8")


# Dtypes.


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_a_layer_of_half_precision_gets_float32_latents(half):
    discrete = Discrete(layers.Dense(2, dtype=half), VALUES)
    outputs = discrete(np.ones((1, 3)))
    assert keras.backend.standardize_dtype(outputs.dtype) == half
    assert discrete.discrete_parameters[0].latent.dtype == "float32"
    built = layers.Dense(2, dtype=half)
    built.build((None, 3))
    with pytest.raises(ValueError, match=f"has its weights in {half}"):
        Discrete(built, VALUES)


FLOAT64 = {
    "conv": (lambda: layers.Conv2D(2, 2, dtype="float64"), "kernel", (4, 4, 3)),
    "depthwise": (lambda: layers.DepthwiseConv2D(2, dtype="float64"), "kernel", (4, 4, 3)),
    "lstm": (lambda: layers.LSTM(2, dtype="float64"), ("kernel", "recurrent_kernel"), (3, 2)),
    "einsum": (lambda: layers.EinsumDense("ab,bc->ac", (2,), dtype="float64"), "kernel", (3,)),
}


@pytest.mark.skipif(BACKEND == "jax", reason="JAX has no double precision by default")
@pytest.mark.parametrize("name", FLOAT64)
def test_a_layer_of_double_precision_computes_and_trains_in_it(name):
    make, names, shape = FLOAT64[name]
    layer = Discrete(make(), "ternary", names, scale="learned")
    model = keras.Sequential([keras.Input(shape, dtype="float64"), layer])
    inputs = np.random.default_rng(0).normal(size=(2, *shape))
    assert keras.backend.standardize_dtype(model(inputs).dtype) == layer.layer.compute_dtype
    model.compile("sgd", "mse")
    before = numpy(layer.discrete_parameters[0].latent)
    model.train_on_batch(inputs, numpy(model(inputs)) + 1)
    assert (numpy(layer.discrete_parameters[0].latent) != before).any()


def test_dtype_is_handed_to_the_wrapped_layer():
    discrete = Discrete(layers.Dense(2, use_bias=False), VALUES, dtype="mixed_bfloat16")
    outputs = discrete(np.eye(3, dtype="float32"))
    assert keras.backend.standardize_dtype(outputs.dtype) == "bfloat16"
    testing.assert_members(outputs, VALUES)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("compile", [False, True], ids=["eager", "compiled"])
def test_what_the_layer_computes_with_is_listed(dtype, compile):
    if compile and keras.config.backend() == "torch":
        pytest.skip("Keras's stateless scope breaks torch's graph; fit covers it in pieces")
    discrete = Discrete(layers.Dense(50, use_bias=False, dtype=dtype), VALUES)
    eye = ops.eye(20, dtype=dtype)
    discrete(eye)
    testing.assert_members((testing.compiled(discrete) if compile else discrete)(eye), VALUES)


def test_scales_of_layers_created_from_a_config_start_at_the_spread_of_the_initializer():
    def layer():
        return Discrete(layers.Dense(64), "ternary", scale="learned")

    def scale_of(model):
        model.build((None, 64))
        (parameter,) = parameters_of(model)
        return float(numpy(parameter.scale).mean())

    first = scale_of(layer())
    built = layer()
    built.build((None, 64))
    trained = layers.Dense(64)
    trained.build((None, 64))
    sequential = keras.Sequential([keras.Input((64,)), layer()])
    for other in (
        Discrete.from_config(layer().get_config()),
        Discrete.from_config(built.get_config()),
        keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(built)),
        Discrete.from_config(Discrete(trained, "ternary", scale="learned").get_config()),
        keras.models.clone_model(sequential),
        keras.models.clone_model(keras.Sequential([layer()])),
        keras.Sequential.from_config(sequential.get_config()),
    ):
        assert scale_of(other) == pytest.approx(first, rel=0.1)


def test_learned_scale_multiplies_the_listed_weights():
    discrete = CASES["Dense"].wrapped(scale="learned")
    x = CASES["Dense"].data()
    discrete(x)
    before = numpy(discrete(x))
    state = discrete.discrete_parameters[0].scale_state
    state.begin(2 * numpy(state.start))
    np.testing.assert_allclose(numpy(discrete(x)), 2 * before, rtol=1e-6)
    testing.assert_members(discrete.listed_values, VALUES)


def test_discrete_layers_inside_keep_their_lists():
    inner = keras.Sequential(
        [layers.Dense(3), LearnableMultiplier([4, 5]), Discrete(layers.Dense(2), [7, 8])]
    )
    outer = Discrete(inner, VALUES)
    outer(np.ones((2, 4), "float32"))
    kernels = {p.values: numpy(p.listed_values) for p in parameters_of(outer)}
    assert set(kernels) == {VALUES, Values([4, 5]), Values([7, 8])}
    for values, kernel in kernels.items():
        testing.assert_members(ops.convert_to_tensor(kernel), values)
    assert len(outer.discrete_parameters) == 1


# Keras's own contract for layers.


@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed:UserWarning")
class TestKerasContract(KerasTestCase):
    def test_dense(self):
        self.run_layer_test(
            Discrete,
            init_kwargs={
                "layer": layers.Dense(4, activity_regularizer="l2", kernel_regularizer="l2"),
                "values": [1, -1],
            },
            input_shape=(2, 3),
            expected_output_shape=(2, 4),
            expected_num_trainable_weights=2,
            expected_num_non_trainable_weights=0,
            expected_num_seed_generators=0,
            expected_num_losses=2,
            supports_masking=True,
        )

    def test_lstm_with_state_and_scale(self):
        self.run_layer_test(
            Discrete,
            init_kwargs={
                "layer": layers.LSTM(4),
                "values": "ternary",
                "weight_names": ["kernel", "recurrent_kernel"],
                "estimator": "annealed",
                "scale": "learned",
            },
            input_shape=(2, 5, 3),
            expected_output_shape=(2, 4),
            expected_num_trainable_weights=5,
            expected_num_non_trainable_weights=4,
            supports_masking=True,
        )


@on_one_backend
@pytest.mark.parametrize(
    "layer",
    [layers.MultiHeadAttention(2, 4), layers.GroupQueryAttention(4, 4, 2)],
    ids=["multi-head", "group query"],
)
@pytest.mark.parametrize("by_name", [False, True])
def test_a_layer_is_built_with_the_shapes_that_it_takes(layer, by_name):
    shape, x = (None, 5, 8), np.ones((2, 5, 8), "float32")
    wrapped = Discrete(type(layer).from_config(layer.get_config()), "ternary")
    if by_name:
        wrapped.build(query_shape=shape, value_shape=shape)
    else:
        wrapped.build(shape, shape)
    assert len(parameters_of(wrapped)) == 4
    assert wrapped(x, x).shape == (2, 5, 8)


# A weight is on one list, and starts where its layer's initializer says.


def second_on_the_same_layer(discrete):
    return Discrete(discrete.layer, "binary")


def second_on_a_layer_inside(discrete):
    return Discrete(keras.Sequential([keras.Input((3,)), discrete.layer]), "binary")


@on_one_backend
@pytest.mark.parametrize("wrap", [second_on_the_same_layer, second_on_a_layer_inside])
def test_a_weight_is_on_the_list_of_one_wrapper(wrap):
    first = Discrete(layers.Dense(4, name="shared"), "ternary", name="first")
    first.build((None, 3))
    before = numpy(first.discrete_parameters[0].latent).copy()
    with pytest.raises(ValueError, match=r"shared/kernel is on the list of the wrapper 'first'"):
        wrap(first)
    np.testing.assert_array_equal(numpy(first.discrete_parameters[0].latent), before)
    # Other weights of the layer may go on another list, and all of them once it is gone.
    other = Discrete(first, [0, 0.5, 1], "bias")
    other.build()
    dense = first.layer
    del first, other
    Discrete(dense, "binary").build()


@on_one_backend
def test_the_wrapper_that_is_built_second_is_refused():
    dense = layers.Dense(4, name="shared")
    first, second = Discrete(dense, "ternary", name="first"), Discrete(dense, "binary")
    first.build((None, 3))
    with pytest.raises(ValueError, match=r"shared/kernel is on the list of the wrapper 'first'"):
        second(np.ones((1, 3)))


@on_one_backend
def test_a_wrapper_that_is_made_again_has_the_weights():
    dense = layers.Dense(4, name="shared")
    first = Discrete(dense, "ternary", scale="learned", name="first")
    first.build((None, 3))
    second = Discrete(dense, "ternary", scale="learned", name="second")
    assert second(np.ones((1, 3))).shape == (1, 4)
    with pytest.raises(ValueError, match="'first' has given its weights to 'second'"):
        first(np.ones((1, 3)))


KNOWN = np.array([[1, -1, 0], [0, 1, -1]], "float32")


@pytest.mark.parametrize("scale", [None, "learned"])
def test_a_chosen_initializer_is_a_start(scale):
    factor = 1 if scale is None else 0.5
    known = keras.initializers.Constant(factor * KNOWN)
    discrete = Discrete(layers.Dense(3, kernel_initializer=known), "ternary", scale=scale)
    discrete.build((None, 2))
    np.testing.assert_array_equal(numpy(discrete.kernel), factor * KNOWN)
    # Within fit, where weights have no numbers while Keras builds the model; and from a config.
    again = Discrete.from_config(discrete.get_config())
    model = keras.Sequential([again])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    model.fit(np.ones((2, 2)), np.ones((2, 3)), verbose=0)
    np.testing.assert_array_equal(numpy(again.kernel), factor * KNOWN)


def given(layer, weight_names, shape):
    discrete = Discrete(layer, "ternary", weight_names)
    discrete.build(shape)
    return [numpy(parameter.weight) for parameter in discrete.discrete_parameters]


def test_every_layer_starts_where_its_initializer_says():
    names = ("kernel", "recurrent_kernel")
    kernel, recurrent = given(
        layers.LSTM(2, kernel_initializer="ones", recurrent_initializer=minus_one),
        names,
        (None, 3, 2),
    )
    assert np.all(kernel == 1)
    assert np.all(recurrent == -1)
    (words,) = given(layers.Embedding(2, 3, KNOWN_START), "embeddings", (None, 4))
    np.testing.assert_array_equal(words, KNOWN)
    for layer in (
        layers.Conv2D(2, 2, kernel_initializer="ones"),
        layers.DepthwiseConv2D(2, depthwise_initializer="ones"),
        layers.MultiHeadAttention(1, 2, kernel_initializer="ones"),
    ):
        shapes = [(None, 4, 4, 2)] if "conv" in layer.name else [(None, 4, 2), (None, 4, 2)]
        discrete = Discrete(layer, "ternary")
        discrete.build(*shapes)
        assert all(np.all(numpy(p.weight) == 1) for p in discrete.discrete_parameters)
    (identity,) = given(layers.Dense(3, kernel_initializer="identity"), "kernel", (None, 3))
    np.testing.assert_array_equal(identity, np.eye(3))


def minus_one(shape, dtype=None):
    return -keras.ops.ones(shape, dtype)


KNOWN_START = keras.initializers.Constant(KNOWN)


@pytest.mark.parametrize(
    "initializers",
    [
        {},
        {"kernel_initializer": keras.initializers.GlorotUniform(seed=5)},
        {"kernel_initializer": "he_normal"},
        {"recurrent_initializer": keras.initializers.Orthogonal(seed=5)},
    ],
)
def test_other_initializers_leave_the_start_near_midpoints(initializers):
    names = ["kernel", "recurrent_kernel"]
    parameters = []
    for arguments in ({}, initializers):
        discrete = Discrete(layers.LSTM(4, **arguments), "ternary", names, seed=3)
        discrete.build((None, 2, 5))
        parameters.append([numpy(p.latent) for p in discrete.discrete_parameters])
    for expected, latents in zip(*parameters, strict=True):
        np.testing.assert_array_equal(latents, expected)


@on_one_backend
def test_an_initializer_with_nan_is_refused():
    discrete = Discrete(layers.Dense(3, kernel_initializer=lambda *_, **__: np.nan * KNOWN), "nf4")
    with pytest.raises(ValueError, match=r"weights of .*kernel"):
        discrete.build((None, 2))
