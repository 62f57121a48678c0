"""Models for other tools: one file a target."""

import os
import pathlib
from collections.abc import Callable

import keras

from quantal.targets.arrays import write_csv, write_npz, write_verilog
from quantal.targets.plain import write_keras, write_state_dict

TARGETS: dict[str, Callable[..., list[pathlib.Path]]] = {
    ".npz": write_npz,
    ".csv": write_csv,
    ".mem": write_verilog,
    ".keras": write_keras,
    ".pt": write_state_dict,
}
"""What writes each target, by the ending of its files."""


def export(model: keras.Model, path: str | os.PathLike[str]) -> list[pathlib.Path]:
    """Write a model for another tool; the ending of the file says which.

    | ending | what is written |
    |---|---|
    | `.npz` | NumPy: codes, list and scale of every parameter |
    | `.csv` | one vector: index, code, value |
    | `.mem` | Verilog: codes for `$readmemh`, a file for each parameter |
    | `.keras` | a plain Keras model without quantal's layers (`quantal.bake`) |
    | `.pt` | a PyTorch state_dict of that model, on the PyTorch backend |

    Files are written beside their place and moved there when they are whole.

    Args:
        model: A built Keras model.
        path: The file; its folder exists.

    Returns:
        The files written.

    Raises:
        ValueError: The ending is none of these, or the target cannot hold the model:
            the message names the nearest that can.

    >>> import keras, quantal, tempfile, pathlib
    >>> model = keras.Sequential([keras.Input((3,)), quantal.LearnableMultiplier()])
    >>> [path] = export(model, pathlib.Path(tempfile.mkdtemp()) / "signs.csv")
    >>> path.read_text().splitlines()[0]
    'index,code,value'
    """
    ending = pathlib.Path(path).suffix
    if ending not in TARGETS:
        raise ValueError(
            f"The file {os.fspath(path)!r} ends in {ending!r}. Expected one of "
            f"{', '.join(TARGETS)}, which says the target. Give the file one of these endings."
        )
    return TARGETS[ending](model, path)
