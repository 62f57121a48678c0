import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers

from conftest import numpy
from models import CASES, assert_same, codes_of, model_of, targets
from quantal import Discrete, LearnableMultiplier, Values, estimators, parameters_of


@pytest.mark.product
@pytest.mark.parametrize("name", CASES)
def test_keras_file(name, tmp_path):
    case = CASES[name]
    model = model_of(case, case.wrapped(estimator="annealed", scale="learned"))
    x = case.data()
    model.fit(x, targets(model), verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert_same(model, again, x)
    # Not the variables: Keras does not save the seeds of its generators.
    for one, other in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(numpy(one), numpy(other))
    before = [numpy(parameter.latent) for parameter in parameters_of(again)]
    again.fit(x, targets(again), epochs=2, verbose=0)
    for latent, parameter in zip(before, parameters_of(again), strict=True):
        assert not np.array_equal(latent, numpy(parameter.latent))


def multiplier_model(compiled=True, **arguments):
    inputs = keras.Input((10,))
    x = LearnableMultiplier(values=[1, -1, 0.5, -0.5], **arguments)(inputs)
    model = keras.Model(inputs, layers.Dense(1)(x))
    if compiled:
        model.compile("adam", "mse")
    return model


ARGUMENTS = [
    {},
    {"estimator": estimators.Annealed(half_life=7), "scale": "learned", "name": "signs"},
    {"estimator": "argmax_straight_through", "axis": (-1,), "seed": 3},
    {"kernel_initializer": "glorot_uniform", "kernel_regularizer": "l2", "dtype": "mixed_bfloat16"},
]


@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_multiplier_files(arguments, tmp_path, random):
    model = multiplier_model(**arguments)
    x, y = random.normal(size=(64, 10)).astype("f4"), random.normal(size=(64, 1)).astype("f4")
    model.fit(x, y, epochs=2, verbose=0)
    model.save(tmp_path / "model.keras")
    assert_same(model, keras.saving.load_model(tmp_path / "model.keras"), x)
    plain = multiplier_model(compiled=False, **arguments)
    plain.set_weights(model.get_weights())
    plain.save_weights(tmp_path / "model.weights.h5")
    again = multiplier_model(compiled=False, **arguments)
    again.load_weights(tmp_path / "model.weights.h5")
    assert_same(model, again, x)


@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_config_round_trip(arguments):
    layer = LearnableMultiplier("ternary", **arguments)
    again = LearnableMultiplier.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()


def test_clone_model_keeps_the_structure_and_draws_anew(random):
    inputs = keras.Input((10,))
    x = LearnableMultiplier([1, -1, 0.5], estimator="annealed")(inputs)
    model = keras.Model(inputs, Discrete(layers.Dense(60), [1, 2, 4], scale="learned")(x))
    clone = keras.models.clone_model(model)
    assert [p.shape for p in parameters_of(clone)] == [p.shape for p in parameters_of(model)]
    assert clone.layers[2].get_config() == model.layers[2].get_config()
    # Drawn beside the list's midpoints, not left as Keras's initializer had them.
    assert Values([1, 2, 4]).usage(codes_of(clone)[1]).min() > 90
    x = random.normal(size=(4, 10)).astype("f4")
    clone.set_weights(model.get_weights())
    assert_same(model, clone, x)


@pytest.mark.product
@pytest.mark.parametrize("order", ["import keras, quantal", "import quantal, keras"])
def test_a_fresh_process_loads_without_custom_objects(order, tmp_path):
    inputs = keras.Input((10,))
    x = LearnableMultiplier("ternary", estimator="annealed")(inputs)
    model = keras.Model(inputs, Discrete(layers.Dense(3), "nf4", scale="learned")(x))
    x = np.random.default_rng(0).normal(size=(4, 10)).astype("f4")
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", model.predict(x, verbose=0))
    model.save(tmp_path / "model.keras")
    program = (
        f"{order}, numpy as np\n"
        f"model = keras.saving.load_model(r'{tmp_path}/model.keras')\n"
        f"x, y = np.load(r'{tmp_path}/x.npy'), np.load(r'{tmp_path}/y.npy')\n"
        "np.testing.assert_array_equal(model.predict(x, verbose=0), y)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_an_unbuilt_wrapper_of_a_built_layer_is_revived_unbuilt():
    dense = layers.Dense(2)
    dense.build((None, 3))
    config = keras.saving.serialize_keras_object(Discrete(dense, "binary"))
    revived = keras.saving.deserialize_keras_object(config)
    assert revived.layer.built
    assert revived.discrete_parameters is None


class Stop(keras.callbacks.Callback):
    """Breaks a run off, as a power cut would."""

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 2:
            raise KeyboardInterrupt


def test_training_goes_on_as_if_it_had_not_stopped(tmp_path, random):
    x, y = random.normal(size=(64, 10)).astype("f4"), random.normal(size=(64, 1)).astype("f4")

    def model():
        keras.utils.set_random_seed(5)
        return multiplier_model(estimator="annealed", scale="learned")

    run = {"epochs": 6, "shuffle": False, "verbose": 0}
    whole = model()
    whole.fit(x, y, **run)
    broken = model()
    backup = keras.callbacks.BackupAndRestore(str(tmp_path / "backup"))
    with pytest.raises(KeyboardInterrupt):
        broken.fit(x, y, callbacks=[backup, Stop()], **run)
    resumed = model()
    resumed.fit(x, y, callbacks=[keras.callbacks.BackupAndRestore(str(tmp_path / "backup"))], **run)
    for one, other in zip(whole.variables, resumed.variables, strict=True):
        np.testing.assert_array_equal(numpy(one), numpy(other))
    state = parameters_of(resumed)[0].state
    assert numpy(state)[0] == 12
