"""matplotlib's names that pictures are drawn with, or an error that says what to install."""

try:
    import matplotlib as matplotlib
    from matplotlib.cm import ScalarMappable as ScalarMappable
    from matplotlib.colors import BoundaryNorm as BoundaryNorm
    from matplotlib.colors import LinearSegmentedColormap as LinearSegmentedColormap
    from matplotlib.colors import ListedColormap as ListedColormap
    from matplotlib.figure import Figure as Figure
    from matplotlib.ticker import EngFormatter as EngFormatter
    from matplotlib.ticker import LogLocator as LogLocator
    from matplotlib.ticker import NullFormatter as NullFormatter
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"{error.name} is not installed. quantal.plots draws with matplotlib. Install it: "
        'pip install "quantal[plots]"',
        name=error.name,
    ) from error
