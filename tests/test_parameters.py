import threading

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from keras import layers, ops

import quantal
from conftest import numpy, on_one_backend
from lists import LONG, NAMED, lists
from quantal import Discrete, LearnableMultiplier, Values, parameters_of, testing
from quantal._core.tensors import latent_units
from quantal._core.tensors.latent_units import LatentUnits, draw_latents, entry_units
from quantal._core.weight_scope import weights_replaced

EVERY = {**NAMED, **LONG}


def built(values, size=64, **arguments):
    layer = LearnableMultiplier(values, **arguments)
    layer.build((None, size))
    return layer


# Law 5: codes can be set, and are what is read.


@pytest.mark.parametrize("values", EVERY.values(), ids=EVERY)
def test_right_inverse(values, random):
    layer = built(values, size=300)
    codes = np.resize(np.arange(len(values)), 300)
    testing.assert_right_inverse(layer.discrete_parameters[0], random.permutation(codes))


@pytest.mark.product
@settings(max_examples=10)
@given(lists())
def test_right_inverse_for_any_list(values):
    # All values, in a layer of one size: each other shape would be compiled anew.
    layer = built(values, size=257)
    codes = np.resize(np.arange(len(values)), 257)
    testing.assert_right_inverse(layer.discrete_parameters[0], codes)


@given(lists(), lists(longest=20))
def test_latent_units_are_exact_both_ways_on_the_list(values, others):
    units = LatentUnits(values)
    latents = units.latents_of(values.numbers)
    assert np.isfinite(latents).all()
    np.testing.assert_array_equal(numpy(units.values_of(latents)), values.numbers)


@pytest.mark.parametrize(
    ("numbers", "offset", "unit"),
    [
        ([0.3], 0.3, 1),
        ([0.0], 0, 1),
        ([1, -1, 0.5, -0.5], 0, 1),
        ([0.01, -0.01], 0, 2**-6),
        ([8, -8], 0, 8),
        ([-5, 5.5], 0, 8),
        ([0, 40], 0, 32),
        ([1000, 1002], 1001, 1),
        ([-1000, -1002], -1001, 1),
        # Nearest to zero is twice half the range away, and no more: no offset.
        ([2, 4], 0, 1),
        ([2.01, 4], 3.005, 1),
        # A quotient could leave float32's normal range.
        ([1e-37, -1e-37], 0, 1),
        ([3e38, -3e38], 0, 1),
        ([1, 1e-37, -1], 0, 1),
        ([2.0**40, 1e-37], 0, 1),
        ([2, -2, 2.0**-98], 0, 2),
        ([2, -2, 2.0**-99], 0, 1),
        ([2.0**-99, -(2.0**-99)], 0, 2.0**-99),
        ([2.0**-100, -(2.0**-100)], 0, 1),
        ([2.0**99, -(2.0**99)], 0, 2.0**99),
        ([2.0**100, -(2.0**100)], 0, 1),
    ],
)
def test_units_of_a_list(numbers, offset, unit):
    units = LatentUnits(Values(numbers))
    assert (units.offset, units.unit) == (np.float32(offset), unit)
    numbers = np.float32(numbers)
    latents = units.latents_of(numbers)
    np.testing.assert_array_equal(numpy(units.latents_of(ops.convert_to_tensor(numbers))), latents)
    np.testing.assert_allclose(
        latents.astype(float) * unit + offset, numbers.astype(float), rtol=1e-6, atol=1e-7
    )
    np.testing.assert_array_equal(numpy(units.values_of(latents)), numbers)


def test_units_of_lists_per_channel():
    values = Values([[1, -1], [1000, 1002], [0.01, -0.01]], axis=1)
    units = LatentUnits(values, 3)
    np.testing.assert_array_equal(units.unit, np.reshape([1, 1, 2**-6], (1, 3, 1)))
    np.testing.assert_array_equal(units.offset, np.reshape([0, 1001, 0], (1, 3, 1)))


def test_entries_of_lists_per_channel_have_units_in_rows():
    values = Values([[1, -1], [0.01, -0.01]], axis=-1, learnable=True)
    np.testing.assert_array_equal(entry_units(values).unit, [[1], [2**-6]])


def test_latents_are_of_order_one():
    for values in NAMED.values():
        if len(values) > 1:
            latents = LatentUnits(values).latents_of(values.numbers)
            assert 0.5 <= (latents.max() - latents.min()) / 2 <= 1
            assert abs(latents).max() <= 5


# First latents: every value is reached, and the first steps flip both ways.


