import keras
import numpy as np
import pytest
from keras import layers, ops

from conftest import gradient_to, numpy
from lists import NAMED
from quantal import Discrete, LearnableMultiplier, Scale, Values, parameters_of, testing
from quantal._core.numbers.fitting import least_squares_scale, mean_absolute_scale, mean_magnitude
from quantal._core.scale import METHODS, rounded_to_powers
from quantal._core.tensors.latent_units import LatentUnits
from quantal._core.tensors.scaled import scaled
from quantal.layers._channels import output_axes

ROWS = Values([[1, -1, 0.5], [0.25, 3, -2], [0, 1, 2], [-1, 0, 1]])
LISTS = {name: NAMED[name] for name in ("four", "one-sided", "nf4")}
LISTS["rows"] = ROWS
# PyTorch's compiler has a test of its own below.
JIT = keras.config.backend() != "torch"
every_list = pytest.mark.parametrize("values", LISTS.values(), ids=LISTS)
every_method = pytest.mark.parametrize("method", METHODS)
AXES = [None, "output", 0, (0, 1)]
every_axis = pytest.mark.parametrize("axis", AXES)


def parameter_of(values, scale, relative=None, shape=(5, 4)):
    """A parameter with random latents, within and beyond the list, and a scale that has moved."""
    dense = Discrete(layers.Dense(shape[1], use_bias=False), values, scale=scale)
    dense.build((None, shape[0]))
    parameter = dense.discrete_parameters[0]
    random = np.random.default_rng(7)
    middle = (values.low + values.high) / 2
    spread = values.high - values.low
    numbers = middle + spread * random.normal(size=shape)
    parameter.latent.assign(LatentUnits(values, 2).latents_of(numbers.astype(np.float32)))
    state = parameter.scale_state
    start = np.exp(random.normal(size=state.start.shape)).astype(np.float32)
    if parameter.scale_state.scale.power_of_two:
        start = rounded_to_powers(start)
    state.begin(start)
    if relative is None:
        relative = np.exp(0.3 * random.normal(size=start.shape))
    state.relative.assign(np.broadcast_to(np.float32(relative), start.shape))
    return parameter


class InNumPy:
    """The reference computes a parameter with a scale in NumPy, read once."""

    def __init__(self, parameter):
        state, values = parameter.scale_state, parameter.values
        units = LatentUnits(values, 2)
        latent = numpy(parameter.latent).astype(float)
        self.unit, self.start = units.unit, numpy(state.start).astype(float)
        # In units of the scale's start, then of the scale.
        self.numbers = latent * units.unit + units.offset
        self.scale = self.start * numpy(state.relative).astype(float)
        if state.scale.power_of_two:
            self.scale = 2.0 ** np.round(np.log2(self.scale))
        self.relative = self.scale / self.start
        self.in_list_units = self.numbers / self.relative
        self.nearest = values.nearest(self.in_list_units).astype(float)
        rows = values.ascending if values.channels else values.ascending[None]
        self.low, self.high = rows[:, 0], rows[:, -1]  # the last axis has the channels
        self.largest = np.maximum(np.abs(self.low), np.abs(self.high))
        self.shared = tuple(
            axis for axis in range(2) if not self.start.shape or self.start.shape[axis] == 1
        )

    def total(self, numbers):
        numbers = np.broadcast_to(numbers, self.numbers.shape)
        return numbers.sum(axis=self.shared).reshape(self.start.shape)


# The scale's own gradient, and the one that goes through it.


@every_list
@pytest.mark.parametrize(
    "scale", [*(Scale(axis=axis) for axis in AXES), Scale("learned", "output", True)], ids=repr
)
def test_gradient_of_a_learned_scale_is_that_of_lsq(values, scale, random):
    parameter = parameter_of(values, scale)
    upstream = random.normal(size=parameter.shape).astype("float32")
    gradient = gradient_to(
        parameter.scale_state.relative,
        lambda: ops.multiply(parameter.compute(training=True), upstream),
    )
    exact = InNumPy(parameter)
    inside = (exact.low <= exact.in_list_units) & (exact.in_list_units <= exact.high)
    assert inside.any()
    assert not inside.all()
    elements = exact.numbers.size / max(exact.start.size, 1)
    slope = (exact.nearest - exact.in_list_units * inside) / np.sqrt(elements * exact.largest)
    # The variable is relative to the start: its gradient is the start times the scale's.
    expected = exact.start * exact.total(upstream * slope)
    assert np.abs(expected).max() > 1e-2
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-4)


