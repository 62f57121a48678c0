"""Callbacks pace a run, keep its best weights, freeze elements and measure statistics again."""

import keras  # noqa: F401  first: see quantal._registration

from quantal.callbacks.freezing import FreezeOscillating as FreezeOscillating
from quantal.callbacks.keeping import KeepBest as KeepBest
from quantal.callbacks.lists import RefreshLists as RefreshLists
from quantal.callbacks.pacing import PaceToRun as PaceToRun
from quantal.callbacks.statistics import ReestimateStatistics as ReestimateStatistics
