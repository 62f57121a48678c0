"""Refuse what Keras's exporters cannot convert, in words that say what to do."""

import contextlib
from collections.abc import Iterator

import keras

_MOST_CHARACTERS = 300
"""The first words of an exporter's error say what it cannot do; graphs and tracebacks follow."""


@contextlib.contextmanager
def refused_by_name(model: keras.Model, form: str, instead: str) -> Iterator[None]:
    """Turn the errors of an exporter into one that names the model and the way out.

    Args:
        model: The model that is converted.
        form: What it is converted to.
        instead: What to do instead: a sentence without its end.

    Raises:
        ValueError: The block raised an error, which is its cause.
        ImportError: A package is not installed.
        OSError: A file cannot be written, as on a full disk.
    """
    try:
        yield
    except (ImportError, MemoryError):
        raise
    except Exception as error:
        # Others than the system's have no number, such as those of a missing source of code.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        why = " ".join(str(error).split())[:_MOST_CHARACTERS] or type(error).__name__
        lengths = [tuple(tensor.shape) for tensor in model.inputs if None in tensor.shape[1:]]
        fix = f"Fix the open lengths {lengths} in keras.Input. " if lengths else ""
        raise ValueError(
            f"The model {model.name!r} cannot be converted to {form} on the backend "
            f"{keras.config.backend()!r}: {why}. Expected layers that Keras's exporter knows. "
            f"{fix}{instead}."
        ) from error