def test_the_gradient_is_the_published_one_for_integers():
    # Esser et al. for weights: dv/ds = -v/s + round(v/s), or the end of the range,
    # times 1 / sqrt(N Q_P).
    parameter = parameter_of(Values([-4, -3, -2, -1, 0, 1, 2, 3]), "learned", 1.0, (4, 1))
    parameter.scale_state.begin(np.float32(0.5))
    parameter.latent.assign(np.array([[0.3], [-9.0], [2.2], [7.0]], "f4") / 4)
    gradient = gradient_to(parameter.scale_state.relative, lambda: parameter.compute(False))
    expected = (0 - 0.3) + -4 + (2 - 2.2) + 3
    # The list goes from -4 to 3; the largest magnitude stands in for Q_P.
    np.testing.assert_allclose(gradient, 0.5 * expected / np.sqrt(4 * 4), rtol=1e-5)


@every_list
@every_method
def test_gradient_to_the_latents_is_as_if_the_scale_were_constant(values, method, random):
    parameter = parameter_of(values, Scale(method, "output"))
    upstream = random.normal(size=parameter.shape).astype("float32")
    gradient = gradient_to(
        parameter.latent, lambda: ops.multiply(parameter.compute(training=True), upstream)
    )
    exact = InNumPy(parameter)
    leads_out = ((exact.in_list_units > exact.high) & (upstream < 0)) | (
        (exact.in_list_units < exact.low) & (upstream > 0)
    )
    assert leads_out.any()
    expected = np.where(leads_out, 0, upstream * exact.scale / exact.relative * exact.unit)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4)


def test_a_scale_gets_only_inward_gradients_at_its_limits():
    for relative, upstream, passes in (
        (2.0**-11, 1.0, False),
        (2.0**-11, -1.0, True),
        (2.0**11, 1.0, True),
        (2.0**11, -1.0, False),
    ):
        parameter = parameter_of(Values("binary"), "learned", relative, (3, 1))
        parameter.latent.assign(np.full((3, 1), 1e6, "f4"))
        gradient = gradient_to(
            parameter.scale_state.relative,
            lambda parameter=parameter, sign=upstream: parameter.compute(False) * sign,
        )
        assert (gradient != 0) == passes
        # The gradient's sign is that of the upstream where all weights are above the list.
        expected = numpy(parameter.scale_state.start) * np.clip(relative, 2.0**-10, 2.0**10)
        np.testing.assert_allclose(numpy(parameter.scale), expected, rtol=1e-6)


# Scales that are computed.


def moved(exact, values, method):
    """The next relative scale by the formula, for a start where some value is not zero."""
    if method == "least_squares":
        above = exact.total(exact.numbers * exact.nearest)
        below = exact.total(exact.nearest**2)
    else:
        above = exact.total(np.abs(exact.numbers))
        below = exact.total(mean_magnitude(values).astype(float))
    better = above / np.where(below > 0, below, 1)
    usable = (below > 0) & (above > 0)
    return np.where(usable, np.clip(better, 2.0**-10, 2.0**10), exact.relative)


@every_list
@every_axis
@pytest.mark.parametrize("method", ["least_squares", "mean_absolute"])
def test_a_training_step_moves_a_computed_scale_by_its_formula(values, axis, method):
    parameter = parameter_of(values, Scale(method, axis))
    exact = InNumPy(parameter)
    weight = numpy(parameter.compute(training=True))
    np.testing.assert_array_equal(numpy(parameter.scale_state.relative), np.float32(exact.relative))
    parameter.advance()
    # This step still had the old one.
    np.testing.assert_allclose(weight, exact.scale * exact.nearest, rtol=1e-6)
    expected = moved(exact, values, method)
    assert not np.allclose(expected, exact.relative)
    np.testing.assert_allclose(numpy(parameter.scale_state.relative), expected, rtol=1e-5)
    np.testing.assert_allclose(numpy(parameter.scale), exact.start * expected, rtol=1e-5)


@every_method
def test_inference_moves_nothing(method):
    parameter = parameter_of(NAMED["four"], Scale(method, "output"))
    before = numpy(parameter.scale_state.relative)
    parameter.compute(training=False)
    _ = parameter.listed_values, parameter.weight, parameter.codes, parameter.scale
    np.testing.assert_array_equal(numpy(parameter.scale_state.relative), before)


def test_a_learned_scale_moves_by_its_gradient_alone():
    parameter = parameter_of(NAMED["four"], "learned")
    before = numpy(parameter.scale_state.relative)
    parameter.compute(training=True)
    parameter.advance()
    np.testing.assert_array_equal(numpy(parameter.scale_state.relative), before)


