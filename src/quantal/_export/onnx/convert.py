"""Convert a model to ONNX with float weights, by Keras's own exporter."""

import contextlib
import io
import os
import tempfile
import warnings
from typing import Any

import keras
from keras import ops

from quantal._core.keras_internals.layers import flatten_layers
from quantal._core.tensors.distributed import whole_array
from quantal._export.conversion import refused_by_name
from quantal._export.folding import folded
from quantal._export.inputs import inputs_of
from quantal._export.onnx.repairs import repair
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
        ValueError: Keras's exporter cannot convert the model, or writes operators that are
            none of ONNX's; or as `quantal.bake`.
    """
    onnx = import_onnx()
    plain = folded(model)
    _hold_arrays(plain)
    with tempfile.TemporaryDirectory() as folder, refused_by_name(model, "ONNX", _elsewhere()):
        path = os.path.join(folder, "model.onnx")
        # A model that was never called is refused on JAX.
        plain(zero_inputs(inputs_of(plain)))
        _export(plain, path)
        converted = onnx.load(path)
    repair(converted.graph)
    _check_operators(model, converted)
    return converted


def _export(plain: keras.Model, path: str) -> None:
    """Let Keras write an ONNX file, its shapes left open where the exporter can."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        # The tracers warn about themselves, and PyTorch's prints graphs that it cannot convert.
        warnings.simplefilter("ignore")
        try:
            plain.export(path, format="onnx", verbose=False)
        except Exception:
            if keras.config.backend() != "torch":
                raise
            # PyTorch's exporter of open shapes knows less than that of fixed ones.
            plain.export(path, format="onnx", verbose=False, input_signature=_one_sample(plain))


def _hold_arrays(model: keras.Model) -> None:
    """Exchange the tensors that layers hold besides their variables for arrays.

    TensorFlow's exporter would write each of them as one more input of the file.

    Args:
        model: A model that nothing else uses.
    """
    for layer in flatten_layers(model):
        for name, value in list(vars(layer).items()):
            is_tensor = ops.is_tensor(value) and not isinstance(value, keras.Variable)
            if is_tensor and keras.config.backend() == "tensorflow":
                setattr(layer, name, whole_array(value))


def _elsewhere() -> str:
    """Return what to do where this backend's exporter cannot convert a model."""
    others = {"tensorflow": "torch or jax", "jax": "tensorflow or torch"}
    others_of_torch = "tensorflow or jax"
    return (
        "Save it with quantal.save, load it with KERAS_BACKEND="
        f"{others.get(keras.config.backend(), others_of_torch)} and export there, where another "
        "exporter writes it"
    )


def _check_operators(model: keras.Model, converted: Any) -> None:
    """Refuse operators that are in no version of ONNX."""
    has = import_onnx().defs.has
    for node in converted.graph.node:
        if node.domain in ("", "ai.onnx") and not has(node.op_type):
            raise ValueError(
                f"Keras's exporter to ONNX writes the operator {node.op_type!r}, which is none of "
                f"ONNX's, for {node.name!r} of the model {model.name!r}. Expected layers that it "
                "knows; on TensorFlow, convolutions in groups are none. "
                f"{_elsewhere()}."
            )


def _one_sample(model: keras.Model) -> list[Any]:
    """Return specifications of inputs for one sample, of fixed shape."""
    specs = [keras.InputSpec(i.dtype, (1, *i.shape[1:]), name=i.name) for i in model.inputs]
    return [specs[0] if len(specs) == 1 else specs]
