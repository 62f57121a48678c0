"""Objectives are what `quantal.search` minimizes: losses of one vector, and their structure."""

from quantal.objectives.autocorrelation import Autocorrelation as Autocorrelation
from quantal.objectives.magnitude import Magnitude as Magnitude
from quantal.objectives.minimax import Minimax as Minimax
from quantal.objectives.objective import Objective as Objective
from quantal.objectives.problem import Problem as Problem
from quantal.objectives.quadratic import Quadratic as Quadratic
from quantal.objectives.sums import Sums as Sums