def test_a_scale_without_a_nonzero_choice_stays():
    parameter = parameter_of(Values("ternary"), "least_squares", 1.25)
    parameter.latent.assign(np.zeros((5, 4), "f4"))
    parameter.compute(training=True)
    parameter.advance()
    assert float(numpy(parameter.scale_state.relative)) == 1.25


def test_least_squares_steps_come_to_rest_at_a_fit(random):
    weights = random.normal(size=(40, 4)).astype("f4")
    parameter = parameter_of(NAMED["nf4"], Scale("least_squares", "output"), 1.0, (40, 4))
    parameter.start_from(weights)
    fitted = numpy(parameter.scale)
    for _ in range(3):
        parameter.compute(training=True)
        parameter.advance()
    np.testing.assert_allclose(numpy(parameter.scale), fitted, rtol=1e-5)


@every_method
def test_fit_moves_each_scale_as_its_formula_says(method, random):
    discrete = Discrete(layers.Dense(3, use_bias=False), "ternary", scale=Scale(method, "output"))
    model = keras.Sequential([keras.Input((6,)), discrete])
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=JIT)
    parameter = discrete.discrete_parameters[0]
    exact = InNumPy(parameter)
    x, y = random.normal(size=(8, 6)).astype("f4"), random.normal(size=(8, 3)).astype("f4")
    model.fit(x, y, batch_size=8, verbose=0)
    exact.relative = np.broadcast_to(exact.relative, exact.start.shape)
    if method == "learned":
        upstream = x.T @ (2 * (x @ (exact.scale * exact.nearest) - y) / y.size)
        slope = (
            exact.nearest - exact.in_list_units * (np.abs(exact.in_list_units) <= 1)
        ) / np.sqrt(6)
        expected = 1 - 0.1 * exact.start * exact.total(upstream * slope)
    else:
        expected = moved(exact, parameter.values, method)
    assert not np.allclose(expected, 1)
    np.testing.assert_allclose(numpy(parameter.scale_state.relative), expected, rtol=1e-5)
    testing.assert_members(parameter.listed_values, parameter.values)


# Powers of two.


@pytest.mark.parametrize("method", ["learned", "least_squares"])
def test_a_power_of_two_is_one_exactly(method, random):
    discrete = Discrete(
        layers.Dense(4), "ternary", scale=Scale(method, "output", power_of_two=True)
    )
    model = keras.Sequential([keras.Input((6,)), discrete])
    model.compile(keras.optimizers.Adam(0.05), "mse")
    parameter = discrete.discrete_parameters[0]
    scales = [numpy(parameter.scale)]
    x = random.normal(size=(32, 6)).astype("f4")
    y = 20 * random.normal(size=(32, 4)).astype("f4")
    relative = numpy(parameter.scale_state.relative)
    for _ in range(4):
        model.fit(x, y, epochs=5, verbose=0)
        scales.append(numpy(parameter.scale))
    assert not np.array_equal(numpy(parameter.scale_state.relative), relative)
    fractions, _ = np.frexp(np.stack(scales))
    np.testing.assert_array_equal(fractions, 0.5)
    if method == "learned":
        assert not np.array_equal(scales[0], scales[-1])


def test_rounding_to_powers_goes_by_ratio():
    numbers = np.array([1.0, 1.4, 1.42, 2.8, 2.9, 0.7, 0.71, 1e-38, 1e38], np.float32)
    expected = [1, 1, 2, 2, 4, 0.5, 1, 2.0**-100, 2.0**100]
    np.testing.assert_array_equal(rounded_to_powers(numbers), expected)
    exact = (2.0 ** np.arange(-100, 101)).astype(np.float32)
    np.testing.assert_array_equal(rounded_to_powers(exact), exact)


def test_a_fitted_power_of_two_is_one_exactly(random):
    scale = Scale("least_squares", 1, power_of_two=True)
    weights = random.normal(size=(30, 7)) * 0.3
    fitted = scale.fitted(weights, Values("ternary"), (1, 7))
    free = Scale("least_squares", 1).fitted(weights, Values("ternary"), (1, 7))
    assert (np.frexp(fitted)[0] == 0.5).all()
    assert not (np.frexp(free)[0] == 0.5).any()
    np.testing.assert_array_equal(fitted, rounded_to_powers(free))


