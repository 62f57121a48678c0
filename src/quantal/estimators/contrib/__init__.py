"""Estimators of the literature that win nowhere in this library's own measurements.

They are here for comparison with publications, and as starting points. Their names work
like all others (`estimator="residual"`), and every law of `quantal.testing` holds for them.

An estimator enters `contrib` with a source that defines it, a test of its formula against
NumPy, and the laws. It moves up to `quantal.estimators` once it wins a case of
benchmarks/learning on lists that users have: a better result at equal steps than every
estimator there, over at least ten seeds. One that loses its last case moves down.
"""

from quantal.estimators.contrib.argmax_straight_through import (
    ArgmaxStraightThrough as ArgmaxStraightThrough,
)
from quantal.estimators.contrib.binary_relax import BinaryRelax as BinaryRelax
from quantal.estimators.contrib.residual import Residual as Residual
