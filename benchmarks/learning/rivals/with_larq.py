"""larq's quantizers with its weight clipping, in Keras 2; see README.md.

    with_larq.py                       SteSign; SteTern with its default threshold
    LARQ_TERNARY=twn with_larq.py      SteTern with that of ternary weight networks
"""

import os

os.environ["TF_USE_LEGACY_KERAS"] = "1"

import larq
import protocol
import tensorflow as tf

tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)
TWN = os.environ.get("LARQ_TERNARY") == "twn"
SETTINGS = {
    "signs": "ste_sign, weight_clip",
    "ternary": f"SteTern({'ternary_weight_networks=True' if TWN else ''}), weight_clip",
}
CANNOT = {
    "four_values": "it has binary, ternary and evenly spaced quantizers",
    "nine_powers": "it has binary, ternary and evenly spaced quantizers",
}


def train(kind: str, problem: protocol.Problem, rate: float) -> protocol.Trained:
    count, _, size = problem.rows.shape
    start = problem.start((6 / (size + 1)) ** 0.5)
    # The threshold of ternary weight networks is the whole kernel's: one kernel an instance.
    parts = count if kind == "ternary" and TWN else 1
    clip = larq.constraints.WeightClip(1.0)
    kernels = [tf.Variable(part, constraint=clip) for part in start.reshape(parts, -1, size)]
    quantize = larq.quantizers.SteSign() if kind == "signs" else larq.quantizers.SteTern(
        ternary_weight_networks=TWN
    )
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
        return tf.reduce_sum(tf.math.softplus(-4 * answers) * share[step])

    @tf.function(jit_compile=True)
    def steps(first: tf.Tensor, last: tf.Tensor) -> None:
        for step in tf.range(first, last):
            with tf.GradientTape() as tape:
                found = loss(step)
            slopes = tape.gradient(found, kernels)
            optimizer.apply_gradients(zip(slopes, kernels, strict=True))

    steps(tf.constant(0), tf.constant(problem.steps))
    return protocol.Trained(used().numpy(), f"{SETTINGS[kind]}, Glorot uniform start")


CANNOT_TWN = dict.fromkeys(("signs", "four_values", "nine_powers"), "not the ternary list")
protocol.main("larq", train, CANNOT, "twn" if TWN else "")
