"""Edit ONNX graphs."""

from collections.abc import Sequence
from typing import Any


def set_entries(graph: Any, field: str, entries: Sequence[Any]) -> None:
    """Set a repeated field of a graph, possibly from entries that it holds now.

    Args:
        graph: An `onnx.GraphProto`.
        field: The field's name, such as `"node"`.
        entries: The new entries in order.
    """
    copies = []
    for entry in entries:
        copies.append(type(entry)())
        copies[-1].CopyFrom(entry)
    del getattr(graph, field)[:]
    getattr(graph, field).extend(copies)
