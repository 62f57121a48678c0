"""The examples draw with matplotlib, without a window."""

import io
import re


def figure(width=6.4, height=3.8):
    """Return an empty figure whose labels do not overlap."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=110, layout="constrained")


def write(figure, path):
    """Save a figure; an SVG is small and the same each time."""
    import matplotlib

    if not str(path).endswith(".svg"):
        figure.savefig(path)
        return
    style = {
        "svg.fonttype": "none",
        "svg.hashsalt": "quantal",
        "path.simplify_threshold": 0.2,
        "font.sans-serif": ["DejaVu Sans", "sans-serif"],
    }
    file = io.StringIO()
    with matplotlib.rc_context(style):
        figure.savefig(file, format="svg", metadata={"Date": None})
    # A hundredth of a point is less than any screen or printer shows.
    text = re.sub(r"(\d\.\d\d)\d+", r"\1", file.getvalue()).replace(" \nL ", "L")
    with open(path, "w", encoding="utf-8") as written:
        written.write(text)
