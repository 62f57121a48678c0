"""`quantal.report` writes a page that says what a model is, how good, and how it got there."""

import html
import importlib.resources
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import keras

import quantal
from quantal._core.parameter import Parameter, parameters_of
from quantal._models.summary import summary as summary_of
from quantal._models.walk import check_model
from quantal._optimize.assess.assess import assess
from quantal._report.measures import checked_data, measured
from quantal._report.sections import (
    MOST_ASSESSED,
    SECONDS,
    comparison,
    headline,
    loading,
    paragraph,
    pictures,
    section,
)
from quantal._storage.atomic import replace_file


def report(
    model: keras.Model,
    path: str | os.PathLike[str],
    *,
    history: Any = None,
    data: Any = None,
    compared_with: keras.Model | None = None,
    names: Sequence[str] | None = None,
    title: str | None = None,
) -> pathlib.Path:
    """Write a page about a model: numbers, the summary, pictures, and how to load it.

    The page is one HTML file that needs nothing else: no network, no script. It is readable on
    light and dark screens and on a phone, and its pictures have words for those who do not see
    them.

    Args:
        model: A built model with at least one discrete layer.
        path: The file to write, such as `"report.html"`.
        history: What `fit` returned, its dict, or the path of a file that Keras's `CSVLogger`
            wrote, for a picture of the run.
        data: Inputs and targets, `(x, y)`, that the model was not trained on: for its loss and
            metrics and, for up to 2,000 listed elements, for what single changes of them would
            do, which takes up to 20 seconds. The model is compiled then.
        compared_with: The model before `discretize`, with the same weights: for its metrics, if
            data came, and for what rounding moved.
        names: Names of the positions of the first axis of a weight, such as a table's columns.
        title: The page's heading; None for the model's name.

    Returns:
        The whole path of the file.

    Raises:
        TypeError: `model` is no Keras model, or `data` or `history` something else.
        ValueError: A model is not built, or not compiled where data came, or there is no
            parameter, or `compared_with` has other weights.
        ModuleNotFoundError: matplotlib is not installed.
        OSError: The file cannot be written.

    Example:
    >>> import keras, pathlib, quantal, tempfile
    >>> model = keras.Sequential([keras.Input((3,)), quantal.LearnableMultiplier()])
    >>> path = report(model, pathlib.Path(tempfile.mkdtemp(), "report.html"))
    >>> path.read_text().startswith("<!doctype html>")
    True
    """
    check_model(model)
    parameters = parameters_of(model)
    if not parameters:
        raise ValueError(
            f"The model {model.name!r} has no parameter on a list, so there is nothing to report. "
            "Expected discrete layers in it. Call quantal.discretize first."
        )
    rows = summary_of(model, compared_with=compared_with)
    numbers, parts = {}, []
    if data is not None:
        x, y = checked_data(data)
        numbers = measured(model, (x, y), "The model")
    parts.append(headline(rows, numbers))
    if compared_with is not None:
        floats = {} if data is None else measured(compared_with, (x, y), "compared_with")
        parts.append(comparison(numbers, floats, rows))
    parts.append(section("Weights", rows._repr_html_()))
    parts.append(pictures(parameters, history, names))
    if data is not None:
        parts.append(_single_changes(model, parameters, x, y))
    parts.append(loading(rows))
    heading = model.name if title is None else title
    page = _page(heading, _lead(parameters), "\n".join(parts))
    with replace_file(path) as file:
        file.write(page.encode("utf-8"))
    return pathlib.Path(path).absolute()


def _single_changes(model: keras.Model, parameters: list[Parameter], x: Any, y: Any) -> str:
    """Return what single changes would do, where they are few enough to be tried."""
    elements = sum(int(keras.ops.size(parameter.latent)) for parameter in parameters)
    if elements > MOST_ASSESSED:
        return section(
            "Single changes",
            paragraph(
                f"With {elements:,} listed elements, more than {MOST_ASSESSED:,}, single changes "
                "were not tried here. quantal.assess tries a sample of them."
            ),
        )
    assessment = assess(model, x, y, budget=SECONDS, verbose=0)
    return section("Single changes", assessment._repr_html_())


def _lead(parameters: list[Parameter]) -> str:
    """Return one sentence on what the model is."""
    count = len(parameters)
    listed = f"{count} weight{'s' * (count > 1)} whose values come from a list"
    frozen = sum(parameter.is_frozen for parameter in parameters)
    return f"A Keras model with {listed}" + (f", {frozen} of them frozen." if frozen else ".")


def _page(title: str, lead: str, body: str) -> str:
    folder = importlib.resources.files(__package__)
    parts = {
        "version": html.escape(quantal.__version__),
        "title": html.escape(title),
        "lead": html.escape(lead),
        "style": (folder / "page.css").read_text(encoding="utf-8"),
        "body": body,
    }
    page = (folder / "page.html.in").read_text(encoding="utf-8")
    # In one pass: what a part says is not searched for the names of others.
    return re.sub("@(version|title|lead|style|body)@", lambda match: parts[match[1]], page)
