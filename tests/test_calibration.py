"""Kernels are calibrated on samples: what meets them, what they become, and what is refused."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import quantal
from conftest import numpy
from quantal._core.parameter import parameters_of
from quantal._models.calibration.flow import Kernel, Models, flow_of, moments_of
from quantal._models.calibration.samples import Samples


def correlated(shape, seed=0):
    """Inputs whose neighbours are alike, with a mean."""
    random = np.random.default_rng(seed)
    common = random.normal(size=(*shape[:-1], 1))
    return (0.5 + common + 0.6 * random.normal(size=shape)).astype("float32")


def outputs_of(model, x):
    return numpy(model(x)).reshape(len(x), -1)


def loss(model, listed, x):
    expected = outputs_of(model, x)
    return float(np.mean((outputs_of(listed, x) - expected) ** 2) / np.mean(expected**2))


LAYERS = {
    "dense": (lambda: layers.Dense(5, use_bias=False), (6,)),
    "dense over time": (lambda: layers.Dense(5, use_bias=False), (3, 6)),
    "einsum": (lambda: layers.EinsumDense("abc,cde->abde", (None, 2, 5)), (4, 6)),
    "einsum over two": (lambda: layers.EinsumDense("abde,cde->abc", (None, 5)), (4, 2, 3)),
    "einsum in groups": (lambda: layers.EinsumDense("abc,bcd->abd", (4, 5)), (4, 6)),
    "einsum with ellipsis": (lambda: layers.EinsumDense("...c,cd->...d", (4, 5)), (4, 6)),
    "conv1d": (lambda: layers.Conv1D(4, 3, strides=2, padding="same", use_bias=False), (9, 2)),
    "causal": (
        lambda: layers.Conv1D(4, 3, dilation_rate=2, padding="causal", use_bias=False),
        (9, 2),
    ),
    "conv2d": (
        lambda: layers.Conv2D(4, (3, 2), strides=2, padding="same", use_bias=False), (6, 5, 2)
    ),
    "dilated": (lambda: layers.Conv2D(4, 2, dilation_rate=2, use_bias=False), (6, 5, 2)),
    "grouped": (lambda: layers.Conv2D(6, 2, groups=2, use_bias=False), (4, 4, 4)),
    "conv3d": (lambda: layers.Conv3D(3, 2, use_bias=False), (3, 4, 3, 2)),
    "depthwise1d": (lambda: layers.DepthwiseConv1D(3, depth_multiplier=2, use_bias=False), (6, 3)),
    "depthwise": (
        lambda: layers.DepthwiseConv2D(2, depth_multiplier=2, padding="same", use_bias=False),
        (4, 4, 3),
    ),
    "transposed": (
        lambda: layers.Conv2DTranspose(3, 3, strides=2, padding="same", use_bias=False),
        (3, 3, 2),
    ),
    "transposed1d": (lambda: layers.Conv1DTranspose(3, 2, strides=2, use_bias=False), (4, 2)),
}  # fmt: skip


@pytest.mark.product
@pytest.mark.parametrize("case", LAYERS)
def test_what_meets_a_kernel_makes_its_outputs(case):
    make, shape = LAYERS[case]
    layer = make()
    model = keras.Sequential([keras.Input(shape), layer])
    kernel = layer.kernel
    x = correlated((7, *shape))
    flow = flow_of(model, ops.convert_to_tensor(x), [kernel])
    (moments,) = moments_of(Models(model, model), Samples(x), [Kernel(kernel, kernel)], flow)
    arranged = flow.layouts[kernel].arranged(numpy(kernel)).astype(float)
    outputs = numpy(model(x))
    axis = -2 if outputs.shape[-1] == 0 else -1
    squares = np.einsum("gio,gij,gjo->", arranged, moments.second, arranged)
    per_output = np.mean(outputs.reshape(-1, outputs.shape[axis]).astype(float) ** 2, 0).sum()
    if case in ("einsum", "einsum in groups"):
        per_output = np.mean(outputs.astype(float) ** 2, axis=0).sum()
        per_output /= outputs.shape[1] if case == "einsum" else 1
    np.testing.assert_allclose(squares, per_output, rtol=1e-4)
    np.testing.assert_allclose(moments.power.sum(), per_output, rtol=1e-4)
    shape_of_kernel = tuple(kernel.shape)
    np.testing.assert_array_equal(
        flow.layouts[kernel].restored(arranged, shape_of_kernel), numpy(kernel)
    )


@pytest.mark.product
@pytest.mark.parametrize("case", LAYERS)
def test_a_calibrated_layer_is_nearer_to_the_trained_one(case):
    make, shape = LAYERS[case]
    model = keras.Sequential([keras.Input(shape), make()])
    x = correlated((200, *shape))
    rounded = quantal.discretize(model, "ternary")
    calibrated = quantal.discretize(model, "ternary", calibrate=x, verbose=0)
    quantal.testing.assert_listed(calibrated)
    assert loss(model, calibrated, x) < loss(model, rounded, x)
    (parameter,) = parameters_of(calibrated)
    assert parameter.calibration.error == pytest.approx(loss(model, calibrated, x) ** 0.5, rel=1e-3)
