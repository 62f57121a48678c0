"""The weight of inference is computed once and is never stale."""

import copy
import pickle
import threading

import keras
import numpy as np
import pytest
from keras import layers, ops

import quantal
from conftest import BACKEND, numpy
from quantal import Discrete, LearnableMultiplier, Values, parameters_of
from quantal._core.weight_computation import WeightComputation
from quantal._core.weight_scope import weights_replaced

LEARNED_LIST = Values([-1.0, 0.25, 1.0], learnable=True)


def dense_model(values="ternary", **arguments):
    discrete = Discrete(layers.Dense(3), values, **{"scale": "learned", **arguments})
    return keras.Sequential([keras.Input((4,)), discrete])


def only(model):
    (parameter,) = parameters_of(model)
    return parameter


def assert_fresh(model, x):
    """Assert that a model computes with the weight that its variables give now; return it."""
    parameter = only(model)
    model(x)
    weight = numpy(parameter._computation.compute()).copy()
    np.testing.assert_array_equal(numpy(parameter.compute(False)), weight)
    outputs = numpy(model(x))
    bias = 0 if isinstance(model.layers[-1], LearnableMultiplier) else model.layers[-1].layer.bias
    expected = x * weight if weight.ndim == 1 else x @ weight + numpy(bias)
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)
    return weight


def counted(monkeypatch):
    """Count how often a weight is computed."""
    count, compute = [], WeightComputation.compute

    def counting(self, training=False):
        count.append(self)
        return compute(self, training)

    monkeypatch.setattr(WeightComputation, "compute", counting)
    return count


@pytest.mark.parametrize("kind", ["trained", "frozen", "finalized", "learned list", "multiplier"])
def test_it_is_computed_once(kind, random, monkeypatch):
    x = random.normal(size=(2, 4)).astype("float32")
    model = dense_model(LEARNED_LIST if kind == "learned list" else "ternary")
    if kind == "multiplier":
        model = keras.Sequential([keras.Input((4,)), LearnableMultiplier("ternary")])
    if kind == "finalized":
        model = quantal.finalize(model)
    model.trainable = kind != "frozen"
    first = numpy(model(x))
    count = counted(monkeypatch)
    for training in (False, kind == "frozen"):
        np.testing.assert_array_equal(numpy(model(x, training=training)), first)
    assert len(count) == 0
    only(model).latent.assign(-numpy(only(model).latent))
    model(x)
    model(x)
    assert len(count) == 1


def reverse_codes(model):
    parameter = only(model)
    parameter.set_codes(len(parameter.values) - 1 - numpy(parameter.codes))


def change_one_latent(model):
    latents = numpy(only(model).latent).copy()
    latents[0] *= -3
    only(model).latent.assign(latents)


def begin_scale(model):
    only(model).scale_state.begin(np.float32(0.3))


def fit(model, **arguments):
    model.compile(keras.optimizers.SGD(0.5, **arguments), "mse")
    x = np.eye(4, dtype="float32")
    model.fit(x, np.ones((4, 3)), epochs=2, verbose=0)


def fit_eagerly(model):
    model.compile(keras.optimizers.SGD(0.5), "mse", run_eagerly=BACKEND != "jax")
    model.train_on_batch(np.eye(4, dtype="float32"), np.ones((4, 3)))


def load_weights(model, tmp_path):
    reverse_codes(model)
    model.save_weights(tmp_path / "m.weights.h5")
    reverse_codes(model)
    assert_fresh(model, np.eye(4, dtype="float32"))
    model.load_weights(tmp_path / "m.weights.h5")


def freeze_change_and_thaw(model):
    for trainable in (False, True):
        model.trainable = trainable
        reverse_codes(model)
        assert_fresh(model, np.eye(4, dtype="float32"))
    change_one_latent(model)


def polish(model):
    model.compile(loss="mse")
    quantal.polish(
        model, np.eye(4, dtype="float32"), 2 * np.ones((4, 3)), quantal.Budget(evaluations=50),
        verbose=0,
    )  # fmt: skip


