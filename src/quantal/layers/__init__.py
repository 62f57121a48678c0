"""The layers whose weights come from a list."""

import keras  # noqa: F401  first: see quantal._registration

from quantal.layers.discrete import Discrete as Discrete
from quantal.layers.multiplier import LearnableMultiplier as LearnableMultiplier