# The gaps of "tiny" are subnormal, which some processors read as zero.
@pytest.mark.parametrize("name", [name for name in EVERY if name != "tiny"])
def test_every_value_is_held_at_first(name):
    values = EVERY[name]
    draws = draw_latents(values, (20_000,), seed=1)
    codes = values.codes(numpy(LatentUnits(values).values_of(draws)))
    assert values.usage(codes).min() > 0


@pytest.mark.parametrize("name", ["binary", "four", "uneven", "nine powers", "one-sided"])
@pytest.mark.parametrize("direction", [-1, 1])
def test_a_short_way_flips_in_both_directions(name, direction):
    values = NAMED[name]
    numbers = numpy(LatentUnits(values).values_of(draw_latents(values, (1000,), seed=1)))
    moved = numbers + direction * 0.06 * np.diff(values.ascending.astype(float)).max()
    assert np.mean(values.codes(moved) != values.codes(numbers)) > 0.4


def test_first_latents_of_a_binary_list_are_a_fortieth_of_it_wide():
    draws = numpy(draw_latents(Values("binary"), (10_000,), seed=0))
    assert 0.049 < np.abs(draws).max() <= 0.05
    assert abs(draws.mean()) < 0.002


def test_first_latents_lie_in_bands_around_the_midpoints():
    values = Values([[0, 1, 4], [-3, 5, 6]], axis=1)
    draws = numpy(draw_latents(values, (3000, 2, 2), seed=0, spread=0.1))
    numbers = numpy(LatentUnits(values, 3).values_of(draws))
    for channel, (midpoints, gaps) in enumerate([([0.5, 2.5], [1, 3]), ([1, 5.5], [8, 1])]):
        x = numbers[:, channel].ravel()
        index = np.argmin(np.abs(x[:, None] - midpoints), axis=1)
        shift = (x - np.take(midpoints, index)) / np.take(gaps, index)
        assert 0.049 < np.abs(shift).max() < 0.0501
        assert abs(index.mean() - 0.5) < 0.02
        assert abs(shift.mean()) < 0.002
    only = draw_latents(Values([[3], [7]], axis=0), (2, 5), seed=0)
    np.testing.assert_array_equal(
        numpy(LatentUnits(Values([[3], [7]], axis=0), 2).values_of(only)),
        np.repeat([[3], [7]], 5, axis=1),
    )


def test_latents_drawn_in_blocks_are_those_drawn_at_once(monkeypatch):
    values = Values([1, -1, 0.25])
    at_once = numpy(draw_latents(values, (7, 2, 3), seed=1))
    monkeypatch.setattr(latent_units, "_DRAWN_AT_ONCE", 5)
    np.testing.assert_array_equal(numpy(draw_latents(values, (7, 2, 3), seed=1)), at_once)


def test_seeds():
    values = Values("ternary")
    same = [numpy(draw_latents(values, (9,), seed=3)) for _ in range(2)]
    np.testing.assert_array_equal(*same)
    assert not np.array_equal(same[0], numpy(draw_latents(values, (9,), seed=4)))


def test_an_initializer_is_in_the_units_of_the_list():
    layer = built([10, 20, 40], kernel_initializer=keras.initializers.Constant(19.0))
    np.testing.assert_array_equal(numpy(layer.listed_values), np.full(64, 20))


# Reading and setting.


@pytest.mark.parametrize(
    ("codes", "error", "words"),
    [
        ([0, 1], ValueError, r"codes have the shape \(2,\)"),
        ([0.0, 1.0, 0.0], TypeError, "Codes are positions"),
        ([0, 1, 2], ValueError, "codes go from 0 to 2"),
    ],
)
def test_bad_codes_are_refused(codes, error, words):
    with pytest.raises(error, match=words):
        built([1, -1], size=3).set_codes(codes)


def test_kernel_and_codes_are_plain_arrays_to_numpy():
    layer = built([1, -1, 0.5])
    assert np.asarray(numpy(layer.codes)).dtype == np.int32
    assert numpy(layer.listed_values).dtype == np.float32
    assert tuple(layer.listed_values.shape) == (64,)


@pytest.mark.parametrize("layer", ["multiplier", "dense"])
def test_the_weight_is_what_meets_the_data(layer):
    if layer == "multiplier":
        discrete, data = LearnableMultiplier("ternary", scale="learned"), np.eye(3)
    else:
        discrete = Discrete(layers.Dense(3, use_bias=False), "ternary", scale="learned")
        data = np.eye(3)
    outputs = discrete(data)
    discrete.discrete_parameters[0].scale_state.begin(np.float32(0.3))
    outputs = numpy(discrete(data))
    weight = numpy(discrete.kernel)
    np.testing.assert_array_equal(outputs.sum(0) if weight.ndim == 1 else outputs, weight)
    np.testing.assert_array_equal(weight, np.float32(0.3) * numpy(discrete.listed_values))
    np.testing.assert_array_equal(weight, numpy(discrete.discrete_parameters[0].weight))


