"""Kernels are calibrated on samples: what meets them, what they become, and what is refused."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import quantal
from conftest import numpy, on_one_backend
from quantal._core.parameter import parameters_of
from quantal._models.calibration.flow import flow_of
from quantal._models.calibration.moments import Kernel, Models, moments_of
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


@on_one_backend
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


def normalized():
    """A network whose float statistics are those of its own inputs."""
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(8, use_bias=False, name="first"),
            layers.BatchNormalization(momentum=0.0, name="normalization"),
            layers.ReLU(),
            layers.Dense(4, name="last"),
        ]
    )
    model(correlated((64, 6)), training=True)
    return model


def test_biases_and_statistics_follow_and_training_goes_on():
    model, x = normalized(), correlated((64, 6))
    before = [np.array(array) for array in model.get_weights()]
    listed = quantal.discretize(model, "ternary", calibrate=(x, x), verbose=0)
    for array, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(array, old)
    assert loss(model, listed, x) < 0.5 * loss(model, quantal.discretize(model, "ternary"), x)
    # The mean of the outputs is that of the trained model, since the last layer has a bias.
    np.testing.assert_allclose(
        outputs_of(listed, x).mean(0), outputs_of(model, x).mean(0), atol=1e-4
    )
    hidden = numpy(listed.layers[0](x))
    statistics = listed.get_layer("normalization")
    np.testing.assert_allclose(numpy(statistics.moving_mean), hidden.mean(0), atol=1e-4)
    np.testing.assert_allclose(numpy(statistics.moving_variance), hidden.var(0), rtol=1e-3)
    codes = [numpy(parameter.codes) for parameter in parameters_of(listed)]
    listed.compile(keras.optimizers.SGD(1e-6), "mse")
    listed.fit(x, outputs_of(model, x), epochs=1, verbose=0)
    for parameter, old in zip(parameters_of(listed), codes, strict=True):
        assert np.mean(numpy(parameter.codes) == old) > 0.9


@pytest.mark.product
def test_a_frozen_normalization_keeps_its_statistics():
    model = normalized()
    model.get_layer("normalization").trainable = False
    listed = quantal.discretize(model, "binary", calibrate=correlated((64, 6), 1), verbose=0)
    old, new = (numpy(m.get_layer("normalization").moving_mean) for m in (model, listed))
    np.testing.assert_array_equal(new, old)


@pytest.mark.product
def test_recurrent_and_attention_kernels_are_calibrated():
    inputs = keras.Input((4, 3))
    hidden = layers.MultiHeadAttention(1, 4)(inputs, inputs)
    model = keras.Model(inputs, layers.LSTM(4)(hidden))
    listed = quantal.discretize(model, "ternary", calibrate=correlated((60, 4, 3)), verbose=0)
    assert len(parameters_of(listed)) == 6
    for parameter in parameters_of(listed):
        assert 0 < parameter.calibration.error < 0.8


@pytest.mark.product
def test_what_meets_no_data_stays_nearest_and_is_named():
    model = keras.Sequential(
        [
            keras.Input((4,), dtype="int32"),
            layers.Embedding(5, 6, name="words"),
            layers.GRU(3, reset_after=False, name="before"),
        ]
    )
    rules = {"words.*/embeddings": "ternary", "before": "ternary"}
    x = np.random.default_rng(0).integers(0, 5, (20, 4))
    listed = quantal.discretize(model, rules, calibrate=x, verbose=0)
    rows = {row.path.split("/")[-1]: row for row in quantal.summary(listed).rows}
    for name in ("embeddings", "recurrent_kernel"):
        assert rows[name].output_error is None
        assert "not calibrated: no product of it with the data was seen" in rows[name].why
    assert 0 < rows["kernel"].output_error < 1
    rounded = quantal.discretize(model, rules)
    np.testing.assert_array_equal(
        numpy(parameters_of(listed)[0].codes), numpy(parameters_of(rounded)[0].codes)
    )
    assert " outputs " in str(quantal.summary(listed))
    assert " outputs " not in str(quantal.summary(rounded))


@pytest.mark.product
def test_a_layer_of_ones_own_and_one_that_is_shared():
    class Own(layers.Layer):
        def build(self, shape):
            self.kernel = self.add_weight(shape=(shape[-1], shape[-1]), name="kernel")

        def call(self, inputs):
            return ops.tanh(ops.matmul(ops.relu(inputs), self.kernel))

    inputs = keras.Input((6,))
    own, shared = Own(), layers.Dense(6, activation="tanh")
    model = keras.Model(inputs, shared(shared(own(inputs))))
    x = correlated((100, 6))
    listed = quantal.discretize(model, "ternary", calibrate=x, verbose=0)
    assert all(0 < parameter.calibration.error < 0.8 for parameter in parameters_of(listed))


@pytest.mark.product
def test_states_of_both_models_are_as_before():
    model = keras.Sequential(
        [keras.Input(batch_shape=(8, 3, 2)), layers.SimpleRNN(3, stateful=True)]
    )
    model(correlated((8, 3, 2)))
    state = np.array(numpy(model.layers[0].states[0]))
    x = correlated((20, 3, 2), 1)
    listed = quantal.discretize(model, "ternary", calibrate=x, verbose=0)
    np.testing.assert_array_equal(numpy(model.layers[0].states[0]), state)
    np.testing.assert_array_equal(numpy(listed.layers[0].layer.states[0]), state)
    with pytest.raises(ValueError, match=r"calibrate has 7 samples. Expected 8 or more"):
        quantal.discretize(model, "ternary", calibrate=x[:7], verbose=0)


@pytest.mark.parametrize(
    "scale",
    [
        None,
        "least_squares",
        "mean_absolute",
        quantal.Scale("learned", axis="output", power_of_two=True),
        quantal.Scale("learned", axis=0),
        quantal.Scale("learned", axis=(0, 1)),
    ],
)
@pytest.mark.parametrize("values", [[0.5, -0.4, 0.1], quantal.Values([0.3, -0.2], learnable=True)])
@on_one_backend
def test_every_scale_and_list(scale, values):
    model = keras.Sequential([keras.Input((6,)), layers.Dense(4, use_bias=False)])
    x = correlated((100, 6))
    rules = {"values": values, "scale": scale}
    rounded = quantal.discretize(model, rules)
    listed = quantal.discretize(model, rules, calibrate=x, verbose=0)
    quantal.testing.assert_listed(listed)
    assert loss(model, listed, x) <= loss(model, rounded, x) * (1 + 1e-5)
    (parameter,) = parameters_of(listed)
    if getattr(scale, "power_of_two", False):
        assert (np.frexp(numpy(parameter.scale))[0] == 0.5).all()


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
@on_one_backend
def test_lists_per_channel(axis):
    model = keras.Sequential([keras.Input((7, 4)), layers.Conv1D(6, 3, groups=2, use_bias=False)])
    random, x = np.random.default_rng(0), correlated((80, 7, 4))
    channels = model.layers[0].kernel.shape[axis]
    values = quantal.Values(random.normal(size=(channels, 3)) / 4, axis=axis)
    rules = {"values": values, "scale": None}
    rounded = quantal.discretize(model, rules)
    listed = quantal.discretize(model, rules, calibrate=x, verbose=0)
    quantal.testing.assert_listed(listed)
    assert loss(model, listed, x) < loss(model, rounded, x)


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        return correlated((16, 6), index), np.zeros(16)


def tensorflow_data():
    tensorflow = pytest.importorskip("tensorflow")
    return tensorflow.data.Dataset.from_tensor_slices(correlated((32, 6))).batch(16).repeat()


def torch_data():
    torch = pytest.importorskip("torch")
    data = torch.utils.data.TensorDataset(torch.ones(32, 6), torch.ones(32))
    return torch.utils.data.DataLoader(data, batch_size=16)


@pytest.mark.parametrize(
    ("data", "count"),
    [
        (lambda: correlated((33, 6)), 33),
        (lambda: (correlated((33, 6)), np.zeros(33)), 33),
        (lambda: [correlated((5, 6)), correlated((5, 2))], 5),
        (lambda: {"a": correlated((5, 6))}, 5),
        (lambda: Batches(), 32),
        (torch_data, 32),
        (tensorflow_data, 2**14),
        (lambda: (correlated((4, 6)) for _ in range(3)), 12),
        (lambda: np.zeros((2**14 + 5, 1), "float32"), 2**14),
    ],
)
@on_one_backend
def test_data_of_every_kind(data, count):
    samples = Samples(data())
    sizes = [len(keras.tree.flatten(batch)[0]) for batch in samples]
    assert samples.count == sum(sizes) == count
    assert samples.batches == len(sizes)


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        (np.zeros((0, 6)), ValueError, r"inputs of \[0\] samples. Expected .*one or more"),
        ([np.zeros((3, 6)), np.zeros((2, 6))], ValueError, r"inputs of \[2, 3\] samples"),
        (np.full((3, 6), np.nan), ValueError, "holds NaN or infinity. Expected finite numbers"),
        (iter([]), ValueError, "gives no batch. Expected an iterable"),
        (7, TypeError, "calibrate is 7 of type int. Expected inputs"),
        ("x", TypeError, "calibrate is 'x' of type str"),
        ([[1.0, 2.0]], TypeError, "holds a float. Expected arrays"),
    ],
)
@on_one_backend
def test_other_data_is_refused(data, error, words):
    model = keras.Sequential([keras.Input((6,)), layers.Dense(2)])
    with pytest.raises(error, match=words):
        quantal.discretize(model, "ternary", calibrate=data, verbose=0)


OFFSETS = {
    "around 1,000": lambda random: 1000 + 0.1 * random.normal(size=(128, 6)),
    "one large constant": lambda random: np.c_[random.normal(size=(128, 5)), np.full(128, 2024)],
    "all alike": lambda random: np.repeat(random.normal(size=(1, 6)), 20, axis=0),
    "tiny": lambda random: 1e-25 * random.normal(size=(20, 6)),
    "one sample": lambda random: random.normal(size=(1, 6)),
}


@on_one_backend
@pytest.mark.parametrize("case", OFFSETS)
def test_inputs_that_vary_little_around_a_mean(case):
    x = OFFSETS[case](np.random.default_rng(0)).astype("float32")
    model = keras.Sequential([keras.Input((6,)), layers.Dense(8), layers.Dense(3)])
    calibrated = quantal.discretize(model, "ternary", calibrate=x, verbose=0)
    expected, outputs = outputs_of(model, x), outputs_of(calibrated, x)
    # Biases take up the means; what varies is kept in part.
    np.testing.assert_allclose(outputs.mean(0), expected.mean(0), rtol=1e-3, atol=1e-3)
    errors = [parameter.calibration.error for parameter in parameters_of(calibrated)]
    assert max(errors) < 0.7
    if len(x) == 128:
        centred = expected - expected.mean(0), outputs - outputs.mean(0)
        result = np.linalg.norm(centred[1] - centred[0]) / np.linalg.norm(centred[0])
        assert result == pytest.approx(errors[-1], abs=0.1)


@on_one_backend
def test_inputs_too_large_for_their_squares_are_refused():
    x = 1e20 * correlated((20, 6))
    model = keras.Sequential([keras.Input((6,)), layers.Dense(2, name="wide")])
    with pytest.raises(ValueError, match=r"wide/kernel.*not finite.*Expected.*Scale the samples"):
        quantal.discretize(model, "ternary", calibrate=x, verbose=0)


@pytest.mark.product
def test_mixed_precision_and_models_within_models():
    keras.config.set_dtype_policy("mixed_bfloat16")
    inner = keras.Sequential([keras.Input((6,)), layers.Dense(6, name="inner")])
    model = keras.Sequential([keras.Input((6,)), inner, layers.Dense(3)])
    listed = quantal.discretize(model, "ternary", calibrate=correlated((50, 6)), verbose=0)
    assert all(parameter.calibration.error < 0.8 for parameter in parameters_of(listed))


@keras.saving.register_keras_serializable("test_calibration")
class Subclassed(keras.Model):
    """A model that does not say what it takes before it is called."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden, self.last = layers.Dense(5, activation="relu"), layers.Dense(2)

    def call(self, inputs):
        return self.last(self.hidden(inputs))


@on_one_backend
def test_a_subclassed_model_is_calibrated_and_goes_by_a_menu():
    model, x = Subclassed(), correlated((40, 6))
    model(x)
    rounded = quantal.discretize(model, "ternary")
    calibrated = quantal.discretize(model, "ternary", calibrate=x, verbose=0)
    assert loss(model, calibrated, x) < loss(model, rounded, x)
    menu = quantal.discretize(model, bits=20, values=["ternary", "binary"], data=x, verbose=0)
    assert len(parameters_of(menu)) == 2
