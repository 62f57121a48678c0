"""A finalized model: small in Keras's own file, and the same to the bit."""

import keras
import numpy as np
import pytest
from keras import layers

import quantal
from conftest import numpy, on_one_backend
from models import ARGUMENTS
from quantal import Discrete, LearnableMultiplier, Values, parameters_of

ARGUMENTS = [
    *ARGUMENTS,
    {"values": Values([1, 0.2, -0.4], learnable=True), "scale": "learned"},
    {"values": [1, -1], "estimator": "annealed", "scale": "mean_absolute"},
    {"values": [0.5]},
]


def network(**arguments):
    inputs = keras.Input((6, 3))
    x = LearnableMultiplier()(inputs)
    x = Discrete(layers.Conv1D(2, 3), **arguments)(x)
    x = layers.BatchNormalization()(x)
    x = Discrete(layers.LSTM(2), "ternary", ("kernel", "recurrent_kernel"))(x)
    return keras.Model(inputs, layers.Dense(2)(x))


def outputs(model, x):
    return model.predict(x, verbose=0)


@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_it_predicts_the_same_before_and_after_a_file(arguments, tmp_path, random):
    model = network(**arguments)
    for parameter in parameters_of(model):
        parameter.latent.assign(parameter.latent + 0.3 * random.normal(size=parameter.shape))
    x = random.normal(size=(4, 6, 3))
    final = quantal.finalize(model)
    np.testing.assert_array_equal(outputs(model, x), outputs(final, x))
    final.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(outputs(model, x), outputs(again, x))
    for old, new in zip(parameters_of(model), parameters_of(again), strict=True):
        np.testing.assert_array_equal(numpy(old.codes), numpy(new.codes))
        np.testing.assert_array_equal(numpy(old.listed_values), numpy(new.listed_values))


def test_it_predicts_the_same_on_sequences(random):
    """PyTorch multiplies matrices in other ways where a weight requires no gradient."""
    recurrent = Discrete(
        layers.LSTM(28, return_sequences=True), "ternary", ("kernel", "recurrent_kernel")
    )
    model = keras.Sequential([keras.Input((12, 9)), recurrent, Discrete(layers.Dense(23), "nf4")])
    x = random.normal(size=(3, 12, 9)).astype("float32")
    np.testing.assert_array_equal(outputs(model, x), outputs(quantal.finalize(model), x))


def test_the_file_is_small(tmp_path, random):
    model = keras.Sequential([keras.Input((400,)), Discrete(layers.Dense(500), [1, -1])])
    model.compile("adam", "mse")
    model.fit(random.normal(size=(4, 400)), np.zeros((4, 500)), verbose=0)
    quantal.finalize(model).save(tmp_path / "m.keras")
    # One bit a weight, and what Keras's file takes without any.
    assert (tmp_path / "m.keras").stat().st_size < 200_000 / 8 + 32_000


def test_what_is_final_does_not_learn(random):
    final = quantal.finalize(network(values="ternary", scale="learned"))
    x, y = random.normal(size=(8, 6, 3)), random.normal(size=(8, 2))
    before = [numpy(v) for parameter in parameters_of(final) for v in parameter.variables]
    bias = numpy(final.layers[-1].bias)
    final.compile(keras.optimizers.SGD(0.1), "mse")
    final.fit(x, y, verbose=0)
    after = [numpy(v) for parameter in parameters_of(final) for v in parameter.variables]
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old, new)
    assert not np.array_equal(bias, numpy(final.layers[-1].bias))


def test_compiled_predictions_see_new_codes():
    final = quantal.finalize(keras.Sequential([keras.Input((2,)), LearnableMultiplier()]))
    outputs(final, np.ones((1, 2)))
    final.layers[0].set_codes([0, 1])
    first = outputs(final, np.ones((1, 2)))
    final.layers[0].set_codes([1, 0])
    np.testing.assert_array_equal(first, -outputs(final, np.ones((1, 2))))


