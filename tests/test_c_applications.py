"""The families of keras.applications compute as C what they do in Keras."""

import shutil

import keras
import pytest

from conftest import on_one_backend

c_applications = pytest.importorskip("c_applications", reason="benchmarks are not beside the tests")

needs_gcc = pytest.mark.skipif(
    shutil.which("gcc") is None, reason="gcc, which compiles the C, is not installed"
)
BOUND = 1e-4
# The difference of two computations may be so many times what Keras itself varies, as in export.
VARIATIONS = 4
SMALL = ["MobileNetV2", "MobileNetV3Small"]
LARGE = [family for family in c_applications.FAMILIES if family not in SMALL]


def assert_agrees(family, folder):
    row = c_applications.measured(c_applications.network(family), folder)
    assert row["differ by"] > 1e-3  # Or the outputs would not depend on the image.
    assert row["Keras's own"] < 0.01
    assert row["largest difference"] <= max(BOUND, VARIATIONS * row["Keras's own"])


@needs_gcc
@on_one_backend
@pytest.mark.parametrize("family", SMALL)
def test_small_families(family, tmp_path):
    assert_agrees(family, tmp_path)


@needs_gcc
@pytest.mark.slow
@pytest.mark.parametrize("family", LARGE)
def test_large_families(family, tmp_path):
    # JAX would compile each layer for minutes; Keras does not build NASNet on PyTorch.
    if keras.config.backend() != ("tensorflow" if family == "NASNetMobile" else "torch"):
        pytest.skip("it is tested on another backend")
    assert_agrees(family, tmp_path)
