"""What people use in training works on lists: accumulation, clipping, averages, steps in one."""

import keras
import numpy as np
import pytest
from keras import layers

from conftest import numpy
from quantal import Values, discretize, parameters_of
from quantal.testing import assert_listed

VALUES = Values([1, -1, 0.3])


def model_and_data(random):
    model = keras.Sequential(
        [keras.Input((6,)), layers.Dense(8), layers.BatchNormalization(), layers.Dense(3)]
    )
    x = random.normal(size=(64, 6)).astype("float32")
    return discretize(model, VALUES), x, random.normal(size=(64, 3)).astype("float32")


def latents_of(model):
    return [numpy(parameter.latent).copy() for parameter in parameters_of(model)]


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        ({"gradient_accumulation_steps": 2}, {}),
        ({"clipnorm": 0.1}, {}),
        ({"global_clipnorm": 0.1}, {}),
        ({"clipvalue": 0.01}, {}),
        ({"use_ema": True, "ema_momentum": 0.5}, {}),
        ({}, {"steps_per_execution": 2}),
        ({}, {"run_eagerly": True}),
        ({}, {"auto_scale_loss": True}),
    ],
    ids=str,
)
def test_training_moves_latents_and_uses_listed_values(optimizer, options, random):
    if "steps_per_execution" in options and keras.config.backend() == "torch":
        pytest.skip("Keras has no steps_per_execution on PyTorch")
    model, x, y = model_and_data(random)
    before = latents_of(model)
    model.compile(keras.optimizers.Adam(0.05, **optimizer), "mse", **options)
    losses = model.fit(x, y, batch_size=8, epochs=4, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    moved = [not np.array_equal(a, b) for a, b in zip(before, latents_of(model), strict=True)]
    assert all(moved)
    assert_listed(model)


def test_an_average_over_steps_is_of_latents_not_of_values(random):
    model, x, y = model_and_data(random)
    optimizer = keras.optimizers.Adam(
        0.05, use_ema=True, ema_momentum=0.9, ema_overwrite_frequency=None
    )
    model.compile(optimizer, "mse")
    model.fit(x, y, batch_size=8, epochs=2, verbose=0)
    # Keras puts the averages in place at the end of fit: of numbers between the last ones.
    averages = optimizer._model_variables_moving_average
    for variable, average in zip(model.trainable_variables, averages, strict=True):
        np.testing.assert_array_equal(numpy(variable), numpy(average))
    assert any(len(np.unique(latent)) > len(VALUES) for latent in latents_of(model))
    for parameter in parameters_of(model):
        assert np.isin(numpy(parameter.listed_values), VALUES.numbers).all()
    assert_listed(model)


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_trains(dtype, random):
    keras.config.set_dtype_policy(dtype)
    model, x, y = model_and_data(random)
    before = latents_of(model)
    model.compile(keras.optimizers.Adam(0.05), "mse")
    losses = model.fit(x, y, batch_size=8, epochs=4, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    assert not np.array_equal(before[0], latents_of(model)[0])
    assert_listed(model)


@pytest.mark.product
def test_a_keras_hub_backbone(random):
    hub = pytest.importorskip("keras_hub", reason="keras-hub is not installed")
    backbone = hub.models.BertBackbone(
        vocabulary_size=30, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16,
        max_sequence_length=6,
    )  # fmt: skip
    data = {
        "token_ids": random.integers(0, 30, (4, 6)),
        "segment_ids": np.zeros((4, 6), "int32"),
        "padding_mask": np.ones((4, 6), "int32"),
    }
    model = discretize(backbone, VALUES)
    assert len(parameters_of(model)) == 7
    assert_listed(model, data)
    outputs = model(data, training=False)
    assert np.isfinite(numpy(outputs["pooled_output"])).all()
