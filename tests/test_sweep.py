"""A sweep trains a model on several lists, keeps what is done, and advises."""

import json
import logging
import os
import re
import signal
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest

import quantal
import sweeping
from conftest import on_one_backend
from quantal._sweep import training
from quantal._sweep.advice import advice_on
from quantal._sweep.cell import SweepCell
from quantal._sweep.plan import plan_of
from quantal._sweep.progress import SweepProgress, duration
from quantal.callbacks import Finish
from quantal.plots import sizes
from repository import ROOT

pytestmark = on_one_backend


class Counted(keras.callbacks.Callback):
    """Counts runs over all copies, and interrupts one of them."""

    runs = 0
    interrupt_at = None

    def on_train_begin(self, logs=None):
        Counted.runs += 1
        if Counted.runs == Counted.interrupt_at:
            raise KeyboardInterrupt


@pytest.fixture
def counted():
    Counted.runs, Counted.interrupt_at = 0, None
    return Counted()


@pytest.fixture(scope="module")
def unbroken():
    return sweeping.run()


def lines(result):
    """What a result says, without the seconds."""
    return result.rows, str(result), result.to_frame().drop(columns="seconds").to_csv()


def test_a_killed_sweep_goes_on_to_the_same_table(tmp_path, unbroken):
    file = tmp_path / "sweep.journal"
    with subprocess.Popen(
        [sys.executable, sweeping.__file__, file],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as child:
        next(line for line in child.stdout if line.startswith("2 of 6"))
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    before = file.read_text()
    resumed = sweeping.run(file)
    assert lines(resumed) == lines(unbroken)
    after = file.read_text()
    assert after.startswith(before)


CLAIM = """
import pathlib, sys
from quantal._sweep.claims import Claims
with Claims(pathlib.Path(sys.argv[1])).claimed(sys.argv[2], wait=False) as is_claimed:
    print(is_claimed, flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no lock there ends with its process")
@pytest.mark.parametrize("is_done", [False, True])
def test_a_trial_of_another_process_is_waited_for(is_done, tmp_path, counted, monkeypatch, capsys):
    file, arguments = tmp_path / "sweep.journal", {"seeds": (0,), "callbacks": [counted]}
    key = plan_of(sweeping.LISTS, ("auto",), None, (0,))[0].key
    says = SweepProgress.waits
    with subprocess.Popen(
        [sys.executable, "-c", CLAIM, file, key],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as child:  # fmt: skip
        assert child.stdout.readline() == "True\n"

        def end(progress, trial):
            says(progress, trial)
            assert Counted.runs == 2  # The other trials are not waited with.
            child.kill()
            child.wait()
            if is_done:
                sweeping.run(file, values={"binary": "binary"}, **arguments)

        monkeypatch.setattr(SweepProgress, "waits", end)
        shared = sweeping.run(file, verbose=1, **arguments)
    assert Counted.runs == 3
    assert [row.values for row in shared.rows] == list(sweeping.LISTS)
    out = capsys.readouterr().out
    assert "waiting for another process, which runs binary, auto, seed 0" in out
    assert ("3 of 3  binary" in out) != is_done
    assert [path.name for path in tmp_path.iterdir()] == [file.name]  # No claim is left.


def test_a_sweep_says_what_each_list_reaches(unbroken, tmp_path):
    rows = unbroken.rows
    assert [(row.values, row.seed) for row in rows] == [
        ("binary", 0), ("binary", 1), ("float", 0), ("float", 1), ("wide", 0), ("wide", 1),
    ]  # fmt: skip
    assert (unbroken.metric, unbroken.maximize, unbroken.planned) == ("loss", False, 6)
    assert all(row.score == row.metrics["loss"] and row.seconds > 0 for row in rows)
    assert [cell.values for cell in unbroken.cells] == ["binary", "float", "wide"]
    for kind in (None, "wide"):
        model = sweeping.model()
        if kind:
            model = quantal.discretize(model, sweeping.LISTS[kind])
        size = quantal.save(model, tmp_path / "model.quantal")
        # The numbers of floats are no easier to pack than others; codes are, a little.
        (row, _) = [row for row in rows if row.values == (kind or "float")]
        assert abs(row.bytes - size) <= (2 if kind else 0)
    text = str(unbroken)
    assert text.splitlines()[1].split() == ["values", "seeds", "loss", "bytes"]
    assert text.endswith(unbroken.advice)
    assert "<table>" in unbroken._repr_html_()


def test_trials_are_written_as_a_table(unbroken, tmp_path):
    frame = unbroken.to_frame()
    assert list(frame) == [
        "values", "estimator", "learning_rate", "seed", "loss", "bytes", "seconds", "note",
    ]  # fmt: skip
    unbroken.to_csv(tmp_path / "sweep.csv")
    heads, first, *_ = (tmp_path / "sweep.csv").read_text().splitlines()
    assert heads == ",".join(frame)
    assert first.startswith(f"binary,auto,,0,{unbroken.rows[0].score!r},")
    data = unbroken.to_dict()
    assert data["rows"][0]["score"] == unbroken.rows[0].score
    assert json.loads(unbroken.to_json()) == data


def test_a_picture_shows_each_list(unbroken):
    (axes,) = unbroken.picture().axes
    assert axes.get_ylabel() == "loss"
    assert {text.get_text() for text in axes.texts} == set(sweeping.LISTS)


def test_same_seed_same_start_and_order(counted):
    lists = {"a": [-1, 1], "b": "binary", "c": [1, -1], "none": None}
    result = sweeping.run(values=lists, callbacks=[counted])
    scores = [cell.scores for cell in result.cells]
    assert [cell.is_free for cell in result.cells] == [False, False, False, True]
    assert scores[0] == scores[1] == scores[2]
    assert scores[0][0] != scores[0][1]
    assert counted.runs == 8


def test_more_lists_take_what_is_done(tmp_path, counted):
    file = tmp_path / "sweep.journal"
    few = sweeping.run(file, values=["binary"], callbacks=[counted])
    assert counted.runs == 2
    more = sweeping.run(file, values=["binary", None], callbacks=[counted])
    assert counted.runs == 4
    assert more.rows[:2] == few.rows
    Counted.runs = 0
    assert sweeping.run(file, values=["binary"], callbacks=[counted]).rows == few.rows
    assert counted.runs == 0
    import optuna

    backend = optuna.storages.journal.JournalFileBackend(str(file))
    storage = optuna.storages.JournalStorage(backend)
    study = optuna.load_study(study_name="quantal.sweep", storage=storage)
    assert [trial.params["values"] for trial in study.trials] == ["binary"] * 2 + ["float"] * 2
    assert study.best_value == min(row.score for row in more.rows)


def test_half_a_line_is_cut_off(tmp_path, unbroken, counted):
    file = tmp_path / "sweep.journal"
    result = sweeping.run(file, values=["binary"], callbacks=[counted])
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])
    assert sweeping.run(file, values=["binary"], callbacks=[counted]).rows == result.rows
    assert counted.runs == 3
    assert file.read_bytes().startswith(whole[: whole[:-1].rfind(b"\n") + 1])


def test_an_interrupt_keeps_what_is_done(tmp_path, counted, capsys):
    Counted.interrupt_at = 4
    file = tmp_path / "sweep.journal"
    result = sweeping.run(file, callbacks=[counted], verbose=1)
    # Seed by seed, so that there is something of every list.
    assert [(row.values, row.seed) for row in result.rows] == [
        ("binary", 0), ("float", 0), ("wide", 0),
    ]  # fmt: skip
    out = capsys.readouterr().out
    assert "3 of 6  wide, auto, seed 0: loss " in out
    assert " bytes; about " in out
    assert f"interrupted: 3 of 6 trials are done; the same call goes on from {file}" in out
    assert "3 of 6 trials" in str(result)
    assert "3 trials are still to come" in result.advice
    rest = sweeping.run(file, callbacks=[counted], verbose=1)
    assert len(rest.rows) == 6
    assert f"{file}: 3 of 6 trials are done already" in capsys.readouterr().out
    Counted.interrupt_at = Counted.runs + 1
    with pytest.raises(KeyboardInterrupt):
        sweeping.run(callbacks=[counted])


def test_a_function_builds_models(tmp_path, monkeypatch):
    calls = []

    def build(values, estimator):
        calls.append((values, estimator))
        inner = keras.layers.Dense(2, use_bias=False)
        layer = inner if values is None else quantal.Discrete(inner, values, estimator=estimator)
        net = keras.Sequential([keras.Input((6,)), layer])
        net.compile("sgd", "mse", metrics=["mae"])
        return net

    result = quantal.sweep(
        build,
        *sweeping.data(),
        values=["binary", None],
        estimators=["straight_through", quantal.estimators.StraightThrough("clip")],
        learning_rates=[0.1, 0.2],
        epochs=1,
        verbose=0,
        file=tmp_path / "sweep.journal",
    )
    assert len(calls) == len(result.rows) == 6
    assert (None, "auto") in calls
    assert result.metric == "mae"
    assert "at a learning rate of 0." in result.advice
    points = []
    monkeypatch.setattr(sizes, "plot_sizes", lambda p, **_: points.extend(p))
    result.picture()
    labels = [label for label, _, _ in points]
    assert labels[0] == "binary, straight_through, 0.1"
    assert labels[-2:] == ["float, 0.1", "float, 0.2"]
    # Names of layers are in the file, and are the same whatever was built before.
    assert len({(row.estimator, row.bytes) for row in result.rows}) == 3


def test_a_list_that_does_not_fit_is_noted():
    def build(values, estimator):
        if values == "ternary":
            raise ValueError("No ternary here.")
        return sweeping.model()

    arguments = {"epochs": 1, "verbose": 0}
    result = quantal.sweep(build, *sweeping.data(), values=["ternary", "binary"], **arguments)
    assert [row.note for row in result.rows] == ["not built: No ternary here.", ""]
    assert "not built: No ternary here." in str(result)
    assert "Take binary" in result.advice
    with pytest.raises(ValueError, match=r"No model of the sweep can be made.*No ternary here"):
        quantal.sweep(build, *sweeping.data(), values=["ternary"], **arguments)


def test_functions_that_are_called_alike_are_different_lists():
    def always(numbers):
        return lambda weights: numbers

    lists = {"ones": always([-1, 1]), "twos": always([-2, 2])}
    both = sweeping.run(values=lists, seeds=(0,), epochs=1)
    single = sweeping.run(values=[[-2, 2]], seeds=(0,), epochs=1)
    assert both.rows[1].score == single.rows[0].score != both.rows[0].score


@pytest.mark.parametrize("kind", [list, tuple])
def test_validation_data_are_what_fit_takes(kind):
    x, y = sweeping.data()
    weights = np.float32(np.arange(len(x)) < 3)
    kept = {"values": ["binary"], "seeds": (0,), "epochs": 1}
    with_zeros = sweeping.run(validation_data=kind((x, y, weights)), **kept)
    first = sweeping.run(validation_data=kind((x[:3], y[:3])), **kept)
    # Keras divides by all samples.
    assert with_zeros.rows[0].score * len(x) == pytest.approx(first.rows[0].score * 3, rel=1e-4)


def test_a_diverged_trial_is_noted_and_kept(tmp_path, counted):
    arguments = {
        "values": ["binary", None], "learning_rates": [0.1, 1e30], "seeds": (0,), "epochs": 3,
        "callbacks": [counted], "file": tmp_path / "sweep.journal",
    }  # fmt: skip
    result = sweeping.run(**arguments)
    assert (
        "diverged"
        in {row.learning_rate: row.note for row in result.rows if row.values == "float"}[1e30]
    )
    runs = counted.runs
    assert sweeping.run(**arguments).rows == result.rows
    assert counted.runs == runs
    with pytest.raises(ValueError, match="All trials have diverged"):
        sweeping.run(values=[None], learning_rates=1e30, epochs=3)


def test_the_metric_is_the_first_one_that_says_which_way():
    metrics = [keras.metrics.MeanSquaredError(name="square"), "mae"]
    arguments = {"values": ["binary"], "epochs": 1, "verbose": 0}
    model = sweeping.model(metrics=metrics)
    result = quantal.sweep(model, *sweeping.data(), **arguments)
    assert result.metric == "square"
    result = quantal.sweep(model, *sweeping.data(), metric="loss", **arguments)
    assert result.rows[0].score == result.rows[0].metrics["loss"]
    with pytest.raises(ValueError, match=r"metric is 'accuracy'. Expected one that the model is"):
        quantal.sweep(model, *sweeping.data(), metric="accuracy", **arguments)


def test_the_model_stays_and_is_where_trials_begin():
    model = sweeping.model()
    before = model.get_weights()
    arguments = {"values": [None], "epochs": 1, "verbose": 0, "seeds": (0, 1), "batch_size": 64}
    result = quantal.sweep(model, *sweeping.data(), **arguments)
    np.testing.assert_array_equal(model.get_weights(), before)
    # From the same weights a single batch comes to the same, however it is shuffled.
    assert result.rows[0].score == pytest.approx(result.rows[1].score, rel=1e-4)
    fresh = quantal.sweep(model, *sweeping.data(), start="fresh", **arguments)
    assert fresh.rows[0].score != pytest.approx(fresh.rows[1].score, rel=1e-2)


def test_a_file_of_another_sweep_is_refused(tmp_path):
    file = tmp_path / "sweep.journal"
    arguments = {"values": ["binary"], "epochs": 1, "verbose": 0, "file": file}
    x, y = sweeping.data()
    quantal.sweep(sweeping.model(), x, y, **arguments)
    with pytest.raises(ValueError, match=r"fit \(epochs=1, not epochs=2\). Expected the same"):
        quantal.sweep(sweeping.model(), x, y, **{**arguments, "epochs": 2})
    with pytest.raises(ValueError, match=r"other training data, validation data. Expected"):
        quantal.sweep(sweeping.model(), x, y + 1, **arguments)
    with pytest.raises(ValueError, match=r"other optimizer or loss. Expected"):
        quantal.sweep(sweeping.model(0.2), x, y, **arguments)
    with pytest.raises(ValueError, match=r"metric \(None, not loss\)"):
        quantal.sweep(sweeping.model(), x, y, metric="loss", **arguments)
    other = sweeping.model()
    other.set_weights([weight + 1 for weight in other.get_weights()])
    with pytest.raises(ValueError, match=r"other initial weights. .*set_random_seed before"):
        quantal.sweep(other, x, y, **arguments)
    file.write_text("This is no journal.\n")
    with pytest.raises(ValueError, match="not readable as a sweep's"):
        quantal.sweep(sweeping.model(), x, y, **arguments)
    with pytest.raises(ValueError, match="in no folder"):
        quantal.sweep(sweeping.model(), x, y, **{**arguments, "file": tmp_path / "no" / "f"})


def test_without_optuna_a_file_is_refused(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match=r"pip install 'quantal\[sweep\]', or leave file out"):
        sweeping.run(tmp_path / "sweep.journal")


def with_schedule():
    return sweeping.model(keras.optimizers.schedules.CosineDecay(0.1, 10))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"values": [1, -1]}, TypeError, "Put a single list into another pair of brackets"),
        ({"values": []}, ValueError, "at least one"),
        ({"values": ["ternry"]}, ValueError, "ternry"),
        ({"values": [[1, -1], (1, -1)]}, ValueError, "two lists of the name"),
        ({"values": {"float": "binary"}}, ValueError, "the name of free floats"),
        ({"estimators": "straight"}, ValueError, "Expected one of straight_through"),
        ({"estimators": [3]}, TypeError, "estimators holds 3"),
        ({"learning_rates": [0]}, ValueError, "Expected numbers above 0"),
        ({"seeds": 3}, TypeError, r"for so many seeds range\(3\)"),
        ({"seeds": [-1]}, ValueError, "whole numbers from 0"),
        ({"start": "new"}, ValueError, "Expected 'model'"),
        ({"seed": 3}, TypeError, "no argument 'seed'.*Did you mean 'seeds'"),
        ({"y": None}, ValueError, "x has no y"),
        ({"sample_weight": np.ones(40)}, ValueError, "sample_weight came"),
        ({"validation_split": 0.999}, ValueError, "leaves 0 to train on"),
        ({"model": keras.Sequential}, ValueError, "not built"),
        ({"model": with_schedule, "learning_rates": [0.1]}, ValueError, "schedule of rates"),
    ],
    ids=lambda part: next(iter(part)) if isinstance(part, dict) else None,
)
def test_wrong_arguments_are_refused_before_training(change, error, words, counted):
    x, y = sweeping.data()
    given = {"x": x, "y": y, "values": ["binary"], "callbacks": [counted], **change}
    make = given.pop("model", sweeping.model)
    with pytest.raises(error, match=words):
        quantal.sweep(make(), **given)
    assert counted.runs == 0


def cell(values, scores, size, **more):
    return SweepCell(values, "auto", None, tuple(scores), size, **more)


SMALL = cell("small", [0.80, 0.82, 0.84], 100)
BEST = cell("best", [0.81, 0.83, 0.85], 900)
FREE = cell("float", [0.90, 0.91], 5000)


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ([SMALL, BEST], "Take small: accuracy 0.8200 ± 0.0200 in 100 bytes, tied within the seeds' "
         "spread with the best, best (0.8300 ± 0.0200, 900 bytes)."),
        ([cell("small", [0.70, 0.72, 0.74], 100), BEST],
         "Take best: accuracy 0.8300 ± 0.0200 in 900 bytes, the best; no smaller list comes within "
         "the seeds' spread of it."),
        ([SMALL, cell("large", [0.70, 0.72, 0.74], 900)],
         "Take small: accuracy 0.8200 ± 0.0200 in 100 bytes, the best and the smallest."),
        ([BEST, FREE], "Take best: accuracy 0.8300 ± 0.0200 in 900 bytes; free floats reach 0.9050 "
         "± 0.0071 in 5,000 bytes."),
        ([cell("small", [0.8], 100), cell("best", [0.81], 900)],
         "Take best: accuracy 0.8100 in 900 bytes, the best; one seed cannot tell lists from "
         "chance: give the seeds 0, 1, 2."),
        ([cell("small", [0.8, 0.82], 100), BEST], "2 seeds show their spread roughly"),
        ([cell("small", [0.9] * 2, 100, failures=1), BEST], "Take best"),
        ([cell("small", [], None, failures=3)], "No list has come to its end"),
    ],
)  # fmt: skip
def test_advice_follows_from_the_numbers(cells, words):
    assert words in advice_on(cells, "accuracy", True)


def test_advice_turns_with_the_metric():
    assert "Take large" in advice_on([SMALL, cell("large", [0.7] * 3, 900)], "loss", False)


def test_advice_takes_the_best_estimator_of_each_list():
    weak = SweepCell("small", "annealed", None, (0.1, 0.12, 0.11), 100)
    advice = advice_on([weak, SMALL, BEST], "accuracy", True)
    assert advice.startswith("Take small with auto: ")


def test_advice_names_estimators_that_are_as_good():
    near = SweepCell("small", "annealed", None, (0.79, 0.81, 0.83), 100)
    far = SweepCell("small", "residual", None, (0.1, 0.12, 0.11), 100)
    words = "; with annealed (0.8100 ± 0.0200) it is as good within the seeds' spread."
    assert advice_on([near, SMALL, far, BEST], "accuracy", True).endswith(words)


@on_one_backend
def test_a_function_with_a_seed_of_its_own_is_noted():
    def build(values, estimator):
        if is_fixed:
            keras.utils.set_random_seed(0)
        net = keras.Sequential([keras.Input((6,)), keras.layers.Dense(2)])
        net.compile("sgd", "mse", jit_compile=False)
        return net

    settings = {"values": [None], "seeds": (0, 1, 2), "epochs": 1, "verbose": 0}
    is_fixed = False
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "The function builds the same weights")
        quantal.sweep(build, *sweeping.data(), **settings)
    is_fixed = True
    with pytest.warns(UserWarning, match="same weights with seed 0 as with seed 1") as raised:
        quantal.sweep(build, *sweeping.data(), **settings)
    assert len([w for w in raised if "same weights" in str(w.message)]) == 1


def test_tensorflow_does_not_warn_of_new_models(caplog):
    logger = logging.getLogger("tensorflow")
    caplog.set_level(logging.WARNING, logger="tensorflow")  # The command lowers it.
    with training.without_retracing_warnings():
        logger.warning("5 calls triggered tf.function retracing.")
        logger.warning("Something else.")
    logger.warning("6 calls triggered tf.function retracing.")
    assert [message.split()[0] for message in caplog.messages] == ["Something", "6"]


def test_durations_are_read_easily():
    assert [duration(s) for s in (0.4, 59, 61, 3599, 5400)] == [
        "0 s", "59 s", "1 min", "60 min", "1.5 h",
    ]  # fmt: skip


def test_a_vector_ends_the_same_however_busy_the_machine_is(monkeypatch):
    # Finish polishes it: by default for some seconds, in which a busy machine does less.
    finishes = []
    monkeypatch.setattr(training, "Finish", lambda **a: finishes.append(a) or Finish(**a))
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1, use_bias=False)])
    model.compile("sgd", "mse")
    x, y = sweeping.data()
    for rates in (None, [0.001]):
        settings = {"learning_rates": rates, "epochs": 1, "verbose": 0}
        quantal.sweep(model, x, y[:, :1], values=["binary"], **settings)
    assert all(arguments["polish"].seconds is None for arguments in finishes)
    assert all(arguments["polish"].evaluations <= 2000 for arguments in finishes)
    # A rate that the sweep compares is one that somebody chose.
    assert [arguments["falling_rate"] for arguments in finishes] == [True, False]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # keras_tuner on new Pythons
def test_the_recipe_for_keras_tuner_runs(tmp_path, monkeypatch):
    pytest.importorskip("keras_tuner")
    monkeypatch.chdir(tmp_path)
    (recipe,) = re.findall(r"^```py\n(.*?)^```", page(), re.DOTALL | re.MULTILINE)
    scope = {}
    exec(compile(recipe, "docs/sweeps.md", "exec"), scope)
    (best,) = scope["tuner"].get_best_hyperparameters()
    assert best.get("values") in ("binary", "ternary", "powers_of_two:4")


def page():
    path = ROOT / "docs" / "sweeps.md"
    if not path.exists():
        pytest.skip("docs is not beside the tests")
    return path.read_text()
