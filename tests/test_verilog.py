"""Verilog modules compute the integers of their models, to the bit."""

import shutil
import subprocess

import keras
import numpy as np
import pytest
from keras import layers

import quantal
from conftest import on_one_backend
from quantal import Discrete, DiscreteActivation, Values
from quantal._export.integer.steps import Range, Requantization
from quantal._export.verilog.requantization import narrowed

pytestmark = on_one_backend
needs_iverilog = pytest.mark.skipif(
    shutil.which("iverilog") is None, reason="not installed: iverilog"
)


@needs_iverilog
def test_a_verilog_module_computes_the_integers(tmp_path, random):
    model = keras.Sequential(
        [
            keras.Input((8,)),
            DiscreteActivation(Values.signed(8, 1 / 64)),
            Discrete(layers.Dense(6), "ternary", scale="learned"),
            layers.BatchNormalization(),
            DiscreteActivation(Values.unsigned(4, 0.25)),
            Discrete(layers.Dense(5), [1, -1, 0.5, -0.5]),
            DiscreteActivation("binary"),
            Discrete(layers.Dense(4), "binary"),
            DiscreteActivation(Values.signed(8, 0.3)),
            Discrete(layers.Dense(3), "ternary"),
        ]
    )
    # Negative factors, too, which turn thresholds.
    signs = random.choice([-1, 1], 6) * random.uniform(0.5, 2, 6)
    model.layers[2].gamma.assign(signs)
    model.layers[2].beta.assign(random.normal(size=6))
    x = random.normal(size=(50, 8))
    report = quantal.export(model, tmp_path / "net.v", inputs=x)
    assert report.remark == "the same integers as the reference in NumPy on 50 samples"
    assert "module net (" in report.paths[0].read_text()
    integer = quantal.to_integer(model)
    assert "same integers" in quantal.export(integer, tmp_path / "n.v", "verilog_module").remark


def dense(function="silu"):
    """A chain, with a function that falls and rises: with another one it needs no clock."""
    return keras.Sequential(
        [
            keras.Input((6,)),
            DiscreteActivation(Values.signed(4)),
            Discrete(layers.Dense(5), "ternary"),
            layers.Activation(function),
            DiscreteActivation(Values.signed(3, 0.1)),
            Discrete(layers.Dense(3), Values.signed(8)),
        ]
    )


def convnet():
    """Pixels; strides, padding and groups; every kind of list; both roundings; both poolings."""
    return keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.Rescaling(1 / 128, -1),
            Discrete(layers.Conv2D(4, 3, strides=2, padding="same"), "powers_of_two:4"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPooling2D(),
            DiscreteActivation(Values.unsigned(4, 0.25)),
            Discrete(layers.DepthwiseConv2D(3, padding="same"), "ternary", scale="learned"),
            layers.BatchNormalization(),
            DiscreteActivation([-1, -0.5, 0.5, 1]),
            Discrete(layers.Conv2D(6, 2, groups=2), [1, -1, 0.5, -0.5]),
            layers.BatchNormalization(),
            DiscreteActivation(Values.signed(8, 0.1)),
            layers.GlobalAveragePooling2D(),
            Discrete(layers.Dense(5), Values.signed(8)),
        ]
    )


def branches():
    """Sums, products and joined values; borders, crops and repeats."""
    image = keras.Input((4, 4, 3))
    x = DiscreteActivation(Values.signed(4))(image)
    y = Discrete(layers.Conv2D(3, 3, padding="same"), "binary")(x)
    y = DiscreteActivation(Values.signed(4), scale="learned", axis=-1)(y)
    both = layers.Subtract()([layers.Add()([x, y, x]), layers.Multiply()([x, x])])
    both = DiscreteActivation(Values.signed(4, 2))(both)
    both = layers.Concatenate()([both, x])
    both = layers.ZeroPadding2D(((1, 0), (0, 2)))(layers.Cropping2D(1)(both))
    both = layers.UpSampling2D()(both)
    both = layers.MaxPooling2D(3, strides=2, padding="same")(both)
    return keras.Model(image, Discrete(layers.Dense(70), "zero_one")(layers.Flatten()(both)))


