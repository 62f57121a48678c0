"""Read a Keras model into a graph of steps, call by call."""

from typing import Any

import keras
from keras import layers

from quantal._core.by_identity import ByIdentity
from quantal._core.keras_internals.graph import call_of, graph_outputs, inputs_of_graph
from quantal._core.keras_internals.layers import STOCHASTIC_DEPTH
from quantal._export.graph.activations import READERS as _ACTIVATIONS
from quantal._export.graph.arranging import READERS as _ARRANGING
from quantal._export.graph.builder import Call, GraphBuilder, Reader, nothing, refusal
from quantal._export.graph.combining import READERS as _COMBINING
from quantal._export.graph.combining import operate
from quantal._export.graph.folding import folded
from quantal._export.graph.linear import READERS as _LINEAR
from quantal._export.graph.normalizing import READERS as _NORMALIZING
from quantal._export.graph.pooling import READERS as _POOLING
from quantal._export.graph.recurrent import READERS as _RECURRENT
from quantal._export.graph.steps import Graph, Output, Shape
from quantal._export.graph.weights import Weights
from quantal._models.table_features import TableFeatures
from quantal._models.walk import is_container
from quantal.layers.discrete import unwrapped


def read_graph(model: keras.Model, target: str) -> Graph:
    """Return what a model computes in inference as a graph of steps.

    Branches, layers and models that are called several times, models in models, several inputs
    and several outputs are read. Multiplications and additions for each channel (batch
    normalization, rescaling, LearnableMultiplier) are taken into the product before them, if
    there is one and nothing else reads its output; and zeros around an image into the
    convolution behind them.

    Args:
        model: A built Sequential or functional model, with the channels last and no open size in
            the shape of a sample.
        target: The ending of the target's files, for messages.

    Raises:
        TypeError: It is no Keras model or layer.
        ValueError: It is not built, not such a model, or has a layer that is no such step.
    """
    weights = Weights(model)
    inputs, outputs = list(getattr(model, "inputs", None) or ()), graph_outputs(model)
    if not inputs or not outputs:
        known = f"with {len(inputs)} inputs and {len(outputs)} outputs known to Keras"
        raise refusal(target, model, known)
    shapes = [_shape(tensor) for tensor in inputs]
    for shape in shapes:
        if None in shape:
            raise refusal(target, model, f"with the open input shape {shape}")
    reader = _ModelReader(GraphBuilder(len(inputs), weights, READERS, target), target)
    values = reader.read(model, list(range(len(inputs))))
    ends = [Output(value, _shape(tensor)) for value, tensor in zip(values, outputs, strict=True)]
    return folded(Graph(reader.builder.nodes, shapes, ends))


class _ModelReader:
    """A reader walks through the calls of a model, and of the models inside it.

    Args:
        builder: What collects the nodes.
        target: The ending of the target's files, for messages.
    """

    def __init__(self, builder: GraphBuilder, target: str) -> None:
        self.builder = builder
        self._target = target

    def read(self, model: Any, sources: list[int]) -> list[int]:
        """Add the nodes of one call of a model, and return the values of its outputs."""
        if not is_container(model):
            raise refusal(self._target, model, "with a call of its own")
        values: ByIdentity[int] = ByIdentity(
            list(zip(inputs_of_graph(model), sources, strict=True))
        )
        outputs = graph_outputs(model)
        open_tensors = outputs[::-1]
        while open_tensors:
            tensor = open_tensors[-1]
            layer, node = call_of(tensor)
            missing = [t for t in node.input_tensors if t not in values]
            if tensor in values or not missing:
                open_tensors.pop()
            if tensor in values:
                continue
            if missing:
                open_tensors += missing[::-1]
                continue
            results = self._call(layer, node, [values[t] for t in node.input_tensors])
            values.update(zip(node.outputs, results, strict=True))
        return [values[tensor] for tensor in outputs]

    def _call(self, layer: Any, node: Any, sources: list[int]) -> list[int]:
        """Add the nodes of one call, and return the values of its results."""
        if node.arguments.kwargs.get("training"):
            raise refusal(self._target, layer, "called with training=True")
        layer = unwrapped(layer)
        if isinstance(layer, keras.Model):
            return self.read(layer, sources)
        if not sources:
            raise refusal(self._target, layer, "without an input")
        if len(node.outputs) != 1:
            raise refusal(self._target, layer, f"with {len(node.outputs)} outputs")
        shapes = tuple(_shape(tensor) for tensor in node.input_tensors)
        call = Call(layer, tuple(sources), shapes, _shape(node.outputs[0]), node.arguments.args)
        if not isinstance(layer, keras.Layer):
            value = operate(self.builder, call)
            if value is None:
                raise refusal(self._target, layer)
            return [value]
        if len(sources) > 1 and type(layer) not in _COMBINING:
            raise refusal(self._target, layer, f"with {len(sources)} inputs")
        return [self.builder.read(call)]


def table(builder: GraphBuilder, call: Call) -> int:
    """Skip the columns of a table that are numbers without gaps; refuse others."""
    if not call.layer.plan.is_identity:
        raise builder.refusal(call.layer, "for a table with words, dates or gaps")
    return nothing(builder, call)


def _shape(tensor: Any) -> Shape:
    """Return the shape of a sample of a symbolic tensor."""
    return tuple(tensor.shape[1:])


# A layer type that is not listed is refused: a subclass might compute anything.
READERS: dict[type, Reader] = {
    **_LINEAR,
    **_POOLING,
    **_ACTIVATIONS,
    **_ARRANGING,
    **_COMBINING,
    **_NORMALIZING,
    **_RECURRENT,
    TableFeatures: table,
    STOCHASTIC_DEPTH: nothing,
    layers.Flatten: nothing,
    layers.Reshape: nothing,
    layers.Identity: nothing,
    layers.Dropout: nothing,
    layers.SpatialDropout1D: nothing,
    layers.SpatialDropout2D: nothing,
    layers.AlphaDropout: nothing,
    layers.GaussianDropout: nothing,
    layers.GaussianNoise: nothing,
    layers.ActivityRegularization: nothing,
}
"""The readers of layers, by the layers' types."""
