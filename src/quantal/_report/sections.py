"""The sections of a report, each as HTML."""

import html
from collections.abc import Iterable, Mapping
from typing import Any

from quantal._core.parameter import Parameter
from quantal._core.table import Column, Table
from quantal._core.tensors.distributed import whole_array
from quantal._models.summary import Summary
from quantal._report.pictures import figure_of
from quantal.plots.latents import plot_latents
from quantal.plots.training import plot_training
from quantal.plots.values import plot_values

MOST_DRAWN = 8
"""So many parameters are drawn, the first ones."""

MOST_ASSESSED = 2000
"""In a model of more listed elements no single changes are tried: they would take too long."""

SECONDS = 20.0
"""The time for single changes."""

Numbers = Mapping[str, float]


def section(title: str, *parts: str) -> str:
    """Return a section with a heading."""
    words = title.lower().replace(" ", "-")
    body = "\n".join(parts)
    return (
        f'<section aria-labelledby="{words}">\n<h2 id="{words}">{html.escape(title)}</h2>\n'
        f"{body}\n</section>"
    )


def paragraph(text: str) -> str:
    """Return a paragraph."""
    return f"<p>{html.escape(text)}</p>"


def cards(facts: Iterable[tuple[str, str]]) -> str:
    """Return numbers and what they are, as cards."""
    entries = [
        f"<li><b>{html.escape(number)}</b><span>{html.escape(words)}</span></li>"
        for number, words in facts
    ]
    return f'<ul class="cards">{"".join(entries)}</ul>'


def headline(summary: Summary, numbers: Numbers) -> str:
    """Return the numbers that a reader wants first."""
    weights = sum(_size(row.shape) for row in summary.rows)
    listed = sum(_size(row.shape) for row in summary.rows if row.values is not None)
    facts = [
        (f"{weights:,}", "weights"),
        (f"{100 * listed / max(weights, 1):.3g} %", "of them on a list"),
    ]
    packed, size, floats = summary.bytes, summary.file_bytes, as_bytes(summary.float_bytes)
    if packed is not None:
        facts.append((as_bytes(packed), f"weights packed, {floats} as floats"))
    if size is not None:
        facts.append((as_bytes(size), "the file of quantal.save"))
    facts += [(f"{number:.4g}", f"{name} on the data given") for name, number in numbers.items()]
    return cards(facts)


def comparison(listed: Numbers, floats: Numbers, summary: Summary) -> str:
    """Return what the model and the one it is compared with reach, side by side."""
    names = [name for name in listed if name in floats]
    rows: list[tuple[str, str, str]] = [
        (name, f"{floats[name]:.4g}", f"{listed[name]:.4g}") for name in names
    ]
    if summary.bytes is not None:
        rows.append(("bytes of the weights", f"{summary.float_bytes:,}", f"{summary.bytes:,}"))
    columns = [
        Column("measure", ""),
        Column("compared_with", "compared with", align="right"),
        Column("model", "this model", align="right"),
    ]
    return section("Float against listed", Table(columns, rows).html())


def pictures(parameters: list[Parameter], history: Any, names: Any) -> str:
    """Return the pictures of a model, and of its run where there is a history."""
    count = len(parameters)
    first = "the parameters" if count <= MOST_DRAWN else f"the first {MOST_DRAWN} parameters"
    drawn = [
        figure_of(
            lambda: plot_values(parameters, names=names, most=MOST_DRAWN),
            f"Values of {first}, and how often each value is used. {_usage_words(parameters)}",
            "values-",
        ),
        figure_of(
            lambda: plot_latents(parameters, most=MOST_DRAWN),
            f"Latents of {first} between the values of their lists. A latent near a dotted "
            "boundary flips first.",
            "latents-",
        ),
    ]
    if history is not None:
        drawn.insert(
            0,
            figure_of(lambda: plot_training(history), _training_words(history), "training-"),
        )
    return section("Pictures", *drawn)


def loading(summary: Summary) -> str:
    """Return how the model is saved and loaded, as code; only in ways that it can be saved."""
    title = "How to load it"
    if summary.file_bytes is None:
        weights = (
            'model.save_weights("model.weights.h5")\n\n'
            "model = ...  # made and built by the same code\n"
            'model.load_weights("model.weights.h5")\n'
        )
        reason = "quantal.save refuses this model: the note under its weights says why. Its weights"
        return section(
            title,
            paragraph(f"{reason} can be kept, for the code that makes it:"),
            _code(weights, "save and load weights"),
        )
    code = (
        "import quantal\n\n"
        'quantal.save(model, "model.quantal")     # the small file\n'
        'model = quantal.load("model.quantal")    # predicts the same to the bit\n'
    )
    keras_code = (
        "import keras\nimport quantal  # before loading: Keras then knows its layers\n\n"
        'model = keras.saving.load_model("model.keras")\n'
    )
    return section(
        title,
        paragraph("From a file of quantal.save, which has codes in place of floats:"),
        _code(code, "save and load"),
        paragraph("From a file of model.save, with which training goes on:"),
        _code(keras_code, "load a Keras file"),
    )


def as_bytes(count: int) -> str:
    """Return a number of bytes as people read it.

    >>> as_bytes(999), as_bytes(12_345), as_bytes(4_200_000)
    ('999 B', '12.3 kB', '4.2 MB')
    """
    if count < 1000:
        return f"{count} B"
    if count < 1e6:
        return f"{count / 1e3:.3g} kB"
    return f"{count / 1e6:.3g} MB"


def _code(text: str, words: str) -> str:
    label = html.escape(f"Code: {words}")
    return (
        f'<pre role="region" aria-label="{label}" tabindex="0"><code>{html.escape(text)}'
        "</code></pre>"
    )


def _size(shape: tuple[int, ...]) -> int:
    count = 1
    for length in shape:
        count *= length
    return count


def _usage_words(parameters: list[Parameter]) -> str:
    """Return the most used value of the first parameters in words."""
    words = []
    for parameter in parameters[:3]:
        if parameter.values.channels is not None:
            continue
        counts = parameter.values.usage(whole_array(parameter.codes))
        index = int(counts.argmax())
        value, share = parameter.values.tolist()[index], counts[index] / max(counts.sum(), 1)
        words.append(f"{parameter.path} has {value:g} in {share:.0%} of its elements")
    return f"{'; '.join(words)}." if words else ""


def _training_words(history: Any) -> str:
    from quantal.plots._histories import history_of

    lines = history_of(history)
    if "loss" not in lines:
        return "The run over its epochs."
    numbers = lines["loss"].numbers
    epochs = int(max(line.epochs[-1] for line in lines.values() if len(line.epochs)))
    return (
        f"The run over {epochs} epoch{'s' * (epochs > 1)}: the loss went from "
        f"{numbers[0]:.4g} to {numbers[-1]:.4g}."
    )
