"""The one seam to a framework compiles, differentiates, vectorizes, and steps out of a graph.

Keras computes the same on JAX, TensorFlow and PyTorch, but leaves compilers, gradients and
vectorization to each of them. Whatever needs these asks here and names no framework itself.
"""

import contextlib
import math
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike, NDArray

from quantal._core.tensors.torch_gradient import custom_gradient_class
from quantal._core.types import Tensor

Function = Callable[..., Any]
"""A function takes tensors, or structures of tensors, to the same."""


class CannotVectorize(Exception):
    """The backend cannot compute an operation for many inputs at once."""


def name() -> str:
    """Return the backend's name: "jax", "tensorflow" or "torch".

    Raises:
        ValueError: Keras runs on another backend, which has no gradients.
    """
    backend = str(keras.config.backend())
    if backend not in ("jax", "tensorflow", "torch"):
        raise ValueError(
            f"The backend is {backend!r}. Expected tensorflow, jax or torch, which have a "
            "compiler. Set KERAS_BACKEND to one of them."
        )
    return backend


def compiled(function: Function) -> Function:
    """Return the function under the backend's compiler: XLA, or torch.compile.

    Use it where the compiler itself is wanted, as `fit(jit_compile=True)` does. What the compiler
    does not support is an error; `graph` accepts every model.

    Raises:
        ValueError: Keras runs on another backend, which has no compiler.
    """
    backend = name()
    if backend == "jax":
        import jax

        return jax.jit(function)
    if backend == "tensorflow":
        import tensorflow

        return tensorflow.function(function, jit_compile=True)
    import torch

    # PyTorch stops compiling after some versions of one function; this sets the count to zero.
    torch._dynamo.reset()
    fast = torch.compile(function, fullgraph=True)

    def run(*arguments: Any) -> Any:
        # While it compiles, PyTorch warns about itself.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return fast(*arguments)

    return run


def graph(function: Function) -> Function:
    """Return the function as a graph that is traced once for each shape of its inputs.

    Every model of the backend can be traced: by jax.jit, and by tensorflow.function without XLA.
    PyTorch computes eagerly: there the function itself is returned.
    """
    backend = name()
    if backend == "jax":
        import jax

        return jax.jit(function)
    if backend == "tensorflow":
        return _graphs_in_tensorflow(function)
    return function


def _graphs_in_tensorflow(function: Function) -> Function:
    """Return the function with a graph for each shape.

    Calling a `tensorflow.function` warns of the fifth shape; here several are meant.
    """
    import tensorflow

    # Without defaults and names, so that a graph takes what the function takes.
    traced = tensorflow.function(lambda *arguments: function(*arguments))
    graphs: dict[tuple[Any, ...], Function] = {}

    def run(*arguments: Any) -> Any:
        key = tuple(
            (type(leaf), tuple(leaf.shape), leaf.dtype) if tensorflow.is_tensor(leaf) else leaf
            for leaf in tensorflow.nest.flatten(arguments)
        )
        if key not in graphs:
            graphs[key] = traced.get_concrete_function(*arguments)
        return graphs[key](*arguments)

    return run


def value_and_grad(function: Function, has_aux: bool = False) -> Function:
    """Return a function that gives the value and its gradient to each tensor of the first argument.

    Args:
        function: A function of a list of float tensors, and whatever else it takes, that returns
            a scalar tensor; with `has_aux` a pair, the scalar and something that is passed on.
        has_aux: Whether the function returns such a pair.

    Returns:
        A function of the same arguments that returns a pair: what `function` returns, and a list
        of gradients. A gradient is 0 where the value does not depend on the tensor.
    """
    backend = name()
    if backend == "jax":
        import jax

        return jax.value_and_grad(function, has_aux=has_aux)
    if backend == "tensorflow":
        return _value_and_grad_in_tensorflow(function, has_aux)
    return _value_and_grad_in_torch(function, has_aux)


