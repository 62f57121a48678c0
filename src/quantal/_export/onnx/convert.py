"""Convert a model to ONNX with float weights, by Keras's own exporter."""

import os
import tempfile
import warnings
from typing import Any

import keras

from quantal._export.folding import folded
from quantal._export.inputs import inputs_of
from quantal._export.onnx.repairs import repair_pooling
from quantal._export.packages import import_onnx
from quantal._models.inputs import zero_inputs


def convert(model: keras.Model) -> Any:
    """Return a model as an `onnx.ModelProto` with plain float weights.

    Keras's exporter writes it from the folded model. On PyTorch a model whose shapes its
    exporter cannot leave open takes one sample a call.

    Args:
        model: A built model.

    Raises:
        ImportError: `onnx` is not installed, or a package that Keras's exporter needs:
            tf2onnx on TensorFlow, jax2onnx on JAX, onnxscript on PyTorch.
        ValueError: As `quantal.bake`.
    """
    onnx = import_onnx()
    plain = folded(model)
    # A model that was never called is refused on JAX.
    plain(zero_inputs(inputs_of(plain)))
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # The tracers warn about themselves.
        warnings.simplefilter("ignore")
        path = os.path.join(folder, "model.onnx")
        try:
            plain.export(path, format="onnx", verbose=False)
        except Exception:
            if keras.config.backend() != "torch":
                raise
            # PyTorch's exporter of open shapes knows less than that of fixed ones.
            plain.export(path, format="onnx", verbose=False, input_signature=_one_sample(plain))
        converted = onnx.load(path)
    repair_pooling(converted.graph)
    return converted


def _one_sample(model: keras.Model) -> list[Any]:
    """Return specifications of inputs for one sample, of fixed shape."""
    specs = [keras.InputSpec(i.dtype, (1, *i.shape[1:]), name=i.name) for i in model.inputs]
    return [specs[0] if len(specs) == 1 else specs]
