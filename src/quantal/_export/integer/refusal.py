"""Refuse layers that have no integer form, by their names."""

from quantal._export.graph.steps import Node

EXPECTED = (
    "Expected layers that integers can compute: Dense, convolutions, pooling, normalization, Add, "
    "Multiply, Concatenate, padding, and functions of single numbers before a DiscreteActivation."
)
"""What integers can compute, for messages."""


def refusal(node: Node, why: str) -> ValueError:
    """Return the error that a layer has no integer form.

    Args:
        node: A node of the layer.
        why: The rest of a sentence that begins with its name, and what was expected.
    """
    return ValueError(f"The layer {node.name!r} {why}")
