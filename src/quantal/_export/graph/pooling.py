"""Read pooling over windows and over all positions."""

import keras
from keras import layers

from quantal._export.graph.builder import Call, GraphBuilder, Reader
from quantal._export.graph.geometry import counts_padding, window_of
from quantal._export.graph.steps import Pool


def pool(builder: GraphBuilder, call: Call) -> int:
    """Read pooling over windows."""
    layer, channels = call.layer, call.before[-1]
    window = window_of(call.before, channels, layer.pool_size, layer.strides, padding=layer.padding)
    largest = isinstance(layer, _MAXIMUM_POOLING)
    if not largest and keras.config.backend() == "torch" and counts_padding(window):
        raise builder.refusal(layer, "whose padding Keras on PyTorch counts into the means")
    return builder.add(Pool(window, largest), call)


def pool_all(builder: GraphBuilder, call: Call) -> int:
    """Read pooling over all positions."""
    positions = call.before[:-1]
    window = window_of(call.before, call.before[-1], positions)
    return builder.add(Pool(window, isinstance(call.layer, _MAXIMUM_POOLING)), call)


_MAXIMUM_POOLING = (
    layers.MaxPooling1D, layers.MaxPooling2D, layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D,
)  # fmt: skip
READERS: dict[type, Reader] = {
    layers.MaxPooling1D: pool,
    layers.MaxPooling2D: pool,
    layers.AveragePooling1D: pool,
    layers.AveragePooling2D: pool,
    layers.GlobalMaxPooling1D: pool_all,
    layers.GlobalMaxPooling2D: pool_all,
    layers.GlobalAveragePooling1D: pool_all,
    layers.GlobalAveragePooling2D: pool_all,
}
"""The readers of pooling."""
