"""Write functions of single numbers as C expressions."""

import math

from quantal._export.c.text import literal
from quantal._export.graph.steps import Function


def expression(function: Function) -> str:
    """Return the C expression of a function of the float `v`."""
    if function.name == "linear":
        return "v"
    if function.name != "relu":
        return EXPRESSIONS[function.name].format(*map(literal, function.numbers))
    slope, threshold, top = function.numbers
    start = literal(threshold)
    text = f"v < {start} ? {f'{literal(slope)} * (v - {start})' if slope else '0.0f'} : v"
    return text if top == math.inf else f"v > {literal(top)} ? {literal(top)} : {text}"


_SOFTPLUS = "(v < 0.0f ? log1pf(expf(v)) : v + log1pf(expf(-v)))"
EXPRESSIONS = {
    "sigmoid": "1.0f / (1.0f + expf(-v))",
    "tanh": "tanhf(v)",
    "elu": "v < 0.0f ? {} * expm1f(v) : v",
    "softplus": "v < 0.0f ? log1pf(expf(v)) : v + log1pf(expf(-v))",
    "silu": "v / (1.0f + expf(-v))",
    "hard_sigmoid": "v < -3.0f ? 0.0f : v > 3.0f ? 1.0f : v / 6.0f + 0.5f",
    "exponential": "expf(v)",
    "gelu": "0.5f * v * erfcf(-0.707106781f * v)",
    "selu": "1.05070099f * (v < 0.0f ? 1.67326324f * expm1f(v) : v)",
    "celu": "v < 0.0f ? expm1f(v) : v",
    "softsign": "v / (fabsf(v) + 1.0f)",
    "mish": f"v * tanhf{_SOFTPLUS}",
    "log_sigmoid": "v < 0.0f ? v - log1pf(expf(v)) : -log1pf(expf(-v))",
    "hard_silu": "v < -3.0f ? 0.0f : v > 3.0f ? v : v * (v / 6.0f + 0.5f)",
    "hard_tanh": "v < -1.0f ? -1.0f : v > 1.0f ? 1.0f : v",
    "hard_shrink": "fabsf(v) > 0.5f ? v : 0.0f",
    "soft_shrink": "v > 0.5f ? v - 0.5f : v < -0.5f ? v + 0.5f : 0.0f",
    "tanh_shrink": "v - tanhf(v)",
    "squareplus": "0.5f * (v + sqrtf(v * v + 4.0f))",
    "sparse_plus": "v < -1.0f ? 0.0f : v < 1.0f ? 0.25f * (v + 1.0f) * (v + 1.0f) : v",
    "sparse_sigmoid": "v < -1.0f ? 0.0f : v > 1.0f ? 1.0f : 0.5f * (v + 1.0f)",
}
"""C expressions of the functions of a graph but for `relu`, in the float `v`."""
