"""Put figures into a page: as SVG within it, in the page's colours, with a text in their stead."""

import html
import io
import re
from collections.abc import Callable
from typing import Any

INK = "#0a0b0c"
"""The colour that text and axes are drawn in, and that the page then replaces with its own: no
other line has it."""

_REFERENCES = re.compile(r'(\bid="|url\(#|href="#)')


def svg_of(draw: Callable[[], Any], words: str, prefix: str) -> str:
    """Return a figure as an SVG element for a page, light or dark.

    Text and axes have the colour of the text around; all else is as the figure has it.

    Args:
        draw: Returns matplotlib's figure.
        words: What those hear who do not see it.
        prefix: What names of the SVG's parts begin with; another one for each of a page's.
    """
    import matplotlib

    style = {
        "svg.fonttype": "none", "svg.hashsalt": "quantal", "font.family": "sans-serif",
        "text.color": INK, "axes.edgecolor": INK, "axes.labelcolor": INK, "xtick.color": INK,
        "ytick.color": INK, "figure.facecolor": "none", "axes.facecolor": "none",
        "savefig.facecolor": "none", "legend.facecolor": "none", "legend.edgecolor": "none",
    }  # fmt: skip
    file = io.StringIO()
    with matplotlib.rc_context(style):
        draw().savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = _REFERENCES.sub(rf"\g<1>{prefix}", text).replace(INK, "currentColor")
    # Text without a colour of its own is black.
    head = f'<svg role="img" aria-label="{html.escape(words)}" fill="currentColor" '
    return text.replace("<svg ", head, 1)


def figure_of(draw: Callable[[], Any], words: str, prefix: str) -> str:
    """Return a figure of a page: the picture in a frame that scrolls, and the words below it."""
    svg = svg_of(draw, words, prefix)
    label = html.escape(words)
    return (
        f'<figure><div class="picture" role="region" aria-label="Picture: {label}" tabindex="0">'
        f"{svg}</div><figcaption>{label}</figcaption></figure>"
    )
