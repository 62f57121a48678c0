"""These functions check the arguments of `quantal.polish`."""

import os
from collections.abc import Sequence
from typing import Any

import keras

from quantal._core.by_identity import ByIdentity
from quantal._core.parameter import Parameter, parameters_of
from quantal._core.processes import count
from quantal._models.batches import Data
from quantal._models.compiled_loss import Monitor
from quantal._models.walk import check_model


def checked_parameters(
    model: keras.Model, parameters: Sequence[Parameter] | None, frozen_too: bool = False
) -> list[Parameter]:
    """Return the parameters to work on: the given ones, or all of the model that are not frozen.

    There is none where all of the model are frozen.

    Args:
        model: The model.
        parameters: The given parameters; None for those of the model.
        frozen_too: Whether frozen parameters count, too: for what changes nothing.

    Raises:
        TypeError: It is not a Keras model.
        ValueError: The model is not built, not compiled or has no discrete parameters, or one of
            the given parameters comes twice, is frozen or is not the model's.
    """
    check_model(model)
    if not model.compiled:
        raise ValueError(
            f"The model {model.name!r} is not compiled. Expected one with a loss. Call "
            "model.compile(loss=...) first."
        )
    of_model = parameters_of(model)
    trained = [parameter for parameter in of_model if frozen_too or not parameter.is_frozen]
    selected = trained if parameters is None else list(parameters)
    if not of_model or (parameters is not None and not selected):
        raise ValueError(
            f"The model {model.name!r} has no discrete parameters. Expected one or more. Make "
            "some with quantal.discretize or quantal.Discrete."
        )
    known = ByIdentity[None]([(parameter.latent, None) for parameter in of_model])
    unknown = [parameter for parameter in selected if parameter.latent not in known]
    if unknown:
        raise ValueError(
            f"parameters has {unknown[0]!r}, which is not in the model. Expected some of "
            "quantal.parameters_of(model)."
        )
    frozen = [parameter for parameter in selected if parameter.is_frozen]
    if frozen and not frozen_too:
        raise ValueError(
            f"parameters has {frozen[0].path}, whose layer has trainable=False. Expected "
            "parameters that may change. Leave it out, or set trainable=True."
        )
    if len(ByIdentity[None]([(parameter.latent, None) for parameter in selected])) < len(selected):
        raise ValueError(
            "parameters has one of them twice. Expected each once, as in "
            "quantal.parameters_of(model)."
        )
    return selected


def checked_monitor(monitor: Any) -> Monitor | str | None:
    """Return what is monitored; None for the loss, which has a name as well.

    Raises:
        TypeError: It is neither a function nor a name.
    """
    if monitor is None or monitor == "loss":
        return None
    if not isinstance(monitor, str) and not callable(monitor):
        raise TypeError(
            f"monitor is a {type(monitor).__name__}. Expected None for the loss, the name of a "
            "compiled metric, or a function of targets and outputs."
        )
    return monitor


def check_batch_size(batch_size: int) -> None:
    """Raise a ValueError if a batch has no sample."""
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}. Expected 1 or more. Give, say, 8192.")


def checked_validation_data(data: Any) -> Data:
    """Return inputs, targets and sample weights of the argument `validation_data`."""
    if not isinstance(data, (tuple, list)) or len(data) not in (2, 3):
        raise ValueError(
            f"validation_data is {type(data).__name__}. Expected inputs and targets, and weights "
            "where samples have them. Give (x, y) or (x, y, sample_weight)."
        )
    return keras.utils.unpack_x_y_sample_weight(tuple(data))


def check_file(file: str | os.PathLike[str] | None) -> None:
    """Refuse a checkpoint where several processes polish together: they would go on from others.

    Raises:
        ValueError: There is a file, and the program runs in several processes.
    """
    if file is not None and count() > 1:
        raise ValueError(
            f"file is {os.fspath(file)!r}, and {count()} processes polish together. Expected "
            "file=None there. Save the model afterwards with quantal.save."
        )
