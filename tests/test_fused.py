"""A weight is computed in few passes and once a step, in TensorFlow's graphs by XLA."""

import copy
import pickle
import re

import keras
import numpy as np
import pytest

import quantal
from conftest import numpy
from quantal._core.effective_latent import EffectiveLatent
from quantal._core.tensors import backend, fused, scalars

in_tensorflow = pytest.mark.skipif(
    backend.name() != "tensorflow", reason="the other backends have compilers or run eagerly"
)

in_jax = pytest.mark.skipif(backend.name() != "jax", reason="programs of JAX can be read")


def trained(scale, **options):
    """A layer after three steps; its latents lie within the list and beyond it."""
    keras.utils.set_random_seed(0)
    layer = quantal.Discrete(keras.layers.Dense(3), [1, -1, 0.5, -0.5, 0.1], scale=scale)
    model = keras.Sequential([keras.Input((4,)), layer])
    latents = np.linspace(-1.5, 1.5, 12, dtype="float32").reshape(4, 3)
    layer.discrete_parameters[0].set_latents(latents)
    model.compile(keras.optimizers.SGD(0.5), "mse", **options)
    random = np.random.default_rng(0)
    x, y = (random.normal(size=(6, size)).astype("float32") for size in (4, 3))
    model.fit(x, y, batch_size=2, verbose=0)
    return layer