def _value_and_grad_in_tensorflow(function: Function, has_aux: bool) -> Function:
    import tensorflow

    def differentiated(points: list[Tensor], *others: Any) -> Any:
        with tensorflow.GradientTape() as tape:
            tape.watch(points)
            result = function(points, *others)
        zero = tensorflow.UnconnectedGradients.ZERO
        value = result[0] if has_aux else result
        return result, tape.gradient(value, points, unconnected_gradients=zero)

    return differentiated


def _value_and_grad_in_torch(function: Function, has_aux: bool) -> Function:
    import torch

    def differentiated(points: list[Tensor], *others: Any) -> Any:
        points = [point.detach().requires_grad_() for point in points]
        with torch.enable_grad():
            result = function(points, *others)
            value = result[0] if has_aux else result
            gradients = torch.autograd.grad(value, points, allow_unused=True)
        return _detached(result), [
            torch.zeros_like(point) if gradient is None else gradient
            for point, gradient in zip(points, gradients, strict=True)
        ]

    return differentiated


def vectorize(function: Function) -> Function:
    """Return a function that computes `function` for many first arguments at once.

    Args:
        function: A function of a list of tensors, and whatever else it takes, that returns a
            tensor.

    Returns:
        A function of the same arguments: each tensor of the list has one more axis in front, which
        the result has too; the other arguments are shared. It raises CannotVectorize where the
        backend has no vectorized form of an operation; other errors stay what they are.
    """
    backend = name()
    if backend == "jax":
        return _vectorized_in_jax(function)
    if backend == "tensorflow":
        return _vectorized_in_tensorflow(function)
    return _vectorized_in_torch(function)


def _vectorized_in_jax(function: Function) -> Function:
    import jax

    def vectorized(points: list[Tensor], *others: Any) -> Any:
        try:
            return jax.vmap(lambda point: function(point, *others))(points)
        except NotImplementedError as error:  # "Batching rule for ... not implemented".
            raise CannotVectorize(str(error)) from error

    return vectorized


def _vectorized_in_tensorflow(function: Function) -> Function:
    import tensorflow

    def vectorized(points: list[Tensor], *others: Any) -> Any:
        try:
            return tensorflow.vectorized_map(
                lambda point: function(point, *others), points, fallback_to_while_loop=False
            )
        except (ValueError, NotImplementedError) as error:
            # Not from the function itself, but from the file that converts its operations.
            frames = traceback.extract_tb(error.__traceback__)
            if not any(frame.filename.endswith("pfor.py") for frame in frames):
                raise
            raise CannotVectorize(str(error)) from error

    return vectorized


def _vectorized_in_torch(function: Function) -> Function:
    import torch

    def vectorized(points: list[Tensor], *others: Any) -> Any:
        # Without gradients a discrete layer asks its weight for one, which vmap refuses.
        try:
            with torch.enable_grad():
                mapped = torch.func.vmap(lambda *point: function(list(point), *others))
                return _detached(mapped(*points))
        except RuntimeError as error:
            if not any(word in str(error) for word in ("vmap", "Batching rule")):
                raise
            raise CannotVectorize(str(error)) from error

    return vectorized


def with_gradients_enabled(function: Function) -> Function:
    """Return a function that computes as if gradients were needed, and returns none.

    PyTorch chooses between ways to multiply matrices by whether a weight requires a gradient, and
    they differ in the last bit. So a loss is the same with its gradient and without. The other
    backends compute the same anyway.
    """
    if name() != "torch":
        return function
    import torch

    def enabled(*arguments: Any) -> Any:
        with torch.enable_grad():
            return _detached(function(*arguments))

    return enabled


def like_variable(value: Tensor, variable: keras.Variable, is_trained: bool = False) -> Tensor:
    """Return the value as the variable would be: in float64, and with PyTorch's flag of gradients.

    A layer of float64 has its variables in it, and casts none. PyTorch chooses between ways to
    multiply matrices by whether the weight requires a gradient, and they differ in the last bit. So
    a discrete layer computes as the plain layer with the listed weights does.

    Args:
        value: The tensor.
        variable: The variable that it stands for.
        is_trained: Whether the variable counts as one that requires a gradient anyway: that
            of a finalized layer computes as it did before.
    """
    if variable.dtype == "float64":
        value = ops.cast(value, "float64")
    if keras.config.backend() != "torch":
        return value
    import torch

    if value.requires_grad or torch.is_grad_enabled() or torch.is_inference_mode_enabled():
        return value
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or value.device.type == "meta":
        return value
    try:
        return value.detach().requires_grad_(is_trained or variable.value.requires_grad)
    except RuntimeError:  # Within a transform of torch.func, which has gradients of its own.
        return value