def test_computing_moves_no_state():
    layer = built("ternary", estimator="settling", scale="least_squares")
    parameter = layer.discrete_parameters[0]
    before = [numpy(variable).copy() for variable in parameter.other_variables]
    scale = numpy(parameter.scale_state.relative).copy()
    parameter.compute(training=True)
    for old, variable in zip(before, parameter.other_variables, strict=True):
        np.testing.assert_array_equal(old, numpy(variable))
    parameter.advance()
    assert numpy(parameter.state)[0] == before[0][0] + 1
    assert not np.array_equal(scale, numpy(parameter.scale_state.relative))


# Other tensors in place of listed values, within a scope.


def test_nothing_advances_within_the_scope():
    parameter = built("ternary", estimator="settling", scale="least_squares").discrete_parameters[0]
    before = [numpy(variable).copy() for variable in parameter.other_variables]
    with weights_replaced({parameter: parameter.listed_values}):
        parameter.advance()
    for old, variable in zip(before, parameter.other_variables, strict=True):
        np.testing.assert_array_equal(old, numpy(variable))


def test_weights_are_replaced_within_the_scope_alone():
    one, other = (
        built([1, -1], size=2, scale=scale).discrete_parameters[0] for scale in (None, "learned")
    )
    other.scale_state.begin(np.float32(3))
    before = numpy(one.weight)
    with weights_replaced({one: ops.ones(2) * 7, other: ops.ones(2) * 7}):
        np.testing.assert_array_equal(numpy(one.weight), [7, 7])
        np.testing.assert_array_equal(numpy(other.weight), [21, 21])
        with weights_replaced({one: ops.zeros(2)}):
            np.testing.assert_array_equal(numpy(one.weight), [0, 0])
            np.testing.assert_array_equal(numpy(other.weight), [21, 21])
        np.testing.assert_array_equal(numpy(one.weight), [7, 7])
    np.testing.assert_array_equal(numpy(one.weight), before)


def test_a_scope_ends_with_an_error_and_is_its_threads_own():
    parameter = built([1, -1], size=2).discrete_parameters[0]
    before = numpy(parameter.weight)
    elsewhere = []

    def interrupted():
        with weights_replaced({parameter: ops.zeros(2)}):
            thread = threading.Thread(target=lambda: elsewhere.append(numpy(parameter.weight)))
            thread.start()
            thread.join()
            raise KeyError

    with pytest.raises(KeyError):
        interrupted()
    np.testing.assert_array_equal(elsewhere[0], before)
    np.testing.assert_array_equal(numpy(parameter.weight), before)


def test_parameters_of_finds_each_once():
    shared = LearnableMultiplier("ternary", name="shared")
    inner = keras.Sequential([keras.Input((4,)), Discrete(layers.Dense(4), "binary", name="inner")])
    inputs = keras.Input((4,))
    model = keras.Model(inputs, shared(inner(shared(inputs))))
    paths = [parameter.path for parameter in parameters_of(model)]
    assert len(paths) == 2
    assert any("shared" in path for path in paths)
    assert "shape (4, 4)" in repr(parameters_of(inner)[0])


def test_parameters_of_refuses_what_has_none_yet():
    with pytest.raises(ValueError, match="is not built"):
        parameters_of(keras.Sequential([LearnableMultiplier()]))
    with pytest.raises(TypeError, match="Expected a Keras model"):
        parameters_of([1, 2])
    assert parameters_of(keras.Sequential([layers.Dense(2)])) == []


def test_reading_before_building_is_refused():
    with pytest.raises(ValueError, match="is not built, so it has no values yet"):
        _ = LearnableMultiplier().codes


# Diverged parameters: everything says NaN, or refuses by name before it changes anything.


LEARNED_LIST = Values([-1.0, 0.25, 1.0], learnable=True)


def spoiled(what, number=np.nan):
    layer = Discrete(layers.Dense(3), LEARNED_LIST, scale="learned", estimator="annealed")
    model = keras.Sequential([keras.Input((4,)), layer])
    (parameter,) = parameters_of(model)
    variable = {
        "latents": parameter.latent, "numbers of the scale": parameter.scale_state.relative,
        "numbers of the list": parameter.entries, "numbers of the estimator": parameter.state,
    }[what]  # fmt: skip
    numbers_of = np.array(numpy(variable))
    numbers_of.reshape(-1)[:1] = number
    variable.assign(numbers_of)
    return model, parameter


