"""Errors that end the command, each with its exit code."""


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
