"""The entry point of the command, which says what to install where a package is missing."""

import sys


def main() -> int:
    """Run the command `quantal` and return its exit code."""
    try:
        from quantal._command.command import main as run
    except ModuleNotFoundError as error:
        if error.name != "typer":
            raise
        print(
            "quantal: Not installed: typer. The command is built on it. Install it: pip install "
            '"quantal[command]"',
            file=sys.stderr,
        )
        return 1
    return run()


if __name__ == "__main__":
    sys.exit(main())