@on_one_backend
@pytest.mark.parametrize("number", [np.nan, np.inf])
@pytest.mark.parametrize(
    "what", ["latents", "numbers of the scale", "numbers of the list", "numbers of the estimator"]
)
def test_a_diverged_parameter_is_refused_by_name(what, number, tmp_path):
    model, parameter = spoiled(what, number)
    words = rf"1 of \d+ {what}.* of .*/kernel are not finite, such as {number}"
    path = tmp_path / "good.quantal"
    path.write_bytes(b"good")
    for use in (
        lambda: parameter.check_finite(),
        lambda: parameter.codes,
        lambda: quantal.save(model, path),
        lambda: quantal.finalize(model),
        lambda: quantal.bake(model),
    ):
        with pytest.raises(ValueError, match=words):
            use()
    with pytest.raises(ValueError, match=f"kernel|{number}"):
        quantal.export(model, tmp_path / "model.npz")
    assert path.read_bytes() == b"good"
    assert [file.name for file in tmp_path.iterdir()] == ["good.quantal"]


@on_one_backend
@pytest.mark.parametrize("start", [0.0, -1.0])
def test_a_scale_that_is_not_positive_is_refused_by_name(start, tmp_path):
    layer = Discrete(layers.Dense(3), "ternary", scale="learned", name="listed")
    model = keras.Sequential([keras.Input((4,)), layer])
    layer.discrete_parameters[0].scale_state.start.assign(start)
    path = tmp_path / "good.quantal"
    path.write_bytes(b"good")
    for use in (lambda: quantal.save(model, path), lambda: quantal.bake(model)):
        with pytest.raises(ValueError, match=r"1 of 1 scales of .*/kernel are not finite and pos"):
            use()
    assert path.read_bytes() == b"good"


def test_predictions_and_listed_values_agree_on_nan(random):
    model, parameter = spoiled("latents")
    assert np.isnan(numpy(model(random.normal(size=(2, 4))))[:, 0]).all()
    for numbers_read in (parameter.listed_values, parameter.weight):
        assert np.isnan(numpy(numbers_read)).sum() == 1
    model, parameter = spoiled("numbers of the scale")
    assert np.isnan(numpy(parameter.listed_values)).all()
    assert np.isnan(numpy(parameter.weight)).all()


@on_one_backend
def test_nothing_starts_at_nan():
    (parameter,) = parameters_of(
        keras.Sequential(
            [keras.Input((4,)), Discrete(layers.Dense(3), LEARNED_LIST, scale="learned")]
        )
    )
    before = [numpy(v).copy() for v in (parameter.latent, *parameter.other_variables)]
    with pytest.raises(ValueError, match=r"12 of 12 weights of .*/kernel are not finite"):
        parameter.start_from(np.full((4, 3), np.nan))
    with pytest.raises(ValueError, match=r"1 of 3 numbers of .*/kernel are not finite"):
        parameter.set_values([0, np.inf, 1])
    for old, variable in zip(before, (parameter.latent, *parameter.other_variables), strict=True):
        np.testing.assert_array_equal(numpy(variable), old)
    parameter.scale_state.relative.assign(np.nan)
    with pytest.raises(ValueError, match=r"latents of these codes of .* are not finite"):
        parameter.set_codes(np.zeros((4, 3), int))
    plain = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="plain")])
    plain.set_weights([np.full((4, 3), np.nan), np.zeros(3)])
    with pytest.raises(ValueError, match=r"12 of 12 weights of .*plain/kernel are not finite"):
        quantal.discretize(plain, "ternary")
    with pytest.raises(ValueError, match=r"12 of 12 weights of .*plain/kernel are not finite"):
        Discrete(plain.layers[0], "ternary")


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_latents_are_read_in_float32_within_a_layer_of_half_precision(policy):
    class Tied(layers.Layer):
        def call(self, x):
            return ops.matmul(x, ops.cast(self.tied.kernel, self.compute_dtype))

    discrete = Discrete(layers.Dense(2, use_bias=False), [0, 1], dtype=policy)
    tied = Tied(dtype=policy)
    discrete(np.eye(2))
    tied.tied = discrete
    # In half precision these numbers would be the midpoint.
    discrete.discrete_parameters[0].start_from(np.full((2, 2), 0.49999))
    assert not numpy(tied(np.eye(2))).any()