def test_a_power_of_two_agrees_between_numpy_and_tensors(random):
    parameter = parameter_of(Values("binary"), Scale("learned", (0, 1), True), 1.0, (30, 40))
    state = parameter.scale_state
    start = 2.0 ** random.integers(-20, 20, (30, 40))
    state.start.assign(start.astype("f4"))
    relative = np.exp(random.uniform(-6, 6, (30, 40))).astype("f4")
    relative[:3] = np.sqrt(np.float32(2)) * 2.0 ** random.integers(-5, 5, (3, 40))
    state.relative.assign(relative)
    expected = rounded_to_powers((start * relative).astype(np.float32))
    np.testing.assert_array_equal(numpy(parameter.scale), expected)


# Which weights share a scale.


SHAPES = {
    "Dense": (lambda: layers.Dense(4), (None, 5), "kernel", (1, 4)),
    "Conv2D": (lambda: layers.Conv2D(4, 3), (None, 8, 8, 2), "kernel", (1, 1, 1, 4)),
    "Conv1D groups": (lambda: layers.Conv1D(4, 3, groups=2), (None, 8, 2), "kernel", (1, 1, 4)),
    "DepthwiseConv2D": (
        lambda: layers.DepthwiseConv2D(3, depth_multiplier=2),
        (None, 8, 8, 5),
        "kernel",
        (1, 1, 5, 2),
    ),
    "DepthwiseConv1D": (lambda: layers.DepthwiseConv1D(3), (None, 8, 5), "kernel", (1, 5, 1)),
    "SeparableConv2D depthwise": (
        lambda: layers.SeparableConv2D(4, 3),
        (None, 8, 8, 5),
        "depthwise_kernel",
        (1, 1, 5, 1),
    ),
    "SeparableConv2D pointwise": (
        lambda: layers.SeparableConv2D(4, 3),
        (None, 8, 8, 5),
        "pointwise_kernel",
        (1, 1, 1, 4),
    ),
    "Conv2DTranspose": (
        lambda: layers.Conv2DTranspose(4, 3),
        (None, 8, 8, 2),
        "kernel",
        (1, 1, 4, 1),
    ),
    "EinsumDense": (
        lambda: layers.EinsumDense("btd,de->bte", output_shape=(None, 4)),
        (None, 3, 5),
        "kernel",
        (1, 4),
    ),
    "EinsumDense turned": (
        lambda: layers.EinsumDense("bd,ed->be", output_shape=4),
        (None, 5),
        "kernel",
        (4, 1),
    ),
    "EinsumDense heads": (
        lambda: layers.EinsumDense("bd,hde->bhe", output_shape=(2, 3)),
        (None, 5),
        "kernel",
        (2, 1, 3),
    ),
    "LSTM": (lambda: layers.LSTM(3), (None, 6, 2), "kernel", (1, 12)),
    "LSTM recurrent": (lambda: layers.LSTM(3), (None, 6, 2), "recurrent_kernel", (1, 12)),
    "Embedding": (lambda: layers.Embedding(7, 4), (None, 3), "embeddings", (1, 4)),
    "TimeDistributed": (
        lambda: layers.TimeDistributed(layers.Conv2DTranspose(4, 3)),
        (None, 2, 8, 8, 3),
        "kernel",
        (1, 1, 4, 1),
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_shape_of_a_scale_for_each_output_channel(name):
    make, shape, weight, expected = SHAPES[name]
    layer = make()
    layer.build(shape)
    (variable,) = (v for v in layer.weights if v.path.endswith(f"/{weight}"))
    assert Scale(axis="output").shape(variable.shape, output_axes(layer, variable)) == expected


def test_shape_for_attention():
    attention = Discrete(layers.MultiHeadAttention(2, 3), "binary", scale=Scale(axis="output"))
    attention(keras.Input((4, 6)), keras.Input((4, 6)))
    shapes = {p.path.split("/")[-2]: tuple(p.scale.shape) for p in attention.discrete_parameters}
    assert shapes == {
        "query": (1, 2, 3),
        "key": (1, 2, 3),
        "value": (1, 2, 3),
        "attention_output": (1, 1, 6),
    }


@pytest.mark.parametrize("name", ["Conv2DTranspose", "EinsumDense turned", "Conv2D", "Dense"])
def test_an_output_channel_is_one(name):
    # Changing the weights of one position along the output axes changes one output channel.
    make, shape, _, _ = SHAPES[name]
    layer = make()
    layer.build(shape)
    variable = layer.kernel
    (axis,) = output_axes(layer, variable)
    x = np.random.default_rng(0).normal(size=[2, *shape[1:]]).astype("f4")
    before, kernel = numpy(layer(x)), numpy(variable)
    np.moveaxis(kernel := kernel.copy(), axis, 0)[1] += 1
    variable.assign(kernel)
    changed = np.any(numpy(layer(x)) != before, axis=tuple(range(before.ndim - 1)))
    np.testing.assert_array_equal(changed, np.arange(4) == 1)


@pytest.mark.parametrize(
    ("axis", "expected"),
    [(None, ()), (0, (3, 1, 1)), (-1, (1, 1, 5)), ((0, -1), (3, 1, 5)), ([1], (1, 4, 1))],
)
def test_shape_by_axes(axis, expected):
    assert Scale(axis=axis).shape((3, 4, 5), (-1,)) == expected


def test_a_multiplier_has_a_scale_for_each_element():
    for method in METHODS:
        layer = LearnableMultiplier(
            "ternary", scale=Scale(method, "output"), estimator="straight_through"
        )
        layer.build((2, 6))
        (parameter,) = layer.discrete_parameters
        assert tuple(parameter.scale.shape) == (6,)
        latents = np.array([0.1, 0.7, -3, 2, -0.6, 0.2], "f4")
        parameter.latent.assign(latents)
        outputs = numpy(layer(np.ones((2, 6), "f4"), training=True))
        np.testing.assert_array_equal(outputs[0], [0, 1, -1, 1, -1, 0])
        moved_to = {
            "learned": np.ones(6),
            # Where zero is chosen no scale is better than another.
            "least_squares": np.where(np.abs(latents) < 0.5, 1, np.abs(latents)),
            "mean_absolute": np.abs(latents),
        }[method]
        np.testing.assert_allclose(numpy(parameter.scale), moved_to, rtol=1e-6)


# What is refused, and what is written down.


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Scale("mean"), r"scale is 'mean'\. Expected None .*'learned', .*Leave it out"),
        (lambda: Scale.get(2.0), r"scale is 2\.0\. Expected None"),
        (lambda: Scale(axis="input"), r"axis is 'input'\. Expected None .*Give 'output' if"),
        (lambda: Scale(axis=(0, 1.5)), r"axis is \(0, 1\.5\)\. Expected None"),
        (lambda: Scale(axis=True), r"axis is True\. Expected None"),
        (
            lambda: Scale(axis=2).shape((3, 4), (-1,)),
            r"axis of the scale is 2, but .* \(3, 4\)\. Expected axes from -2 to 1\. Give 'output'",
        ),
    ],
)
def test_bad_arguments_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_a_layer_refuses_an_axis_that_its_weight_has_not():
    with pytest.raises(ValueError, match="axis of the scale is 2"):
        Discrete(layers.Dense(3), "binary", scale=Scale(axis=2)).build((None, 4))


