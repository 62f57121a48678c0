"""Latents that go by steps of their own size, whatever the optimizer's rate."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import quantal
from conftest import numpy
from quantal import Discrete, LearnableMultiplier, parameters_of
from quantal.estimators import Settling

FOUR = [1, -1, 0.5, -0.5]


def rows(size=16, count=64, seed=0, values=FOUR):
    """Rows, and what a planted vector of listed values makes of each number."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(count, size)).astype("float32")
    planted = random.choice(values, size).astype("float32")
    return x, x * planted, planted


def multiplier(optimizer, values=FOUR, size=16, **arguments):
    model = keras.Sequential([keras.Input((size,)), LearnableMultiplier(values, **arguments)])
    model.compile(optimizer, "mse")
    return model


def only(model):
    (parameter,) = parameters_of(model)
    return parameter


def latents(model):
    """The effective latents, as they are now."""
    return numpy(only(model).effective_latent).copy()


def moves(model):
    """How many moves of the optimizer the parameter has counted."""
    return int(numpy(only(model).state)[2])


def train(model, x, y, steps=1):
    for _ in range(steps):
        model.train_on_batch(x, y)
    return model


# In the ordinary fit, whatever the optimizer.


@pytest.mark.parametrize(
    "optimizer",
    [
        keras.optimizers.Adam,
        lambda: keras.optimizers.SGD(0.1),
        lambda: keras.optimizers.SGD(1e-3, momentum=0.9),
        lambda: keras.optimizers.AdamW(1e-2),
        keras.optimizers.Nadam,
        keras.optimizers.RMSprop,
        lambda: keras.optimizers.Lion(1e-4),
        keras.optimizers.Adafactor,
    ],
    ids=["adam", "sgd", "slow sgd", "adamw", "nadam", "rmsprop", "lion", "adafactor"],
)
def test_a_planted_vector_is_the_result_of_an_ordinary_fit(optimizer):
    x, y, planted = rows(32, 1024)
    model = multiplier(optimizer(), size=32, seed=1)
    model.fit(x, y, batch_size=64, epochs=10, verbose=0)
    np.testing.assert_array_equal(numpy(model.layers[0].listed_values), planted)


def test_the_rate_does_not_matter():
    x, y, _ = rows()
    results = {}
    for rate in (1e-4, 1e-3, 1e-1):
        model = multiplier(keras.optimizers.Adam(rate), seed=1)
        results[rate] = [latents(model), *(latents(train(model, x, y)) for _ in range(6))]
    np.testing.assert_allclose(results[1e-4], results[1e-3], atol=2e-3)
    np.testing.assert_allclose(results[1e-1], results[1e-3], atol=1e-5)
    steps = np.diff(results[1e-3], axis=0)
    np.testing.assert_allclose(np.abs(steps[0]), 0.1, rtol=1e-5)


def step_by_hand(moves, size):
    """The last step of latents for moves of the optimizer, as the formula says, in float64."""
    last = signs = np.zeros_like(moves[0])
    momentum, agreement, largest = 0.0, 1.0, 0.0

    def root(x):
        return np.sqrt(np.mean(x**2))

    def correlation(one, other):
        norms = np.linalg.norm(one) * np.linalg.norm(other)
        return (one * other).sum() / norms if norms else 0.0

    for t, move in enumerate(moves):
        momentum = 0.98 * momentum + 0.02 * correlation(move, last)
        white = move - np.clip(momentum, 0, 0.9) * last
        agreement = 0.98 * agreement + 0.02 * correlation(np.sign(white), signs) if t else 1.0
        share = 0.9 * np.clip((0.3 - agreement) / 0.3, 0, 1)
        signs = share * signs + (1 - share) * np.sign(white)
        largest = max(largest, root(white))
        cap = min(max(0.05, 1 / (1 + t / 15)), np.sqrt(root(white) / largest))
        step = size / (1 + t / 600) * signs * min(1, cap / root(signs))
        last = move
    return step


