"""Layers whose weights come from a list."""

from quantal.layers.discrete import Discrete as Discrete
from quantal.layers.multiplier import LearnableMultiplier as LearnableMultiplier
