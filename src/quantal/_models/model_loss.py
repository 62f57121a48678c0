"""A model's loss as a function of the values of its discrete parameters."""

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from quantal._core.keras_internals import clear_losses, compute_loss, flatten_layers
from quantal._core.parameter import Parameter
from quantal._core.weight_scope import weights_replaced
from quantal.objectives.problem import Floats, Integers, Problem

_MOST_NUMBERS = 2**25
"""Numbers that many candidates in one call may hold: 128 MiB."""
_WIDEST = 256  # Candidates in one call.
_PROBES = 3
_PARTS, _PART, _FEWEST_PARTS = 256, 128, 16  # Of the data: how many, how large.
_FLATTEST = 0.05
_FEW = 32  # Samples on which a model is called once, before anything is compiled.


class Objective:
    """The loss of data, for choices of all elements of some parameters.

    It is the compiled one with what layers add to it, as `evaluate` gives it for the same
    batches, but for penalties on the parameters' latents: those say nothing of the values.

    A choice is told by ranks: the position of each element's value among the list in
    ascending order, (elements,), all parameters one after the other.

    Args:
        model: A compiled model.
        parameters: What is chosen.
        data: Inputs, targets and sample weights: arrays or structures of arrays, samples
            first; None for what there is not.
        batch_size: The most samples at once.
        monitor: From targets and outputs to a number, lower is better; None for the loss.

    Raises:
        ValueError: Something is no array, or they have not as many samples.
    """

    def __init__(
        self,
        model: keras.Model,
        parameters: Sequence[Parameter],
        data: tuple[Any, Any, Any],
        batch_size: int,
        monitor: Callable[[Any, Any], Any] | None = None,
    ) -> None:
        self._model, self._parameters, self._largest = model, parameters, batch_size
        self._lists = [_List(parameter) for parameter in parameters]
        self._sizes = [part.size for part in self._lists]
        self.lengths: Integers = np.repeat([part.length for part in self._lists], self._sizes)
        self._curvature = np.zeros(len(parameters))
        self._profile: Floats = np.ones(len(self.lengths))
        self._compute = _Computed(model, parameters, monitor)
        self._take(data)
        self._compute.prepare(self._taken(slice(0, _FEW)))

    def on(self, data: tuple[Any, Any, Any]) -> "Objective":
        """The same of other data; what is compiled serves both."""
        other = copy.copy(self)
        other._take(data)
        return other

    def _take(self, data: tuple[Any, Any, Any]) -> None:
        self._data = _mapped(_array, data)
        counts = {len(array) for array in _arrays(self._data)}
        if len(counts) != 1 or not min(counts):
            raise ValueError(
                f"x, y and sample_weight have {sorted(counts)} samples. Expected as many in each, "
                "one or more. Give arrays whose first axis is the samples."
            )
        (self.samples,) = counts
        self._batch = min(self._largest, self.samples)
        self.parts = -(-self.samples // self._batch)
        self.width = self._candidates()
        """The most candidates in one call."""
        self.gradients = 0
        """How many gradients were taken, each with a loss."""
        self.measured = 0
        """How many losses were taken alone."""
        self.monitored = 0.0
        """What the monitor says of the choice whose gradient was taken last."""
        self._held: Any = None

    def __len__(self) -> int:
        return len(self.lengths)

    def ranks(self) -> Integers:
        """What the model has now."""
        return self._joined(
            [part.ranks(p.codes) for part, p in zip(self._lists, self._parameters, strict=True)]
        )

    def choose(self, ranks: Integers) -> None:
        """Give the model a choice; elements that have it already keep their latents."""
        now = self.ranks()
        for part, parameter, own, before in zip(
            self._lists, self._parameters, self._split(ranks), self._split(now), strict=True
        ):
            where = (own != before).reshape(parameter.shape)
            if where.any():
                parameter.set_codes(part.codes(own).reshape(parameter.shape), where)
        self._compute.forget()

    def problem(self, ranks: Integers) -> Problem:
        """The same choice as a search of vectors; memory grows with elements times values."""
        rows = [row for part in self._lists for row in part.each()]
        return Problem(rows, None, ranks, None, 0)

    def losses(self, ranks: Integers) -> Floats:
        """The losses (batch,) of choices (batch, elements), on all data."""
        found = np.zeros(len(ranks))
        for begin in range(0, len(ranks), self.width):
            some = ranks[begin : begin + self.width]
            values = self._numbers(some)
            for share, batch in self._batches():
                found[begin : begin + len(some)] += share * self._compute.losses(values, batch)
        return found

    def slopes(
        self, ranks: Integers, part: NDArray[np.int64] | None = None
    ) -> tuple[float, Floats]:
        """The loss of a choice and its gradient to the values, (elements,).

        Args:
            ranks: The choice, (elements,).
            part: The samples that count; None for all.
        """
        self.gradients += 1
        values = self._numbers(ranks)
        loss, slope, self.monitored = 0.0, np.zeros(len(ranks)), 0.0
        for share, batch in self._batches() if part is None else [(1.0, self._taken(part))]:
            own, monitored, gradients = self._compute.slopes(values, batch)
            loss += share * own
            self.monitored += share * monitored
            slope += share * self._joined(gradients)
        return loss, slope

    def measure(self, ranks: Integers) -> float:
        """What the monitor says of a choice, (elements,), on all data."""
        self.measured += 1
        values = self._numbers(ranks)
        return sum(share * self._compute.loss(values, batch)[1] for share, batch in self._batches())

    def part(self, random: np.random.Generator) -> NDArray[np.int64]:
        """Samples of one batch."""
        return np.sort(random.choice(self.samples, self._batch, replace=False))

    def ranked(
        self, ranks: Integers, slope: Floats, barred: NDArray[np.bool_] | bool = False
    ) -> tuple[Integers, Integers, Floats]:
        """Changes to a neighbouring value, by what gradient and curvature promise.

        Args:
            ranks: The choice, (elements,).
            slope: Its gradient.
            barred: Elements that stay.

        Returns:
            The elements, the most promising first; the rank that each would have; and what
            each costs, about; below 0 for a gain.
        """
        moved = np.clip(ranks - np.sign(slope).astype(ranks.dtype), 0, self.lengths - 1)
        costs = np.where((moved == ranks) | barred, np.inf, self.costs(ranks, moved, slope))
        return np.argsort(costs), moved, costs

    def neighbours(self, ranks: Integers, random: np.random.Generator) -> Integers:
        """A neighbouring value of each element, up or down alike often."""
        up = random.random(len(ranks)) < 0.5
        up = np.where(ranks == 0, True, np.where(ranks == self.lengths - 1, False, up))
        return np.clip(ranks + np.where(up, 1, -1), 0, self.lengths - 1)

    def costs(self, ranks: Integers, moved: Integers, slope: Floats) -> Floats:
        """By how much each change alone raises the loss, about."""
        step = self._steps(ranks, moved)
        bent = self._profile * np.repeat(self._curvature, self._sizes)
        return slope * step + bent * step * step / 2

    def survey(
        self, ranks: Integers, random: np.random.Generator, goes_on: Callable[[], bool]
    ) -> None:
        """Learn how the curvature differs from element to element.

        In proportion to the variance of the gradient between small parts of the data: for
        a log-likelihood both are the Fisher information. `probe` finds the factor.

        Args:
            ranks: A choice, (elements,).
            random: Draws the parts.
            goes_on: Whether there is something left to spend.
        """
        size = int(np.clip(self.samples // _PARTS, 1, _PART))
        count = min(_PARTS, self.samples // size)
        if count < _FEWEST_PARTS:
            return
        order = random.permutation(self.samples)
        mean, squares, seen = np.zeros(len(ranks)), np.zeros(len(ranks)), 0
        for place in range(count):
            if not goes_on():
                break
            _, slope = self.slopes(ranks, order[place * size : (place + 1) * size])
            mean += slope
            squares += slope * slope
            seen += 1
        if seen < _FEWEST_PARTS:
            return
        variance = np.maximum(squares / seen - (mean / seen) ** 2, 0)
        for own in self._split(variance):
            # In multiples of the parameter's mean; none is taken for flat.
            own /= max(float(own.mean()), 1e-300)
            own += _FLATTEST
        self._profile = variance

    def probe(
        self,
        ranks: Integers,
        slope: Floats,
        random: np.random.Generator,
        part: NDArray[np.int64] | None = None,
    ) -> None:
        """Learn the curvature from a few random changes."""
        self._curvature[:] = 0
        for _ in range(_PROBES):
            drawn = random.random(len(ranks)) < max(0.02, 1 / len(ranks))
            after = np.where(drawn, self.neighbours(ranks, random), ranks)
            if (after != ranks).any():
                self.bend(ranks, after, slope, self.slopes(after, part)[1])

    def bend(self, before: Integers, after: Integers, slope: Floats, after_slope: Floats) -> None:
        """Learn the curvature along a step from the change of the gradient."""
        step = self._steps(before, after)
        for place, (apart, change, profile) in enumerate(
            zip(
                self._split(step), self._split(after_slope - slope), self._split(self._profile),
                strict=True,
            )
        ):  # fmt: skip
            squares = float(apart @ (profile * apart))
            if squares > 0:
                new = max(0.0, float(apart @ change) / squares)
                old = self._curvature[place]
                self._curvature[place] = new if old == 0 else 0.9 * old + 0.1 * new

    def _steps(self, before: Integers, after: Integers) -> Floats:
        return self._joined(
            [
                part.numbers(b).astype(float).reshape(-1) - part.numbers(a).reshape(-1)
                for part, a, b in zip(
                    self._lists, self._split(before), self._split(after), strict=True
                )
            ]
        )

    def _numbers(self, ranks: Integers) -> list[NDArray[np.float32]]:
        """The values (..., *shape) of each parameter, of choices (..., elements)."""
        return [
            part.numbers(own) for part, own in zip(self._lists, self._split(ranks), strict=True)
        ]

    def _joined(self, arrays: Sequence[Any]) -> Any:
        return np.concatenate([np.asarray(array).reshape(-1) for array in arrays])

    def _split(self, numbers: NDArray[Any]) -> list[NDArray[Any]]:
        return np.split(numbers, np.cumsum(self._sizes)[:-1], axis=-1)

    def _batches(self) -> Iterator[tuple[float, Any]]:
        """All data: each batch and its share."""
        for begin in range(0, self.samples, self._batch):
            end = min(begin + self._batch, self.samples)
            if self.parts > 1:
                batch = self._taken(slice(begin, end))
            else:
                if self._held is None:  # Kept where the backend computes.
                    self._held = self._taken(slice(None))
                batch = self._held
            yield (end - begin) / self.samples, batch

    def _taken(self, where: Any) -> Any:
        return _mapped(lambda a: ops.convert_to_tensor(a[where]), self._data)

    def _candidates(self) -> int:
        """How many candidates a call may have, by the widest that a sample becomes, about."""
        widest = max(int(v.shape[-1]) for v in self._model.variables if len(v.shape))
        for layer in flatten_layers(self._model):
            try:
                shapes = keras.tree.flatten(
                    keras.tree.map_structure(lambda t: t.shape, layer.output)
                )
                widest = max(widest, int(np.prod([s for s in shapes[-8:] if isinstance(s, int)])))
            except (AttributeError, ValueError, TypeError):
                continue
        own = max(int(np.prod(array.shape[1:])) for array in _arrays(self._data))
        each = len(self) + self._batch * max(widest, own)
        return int(np.clip(_MOST_NUMBERS // each, 1, _WIDEST))


def _mapped(function: Callable[[Any], Any], data: Any) -> Any:
    return keras.tree.map_structure(function, data, none_is_leaf=False)


def _arrays(data: Any) -> list[NDArray[Any]]:
    return [array for array in keras.tree.flatten(data) if array is not None]


def _array(given: Any) -> NDArray[Any]:
    if ops.is_tensor(given):
        return np.asarray(ops.convert_to_numpy(given))
    found = np.asarray(given) if hasattr(given, "__array__") else None
    if found is None or not found.ndim or found.dtype == object:
        raise ValueError(
            f"x, y or sample_weight holds a {type(given).__name__}. Expected arrays, samples "
            "first, or structures of them. Collect what a generator or data set gives in arrays; "
            "np.array makes one of a list of numbers."
        )
    return found


class _List:
    """The list of a parameter in ascending order, for each of its elements."""

    def __init__(self, parameter: Parameter) -> None:
        values = parameter.values
        self.size = int(np.prod(parameter.shape))
        self._shape = parameter.shape
        self._ascending = np.atleast_2d(values.ascending)
        self._order = np.atleast_2d(values.order)
        self._back = np.argsort(self._order, axis=1)
        self.length = self._ascending.shape[1]
        self._channel: NDArray[np.int64] | None = None
        if values.channels is not None:
            along = np.moveaxis(np.zeros(parameter.shape, np.int64), values.axis, -1)
            along = along + np.arange(values.channels)
            self._channel = np.moveaxis(along, -1, values.axis).reshape(-1)

    def numbers(self, ranks: Integers) -> NDArray[np.float32]:
        """The values of ranks (..., size), (..., *shape)."""
        return self._of(self._ascending, ranks).reshape(*ranks.shape[:-1], *self._shape)

    def codes(self, ranks: Integers) -> Integers:
        """The codes of ranks (size,)."""
        return self._of(self._order, ranks)

    def ranks(self, codes: Any) -> Integers:
        """The ranks (size,) of codes."""
        own = np.asarray(ops.convert_to_numpy(codes)).reshape(-1)
        return self._of(self._back, own).astype(np.int64)

    def each(self) -> NDArray[np.float32]:
        """The values of each element, (size, length)."""
        channel = np.zeros(self.size, np.int64) if self._channel is None else self._channel
        return self._ascending[channel]

    def _of(self, table: NDArray[Any], places: Integers) -> NDArray[Any]:
        return table[0][places] if self._channel is None else table[self._channel, places]


class _Computed:
    """The loss and its gradient, compiled where the backend does."""

    def __init__(self, model: keras.Model, parameters: Sequence[Parameter], monitor: Any) -> None:
        self._model, self._parameters, self._monitor = model, parameters, monitor
        self._backend = keras.config.backend()
        # Half precision loses small gradients.
        self._factor = 1024.0 if model.compute_dtype == "float16" else 1.0
        self._one, self._with_slopes, self._many = self._compiled()
        self._one_by_one = False

    def slopes(self, values: list[Any], batch: Any) -> tuple[float, float, list[Any]]:
        """The loss of values, what the monitor says, and the loss's gradient to each."""
        (loss, monitored), gradients = self._with_slopes([self._tensor(v) for v in values], *batch)
        return (
            float(ops.convert_to_numpy(loss)) / self._factor,
            float(ops.convert_to_numpy(monitored)),
            [np.asarray(ops.convert_to_numpy(g), np.float64) / self._factor for g in gradients],
        )

    def loss(self, values: list[Any], batch: Any) -> tuple[float, float]:
        """The loss of values, and what the monitor says."""
        loss, monitored = self._one([self._tensor(v) for v in values], *batch)
        return (
            float(ops.convert_to_numpy(loss)) / self._factor,
            float(ops.convert_to_numpy(monitored)),
        )

    def losses(self, values: list[Any], batch: Any) -> Floats:
        """The losses of many values, each stacked along its first axis."""
        count = len(values[0])
        if count > 1 and not self._one_by_one:
            more = (1 << (count - 1).bit_length()) - count
            padded = [np.concatenate([v, np.repeat(v[-1:], more, axis=0)]) for v in values]
            try:
                found = self._many([self._tensor(v) for v in padded], *batch)
                return np.asarray(ops.convert_to_numpy(found), np.float64)[:count] / self._factor
            except Exception:  # A layer that the backend does not vectorize.
                self._one_by_one = True
        return np.array([self.loss([v[i] for v in values], batch)[0] for i in range(count)])

    def prepare(self, batch: Any) -> None:
        """Let Keras make what a loss needs where there are numbers, and not while it traces."""
        if self._backend == "jax":
            x, y, weights = batch
            compute_loss(self._model, x, y, self._model(x, training=False), weights)
            self.forget()

    def forget(self) -> None:
        """Leave no traced tensors in the model: layers keep their last losses."""
        clear_losses(self._model)

    def _tensor(self, array: Any) -> Any:
        return ops.convert_to_tensor(np.asarray(array, np.float32))

    def _loss(self, values: Sequence[Any], x: Any, y: Any, weights: Any) -> Any:
        penalties = [parameter.latent.regularizer for parameter in self._parameters]
        self.forget()
        try:
            for parameter in self._parameters:
                parameter.latent.regularizer = None
            with weights_replaced(dict(zip(self._parameters, values, strict=True))):
                predicted = self._model(x, training=False)
                loss = compute_loss(self._model, x, y, predicted, weights)
        finally:
            for parameter, penalty in zip(self._parameters, penalties, strict=True):
                parameter.latent.regularizer = penalty
        loss = ops.cast(loss, "float32")
        monitored = loss if self._monitor is None else self._monitor(y, predicted)
        return loss * self._factor, ops.stop_gradient(ops.cast(monitored, "float32"))

    def _scoped(self, values: Sequence[Any], *batch: Any) -> Any:
        return self._with([variable.value for variable in self._model.variables], values, *batch)

    def _with(self, held: Sequence[Any], values: Sequence[Any], *batch: Any) -> Any:
        mapping = list(zip(self._model.variables, held, strict=True))
        with keras.StatelessScope(mapping, collect_losses=True):
            return self._loss(values, *batch)

    def _compiled(self) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
        """The loss; with gradients; of many values."""
        if self._backend == "jax":
            return self._in_jax()
        if self._backend == "tensorflow":
            return self._in_tensorflow()
        return self._in_torch()

    def _in_jax(self) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
        import jax

        def loss(values: Any, held: Any, *batch: Any) -> Any:
            return self._with(held, values, *batch)

        one = jax.jit(loss)
        with_slopes = jax.jit(jax.value_and_grad(loss, has_aux=True))
        many = jax.jit(jax.vmap(lambda *all: loss(*all)[0], in_axes=(0, *[None] * 4)))

        def with_held(function: Any) -> Callable[..., Any]:
            def call(values: Any, *batch: Any) -> Any:
                return function(values, [v.value for v in self._model.variables], *batch)

            return call

        return with_held(one), with_held(with_slopes), with_held(many)

    def _in_tensorflow(self) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
        import tensorflow

        @tensorflow.function  # type: ignore[untyped-decorator]
        def with_slopes(values: Any, *batch: Any) -> Any:
            with tensorflow.GradientTape() as tape:
                tape.watch(values)
                loss, monitored = self._scoped(values, *batch)
            zero = tensorflow.UnconnectedGradients.ZERO
            return (loss, monitored), tape.gradient(loss, values, unconnected_gradients=zero)

        @tensorflow.function  # type: ignore[untyped-decorator]
        def many(values: Any, *batch: Any) -> Any:
            return tensorflow.vectorized_map(
                lambda own: self._scoped(own, *batch)[0], values, fallback_to_while_loop=False
            )

        return tensorflow.function(self._scoped), with_slopes, many

    def _in_torch(self) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
        import torch

        def one(values: Any, *batch: Any) -> Any:
            # As with gradients: PyTorch may round otherwise without.
            with torch.enable_grad():
                loss, monitored = self._scoped(values, *batch)
            return loss.detach(), monitored.detach()

        def with_slopes(values: Any, *batch: Any) -> Any:
            points = [value.detach().requires_grad_() for value in values]
            with torch.enable_grad():
                loss, monitored = self._scoped(points, *batch)
                found = torch.autograd.grad(loss, points, allow_unused=True)
            return (loss.detach(), monitored.detach()), [
                torch.zeros_like(p) if g is None else g for p, g in zip(points, found, strict=True)
            ]

        def many(values: Any, *batch: Any) -> Any:
            # Without gradients a discrete layer asks its weight for one, which vmap refuses.
            with torch.enable_grad():
                return torch.func.vmap(lambda *own: self._scoped(own, *batch)[0])(*values).detach()

        return one, with_slopes, many
