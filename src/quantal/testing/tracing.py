"""Which numbers, made from latents alone, met the data in a model's forward pass.

The answer is read off the call itself, operation by operation, and not from what
layers say of themselves. So it finds every silent float: a layer that computes with
its latents, a list that rounding has left, a low-rank term beside the listed kernel.

Each tensor of a call depends on nothing that matters here, on latents alone, or on the
data. Where an operation has an operand of the second kind beside one of the third, it
*uses* the former:

>>> import keras, quantal
>>> model = keras.Sequential([keras.Input((3,)), quantal.LearnableMultiplier([2, 4])])
>>> model.layers[0].set_codes([0, 1, 1])
>>> [use.value.tolist() for use in uses_of(model)]
[[[2.0, 4.0, 4.0]]]

Limits: what leaves the framework for Python or NumPy is not followed. What a layer
makes of a weight and a constant, not of a weight and the data, counts as the weight,
so a learned query through a listed kernel is reported; all zeros, such as the first
state of a recurrent layer, do not count. Recurrent kernels that a GPU library takes as
one flat buffer are reported as a mixture.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from quantal._core.parameter import Parameter, parameters_of
from quantal._models.inputs import random_inputs, symbolic_inputs

Origin = frozenset[int]
"""What a tensor depends on: places of latents; `_DATA` once the data are among it."""

_NOTHING: Origin = frozenset()
_DATA: Origin = frozenset({-1})

_PRODUCTS = ("mul", "dot", "mm", "mv", "conv", "einsum")
"""Parts of the names of operations whose result is zero if one operand is."""


@dataclasses.dataclass(frozen=True)
class Use:
    """One operand that was made from latents alone and met the data in an operation.

    Attributes:
        parameters: Whose latents it was made from; more than one is a mixture.
        operation: The backend's name of the operation.
        dtype: The operand's.
        value: Its numbers as float64, which holds those of every other dtype.
    """

    parameters: tuple[Parameter, ...]
    operation: str
    dtype: str
    value: NDArray[np.float64]


def uses_of(model: keras.Layer, inputs: Any = None, training: bool = False) -> list[Use]:
    """Every use of a parameter in one forward pass, each operation's equal ones once.

    The model is unchanged afterwards: statistics, seeds and states of estimators too.

    Args:
        model: A built model or layer, called as `model(inputs, training=training)`.
        inputs: Example data in the structure that the model takes; None draws some
            for a model that has Inputs.
        training: Whether the pass is one of training.

    Raises:
        TypeError: It is not a Keras layer or model.
        ValueError: It is not built, has no Inputs to draw data for, or the backend is
            not TensorFlow, JAX or PyTorch.
    """
    parameters = parameters_of(model)
    tracers = {"tensorflow": _trace_tensorflow, "jax": _trace_jax, "torch": _trace_torch}
    backend = keras.config.backend()
    if backend not in tracers:
        raise ValueError(
            f"The backend is {backend!r}. Expected tensorflow, jax or torch, whose calls "
            "can be traced. Set KERAS_BACKEND to one of them."
        )
    if inputs is None:
        inputs = _random_inputs(model)
    inputs = keras.tree.map_structure(
        lambda x: None if x is None else ops.convert_to_tensor(x), inputs
    )
    latents = [parameter.latent for parameter in parameters]
    held = {id(latent) for latent in latents}
    others = [variable for variable in model.variables if id(variable) not in held]

    def forward(values: Sequence[Any], inputs: Any) -> list[Any]:
        mapping = [*zip(latents, values, strict=True), *((v, v.value) for v in others)]
        with keras.StatelessScope(mapping, collect_losses=True) as scope:
            outputs = model(inputs, training=training)
        return [x for x in keras.tree.flatten((outputs, scope.losses)) if x is not None]

    ledger = _Ledger(parameters)
    tracers[backend](ledger, forward, [latent.value for latent in latents], inputs)
    return ledger.uses


def allowed_numbers(parameter: Parameter) -> NDArray[np.float32]:
    """The numbers that may meet the data for a parameter: the list, times its scale.

    Each is one float32 product; a layer then rounds it once to the dtype it computes in.

    >>> import quantal
    >>> layer = quantal.LearnableMultiplier([1, 3], scale="learned")
    >>> layer.build((None, 2))
    >>> layer.discrete_parameters[0].scale_state.begin(0.5)
    >>> allowed_numbers(layer.discrete_parameters[0]).tolist()
    [0.5, 1.5]
    """
    numbers = parameter.values.numbers.ravel()
    if parameter.scale is None:
        return numbers
    scales = np.asarray(ops.convert_to_numpy(parameter.scale), np.float32)
    return np.unique(np.multiply.outer(numbers, scales))


class _Ledger:
    """The uses so far, and the one rule by which an operation hands origins on."""

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        self.parameters = parameters
        self.uses: list[Use] = []
        self._known: set[Any] = set()

    def enter(
        self, operation: str, operands: Sequence[tuple[Any, Origin]], results: Sequence[Any]
    ) -> Origin:
        """Note what an operation uses; the origin of its results."""
        origin = _NOTHING.union(*(origin for _, origin in operands))
        if origin >= _DATA:
            for tensor, latents in operands:
                if latents and latents != _DATA:
                    self._use(operation, tensor, latents)
            return _DATA
        # The first state of a recurrent layer is zeros, and not made from the data.
        if origin and any(part in operation.lower() for part in _PRODUCTS):
            constants = [tensor for tensor, latents in operands if not latents]
            if any(_is_zero(x) for x in constants) and all(_is_zero(x) for x in results):
                return _NOTHING
        return origin

    def _use(self, operation: str, tensor: Any, latents: Origin) -> None:
        value, dtype = _numbers(tensor), keras.backend.standardize_dtype(tensor.dtype)
        # A loop over time uses the same kernel at every step.
        key = (operation, latents, dtype, value.shape, hash(value.tobytes()))
        if key not in self._known:
            self._known.add(key)
            parameters = tuple(self.parameters[place] for place in sorted(latents))
            self.uses.append(Use(parameters, operation, dtype, value))


def _numbers(tensor: Any) -> NDArray[np.float64]:
    return np.asarray(ops.convert_to_numpy(tensor)).astype(np.float64)


def _is_zero(tensor: Any) -> bool:
    return not _numbers(tensor).any()


def _random_inputs(model: keras.Layer) -> Any:
    """Draw data for a model's Inputs: 2 rows, and 3 along other axes of open length."""
    symbolic = symbolic_inputs(model)
    if symbolic is None:
        raise ValueError(
            f"inputs is None, but {model.name!r} has no Input that says what it takes. "
            "Expected example data for such a model or layer. Give a batch of them."
        )
    return random_inputs(symbolic, batch=2, open_length=3)


