"""Convert a Keras model into an integer model."""

import keras

from quantal._export.graph.reader import read_graph
from quantal._export.integer.convert import converted
from quantal._export.integer.keras_reference import RecordedModel
from quantal._export.integer.model import IntegerModel


def to_integer(model: keras.Model) -> IntegerModel:
    """Convert a model whose weights and activations are on grids into integer arithmetic.

    A grid is a list whose numbers are integers times one step, with a scale or without:
    `"binary"`, `"ternary"`, `"signed:8"`, `"powers_of_two:4"`, `[1, -1, 0.5, -0.5]`. Between
    layers there are integers of int8 (or uint8; sums of a mean are int16), sums are int32, and
    everything between a sum and the next `DiscreteActivation` (biases, normalization, functions
    of single numbers such as relu, PReLU and silu, pooling) becomes part of one rounding:

    | list of the activation | rounded by | agrees with Keras |
    |---|---|---|
    | up to 16 values, any grid; or after functions such as tanh and silu | integer thresholds for each channel | to the bit, where Keras's own sums are exact |
    | longer, every integer of a range | a multiplier and one shift, in int64; a shift alone for powers of two | but for sums that lie on a midpoint within Keras's own rounding |

    `IntegerModel.compare` says how many codes differ, where, and by how many steps.

    The inputs are pixels, integers from 0 to 255, and a Rescaling or Normalization after them is
    part of the first sums; or what a `DiscreteActivation` at the input puts on a list. Outputs are
    int32 with one scale, so that an argmax needs no floats; a softmax or another function at the
    end is left off by `run` and computed by `predict`.

    Args:
        model: A built model with Inputs, of layers that `quantal.export(model, "net.c")` takes.

    Returns:
        The integer model; it needs NumPy alone.

    Raises:
        TypeError: It is no Keras model.
        ValueError: A layer has no integer form: weights or activations on no grid, a sum that may
            not fit an int32, a softmax before an activation. The message names the layer.

    Sources: Jacob et al., "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", CVPR 2018; Umuroglu and Jahre, "Streamlined Deployment for
    Quantized Neural Networks", 2017 (thresholds).

    >>> import keras, numpy as np
    >>> from quantal import Discrete, DiscreteActivation
    >>> hidden = Discrete(keras.layers.Dense(3), "ternary"), DiscreteActivation("unsigned:4")
    >>> end = Discrete(keras.layers.Dense(2), [1, -1, 0.5, -0.5])
    >>> model = keras.Sequential([keras.Input((5,)), keras.layers.Rescaling(1 / 256), *hidden, end])
    >>> pixels = np.random.randint(256, size=(8, 5))
    >>> to_integer(model).compare(pixels).is_exact
    True
    """  # noqa: E501 (a table)
    return IntegerModel(converted(read_graph(model, "integer")), RecordedModel(model))
