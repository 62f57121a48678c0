"""Scales of groups: consecutive inputs of an output channel share one."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import quantal
from conftest import gradient_to, numpy, on_one_backend
from quantal import Discrete, LearnableMultiplier, Scale, Values, parameters_of, testing
from quantal._core.numbers.fitting import least_squares_scale, mean_absolute_scale
from quantal._core.numbers.scale_blocks import fits, spread
from quantal._core.scale import METHODS
from quantal._storage.record import record_of

TERNARY = Values("ternary")


def group_of_each(shape, group):
    """The number of the scale of each element of a weight whose outputs are its last axis."""
    *inputs, outputs = shape
    index = np.arange(np.prod(inputs, dtype=int)) // group
    return (index[:, None] * outputs + np.arange(outputs)).reshape(shape)


def dense(scale, shape=(12, 3), values=TERNARY):
    """A parameter with random latents and scales that have moved."""
    layer = Discrete(layers.Dense(shape[1], use_bias=False), values, scale=scale)
    layer.build((None, shape[0]))
    (parameter,) = layer.discrete_parameters
    random = np.random.default_rng(3)
    parameter.set_latents(random.normal(size=shape).astype("f4"))
    state = parameter.scale_state
    state.begin(np.exp(random.normal(size=state.start.shape)).astype("f4"))
    state.relative.assign(np.exp(0.2 * random.normal(size=state.start.shape)).astype("f4"))
    return parameter


# The shape.


@on_one_backend
@pytest.mark.parametrize(
    ("shape", "group", "expected"),
    [
        ((12, 3), 4, (3, 3)),
        ((12, 3), 12, (1, 3)),
        ((12, 3), 128, (1, 3)),
        ((12, 3), 1, (12, 3)),
        ((2, 2, 6, 3), 3, (2, 2, 2, 3)),
        ((2, 2, 6, 3), 12, (2, 1, 1, 3)),
    ],
)
def test_groups_are_consecutive_inputs(shape, group, expected):
    assert Scale(group=group).shape(shape, [-1]) == expected
    assert fits(expected, shape)
    counts = np.arange(np.prod(expected)).reshape(expected)
    indices = np.broadcast_to(spread(counts, shape), shape)
    same = group_of_each(shape, group)
    # The same partition of the elements.
    assert len(np.unique(indices)) == len(np.unique(same))
    assert len(set(zip(indices.ravel(), same.ravel(), strict=True))) == len(np.unique(same))


@on_one_backend
@pytest.mark.parametrize(
    ("scale", "words"),
    [
        (lambda: Scale(group=0), "group is 0. Expected the number of inputs"),
        (lambda: Scale(group=2.5), "group is 2.5. Expected the number"),
        (lambda: Scale(axis=0, group=4), "axis is 0 with a group of 4. Expected 'output'"),
        (
            lambda: Scale(group=128).shape((784, 10), [-1], "dense/kernel"),
            "group is 128, but dense/kernel has 784 inputs.*Give 49, 56, 98, 112, 196 or 392;",
        ),
        (lambda: Scale(group=6).shape((2, 4, 3), [-1]), "the weight has 8 inputs.*Give"),
    ],
)
def test_groups_that_do_not_fit_are_refused(scale, words):
    with pytest.raises(ValueError, match=words):
        scale()


@on_one_backend
def test_a_layer_names_the_weight_that_its_group_does_not_fit():
    model = keras.Sequential([keras.Input((20,)), layers.Dense(3, name="head")])
    with pytest.raises(ValueError, match=r"group is 8, but .*head/kernel has 20 inputs"):
        quantal.discretize(model, "ternary", scale=Scale(group=8), keep_ends=0)
    with pytest.raises(ValueError, match="lists for 4 channels along axis 0, and groups of 2"):
        Scale(group=2).fitted(np.ones((4, 1), "f4"), Values([[1, 2]] * 4, axis=0), (2, 1))


@on_one_backend
def test_config_and_repr():
    scale = Scale("mean_absolute", group=8)
    assert Scale.get(scale.get_config()) == scale
    assert eval(repr(scale)) == scale
    assert scale.axis == "output"
    assert Scale.get({"method": "learned", "axis": None, "power_of_two": False}) == Scale()


# What it computes.


def test_the_gradient_of_a_group_is_lsqs_by_central_differences(random):
    parameter = dense(Scale(group=4))
    state, index = parameter.scale_state, group_of_each((12, 3), 4)
    upstream = random.normal(size=(12, 3)).astype("f4")
    gradient = gradient_to(
        state.relative, lambda: ops.multiply(parameter.compute(training=True), upstream)
    )
    start, relative = numpy(state.start).astype(float), numpy(state.relative).astype(float)
    listed = numpy(parameter.listed_values).astype(float)
    latent = numpy(parameter.latent_in_list_units).astype(float)
    numbers = latent * (start * relative).ravel()[index]

    def surrogate(relative):
        """The value as LSQ moves it with the scale: it rounds what stays, and clips the rest."""
        scale = (start * relative).ravel()[index]
        inside = np.abs(latent) <= 1
        shown = np.where(inside, listed + numbers / scale - latent, listed)
        return np.sum(scale * shown * upstream)

    expected, step = np.zeros(relative.shape), 1e-6
    for position in np.ndindex(relative.shape):
        change = np.zeros(relative.shape)
        change[position] = step
        difference = surrogate(relative + change) - surrogate(relative - change)
        expected[position] = difference / (2 * step)
    expected /= np.sqrt(4 * 1.0)  # LSQ's damping: elements of a scale times the largest value.
    assert 0 < np.sum(np.abs(latent) > 1) < latent.size
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-5)


def test_values_are_scaled_by_their_groups():
    parameter = dense(Scale(group=4))
    scales = numpy(parameter.scale_state.compact())
    assert scales.shape == (3, 3)
    of_elements = scales.ravel()[group_of_each((12, 3), 4)]
    expected = numpy(parameter.listed_values) * of_elements
    np.testing.assert_array_equal(numpy(parameter.weight), expected)
    np.testing.assert_array_equal(numpy(parameter.compute(True)), expected)
    assert parameter.bits == 12 * 3 * 2 + 9 * 32


@pytest.mark.parametrize("method", ["least_squares", "mean_absolute"])
def test_a_training_step_moves_each_group_by_its_formula(method):
    parameter = dense(Scale(method, group=4))
    state, index = parameter.scale_state, group_of_each((12, 3), 4)
    latent, nearest = (
        numpy(tensor).astype(float)
        for tensor in (parameter.latent_in_list_units, parameter.listed_values)
    )
    numbers = latent * numpy(state.relative).ravel()[index]
    before = numpy(state.relative).ravel().copy()
    parameter.advance()
    for group, relative in enumerate(numpy(state.relative).ravel()):
        u, listed = numbers[index == group], nearest[index == group]
        expected = np.abs(u).mean()
        if method == "least_squares":
            square = np.sum(listed**2)
            # A group whose values are all 0 stays.
            expected = np.sum(u * listed) / square if square else before[group]
        assert relative == pytest.approx(expected, rel=1e-5)


@on_one_backend
@pytest.mark.parametrize("method", METHODS)
def test_trained_weights_start_at_the_best_scale_of_each_group(method, random):
    weights = random.normal(size=(2, 2, 6, 3)).astype("f4")
    layer = layers.Conv2D(3, 2, use_bias=False)
    layer.build((None, 5, 5, 6))
    layer.kernel.assign(weights)
    wrapped = Discrete(layer, TERNARY, scale=Scale(method, group=12))
    wrapped.build((None, 5, 5, 6))
    (parameter,) = wrapped.discrete_parameters
    index = group_of_each(weights.shape, 12)
    fit = mean_absolute_scale if method == "mean_absolute" else least_squares_scale
    expected = [fit(weights[index == group], TERNARY) for group in range(6)]
    np.testing.assert_array_equal(numpy(parameter.scale_state.start).ravel(), np.float32(expected))
    scales = np.float32(expected)[index]
    np.testing.assert_array_equal(
        numpy(parameter.weight), TERNARY.nearest(weights / scales) * scales
    )
    codes = numpy(parameter.codes)
    parameter.start_from(weights)
    np.testing.assert_array_equal(numpy(parameter.codes), codes)
    testing.assert_right_inverse(parameter, codes[::-1])


@on_one_backend
def test_lists_per_channel_are_fitted_in_groups(random):
    values = Values([[1, -1, 0.5], [0.25, 3, -2]], axis=1)
    weights = random.normal(size=(8, 2)).astype("f4")
    scales = Scale(group=4).fitted(weights, values, (2, 2))
    for group, channel in np.ndindex(2, 2):
        part = weights[4 * group : 4 * group + 4, channel]
        assert scales[group, channel] == np.float32(
            least_squares_scale(part, Values(values.numbers[channel]))
        )


def test_a_multiplier_has_groups_along_itself():
    layer = LearnableMultiplier("binary", scale=Scale(group=3), seed=1)
    layer.build((None, 6))
    (parameter,) = layer.discrete_parameters
    parameter.scale_state.begin(np.float32([0.5, 2.0]))
    layer.set_codes([0, 1, 0, 1, 1, 0])
    expected = [[-0.5, 0.5, -0.5, 2, 2, -2]]
    np.testing.assert_array_equal(numpy(layer(np.ones((1, 6), "f4"))), np.float32(expected))


# Whole models.


def model_of(random):
    model = keras.Sequential(
        [
            keras.Input((6, 6, 4)),
            layers.Conv2D(8, 3, name="conv"),
            layers.Flatten(),
            layers.Dense(16, activation="relu", name="dense"),
            layers.Dense(3, name="head"),
        ]
    )
    for variable in model.variables:
        variable.assign(random.normal(size=variable.shape).astype("f4") * 0.3)
    return model


@pytest.fixture
def grouped(random):
    return quantal.discretize(
        model_of(random), "ternary", scale=Scale("learned", group=4), keep_ends=0
    )


def test_training_and_the_trace(grouped, random):
    x, y = random.normal(size=(8, 6, 6, 4)).astype("f4"), random.normal(size=(8, 3)).astype("f4")
    testing.assert_listed(grouped)
    grouped.compile(keras.optimizers.Adam(0.01), "mse")
    before = [numpy(p.scale_state.relative) for p in parameters_of(grouped)]
    grouped.fit(x, y, batch_size=4, epochs=1, verbose=0)
    for parameter, old in zip(parameters_of(grouped), before, strict=True):
        assert (numpy(parameter.scale_state.relative) != old).mean() > 0.5


@on_one_backend
def test_files_hold_a_number_for_each_group(grouped, random, tmp_path):
    x = random.normal(size=(5, 6, 6, 4)).astype("f4")
    expected = grouped.predict(x, verbose=0)
    path = tmp_path / "model.quantal"
    quantal.save(grouped, path)
    for parameter in parameters_of(grouped):
        assert record_of(parameter).scale.size == np.prod(parameter.shape) // 4
    per_channel = quantal.discretize(model_of(random), "ternary", keep_ends=0)
    quantal.save(per_channel, tmp_path / "channels.quantal")
    numbers = sum(p.scale_state.start.value.numel() for p in parameters_of(grouped)) - 8 - 16 - 3
    larger = path.stat().st_size - (tmp_path / "channels.quantal").stat().st_size
    assert 0.9 * 4 * numbers < larger < 1.2 * 4 * numbers
    grouped.save(tmp_path / "model.keras")
    for other in (
        quantal.load(path),
        keras.saving.load_model(tmp_path / "model.keras"),
        quantal.finalize(grouped),
        quantal.bake(grouped),
    ):
        np.testing.assert_array_equal(other.predict(x, verbose=0), expected)
    runtime = quantal.runtime.load(path)
    np.testing.assert_allclose(runtime.predict(x), expected, atol=1e-4)
    assert [row.scales for row in quantal.summary(grouped).rows if row.scales] == [72, 512, 12]


@on_one_backend
def test_calibration_keeps_the_groups(random):
    model = model_of(random)
    x = random.normal(size=(64, 6, 6, 4)).astype("f4")
    expected = model.predict(x, verbose=0)
    plain, calibrated = (
        quantal.discretize(
            model, "signed:3", scale=Scale(group=4), keep_ends=0, calibrate=samples
        ).predict(x, verbose=0)
        for samples in (None, x)
    )
    assert np.square(calibrated - expected).mean() < 0.7 * np.square(plain - expected).mean()


@on_one_backend
@pytest.mark.parametrize("ending", [".c", ".onnx", ".npz"])
def test_exports_hold_the_groups_or_floats(ending, grouped, tmp_path):
    report = quantal.export(grouped, tmp_path / f"model{ending}")
    assert report.paths
    if ending == ".npz":
        arrays = np.load(report.paths[0])
        for parameter in parameters_of(grouped):
            parts = (arrays[f"{parameter.path}.{kind}"] for kind in ("values", "codes", "scale"))
            values, codes, scale = parts
            np.testing.assert_array_equal(values[codes] * scale, numpy(parameter.weight))