@pytest.mark.parametrize("kind", ["with momentum", "alternating", "falling"])
def test_steps_are_those_of_the_formula(kind, random):
    layer = LearnableMultiplier(FOUR, estimator=Settling(step=0.02), seed=1)
    layer.build((None, 16))
    (parameter,) = layer.discrete_parameters
    parameter.advance()
    drift, moves = random.normal(size=16), []
    for t in range(60):
        noise = 0.5 * random.normal(size=16)
        sign = (-1) ** t if kind == "alternating" else 1
        moves.append((sign * drift + noise) * (0.9**t if kind == "falling" else 1))
    optimized, steps = numpy(parameter.latent).astype(float), []
    for move in moves:
        # What the variable has moved, in float32.
        before = numpy(parameter.latent).astype(float)
        optimized = optimized + move
        parameter.latent.assign(optimized)
        steps.append(numpy(parameter.latent) - before)
        latent = numpy(parameter.effective.variables[0]).astype(float)
        result = numpy(parameter.effective_latent) - latent
        np.testing.assert_allclose(result, step_by_hand(steps, 0.02), rtol=1e-3, atol=1e-6)
        parameter.advance()
    agreement = numpy(parameter.state)[4]
    assert (agreement < 0.3) == (kind == "alternating")


# What counts as a step.


def test_a_layer_that_is_called_twice_goes_one_step():
    x, y, _ = rows()
    shared = LearnableMultiplier(FOUR, seed=1)
    inputs = keras.Input((16,))
    first, second = shared(inputs), shared(inputs)
    twice = keras.Model(inputs, [first, second])
    twice.compile(keras.optimizers.SGD(0.1), ["mse", "mse"])
    once = multiplier(keras.optimizers.SGD(0.1), seed=1)
    train(twice, x, [y, y], 4)
    train(once, x, y, 4)
    np.testing.assert_allclose(latents(twice), latents(once), atol=1e-5)
    assert moves(twice) == moves(once) == 3
    one, other = twice(x)
    np.testing.assert_array_equal(numpy(one), numpy(other))


def test_accumulated_gradients_are_one_step():
    x, y, _ = rows()
    model = multiplier(keras.optimizers.SGD(0.1, gradient_accumulation_steps=3), seed=1)
    results = [latents(train(model, x, y)) for _ in range(7)]
    np.testing.assert_array_equal(results[4], results[3])
    # A compiler may round a last digit otherwise than the step that is still to be followed.
    for step, same in ((1, 0), (3, 2), (6, 5)):
        np.testing.assert_allclose(results[step], results[same], rtol=1e-6)
    assert np.all(results[1] != results[2])
    assert np.all(results[4] != results[5])
    assert moves(model) == 2


def test_calls_between_steps_move_nothing():
    x, y, _ = rows()
    model = train(multiplier("adam", seed=1), x, y, 3)
    before = latents(model), numpy(model.layers[0].kernel)
    for training in (True, False, True):
        model(x, training=training)
    np.testing.assert_array_equal(latents(model), before[0])
    np.testing.assert_array_equal(numpy(model.layers[0].kernel), before[1])
    assert moves(model) == 3


def test_a_call_in_training_may_come_before_a_run():
    model = multiplier("sgd")
    x, y = rows()[:2]
    model(x[:4], training=True)
    # JAX gives the variables' arrays to the compiled step: two may not share one.
    assert np.isfinite(model.fit(x, y, epochs=1, verbose=0).history["loss"]).all()


def test_a_paced_run_counts_calls():
    x, y, _ = rows(count=96)
    model = multiplier(keras.optimizers.SGD(0.1, gradient_accumulation_steps=3), seed=1)
    model.fit(x, y, batch_size=16, verbose=0, callbacks=[quantal.callbacks.PaceToRun(1.0)])
    parameter = only(model)
    state = ops.convert_to_tensor(parameter.state)
    np.testing.assert_array_equal(numpy(state)[:3], [6, 6, 1])
    assert float(numpy(parameter.estimator.softness(state, 4))) == 0


