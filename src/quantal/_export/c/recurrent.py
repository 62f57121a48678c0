"""Write recurrent layers in C: products with the input and the state, and what gates do."""

from collections.abc import Callable

import numpy as np

from quantal._core.numbers.values import Values
from quantal._export.c.definitions import Definitions
from quantal._export.c.functions import expression
from quantal._export.c.text import literal
from quantal._export.graph.steps import Function, Nearest, Product, Recurrent

Call = Callable[[Product, str, str], str]
"""A call gives the C that computes a product from one array into another."""


def scratch_of(step: Recurrent) -> int:
    """Return how many floats a recurrent layer needs while it runs."""
    return _SCRATCH[step.cell] * step.units


def recurrent(define: Definitions, step: Recurrent, product: Call) -> str:
    """Define the function of a recurrent layer, and return its name.

    Args:
        define: The definitions of the program.
        step: The step.
        product: Writes the call of a product.
    """
    units, channels = step.units, step.inputs.window.in_channels
    time = f"{step.time - 1} - t" if step.backwards else "t"
    offset = f"({time})" if step.backwards else time
    pointers = "".join(f", *{part} = scratch + {n * units}" for part, n in _PARTS[step.cell])
    copy = f"memcpy(output{{}}, state, {units} * sizeof(float));\n"
    every, last = f"        {copy.format(f' + t * {units}')}", f"    {copy.format('')}"
    return define.function(
        f"{step.cell}_layer",
        "recurrent",
        parts=pointers,
        start=str(_STARTING[step.cell] * units),
        time=str(step.time),
        inputs=product(step.inputs, f"input + {offset} * {channels}", "gates"),
        states="\n        ".join(_products_of_states(define, step, product)),
        units=str(units),
        cell=_cell(define, step),
        after=every if step.sequences else "",
        end="" if step.sequences else last,
    )


def _products_of_states(define: Definitions, step: Recurrent, product: Call) -> list[str]:
    """Return the calls that compute what gates get from the state."""
    if step.cell != "gru":
        return [product(step.states[0], "state", "others")]
    # The third gate's product sees the state after the reset gate has acted on it.
    units, gate = step.units, _named(define, step.gate)
    return [
        product(step.states[0], "state", "others"),
        f"for (int i = 0; i < {units}; i++) {{",
        f"    const float r = {gate}(gates[i + {units}] + others[i + {units}]);",
        "    reset[i] = r * state[i];",
        "}",
        product(step.states[1], "reset", f"others + {2 * units}"),
    ]


def _cell(define: Definitions, step: Recurrent) -> str:
    """Return the C that computes one number of the new state."""
    lines = _CELLS[step.cell]
    names = {
        "activation": _named(define, step.activation),
        "gate": _named(define, step.gate),
    }
    return "\n".join(f"            {line}" for line in lines).format(u=step.units, **names)


def _named(define: Definitions, function: Function | Nearest) -> str:
    """Define a function of one number, and return its name."""
    if isinstance(function, Nearest):
        return _nearest(define, function)
    return define.function(f"{function.name}_of", "function", value=expression(function))


def _nearest(define: Definitions, step: Nearest) -> str:
    """Define the nearest level of one number, and return the function's name."""
    levels = step.levels.astype(np.float32)
    scale = literal(float(step.scale[0]))
    scaled = step.scale[0] != 1
    return define.function(
        "nearest_of",
        "nearest_of",
        last=str(len(levels) - 1),
        values=define.floats("values", levels),
        thresholds=define.floats("thresholds", Values(levels).midpoints),
        unit=f" * (1.0f / {scale})" if scaled else "",
        factor=f" * {scale}" if scaled else "",
    )


_PARTS = {
    "simple": (("gates", 1), ("others", 2)),
    "lstm": (("cell", 1), ("gates", 2), ("others", 6)),
    "gru_reset_after": (("gates", 1), ("others", 4)),
    "gru": (("gates", 1), ("others", 4), ("reset", 7)),
}
"""Names of the parts of a layer's memory behind the state, and where they begin, in units."""
_STARTING = {"simple": 1, "lstm": 2, "gru_reset_after": 1, "gru": 1}
"""How much of it is 0 at the start."""
_SCRATCH = {"simple": 3, "lstm": 10, "gru_reset_after": 7, "gru": 8}
"""Its length."""
_CELLS = {
    "simple": ["state[i] = {activation}(gates[i] + others[i]);"],
    "lstm": [
        "const float in = {gate}(gates[i] + others[i]);",
        "const float keep = {gate}(gates[i + {u}] + others[i + {u}]);",
        "const float fresh = {activation}(gates[i + 2 * {u}] + others[i + 2 * {u}]);",
        "cell[i] = keep * cell[i] + in * fresh;",
        "state[i] = {gate}(gates[i + 3 * {u}] + others[i + 3 * {u}]) * {activation}(cell[i]);",
    ],
    "gru_reset_after": [
        "const float keep = {gate}(gates[i] + others[i]);",
        "const float reset = {gate}(gates[i + {u}] + others[i + {u}]);",
        "const float fresh = {activation}(gates[i + 2 * {u}] + reset * others[i + 2 * {u}]);",
        "state[i] = keep * state[i] + (1.0f - keep) * fresh;",
    ],
    "gru": [
        "const float keep = {gate}(gates[i] + others[i]);",
        "const float fresh = {activation}(gates[i + 2 * {u}] + others[i + 2 * {u}]);",
        "state[i] = keep * state[i] + (1.0f - keep) * fresh;",
    ],
}
"""C of one number of the new state; `{u}` stands for the length of the state."""
