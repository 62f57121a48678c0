"""PyTorch's form of a value with the gradient of `inward`, against the general one."""

import numpy as np
import pytest
from keras import ops

from conftest import on_one_backend
from quantal import Values
from quantal._core.tensors import blocks
from quantal._core.tensors.gradients import as_if, as_if_inward, inward
from quantal.estimators import StraightThrough

pytestmark = on_one_backend
LOW, HIGH = -1.0, 0.5


def general(value, x):
    return as_if(value, inward(x, LOW, HIGH))


def special(value, x):
    return as_if_inward(value, x, LOW, HIGH)


def leaf(array):
    return ops.convert_to_tensor(np.float32(array)).clone().requires_grad_()


def numbers_around_the_ends(count):
    random = np.random.default_rng(0)
    ends = [LOW, HIGH, np.nextafter(LOW, -9), np.nextafter(HIGH, 9), np.inf, -np.inf, 1e-40, 0, 3]
    x = np.concatenate([ends, random.normal(size=count)])
    g = np.concatenate([[1e-40, -1e-40, 0, np.inf, -np.inf, np.nan, -3e38], random.normal(size=5)])
    return x.repeat(len(g)), np.tile(g, len(x))


@pytest.mark.parametrize("block", [5, 2**16])
def test_its_gradient_is_that_of_inward(block, monkeypatch):
    monkeypatch.setattr(blocks, "_BLOCK", block)
    array, upstream = numbers_around_the_ends(20)
    gradients = []
    for function in (special, general):
        x = leaf(array)
        value = ops.zeros_like(x)
        result = function(value, x)
        result.backward(ops.convert_to_tensor(np.float32(upstream)))
        gradients.append(x.grad.numpy())
    np.testing.assert_array_equal(*gradients)
    # The check sees gradients that go and gradients that stay.
    assert 0 < np.sum(gradients[0] != 0) < np.sum(upstream != 0)


def test_within_the_list_the_gradient_is_passed_on_as_it_is():
    x = leaf([[-1, 0.5], [0.25, 0]])
    result = special(ops.ones_like(x), x)
    np.testing.assert_array_equal(result.detach().numpy(), np.ones((2, 2)))
    # A sum's gradient is one number for all, and a transposed one lies otherwise in memory.
    (
        result.sum() + (result.T * ops.convert_to_tensor(np.float32([[1, 2], [3, 4]]))).sum()
    ).backward()
    np.testing.assert_array_equal(x.grad.numpy(), [[2, 4], [3, 5]])


def test_a_nan_latent_shows_in_the_value_and_keeps_its_gradient():
    x = leaf([np.nan, 9])
    result = special(ops.ones_like(x), x)
    np.testing.assert_array_equal(result.detach().numpy(), [np.nan, 1])
    result.backward(ops.convert_to_tensor(np.float32([-1, -1])))
    np.testing.assert_array_equal(x.grad.numpy(), [-1, 0])


@pytest.mark.parametrize("outside", [9.0, -9.0])
def test_a_latent_beyond_one_end_alone_is_seen(outside):
    x = leaf([outside, 0.25])
    sign = np.sign(outside)
    special(ops.ones_like(x), x).backward(ops.convert_to_tensor(np.float32([-sign, -sign])))
    np.testing.assert_array_equal(x.grad.numpy(), [0, -sign])


def test_no_latents_have_no_gradient():
    x = leaf(np.zeros((0, 3)))
    special(ops.ones_like(x), x).sum().backward()
    assert tuple(x.grad.shape) == (0, 3)


def test_second_derivatives_and_transforms():
    import torch

    array = np.float32([-2, -0.3, 0.4, 2])

    def loss(x, function=special):
        return (function(torch.round(x.detach()), x) ** 3 * ops.convert_to_tensor(array)).sum()

    def second(function):
        x = leaf(array)
        (first,) = torch.autograd.grad(loss(x, function), x, create_graph=True)
        return torch.autograd.grad((first**2).sum(), x)[0].numpy()

    np.testing.assert_array_equal(second(special), second(general))
    x = leaf(array)
    (plain,) = torch.autograd.grad(loss(x), x)
    assert (plain != 0).any()
    transformed = torch.func.grad(loss)(x.detach())
    mapped = torch.func.vmap(torch.func.grad(loss))(torch.stack([x.detach()] * 2))
    (batched,) = torch.autograd.grad(loss(x), x, torch.ones(2), is_grads_batched=True)
    for gradient in (transformed, *mapped, *batched):
        np.testing.assert_array_equal(gradient.numpy(), plain.numpy())


def tensors_written(function):
    """The float32 tensors of the latents' size that a function allocates."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        function()
    allocated = [event.self_cpu_memory_usage for event in profiler.events()]
    # Within an operation's own share some bytes may be missing.
    return sum(size >= 3 * COUNT for size in allocated)


COUNT = 2**20


def test_straight_through_writes_one_tensor_forward_and_none_back():
    import torch

    latent, upstream = leaf(np.linspace(-1, 1, COUNT)), torch.ones(COUNT)
    values, results = Values([-1, 1]), []
    assert tensors_written(lambda: results.append(StraightThrough()(latent, values))) == 1
    assert tensors_written(lambda: results[0].backward(upstream)) <= 1
