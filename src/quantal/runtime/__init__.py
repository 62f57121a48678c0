"""Run saved models without Keras and without a framework."""

from quantal.runtime.loading import load as load
from quantal.runtime.network import Network as Network
