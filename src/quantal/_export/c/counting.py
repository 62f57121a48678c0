"""Count the operations in C of steps that have no weights."""

from quantal._export.graph.steps import (
    Elementwise,
    Function,
    Nearest,
    Normalize,
    Pool,
    Recurrent,
    Resize,
    Slopes,
    Softmax,
    Step,
)
from quantal._export.operations import Operations

_CELLS = {
    "simple": Operations(1, functions=1),
    "lstm": Operations(5, products=3, functions=5),
    "gru_reset_after": Operations(5, products=3, functions=3),
    "gru": Operations(5, products=3, functions=3),
}
"""What one number of a new state takes, besides the products with the input and the state."""
_COMPARING = ("relu", "hard_tanh", "hard_shrink", "soft_shrink")
"""Functions that need no exponential or root."""


def operations_of(step: Step) -> Operations:
    """Return what a step takes for one sample; nothing for one that copies, or a product.

    Products are counted where their weights are encoded.
    """
    match step:
        case Recurrent():
            return _CELLS[step.cell] * (step.time * step.units)
        case Elementwise():
            return _of_elementwise(step)
        case Pool():
            seen = step.size * step.window.kernel_height * step.window.kernel_width
            if step.largest:
                return Operations(comparisons=seen)
            return Operations(additions=seen, functions=step.size)
        case Function():
            if step.name in _COMPARING:
                return Operations(comparisons=step.size)
            return Operations(functions=step.size)
        case Slopes():
            return Operations(comparisons=step.size, products=step.size)
        case Softmax():
            return Operations(step.size, comparisons=step.size, functions=2 * step.size)
        case Nearest():
            divisions = 0 if (step.scale == 1).all() else step.size
            comparisons = step.size * (len(step.levels) - 1).bit_length()
            return Operations(products=divisions, comparisons=comparisons, functions=divisions)
        case Normalize():
            return Operations(3 * step.size, products=2 * step.size, functions=2 * step.groups)
        case Resize():
            return Operations(6 * step.size, products=3 * step.size)
    return Operations()


def _of_elementwise(step: Elementwise) -> Operations:
    """Return what an operation of several sources takes."""
    count = step.size * (len(step.repetitions) - 1)
    match step.operation:
        case "multiply":
            return Operations(products=count)
        case "divide":
            return Operations(functions=count)
        case "maximum" | "minimum":
            return Operations(comparisons=count)
        case "average":
            return Operations(count, functions=step.size)
    return Operations(count)
