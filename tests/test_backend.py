"""The seam to the frameworks: each function gives the same on every backend."""

import logging

import keras
import numpy as np
import pytest
from keras import ops

from conftest import numpy
from quantal._core.tensors import backend
from quantal._core.tensors.computed_once import computed_once

COMPILERS = [backend.compiled, backend.graph]


def tensor(numbers):
    return ops.convert_to_tensor(np.asarray(numbers, np.float32))


def squares(points, factor):
    """A value that depends on the first two of three tensors."""
    return ops.sum(points[0] ** 2) * factor + ops.sum(points[1])


def test_the_name_is_that_of_keras():
    assert backend.name() == keras.config.backend()


def test_another_backend_is_refused(monkeypatch):
    monkeypatch.setattr(keras.config, "backend", lambda: "numpy")
    with pytest.raises(ValueError, match="Expected tensorflow, jax or torch"):
        backend.name()


@pytest.mark.parametrize("compiler", COMPILERS)
def test_compiled_functions_compute_the_same(compiler):
    run = compiler(lambda x, y: ops.sum(x * y))
    for length in (2, 3):
        x = tensor(np.arange(length) + 1)
        assert float(numpy(run(x, x))) == sum((i + 1) ** 2 for i in range(length))


@pytest.mark.parametrize("wrap", [lambda function: function, backend.graph])
def test_value_and_grad(wrap):
    points = [tensor([1, -3]), tensor(2), tensor([[7.0]])]
    value, gradients = wrap(backend.value_and_grad(squares))(points, tensor(0.5))
    assert float(numpy(value)) == 7
    for gradient, expected in zip(gradients, ([1, -3], 1, [[0]]), strict=True):
        np.testing.assert_array_equal(numpy(gradient), expected)


def test_value_and_grad_hand_on_what_comes_with_the_value():
    def with_extra(points, factor):
        return squares(points, factor), 3 * points[0]

    points = [tensor([1, -3]), tensor(2), tensor(0)]
    run = backend.graph(backend.value_and_grad(with_extra, has_aux=True))
    (value, extra), gradients = run(points, tensor(0.5))
    assert float(numpy(value)) == 7
    np.testing.assert_array_equal(numpy(extra), [3, -9])
    np.testing.assert_array_equal(numpy(gradients[0]), [1, -3])


def test_vectorized_functions_share_the_other_arguments():
    points = [tensor([[1, -3], [2, 0]]), tensor([2, 5])]
    run = backend.graph(backend.vectorize(squares))
    np.testing.assert_array_equal(numpy(run(points, tensor(0.5))), [7, 7])


@pytest.mark.skipif(backend.name() != "tensorflow", reason="TensorFlow warns of many shapes")
def test_many_shapes_are_no_reason_for_a_warning():
    """Nor are many functions, of which each is traced."""
    import tensorflow

    records, handler = [], logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())
    tensorflow.get_logger().addHandler(handler)
    try:
        for _ in range(3):
            run = backend.graph(backend.vectorize(lambda points, factor: points[0] * factor))
            for count in range(1, 9):
                result = run([tensor(np.arange(count))], tensor(2))
                np.testing.assert_array_equal(numpy(result), 2 * np.arange(count))
    finally:
        tensorflow.get_logger().removeHandler(handler)
    assert not records


def unvectorized(x):
    """x, by an operation that the backend computes for one input only."""
    if backend.name() == "jax":
        import jax

        return jax.pure_callback(lambda x: np.asarray(x), jax.ShapeDtypeStruct(x.shape, x.dtype), x)
    if backend.name() == "tensorflow":
        import tensorflow

        return tensorflow.unique(x)[0]
    return x * x.sum().item()


def test_what_cannot_be_vectorized_is_said():
    run = backend.graph(backend.vectorize(lambda points: ops.sum(unvectorized(points[0]))))
    with pytest.raises(backend.CannotVectorize):
        run([tensor([[1, 2], [3, 4]])])


@pytest.mark.parametrize("error", [ValueError, RuntimeError])
def test_other_errors_of_vectorized_functions_stay(error):
    def broken(points):
        raise error("out of memory")

    with pytest.raises(error, match="out of memory"):
        backend.graph(backend.vectorize(broken))([tensor([[1, 2], [3, 4]])])