@pytest.mark.parametrize(
    "scale", [Scale(), Scale("least_squares", "output"), Scale("learned", [0, -1], True)], ids=repr
)
def test_config_round_trip(scale):
    assert Scale.get(scale.get_config()) == scale
    layer = Discrete(layers.Dense(3), "binary", scale=scale)
    again = Discrete.from_config(layer.get_config())
    assert again.scale == scale
    assert again.get_config() == layer.get_config()


@pytest.mark.parametrize(
    ("values", "expected"),
    [("ternary", Scale("learned", "output")), ([0.3, -0.7], None)],
    ids=["proportions", "numbers"],
)
def test_auto_is_decided_by_the_list(values, expected):
    dense = Discrete(layers.Dense(3), values, scale="auto")
    again = Discrete.from_config(dense.get_config())
    again.build((None, 4))
    assert again.scale == dense.get_config()["scale"] == "auto"
    state = again.discrete_parameters[0].scale_state
    assert (None if state is None else state.scale) == expected
    if state is not None:
        assert tuple(state.start.shape) == (1, 3)


def test_auto_gives_a_multiplier_one_scale():
    layer = LearnableMultiplier("ternary", scale="auto")
    again = LearnableMultiplier.from_config(layer.get_config())
    again.build((None, 5))
    assert again.scale == "auto"
    state = again.discrete_parameters[0].scale_state
    assert state.scale == Scale("learned")
    assert tuple(state.start.shape) == ()


def test_get():
    assert Scale.get(None) is None
    assert Scale.get("learned") == Scale("learned")
    assert Scale.get(scale := Scale(axis=0)) is scale


# What a layer computes.


