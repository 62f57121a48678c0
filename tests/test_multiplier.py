import keras
import numpy as np
import pytest
from keras import layers

from conftest import numpy
from lists import NAMED
from models import KerasTestCase
from quantal import Discrete, LearnableMultiplier, Values, estimators, testing

EAGER_AND_COMPILED = [False, True]


def trained(layer, shape, rows=64, jit=None, optimizer="adam", epochs=1, target=None):
    """A model of one layer after some training on random data."""
    random = np.random.default_rng(0)
    model = keras.Sequential([keras.Input(shape), layer])
    model.compile(optimizer, "mse", jit_compile=jit)
    x = random.normal(size=(rows, *shape)).astype("float32")
    y = random.normal(size=(rows, *shape)).astype("float32") if target is None else x * target
    model.fit(x, y, epochs=epochs, verbose=0)
    return model


# Law 3 in the layer: members of the list by equality, in every dtype, eager and compiled.


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("name", ["no exact halves", "tenths", "uneven", "nf4"])
@pytest.mark.parametrize("compile", EAGER_AND_COMPILED, ids=["eager", "compiled"])
def test_what_the_layer_multiplies_by_is_listed(name, dtype, compile):
    values = NAMED[name]
    layer = LearnableMultiplier(values, dtype=dtype, kernel_initializer="random_normal")
    ones = keras.ops.ones((1, 1000), dtype=dtype)
    layer(ones)
    outputs = (testing.compiled(layer) if compile else layer)(ones)
    assert keras.backend.standardize_dtype(outputs.dtype) == dtype
    testing.assert_members(outputs, values)
    testing.assert_members(layer.listed_values, values)
    assert layer.discrete_parameters[0].latent.dtype == "float32"


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_what_the_layer_multiplies_by_in_training_is_listed(dtype):
    values = NAMED["tenths"]
    layer = LearnableMultiplier(
        values, dtype=dtype, kernel_initializer="random_normal", estimator="straight_through"
    )
    outputs = layer(keras.ops.ones((1, 1000)), training=True)
    testing.assert_members(outputs, values)


def test_the_usual_line_is_caught(monkeypatch):
    stop = keras.ops.stop_gradient
    monkeypatch.setattr(
        estimators.settling, "as_if_pulled", lambda value, x, *others: x + stop(value - x)
    )
    layer = LearnableMultiplier(NAMED["tenths"], kernel_initializer="random_normal")
    with pytest.raises(AssertionError, match="not in"):
        testing.assert_members(layer(keras.ops.ones((1, 1000))), layer.values)


# It learns.


EAGER_ON_JAX = [("auto", "float32"), ("straight_through", "mixed_bfloat16")]


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize(
    "estimator",
    ["auto", "straight_through", "annealed", "binary_relax", "argmax_straight_through"],
)
def test_a_hidden_vector_is_found(estimator, dtype, jit):
    if jit and keras.config.backend() == "torch" and estimator != "straight_through":
        pytest.skip("torch.compile takes most of a minute; one estimator stands for all")
    if not jit and keras.config.backend() == "jax" and (estimator, dtype) not in EAGER_ON_JAX:
        pytest.skip("JAX's eager steps are slow; two estimators stand for all")
    values = Values([1, -1, 0.5, -0.5])
    hidden = values.take(np.arange(12) % 4)
    layer = LearnableMultiplier(values, estimator=estimator, dtype=dtype)
    trained(
        layer, (12,), rows=512, jit=jit, optimizer=keras.optimizers.Adam(0.02), epochs=12,
        target=hidden,
    )  # fmt: skip
    np.testing.assert_array_equal(numpy(layer.listed_values), hidden)


def test_annealed_state_counts_the_steps_of_training():
    layer = LearnableMultiplier(estimator="annealed")
    model = trained(layer, (3,), rows=64, epochs=2)
    state = layer.discrete_parameters[0].state
    assert numpy(state)[0] == 4
    model.predict(np.ones((64, 3)), verbose=0)
    assert numpy(state)[0] == 4


def test_learned_scale():
    layer = LearnableMultiplier([1, -1], scale="learned")
    trained(
        layer, (4,), rows=512, optimizer=keras.optimizers.Adam(0.05), epochs=20,
        target=np.array([2.5, -2.5, -2.5, 2.5], "float32"),
    )  # fmt: skip
    np.testing.assert_array_equal(numpy(layer.listed_values), [1, -1, -1, 1])
    np.testing.assert_allclose(numpy(layer.discrete_parameters[0].scale), 2.5, rtol=1e-2)


# Axes, shapes, masks.