@in_tensorflow
@pytest.mark.parametrize("eager", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_fused_weight_trains_as_any_other(monkeypatch, eager):
    expected = trained("learned", run_eagerly=eager)
    monkeypatch.setattr(fused, "FEWEST_ELEMENTS", 1)
    layer = trained("learned", run_eagerly=eager)
    for variable, other in zip(layer.variables, expected.variables, strict=True):
        np.testing.assert_allclose(numpy(variable), numpy(other), rtol=1e-6, atol=1e-7)
    # A copy compiles anew.
    (parameter,) = layer.discrete_parameters
    copied = copy.deepcopy(parameter)
    np.testing.assert_array_equal(numpy(copied.compute(True)), numpy(parameter.compute(True)))
    assert isinstance(pickle.loads(pickle.dumps(fused.FusedFunction())), fused.FusedFunction)


def settled():
    """A multiplier after three steps, whose latents move in steps of their own."""
    keras.utils.set_random_seed(0)
    layer = quantal.LearnableMultiplier([1, -1, 0.5], scale="learned")
    model = keras.Sequential([keras.Input((5,)), layer])
    model.compile(keras.optimizers.Adam(0.1), "mse")
    x, y = np.random.default_rng(0).normal(size=(2, 6, 5)).astype("float32")
    model.fit(x, y, batch_size=2, verbose=0)
    return layer


@in_tensorflow
def test_a_fused_weight_whose_latents_settle_trains_as_any_other(monkeypatch):
    expected, calls, followed = settled(), [], EffectiveLatent.followed
    monkeypatch.setattr(fused, "FEWEST_ELEMENTS", 1)
    monkeypatch.setattr(
        EffectiveLatent, "followed", lambda self: (calls.append(self), followed(self))[1]
    )
    layer = settled()
    for variable, other in zip(layer.variables, expected.variables, strict=True):
        np.testing.assert_allclose(numpy(variable), numpy(other), rtol=1e-5, atol=1e-7)
    # Gradients follow no moves anew.
    assert len(calls) == 1


@in_tensorflow
def test_a_fused_weight_has_gradients_to_what_is_trainable_now(monkeypatch):
    import tensorflow

    monkeypatch.setattr(fused, "FEWEST_ELEMENTS", 1)
    layer = quantal.Discrete(keras.layers.Dense(3), [1, -1, 0.5], scale="learned")
    layer.build((None, 4))
    (parameter,) = layer.discrete_parameters
    scale = parameter.scale_state.relative
    for is_trained in (False, True):
        scale.trainable = is_trained
        with tensorflow.GradientTape() as tape:
            total = tensorflow.reduce_sum(parameter.compute(True) ** 2)
        latent, learned = tape.gradient(total, [parameter.latent.value, scale.value])
        assert latent is not None
        assert (learned is not None) == is_trained


@pytest.mark.parametrize("size", [8, 2**16 + 3])
def test_long_sums_have_all_numbers(size):
    ones = keras.ops.ones((size,))
    assert float(scalars.total(ones, ones)) == size


@in_tensorflow
def test_a_graph_of_a_large_weight_has_no_passes_for_its_values():
    import tensorflow

    layer = quantal.Discrete(keras.layers.Dense(256), [1, -1, 0.5, -0.5], scale="learned")
    layer.build((None, 256))
    (parameter,) = layer.discrete_parameters

    @tensorflow.function
    def differentiate():
        with tensorflow.GradientTape() as tape:
            total = tensorflow.reduce_sum(parameter.compute(True))
        return tape.gradient(total, parameter.latent.value)

    graph = differentiate.get_concrete_function().graph
    outputs = [(op.type, out) for op in graph.get_operations() for out in op.outputs]
    large = [kind for kind, out in outputs if out.shape == (256, 256)]
    assert "PartitionedCall" in large
    assert not {"SelectV2", "Mul", "GreaterEqual", "AddV2"} & set(large)


def test_small_weights_need_no_compiler():
    function = fused.FusedFunction()
    variable = keras.Variable(np.ones(fused.FEWEST_ELEMENTS - 1, "float32"))
    result = object()
    assert function([variable], lambda: (result,)) == (result,)


def traced_gradient(model, *inputs):
    """The gradient to a model's latents in JAX, as a function of arrays, and these arrays."""
    kinds = model.trainable_variables, model.non_trainable_variables
    states = [[variable.value for variable in kind] for kind in kinds]

    def loss(trained, others, x):
        outputs, _ = model.stateless_call(trained, others, x, training=True)
        return keras.ops.sum(outputs**2)

    import jax

    return jax.grad(loss), [*states, list(inputs) if len(inputs) > 1 else inputs[0]]


def operations_in_loops(jaxpr, inside=False):
    """The name and the shape of each operation of a JAX program that a loop repeats."""
    for equation in jaxpr.eqns:
        if inside:
            yield equation.primitive.name, equation.outvars[0].aval.shape
        is_loop = equation.primitive.name in ("scan", "while")
        for parameter in keras.tree.flatten(list(equation.params.values())):
            inner = getattr(parameter, "jaxpr", parameter)
            if hasattr(inner, "eqns"):
                yield from operations_in_loops(inner, inside or is_loop)


@in_jax
def test_a_layer_that_is_called_twice_computes_its_weight_once_a_step():
    import jax

    inputs = [keras.Input((24,)), keras.Input((24,))]
    layer = quantal.Discrete(keras.layers.Dense(24), [1, -1, 0.5, -0.5])
    model = keras.Model(inputs, keras.layers.Dot(1)([layer(x) for x in inputs]))
    gradient, arrays = traced_gradient(model, *np.ones((2, 3, 24), "float32"))
    program = jax.jit(gradient).lower(*arrays).compile().as_text()
    # A threshold a comparison.
    assert len(re.findall(r"pred\[24,24\]\S* compare\(.*direction=GE", program)) == 3


@in_jax
def test_no_time_step_computes_a_weight():
    import jax

    inputs = keras.Input((5, 6))
    layer = quantal.Discrete(keras.layers.LSTM(4), [1, -1, 0.5], ("kernel", "recurrent_kernel"))
    model = keras.Model(inputs, layer(inputs))
    gradient, arrays = traced_gradient(model, np.ones((2, 5, 6), "float32"))
    operations = list(operations_in_loops(jax.make_jaxpr(gradient)(*arrays).jaxpr))
    assert ("dot_general", (2, 16)) in operations
    # The thresholds of (6, 16) and (4, 16) numbers.
    compared = {(name, shape) for name in ("ge", "gt") for shape in ((6, 16), (4, 16))}
    assert not compared & set(operations)
