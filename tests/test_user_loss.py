"""A function of the user's is called in the type that it is written for."""

import os
import pathlib
import signal
import threading

import keras
import numpy as np
import pytest

from conftest import on_one_backend
from quantal._optimize.search import choice
from quantal._optimize.search.user_loss import UserLoss
from searches import search


def test_a_list_for_each_element_in_keras(monkeypatch):
    monkeypatch.setattr(choice, "ENUMERATED", 0)

    def loss(v):
        return keras.ops.square(keras.ops.sum(v, axis=1) - 22.5)

    result = search(loss, [[1, 2, 3], [10, 20], [0.5]], evaluations=1000)
    assert result.vector.tolist() == [2, 20, 0.5]
    assert result.loss == 0


def test_gradients_where_there_are_some(random):
    matrix = random.normal(size=(30, 40)).astype("float32")
    target = (matrix @ random.choice([1.0, -1.0, 0.5], 40)).astype("float32")

    def loss(v):
        difference = keras.ops.subtract(keras.ops.matmul(v, matrix.T), target)
        return keras.ops.sum(keras.ops.log(keras.ops.cosh(difference)), axis=1)

    user_loss, rows = UserLoss(loss, 40), random.normal(size=(3, 40))
    assert user_loss.gradients(rows) is None  # Before its first call nothing is known.
    user_loss(rows)
    expected = np.tanh(rows @ matrix.T - target) @ matrix
    np.testing.assert_allclose(user_loss.gradients(rows), expected, rtol=1e-3, atol=1e-3)
    # NumPy's functions have none.
    plain = UserLoss(lambda v: np.abs(v).sum(axis=1), 40)
    plain(rows)
    assert plain.gradients(rows) is None
    assert len(plain) == 40


def test_a_function_that_leaves_the_backend_has_no_gradients(random):
    def loss(v):
        array = keras.ops.convert_to_numpy(v)
        return keras.ops.convert_to_tensor(np.abs(array).sum(axis=1))

    user_loss, rows = UserLoss(loss, 4), random.normal(size=(3, 4))
    np.testing.assert_allclose(user_loss(rows), np.abs(rows).sum(axis=1), rtol=1e-5)
    assert user_loss.gradients(rows) is None
    assert search(loss, [1, -3], 30, 500).evaluations >= 500


def test_a_batch_is_padded_to_a_power_of_two(random):
    counts = []

    def loss(v):
        counts.append(len(v))
        return keras.ops.sum(keras.ops.convert_to_tensor(v), axis=1)

    user_loss, rows = UserLoss(loss, 3), random.normal(size=(11, 3))
    for count in (3, 5, 11):
        np.testing.assert_allclose(user_loss(rows[:count]), rows[:count].sum(axis=1), rtol=1e-5)
    assert counts == [3, 8, 16]


@on_one_backend
def test_a_sequential_is_a_plain_function():
    """It has a length, and is no objective."""
    torch = pytest.importorskip("torch")
    device = keras.ops.zeros(()).device

    class Rows(torch.nn.Module):
        def forward(self, v):
            return torch.as_tensor(v, device=device).square().sum(dim=1)

    layers = torch.nn.Sequential(Rows(), torch.nn.ReLU())
    assert len(layers) == 2
    result = search(layers, [1.0, 2.0], 5)
    assert result.proved
    assert result.vector.tolist() == [1] * 5


@on_one_backend
def test_functions_in_numpy_have_float64_after_the_first_call():
    kinds = []

    def loss(v):
        kinds.append(v.dtype)
        return np.abs(v.sum(axis=1))

    search(loss, [1.0, -1.0], 25, evaluations=100)
    assert kinds[0] == np.float32
    assert set(kinds[1:]) == {np.dtype(np.float64)}


@on_one_backend
def test_processes_share_a_batch(random):
    rows = random.normal(size=(7, 3))
    # A lambda is sent as it is, and needs no import of these tests.
    shared = UserLoss(lambda v: np.abs(v).sum(axis=1) ** 1.5, 3, jobs=2)
    shared(rows[:1])
    np.testing.assert_allclose(shared(rows), np.abs(rows).sum(axis=1) ** 1.5)


def slow_loss(v):
    return np.abs(v @ np.sin(np.arange(v.shape[1]))) + np.abs(v).sum(axis=1) ** 1.5


def result_with(jobs=None):
    result = search(slow_loss, [1.0, 2.0, -3.0], 30, evaluations=400, jobs=jobs)
    return result.loss, result.codes.tolist()