# JAX: the call is traced to a jaxpr, which is evaluated together with the origins.


def _trace_jax(ledger: _Ledger, forward: Callable[..., Any], latents: Any, inputs: Any) -> None:
    import jax

    closed = jax.make_jaxpr(forward)(latents, inputs)
    marked = [(latent, frozenset({place})) for place, latent in enumerate(latents)]
    marked += [(leaf, _DATA) for leaf in jax.tree.leaves(inputs)]
    _evaluate(ledger, closed.jaxpr, closed.consts, marked)


def _evaluate(ledger: _Ledger, jaxpr: Any, consts: Any, marked: Any) -> list[Any]:
    """The (value, origin) pairs that a jaxpr makes of its arguments' pairs."""
    found = dict(zip(jaxpr.constvars, ((const, _NOTHING) for const in consts), strict=True))
    found |= dict(zip(jaxpr.invars, marked, strict=True))

    def read(atom: Any) -> Any:
        # Only a literal has its value at hand.
        return (atom.val, _NOTHING) if hasattr(atom, "val") else found[atom]

    for equation in jaxpr.eqns:
        results = _equation(ledger, equation, [read(atom) for atom in equation.invars])
        found |= dict(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


_CALLS = (
    "jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint",
    "custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr",
)  # fmt: skip


def _equation(ledger: _Ledger, equation: Any, operands: list[Any]) -> list[Any]:
    name, settings = equation.primitive.name, equation.params

    def inside(jaxpr: Any, marked: list[Any]) -> list[Any]:
        # A closed jaxpr, or one without constants.
        return _evaluate(
            ledger, getattr(jaxpr, "jaxpr", jaxpr), getattr(jaxpr, "consts", ()), marked
        )

    if name in _CALLS:
        kinds = ("jaxpr", "call_jaxpr", "fun_jaxpr")
        return inside(next(settings[kind] for kind in kinds if kind in settings), operands)
    if name == "cond":
        branch = settings["branches"][int(operands[0][0])]
        return inside(branch, operands[1:])
    if name == "while":
        split = settings["cond_nconsts"]
        test, body = operands[:split], operands[split : split + settings["body_nconsts"]]
        carry = operands[split + settings["body_nconsts"] :]
        while inside(settings["cond_jaxpr"], test + carry)[0][0]:
            carry = inside(settings["body_jaxpr"], body + carry)
        return carry
    if name == "scan" and settings["length"]:
        return _scan(ledger, settings, operands, inside)
    results = equation.primitive.bind(*(value for value, _ in operands), **settings)
    results = results if equation.primitive.multiple_results else [results]
    origin = ledger.enter(name, operands, results)
    return [(result, origin) for result in results]


def _scan(ledger: _Ledger, settings: Any, operands: list[Any], inside: Any) -> list[Any]:
    """A loop over rows, step by step."""
    split = settings["num_consts"] + settings["num_carry"]
    consts, carry = operands[: settings["num_consts"]], operands[settings["num_consts"] : split]
    steps = range(settings["length"])
    rows = []
    for step in reversed(steps) if settings["reverse"] else steps:
        row = [(column[step], origin) for column, origin in operands[split:]]
        results = inside(settings["jaxpr"], consts + carry + row)
        carry = results[: settings["num_carry"]]
        rows.append(results[settings["num_carry"] :])
    columns = zip(*(reversed(rows) if settings["reverse"] else rows), strict=True)
    stacked = []
    for column in columns:
        result = ops.stack([value for value, _ in column])
        stacked.append((result, ledger.enter("scan", column, [result])))
    return carry + stacked


# TensorFlow: the call runs eagerly, and TensorFlow reports each operation.

_SHAPES_ONLY = ("Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike")


def _trace_tensorflow(
    ledger: _Ledger, forward: Callable[..., Any], latents: Any, inputs: Any
) -> None:
    import tensorflow

    # The one private module: TensorFlow's debugger listens in the same way.
    from tensorflow.python.framework import op_callbacks

    # The tensors are kept, or another one might get the same id.
    origins: dict[int, tuple[Any, Origin]] = {}

    def mark(tensor: Any, origin: Origin) -> Any:
        if origin:
            origins[id(tensor)] = (tensor, origin)
        return tensor

    def listen(
        operation: str | bytes,
        operands: Any,
        attributes: Any,
        results: Any,
        op_name: Any = None,
        graph: Any = None,
    ) -> None:
        name = tensorflow.compat.as_str(operation)
        if graph is not None or name in _SHAPES_ONLY:
            return
        marked = [(x, origins[id(x)][1] if id(x) in origins else _NOTHING) for x in operands]
        origin = ledger.enter(name, marked, results)
        for result in results:
            mark(result, origin)

    latents = [
        mark(tensorflow.identity(latent), frozenset({place}))
        for place, latent in enumerate(latents)
    ]
    inputs = keras.tree.map_structure(
        lambda x: None if x is None else mark(tensorflow.identity(x), _DATA), inputs
    )
    eagerly = tensorflow.config.functions_run_eagerly()
    # A function that TensorFlow compiles would be one operation that uses everything.
    tensorflow.config.run_functions_eagerly(True)
    op_callbacks.add_op_callback(listen)
    try:
        forward(latents, inputs)
    finally:
        op_callbacks.remove_op_callback(listen)
        tensorflow.config.run_functions_eagerly(eagerly)


# PyTorch: the call runs eagerly under a mode that sees each operation of its core.


def _trace_torch(ledger: _Ledger, forward: Callable[..., Any], latents: Any, inputs: Any) -> None:
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    # By memory, which views share and in-place operations keep. The tensors are kept,
    # or another one might get the same memory.
    origins: dict[int, tuple[Any, Origin]] = {}

    def memory(tensor: Any) -> int:
        return int(tensor.untyped_storage().data_ptr())

    def origin_of(tensor: Any) -> Origin:
        return origins.get(memory(tensor), (None, _NOTHING))[1]

    def mark(tensor: Any, origin: Origin) -> Any:
        # What is overwritten is among the operands, so an origin only ever grows.
        if origin and tensor.numel():
            origins[memory(tensor)] = (tensor, origin)
        return tensor

    def tensors_in(structure: Any) -> list[Any]:
        leaves = keras.tree.flatten(structure)
        return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]

    class Listener(TorchDispatchMode):
        def __torch_dispatch__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            name = function.overloadpacket.__name__
            marked = [(x, origin_of(x)) for x in tensors_in((args, kwargs))]
            if function._schema.is_mutable:
                # What it uses must be read before it is overwritten.
                marked = [(x.clone() if origin else x, origin) for x, origin in marked]
            results = function(*args, **(kwargs or {}))
            if not (name.endswith("_like") or name.startswith("new_")):
                written = tensors_in(results)
                origin = ledger.enter(name, marked, written)
                for result in written:
                    mark(result, origin)
            return results

    latents = [
        mark(latent.detach().clone(), frozenset({place})) for place, latent in enumerate(latents)
    ]
    inputs = keras.tree.map_structure(
        lambda x: None if x is None else mark(x.detach().clone(), _DATA), inputs
    )
    with torch.no_grad(), Listener():
        forward(latents, inputs)
