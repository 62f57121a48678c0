"""Estimators of the literature that are not clearly ahead in any case measured here.

In benchmarks/learning each is behind another estimator, or within the seeds' spread of
it. They are here for comparison with publications, and as starting points. Their names work
like all others (`estimator="residual"`), and every law of `quantal.testing` holds for them.

An estimator enters `contrib` with a source that defines it, a test of its formula against
NumPy, and the laws. It moves up to `quantal.estimators` once it wins a case of
benchmarks/learning: a better result at equal steps than every estimator there, by more
than the seeds' spread. One that wins no case any more moves down.
"""

from quantal.estimators.contrib.argmax_straight_through import (
    ArgmaxStraightThrough as ArgmaxStraightThrough,
)
from quantal.estimators.contrib.binary_relax import BinaryRelax as BinaryRelax
from quantal.estimators.contrib.residual import Residual as Residual
