"""The learning benchmark in small: its problems, a run of a few steps, its tables."""

import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

pytest.importorskip("learning", reason="benchmarks are not beside the tests")

from learning import cases, codebooks, run, table, vectors

TINY = "planted-four_values-64-0-squared"


def test_the_problems_need_numpy_alone():
    program = "import sys, cases; print({'keras', 'quantal', 'numpy'} & set(sys.modules))"
    folder = pathlib.Path(cases.__file__).parent
    imported = subprocess.run(
        [sys.executable, "-c", program], check=True, cwd=folder, capture_output=True, text=True
    )
    assert imported.stdout.strip() == "{'numpy'}"


@pytest.mark.parametrize("name", [n for n in cases.PLANTED if "-64-" in n])
def test_the_planted_vector_scores_one_and_its_neighbours_worse(name):
    case = cases.PLANTED[name]
    problem = case.instance(3)
    assert problem.rows.shape == (96, 64)
    assert problem.score(problem.hidden) == 1
    assert set(problem.hidden) <= set(cases.LISTS[case.values])
    if case.kind == "squared":
        assert problem.score(-problem.hidden) > 10
        # Not far from the noise that was added.
        assert problem.loss(problem.hidden) == pytest.approx(cases.NOISE**2, rel=0.5)


@pytest.mark.parametrize("rho", [0, 0.9])
def test_columns_are_correlated_as_said(rho):
    rows = cases.Planted("signs", 1024, rho, "squared").instance(0).rows * np.sqrt(1024)
    assert np.mean(rows[:, 1:] * rows[:, :-1]) == pytest.approx(rho, abs=0.01)
    assert np.mean(rows[:, 3:] * rows[:, :-3]) == pytest.approx(rho**3, abs=0.01)
    assert np.mean(rows**2) == pytest.approx(1, abs=0.01)


def test_a_pattern_at_zero_is_not_satisfied():
    patterns = np.array([[1, 1], [1, -1], [-1, -1]], np.float32)
    assert cases.unsatisfied(patterns, [1, 1]) == 2
    assert cases.perceptron(0.5, 0).shape == (500, 1001)
    assert np.array_equal(np.unique(cases.perceptron(0.3, 1)), [-1, 1])


@pytest.mark.parametrize("estimator", ["auto", "float"])
def test_a_short_run_lowers_the_loss(estimator):
    before = run.row(TINY, estimator, 1e-2, seeds=1, steps=1)
    after = run.row(TINY, estimator, 1e-2, seeds=1, steps=300)
    assert after["scores"][0] < before["scores"][0] / 3
    assert after["solved"] == int(after["scores"][0] <= cases.SOLVED)
    assert (after["case"], after["seeds"], after["rate"]) == (TINY, 1, 1e-2)


@pytest.mark.skipif(keras.config.backend() != "jax", reason="the grid trains by jax.vmap")
def test_the_grid_trains_as_a_fit_does():
    from learning import grid

    steps, seed = 40, 7
    problem = cases.Planted("four_values", 64, 0.9, "squared").instance(seed)
    targets = problem.targets.astype(np.float32)
    trainer = grid.Trainer(cases.LISTS["four_values"], "default", "Adam 0.001")
    several = [np.asarray(array)[None] for array in (problem.rows, targets)]
    first = grid.jax.tree.map(lambda array: np.asarray(array)[None], trainer.first(seed))
    trained = trainer.steps(*several, first, steps)
    keras.utils.set_random_seed(seed)
    model = vectors.unit(64, cases.LISTS["four_values"], "auto")
    model.compile(keras.optimizers.Adam(1e-3), "mse")
    rows, answers = np.tile(problem.rows, (steps, 1)), np.tile(targets, steps)[:, None]
    model.fit(rows, answers, batch_size=96, shuffle=False, verbose=0)
    assert np.array_equal(trainer.listed(trained)[0], vectors.weights_of(model).ravel())
    assert problem.score(trainer.listed(trained)[0]) < problem.score(trainer.listed(first)[0]) / 3


def test_a_short_run_satisfies_patterns():
    trained = run.row("perceptron-0.3", "straight_through", 1e-2, seeds=1, epochs=3)
    # Half of the 300 at random.
    assert trained["scores"][0] < 75


def test_the_fitted_list_is_the_best(tmp_path):
    numbers = codebooks.numbers_of("randn_seed0_4096")
    # The best two values of normal numbers, known to five digits.
    optima = tmp_path / "codebook" / "optima.json"
    optima.parent.mkdir()
    optima.write_text('{"randn_seed0_4096": {"K2_mse": 0.3488081071303112}}')
    assert numbers.shape == (4096,)
    fitted = run.row("codebook-randn_seed0_4096-2", "k_means", 1e-2, seeds=1, data=tmp_path)
    assert abs(fitted["scores"][0]) < 1e-6
    assert "| – |" in table.table([fitted])


def rows_of(scores_by_rate, **others):
    common = {
        "case": "planted-a", "estimator": "settling", "measure": "final loss / planted loss",
        "higher_is_better": False, "seconds": 3.0, "backend": "jax",
    }  # fmt: skip
    return [
        {**common, "rate": rate, "scores": scores, "seeds": len(scores),
         "solved": sum(s <= cases.SOLVED for s in scores), **others}
        for rate, scores in scores_by_rate.items()
    ]  # fmt: skip


def test_the_table_takes_the_better_rate_by_the_mean():
    # The median would take the other one.
    rows = rows_of({1e-2: [1.0, 1.0, 90.0], 1e-3: [2.0, 2.0, 2.5]})
    (line,) = [line for line in table.table(rows).splitlines() if "settling" in line]
    assert "| 2 (2 to 2.5) | 0 of 3 | 0.001, 0.01 | 1.0 |" in line
    higher = rows_of({1e-2: [80.0], 1e-3: [85.0]}, higher_is_better=True)
    assert "85 (85 to 85)" in table.table(higher)


def test_rates_with_different_seeds_are_not_compared():
    with pytest.raises(ValueError, match="different seeds"):
        table.table(rows_of({1e-2: [1.0, 1.0], 1e-3: [1.0]}))


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_the_picture_is_drawn(tmp_path, kind):
    rows = rows_of({1e-2: [1.0, 3.0]}) + rows_of({1e-2: [2.0]}, estimator="annealed")
    table.picture(rows, tmp_path / f"picture.{kind}")
    drawn = (tmp_path / f"picture.{kind}").read_bytes()
    assert b"<svg" in drawn[:1000] if kind == "svg" else drawn.startswith(b"\x89PNG")
