"""PyTorch's own forms of weights and their gradients give what the general ones give."""

import keras
import numpy as np
import pytest
from keras import ops

from conftest import numpy, on_one_backend
from quantal import Discrete, LearnableMultiplier, Scale, Values
from quantal._core import coordinates, scale_state
from quantal._core.tensors import (
    blocks,
    gradients,
    projection,
    row_steps,
)

pytestmark = on_one_backend
FOUR, LONG = [0.25, -1.0, 1.5, 0.1], np.linspace(-1, 1, 40)
RANDOM = np.random.default_rng(3)
ROWS, LONG_ROWS = RANDOM.normal(size=(6, 5)), RANDOM.normal(size=(6, 40))
LAYERS = {
    "binary": {"values": [-1, 1]},
    "units": {"values": [3, -8, 5, 20]},
    "units per channel": {"values": Values(np.exp(ROWS), axis=-1)},
    "learned scale": {"values": FOUR, "scale": "learned"},
    "learned scales": {"values": FOUR, "scale": Scale("learned", axis=-1)},
    "learned scales of inputs": {"values": FOUR, "scale": Scale("learned", axis=0)},
    "computed scale": {"values": FOUR, "scale": "least_squares"},
    "learned list": {"values": Values(FOUR, learnable=True)},
    "learned list of twelve": {"values": Values(LONG[::-1][:12], learnable=True)},
    "long learned list": {"values": Values(LONG, learnable=True), "scale": "learned"},
    "lists per channel": {"values": Values(ROWS, axis=-1), "scale": "learned"},
    "lists per input": {"values": Values(ROWS[:4], axis=0)},
    "long lists per channel": {"values": Values(LONG_ROWS, axis=-1)},
    "long lists per input": {"values": Values(LONG_ROWS[:4], axis=0)},
    "learned lists": {"values": Values(ROWS, axis=-1, learnable=True), "scale": "learned"},
    "learned lists per input": {"values": Values(ROWS[:4], axis=0, learnable=True)},
    "annealed": {"values": FOUR, "estimator": "annealed"},
    "annealed per channel": {"values": Values(ROWS, axis=-1), "estimator": "annealed"},
    "scaled element-wise": {"values": FOUR, "estimator": "element_wise_scaled"},
    "scaled element-wise, long": {"values": LONG, "estimator": "element_wise_scaled"},
}


def weight_and_gradients(layer, upstream):
    """The weight in training, and the gradient to each variable that learns."""
    import torch

    parameter = layer.discrete_parameters[0]
    weight = parameter.compute(training=True)
    variables = [variable.value for variable in parameter.variables]
    grads = torch.autograd.grad(weight, variables, ops.convert_to_tensor(upstream, "float32"))
    return [numpy(tensor) for tensor in (weight, *grads)]


