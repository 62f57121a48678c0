import keras
import numpy as np
import pytest

from conftest import numpy
from quantal import LearnableMultiplier, callbacks, parameters_of


def model(estimator="annealed"):
    built = keras.Sequential(
        [keras.Input((4,)), LearnableMultiplier("ternary", estimator=estimator)]
    )
    built.compile("sgd", "mse")
    return built


class Softness(keras.callbacks.Callback):
    """Notes how soft the first parameter is after each epoch."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_epoch_end(self, epoch, logs=None):
        parameter = parameters_of(self.model)[0]
        state = keras.ops.convert_to_tensor(parameter.state)
        self.seen.append(float(numpy(parameter.estimator.softness(state))))


X = np.ones((64, 4), "float32")


@pytest.mark.parametrize("estimator", ["annealed", "binary_relax"])
def test_values_are_hard_from_the_share_of_the_run_on(estimator):
    seen = Softness()
    model(estimator).fit(
        X, X, epochs=8, batch_size=16, verbose=0, callbacks=[callbacks.PaceToRun(0.5), seen]
    )
    np.testing.assert_allclose(seen.seen[1], 0.5, atol=0.01)
    assert np.all(np.diff(seen.seen[:4]) < 0)
    assert seen.seen[3:] == [0] * 5


def test_a_second_part_of_a_run_goes_on_in_the_schedule():
    first, pace = model(), callbacks.PaceToRun(1.0)
    seen = Softness()
    first.fit(X, X, epochs=4, verbose=0, callbacks=[pace])
    first.fit(X, X, initial_epoch=4, epochs=8, verbose=0, callbacks=[pace, seen])
    assert 0 < seen.seen[0] < 0.5
    assert seen.seen[-1] == 0


def test_unknown_steps_are_learned_from_the_first_epoch():
    # As Keras calls it for data whose length it does not know.
    built, pace = model(), callbacks.PaceToRun(0.75)
    pace.set_model(built)
    pace.set_params({"epochs": 4, "steps": None})
    pace.on_train_begin()
    state = parameters_of(built)[0].state
    for batch in range(3):
        pace.on_train_batch_end(batch)
    np.testing.assert_array_equal(numpy(state), [0, 0])
    pace.on_epoch_end(0)
    np.testing.assert_array_equal(numpy(state), [0, 9])


def test_nothing_to_pace_is_refused():
    with pytest.raises(ValueError, match="no annealed parameter"):
        model("straight_through").fit(X, X, verbose=0, callbacks=[callbacks.PaceToRun()])


@pytest.mark.parametrize("share", [0, -1, 1.5])
def test_a_bad_share_is_refused(share):
    with pytest.raises(ValueError, match="share is"):
        callbacks.PaceToRun(share)
