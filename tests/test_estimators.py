import keras
import numpy as np
import pytest
from hypothesis import given, settings
from keras import ops

from conftest import numpy
from lists import LISTS, LONG, NAMED, PER_CHANNEL, by_channel, latents_for, lists
from quantal import Values, estimators, testing
from quantal._core.tensors import gradients
from quantal._core.tensors.projection import projection_of
from quantal.estimators import (
    Annealed,
    ElementWiseScaled,
    GumbelSoftmax,
    MeanField,
    Settling,
    StraightThrough,
    registry,
)
from quantal.estimators.contrib import ArgmaxStraightThrough, BinaryRelax, Residual
from quantal.estimators.policy import parse

SURROGATES = ["identity", "clip", "tanh", "approx_sign", "swish_sign"]
EVERY = [
    *(StraightThrough(name) for name in SURROGATES),
    StraightThrough("tanh", sharpness=3.0),
    ArgmaxStraightThrough(),
    ArgmaxStraightThrough(temperature=0.2),
    Annealed(),
    BinaryRelax(),
    Settling(),
    ElementWiseScaled(),
    ElementWiseScaled(strength=1.5),
    Residual(),
    GumbelSoftmax(),
    GumbelSoftmax(hard=False, temperature=2.0),
    MeanField(),
]
# Laws 3 and 4: the value going forward.


@pytest.mark.parametrize("estimator", EVERY, ids=repr)
@pytest.mark.parametrize("values", LISTS.values(), ids=LISTS)
def test_forward_is_listed(estimator, values):
    # In training a residual leaves the list's range, and a mean does by a rounding.
    testing.assert_hard(estimator, values, within=not isinstance(estimator, (Residual, MeanField)))


@pytest.mark.product
@settings(max_examples=25)
@given(lists(longest=40))
def test_forward_is_listed_for_any_list(values):
    testing.assert_hard(StraightThrough(), values)
    testing.assert_hard(Annealed(), values)


def assert_no_nan(estimator, values):
    latent = testing.edge_cases(values)
    latent = np.where(np.isnan(latent), 0, latent)
    for training in (False, True):
        assert not np.isnan(numpy(estimator(latent, values, training, seed=0))).any()
    gradient = testing.gradient_of(lambda x: estimator(x, values, True, seed=0), latent)
    assert not np.isnan(gradient).any()


@pytest.mark.parametrize("estimator", EVERY, ids=repr)
@pytest.mark.parametrize("values", [NAMED["one"], NAMED["uneven"]], ids=repr)
def test_edge_cases_make_no_nan(estimator, values):
    assert_no_nan(estimator, values)


@pytest.mark.parametrize("estimator", [ArgmaxStraightThrough(), GumbelSoftmax()], ids=repr)
def test_a_softmax_over_a_huge_list_makes_no_nan(estimator):
    # The mean gap times a slope would overflow on the way back.
    assert_no_nan(estimator, LONG["huge"])


@pytest.mark.parametrize("ends", [(-1.0, 0.5), ([-1.0], [0.5])], ids=["floats", "tensors"])
def test_as_if_inward_is_the_value_with_the_gradient_of_inward(ends):
    x, value = np.float32([-2, -2, -1, 0, 0.5, 3, 3]), np.float32([9, 8, 7, 6, 5, 4, 3])
    upstream = np.float32([1, -1, 1, -1, -1, 1, -1])
    low, high = (end if isinstance(end, float) else ops.convert_to_tensor(end) for end in ends)

    def shown(x):
        return gradients.as_if_inward(ops.convert_to_tensor(value), x, low, high)

    np.testing.assert_array_equal(numpy(shown(ops.convert_to_tensor(x))), value)
    upstream = ops.convert_to_tensor(upstream)
    gradient = testing.gradient_of(lambda x: shown(x) * upstream, x)
    np.testing.assert_array_equal(gradient, [0, -1, 1, -1, -1, 1, 0])


def test_a_latent_that_is_nan_shows_nan():
    latent = ops.convert_to_tensor(np.float32([np.nan, 0.3]))
    np.testing.assert_array_equal(numpy(StraightThrough()(latent, [1, -1])), [np.nan, 1])


def test_the_usual_line_leaves_the_list(monkeypatch):
    # The check must see what it is for: w + stop_gradient(q - w) rounds.
    monkeypatch.setattr(
        estimators.straight_through,
        "as_if",
        lambda value, surrogate: surrogate + ops.stop_gradient(value - surrogate),
    )
    for name in ("no exact halves", "tenths"):
        values = NAMED[name]
        latent = np.random.default_rng(0).normal(size=1000).astype("float32")
        with pytest.raises(AssertionError, match="not in"):
            testing.assert_members(StraightThrough("clip")(latent, values), values)


