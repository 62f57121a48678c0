"""The parameters that a callback works on."""

from collections.abc import Callable

import keras

from quantal._core.parameter import Parameter, parameters_of


def required_parameters(
    model: keras.Model, wanted: Callable[[Parameter], bool], missing: str, expected: str
) -> list[Parameter]:
    """Return the parameters of a model that a callback works on.

    Args:
        model: A built model.
        wanted: Says of a parameter whether the callback works on it.
        missing: Names such a parameter in the error, as in "The model has no ...".
        expected: Says what the callback expects in the error.

    Raises:
        ValueError: The model has none.
    """
    parameters = [parameter for parameter in parameters_of(model) if wanted(parameter)]
    if not parameters:
        raise ValueError(
            f"The model has no {missing}, so this callback has nothing to do. Expected "
            f"{expected}. Leave the callback out, or change a layer."
        )
    return parameters


def all_parameters(model: keras.Model) -> list[Parameter]:
    """Return the parameters of a model; refuse a model that has none.

    Raises:
        ValueError: The model has no discrete parameter.
    """
    return required_parameters(
        model,
        lambda parameter: True,
        missing="discrete parameter",
        expected="a model with quantal's layers",
    )
