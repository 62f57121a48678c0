# The public names, each written once: type checkers read this file, and `__init__.py` loads a
# name from where this file imports it.
from . import callbacks as callbacks
from . import estimators as estimators
from . import layers as layers
from . import objectives as objectives
from . import plots as plots
from . import regularizers as regularizers
from . import runtime as runtime
from . import schedules as schedules
from . import testing as testing
from ._core.numbers.values import Values as Values
from ._core.parameter import Parameter as Parameter
from ._core.parameter import parameters_of as parameters_of
from ._core.scale import Scale as Scale
from ._export.export import export as export
from ._export.integer.model import IntegerModel as IntegerModel
from ._export.integer.to_integer import to_integer as to_integer
from ._models.bake import bake as bake
from ._models.discretize import discretize as discretize
from ._models.files import load as load
from ._models.files import save as save
from ._models.finalize import finalize as finalize
from ._models.noise_evaluation import evaluate_with_noise as evaluate_with_noise
from ._models.summary import summary as summary
from ._models.weight_decay import exclude_from_weight_decay as exclude_from_weight_decay
from ._optimize.assess.assess import assess as assess
from ._optimize.budget import Budget as Budget
from ._optimize.constraints import Constraints as Constraints
from ._optimize.polish.polish import polish as polish
from ._optimize.search.search import search as search
from ._report.report import report as report
from ._sweep.sweep import sweep as sweep
from .layers.activation import DiscreteActivation as DiscreteActivation
from .layers.discrete import Discrete as Discrete
from .layers.multiplier import LearnableMultiplier as LearnableMultiplier

__version__: str