# Whatever sets latents, and whatever reads them.


def test_set_codes_are_the_codes_and_training_goes_on_from_them(random):
    x, y, _ = rows()
    model = train(multiplier("adam", seed=1), x, y, 5)
    parameter = only(model)
    codes = random.integers(0, 4, 16)
    parameter.set_codes(codes)
    np.testing.assert_array_equal(numpy(parameter.codes), codes)
    listed = parameter.latents_of(codes)
    np.testing.assert_array_equal(latents(model), listed)
    train(model, x, y, 2)
    assert 0 < np.abs(latents(model) - listed).max() < 0.3
    before = latents(model)
    parameter.set_codes(codes, where=np.arange(16) < 8)
    np.testing.assert_array_equal(latents(model)[:8], listed[:8])
    np.testing.assert_array_equal(latents(model)[8:], before[8:])
    parameter.start_from(-0.4 * np.ones(16))
    np.testing.assert_array_equal(numpy(parameter.codes), 3)


def test_weights_of_a_layer_are_latents_in_the_middle_of_a_run():
    x, y, _ = rows()
    model = train(multiplier("adam", seed=1), x, y, 5)
    layer, before = model.layers[0], latents(model)
    arrays = layer.get_weights()
    np.testing.assert_array_equal(arrays[0], before)
    other = multiplier("adam", seed=2).layers[0]
    for weights in (arrays, arrays[:1]):
        train(model, x, y)
        layer.set_weights(weights)
        np.testing.assert_array_equal(latents(model), before)
        other.set_weights(weights)
        np.testing.assert_array_equal(numpy(other.discrete_parameters[0].effective_latent), before)
    layer.set_weights([np.float32([1, -0.5] * 8)])
    np.testing.assert_array_equal(numpy(layer.listed_values), [1, -0.5] * 8)


def test_a_run_that_was_saved_goes_on_as_if_it_had_not_stopped(tmp_path):
    x, y, _ = rows()
    model = train(multiplier("adam", seed=1), x, y, 3)
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    again = keras.saving.load_model(tmp_path / "model.keras")
    other = train(multiplier("adam", seed=2), x, y)
    other.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(latents(again), latents(model))
    np.testing.assert_array_equal(latents(other), latents(model))
    train(model, x, y, 3)
    train(again, x, y, 3)
    np.testing.assert_array_equal(latents(again), latents(model))
    for one, two in zip(model.variables, again.variables, strict=True):
        np.testing.assert_array_equal(numpy(one), numpy(two))


def test_copies_have_the_values_of_the_run(tmp_path):
    x, y, _ = rows()
    model = train(multiplier("adam", seed=1), x, y, 5)
    expected = numpy(model.layers[0].listed_values)
    assert not np.array_equal(expected, only(model).values.nearest(numpy(only(model).latent)))
    np.testing.assert_array_equal(numpy(model(x)), x * expected)
    quantal.save(model, tmp_path / "model.quantal")
    copies = {
        "finalized": quantal.finalize(model),
        "loaded": quantal.load(tmp_path / "model.quantal"),
        "restored": multiplier("adam", seed=2),
    }
    copies["restored"].set_weights(model.get_weights())
    for copy in copies.values():
        np.testing.assert_array_equal(numpy(copy.layers[0].listed_values), expected)
    np.testing.assert_array_equal(numpy(quantal.bake(model)(x)), x * expected)


def test_a_frozen_parameter_stands_still_and_goes_on_where_it_was():
    x, y, _ = rows()
    model = train(multiplier("adam", seed=1), x, y, 3)
    before, count = latents(model), moves(model)
    model.layers[0].trainable = False
    model(x, training=True)
    np.testing.assert_array_equal(latents(model), before)
    assert moves(model) == count
    model.layers[0].trainable = True
    train(model, x, y)
    np.testing.assert_allclose(latents(model), before, atol=0.3)
    assert moves(model) == count + 1
    assert not np.array_equal(latents(model), before)