@on_one_backend
def test_the_users_backend_of_joblib_computes_losses(monkeypatch):
    joblib = pytest.importorskip("joblib")
    sizes, threads = [], set()

    def loss(v):
        sizes.append(len(v))
        threads.add(threading.get_ident())
        return np.abs(v).sum(axis=1) ** 1.5

    rows = np.arange(24.0).reshape(8, 3)
    user_loss = UserLoss(loss, 3)
    user_loss(rows[:1])
    with joblib.parallel_config(backend="threading", n_jobs=2):
        losses = user_loss(rows)
    np.testing.assert_allclose(losses, np.abs(rows).sum(axis=1) ** 1.5)
    assert sorted(sizes[-2:]) == [4, 4]
    assert threads - {threading.get_ident()}
    user_loss(rows)
    assert sizes[-1] == 8  # Without the user's backend the function is called as before.


@pytest.mark.slow
@on_one_backend
def test_dask_gives_the_result_of_one_process():
    joblib, distributed = (pytest.importorskip(name) for name in ("joblib", "distributed"))
    alone = result_with()
    workers = distributed.LocalCluster(2, threads_per_worker=1, dashboard_address=None)
    with workers as cluster, distributed.Client(cluster), joblib.parallel_config(backend="dask"):
        assert result_with() == alone
    assert result_with(jobs=2) == alone


@pytest.mark.slow
@on_one_backend
def test_ray_gives_the_result_of_one_process(tmp_path):
    joblib, ray = (pytest.importorskip(name) for name in ("joblib", "ray"))
    from ray.util.joblib import register_ray

    def loss(v):  # Its processes know the packages of this one, but not this file.
        pathlib.Path(tmp_path, str(os.getpid())).touch()
        return np.abs(v @ np.sin(np.arange(v.shape[1]))) + np.abs(v).sum(axis=1) ** 1.5

    alone = result_with()
    ray.init(num_cpus=2, include_dashboard=False)
    try:
        register_ray()
        with joblib.parallel_config(backend="ray", n_jobs=-1):
            result = search(loss, [1.0, 2.0, -3.0], 30, evaluations=400)
    finally:
        ray.shutdown()
    assert (result.loss, result.codes.tolist()) == alone
    # Ray starts processes anew for each batch.
    assert sum(path.name != str(os.getpid()) for path in tmp_path.iterdir()) >= 2


@on_one_backend
def test_a_process_that_is_killed_is_said(tmp_path):
    main, file = os.getpid(), tmp_path / "search.npz"

    def loss(v):
        if os.getpid() != main:
            os.kill(os.getpid(), signal.SIGKILL)
        return np.abs(v).sum(axis=1) + np.sin(v @ np.arange(30))

    words = r"A process.*jobs=2.*killed.*Expected.*Take fewer jobs; with file=.*goes on from it"
    with pytest.raises(RuntimeError, match=words):
        search(loss, [1.0, 2.0], 30, evaluations=2000, jobs=2, file=file)
    assert file.exists()
    result = search(loss, [1.0, 2.0], 30, evaluations=2000, file=file)
    assert result.loss <= loss(np.ones((1, 30)))[0] + 2


def test_a_complex_loss_is_refused():
    """Its real part is not what anybody asked for."""

    def loss(v):
        return keras.ops.cast(keras.ops.sum(keras.ops.convert_to_tensor(v), axis=1), "complex64")

    with pytest.raises(ValueError, match="gave numbers of dtype complex64"):
        search(loss, [1.0, -1.0], 5)


def test_a_loss_in_half_precision_is_a_number():
    def loss(v):
        return keras.ops.cast(keras.ops.sum(keras.ops.convert_to_tensor(v), axis=1), "bfloat16")

    assert search(loss, [1.0, -1.0], 5).loss == -5


@on_one_backend
@pytest.mark.parametrize(
    "loss",
    [
        lambda v: np.full(len(v), np.inf),
        lambda v: np.where(np.abs(v.sum(axis=1)) > 2, np.inf, v[:, 0]),
        lambda v: np.float64(v.sum(axis=1)) ** 2 * 1e300,
        lambda v: -np.abs(np.float64(v.sum(axis=1)) + 0.5) * 1e160,
        lambda v: np.maximum(np.abs(v.sum(axis=1)), 1) * 1e-310,
    ],
    ids=["infinite", "a penalty", "large", "large magnitude", "small"],
)
@pytest.mark.filterwarnings("error")
def test_extreme_losses_give_no_warnings_of_numpy(loss):
    """What looks for a structure computes squares and reciprocals of losses."""
    assert not np.isnan(search(loss, [1.0, -1.0], 30, evaluations=2000).loss)


@on_one_backend
def test_the_negative_of_what_is_to_be_large(random):
    def value(v):
        return keras.ops.sum(keras.ops.square(v), axis=1)

    rows = random.normal(size=(3, 4)).astype("float32")
    user_loss = UserLoss(value, 4, maximizes=True)
    np.testing.assert_allclose(user_loss(rows), -(rows**2).sum(axis=1), rtol=1e-6)
    np.testing.assert_allclose(user_loss.gradients(rows), -2 * rows, rtol=1e-6)
    np.testing.assert_allclose(user_loss(rows), -(rows**2).sum(axis=1), rtol=1e-6)
