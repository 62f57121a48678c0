"""larq's quantizers with its weight clipping, in Keras 2; see README.md."""

import functools
import os

os.environ["TF_USE_LEGACY_KERAS"] = "1"

import larq
import numpy as np
import protocol
import tensorflow as tf

tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)


def train(adaptive: bool, kind: str, problem: protocol.Problem, rate: float) -> np.ndarray:
    count, _, size = problem.rows.shape
    # The threshold of ternary weight networks is a kernel's: one kernel an instance.
    parts = count if adaptive else 1
    starts = problem.start(protocol.glorot(problem)).reshape(parts, -1, size)
    clip = larq.constraints.WeightClip(1.0)
    kernels = [tf.Variable(start, constraint=clip) for start in starts]
    if kind == "signs":
        quantize = larq.quantizers.SteSign()
    else:
        quantize = larq.quantizers.SteTern(ternary_weight_networks=adaptive)
    optimizer = tf.keras.optimizers.Adam(rate, jit_compile=False)
    optimizer.build(kernels)
    rows, share = tf.constant(problem.rows), tf.constant(problem.share)
    order = None if problem.order is None else tf.constant(problem.order)

    def used() -> tf.Tensor:
        return tf.concat([quantize(kernel) for kernel in kernels], axis=0)

    def loss(step: tf.Tensor) -> tf.Tensor:
        if order is None:
            answers = tf.linalg.matvec(rows, used())
            return tf.reduce_sum((answers - problem.targets) ** 2 * share)
        batch = tf.gather(rows, order[step], axis=1, batch_dims=1)
        answers = tf.linalg.matvec(batch, used()) / size**0.5
        return tf.reduce_sum(tf.math.softplus(-protocol.SLOPE * answers) * share[step])

    @tf.function(jit_compile=True)
    def advance(steps: tf.Tensor) -> None:
        for step in tf.range(steps):
            with tf.GradientTape() as tape:
                found = loss(step)
            slopes = tape.gradient(found, kernels)
            optimizer.apply_gradients(zip(slopes, kernels, strict=True))

    advance(tf.constant(problem.steps))
    return used().numpy()


RULES = {
    "ste": protocol.Rule(
        {
            "signs": "SteSign(), weight_clip, Glorot's start",
            "ternary": "SteTern(), weight_clip, Glorot's start",
        },
        functools.partial(train, False),
    ),
    "twn": protocol.Rule(
        {"ternary": "SteTern(ternary_weight_networks=True), weight_clip, Glorot's start"},
        functools.partial(train, True),
    ),
}
CANNOT = dict.fromkeys(("four_values", "nine_powers"), "binary, ternary and evenly spaced only")
protocol.main("larq", RULES, CANNOT)
