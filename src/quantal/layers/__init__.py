"""The layers whose weights or outputs come from a list."""

import keras  # noqa: F401  first: see quantal._registration

from quantal.layers.activation import DiscreteActivation as DiscreteActivation
from quantal.layers.discrete import Discrete as Discrete
from quantal.layers.multiplier import LearnableMultiplier as LearnableMultiplier
