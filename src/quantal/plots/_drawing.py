"""What pictures share: their size, and what they accept."""

from collections.abc import Sequence

from quantal._core.parameter import Parameter

WIDTH, ROW_HEIGHT = 11, 2.7
"""Inches of a figure, and of each parameter's row."""


def check_parameters(parameters: object) -> None:
    """Refuse what is no list of parameters, such as a model."""
    if not isinstance(parameters, Sequence) or not all(
        isinstance(parameter, Parameter) for parameter in parameters
    ):
        raise TypeError(
            f"parameters is {parameters!r}. Expected a list of parameters, such as "
            "quantal.parameters_of(model) returns."
        )
