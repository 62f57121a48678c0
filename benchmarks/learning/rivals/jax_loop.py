"""Training with Keras' Adam on JAX, for the libraries of Keras 3; one compiled loop a case."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import keras
import numpy as np
import protocol
from protocol import Problem


def train(quantize: Callable, start: np.ndarray, problem: Problem, rate: float) -> np.ndarray:
    """What `quantize` makes of the weights (instances by size) at the end."""
    rows, share = jnp.asarray(problem.rows), jnp.asarray(problem.share)
    variable = keras.Variable(start)
    optimizer = keras.optimizers.Adam(rate)
    optimizer.build([variable])

    def loss(weights, step):
        used = quantize(weights)
        if problem.order is None:
            answers = jnp.einsum("smn,sn->sm", rows, used)
            return jnp.sum((answers - problem.targets) ** 2 @ share)
        index = jnp.asarray(problem.order)[step]
        batch = jnp.take_along_axis(rows, index[:, :, None], axis=1)
        answers = jnp.einsum("sbn,sn->sb", batch, used) / np.sqrt(rows.shape[-1])
        return jnp.sum(jax.nn.softplus(-protocol.SLOPE * answers) @ share[step])

    def advance(carry, step):
        weights, state = carry
        slope = jax.grad(loss)(weights, step)
        (weights,), state = optimizer.stateless_apply(state, [slope], [weights])
        return (weights, state), None

    state = [each.value for each in optimizer.variables]
    steps = jnp.arange(problem.steps)
    (weights, _), _ = jax.jit(lambda c: jax.lax.scan(advance, c, steps))((variable.value, state))
    return np.asarray(quantize(weights))