def gradient_of(
    function: Callable[[Tensor], Tensor], x: ArrayLike, compile: bool = False
) -> NDArray[np.float32] | None:
    """Return the gradient of `sum(function(x))` at `x`, or None where no gradient passes.

    Args:
        function: From a float32 tensor to a tensor.
        x: Where to take the gradient: numbers of any shape.
        compile: Whether to trace and compile, as `fit` does.

    Returns:
        A float32 array in the shape of `x`.

    Raises:
        ValueError: Keras runs on another backend, which has no gradients.

    >>> gradient_of(lambda x: x * x, [1.0, -2.0]).tolist()
    [2.0, -4.0]
    """
    point = np.asarray(x, np.float32)
    backend = name()
    if backend == "jax":
        import jax

        differentiated = jax.grad(lambda x: ops.sum(function(x)))
        return np.asarray((jax.jit(differentiated) if compile else differentiated)(point))
    if backend == "tensorflow":
        return _gradient_in_tensorflow(function, point, compile)
    return _gradient_in_torch(function, point, compile)


def _gradient_in_tensorflow(function: Function, point: NDArray[Any], compile: bool) -> Any:
    import tensorflow

    def differentiate(x: Tensor) -> Tensor:
        with tensorflow.GradientTape() as tape:
            tape.watch(x)
            total = ops.sum(function(x))
        return tape.gradient(total, x)

    run = tensorflow.function(differentiate, jit_compile=True) if compile else differentiate
    result = run(tensorflow.constant(point))
    return None if result is None else result.numpy()


def _gradient_in_torch(function: Function, point: NDArray[Any], compile: bool) -> Any:
    import torch

    tensor = torch.tensor(point, requires_grad=True, device=ops.zeros(()).device)
    with torch.enable_grad():
        total = (compiled(function) if compile else function)(tensor).sum()
        if not total.requires_grad:
            return None
        (result,) = torch.autograd.grad(total, tensor, allow_unused=True)
    return None if result is None else result.cpu().numpy()


def has_numbers(tensor: Tensor) -> bool:
    """Return whether a tensor has numbers, and is no symbol within a compiler's trace."""
    backend = keras.config.backend()
    if backend == "jax":
        import jax

        return not isinstance(tensor, jax.core.Tracer)
    if backend == "tensorflow":
        import tensorflow

        return not tensorflow.is_symbolic_tensor(tensor)
    import torch

    is_symbol = torch.compiler.is_compiling() or tensor.device.type == "meta"
    return not (is_symbol or torch._C._functorch.is_functorch_wrapped_tensor(tensor))


def transforms_in_torch() -> bool:
    """Return whether PyTorch does something else with operations than to compute them."""
    import torch
    from torch.utils._python_dispatch import is_in_torch_dispatch_mode

    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._functorch.peek_interpreter_stack() is not None
        or is_in_torch_dispatch_mode()
    )


def is_traced_in_torch() -> bool:
    """Return whether `torch.jit.trace` writes a file's program of what is computed now."""
    import torch

    return not torch.compiler.is_compiling() and torch.jit.is_tracing()


def is_compiled_in_torch() -> bool:
    """Return whether PyTorch's compiler traces what is computed now, and writes no file of it."""
    import torch

    return torch.compiler.is_compiling() and not torch.compiler.is_exporting()


# Here and not when it is needed, since PyTorch's compiler warns of a cached function.
_gradient_class: Any = custom_gradient_class() if keras.config.backend() == "torch" else None