WRAPPED = {
    "Dense": (lambda: layers.Dense(4), (5,), "kernel"),
    "Conv2D": (lambda: layers.Conv2D(4, 3, activation="relu"), (5, 5, 3), "kernel"),
    "DepthwiseConv2D": (lambda: layers.DepthwiseConv2D(3), (5, 5, 3), "kernel"),
    "Conv2DTranspose": (lambda: layers.Conv2DTranspose(4, 3), (4, 4, 3), "kernel"),
    "LSTM": (lambda: layers.LSTM(4), (3, 5), ("kernel", "recurrent_kernel")),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_a_layer_computes_with_its_values_times_their_scale(name, random):
    make, shape, weights = WRAPPED[name]
    discrete = Discrete(make(), NAMED["four"], weights, scale=Scale(axis="output"))
    x = random.normal(size=(2, *shape)).astype("f4")
    discrete(x)
    for parameter in discrete.discrete_parameters:
        state = parameter.scale_state
        state.relative.assign(np.exp(random.normal(size=state.relative.shape)))
        testing.assert_members(parameter.listed_values, parameter.values)
    plain = make()
    plain(x)
    listed = {
        id(p.latent): numpy(p.listed_values) * numpy(p.scale) for p in discrete.discrete_parameters
    }
    for target, source in zip(plain.variables, discrete.layer.variables, strict=True):
        target.assign(listed.get(id(source), numpy(source)))
    np.testing.assert_array_equal(numpy(discrete(x)), numpy(plain(x)))


@every_method
def test_a_multiplier_computes_with_its_values_times_their_scale(method, random):
    layer = LearnableMultiplier([1, -1, 0.5], scale=method, axis=(1, 2))
    x = random.normal(size=(3, 4, 5)).astype("f4")
    layer(x)
    layer.discrete_parameters[0].scale_state.relative.assign(np.float32(0.3))
    assert float(numpy(layer.discrete_parameters[0].scale)) == np.float32(0.3)
    expected = x * (np.float32(0.3) * numpy(layer.listed_values))
    np.testing.assert_array_equal(numpy(layer(x)), expected)


# Where a scale starts.


@pytest.mark.parametrize("name", ["binary", "ternary", "four", "uneven", "nine powers", "nf4"])
def test_a_new_layer_starts_at_the_spread_of_its_own_initializer(name):
    initializer = "he_normal" if name == "four" else "glorot_uniform"
    layer = layers.Dense(200, kernel_initializer=initializer)
    discrete = Discrete(layer, NAMED[name], scale=Scale(axis="output"))
    discrete.build((None, 100))
    parameter = discrete.discrete_parameters[0]
    weights = numpy(parameter.listed_values) * numpy(parameter.scale)
    variance = 2 / 100 if name == "four" else 2 / 300
    np.testing.assert_allclose(np.mean(weights**2), variance, rtol=0.05)


def test_a_new_layer_starts_at_the_nearest_power_of_two():
    discrete = Discrete(layers.Dense(200), "binary", scale=Scale(power_of_two=True))
    discrete.build((None, 100))
    # Glorot's root mean square is sqrt(2 / 300) = 0.0816, nearer to 1/16 than to 1/8.
    assert float(numpy(discrete.discrete_parameters[0].scale)) == 0.0625


def test_a_new_layer_within_fit_starts_at_the_spread_too():
    model = keras.Sequential([Discrete(layers.Dense(50), "binary", scale="learned")])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    model.fit(np.ones((8, 30)), np.ones((8, 50)), verbose=0)
    (parameter,) = parameters_of(model)
    np.testing.assert_allclose(numpy(parameter.scale), np.sqrt(2 / 80), rtol=0.05)


def test_a_new_multiplier_starts_at_one():
    layer = LearnableMultiplier([2, 4], scale="learned")
    layer.build((None, 3))
    assert float(numpy(layer.discrete_parameters[0].scale)) == 1.0


@every_method
@pytest.mark.parametrize("values", [NAMED["uneven"], ROWS], ids=["one list", "rows"])
def test_a_trained_layer_starts_at_the_scale_that_loses_least(method, values, random):
    fit = mean_absolute_scale if method == "mean_absolute" else least_squares_scale
    weights = (0.1 * random.normal(size=(30, 4))).astype("f4")

    def discrete(axis, power_of_two=False):
        dense = layers.Dense(4, use_bias=False)
        dense.build((None, 30))
        dense.kernel.assign(weights)
        wrapped = Discrete(dense, values, scale=Scale(method, axis, power_of_two))
        wrapped.build((None, 30))
        return wrapped.discrete_parameters[0]

    def lists_of(channel):
        return Values(values.numbers[channel]) if values.channels else values

    whole = fit(weights, values)
    columns = [fit(weights[:, channel], lists_of(channel)) for channel in range(4)]
    rows = [fit(row[None], values) for row in weights]
    for axis, expected in (
        (None, whole),
        ("output", np.array(columns)[None]),
        (0, np.array(rows)[:, None]),
    ):
        parameter = discrete(axis)
        np.testing.assert_allclose(numpy(parameter.scale), expected, rtol=1e-6)
        codes = values.codes(weights / numpy(parameter.scale))
        np.testing.assert_array_equal(numpy(parameter.codes), codes)
        # The same from weights that come later.
        parameter.latent.assign(np.zeros((30, 4), "f4"))
        parameter.start_from(2 * weights)
        np.testing.assert_allclose(numpy(parameter.scale), 2 * np.array(expected), rtol=1e-5)
        np.testing.assert_array_equal(numpy(parameter.codes), codes)
    power = discrete("output", power_of_two=True)
    expected = rounded_to_powers(np.float32(columns))[None]
    np.testing.assert_array_equal(numpy(power.scale), expected)
    np.testing.assert_array_equal(numpy(power.codes), values.codes(weights / expected))


@pytest.mark.parametrize("axis", [None, "output"])
def test_wrapping_a_layer_on_the_scaled_list_changes_nothing(axis, random):
    for name in ("binary", "four", "nf4"):
        dense = layers.Dense(5)
        dense.build((None, 64))
        scale = np.float32(0.037) * np.arange(1, 6).astype("f4") if axis else np.float32(0.037)
        codes = np.resize(np.arange(len(NAMED[name])), (5, 64)).T
        dense.kernel.assign(scale * NAMED[name].take(codes))
        kernel, x = numpy(dense.kernel), random.normal(size=(3, 64)).astype("f4")
        before = numpy(dense(x))
        discrete = Discrete(dense, NAMED[name], scale=Scale("learned", axis))
        np.testing.assert_array_equal(numpy(discrete(x)), before)
        np.testing.assert_array_equal(numpy(discrete.codes), codes)
        np.testing.assert_array_equal(
            numpy(discrete.listed_values) * numpy(discrete.discrete_parameters[0].scale), kernel
        )


# Setting, saving, compiling.


@every_list
@pytest.mark.parametrize("relative", [0.1, 3.3, 777.0])
def test_right_inverse(values, relative, random):
    parameter = parameter_of(values, Scale("least_squares", "output"), relative)
    scale = numpy(parameter.scale)
    codes = random.integers(len(values), size=parameter.shape)
    testing.assert_right_inverse(parameter, codes)
    np.testing.assert_array_equal(numpy(parameter.scale), scale)


def model_of_scales(**compile_arguments):
    model = keras.Sequential([keras.Input((4,)), LearnableMultiplier([1, 2, 3], scale="learned")])
    model.add(Discrete(layers.Dense(4), "ternary", scale=Scale("least_squares", "output", True)))
    model.add(Discrete(layers.Dense(4), ROWS, scale="mean_absolute"))
    model.add(Discrete(layers.Dense(4), Values(ROWS, learnable=True), scale=Scale(axis="output")))
    model.compile(keras.optimizers.Adam(0.02), "mse", **compile_arguments)
    return model


def test_keras_file(tmp_path, random):
    model = model_of_scales()
    x, y = random.normal(size=(32, 4)).astype("f4"), random.normal(size=(32, 4)).astype("f4")
    model.fit(x, y, epochs=3, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    for one, other in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(numpy(one), numpy(other))
    for one, other in zip(parameters_of(model), parameters_of(again), strict=True):
        for name in ("scale", "listed_values", "codes"):
            np.testing.assert_array_equal(numpy(getattr(one, name)), numpy(getattr(other, name)))
        assert one.values == other.values
        assert not np.array_equal(numpy(one.scale_state.relative), np.ones(one.scale.shape))
    np.testing.assert_array_equal(numpy(model(x)), numpy(again(x)))


@pytest.mark.parametrize("method", ["learned", "least_squares"])
def test_mixed_precision(method, random):
    keras.config.set_dtype_policy("mixed_bfloat16")
    discrete = Discrete(layers.Dense(3, use_bias=False), NAMED["tenths"], scale=method)
    model = keras.Sequential([keras.Input((6,)), discrete])
    model.compile(keras.optimizers.Adam(0.01), "mse")
    parameter = discrete.discrete_parameters[0]
    before = [numpy(parameter.latent), numpy(parameter.scale_state.relative)]
    x, y = random.normal(size=(32, 6)).astype("f4"), random.normal(size=(32, 3)).astype("f4")
    model.fit(x, y, epochs=2, verbose=0)
    for old, variable in zip(
        before, [parameter.latent, parameter.scale_state.relative], strict=True
    ):
        assert variable.dtype == "float32"
        assert not np.array_equal(old, numpy(variable))
    testing.assert_members(parameter.listed_values, parameter.values)
    # The product is rounded once.
    product = ops.cast(numpy(parameter.listed_values) * numpy(parameter.scale), "bfloat16")
    outputs = numpy(ops.cast(discrete(np.eye(6)), "float32"))
    np.testing.assert_array_equal(outputs, numpy(ops.cast(product, "float32")))


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        (NAMED["four"], Scale("learned", "output")),
        (NAMED["ternary"], Scale("learned", power_of_two=True)),
        (ROWS, Scale("least_squares", "output")),
    ],
    ids=["one list", "powers of two", "rows"],
)
def test_compiled_codes_are_the_eager_ones(values, scale):
    parameter = parameter_of(values, scale, shape=(500, 4))
    # Many latents about the midpoints, scaled: where an ulp decides.
    exact = InNumPy(parameter)
    middles = values.midpoints if values.channels else np.tile(values.midpoints, (4, 1))
    near = np.resize(middles.T, (500, 4)) * np.broadcast_to(exact.relative, (1, 4))
    near = near.astype(np.float32)
    for _ in range(2):
        near[::3] = np.nextafter(near[::3], np.float32(np.inf))
        near[1::3] = np.nextafter(near[1::3], np.float32(-np.inf))
    parameter.latent.assign(LatentUnits(values, 2).latents_of(near))
    assert len(np.unique(numpy(parameter.codes))) > 1

    def read(latent):
        with keras.StatelessScope([(parameter.latent, latent)]):
            return parameter.listed_values, parameter.codes, parameter.compute(training=False)

    latent = ops.convert_to_tensor(numpy(parameter.latent))
    for eager, fast in zip(read(latent), testing.compiled(read)(latent), strict=True):
        np.testing.assert_array_equal(numpy(fast), numpy(eager))


