"""A flow says which kernels and normalizations the data meets in a forward pass, in order."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from quantal._core.by_identity import ByIdentity
from quantal._core.keras_internals.layers import flatten_layers
from quantal._core.tensors.backend import has_numbers
from quantal._core.types import Tensor
from quantal._models.calibration.products import Call, Layout, product_of
from quantal._models.calibration.watched_pass import called_instead, kernels_in, watched_pass


class Step(NamedTuple):
    """A step of a forward pass uses some kernels with the same inputs, or one normalization.

    Attributes:
        kernels: The variables of the kernels; empty for a normalization.
        normalization: The normalization, or None.
    """

    kernels: list[keras.Variable]
    normalization: keras.layers.BatchNormalization | None


class Flow(NamedTuple):
    """A flow says what a forward pass does in which order.

    Attributes:
        steps: The steps, by their first use.
        uses: How often each kernel is used.
        layouts: How each kernel is arranged in its products.
        normalized: The normalization of `steps` into which the outputs of a kernel go straight.
        unusable: The kernels that are used in another way, too.
        has_loops: Whether a kernel is used within a loop that a backend compiles.
    """

    steps: list[Step]
    uses: ByIdentity[int]
    layouts: ByIdentity[Layout]
    normalized: ByIdentity[keras.layers.BatchNormalization]
    unusable: ByIdentity[None]
    has_loops: bool


def flow_of(model: keras.Model, inputs: Any, kernels: Sequence[keras.Variable]) -> Flow:
    """Return the flow of a model, as a forward pass of some inputs shows it.

    Args:
        model: The model.
        inputs: Its inputs, a batch.
        kernels: The variables to look for.
    """
    flow = _recorded(model, inputs, kernels, has_loops=False)
    return _recorded(model, inputs, kernels, has_loops=True) if flow.has_loops else flow


def _recorded(
    model: keras.Model, inputs: Any, kernels: Sequence[keras.Variable], has_loops: bool
) -> Flow:
    recorder = _Recorder(ByIdentity.of_keys(kernels), has_loops)
    normalizations = [
        layer
        for layer in flatten_layers(model)
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
    ]
    with contextlib.ExitStack() as stack:
        for layer in normalizations:
            stack.enter_context(called_instead(layer, recorder.normalization(layer)))
        watched_pass(model, inputs, recorder.product, has_loops)
    return recorder.flow()


class _Recorder:
    """A recorder notes each use of a kernel and of a normalization in one pass."""

    def __init__(self, kernels: ByIdentity[None], has_loops: bool) -> None:
        self._kernels, self._has_loops = kernels, has_loops
        self._steps: list[tuple[Any, Step]] = []
        self._uses: ByIdentity[int] = ByIdentity()
        self._layouts: ByIdentity[Layout] = ByIdentity()
        self._unusable: ByIdentity[None] = ByIdentity()
        self._seen: ByIdentity[None] = ByIdentity()
        self._origins: ByIdentity[keras.Variable] = ByIdentity()
        self._normalized: ByIdentity[keras.layers.BatchNormalization] = ByIdentity()

    def product(self, call: Call) -> Tensor:
        result = call.function(*call.arguments, **call.options)
        for kernel, position in kernels_in(call, self._kernels):
            self._note(kernel, call, position)
            self._origins[result] = kernel
        return result

    def _note(self, kernel: keras.Variable, call: Call, position: int) -> None:
        data = next((a for a in call.arguments if ops.is_tensor(a) and a is not kernel), None)
        product = None
        if data is not None and not has_numbers(data):
            self._has_loops = True
        elif data is not None:
            product = product_of(call, position, tuple(kernel.shape))
        if product is None or self._layouts.get(kernel, product.layout) != product.layout:
            self._unusable[kernel] = None
            return
        self._layouts[kernel] = product.layout
        self._uses[kernel] = self._uses.get(kernel, 0) + 1
        if self._uses[kernel] > 1:
            return
        last = self._steps[-1] if self._steps else None
        if last is not None and last[0] is data:
            last[1].kernels.append(kernel)
        else:
            self._steps.append((data, Step([kernel], None)))

    def normalization(self, layer: keras.layers.BatchNormalization) -> Callable[..., Tensor]:
        """Return the call of a normalization that is noted."""
        call = layer.call

        def noted(inputs: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            if layer not in self._seen and self._steps:
                self._seen[layer] = None
                self._steps.append((None, Step([], layer)))
            if inputs in self._origins:
                self._normalized[self._origins[inputs]] = layer
            return call(inputs, *args, **kwargs)

        return noted

    def flow(self) -> Flow:
        """Return what was noted, without the kernels of which a use is of another kind."""
        steps = [
            Step([k for k in step.kernels if k not in self._unusable], step.normalization)
            for _, step in self._steps
        ]
        steps = [step for step in steps if step.kernels or step.normalization is not None]
        return Flow(
            steps, self._uses, self._layouts, self._normalized, self._unusable, self._has_loops
        )
