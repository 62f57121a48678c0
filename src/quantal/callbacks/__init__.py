"""Callbacks watch a run, pace it, end it well, keep its best weights and measure statistics."""

import keras  # noqa: F401  first: see quantal._registration

from quantal.callbacks.finishing import Finish as Finish
from quantal.callbacks.freezing import FreezeOscillating as FreezeOscillating
from quantal.callbacks.keeping import KeepBest as KeepBest
from quantal.callbacks.lists import RefreshLists as RefreshLists
from quantal.callbacks.pacing import PaceToRun as PaceToRun
from quantal.callbacks.statistics import ReestimateStatistics as ReestimateStatistics
from quantal.callbacks.watching import Watch as Watch