@pytest.mark.parametrize(
    ("axis", "shape", "kernel"),
    [(-1, (5, 3), (3,)), (1, (5, 3), (5,)), ((1, 2), (5, 3), (5, 3)), ((-1, 1), (5, 2, 3), (5, 3))],
)
def test_axis(axis, shape, kernel, random):
    layer = LearnableMultiplier("ternary", axis=axis)
    x = random.normal(size=(2, *shape)).astype("float32")
    outputs = numpy(layer(x))
    assert tuple(layer.listed_values.shape) == kernel
    chosen = numpy(layer.listed_values)
    expand = {(5,): (5, 1), (5, 3): (5, 3), (3,): (3,)}[kernel]
    if len(shape) == 3:
        expand = (5, 1, 3)
    np.testing.assert_array_equal(outputs, x * chosen.reshape(expand))
    assert layer.compute_output_shape((None, *shape)) == (None, *shape)


@pytest.mark.parametrize(
    ("axis", "shape", "error", "words"),
    [
        (0, (2, 3), ValueError, "axis 0 is the batch"),
        (3, (2, 3), ValueError, "axis is 3 for an input of shape"),
        ((1, -1), (2, 3), ValueError, "different axes"),
        (1, (2, None, 3), ValueError, "no fixed size"),
        (1.0, (2, 3), TypeError, "axis is 1.0"),
        ((), (2, 3), TypeError, r"axis is \(\)"),
        (True, (2, 3), TypeError, "axis is True"),
    ],
)
def test_a_bad_axis_is_refused(axis, shape, error, words):
    with pytest.raises(error, match=words):
        LearnableMultiplier(axis=axis).build(shape)


def test_another_size_is_refused_by_name():
    layer = LearnableMultiplier()
    layer(np.ones((2, 3)))
    with pytest.raises(ValueError, match="incompatible with the layer"):
        layer(np.ones((2, 4)))


@pytest.mark.parametrize("scale", ["mean", 2.0])
def test_a_bad_scale_is_refused(scale):
    with pytest.raises(ValueError, match="scale is"):
        LearnableMultiplier(scale=scale)


def test_masks_pass(random):
    inputs = keras.Input((4,), dtype="int32")
    embedded = layers.Embedding(5, 3, mask_zero=True)(inputs)
    multiplied = LearnableMultiplier()(embedded)
    model = keras.Model(inputs, layers.GlobalAveragePooling1D()(multiplied))
    layer = next(layer for layer in model.layers if isinstance(layer, LearnableMultiplier))
    table = numpy(model.layers[1].embeddings)
    outputs = model.predict(np.array([[1, 2, 0, 0]]), verbose=0)
    np.testing.assert_allclose(
        outputs[0], table[1:3].mean(0) * numpy(layer.listed_values), rtol=1e-5
    )


def test_regularizer_and_constraint_see_the_latents():
    layer = LearnableMultiplier(
        [10, -10], kernel_regularizer=keras.regularizers.L2(1.0), kernel_constraint="non_neg"
    )
    layer.build((None, 4))
    layer.set_codes([0, 0, 0, 0])
    latents = numpy(layer.discrete_parameters[0].effective_latent)
    np.testing.assert_allclose(numpy(layer.losses[0]), (latents**2).sum(), rtol=1e-6)
    model = trained(layer, (4,), target=-10.0, optimizer=keras.optimizers.SGD(1.0), epochs=8)
    latents = numpy(layer.discrete_parameters[0].effective_latent)
    # The constraint stops them at 0, where the data would have -10.
    assert latents.min() == 0
    np.testing.assert_allclose(numpy(model.losses[0]), (latents**2).sum(), rtol=1e-6)


def test_it_is_a_discrete_elementwise_dense():
    multiplier = LearnableMultiplier("ternary", seed=1)
    einsum = Discrete(
        layers.EinsumDense("bi,i->bi", output_shape=(6,), bias_axes=None), "ternary", seed=1
    )
    x = np.random.default_rng(0).normal(size=(3, 6)).astype("float32")
    np.testing.assert_array_equal(numpy(multiplier(x)), numpy(einsum(x)))


# Keras's own contract for layers.


@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed:UserWarning")
class TestKerasContract(KerasTestCase):
    def test_layer(self):
        annealed = {"estimator": "annealed", "scale": "learned", "axis": (1, 2)}
        for arguments, trainable, others in (
            ({}, 1, 6),
            ({"estimator": "straight_through"}, 1, 0),
            ({"values": [1, -1, 0.5], **annealed}, 2, 2),
            ({"values": "nf4", "kernel_initializer": "glorot_uniform", "seed": 1}, 1, 6),
        ):
            self.run_layer_test(
                LearnableMultiplier,
                init_kwargs=arguments,
                input_shape=(2, 4, 3),
                expected_output_shape=(2, 4, 3),
                expected_num_trainable_weights=trainable,
                expected_num_non_trainable_weights=others,
                expected_num_seed_generators=0,
                expected_num_losses=0,
                supports_masking=True,
            )


def test_a_call_before_the_layer_is_built_says_so():
    with pytest.raises(ValueError, match="is not built"):
        LearnableMultiplier().call(np.ones((1, 2), "float32"))
