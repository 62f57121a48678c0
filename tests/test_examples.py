"""The designers' examples reach what is known."""

import importlib
import pathlib

import numpy as np
import pytest

import quantal

few = lambda evaluations: quantal.Budget(evaluations=evaluations)  # noqa: E731
EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"
pytestmark = [
    pytest.mark.without_keras,
    pytest.mark.skipif(not EXAMPLES.exists(), reason="examples are not beside the package"),
]


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module


@pytest.fixture
def columns(example):
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    return example("feature_selection").read()


def test_filter(example):
    fir_filter = example("fir_filter")
    result = fir_filter.design(budget=few(1_000_000))
    assert result.loss == pytest.approx(0.21345, abs=1e-5)
    plain = fir_filter.rounded(fir_filter.continuous())
    assert float(fir_filter.loss_of()(plain[None])[0]) > 1.2 * result.loss


@pytest.mark.parametrize("count", [2, 4, 8])
def test_beam(example, count):
    beam = example("beam")
    for channel in (beam.array_of()[0], beam.surface_of()):
        result = beam.design(channel, count)
        assert result.proved
        assert beam.limit(count) < beam.lost(channel, result) < 0


def test_code(example):
    result = example("radar_code").design(13, evaluations=10_000)
    assert result.loss == 6
    assert result.proved


def test_sallen_key(example):
    result = example("sallen_key").design(2500, 2.0, budget=few(2_000_000))
    assert result.loss == pytest.approx(1.49e-5, abs=1e-7)
    assert result.proved


def test_two_level_design(example):
    two_level = example("two_level_design")
    result = two_level.design(12, budget=few(200_000))
    assert two_level.determinant(result) == 2985984
    matrix = two_level.matrix_of(result)
    np.testing.assert_array_equal(matrix.T @ matrix, 12 * np.eye(12))


def test_feature_selection(example, columns):
    features = example("feature_selection")
    result = features.design(*columns, 5, budget=few(20_000))
    assert result.loss == pytest.approx(features.KNOWN[5], abs=1e-7)
    assert result.vector.sum() == 5
    ways = features.loss_of(*columns)
    assert result.loss < features.greedy(ways, 64, 5)[-1]
    assert result.loss < features.lasso(ways, *columns, 5)[-1]


def test_greedy_is_that_of_scikit_learn(example, columns):
    features = example("feature_selection")
    from sklearn.feature_selection import SequentialFeatureSelector
    from sklearn.linear_model import LinearRegression

    few = columns[0][:, :12]
    # Fitted and scored on the same rows, as the example does.
    rows = np.arange(len(few))
    chosen = SequentialFeatureSelector(
        LinearRegression(), n_features_to_select=3, scoring="r2", cv=[(rows, rows)]
    ).fit(few, columns[1])
    loss = features.loss_of(few, columns[1])
    ours = features.greedy(loss, 12, 3)[-1]
    assert float(loss(chosen.get_support()[None].astype(float))[0]) == pytest.approx(ours)


def test_number_partitioning(example):
    splitting = example("number_partitioning")
    numbers = splitting.numbers_of(0, 14)
    best = splitting.exact(numbers)
    signs = np.array(np.meshgrid(*[[1, -1]] * 14)).reshape(14, -1).T
    assert best == np.abs(signs @ numbers).min()
    result = splitting.design(numbers, evaluations=20_000)
    assert result.loss == best  # So few vectors are all looked at.
    assert splitting.differenced(np.array([4, 5, 6, 7, 8])) == 2
    assert splitting.drawn(numbers, 5000) >= best
    assert abs(splitting.correlation(splitting.numbers_of())) < 0.05


def test_pictures(example, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    code, two_level, key = (example(n) for n in ("radar_code", "two_level_design", "sallen_key"))
    file = tmp_path / "drawn.svg"
    filters = {wanted: key.design(*wanted, budget=few(1000)) for wanted in key.KNOWN}
    lines = {name: [0.6, 0.5] for name in ("lasso", "greedy", "searched")}
    for draw in (
        lambda: example("fir_filter").draw(example("fir_filter").design(budget=few(2000)), file),
        lambda: example("beam").draw(0, file),
        lambda: code.draw(code.design(13, 100), 0, file),
        lambda: two_level.draw(two_level.design(4, few(2000)), file),
        lambda: key.draw(filters, file),
        lambda: example("feature_selection").draw(lines, file),
    ):
        draw()
        begun = file.read_bytes()
        assert b"<svg" in begun[:1000]
        assert b"dc:date" not in begun
        assert len(begun) < 60_000
        file.unlink()
