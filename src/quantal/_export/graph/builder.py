"""Build a graph of steps: what the readers of layers get, add to and refuse with."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from quantal._export.graph.steps import Node, Shape, Step
from quantal._export.graph.weights import Weights
from quantal.layers._substitutes import QUANTIZATION, substitutes_of


class Call(NamedTuple):
    """A call of a layer on values of the graph.

    Attributes:
        layer: The layer, without a wrapper that puts its weights on lists.
        sources: The numbers of the values that it reads.
        shapes: The shapes of samples of these, as the layer sees them.
        after: The shape of a sample of the result.
        arguments: The positional arguments of an operation; empty for a layer.
    """

    layer: Any
    sources: tuple[int, ...]
    shapes: tuple[Shape, ...]
    after: Shape
    arguments: tuple[Any, ...] = ()

    @property
    def before(self) -> Shape:
        """The shape of a sample of the first source."""
        return self.shapes[0]

    @property
    def size(self) -> int:
        """The number of outputs."""
        return math.prod(self.after)

    @property
    def name(self) -> str:
        """The layer's name."""
        return str(getattr(self.layer, "name", type(self.layer).__name__))

    def behind(self, value: int) -> "Call":
        """Return a call of the same layer on a value that has the shape of the result."""
        return self._replace(sources=(value,), shapes=(self.after,))


Reader = Callable[["GraphBuilder", Call], int]
"""A reader adds the steps of a call, and returns the number of the value that they end in."""


class GraphBuilder:
    """A builder collects the nodes of a graph in topological order.

    Args:
        inputs: How many inputs the graph has.
        weights: The weights of the model.
        readers: The readers of layers, by the layers' types.
        target: The ending of the target's files, for messages.
    """

    def __init__(
        self, inputs: int, weights: Weights, readers: Mapping[type, Reader], target: str
    ) -> None:
        self.nodes: list[Node] = []
        self.weights = weights
        self._inputs = inputs
        self._readers = readers
        self._target = target

    def add(self, step: Step, call: Call, sources: tuple[int, ...] | None = None) -> int:
        """Add a step, and return the number of its value.

        Args:
            step: The step.
            call: The call that it is of.
            sources: The values that it reads; None for those of the call.
        """
        node = Node(step, call.sources if sources is None else sources, call.after, call.name)
        self.nodes.append(node)
        return self._inputs + len(self.nodes) - 1

    def read(self, call: Call) -> int:
        """Add the steps of a call of a layer, and return the number of the result's value.

        Raises:
            ValueError: The layer is no such step, or is called in a way that is none.
        """
        layer = call.layer
        if type(layer) not in self._readers:
            raise self.refusal(layer)
        if getattr(layer, "data_format", None) == "channels_first":
            raise self.refusal(layer, "with the channels first")
        # LoRA needs no refusal: `kernel` is then the sum of all terms.
        if QUANTIZATION in substitutes_of(layer):
            raise self.refusal(layer, f"with {QUANTIZATION}")
        return self._readers[type(layer)](self, call)

    def refusal(self, layer: Any, why: str = "") -> ValueError:
        """Return the error for a layer that the graph cannot hold."""
        return refusal(self._target, layer, why)


def refusal(target: str, layer: Any, why: str = "") -> ValueError:
    """Return the error for a layer or model that a graph cannot hold.

    Args:
        target: The ending of the target's files.
        layer: The layer or model.
        why: What is wrong with it, as words behind the name of its class; or empty.
    """
    name, kind = getattr(layer, "name", repr(layer)), type(layer).__name__
    return ValueError(
        f"The layer {name!r} is of the class {kind}{f' {why}' if why else ''}. The target "
        f"{target!r} holds graphs of these, with the channels last and a fixed input shape: Dense, "
        "convolution, pooling, padding, cropping and upsampling over one or two axes, SimpleRNN, "
        "LSTM, GRU, Bidirectional, Embedding, normalization, Rescaling, LearnableMultiplier, "
        "DiscreteActivation, activations, Add and the like, Concatenate, Flatten, Reshape, "
        "Permute, RepeatVector, dropout and noise. Put one of these in its place; or export to "
        "'.onnx' or '.xml', which hold more; or export to '.keras', which holds every model."
    )


def nothing(builder: GraphBuilder, call: Call) -> int:
    """Skip a layer that changes no numbers in inference."""
    (source,) = call.sources
    return source
