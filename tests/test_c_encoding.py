"""Weights in C: codes that come back, and numbers that are read as they were."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from quantal._export.c.encoding import decoding, encode, pack_codes
from quantal._export.c.text import initializers, literal
from quantal._export.graph.geometry import window_of
from quantal._export.graph.steps import Listed, Product

pytestmark = pytest.mark.without_keras  # NumPy alone


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_literals_are_read_to_the_bit(number):
    text = literal(number)
    assert text.endswith("f")
    assert "." in text or "e" in text
    again = np.float32(float(text[:-1]))
    assert again.view(np.uint32) == np.float32(number).view(np.uint32)


def test_initializers_fit_their_lines():
    numbers = np.linspace(-1, 1, 100).astype(np.float32)
    lines = initializers(numbers).splitlines()
    assert max(map(len, lines)) <= 100
    words = " ".join(lines).replace(",", " ").split()
    np.testing.assert_array_equal(np.array([w[:-1] for w in words], np.float32), numbers)


@pytest.mark.parametrize("bits", range(1, 17))
def test_codes_come_back(bits, random):
    codes = random.integers(0, 2**bits, (3, 37))
    data = pack_codes(codes, bits).tolist()
    # C's division of integers, in Python.
    expression = decoding(bits).replace("/", "//").replace("(uint32_t)", "")
    decoded = [eval(expression, {"codes": data, "i": i}) for i in range(codes.size)]
    assert decoded == codes.ravel().tolist()


def product_of(lists, codes, scale=1.0):
    outputs, inputs = codes.shape
    weights = Listed(codes, np.atleast_2d(np.asarray(lists, float)))
    window = window_of((inputs,), outputs)
    return Product(
        window, weights, np.broadcast_to(scale, outputs).astype(float), np.zeros(outputs)
    )


@pytest.mark.parametrize(
    ("values", "name", "bits"),
    [
        ([1, -1], "signs", 1),
        ([0.7, 0, -0.7], "signs", 2),
        ([0, 3], "signs", 1),
        ([0.3, 2], "listed", 1),
        ([1, -1, 0.5, -0.5], "listed", 2),
        (np.linspace(-1, 2, 40), "listed", 6),
    ],
)
def test_the_encoding_of_a_list(values, name, bits, random):
    codes = random.integers(0, len(values), (30, 40))
    encoding = encode(product_of(values, codes))
    assert (encoding.name, encoding.bits) == (name, bits)
    expected = np.asarray(values, float)[codes]
    if name == "listed":
        np.testing.assert_array_equal(encoding.lists[0][encoding.weights], expected)
    assert np.array_equal(np.argsort(expected, axis=None, kind="stable"),
                          np.argsort(encoding.weights, axis=None, kind="stable"))  # fmt: skip


def test_values_that_do_not_occur_take_no_bits(random):
    codes = random.integers(0, 2, (8, 40)) * 5
    encoding = encode(product_of([-1, 7, 8, 9, 10, 1], codes, scale=2.0))
    assert (encoding.name, encoding.bits) == ("signs", 1)
    np.testing.assert_array_equal(encoding.scale, [[2.0]])


def test_few_weights_on_a_long_list_are_floats(random):
    values = np.linspace(-1, 1, 300)
    encoding = encode(product_of(values, np.array([[1, 200, 3]])))
    assert (encoding.name, encoding.bits) == ("floats", 0)


@pytest.mark.parametrize("padding", ["valid", "same", "causal"])
def test_windows_count_their_outputs(padding):
    window = window_of((17, 3), 5, (3,), (2,), (2,), padding=padding)
    assert (window.in_height, window.out_height, window.kernel_height) == (1, 1, 1)
    outputs = {"valid": 7, "same": 9, "causal": 9}[padding]
    left = {"valid": 0, "same": 2, "causal": 4}[padding]
    assert (window.out_width, window.left) == (outputs, left)
    assert window.size == outputs * 5