# Law 6: the gradient going back, against a second statement of each surrogate in NumPy.


def gap_of(x, values):
    ascending = values.ascending.astype(float)
    inner = ascending[1:-1]
    place = np.searchsorted(inner, x, side="right")
    lower, upper = ascending[place], ascending[place + 1]
    return (lower + upper) / 2, (upper - lower) / 2


def logistic(x):
    return 0.5 + 0.5 * np.tanh(x / 2)


def in_gap(function):
    def surrogate(x, values, sharpness):
        middle, half = gap_of(x, values)
        return middle + half * function((x - middle) / half, sharpness)

    return surrogate


SURROGATES_IN_NUMPY = {
    "identity": lambda x, values, sharpness: x,
    "clip": lambda x, values, sharpness: np.clip(x, values.low, values.high),
    "tanh": in_gap(lambda z, b: np.tanh(b * z)),
    "approx_sign": in_gap(lambda z, b: np.where(np.abs(z) <= 1, 2 * z - z * np.abs(z), np.sign(z))),
    "swish_sign": in_gap(lambda z, b: 2 * logistic(b * z) * (1 + b * z * logistic(-b * z)) - 1),
}


def latents_away_from_values(values, beyond=0.0):
    """Latents with a margin to listed values, where surrogates may have kinks or jumps."""
    random = np.random.default_rng(1)
    span = values.high - values.low
    x = random.uniform(values.low - beyond * span, values.high + beyond * span, 1000)
    distance = np.abs(x[:, None] - values.numbers.astype(float)).min(axis=1)
    return x[distance > 1e-3 * span][:256].astype(np.float32)


GRADIENT_LISTS = [name for name in LISTS if name not in ("one", "far from zero")]


