"""The examples draw with matplotlib, without a window."""


def figure(width=6.4, height=3.8):
    """Return an empty figure whose labels do not overlap."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=110, layout="constrained")


def write(figure, path):
    """Save a figure; an SVG is small and the same each time."""
    import matplotlib

    style = {"svg.fonttype": "none", "svg.hashsalt": "quantal", "path.simplify": True}
    with matplotlib.rc_context(style):
        metadata = {"Date": None} if str(path).endswith(".svg") else None
        figure.savefig(path, metadata=metadata)
