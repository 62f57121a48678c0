"""The command `quantal`: each subcommand is one function over a public one, in a file of its own.

Only a subcommand that runs loads a framework; `--help` and `--version` do not.
"""

import sys
from collections.abc import Sequence
from typing import Annotated

try:
    import typer
except ModuleNotFoundError:
    sys.exit('quantal: typer is not installed. Install it: pip install "quantal[command]"')

import quantal
from quantal._command.discretize import DISCRETIZE_HELP, discretize
from quantal._command.errors import CommandError, Interrupted
from quantal._command.export import export
from quantal._command.polish import POLISH_HELP, polish
from quantal._command.predict import PREDICT_HELP, predict
from quantal._command.report import REPORT_HELP, report
from quantal._command.search import SEARCH_HELP, search
from quantal._command.summary import summary
from quantal._command.sweep import SWEEP_HELP, sweep
from quantal._command.train import TRAIN_HELP, train
from quantal._optimize.interruption import termination_as_interrupt

app = typer.Typer(
    help="Learnable parameters whose values come from a list that you give.",
    epilog='Example: quantal train digits --values="1,-1,0.5,-0.5"',
    no_args_is_help=True,
    # Rich would draw boxes around the help, and be imported for it.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        arguments: The arguments after the command's name; None for those of the process.
    """
    try:
        with termination_as_interrupt():
            app(arguments, prog_name="quantal")
    except SystemExit as end:
        code = int(end.code or 0)
        if code == Interrupted.code:  # typer makes this of a KeyboardInterrupt, without a word.
            typer.echo("quantal: interrupted.", err=True)
        return code
    except CommandError as error:
        typer.echo(f"quantal: {error}", err=True)
        return error.code
    return 0


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"quantal {quantal.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Take the options before a subcommand."""


app.command(help=TRAIN_HELP)(train)
app.command(help=PREDICT_HELP)(predict)
app.command()(summary)
app.command(help=DISCRETIZE_HELP)(discretize)
app.command(help=POLISH_HELP)(polish)
app.command()(export)
app.command(help=REPORT_HELP)(report)
app.command(help=SWEEP_HELP)(sweep)
app.command(help=SEARCH_HELP)(search)

if __name__ == "__main__":
    sys.exit(main())