@pytest.mark.parametrize("arguments", ARGUMENTS[:2])
def test_everything_takes_a_finalized_model(arguments, tmp_path, random):
    model = network(**arguments)
    final, x = quantal.finalize(model), random.normal(size=(4, 6, 3))
    expected = outputs(model, x)
    np.testing.assert_array_equal(expected, outputs(quantal.bake(final), x))
    quantal.save(final, tmp_path / "m.quantal")
    np.testing.assert_array_equal(expected, outputs(quantal.load(tmp_path / "m.quantal"), x))
    copy = keras.models.clone_model(final)
    copy.set_weights(final.get_weights())
    np.testing.assert_array_equal(expected, outputs(copy, x))
    np.testing.assert_array_equal(expected, outputs(quantal.finalize(final), x))
    other = quantal.discretize(final, {"dense": "ternary"}, scale=None)
    assert len(other.trainable_variables) > len(final.trainable_variables)
    quantal.export(final, tmp_path / "m.npz")


def test_weights_alone(tmp_path, random):
    first, second = (quantal.finalize(network(values="ternary")) for _ in range(2))
    x = random.normal(size=(4, 6, 3))
    assert not np.array_equal(outputs(first, x), outputs(second, x))
    first.save_weights(tmp_path / "m.weights.h5")
    second.load_weights(tmp_path / "m.weights.h5")
    np.testing.assert_array_equal(outputs(first, x), outputs(second, x))


@pytest.mark.filterwarnings("ignore:Skipping nested container")  # Of Keras, after the error.
def test_other_weights_are_refused(tmp_path):
    quantal.finalize(network(values="ternary")).save_weights(tmp_path / "m.weights.h5")
    with pytest.raises(ValueError, match=r"is not readable from the file.*Load an unchanged"):
        quantal.finalize(network(values=[1, -1])).load_weights(tmp_path / "m.weights.h5")


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    model, path = network(values="ternary"), tmp_path / "m.keras"
    final = quantal.finalize(model, path)
    again = keras.models.load_model(path)
    for old, new in zip(final.weights, again.weights, strict=True):
        np.testing.assert_array_equal(numpy(old), numpy(new))
    path.chmod(0o600)
    whole = path.read_bytes()

    def save(self, file):
        file.write_bytes(whole[:99])
        raise OSError("no space is left")

    with monkeypatch.context() as patch:
        patch.setattr(keras.Model, "save", save)
        with pytest.raises(OSError, match="no space"):
            quantal.finalize(model, path)
    assert path.read_bytes() == whole
    quantal.finalize(model, path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["m.keras"]


def test_bad_paths(tmp_path):
    model = network(values="ternary")
    with pytest.raises(ValueError, match=r"Expected '\.keras'"):
        quantal.finalize(model, tmp_path / "m.h5")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        quantal.finalize(model, tmp_path / "no" / "m.keras")
    assert not list(tmp_path.iterdir())


def test_bad_input():
    with pytest.raises(TypeError, match="Expected a Keras model"):
        quantal.finalize(LearnableMultiplier())
    with pytest.raises(ValueError, match="is not built"):
        quantal.finalize(keras.Sequential([LearnableMultiplier()]))


def test_codes_of_another_version_are_refused():
    layer = quantal.finalize(
        keras.Sequential([keras.Input((3,)), LearnableMultiplier([1, -1])])
    ).layers[0]
    store = {}
    layer.save_own_variables(store)
    store["version"] = np.array(99)
    with pytest.raises(ValueError, match=r"packed codes of version 99\. Expected .* version 1"):
        layer.load_own_variables(store)


@keras.saving.register_keras_serializable("quantal_test")
class Counted(keras.initializers.Ones):
    """An initializer that counts its calls."""

    calls = 0

    def __call__(self, shape, dtype=None):
        Counted.calls += 1
        return super().__call__(shape, dtype)


def test_the_model_that_proves_a_config_draws_no_numbers():
    dense = layers.Dense(2, bias_initializer=Counted())
    model = keras.Sequential([keras.Input((3,)), Discrete(dense, [1, -1])])
    Counted.calls = 0
    quantal.finalize(model)
    assert Counted.calls == 1  # In the model that it returns.


@keras.saving.register_keras_serializable("quantal_test")
class ReadsItsBias(layers.Dense):
    """A layer that reads a number while it is built."""

    def build(self, input_shape):
        super().build(input_shape)
        self.first = float(numpy(self.bias.value)[0])


@on_one_backend
def test_a_layer_that_reads_numbers_in_build_is_finalized():
    model = keras.Sequential([keras.Input((3,)), ReadsItsBias(2), LearnableMultiplier([1, -1])])
    model.layers[0].bias.assign([1, 2])
    final = quantal.finalize(model)
    assert numpy(final.layers[0].bias).tolist() == [1, 2]
