"""Draw what a model learned, how it trained and what it costs.

matplotlib draws, without a window: pip install "quantal[plots]". Each function returns a
figure; `figure.savefig("picture.png")` writes it.
"""

from quantal.plots.beam import plot_beam as plot_beam
from quantal.plots.choices import plot_choices as plot_choices
from quantal.plots.codes import plot_codes as plot_codes
from quantal.plots.estimator import plot_estimator as plot_estimator
from quantal.plots.latents import plot_latents as plot_latents
from quantal.plots.sizes import plot_sizes as plot_sizes
from quantal.plots.training import plot_training as plot_training
from quantal.plots.values import plot_values as plot_values