def moved(model, random):
    """Statistics and biases of a trained model; some channels fall."""
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            size = layer.gamma.shape
            layer.gamma.assign(random.choice([-1, 1], size) * random.uniform(0.5, 2, size))
            layer.beta.assign(random.normal(size=size))
        elif isinstance(layer, DiscreteActivation) and layer.scale is not None:
            layer.set_scale(np.resize([0.5, 1, 2], layer.scale_value().shape))
        elif getattr(layer, "use_bias", False):
            layer.bias.assign(random.normal(size=layer.bias.shape))
    return model


@needs_iverilog
@pytest.mark.parametrize("network", [dense, convnet, branches])
def test_a_clocked_module_computes_the_integers(network, tmp_path, random):
    model = moved(network(), random)
    report = quantal.export(model, tmp_path / "net.v", "verilog_clocked")
    text = report.paths[0].read_text()
    clocks = text.split("last one out: ")[1].split(" clocks")[0]
    assert report.remark.startswith("the same integers as the reference in NumPy on ")
    # Counted by the simulation, and said before it.
    assert report.remark.endswith(f"; a sample takes {clocks} clocks")


@needs_iverilog
def test_a_module_without_target_has_a_clock_where_it_needs_one(tmp_path):
    image = [keras.Input((4, 4, 1)), DiscreteActivation("binary")]
    model = keras.Sequential([*image, Discrete(layers.Conv2D(2, 3), "binary")])
    report = quantal.export(model, tmp_path / "net.v")
    assert "input wire clk" in report.paths[0].read_text()
    assert "clocks" in report.remark


@needs_iverilog
def test_a_wrong_module_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr("quantal._export.verilog.sums.packed", lambda numbers, bits: 0)
    with pytest.raises(ValueError, match=r"'net\.v' computes others than the integers of the ref"):
        quantal.export(dense(), tmp_path / "net.v", "verilog_clocked")
    assert not list(tmp_path.iterdir())


def test_what_no_module_holds_is_refused(tmp_path):
    image = [keras.Input((4, 4, 1)), DiscreteActivation("binary")]
    model = keras.Sequential([*image, Discrete(layers.Conv2DTranspose(2, 3, strides=2), "binary")])
    with pytest.raises(ValueError, match=r"the transposed convolution 'conv2d_tr.*c_integer"):
        quantal.export(model, tmp_path / "net.v")
    inputs = [keras.Input((2,)), keras.Input((2,))]
    outputs = [DiscreteActivation("binary")(tensor) for tensor in inputs]
    model = keras.Model(inputs, layers.Add()(outputs))
    with pytest.raises(ValueError, match=r"several inputs or outputs, which a Verilog module"):
        quantal.export(model, tmp_path / "net.v")
    assert not list(tmp_path.iterdir())


def test_narrow_multipliers_give_the_same_results():
    random = np.random.default_rng(0)
    for _ in range(20):
        bounds = Range(int(random.integers(-3000, 1)), int(random.integers(1, 3000)))
        factor = random.uniform(-0.1, 0.1, 3)
        factor[0] = random.choice([0, 0.125, -1])
        multiplier = np.rint(factor * 2**30).astype(np.int64)
        addend = np.rint(random.normal(size=3) * 2**32).astype(np.int64)
        low = int(random.integers(-128, 0))
        step = Requantization(multiplier, addend, np.full(3, 30), low, low + 255)
        sums = np.arange(bounds.low, bounds.high + 1).repeat(3)
        result = narrowed(step, bounds)
        narrow = Requantization(
            np.array(result.multiplier),
            np.array(result.addend),
            np.full(3, result.shift),
            *step[3:],
        )
        np.testing.assert_array_equal(narrow.run(sums), step.run(sums))
        assert result.shift < 24


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("yosys") is None, reason="not installed: yosys")
@pytest.mark.parametrize("target", ["verilog_module", "verilog_clocked"])
def test_yosys_synthesizes_a_module(target, tmp_path):
    network = dense("relu" if target == "verilog_module" else "silu")
    quantal.export(network, tmp_path / "net.v", target, check=False)
    commands = "read_verilog net.v; synth_ice40 -top net; tee -o cells stat; check -assert"
    process = subprocess.run(
        ["yosys", "-p", commands], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    cells = (tmp_path / "cells").read_text()
    assert "SB_LUT4" in cells
    assert "Latch inferred" not in process.stdout
    assert ("SB_DFF" in cells) == (target == "verilog_clocked")
