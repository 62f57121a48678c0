"""A frozen parameter is listed, still and without noise, however it was frozen."""

import keras
import numpy as np
import pytest
from keras import layers

import quantal
from conftest import numpy, on_one_backend
from quantal import Discrete, LearnableMultiplier, Values, parameters_of
from quantal._core.companion import Companion

ESTIMATORS = [
    "straight_through", "settling", "annealed", "binary_relax", "argmax_straight_through",
    "element_wise_scaled", "residual", "gumbel_softmax", "mean_field",
]  # fmt: skip
LEARNED_LIST = Values([-1.0, 0.25, 1.0], learnable=True)


def dense(**arguments):
    return Discrete(layers.Dense(3), **{"values": "ternary", **arguments})


def numbers_of(layer):
    return [numpy(variable).copy() for variable in layer.variables]


def assert_still(layer, before):
    for variable, number in zip(layer.variables, before, strict=True):
        np.testing.assert_array_equal(numpy(variable), number, variable.path)


def assert_frozen(layer, x):
    """Assert that training computes what inference does, and moves nothing."""
    assert all(parameter.is_frozen for parameter in parameters_of(layer))
    assert not any(v.trainable for p in parameters_of(layer) for v in p.variables)
    before, listed = numbers_of(layer), numpy(layer(x, training=False))
    for _ in range(2):
        np.testing.assert_array_equal(numpy(layer(x, training=True)), listed)
    assert_still(layer, before)


@pytest.mark.parametrize("kind", ["multiplier", "dense"])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_every_estimator_is_listed_and_still(estimator, kind, random):
    make = LearnableMultiplier if kind == "multiplier" else dense
    x = random.normal(size=(5, 4)).astype("float32")
    for arguments in (
        {"values": "ternary", "scale": "least_squares"},
        {"values": LEARNED_LIST, "scale": "learned"},
    ):
        layer = make(**arguments, estimator=estimator, seed=1, trainable=False)
        layer(x)
        assert_frozen(layer, x)
        layer.trainable = True
        trained = numpy(layer(x, training=True))
        assert parameters_of(layer)[0].variables[0].trainable
        if estimator in ("annealed", "gumbel_softmax", "mean_field"):
            assert not np.array_equal(trained, numpy(layer(x, training=False)))


def frozen_by_constructor(x):
    layer = dense(estimator="annealed", scale="learned", trainable=False)
    layer(x)
    return layer


def frozen_before_build(x):
    layer = dense(estimator="annealed", scale="learned")
    layer.trainable = False
    layer(x)
    return layer


def frozen_after_build(x):
    layer = dense(estimator="annealed", scale="learned")
    layer(x)
    layer.trainable = False
    return layer


def frozen_inside(x):
    layer = dense(estimator="annealed", scale="learned")
    layer(x)
    layer.layer.trainable = False
    return layer


def frozen_inside_before_build(x):
    layer = Discrete(
        layers.Dense(3, trainable=False), "ternary", estimator="annealed", scale="learned"
    )
    layer(x)
    return layer


def frozen_inside_built(x):
    inner = layers.Dense(3, trainable=False)
    inner(x)
    return Discrete(inner, "ternary", estimator="annealed", scale="learned")


def frozen_by_a_model_around(x):
    layer = dense(estimator="annealed", scale="learned")
    model = keras.Sequential([keras.Input(x.shape[1:]), layer])
    model.trainable = False
    return layer


def frozen_and_cloned(x):
    return keras.models.clone_model(
        keras.Sequential([keras.Input(x.shape[1:]), frozen_after_build(x)])
    ).layers[0]


def frozen_composite(x):
    # Its layers are created in its build, which Keras does not freeze.
    inner = layers.Bidirectional(layers.LSTM(2))
    layer = Discrete(inner, "ternary", ("kernel", "recurrent_kernel"), scale="learned",
                     estimator="annealed", trainable=False)  # fmt: skip
    sequences = layers.Reshape((2, -1))
    return keras.Sequential([keras.Input(x.shape[1:]), sequences, layer])


@on_one_backend
@pytest.mark.parametrize(
    "freeze",
    [
        frozen_by_constructor, frozen_before_build, frozen_after_build, frozen_inside,
        frozen_inside_before_build, frozen_inside_built, frozen_by_a_model_around,
        frozen_and_cloned, frozen_composite,
    ],
)  # fmt: skip
def test_every_way_to_freeze(freeze, random):
    x = random.normal(size=(5, 4)).astype("float32")
    layer = freeze(x)
    layer(x)
    assert_frozen(layer, x)
    assert not [
        v.path for v in keras.Sequential([layer]).trainable_variables if "/kernel" in v.path
    ]


@on_one_backend
def test_a_thawed_layer_trains_all_of_it():
    x = np.ones((2, 4), "float32")
    for freeze in (frozen_by_constructor, frozen_inside_before_build, frozen_inside):
        layer = freeze(x)
        layer(x)
        layer.trainable = True
        assert len(layer.trainable_variables) == 3


