"""Define a target: how a model is written for one tool, and how near it must come to Keras."""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

from numpy.typing import NDArray

from quantal._export.report import Report

Paths = list[pathlib.Path]


class Samples(NamedTuple):
    """Samples of a model.

    Attributes:
        inputs: An array for each input, samples first.
        outputs: What Keras computes from them: an array for each output.
    """

    inputs: list[NDArray[Any]]
    outputs: list[NDArray[Any]]


class Written(NamedTuple):
    """The files that a target wrote for a model.

    Attributes:
        paths: The files; the one that is opened first stands first.
        write_floats: Writes the same conversion of the model with float weights to a
            path, to compare with, and returns the files; None where there is none.
        write_safely: Writes the same conversion to a path in a form that asks less of the
            runtime, for where the first form does not run rightly; None where there is none.
        verify: Checks the files against a reference of the target's own, on the user's inputs
            (None for drawn ones), and returns the completed report; None where outputs are
            compared with Keras's.
        finish: Completes the report of files that were compared with Keras, and may write more of
            them; it gets the user's samples, or None where they were drawn.
    """

    paths: Paths
    write_floats: Callable[[pathlib.Path], Paths] | None = None
    write_safely: Callable[[pathlib.Path], Paths] | None = None
    verify: Callable[[Report, Any], Report] | None = None
    finish: Callable[[Report, Samples | None], Report] | None = None


class Target(NamedTuple):
    """A target writes a model for one tool.

    Attributes:
        ending: The ending of the file that is opened first.
        write: Writes a model to a path in an empty folder, under the path's name, and
            possibly other files with its stem. `export` moves the files into place.
        bound: The largest difference of an output from Keras's that it may have, in
            units of the root mean square of the outputs; None where no runtime is known.
        runtime: The name of the program that runs its files.
        instead: What to do where the target cannot hold a model: a sentence without its end.
        loader: The name of its loader in `runtimes.RUNTIMES`, where its ending alone means another
            target's; or empty.
        takes_samples: Whether the writer takes samples, too, as a third argument.
    """

    ending: str
    write: Callable[..., Written]
    bound: float | None = None
    runtime: str = ""
    instead: str = "Export to '.onnx'"
    loader: str = ""
    takes_samples: bool = False
