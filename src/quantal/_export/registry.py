"""List the targets by name: a new target is one file, and one line here."""

import os
import pathlib

from quantal._export.arrays import write_csv, write_npz, write_verilog
from quantal._export.c.program import write_c
from quantal._export.c_integer.write import write_c_integer
from quantal._export.litert import write_litert
from quantal._export.litert_int8 import write_litert_int8
from quantal._export.onnx.fast import write_onnx_fast
from quantal._export.onnx.standard import write_onnx
from quantal._export.openvino import write_openvino
from quantal._export.plain import write_keras, write_state_dict
from quantal._export.qonnx.write import write_qonnx
from quantal._export.target import Target
from quantal._export.verilog.write import write_verilog_clocked, write_verilog_module

TARGETS = {
    "npz": Target(".npz", write_npz),
    "csv": Target(".csv", write_csv),
    "verilog": Target(".mem", write_verilog),
    "verilog_module": Target(".v", write_verilog_module, runtime="iverilog"),
    "verilog_clocked": Target(".v", write_verilog_clocked, runtime="iverilog"),
    "c": Target(".c", write_c, 1e-4, "a C99 compiler"),
    "c_integer": Target(".c", write_c_integer, runtime="a C99 compiler"),
    "keras": Target(".keras", write_keras),
    "torch": Target(".pt", write_state_dict),
    "onnx": Target(".onnx", write_onnx, 1e-5, "onnxruntime", "Export to '.xml' or '.tflite'"),
    "onnx_fast": Target(
        ".onnx", write_onnx_fast, 0.1, "onnxruntime", "Export to '.onnx' without target"
    ),
    "qonnx": Target(
        ".onnx", write_qonnx, 0.1, "the package qonnx", "Export to '.onnx' without target", "qonnx"
    ),
    "openvino": Target(".xml", write_openvino, 1e-5, "OpenVINO"),
    "litert": Target(".tflite", write_litert, 0.1, "LiteRT"),
    "litert_int8": Target(
        ".tflite", write_litert_int8, 0.5, "LiteRT", "Export to '.c'", "litert_int8", True
    ),
}
"""The targets; of several with one ending, the first is the one that the ending alone means."""

_WRITTEN_ALONG = {".h": ".c", ".bin": ".xml"}
"""The endings of files that are written beside the one that is named, by their endings."""


def target_name(path: pathlib.Path, name: str | None) -> str:
    """Return the name of the target that a path or an explicit name says.

    Args:
        path: The file that is to be written.
        name: The target's name; None for the one that the path's ending says.

    Raises:
        ValueError: There is no such target or ending, or they do not fit together.
    """
    endings = [target.ending for target in TARGETS.values()]
    if path.suffix in _WRITTEN_ALONG:
        raise ValueError(
            f"The file {os.fspath(path)!r} ends in {path.suffix!r}. Expected "
            f"{_WRITTEN_ALONG[path.suffix]!r}, beside which a file with the ending {path.suffix!r} "
            "is written."
        )
    if name is None:
        if path.suffix not in endings:
            raise ValueError(
                f"The file {os.fspath(path)!r} ends in {path.suffix!r}. Expected one of "
                f"{', '.join(dict.fromkeys(endings))}, which says the target."
            )
        return list(TARGETS)[endings.index(path.suffix)]
    if name not in TARGETS:
        raise ValueError(
            f"target is {name!r}. Expected one of {', '.join(TARGETS)}, or None for the one that "
            "the ending says."
        )
    if path.suffix != TARGETS[name].ending:
        raise ValueError(
            f"The file {os.fspath(path)!r} ends in {path.suffix!r}. Expected "
            f"{TARGETS[name].ending!r} for the target {name!r}."
        )
    return name
