"""The laws that every estimator, parameter and model keeps, as checks for your own."""

import keras  # noqa: F401  first: see quantal._registration

from quantal.testing.laws import assert_gradient as assert_gradient
from quantal.testing.laws import assert_hard as assert_hard
from quantal.testing.laws import assert_listed as assert_listed
from quantal.testing.laws import assert_members as assert_members
from quantal.testing.laws import assert_nearest as assert_nearest
from quantal.testing.laws import assert_right_inverse as assert_right_inverse
from quantal.testing.laws import compiled as compiled
from quantal.testing.laws import edge_cases as edge_cases
from quantal.testing.laws import gradient_of as gradient_of
