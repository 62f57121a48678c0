"""How well a model does on a device that writes its values with noise: over several draws."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike, NDArray

from quantal._core.by_identity import ByIdentity
from quantal._core.numbers.checks import checked_seed
from quantal._core.numbers.noise import noise_name
from quantal._core.numbers.values import Values
from quantal._core.parameter import Parameter, parameters_of
from quantal._core.table import Column, Table
from quantal._core.tensors.distributed import whole_array
from quantal._core.types import Tensor
from quantal._core.views import Views
from quantal._models.bake import plain_copy
from quantal._models.compile_like import compile_like
from quantal._models.finalize import trainable
from quantal._models.parts import Replacement
from quantal._models.walk import check_model
from quantal.layers.multiplier import LearnableMultiplier

_FEWEST_DRAWS = 2
"""With fewer draws nothing spreads."""


@dataclasses.dataclass(frozen=True)
class NoiseEvaluation(Views):
    """An evaluation with noise holds the loss and the metrics of a model, draw by draw.

    Print it, or show it in a notebook, for a table.

    Attributes:
        exact: The loss and each metric of the listed values themselves, by name.
        draws: The same of each draw, by name: float64, (draws,).
        noise: What the noise of each weight is called, by the weight's path.
    """

    exact: dict[str, float]
    draws: dict[str, NDArray[np.float64]]
    noise: dict[str, str]

    @property
    def mean(self) -> dict[str, float]:
        """The mean over the draws, by name."""
        return {name: float(numbers.mean()) for name, numbers in self.draws.items()}

    @property
    def spread(self) -> dict[str, float]:
        """The standard deviation of a draw, by name; that of the mean is less."""
        return {name: float(numbers.std(ddof=1)) for name, numbers in self.draws.items()}

    def table(self) -> Table:
        """Return a table with a row for the loss and each metric."""
        names = ["exact", "mean", "spread", "lowest", "highest"]
        columns = [
            Column("metric", ""),
            *(Column(name, show=_few_digits, align="right") for name in names),
        ]
        mean, spread = self.mean, self.spread
        rows = [
            [name, self.exact[name], mean[name], spread[name], numbers.min(), numbers.max()]
            for name, numbers in self.draws.items()
        ]
        count = len(next(iter(self.draws.values())))
        kinds = list(dict.fromkeys(self.noise.values()))
        weights = f"{len(self.noise)} weight{'s' * (len(self.noise) != 1)}"
        return Table(columns, rows, footer=[f"{count} draws of {weights}, {', '.join(kinds)}"])

    def to_dict(self) -> dict[str, Any]:
        """Return the evaluation as data that JSON can hold."""
        return {
            "exact": self.exact, "mean": self.mean, "spread": self.spread,
            "draws": {name: numbers.tolist() for name, numbers in self.draws.items()},
            "noise": self.noise,
        }  # fmt: skip


def _few_digits(number: float) -> str:
    return f"{number:.4g}" if abs(number) >= 0.1 else f"{number:.3g}"


def evaluate_with_noise(
    model: keras.Model,
    x: Any,
    y: Any = None,
    draws: int = 20,
    *,
    noise: ArrayLike | None = None,
    sample_weight: Any = None,
    batch_size: int | None = None,
    seed: int = 0,
    verbose: int = 1,
) -> NoiseEvaluation:
    """Evaluate a model as devices compute that were written with noise.

    Each draw is a device: every element of every listed weight is its value plus a normal number
    with the deviation of that value, times the scale where there is one. With these numbers all
    data are evaluated; the next draw has others. The model stays as it is.

    Args:
        model: A built and compiled model with discrete layers.
        x: The inputs, as `evaluate` takes them; data that can be read several times.
        y: The targets; None where the data bring them or the loss needs none.
        draws: How many devices, at least 2.
        noise: The deviation, in the units of each list: a number, or one for each value; None
            for that of the lists, `Values(..., noise=0.02)`. So a model that was trained without
            noise can be evaluated with it.
        sample_weight: How much each sample counts, as in `evaluate`.
        batch_size: The samples of a batch, as in `evaluate`.
        seed: The seed of the draws. The same seed draws the same numbers, for every noise.
        verbose: 1 shows a line of progress, 0 nothing.

    Returns:
        A `NoiseEvaluation`: loss and metrics without noise, and with it mean and spread.

    Raises:
        TypeError: It is no Keras model.
        ValueError: It is not compiled or has no discrete layers, no list has noise and none is
            given, the noise is not that of a list, or `draws` is below 2.

    >>> import keras, numpy as np, quantal
    >>> model = keras.Sequential([keras.Input((4,)), quantal.LearnableMultiplier([1, -1])])
    >>> model.compile(loss="mse")
    >>> x = np.ones((8, 4), "float32")
    >>> y = model.predict(x, verbose=0)
    >>> result = evaluate_with_noise(model, x, y, draws=100, noise=0.1, verbose=0)
    >>> result.exact["loss"], round(result.mean["loss"], 2)
    (0.0, 0.01)
    """
    check_model(model)
    if draws < _FEWEST_DRAWS:
        raise ValueError(
            f"draws is {draws}. Expected at least {_FEWEST_DRAWS}, so that they differ."
        )
    if not model.compiled:
        raise ValueError(
            f"The model {model.name!r} is not compiled. Expected a loss, and metrics if wanted. "
            "Call model.compile(loss=..., metrics=[...]) first."
        )
    devices = _Devices(model, noise, np.random.default_rng(checked_seed(seed)))

    def evaluated() -> dict[str, float]:
        return dict(
            devices.model.evaluate(
                x,
                y,
                sample_weight=sample_weight,
                batch_size=batch_size,
                verbose=0,
                return_dict=True,
            )
        )

    metrics = evaluated()
    names = ["loss", *(name for name in metrics if name != "loss")]
    exact = {name: float(metrics[name]) for name in names}
    progress = keras.utils.Progbar(draws, verbose=verbose, unit_name="draw")
    results = []
    for draw in range(draws):
        devices.write()
        results.append(evaluated())
        progress.update(draw + 1)
    return NoiseEvaluation(
        exact,
        {name: np.array([float(result[name]) for result in results]) for name in exact},
        devices.noise,
    )


class _Devices:
    """Devices have the weights of a model as they were written, one device after another.

    Args:
        model: The model.
        noise: The noise of all lists, or None for their own.
        random: The generator of the draws.
    """

    def __init__(
        self, model: keras.Model, noise: ArrayLike | None, random: np.random.Generator
    ) -> None:
        unfinished = trainable(model)
        parameters = _noisy(parameters_of(unfinished), noise, model.name)
        clone = plain_copy(unfinished, _factors)
        compile_like(model, clone.model)
        new_variables = ByIdentity(clone.pairs)
        self.model, self._random = clone.model, random
        self._weights = [
            (new_variables[parameter.latent], _Written(parameter, values))
            for parameter, values in parameters
        ]
        self.noise = {
            parameter.path: "no noise" if values.noise is None else noise_name(values.noise)
            for parameter, values in parameters
        }

    def write(self) -> None:
        """Write the weights once more, each value with its noise."""
        for variable, written in self._weights:
            variable.assign(written.drawn(self._random))


def _noisy(
    parameters: Sequence[Parameter], noise: ArrayLike | None, name: str
) -> list[tuple[Parameter, Values]]:
    """Return the parameters, each with the list whose noise is drawn."""
    if not parameters:
        raise ValueError(
            f"The model {name!r} has no discrete weight. Expected one, whose values a device "
            "writes. Put weights on a list with quantal.discretize first."
        )
    lists = [
        parameter.values if noise is None else Values(parameter.values, noise=noise)
        for parameter in parameters
    ]
    if noise is None and all(values.noise is None for values in lists):
        raise ValueError(
            f"No list of the model {name!r} has noise. Expected its deviation. Give noise=0.02 "
            "here, or quantal.Values(..., noise=0.02) before training."
        )
    return list(zip(parameters, lists, strict=True))


class _Written:
    """A weight that is written has values, deviations and a scale in NumPy.

    Args:
        parameter: The weight's parameter.
        values: Its list, with the noise.
    """

    def __init__(self, parameter: Parameter, values: Values) -> None:
        codes = whole_array(parameter.codes)
        self._numbers = values.take(codes)
        deviations = np.zeros(values.numbers.shape) if values.noise is None else values.noise
        self._deviations = values.moved(deviations).take(codes)
        scale = parameter.scale
        self._scale = np.float32(1) if scale is None else whole_array(scale)

    def drawn(self, random: np.random.Generator) -> NDArray[np.float32]:
        """Return the weight as it is written once: float32."""
        normal = random.standard_normal(self._numbers.shape, np.float32)
        return np.asarray((self._numbers + self._deviations * normal) * self._scale, np.float32)


def _factors(layer: LearnableMultiplier) -> Replacement:
    plain = _Factors(
        layer.kernel_axes,
        name=layer.name,
        dtype=layer.dtype_policy,
        activity_regularizer=layer.activity_regularizer,
    )
    return Replacement(plain, plain, [parameter.latent for parameter in parameters_of(layer)])


class _Factors(keras.layers.Layer):
    """A layer of factors multiplies as a multiplier does, by an ordinary weight.

    Args:
        axes: The axes of the inputs along which each index has a factor.
        **kwargs: As for any layer.
    """

    def __init__(self, axes: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axes = list(axes)
        self.supports_masking = True

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Create the factors."""
        shape = [input_shape[axis] for axis in self.axes]
        self._shape = [n if axis in self.axes else 1 for axis, n in enumerate(input_shape)]
        self.kernel = self.add_weight(
            name="kernel", shape=shape, initializer="ones", dtype="float32", autocast=False
        )

    def call(self, inputs: Tensor) -> Tensor:
        """Multiply the inputs by the factors."""
        factors = ops.cast(ops.convert_to_tensor(self.kernel), self.compute_dtype)
        return ops.multiply(inputs, ops.reshape(factors, self._shape))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the input's shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "axes": self.axes}