@pytest.mark.parametrize("compile", [False, True])
def test_gradients_of_sums(compile):
    gradient = backend.gradient_of(lambda x: x * x, [1, -2], compile)
    assert isinstance(gradient, np.ndarray)
    np.testing.assert_array_equal(gradient, [2, -4])


def test_there_is_no_gradient_of_a_constant():
    gradient = backend.gradient_of(lambda x: ops.ones(3), [1, -2])
    if backend.name() == "jax":
        np.testing.assert_array_equal(gradient, [0, 0])
    else:
        assert gradient is None


def test_an_eager_section_assigns_while_a_function_is_traced():
    variable = keras.Variable(1.0)
    numbers = []

    def function(x):
        with backend.eager_section():
            numbers.append(float(numpy(variable.value)))
        return x

    backend.graph(function)(tensor(1))
    assert numbers == [1.0]


def test_a_value_requires_a_gradient_as_its_variable_does():
    for trainable in (True, False):
        variable = keras.Variable([1.0], trainable=trainable)
        value = tensor([2])
        if backend.name() != "torch":
            assert backend.like_variable(value, variable) is value
            continue
        import torch

        assert backend.like_variable(value, variable) is value
        with torch.no_grad():
            result = backend.like_variable(value, variable)
        assert result.requires_grad == trainable
        np.testing.assert_array_equal(numpy(result), [2])


def test_losses_carry_no_gradient_on():
    result = backend.with_gradients_enabled(lambda x: (ops.sum(x), 2 * x))(tensor([1, 2]))
    assert float(numpy(result[0])) == 3
    if backend.name() == "torch":
        import torch

        weight = torch.ones(2, requires_grad=True)
        with torch.no_grad():
            enabled = backend.with_gradients_enabled(
                lambda: (torch.tensor(float(torch.is_grad_enabled())), 2 * weight)
            )()
        assert float(enabled[0]) == 1
        assert not enabled[1].requires_grad


@pytest.mark.skipif(backend.name() != "jax", reason="XLA fuses so")
def test_a_tensor_that_is_computed_once_is_no_part_of_a_matrix_product():
    # In the product its factor was computed anew for each number of the result.
    import jax

    def products(wrap):
        shapes = (8, 512), (512, 512), ()
        tensors = [jax.ShapeDtypeStruct(shape, "float32") for shape in shapes]
        mean = jax.jit(lambda x, w, scale: ops.mean(ops.matmul(x, wrap(w * scale)), -1))
        parts = mean.lower(*tensors).compile().as_text().split("\n\n")
        return [part for part in parts if " dot(" in part]

    (fused,), (kept,) = products(lambda weight: weight), products(computed_once)
    assert "multiply(" in fused.split(" dot(")[0]
    assert "multiply(" not in kept.split(" dot(")[0]


@pytest.mark.skipif(backend.name() != "jax", reason="XLA fuses so")
def test_a_large_tensor_that_is_computed_once_is_no_part_of_another_loop():
    # A product with each of eight rows computed it eight times.
    import jax

    x, w = (jax.ShapeDtypeStruct((*rows, 2**16), "float32") for rows in ((8,), ()))

    def has_branch(wrap):
        total = jax.jit(lambda x, w: ops.sum(x * wrap(w * w + 1.0)))
        return " conditional(" in total.lower(x, w).compile().as_text()

    assert has_branch(computed_once)
    assert not has_branch(lambda weight: weight)
    numbers = np.float32([np.nan, -1.5, np.inf, 0] * 2**14)
    np.testing.assert_array_equal(numpy(computed_once(tensor(numbers))), numbers)


@pytest.mark.parametrize("compile", [False, True])
def test_a_tensor_that_is_computed_once_stays_itself(compile):
    x = np.float32([-1.5, 0.0, np.inf, np.nan])
    np.testing.assert_array_equal(numpy(computed_once(tensor(x))), x)
    gradient = backend.gradient_of(lambda x: 3 * computed_once(x), x, compile)
    np.testing.assert_array_equal(gradient, [3, 3, 3, 3])
    double = backend.vectorize(lambda points: computed_once(points[0] * 2))
    np.testing.assert_array_equal(numpy(double([tensor(x[:2])])), [-3, 0])