def custom_gradient(function: Function) -> Function:
    """Return the function with the gradient that it defines, as `keras.ops.custom_gradient` does.

    PyTorch's transforms (`torch.func`) know the gradient, too; they do not know that of Keras.
    Files of `torch.jit.trace` have no place for a function of Python: while it traces, the
    gradient is that of the value itself.

    Args:
        function: A function of tensors that returns a tensor and a function from the gradient
            to that tensor to the gradients to its arguments. Neither may use other tensors.
    """
    if keras.config.backend() != "torch":
        return ops.custom_gradient(function)

    def applied(*arguments: Tensor) -> Tensor:
        if is_traced_in_torch() or _compiles_without_gradient(arguments):
            return function(*arguments)[0]
        return _gradient_class.apply(function, *arguments)

    return applied


def taken(table: Tensor, positions: Tensor) -> Tensor:
    """Return entries of a table at positions that are known to be within it.

    Keras's take asks of each position whether it is negative, or beyond the end.

    Args:
        table: Tensor of shape (n,).
        positions: int32 tensor, from 0 to n - 1.

    Returns:
        The entries in the shape of the positions.
    """
    backend = keras.config.backend()
    if backend == "jax":
        # Without a sign there is no question whether they count from the end.
        return table.at[positions.astype("uint32")].get(mode="promise_in_bounds")
    if backend == "tensorflow":
        import tensorflow

        return tensorflow.gather(table, positions)
    if is_compiled_in_torch():
        import torch

        # PyTorch's other look-ups ask again within the compiled loop.
        return torch.ops.aten._unsafe_index.Tensor(table, [positions])
    return ops.take(table, positions)


def is_nan(tensor: Tensor) -> Tensor:
    """Return where a tensor is NaN: booleans.

    PyTorch's compiler asks `isnan` of one number after the other; it compares many at once.
    """
    if keras.config.backend() != "torch":
        return ops.isnan(tensor)
    return tensor != tensor


def is_finite(tensor: Tensor) -> Tensor:
    """Return where a tensor is neither infinite nor NaN: booleans; see `is_nan`."""
    if keras.config.backend() != "torch":
        return ops.isfinite(tensor)
    return tensor.abs() < math.inf


def _compiles_without_gradient(tensors: tuple[Tensor, ...]) -> bool:
    """Return whether PyTorch compiles a call that nobody differentiates: it fails at gradients."""
    import torch

    if not torch.compiler.is_compiling():
        return False
    return not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors))


def eager_section() -> AbstractContextManager[Any]:
    """Return a context in which variables hold numbers, also while TensorFlow traces a graph.

    In it an assignment happens at once and is no step of the graph. The other backends need none.
    """
    if keras.config.backend() != "tensorflow":
        return contextlib.nullcontext()
    import tensorflow

    return tensorflow.init_scope()


@contextlib.contextmanager
def concrete_section() -> Iterator[None]:
    """Let what is computed in the block have numbers, whatever a backend traces around it."""
    with contextlib.ExitStack() as stack:
        if keras.config.backend() == "jax":
            import jax

            stack.enter_context(jax.ensure_compile_time_eval())
        elif keras.config.backend() == "torch":
            # Keras traces PyTorch on a device without numbers.
            stack.enter_context(keras.device("cpu"))
        stack.enter_context(eager_section())
        yield


@contextlib.contextmanager
def without_gradients() -> Iterator[None]:
    """Let PyTorch keep nothing for gradients of what is computed in the block."""
    if keras.config.backend() != "torch":
        yield
        return
    import torch

    with torch.no_grad():
        yield


@contextlib.contextmanager
def loops_unrolled() -> Iterator[None]:
    """Let JAX run loops step by step in the block, so that tensors within them have numbers."""
    if keras.config.backend() != "jax":
        yield
        return
    import jax

    with jax.disable_jit():
        yield


def _detached(result: Any) -> Any:
    """Return tensors of PyTorch, or a tuple of them, detached from their gradients."""
    if isinstance(result, tuple):
        return tuple(part.detach() for part in result)
    return result.detach()
