"""Write ONNX from standard operators: discrete weights as packed digits, equal to the bit."""

import pathlib
from typing import Any

import keras

from quantal._export.lists import lists_of
from quantal._export.onnx.convert import convert
from quantal._export.onnx.shrink import shrink
from quantal._export.target import Paths, Written


def write_onnx(model: keras.Model, path: pathlib.Path) -> Written:
    """Write an ONNX file whose discrete weights take as few bits as their lists allow.

    Keras's own exporter writes the plain model, which is then rewritten: every tensor that
    holds few different numbers, or few times a scale, becomes packed base-K digits,
    which standard operators (Cast, Gather, Reshape, Mul) turn into the same floats, bit
    for bit. Runtimes do that once, when they load the file: speed and memory are those
    of the floats, the file is 32, 20, 16 or 8 times smaller for 2, 3, 4 or 16 values.

    Args:
        model: A built model.
        path: The file.

    Raises:
        ImportError: As `convert`.
        ValueError: As `quantal.bake`.
    """
    floats = convert(model)
    return written(shrink(floats, lists_of(model)), floats, path)


def written(graph: Any, floats: Any, path: pathlib.Path) -> Written:
    """Write an `onnx.ModelProto`; the one with floats is written when it is asked for."""
    return Written(_write(graph, path), lambda other_path: _write(floats, other_path))


def _write(graph: Any, path: pathlib.Path) -> Paths:
    path.write_bytes(graph.SerializeToString(deterministic=True))
    return [path]
