"""Large models: memory beside that of float weights, in multiples of the weights' own."""

import os
import pathlib
import subprocess
import sys

import pytest
from keras import layers

import peak_memory
from conftest import BACKEND, on_one_backend
from models import listed, stack_of
from quantal import Parameter, bake
from quantal.testing import assert_listed

on_linux = pytest.mark.skipif(
    not pathlib.Path("/proc/self/clear_refs").exists(), reason="only Linux reports a peak"
)

MOST_OF_WHOLE_MODELS = 1.3
"""The most that work on a whole model takes above it, another model of its size included: measured
with 24 kernels on PyTorch 0.57 for a summary, 0.55 for `save`, 1.14 for `bake`, 1.21 for `finalize`
and 1.16 for `discretize`."""

SIDE, LENGTH = 3163, 256
"""10^7 elements; one number for each element and value would be 256 times the weight."""

MOST_OF_A_FLOAT_LAYER = 2.0
"""Measured with Adam: 1.3 times a float layer on PyTorch, 1.6 on JAX, 1.9 on TensorFlow."""

MOST_OF_ASSERT_LISTED = 0.3
"""The most that `assert_listed` takes above a model that exists, in multiples of its weights:
measured 0.27 on JAX, 0.06 on TensorFlow, and 0.21 on PyTorch with half as many kernels."""


@on_linux
@on_one_backend
def test_a_training_step_takes_no_number_for_each_element_and_value():
    plain = peak_memory.training(1, SIDE, None)
    on_list = peak_memory.training(1, SIDE, peak_memory.values_of(LENGTH))
    assert on_list < MOST_OF_A_FLOAT_LAYER * plain, (on_list, plain)


def peak(*arguments):
    """The peak of a work in a process of its own."""
    result = subprocess.run(
        [sys.executable, peak_memory.__file__, *map(str, arguments)],
        env={**os.environ, "KERAS_BACKEND": BACKEND},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(result.stdout.split()[-1])


@on_linux
@pytest.mark.slow
def test_training_on_every_backend():
    plain, on_list = (peak(work, 1, SIDE, LENGTH) for work in ("float", "training"))
    assert on_list < MOST_OF_A_FLOAT_LAYER * plain, (on_list, plain)


@on_linux
@pytest.mark.slow
def test_assert_listed_of_a_large_model():
    most = peak("assert_listed", 48, 1024, 16)
    assert most < MOST_OF_ASSERT_LISTED, most


@on_linux
@pytest.mark.slow
@pytest.mark.parametrize("work", ["summary", "save", "bake", "finalize", "discretize"])
def test_a_whole_model_takes_little_beside_what_it_becomes(work):
    most = peak(work, 24, 1024, 16)
    assert most < MOST_OF_WHOLE_MODELS, most


@on_one_backend
@pytest.mark.parametrize("work", [assert_listed, bake])
def test_no_weight_of_a_layer_that_is_done_is_kept(monkeypatch, work):
    from torch.multiprocessing.reductions import StorageWeakRef

    weights, alive = [], []
    compute = Parameter.compute

    def watched(parameter, *arguments):
        alive.append(sum(not weight.expired() for weight in weights))
        result = compute(parameter, *arguments)
        weights.append(StorageWeakRef(result.untyped_storage()))
        return result

    model = stack_of(*[listed(layers.Dense(5, use_bias=False)) for _ in range(6)], shape=(5,))
    monkeypatch.setattr(Parameter, "compute", watched)
    work(model)
    assert len(alive) == 6
    assert max(alive) <= 1
