"""The subcommand `quantal summary`."""

from quantal._command.backend import choose_backend, load_model, start_keras
from quantal._command.options import Backend, Json, ModelFile
from quantal._command.output import show


def summary(model: ModelFile, as_json: Json = False, backend: Backend = None) -> None:
    """Show every weight of a model: its list and its bits.

    Example: quantal summary quantal-run/model.keras
    """
    start_keras(choose_backend(backend))
    from quantal._models.summary import summary

    show(summary(load_model(model)), as_json)
