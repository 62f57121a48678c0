"""A weight of many numbers is one function of XLA's in TensorFlow's graphs."""

import copy
import pickle

import keras
import numpy as np
import pytest

import quantal
from conftest import numpy
from quantal._core.tensors import backend, fused

in_tensorflow = pytest.mark.skipif(
    backend.name() != "tensorflow", reason="the other backends have compilers or run eagerly"
)


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