def test_an_average_of_the_optimizers_moves_is_near_the_latents():
    x, y, _ = rows()
    optimizer = keras.optimizers.Adam(use_ema=True, ema_momentum=0.5)
    model = multiplier(optimizer, seed=1)
    model.fit(x, y, batch_size=8, epochs=3, verbose=0)
    parameter = only(model)
    effective = numpy(parameter.effective.variables[0])
    # The average of the last few moves goes back by no more than such a move.
    assert np.sqrt(np.mean((latents(model) - effective) ** 2)) <= 0.1
    parameter.check_finite()


def test_latents_that_are_no_numbers_leave_the_others_alone():
    x, y, _ = rows()
    model = train(multiplier("adam", seed=1), x, y, 3)
    parameter = only(model)
    before = latents(model)
    broken = numpy(parameter.latent).copy()
    broken[[2, 5]] = np.nan, np.inf
    parameter.latent.assign(broken)
    parameter.advance()
    others = np.setdiff1d(np.arange(16), [2, 5])
    np.testing.assert_array_equal(latents(model)[others], before[others])
    assert np.isnan(numpy(parameter.listed_values)[[2, 5]]).all()
    assert np.isfinite(numpy(parameter.state)).all()
    with pytest.raises(ValueError, match="2 of 16 latents"):
        parameter.check_finite()
    parameter.set_codes(np.zeros(16, int))
    np.testing.assert_array_equal(numpy(parameter.codes), 0)


# Penalties and constraints are those of the latents that count.


def test_a_penalty_moves_the_effective_latents():
    x, _, _ = rows()
    penalty = keras.regularizers.L2(1.0)
    model = multiplier("adam", [1, -1], kernel_regularizer=penalty, kernel_initializer="ones")
    train(model, x, np.ones_like(x) * 0.0, 4)
    effective = latents(model)
    assert effective.max() < 0.7
    np.testing.assert_allclose(numpy(model.losses[0]), (effective**2).sum(), rtol=1e-5)
    gradient = quantal.testing.gradient_of(
        lambda latent: penalty_of(model, latent), numpy(only(model).latent)
    )
    np.testing.assert_allclose(gradient, 2 * effective, rtol=1e-4)


def penalty_of(model, latent):
    return only(model).latent.regularizer(latent)


def test_a_constraint_holds_for_the_effective_latents_of_a_wrapped_layer():
    x, _, _ = rows()
    dense = layers.Dense(1, kernel_constraint=keras.constraints.MinMaxNorm(0.5, 1.0))
    model = keras.Sequential([keras.Input((16,)), Discrete(dense, [1, -1], seed=1)])
    model.compile(keras.optimizers.SGD(1.0), "mse")
    train(model, x, 100 * x[:, :1], 6)
    assert 0.5 - 1e-5 <= np.linalg.norm(latents(model)) <= 1 + 1e-5
    assert isinstance(dense.kernel_constraint, keras.constraints.MinMaxNorm)


def test_other_estimators_have_no_variable_more():
    layer = LearnableMultiplier(estimator="straight_through")
    layer.build((None, 3))
    assert [v.name for v in layer.weights] == ["kernel_latent"]
    layer = LearnableMultiplier(estimator="annealed")
    layer.build((None, 3))
    assert [v.name for v in layer.weights] == ["kernel_latent", "estimator_state"]


def test_a_wrapper_that_takes_a_weight_over_takes_its_latents():
    x, y, _ = rows()
    first = Discrete(layers.Dense(1, use_bias=False), [1, -1], seed=1)
    model = keras.Sequential([keras.Input((16,)), first])
    model.compile("adam", "mse")
    train(model, x, y.sum(axis=1), 5)
    before = latents(model)
    second = Discrete(first.layer, [1, -1], seed=1)
    second.build()
    (parameter,) = second.discrete_parameters
    np.testing.assert_array_equal(numpy(parameter.effective_latent), before)