CHANGES = {
    "set codes": reverse_codes, "latent": change_one_latent, "scale": begin_scale, "fit": fit,
    "fit eagerly": fit_eagerly, "load weights": load_weights, "freezing": freeze_change_and_thaw,
    "polish": polish, "set weights": lambda m: m.set_weights([-w for w in m.get_weights()]),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_no_change_leaves_it_stale(change, random, tmp_path):
    x = random.normal(size=(2, 4)).astype("float32")
    model = dense_model()
    before = assert_fresh(model, x)
    arguments = {"tmp_path": tmp_path} if change == "load weights" else {}
    CHANGES[change](model, **arguments)
    assert not np.array_equal(assert_fresh(model, x), before)
    CHANGES[change](model, **arguments)
    assert_fresh(model, x)


@pytest.mark.skipif(BACKEND != "torch", reason="other backends' tensors do not change")
def test_of_a_finalized_layer_no_number_is_compared(random, monkeypatch):
    import torch

    from quantal._core.tensors import kept

    x = random.normal(size=(2, 4)).astype("float32")
    model = quantal.finalize(dense_model())
    before = assert_fresh(model, x)
    compared = []
    monkeypatch.setattr(kept, "_are_equal", lambda *arrays: compared.append(arrays))
    model(x)
    assert not compared
    reverse_codes(model)
    assert not np.array_equal(assert_fresh(model, x), before)
    value = only(model).latent.value
    with torch.no_grad():
        value.mul_(-1)
    np.testing.assert_array_equal(assert_fresh(model, x), before)
    with torch.inference_mode():
        only(model).latent.assign(-numpy(only(model).latent))
    assert not np.array_equal(assert_fresh(model, x), before)
    value.data = -value.data.clone()  # Other memory.
    np.testing.assert_array_equal(assert_fresh(model, x), before)
    other = copy.deepcopy(model)
    other(x)
    assert not compared


def test_a_learned_list_that_moves_is_seen(random):
    x = random.normal(size=(2, 4)).astype("float32")
    model = dense_model(LEARNED_LIST, scale=None)
    assert_fresh(model, x)
    only(model).set_values([-2, 0.5, 2])
    assert set(np.unique(assert_fresh(model, x))) <= {-2, 0.5, 2}


def test_scopes_come_first(random):
    x = random.normal(size=(2, 4)).astype("float32")
    model = dense_model(scale=None)
    before = assert_fresh(model, x)
    with weights_replaced({only(model): ops.ones((4, 3))}):
        np.testing.assert_array_equal(numpy(only(model).compute(False)), 1)
    latent = only(model).latent
    with keras.StatelessScope([(latent, ops.ones((4, 3)))]):
        assert (numpy(only(model).compute(False)) > 0).all()
    np.testing.assert_array_equal(assert_fresh(model, x), before)


def test_copies_are_apart(random):
    x = random.normal(size=(2, 4)).astype("float32")
    model = dense_model()
    before = assert_fresh(model, x)
    copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    for other in copies:
        reverse_codes(other)
        assert not np.array_equal(assert_fresh(other, x), before)
    np.testing.assert_array_equal(assert_fresh(model, x), before)


def test_threads_share_it(random):
    x = random.normal(size=(2, 4)).astype("float32")
    model, outputs = dense_model(), []
    expected = numpy(model(x))
    threads = [
        threading.Thread(target=lambda: outputs.extend(numpy(model(x)) for _ in range(20)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(output, expected) for output in outputs)


@pytest.mark.parametrize("scale", [None, "learned"])
def test_gradients_in_inference_are_those_of_the_computation(scale, random):
    model = dense_model(LEARNED_LIST, scale=scale)
    parameter, weight = only(model), random.normal(size=(4, 3)).astype("float32")
    parameter.compute(False)

    def gradients(compute):
        return quantal.testing.gradient_of(
            lambda latents: _with(parameter.latent, latents, compute, weight),
            numpy(parameter.latent),
        )

    for change in (lambda m: None, change_one_latent):
        change(model)
        expected = gradients(lambda: parameter._computation.compute())
        assert np.abs(expected).sum() > 0
        np.testing.assert_allclose(gradients(lambda: parameter.compute(False)), expected)


def _with(variable, number, compute, weight):
    with keras.StatelessScope([(variable, number)]):
        return ops.sum(compute() * ops.convert_to_tensor(weight))


@pytest.mark.skipif(BACKEND != "torch", reason="tensors that change are PyTorch's")
class TestInPyTorch:
    def test_changes_that_leave_no_trace_are_seen(self, random):
        import torch

        x = random.normal(size=(2, 4)).astype("float32")
        model = dense_model()
        latent = only(model).latent.value
        for change in (
            lambda: latent.data.neg_(),
            lambda: latent.detach().numpy().__imul__(-1),
            lambda: setattr(latent, "data", -latent.data),
            lambda: model.load_state_dict({n: -t for n, t in model.state_dict().items()}),
        ):
            before = assert_fresh(model, x)
            change()
            assert not np.array_equal(assert_fresh(model, x), before)
        with torch.no_grad():
            latent.neg_()
        assert_fresh(model, x)

    @pytest.mark.parametrize("shape", [(300, 1000), (1, 999_999), (700_001, 1)])
    def test_each_number_of_a_large_weight_counts(self, shape, random):
        layer = Discrete(layers.Dense(shape[1]), "ternary", scale="learned")
        layer.build((None, shape[0]))
        (parameter,) = parameters_of(layer)
        numbers = parameter.latent.value.data.numpy()
        for position in ((0, 0), (shape[0] // 2, shape[1] // 2), (-1, -1)):
            before = parameter.compute(False)
            assert parameter.compute(False).data_ptr() == before.data_ptr()
            numbers[position] = -3 if numbers[position] > 0 else 3
            after = parameter.compute(False)
            assert np.flatnonzero(numpy(after) != numpy(before)).size == 1
            np.testing.assert_array_equal(numpy(after), numpy(parameter._computation.compute()))
        parameter.latent.value.data = parameter.latent.value.data.clone().T.contiguous().T
        parameter.compute(False)
        parameter.latent.value.data[-1, -1] *= -1
        np.testing.assert_array_equal(
            numpy(parameter.compute(False)), numpy(parameter._computation.compute())
        )

    def test_a_result_that_is_changed_is_not_used_again(self, random):
        import torch

        x = random.normal(size=(2, 4)).astype("float32")
        model = dense_model()
        assert_fresh(model, x)
        with torch.no_grad():
            only(model).compute(False).mul_(7)
        assert_fresh(model, x)

    def test_gradients_go_to_all_variables_and_twice(self, random):
        import torch

        model = dense_model(LEARNED_LIST)
        parameter = only(model)
        variables = [v.value for v in parameter.variables]
        assert len(variables) == 3
        upstream = torch.tensor(random.normal(size=(4, 3)).astype("float32"), requires_grad=True)

        def gradients(weight):
            first = torch.autograd.grad((weight * upstream).sum(), variables, create_graph=True)
            (second,) = torch.autograd.grad(sum(g.sum() for g in first), upstream)
            return [g.detach().numpy() for g in (*first, second)]

        expected = gradients(parameter._computation.compute())
        for _ in range(2):
            for given, right in zip(gradients(parameter.compute(False)), expected, strict=True):
                np.testing.assert_array_equal(given, right)
        # A weight that changes between the two passes is an error, as in a plain layer.
        weight = parameter.compute(False)
        parameter.latent.assign(-numpy(parameter.latent))
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            weight.sum().backward()

    def test_inference_mode_does_not_spoil_training(self, random):
        import torch

        x = torch.tensor(random.normal(size=(2, 4)).astype("float32"))
        model = dense_model()
        with torch.inference_mode():
            model(x)
        model(x).sum().backward()
        assert only(model).latent.value.grad is not None


@pytest.mark.skipif(BACKEND != "tensorflow", reason="graphs and tapes are TensorFlow's")
class TestInTensorFlow:
    def test_graphs_and_tapes_read_the_variables(self, random):
        import tensorflow as tf

        x = random.normal(size=(2, 4)).astype("float32")
        model = dense_model()
        traced = tf.function(lambda x: model(x, training=False))
        assert_fresh(model, x)
        for change in (lambda m: None, reverse_codes, change_one_latent):
            change(model)
            np.testing.assert_allclose(numpy(traced(x)), numpy(model(x)), rtol=1e-5)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(x, training=False))
        assert all(g is not None for g in tape.gradient(loss, model.trainable_variables))

    @pytest.mark.parametrize("compile", [False, True])
    def test_changes_in_place_are_seen(self, compile, random):
        import tensorflow as tf

        x = random.normal(size=(2, 4)).astype("float32")
        model = dense_model("binary")
        latent = only(model).latent.value
        negated = tf.function(lambda: latent.assign_sub(2 * latent), jit_compile=compile)
        for change in (
            negated,
            lambda: latent.scatter_nd_update([[0, 0]], -latent[:1, 0]),
            lambda: latent.assign_add(-2 * latent, use_locking=True),
        ):
            for _ in range(2):
                before = assert_fresh(model, x)
                change()
                assert not np.array_equal(assert_fresh(model, x), before)


@pytest.mark.skipif(BACKEND != "jax", reason="tracers are JAX's")
class TestInJax:
    def test_tracers_are_not_kept(self, random):
        import jax

        x = random.normal(size=(2, 4)).astype("float32")
        model = dense_model()
        outputs = numpy(jax.jit(lambda x: model(x))(x))
        np.testing.assert_allclose(numpy(model(x)), outputs, rtol=1e-5)
        assert_fresh(model, x)
        change_one_latent(model)
        state = [v.value for v in model.trainable_variables]
        others = [v.value for v in model.non_trainable_variables]

        def loss(state):
            return ops.sum(model.stateless_call(state, others, x)[0])

        gradient = jax.jit(jax.grad(loss))(state)
        assert all(np.abs(g).sum() > 0 for g in gradient)
        assert_fresh(model, x)

    def test_arrays_that_were_given_away_are_not_used(self, random):
        model = dense_model()
        x = random.normal(size=(2, 4)).astype("float32")
        model(x)
        only(model).latent.value.delete()
        with pytest.raises(RuntimeError, match="deleted"):
            model(x)


def test_who_writes_into_a_kernel_writes_into_a_copy(random):
    if BACKEND != "torch":
        pytest.skip("tensors of the other backends do not change")
    x = random.normal(size=(2, 4)).astype("float32")
    model = dense_model("ternary")
    first = numpy(model(x)).copy()
    # Neither way leaves a trace in the tensor's count of changes.
    model.layers[0].kernel.data.mul_(3)
    model.layers[0].kernel.detach().numpy()[...] = 7
    np.testing.assert_array_equal(numpy(model(x)), first)