@on_one_backend
def test_a_companion_can_be_frozen_alone():
    layer = frozen_after_build(np.ones((2, 4), "float32"))
    layer.trainable = True
    (parameter,) = parameters_of(layer)
    scale = parameter.scale_state.relative
    assert isinstance(scale, Companion)
    scale.trainable = False
    assert not parameter.is_frozen
    assert [v.path for v in layer.trainable_variables if "scale" in v.path] == []


@pytest.mark.parametrize("optimizer", ["AdamW", "SGD"])
def test_fit_leaves_a_frozen_base_alone(optimizer, random):
    x = random.normal(3, 1, size=(32, 4)).astype("float32")
    base = layers.Dense(5, name="base", trainable=False)
    plain = keras.Sequential([keras.Input((4,)), base, layers.Dense(1, name="head")])
    model = quantal.discretize(plain, "ternary", estimator="annealed")
    frozen = model.layers[0]
    before = numbers_of(frozen)
    rate = {"weight_decay": 0.1} if optimizer == "AdamW" else {"momentum": 0.9}
    model.compile(getattr(keras.optimizers, optimizer)(0.05, **rate), "mse")
    loss = model.fit(x, np.ones((32, 1)), epochs=2, batch_size=32, verbose=0).history["loss"]
    assert loss[1] != loss[0]
    assert_still(frozen, before)
    assert [v.path.split("/")[-2] for v in model.trainable_variables] == ["head"] * 3


def test_a_head_is_trained_behind_the_values_that_are_evaluated(random):
    x = random.normal(size=(64, 6)).astype("float32")
    signs = LearnableMultiplier([-1, 1], trainable=False, seed=0)
    model = keras.Sequential([keras.Input((6,)), signs, layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    loss = model.fit(x, x[:, :1], batch_size=64, verbose=0).history["loss"][0]
    assert loss == pytest.approx(model.evaluate(x, x[:, :1], batch_size=64, verbose=0), rel=1e-5)


@on_one_backend
@pytest.mark.parametrize("ending", ["keras", "quantal"])
def test_a_frozen_layer_stays_frozen_in_a_file(ending, tmp_path, random):
    x = random.normal(size=(5, 4)).astype("float32")
    layer = frozen_by_constructor(x)
    model, path = keras.Sequential([keras.Input((4,)), layer]), tmp_path / f"model.{ending}"
    if ending == "keras":
        model.save(path)
        loaded = keras.saving.load_model(path)
    else:
        quantal.save(model, path)
        loaded = quantal.load(path)
    assert loaded.trainable_variables == []
    assert_frozen(loaded.layers[0], x)
    np.testing.assert_array_equal(numpy(loaded(x)), numpy(model(x)))


def two_multipliers(random):
    x = random.normal(size=(32, 6)).astype("float32")
    frozen, other = (LearnableMultiplier([-1, 1], name=name) for name in ("frozen", "other"))
    model = keras.Sequential([keras.Input((6,)), frozen, other])
    frozen.trainable = False
    model.compile("adam", "mse")
    return model, x, x * random.choice([-1.0, 1.0], 6)


@on_one_backend
def test_polish_leaves_frozen_layers_alone(random):
    model, x, y = two_multipliers(random)
    frozen, other = parameters_of(model)
    before = numpy(frozen.codes)
    budget = quantal.Budget(evaluations=300)
    report = quantal.polish(model, x, y, budget, verbose=0)
    np.testing.assert_array_equal(numpy(frozen.codes), before)
    assert report.loss == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="frozen/kernel, whose layer has trainable=False"):
        quantal.polish(model, x, y, budget, parameters=[frozen], verbose=0)
    model.trainable = False
    other.set_codes(1 - numpy(other.codes))
    report = quantal.polish(model, x, y, budget, verbose=0)
    assert (report.changed, report.loss) == (0, report.loss_before)
    assert report.loss == pytest.approx(model.evaluate(x, y, verbose=0), rel=1e-5)


@on_one_backend
def test_callbacks_leave_frozen_layers_alone(random):
    x = random.normal(size=(8, 4)).astype("float32")
    layer = dense(values=LEARNED_LIST, scale="learned")
    model = keras.Sequential([keras.Input((4,)), layer, layers.Dense(1)])
    layer.trainable = False
    before = numbers_of(layer)
    model.compile("adam", "mse")
    model.fit(
        x, x[:, :1], epochs=2, verbose=0,
        callbacks=[quantal.callbacks.RefreshLists(), quantal.callbacks.FreezeOscillating(0.0)],
    )  # fmt: skip
    assert_still(layer, before)


@on_one_backend
def test_elements_that_oscillated_before_their_layer_was_frozen_are_left_alone():
    layer = LearnableMultiplier([-1, 1, 2])
    model = keras.Sequential([keras.Input((3,)), layer])
    callback = quantal.callbacks.FreezeOscillating(threshold=0.0, begin=0.0)
    callback.set_model(model)
    callback.set_params({"epochs": 2})
    layer.set_codes([0, 0, 0])
    callback.on_train_begin()
    layer.set_codes([1, 0, 1])
    callback.on_epoch_end(0)
    assert callback.frozen == {layer.discrete_parameters[0].path: 2}
    layer.trainable = False
    layer.set_codes([2, 2, 2])
    before = numbers_of(layer)
    callback.on_epoch_end(1)
    assert_still(layer, before)
