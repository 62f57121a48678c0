"""Trace on JAX: a call becomes a jaxpr, which is evaluated together with the origins."""

from collections.abc import Callable, Sequence
from typing import Any

from keras import ops

from quantal._core.types import Tensor
from quantal.testing._ledger import DATA, NOTHING, Ledger, Marked

_CALLS = (
    "jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint",
    "custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr",
)  # fmt: skip
"""Names of operations that only call a jaxpr within."""


def trace(
    ledger: Ledger, forward: Callable[..., Any], latents: Sequence[Tensor], inputs: Any
) -> None:
    """Enter every operation of a forward pass into a ledger.

    Args:
        ledger: Where uses are recorded.
        forward: From the latents and the inputs to a list of tensors.
        latents: The latents' tensors.
        inputs: A structure of tensors.
    """
    import jax

    closed = jax.make_jaxpr(forward)(latents, inputs)
    marked = [Marked(latent, frozenset({index})) for index, latent in enumerate(latents)]
    marked += [Marked(leaf, DATA) for leaf in jax.tree.leaves(inputs)]
    _evaluate(ledger, closed.jaxpr, closed.consts, marked)


def _evaluate(ledger: Ledger, jaxpr: Any, consts: Any, arguments: list[Marked]) -> list[Marked]:
    """Return what a jaxpr computes from marked arguments."""
    marked = {
        variable: Marked(const, NOTHING)
        for variable, const in zip(jaxpr.constvars, consts, strict=True)
    }
    marked |= dict(zip(jaxpr.invars, arguments, strict=True))

    def read(atom: Any) -> Marked:
        # Only a literal has its value at hand.
        return Marked(atom.val, NOTHING) if hasattr(atom, "val") else marked[atom]

    # A number of each variable is kept until its last use alone: models are large.
    last_uses = {atom: index for index, equation in enumerate(jaxpr.eqns)
                 for atom in equation.invars if not hasattr(atom, "val")}  # fmt: skip
    last_uses |= {atom: len(jaxpr.eqns) for atom in jaxpr.outvars if not hasattr(atom, "val")}
    for index, equation in enumerate(jaxpr.eqns):
        operands = [read(atom) for atom in equation.invars]
        for atom in equation.invars:
            if not hasattr(atom, "val") and last_uses[atom] == index:
                marked.pop(atom, None)
        results = _apply(ledger, equation, operands)
        marked |= {
            variable: result
            for variable, result in zip(equation.outvars, results, strict=True)
            if variable in last_uses
        }
        del operands, results
    return [read(atom) for atom in jaxpr.outvars]


def _apply(ledger: Ledger, equation: Any, operands: list[Marked]) -> list[Marked]:
    """Return the results of one equation, a loop or a branch step by step."""
    import jax

    name, settings = equation.primitive.name, equation.params
    if name in _CALLS:
        kinds = ("jaxpr", "call_jaxpr", "fun_jaxpr")
        jaxpr = next(settings[kind] for kind in kinds if kind in settings)
        return _call(ledger, jaxpr, operands)
    if name == "cond":
        branch = settings["branches"][int(operands[0].tensor)]
        return _call(ledger, branch, operands[1:])
    if name == "while":
        return _while(ledger, settings, operands)
    if name == "scan" and settings["length"]:
        return _scan(ledger, settings, operands)
    results = equation.primitive.bind(*(operand.tensor for operand in operands), **settings)
    # JAX computes ahead: without a pause several operations would have their operands in memory.
    results = jax.block_until_ready(results if equation.primitive.multiple_results else [results])
    origin = ledger.enter(name, operands, results)
    return [Marked(result, origin) for result in results]


def _call(ledger: Ledger, jaxpr: Any, operands: list[Marked]) -> list[Marked]:
    """Evaluate a jaxpr within another: a closed one, or one without constants."""
    return _evaluate(ledger, getattr(jaxpr, "jaxpr", jaxpr), getattr(jaxpr, "consts", ()), operands)


def _while(ledger: Ledger, settings: Any, operands: list[Marked]) -> list[Marked]:
    """Evaluate a loop until its condition fails."""
    split = settings["cond_nconsts"]
    condition, body = operands[:split], operands[split : split + settings["body_nconsts"]]
    carry = operands[split + settings["body_nconsts"] :]
    while _call(ledger, settings["cond_jaxpr"], condition + carry)[0].tensor:
        carry = _call(ledger, settings["body_jaxpr"], body + carry)
    return carry


def _scan(ledger: Ledger, settings: Any, operands: list[Marked]) -> list[Marked]:
    """Evaluate a loop over rows."""
    split = settings["num_consts"] + settings["num_carry"]
    consts, carry = operands[: settings["num_consts"]], operands[settings["num_consts"] : split]
    steps = range(settings["length"])
    rows = []
    for step in reversed(steps) if settings["reverse"] else steps:
        row = [Marked(column.tensor[step], column.origin) for column in operands[split:]]
        results = _call(ledger, settings["jaxpr"], consts + carry + row)
        carry = results[: settings["num_carry"]]
        rows.append(results[settings["num_carry"] :])
    columns = zip(*(reversed(rows) if settings["reverse"] else rows), strict=True)
    stacked = []
    for column in columns:
        result = ops.stack([entry.tensor for entry in column])
        stacked.append(Marked(result, ledger.enter("scan", column, [result])))
    return carry + stacked
