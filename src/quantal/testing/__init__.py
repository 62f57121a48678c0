"""Checks of the laws that every list, estimator, parameter and model keeps, for your tests."""

import keras  # noqa: F401  first: see quantal._registration

from quantal._core.tensors.backend import compiled as compiled
from quantal._core.tensors.backend import gradient_of as gradient_of
from quantal.testing.edge_cases import edge_cases as edge_cases
from quantal.testing.laws import assert_gradient as assert_gradient
from quantal.testing.laws import assert_hard as assert_hard
from quantal.testing.laws import assert_listed as assert_listed
from quantal.testing.laws import assert_members as assert_members
from quantal.testing.laws import assert_nearest as assert_nearest
from quantal.testing.laws import assert_right_inverse as assert_right_inverse
from quantal.testing.tracing import Use as Use
from quantal.testing.tracing import allowed_numbers as allowed_numbers
from quantal.testing.tracing import uses_of as uses_of
