"""Draw what a model learned, how it trained and what it costs.

matplotlib draws, without a window: pip install "quantal[plots]". Each function returns a
figure; `figure.savefig("picture.png")` writes it.
"""

from quantal.plots.choices import plot_choices as plot_choices
from quantal.plots.values import plot_values as plot_values
