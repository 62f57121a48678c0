"""What `quantal.search` minimises: losses of one vector whose structure it follows."""

from quantal.objectives.autocorrelation import Autocorrelation as Autocorrelation
from quantal.objectives.losses import Quadratic as Quadratic
from quantal.objectives.losses import Sums as Sums
from quantal.objectives.magnitude import Magnitude as Magnitude
from quantal.objectives.minimax import Minimax as Minimax
