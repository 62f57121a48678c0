"""A model's loss on one batch is compiled: alone, with its gradient, and many at once."""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from quantal._core.by_identity import ByIdentity
from quantal._core.keras_internals.compiled import clear_losses, compute_loss
from quantal._core.keras_internals.layers import flatten_layers
from quantal._core.parameter import Parameter, parameters_of
from quantal._core.tensors import backend
from quantal._core.tensors.distributed import whole_array
from quantal._core.types import Tensor
from quantal._core.weight_scope import weights_replaced
from quantal._models.named_metric import NamedMetric
from quantal.objectives.problem import Floats

Monitor = Callable[[Tensor, Tensor], Tensor]
"""A monitor takes targets and outputs to a number that is lower where the model is better."""

_FLOAT16_FACTOR = 1024.0
"""The loss of a float16 model is multiplied by this while its gradient is taken: half precision
turns numbers below 6e-8 into 0. A power of two, so that dividing by it rounds nothing."""


class BatchLoss(NamedTuple):
    """A loss of a batch comes with the monitored number and the gradient to each parameter."""

    loss: float
    monitored: float
    gradients: list[Floats]


class CompiledLoss:
    """A compiled loss computes a model's loss where tensors stand for its listed values.

    It is what `evaluate` gives for the same batch: the compiled loss with what layers add to it,
    in inference. Only penalties on the parameters' latents are left out, which say nothing of the
    values.

    Args:
        model: A built and compiled model.
        parameters: The parameters whose values are given to each call.
        monitor: Computes the monitored number; or the name of a compiled metric; None for the
            loss.
        trained: Variables of the model to which `variable_gradients` differentiates.
    """

    def __init__(
        self,
        model: keras.Model,
        parameters: Sequence[Parameter],
        monitor: Monitor | str | None = None,
        trained: Sequence[keras.Variable] = (),
    ) -> None:
        self.model, self.parameters, self.trained = model, list(parameters), list(trained)
        positions = ByIdentity[int]((v, i) for i, v in enumerate(model.variables))
        self._trained_positions = [positions[variable] for variable in trained]
        self._metric = NamedMetric(model, monitor) if isinstance(monitor, str) else None
        self._monitor = None if isinstance(monitor, str) else monitor
        self._penalties = [parameter.latent.regularizer for parameter in parameters]
        self._other_parameters = [
            parameter
            for parameter in parameters_of(model)
            if all(parameter is not replaced for replaced in self.parameters)
        ]
        self._factor = _FLOAT16_FACTOR if model.compute_dtype == "float16" else 1.0
        self._plain = backend.graph(backend.with_gradients_enabled(self._compute))
        self._differentiated = backend.graph(backend.value_and_grad(self._compute, has_aux=True))
        self._variables_differentiated = backend.graph(
            backend.value_and_grad(self._compute_trained)
        )
        self._vectorized = backend.graph(backend.vectorize(self._compute_loss))
        self.vectorizes = True
        """Whether many assignments are computed at once, as far as is known."""
        self._prepared = False

    def prepare(self, batch: tuple[Tensor, Tensor, Tensor], batches: int) -> None:
        """Call the model on a few samples once, before anything is traced.

        Keras makes variables of metrics and of compiled losses at the first call. On JAX they
        would hold traced tensors if that call was within a compiled function.

        Args:
            batch: Inputs, targets and sample weights of some samples.
            batches: The number of batches of all data.
        """
        x, y, weights = batch
        if self._metric is not None:
            self._metric.build(y, self.model(x, training=False), weights, batches)
        elif self._monitor is not None:
            # An error is readable here; within a compiled function it is not.
            self._monitored(y, y, self.model(x, training=False), weights)
        self.forget_traces()
        if y is None:
            self._check_without_targets(x, weights)
        elif backend.name() == "jax" and not self._prepared:
            compute_loss(self.model, x, y, self.model(x, training=False), weights)
            self.forget_traces()
        self._prepared = True

    def _check_without_targets(self, x: Any, weights: Any) -> None:
        """Compute the loss once without targets, and say so where it needs them."""
        try:
            compute_loss(self.model, x, None, self.model(x, training=False), weights)
        # Each backend has an error of its own for a None.
        except Exception as error:
            raise ValueError(
                f"y is None, and the loss of the model {self.model.name!r} cannot be computed "
                "without targets. Expected those that belong to x. Give y, as in fit."
            ) from error
        self.forget_traces()

    def loss(self, values: list[NDArray[Any]], batch: Any) -> tuple[float, float]:
        """Return the loss of values and the monitored number, without a gradient.

        Args:
            values: The listed values of each parameter, in its shape.
            batch: Inputs, targets and sample weights as tensors.
        """
        loss, monitored = self._plain(*self._arguments(values, batch))
        return _number(loss) / self._factor, _number(monitored)

    def loss_and_gradients(self, values: list[NDArray[Any]], batch: Any) -> BatchLoss:
        """Return the loss of values, the monitored number, and the gradient to the values."""
        (loss, monitored), gradients = self._differentiated(*self._arguments(values, batch))
        arrays = [np.asarray(whole_array(g), np.float64) for g in gradients]
        return BatchLoss(
            _number(loss) / self._factor,
            _number(monitored),
            [array / self._factor for array in arrays],
        )

    def variable_gradients(self, values: list[NDArray[Any]], batch: Any) -> list[Floats]:
        """Return the gradients of the loss of values to the variables in `trained`."""
        points, variables, *data = self._arguments(values, batch)
        trained = [variables[position] for position in self._trained_positions]
        _, gradients = self._variables_differentiated(trained, points, variables, *data)
        arrays = [np.asarray(whole_array(g), np.float64) for g in gradients]
        return [array / self._factor for array in arrays]

    def losses(self, values: list[NDArray[Any]], batch: Any) -> Floats:
        """Return the losses (count,) of many assignments at once.

        Args:
            values: The listed values of each parameter, (count, *shape).
            batch: Inputs, targets and sample weights as tensors.
        """
        count = len(values[0])
        if count > 1 and self.vectorizes:
            try:
                return self._losses_at_once(values, batch)
            except backend.CannotVectorize as error:
                self.vectorizes = False
                warnings.warn(
                    f"{backend.name()} has no vectorized form of an operation in the model "
                    f"{self.model.name!r}. Its losses are computed one by one, which is slower: "
                    f"{error}",
                    stacklevel=2,
                )
        return np.array([self.loss([v[i] for v in values], batch)[0] for i in range(count)])

    def stop_vectorizing(self) -> None:
        """Compute losses one by one from now on."""
        self.vectorizes = False

    def _losses_at_once(self, values: list[NDArray[Any]], batch: Any) -> Floats:
        count = len(values[0])
        # Backends compile anew for each count, so that there are only powers of two.
        padding = (1 << (count - 1).bit_length()) - count
        padded = [np.concatenate([v, np.repeat(v[-1:], padding, axis=0)]) for v in values]
        losses = self._vectorized(*self._arguments(padded, batch))
        return np.asarray(whole_array(losses), np.float64)[:count] / self._factor

    def release(self) -> None:
        """Leave the model as it was, after an error or an interrupt at any moment, too."""
        self.forget_traces()
        for parameter, penalty in zip(self.parameters, self._penalties, strict=True):
            parameter.latent.regularizer = penalty

    def forget_traces(self) -> None:
        """Remove traced tensors from the model, whose layers keep their last losses."""
        clear_losses(self.model)

    def widest_activation(self) -> int:
        """Return the approximate number of activations of a sample in the widest layer."""
        widest = max(int(v.shape[-1]) for v in self.model.variables if len(v.shape))
        for layer in flatten_layers(self.model):
            try:
                outputs = keras.tree.flatten(layer.output)
            except (AttributeError, ValueError):  # A layer that was not called on an Input.
                continue
            for output in outputs:
                lengths = [n for n in getattr(output, "shape", ())[1:] if n is not None]
                widest = max(widest, int(np.prod(lengths)))
        return widest

    def _arguments(self, values: list[NDArray[Any]], batch: Any) -> tuple[Any, ...]:
        points = [ops.convert_to_tensor(np.asarray(v, np.float32)) for v in values]
        # Other variables are arguments, too: a compiler would make constants of them.
        return points, [variable.value for variable in self.model.variables], *batch

    def _compute(
        self,
        values: Sequence[Tensor],
        variables: Sequence[Tensor],
        x: Any,
        y: Any,
        weights: Any,
        *,
        monitors: bool = True,
        trains: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Return the loss, times the factor for float16, and the monitored number.

        Without `monitors`, that is the loss: what is monitored need not be vectorizable. Where it
        `trains`, there is a gradient to learned lists and scales.
        """
        mapping = list(zip(self.model.variables, variables, strict=True))
        self.forget_traces()
        with (
            keras.StatelessScope(mapping, collect_losses=True),
            _without_penalties(self.parameters),
            weights_replaced(self._replacements(values, trains)),
        ):
            outputs = self.model(x, training=False)
            loss = ops.cast(compute_loss(self.model, x, y, outputs, weights), "float32")
            monitored = loss if not monitors else self._monitored(loss, y, outputs, weights)
            monitored = ops.stop_gradient(ops.cast(monitored, "float32"))
        return loss * self._factor, monitored

    def _compute_trained(
        self, trained: Sequence[Tensor], values: Any, variables: Sequence[Tensor], *data: Any
    ) -> Tensor:
        """Return the loss, times the factor for float16, of other numbers of some variables."""
        variables = list(variables)
        for position, tensor in zip(self._trained_positions, trained, strict=True):
            variables[position] = tensor
        return self._compute(values, variables, *data, monitors=False, trains=True)[0]

    def _compute_loss(self, *arguments: Any) -> Tensor:
        """Return the loss, times the factor for float16."""
        return self._compute(*arguments, monitors=False)[0]

    def _monitored(self, loss: Tensor, y: Any, outputs: Any, weights: Any) -> Tensor:
        """Return the number that is monitored for a batch."""
        if self._metric is not None:
            return self._metric(y, outputs, weights)
        if self._monitor is None:
            return loss
        number = ops.convert_to_tensor(self._monitor(y, outputs))
        dtype = keras.backend.standardize_dtype(number.dtype)
        if len(number.shape) or dtype.startswith("complex"):
            raise ValueError(
                f"monitor gave {dtype} of the shape {tuple(number.shape)}. Expected one real "
                "number for all samples. Take keras.ops.mean of it."
            )
        return number

    def _replacements(self, values: Sequence[Tensor], trains: bool) -> dict[object, Tensor]:
        """Return what every discrete parameter of the model computes with.

        The parameters that are not given keep their listed values, but without an estimator:
        PyTorch does not vectorize the gradient that it would define.
        """
        pairs = zip(self.parameters, values, strict=True)
        replacements: dict[object, Tensor] = {
            parameter: parameter.with_gradients(tensor) if trains else tensor
            for parameter, tensor in pairs
        }
        replacements.update((other, other.listed_values) for other in self._other_parameters)
        return replacements


@contextlib.contextmanager
def _without_penalties(parameters: Sequence[Parameter]) -> Iterator[None]:
    """Take the regularizers of parameters' latents away within a scope.

    Keras adds the penalties of all trainable variables to a loss itself, and asks only their
    attribute `regularizer`. Subtracting the penalties afterwards would round the loss otherwise.
    """
    latents = [parameter.latent for parameter in parameters]
    penalties = [latent.regularizer for latent in latents]
    try:
        for latent in latents:
            latent.regularizer = None
        yield
    finally:
        for latent, penalty in zip(latents, penalties, strict=True):
            latent.regularizer = penalty


def _number(tensor: Tensor) -> float:
    return float(whole_array(tensor))
