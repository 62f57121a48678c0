"""Errors that end the command, each with its exit code."""


class CommandError(Exception):
    """A command error ends the command with a message for the user and an exit code."""

    code = 1


class MissingPackage(CommandError):
    """A Python package that is needed is not installed."""

    code = 1


class WrongUsage(CommandError):
    """An argument does not exist or makes no sense."""

    code = 2


class Unreadable(CommandError):
    """A file or data set cannot be read: missing, corrupt, of an unknown kind."""

    code = 3


class Unfit(CommandError):
    """Data or a model do not fit: a missing column, text, NaN, one class, other shapes."""

    code = 4


class Unwritable(CommandError):
    """A file or folder cannot be written."""

    code = 5


INTERRUPTED = 130
"""The exit code after an interrupt, as shells have it: 128 and the signal's number."""


def first_line(error: Exception) -> str:
    """Return an error's message, short enough to be a part of another."""
    return (str(error).strip().splitlines() or ["no reason given"])[0].rstrip(".")