@pytest.mark.slow
def test_every_scale_trains_under_the_compiler_of_pytorch(random):
    if keras.config.backend() != "torch":
        pytest.skip("the other backends compile in test_fit_moves_each_scale_as_its_formula_says")
    x, y = random.normal(size=(32, 4)).astype("f4"), random.normal(size=(32, 4)).astype("f4")
    model = model_of_scales(jit_compile=True)
    before = [numpy(p.scale_state.relative) for p in parameters_of(model)]
    model.fit(x, y, epochs=2, verbose=0)
    for old, parameter in zip(before, parameters_of(model), strict=True):
        assert not np.array_equal(old, numpy(parameter.scale_state.relative))
        testing.assert_members(parameter.listed_values, parameter.values)


@pytest.mark.skipif(keras.config.backend() != "jax", reason="the other backends have own forms")
@pytest.mark.parametrize("shape", [(3, 5), (256, 512), (5, 3, 256, 64)])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("ends", ["floats", "tensors"])
def test_a_scaled_value_has_the_gradient_of_the_general_form(shape, per_channel, ends, random):
    import jax

    def general(value, damped, latent, low, high):
        inside = (latent >= low) & (latent <= high)
        slope = jax.lax.stop_gradient(value) - jax.numpy.where(inside, latent, 0.0)
        return 0.5 * value + slope * (damped - jax.lax.stop_gradient(damped))

    def own(value, damped, latent, low, high):
        return scaled(value, ops.full_like(damped, 0.5), latent, damped, low, high)

    factors = (1,) * (len(shape) - 1) + shape[-1:] if per_channel else ()
    value, latent, upstream = (random.normal(size=shape).astype("float32") for _ in range(3))
    damped = random.uniform(0.5, 1, factors).astype("float32")
    low, high = (-1.0, 0.5) if ends == "floats" else (np.float32([-1.0]), np.float32([0.5]))
    gradients = []
    for function in (general, own):
        result, pull_back = jax.vjp(
            lambda *pair, function=function: function(*pair, latent, low, high), value, damped
        )
        np.testing.assert_array_equal(result, 0.5 * value)
        gradients.append(pull_back(upstream))
    for one, other in zip(*gradients, strict=True):
        assert one.shape == other.shape
        scale_of_sums = np.sqrt(value.size / max(damped.size, 1))
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5 * scale_of_sums)