@pytest.mark.parametrize("name", LAYERS)
def test_own_forms_give_what_the_general_ones_give(name, monkeypatch):
    layer = Discrete(keras.layers.Dense(6, use_bias=False), seed=0, **LAYERS[name])
    layer.build((None, 4))
    parameter = layer.discrete_parameters[0]
    random = np.random.default_rng(0)
    parameter.latent.assign(random.normal(size=(4, 6)).astype("float32") * 1.5)
    upstream = random.normal(size=(4, 6)).astype("float32")
    # Blocks of one number, and of a row: they divide no tensor here.
    results = []
    for block in (1, 7, 2**17):
        monkeypatch.setattr(blocks, "_BLOCK", block)
        results.append(weight_and_gradients(layer, upstream))
    for module in (gradients, row_steps, projection, scale_state):
        monkeypatch.setattr(module, "is_plain", lambda tensor: False)
    general = weight_and_gradients(layer, upstream)
    for own in results:
        np.testing.assert_array_equal(own[0], general[0])
        for one, other in zip(own[1:], general[1:], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    assert all((gradient != 0).any() for gradient in general[1:])


@pytest.mark.parametrize("values", [[-1, 1], FOUR, LONG, LONG**3])
def test_latents_that_settle_go_the_same_way_in_blocks(values, monkeypatch):
    def steps():
        layer = LearnableMultiplier(values, seed=0)
        layer.build((None, 40))
        parameter, random = layer.discrete_parameters[0], np.random.default_rng(0)
        results = []
        for _ in range(4):
            parameter.latent.assign_add(random.normal(size=40) * 0.1)
            results.append(weight_and_gradients(layer, random.normal(size=40)))
            parameter.advance()
        return results

    whole = steps()
    monkeypatch.setattr(blocks, "_BLOCK", 7)
    np.testing.assert_array_equal(steps(), whole)
    assert len(np.unique(whole)) > 40


@pytest.mark.parametrize("axis", [None, 0, -1, (0, 1)])
@pytest.mark.parametrize("method", ["least_squares", "mean_absolute"])
def test_computed_scales_sum_in_blocks_what_they_sum_at_once(method, axis, monkeypatch):
    layer = Discrete(keras.layers.Dense(6, use_bias=False), FOUR, scale=Scale(method, axis), seed=0)
    layer.build((None, 4))
    parameter = layer.discrete_parameters[0]
    random = np.random.default_rng(0)

    def scale_after(latents):
        parameter.scale_state.begin(np.ones(parameter.scale_state.start.shape, np.float32))
        parameter.latent.assign(latents)
        parameter.advance()
        return numpy(parameter.scale)

    latents = random.normal(size=(4, 6)).astype("float32")
    beyond = np.where(np.arange(6) == 2, np.float32(np.inf), latents)
    assert (scale_after(latents) != 1).any()
    for numbers in (latents, beyond):
        monkeypatch.setattr(blocks, "_BLOCK", 7)
        in_blocks = scale_after(numbers)
        with monkeypatch.context() as context:
            for module in (coordinates, scale_state):
                context.setattr(module, "is_plain", lambda tensor: False)
            np.testing.assert_allclose(scale_after(numbers), in_blocks, rtol=1e-6)


def test_own_gradients_of_lists_and_scales_have_second_derivatives(monkeypatch):
    import torch

    layer = Discrete(keras.layers.Dense(6, use_bias=False), seed=0, **LAYERS["learned lists"])
    layer.build((None, 4))

    def second():
        parameter = layer.discrete_parameters[0]
        variables = [variable.value for variable in parameter.variables]
        loss = (parameter.compute(training=True) ** 3).sum()
        first = torch.autograd.grad(loss, variables, create_graph=True)
        return torch.autograd.grad(sum((g**2).sum() for g in first), variables)

    own = second()
    for module in (gradients, row_steps, projection, scale_state):
        monkeypatch.setattr(module, "is_plain", lambda tensor: False)
    for one, other in zip(own, second(), strict=True):
        np.testing.assert_allclose(numpy(one), numpy(other), rtol=1e-4, atol=1e-5)


def test_a_sum_of_many_gradients_keeps_the_small_ones():
    # Added one by one in float32, those of 0.1 would end at 2 million.
    count = 2**22
    listed = projection.moving_projection(ops.convert_to_tensor(np.float32([-1, 1])), -1, 1)
    numbers = ops.ones(count)
    ascending = listed._ascending().clone().requires_grad_()
    shown = projection.plain_with_entry_gradient(
        numbers, ascending, listed._midpoints(), numbers, -1
    )
    shown.backward(ops.full((count,), 0.1))
    np.testing.assert_allclose(ascending.grad.numpy(), [[0, count * np.float32(0.1)]], rtol=1e-6)


@pytest.mark.parametrize("name", ["binary", "long learned list"])
def test_pytorchs_compiler_traces_a_training_call_in_one_graph(name):
    import torch

    layer = Discrete(keras.layers.Dense(6, use_bias=False), seed=0, **LAYERS[name])
    x = ops.convert_to_tensor(np.random.default_rng(1).normal(size=(3, 4)).astype("float32"))
    expected = layer(x, training=True)
    traced = torch.compile(lambda x: layer(x, training=True), fullgraph=True, backend="eager")
    np.testing.assert_allclose(numpy(traced(x)), numpy(expected), rtol=1e-6)
