"""Load a saved model as a network that needs neither Keras nor a framework."""

import os
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from quantal._models.config_limits import check_config
from quantal._storage import container
from quantal.runtime._chain import chain_of
from quantal.runtime._layer_config import LayerError
from quantal.runtime._layers import LayerReader
from quantal.runtime._machine import Machine
from quantal.runtime._stored import StoredWeights
from quantal.runtime._threads import available_cores
from quantal.runtime.network import Network


def load(path: str | os.PathLike[str], *, threads: int | None = None) -> Network:
    """Load a file that `quantal.save` wrote, to run it without Keras and without a framework.

    The model is one chain of layers with the channels last: Dense, convolution and pooling over
    one or two axes, depthwise convolution, normalization, rescaling, LearnableMultiplier,
    activations, DiscreteActivation, Embedding first, Flatten, Reshape, the numbers of `quantal
    train`'s tables; models inside it, too. Others are refused.

    Results are those of `model.predict` but for float32's roundings. With llvmlite (`pip install
    "quantal[runtime]"`) and a processor with AVX2 or AVX-512, weights on lists of up to 256
    values are multiplied while they are packed; elsewhere NumPy decodes them block by block.

    Args:
        path: The file.
        threads: The most threads that multiply large matrices at a time. None: as many as there
            are cores. What BLAS multiplies follows BLAS's own setting.

    Returns:
        The network: call it on samples, or use its `predict`.

    Raises:
        ValueError: The file is another one or was changed; the model is no such chain (the
            message names the layer); or `threads` is not positive.
        OSError: The file cannot be opened.

    >>> import keras, numpy as np, os, quantal, tempfile
    >>> layer = quantal.Discrete(keras.layers.Dense(2, use_bias=False), [-1, 1])
    >>> model = keras.Sequential([keras.Input((3,)), layer])
    >>> layer.set_codes([[0, 1], [1, 1], [1, 0]])
    >>> path = os.path.join(tempfile.mkdtemp(), "model.quantal")
    >>> _ = quantal.save(model, path)
    >>> network = quantal.runtime.load(path)
    >>> network(np.array([[1.0, 2.0, 4.0]])).tolist()
    [[5.0, -1.0]]
    """
    if threads is not None and threads < 1:
        raise ValueError(f"threads is {threads}. Expected at least 1, or None for all cores.")
    arrays, metadata = container.read(path)
    return network_of(path, arrays, metadata, Machine(threads or available_cores()))


def network_of(
    path: str | os.PathLike[str],
    arrays: Mapping[str, NDArray[Any]],
    metadata: Mapping[str, Any],
    machine: Machine,
) -> Network:
    """Return the network of what a file holds.

    Args:
        path: The file, for messages.
        arrays: Its arrays.
        metadata: What it says of them.
        machine: What multiplies.

    Raises:
        ValueError: See `load`.
    """
    weights = StoredWeights(path, arrays, metadata)
    try:
        config = _config(arrays, weights.count)
        chain = chain_of(config)
    except LayerError as error:
        raise _refusal(path, error) from error
    # What a damaged or foreign config lacks raises errors of many kinds.
    except Exception as error:
        raise container.refusal(path, "the architecture", error) from error
    reader = LayerReader(weights, machine, chain.input_shape)
    for layer in chain.layers:
        try:
            reader.read(layer)
        except LayerError as error:
            raise _refusal(path, error, layer.name, layer.kind) from error
        except Exception as error:
            # An error of the weights names the file already.
            if str(error).startswith(f"{os.fspath(path)}: "):
                raise
            raise container.refusal(path, f"the layer {layer.name!r}", error) from error
    weights.check_end()
    return Network(chain.name, reader.steps, chain.input_shape, reader.shape, machine.name)


def _config(arrays: Mapping[str, NDArray[Any]], weights: int) -> Any:
    """Return the config of a file's model, within the limits of what the file explains."""
    size = sum(array.nbytes for array in arrays.values())
    text = container.inflated(arrays["architecture"], container.most_json(size))
    config = container.loaded_json(text, size)
    check_config(config, weights, size)
    return config


def _refusal(
    path: str | os.PathLike[str], error: LayerError, name: str = "", kind: str = ""
) -> ValueError:
    """Return the error for a model that is no chain of known layers."""
    layer = f"the layer {name!r} is of the class {kind}" if name else "the model is"
    return ValueError(
        f"{os.fspath(path)}: {' '.join(filter(None, (layer, str(error))))}. Expected one chain of "
        "layers, with the channels last and a fixed input shape: Dense, convolution and pooling "
        "over one or two axes, BatchNormalization, Normalization, Rescaling, LearnableMultiplier, "
        "activations, DiscreteActivation, Embedding first, Flatten, Reshape, dropout and noise. "
        "Put one of these in its place; or export the model where Keras is, to run it in another "
        "runtime: "
        "quantal.export(quantal.load(path), 'model.onnx')."
    )
