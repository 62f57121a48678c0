"""Models that were trained again with other seeds are compared element by element."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray

from quantal._core.parameter import Parameter, parameters_of
from quantal._core.tensors.distributed import whole_array
from quantal._models.walk import check_model
from quantal.objectives.problem import Floats

Retrain = Callable[[int], keras.Model]
"""A function of a seed that builds and trains a model and returns it."""


class Agreement(NamedTuple):
    """An agreement says in which share of the elements runs have the same value.

    Attributes:
        share: The mean of that share over all pairs of runs; None where there is one run.
        by_chance: The same for independent runs that use the values as often.
    """

    share: float | None
    by_chance: float | None


class Runs(NamedTuple):
    """Runs are models that were trained again.

    Attributes:
        agreements: The agreement of each parameter.
        models: The models.
    """

    agreements: list[Agreement]
    models: list[keras.Model]


def runs_of(
    retrain: Retrain, seeds: int, parameters: Sequence[Parameter], model: keras.Model
) -> Runs:
    """Train models with other seeds, and compare them.

    Args:
        retrain: Trains a model for a seed.
        seeds: How many seeds.
        parameters: The parameters of the model, which are compared.
        model: The model. Its codes do not count: it may be one of the runs.

    Raises:
        ValueError: There is one seed or none, or a model has other parameters.
    """
    if isinstance(seeds, bool) or not seeds >= 2:
        raise ValueError(f"seeds is {seeds!r}. Expected 2 or more, so that runs can be compared.")
    indices = [_index(parameter, parameters_of(model)) for parameter in parameters]
    vectors, models = [], []
    for seed in range(int(seeds)):
        other = retrain(seed)
        check_model(other, "What retrain returned")
        others = parameters_of(other)
        shapes = [parameter.shape for parameter in parameters_of(model)]
        if [parameter.shape for parameter in others] != shapes:
            raise ValueError(
                f"retrain({seed}) returned a model with listed weights of the shapes "
                f"{[parameter.shape for parameter in others]}. Expected those of the model, "
                f"{shapes}. Build the same model in it."
            )
        models.append(other)
        vectors.append([_values(others[index]) for index in indices])
    runs = [list(run) for run in zip(*vectors, strict=True)]
    return Runs([_agreement(run) for run in runs], models)


def _agreement(run: list[Floats]) -> Agreement:
    pairs = list(itertools.combinations(run, 2))
    share = float(np.mean([np.mean(one == other) for one, other in pairs]))
    return Agreement(share, float(np.mean([_chance(*pair) for pair in pairs])))


def _chance(one: Floats, other: Floats) -> float:
    """Return the share in which two vectors agree if the order of their elements is random."""
    numbers, index = np.unique(np.concatenate([one, other]), return_inverse=True)
    counts = [np.bincount(part, minlength=len(numbers)) / len(part) for part in np.split(index, 2)]
    return float(counts[0] @ counts[1])


def _index(parameter: Parameter, parameters: Sequence[Parameter]) -> int:
    latents = [one.latent for one in parameters]
    return next(i for i, latent in enumerate(latents) if latent is parameter.latent)


def _values(parameter: Parameter) -> NDArray[Any]:
    return np.array(whole_array(parameter.listed_values)).reshape(-1)