@pytest.mark.parametrize("compile", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("surrogate", SURROGATES)
def test_gradient_of_straight_through(surrogate, compile):
    estimator = StraightThrough(surrogate)
    names = ["four", "uneven"] if compile else GRADIENT_LISTS
    for name in names:
        values = LISTS[name]
        testing.assert_gradient(
            estimator,
            values,
            lambda x, values=values: SURROGATES_IN_NUMPY[surrogate](
                x, values, estimator.sharpness or 1.0
            ),
            latents_away_from_values(values, beyond=0.0 if surrogate == "identity" else 0.3),
            compile,
        )


@pytest.mark.parametrize("compile", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("temperature", [0.3, 1.0])
def test_gradient_of_argmax_straight_through(temperature, compile):
    def expectation(x, values):
        gap = (values.high - values.low) / (len(values) - 1)
        logits = -(((x[:, None] - values.numbers) / gap) ** 2) / temperature
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        return (shares / shares.sum(axis=1, keepdims=True)) @ values.numbers.astype(float)

    for name in ["four", "uneven"] if compile else GRADIENT_LISTS:
        values = LISTS[name]
        testing.assert_gradient(
            ArgmaxStraightThrough(temperature),
            values,
            lambda x, values=values: expectation(x, values),
            latents_away_from_values(values, beyond=0.2),
            compile,
            tolerance=2e-4,
        )


@pytest.mark.parametrize("compile", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("estimator", [Annealed(), BinaryRelax(), Residual()], ids=repr)
def test_gradient_of_annealed_estimators_is_the_identity(estimator, compile):
    for name in ["four", "uneven"] if compile else GRADIENT_LISTS:
        values = LISTS[name]
        testing.assert_gradient(
            estimator, values, lambda x: x, latents_away_from_values(values), compile
        )


@pytest.mark.parametrize("compile", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize(
    "estimator", [StraightThrough(), Annealed(), Residual(), ElementWiseScaled()], ids=repr
)
def test_beyond_the_ends_only_inward_gradients_pass(estimator, compile):
    values = Values([1, -1, 0.5])
    projection_of(values)  # torch's compiler cannot look into its making
    upstream = ops.convert_to_tensor([1.0, -1.0, 1.0, -1.0, 1.0, -1.0])
    latent = np.array([3, 3, -3, -3, 0.2, 0.2], np.float32)
    gradient = testing.gradient_of(
        lambda x: estimator(x, values, training=True) * upstream, latent, compile
    )
    # Descent moves against the gradient. What passes within the ends is not of interest here.
    np.testing.assert_array_equal(gradient[:4], [1, 0, 0, -1])
    np.testing.assert_array_equal(np.sign(gradient[4:]), [1, -1])


def test_a_gradient_check_that_fails():
    with pytest.raises(AssertionError, match="central difference"):
        testing.assert_gradient(StraightThrough("tanh"), Values("binary"), lambda x: x, [0.3])

    class Signed(estimators.Estimator):
        def forward(self, latent, values, training, state, seed=None):
            return ops.sign(latent)

    with pytest.raises(AssertionError, match=r"no gradient|zero everywhere"):
        testing.assert_gradient(Signed(), Values("binary"), lambda x: x, [0.3])


def test_no_gradient_is_masked_at_a_listed_value():
    for values in (Values("ternary"), Values([1, -1, 0.5, -0.5])):
        gradient = testing.gradient_of(
            lambda x, values=values: StraightThrough()(x, values), values.numbers
        )
        np.testing.assert_array_equal(gradient, np.ones(len(values)))


# Corrections that depend on the gradient, too: they are no function's derivative.

FORMULA_LISTS = {name: LISTS[name] for name in GRADIENT_LISTS} | {"per channel": PER_CHANNEL}


def nearest_in(u, listed):
    return listed[np.abs(u[:, None] - listed).argmin(axis=1)]


def ewgs(strength):
    def factor(u, listed, g):
        held = np.clip(u, listed[0], listed[-1])
        gap = np.diff(listed)[np.clip(np.searchsorted(listed, held) - 1, 0, len(listed) - 2)]
        leads_out = ((u > listed[-1]) & (g < 0)) | ((u < listed[0]) & (g > 0))
        factor = 1 + strength * np.sign(g) * (held - nearest_in(held, listed)) / gap
        return np.where(leads_out, 0, g * factor)

    return factor


@pytest.mark.parametrize("compile", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("strength", [0.0, 0.2, 1.5])
def test_element_wise_scaling_is_the_published_gradient(strength, compile):
    estimator = ElementWiseScaled(strength)
    for name in ["per channel"] if compile else FORMULA_LISTS:
        values = FORMULA_LISTS[name]
        x = latents_for(values)
        g = np.random.default_rng(4).normal(size=x.shape).astype(np.float32)
        projection_of(values, x.ndim)
        upstream = ops.convert_to_tensor(g)
        found = testing.gradient_of(
            lambda u, values=values, upstream=upstream: estimator(u, values, True) * upstream,
            x,
            compile,
        )
        expected = by_channel(ewgs(strength), x, values, g)
        np.testing.assert_allclose(found, expected, atol=1e-4)


# The annealed maps.


def parq_map(z, listed, r):
    """PARQ's proximal map for a sorted list, as published: bucketize, centre, clamp."""
    place = np.searchsorted(listed, z)
    low, high = listed[np.maximum(place - 1, 0)], listed[np.minimum(place, len(listed) - 1)]
    centre = (low + high) / 2
    return np.clip(centre + (z - centre) / r, low, high)


@pytest.mark.parametrize("r", [1.0, 0.6, 0.1, 1e-3])
@pytest.mark.parametrize("values", LISTS.values(), ids=LISTS)
def test_annealed_is_parqs_map(values, r):
    estimator = Annealed(half_life=1.0)
    state = np.array([1 / r - 1, 0], np.float32)
    span = max(values.high - values.low, 1.0)
    z = np.random.default_rng(0).uniform(values.low - span, values.high + span, 500)
    z = z.astype(np.float32)
    softness = float(numpy(estimator.pace.softness(ops.convert_to_tensor(state))))
    soft = numpy(estimator(z, values, training=True, state=ops.convert_to_tensor(state)))
    expected = parq_map(z.astype(float), values.ascending.astype(float), softness)
    # Float32 rounding of (z - centre) is stretched by 1 / r.
    scale = max(abs(values.low), abs(values.high))
    np.testing.assert_allclose(soft, expected, atol=3e-7 * scale / r)


@pytest.mark.parametrize("r", [1.0, 0.5, 0.01])
def test_binary_relax_is_the_mixture(r):
    values = NAMED["uneven"]
    state = np.array([1 / r - 1, 0], np.float32)
    z = np.random.default_rng(0).uniform(-1, 2, 200).astype(np.float32)
    soft = numpy(BinaryRelax(half_life=1.0)(z, values, True, ops.convert_to_tensor(state)))
    held = np.clip(z, -0.2, 1)
    np.testing.assert_allclose(soft, r * held + (1 - r) * values.nearest(z), atol=1e-6)


@pytest.mark.parametrize("r", [1.0, 0.5, 0.01])
@pytest.mark.parametrize("values", [NAMED["uneven"], PER_CHANNEL], ids=repr)
def test_a_residual_is_a_share_of_the_latent(values, r):
    state = ops.convert_to_tensor(np.array([1 / r - 1, 0], np.float32))
    z = latents_for(values)
    soft = numpy(Residual(0.2, half_life=1.0)(z, values, True, state))
    expected = by_channel(lambda u, listed: nearest_in(u, listed) + 0.2 * r * u, z, values)
    np.testing.assert_allclose(soft, expected, atol=1e-5)
    assert (soft > values.high).any()


@pytest.mark.parametrize("estimator", [Annealed(), BinaryRelax(), GumbelSoftmax()], ids=repr)
def test_annealing_hardens(estimator):
    def softness(step, end):
        return float(numpy(estimator.pace.softness(ops.convert_to_tensor([step, end]))))

    unpaced = [softness(step, 0.0) for step in (0.0, 500.0, 1500.0, 1e6)]
    np.testing.assert_allclose(unpaced, [1, 0.5, 0.25, 1 / 2001], rtol=1e-5)
    paced = [softness(step, 100.0) for step in (0.0, 25.0, 50.0, 75.0, 100.0, 1000.0)]
    # The published schedule with steepness 10: .93, .5 and .07 at a quarter, half, three.
    np.testing.assert_allclose(paced[:4], [1, 0.9307, 0.5, 0.0693], atol=1e-3)
    assert paced[4:] == [0, 0]
    # A run may be one step long.
    np.testing.assert_allclose([softness(step, 1.0) for step in (0.0, 1.0)], [1, 0], atol=1e-6)


def test_a_state_counts_training_steps():
    state = ops.convert_to_tensor([3.0, 10.0])
    np.testing.assert_array_equal(numpy(Annealed().next_state(state)), [4, 10])


# Configuration and errors.


@pytest.mark.parametrize("estimator", EVERY, ids=repr)
def test_config_round_trip(estimator):
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(estimator))
    assert repr(again) == repr(estimator)
    assert type(again) is type(estimator)
    assert repr(estimators.get(keras.saving.serialize_keras_object(estimator))) == repr(estimator)


def test_every_estimator_with_a_name_is_in_the_tests():
    assert {type(estimator) for estimator in EVERY} == set(registry._BY_NAME.values())


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("straight_through", StraightThrough),
        ("annealed", Annealed),
        ("binary_relax", BinaryRelax),
        ("settling", Settling),
        ("argmax_straight_through", ArgmaxStraightThrough),
        ("element_wise_scaled", ElementWiseScaled),
        ("residual", Residual),
        ("gumbel_softmax", GumbelSoftmax),
        ("mean_field", MeanField),
    ],
)
def test_get_by_name(name, kind):
    assert type(estimators.get(name)) is kind
    assert name in (estimators.get.__doc__ or "")


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: StraightThrough("sign"), ValueError, "surrogate is 'sign'. Expected one of"),
        (lambda: StraightThrough("identity", 2.0), ValueError, "sharpness is 2.0"),
        (lambda: StraightThrough("tanh", -1), ValueError, "sharpness is -1"),
        (lambda: ArgmaxStraightThrough(0), ValueError, "temperature is 0"),
        (lambda: Annealed(half_life=float("nan")), ValueError, "half_life is nan"),
        (lambda: ElementWiseScaled(-0.1), ValueError, "strength is -0.1"),
        (lambda: Settling(pull=-0.1), ValueError, "pull is -0.1"),
        (lambda: Residual(strength=-1), ValueError, "strength is -1"),
        (lambda: GumbelSoftmax(hard="yes"), TypeError, "hard is 'yes'"),
        (lambda: GumbelSoftmax(floor=0), ValueError, "floor is 0"),
        (lambda: GumbelSoftmax(temperature=0), ValueError, "temperature is 0"),
        (lambda: MeanField(temperature=0), ValueError, "temperature is 0"),
        (lambda: Annealed(steepness="10"), TypeError, "steepness is '10'"),
        (lambda: estimators.get("approx_sign"), ValueError, r"StraightThrough\('approx_sign'\)"),
        (lambda: estimators.get("ste"), ValueError, "estimator is 'ste'. Expected one of"),
        (lambda: estimators.get("ste"), ValueError, "layers and discretize also take 'auto'"),
        (lambda: parse(np.array([1, 2])), TypeError, "Expected a name"),
        (lambda: estimators.get(StraightThrough), TypeError, "Give an instance, not a class"),
        (lambda: estimators.get(None), TypeError, "estimator is None"),
    ],
)
def test_bad_arguments_are_refused(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_a_gradient_is_checked_with_a_list_that_is_new():
    values = Values([0.25, -3.5, 8.0])  # No projection onto it exists yet.
    testing.assert_gradient(StraightThrough(), values, lambda z: z, [0.1, 2.0], compile=True)
