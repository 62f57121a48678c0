"""Errors that end the command, each with its exit code."""

import contextlib
import pathlib
from collections.abc import Iterator


class CommandError(Exception):
    """A command error ends the command with a message for the user and an exit code."""

    code: int


class MissingPackage(CommandError):
    """A Python package that is needed is not installed."""

    code = 1


class Unreadable(CommandError):
    """A file or data set cannot be read: missing, corrupt, of an unknown kind."""

    code = 3


class Unfit(CommandError):
    """Data or a model do not fit: a missing column, text, NaN, one class, other shapes."""

    code = 4


class Unwritable(CommandError):
    """A file or folder cannot be written."""

    code = 5


class Interrupted(CommandError):
    """The command was interrupted, by Ctrl-C or SIGTERM."""

    code = 130
    """Shells give this number to what SIGINT ends."""


def check_new(path: pathlib.Path | None, replace: bool) -> None:
    """Check that no file or folder is there that would be replaced.

    Raises:
        Unwritable: There is one, and it is not to be replaced.
    """
    if path is not None and path.exists() and not replace:
        raise Unwritable(
            f"{path} is there already. Expected a new file. Give another name, or --force to "
            "replace it."
        )


@contextlib.contextmanager
def refusals_of(path: str | pathlib.Path = "") -> Iterator[None]:
    """Turn what the public functions raise into errors that end the command.

    Args:
        path: The file that is written meanwhile, for the message.
    """
    try:
        yield
    except ImportError as error:
        raise MissingPackage(str(error)) from error
    except (TypeError, ValueError) as error:
        raise Unfit(str(error)) from error
    except OSError as error:
        raise Unwritable(
            f"{path or error.filename} cannot be written: "
            f"{str(error.strerror or error).rstrip('.')}. Expected a path in a "
            "folder that exists and can be written."
        ) from error
