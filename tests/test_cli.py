import io
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import types

import keras
import numpy as np
import pandas
import pytest

import quantal
from conftest import on_one_backend
from quantal._command import backend, comparison, datasets, results
from quantal._command import command as cli
from quantal._command.errors import MissingPackage, Unwritable
from quantal._command.sweep import _on_baseline

# The command is the same over every backend, and most of its tests train.
pytestmark = pytest.mark.product


def run(capsys, *arguments):
    """(exit code, standard output, standard error) of the command in this process."""
    code = cli.main([str(argument) for argument in arguments])
    written = capsys.readouterr()
    return code, written.out, written.err


@pytest.fixture
def train(capsys, tmp_path):
    def train(data, *more):
        out = ["--out", tmp_path / "run", "--force"]
        return run(capsys, "train", data, "--epochs", 2, *out, *more)

    return train


@pytest.fixture
def table(random):
    """40 rows of two features and a target that depends on both."""
    features = random.normal(size=(40, 2)) * [3, 0.01] + [100, 0]
    return pandas.DataFrame(
        {
            "length": features[:, 0],
            "width": features[:, 1],
            "price": features[:, 0] * 2 - features[:, 1] * 50,
            "kind": np.where(features[:, 0] > 100, "long", "short"),
        }
    )


def csv(tmp_path, table):
    path = tmp_path / "table.csv"
    table.to_csv(path, index=False)
    return path


def check_files(folder, features, labels=None):
    """The files are there and agree; gives the saved model."""
    assert sorted(path.name for path in folder.iterdir()) == sorted(results.FILES)
    assert (folder / "values.png").read_bytes().startswith(b"\x89PNG")
    model = keras.saving.load_model(folder / "model.keras")
    written = pandas.read_csv(folder / "predictions.csv")
    assert list(written)[:4] == ["row", "target", "discrete", "float"]
    rows = features[written["row"] - 1].astype(np.float32)
    outputs = model.predict(rows, verbose=0)
    if labels is None:
        np.testing.assert_allclose(outputs[:, 0], written["discrete"], rtol=1e-5, atol=1e-5)
    else:
        assert [labels[code] for code in outputs.argmax(axis=1)] == list(written["discrete"])
        names = [f"probability_{label}" for label in labels]
        np.testing.assert_allclose(written[names], outputs, rtol=1e-4, atol=1e-6)
    written = pandas.read_csv(folder / "history.csv")
    assert list(written["epoch"]) == list(range(len(written)))
    assert len(written) > 0
    assert np.isfinite(written["loss"]).all()
    return model


def check_listed(model, values):
    parameters = quantal.parameters_of(model)
    assert parameters
    for parameter in parameters:
        assert np.isin(
            keras.ops.convert_to_numpy(parameter.listed_values), np.float32(values)
        ).all()


# The main job


def test_a_shipped_data_set(train, tmp_path):
    code, out, err = train("wine", "--values", "1,-1,0.5,-0.5")
    assert (code, err) == (0, "")
    assert "wine: classification, 178 rows, 13 features, 3 classes" in out
    assert f"Keras on {keras.config.backend()}" in out
    for words in ("accuracy", "points", "bits per weight", "value 1 ", "value -0.5 "):
        assert words in out
    counts = [int(count) for count in re.findall(r"value \S+ +(\d+) \(", out)]
    assert sum(counts) == 13 * 64 + 64 * 64
    model = check_files(tmp_path / "run", datasets.read_dataset("wine").features, labels=[0, 1, 2])
    check_listed(model, [1, -1, 0.5, -0.5])


def test_no_escape_codes_and_few_lines_where_there_is_no_terminal(train):
    _, out, _ = train("wine", "--model", "multiplier", "--epochs", 20)
    assert "\x1b" not in out
    assert "\r" not in out
    assert len(out.splitlines()) < 20


def test_regression_from_csv_with_the_multiplier(train, tmp_path, table):
    path = csv(tmp_path, table.drop(columns="kind"))
    code, out, err = train(path, "--model", "multiplier", "--values", "1,-1,0.5,-0.5")
    assert (code, err) == (0, "")
    assert "regression, 40 rows, 2 features;" in out
    assert "R²" in out
    features = table[["length", "width"]].to_numpy()
    model = check_files(tmp_path / "run", features)
    check_listed(model, [1, -1, 0.5, -0.5])
    written = pandas.read_csv(tmp_path / "run" / "predictions.csv")
    np.testing.assert_allclose(written["target"], table["price"][written["row"] - 1])
    assert len(written) == 8


def test_text_classes_from_csv(train, tmp_path, table):
    path = csv(tmp_path, table.drop(columns="price"))
    code, out, err = train(path, "--model", "multiplier")
    assert (code, err) == (0, "")
    assert "classification, 40 rows, 2 features, 2 classes" in out
    features = table[["length", "width"]].to_numpy()
    check_files(tmp_path / "run", features, labels=["long", "short"])


def test_target_and_task_are_chosen(train, tmp_path, table):
    path = csv(tmp_path, table.assign(kind=np.arange(40) % 3))
    code, out, _ = train(path, "--target", "width", "--model", "multiplier")
    assert code == 0
    assert "regression, 40 rows, 3 features" in out
    code, out, _ = train(path, "--task", "regression", "--model", "multiplier")
    assert code == 0
    assert "regression, 40 rows, 3 features" in out


def test_parquet(train, tmp_path, table):
    path = tmp_path / "table.parquet"
    table.assign(kind=table["kind"] == "long").to_parquet(path)
    code, out, err = train(path, "--model", "multiplier", "--values", "ternary")
    assert (code, err) == (0, "")
    assert "classification, 40 rows, 3 features, 2 classes" in out


def test_npz_and_a_long_list(train, tmp_path, random):
    path = tmp_path / "arrays.npz"
    np.savez(path, x=random.normal(size=(30, 5)), y=random.normal(size=30))
    code, out, err = train(path, "--model", "multiplier", "--values", "signed:8")
    assert (code, err) == (0, "")
    assert "regression, 30 rows, 5 features" in out
    assert "the other 241 values" in out
    assert out.count("\nvalue ") == 15


@pytest.mark.parametrize("estimator", ["annealed", "argmax_straight_through"])
def test_other_estimators(train, tmp_path, estimator):
    code, _, err = train("wine", "--estimator", estimator, "--model", "multiplier")
    assert (code, err) == (0, "")
    check_listed(keras.saving.load_model(tmp_path / "run" / "model.keras"), [-1, 1])


def test_a_seed_repeats_the_run(train, tmp_path):
    runs = []
    for _ in range(2):
        assert train("wine", "--model", "multiplier", "--seed", 3)[0] == 0
        runs.append((tmp_path / "run" / "predictions.csv").read_bytes())
    assert runs[0] == runs[1]


def test_both_models_begin_alike_where_they_can():
    dataset = datasets.read_dataset("wine")
    for name in ("multiplier", "mlp"):
        pair = comparison.build_pair(name, dataset, quantal.Values("binary"), "annealed", 0)
        discrete, free = (model.layers[-1].get_weights() for model in (pair.discrete, pair.free))
        for one, other in zip(discrete, free, strict=True):
            np.testing.assert_array_equal(one, other)


def test_the_second_training_gets_the_batches_of_the_first():
    dataset = datasets.read_dataset("wine")
    weights = []
    for _ in range(2):
        pair = comparison.build_pair("multiplier", dataset, quantal.Values("binary"), "annealed", 0)
        training = comparison.Training(epochs=2, batch_size=50, seed=0)
        comparison.fit(pair.free, dataset, training)
        weights.append(pair.free.get_weights())
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


# A model from a file


def save(tmp_path, *layers, name="own.keras"):
    path = tmp_path / name
    keras.Sequential([keras.Input((13,)), *layers]).save(path)
    return path


def test_a_model_from_a_file(train, tmp_path):
    inputs = keras.Input((13,))
    inner = keras.Sequential([keras.layers.Dense(4, activation="relu")], name="inner")
    x = keras.layers.Reshape((13, 1))(inputs)
    x = keras.layers.Conv1D(3, 3)(x)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dropout(0.1)(inner(x))
    path = tmp_path / "own.keras"
    keras.Model(inputs, keras.layers.Dense(3)(x)).save(path)
    code, _, err = train("wine", "--model", path, "--values", "nf4")
    assert (code, err) == (0, "")
    model = check_files(tmp_path / "run", datasets.read_dataset("wine").features, labels=[0, 1, 2])
    shapes = {parameter.shape for parameter in quantal.parameters_of(model)}
    assert shapes == {(3, 1, 3), (33, 4)}
    check_listed(model, quantal.Values("nf4").numbers)


def test_the_file_gives_the_first_weights(tmp_path):
    path = save(
        tmp_path, keras.layers.Dense(5), keras.layers.BatchNormalization(), keras.layers.Dense(3)
    )
    dataset = datasets.read_dataset("wine")
    values = quantal.Values("ternary")
    pair = comparison.build_pair(str(path), dataset, values, "straight_through", 0)
    hidden, _, output = pair.free.layers
    (parameter,) = quantal.parameters_of(pair.discrete)
    scale = keras.ops.convert_to_numpy(parameter.scale)
    listed = keras.ops.convert_to_numpy(parameter.listed_values)
    np.testing.assert_array_equal(listed, values.nearest(hidden.get_weights()[0] / scale))
    # Trained kernels are small: without a scale nearly all would be 0.
    assert np.mean(listed == 0) < 0.6
    np.testing.assert_array_equal(
        pair.discrete.layers[-1].get_weights()[0], output.get_weights()[0]
    )


@keras.saving.register_keras_serializable(package="test_cli")
class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(3)

    def call(self, inputs):
        return self.dense(inputs)

    def build(self, shape):
        self.dense.build(shape)


def test_models_that_do_not_fit(train, tmp_path):
    dense = keras.layers.Dense
    subclassed = Subclassed()
    subclassed.build((None, 13))
    subclassed.save(tmp_path / "subclassed.keras")
    keras.Sequential([keras.Input((8, 8, 1)), dense(4), dense(3)]).save(tmp_path / "image.keras")
    save(tmp_path, dense(4), dense(2), name="two.keras")
    save(tmp_path, dense(3), name="one.keras")
    discrete = quantal.Discrete(dense(4), [1, -1])
    save(tmp_path, discrete, dense(3), name="discrete.keras")
    whole = [keras.Input((13,), dtype="int32"), keras.layers.Rescaling(1.0), dense(4), dense(3)]
    keras.Sequential(whole).save(tmp_path / "whole.keras")
    for name, message in {
        "subclassed": r"is a Subclassed\. Expected a Sequential or functional model",
        "image": r"\(None, 8, 8, 1\) to .*\. Expected .* \(None, 13\) to \(None, 3\), for wine",
        "two": r"\(None, 13\) to \(None, 2\)\. Expected .* \(None, 13\) to \(None, 3\)",
        "one": r"names no weight that a rule before it leaves",
        "discrete": r"Expected a Sequential or functional model of plain Keras layers",
        "whole": r"takes int32\. Expected floats",
    }.items():
        code, _, err = train("wine", "--model", tmp_path / f"{name}.keras")
        assert code == 4, name
        assert re.search(message, err), err
        assert not (tmp_path / "run").exists()


# Wrong usage: 2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("1,,2", "values is the name '1,,2'. Expected one of"),
        ("1,a", "values is the name '1,a'. Expected one of"),
        ("1,1", "are the same number"),
        ("1,nan", "must be a finite number"),
        ("threefold", "values is the name 'threefold'"),
        ("", "values is the name ''"),
    ],
)
def test_malformed_lists(train, values, message):
    code, _, err = train("wine", f"--values={values}")
    assert code == 2
    assert message in err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--epochs", "0"], "Invalid value for '--epochs'"),
        (["--batch-size", "2.5"], "Invalid value for '--batch-size'"),
        (["--seed", "-1"], "Invalid value for '--seed'"),
        (["--seed", "inf"], "Invalid value for '--seed'"),
        (
            ["--estimator", "sign"],
            "estimator is 'sign'. Expected one of straight_through",
        ),
        (["--backend", "numpy"], "'numpy' is not one of 'tensorflow', 'jax', 'torch'"),
        (["--task", "ranking"], "'ranking' is not one of 'auto'"),
        (["--colour", "red"], "No such option: --colour"),
    ],
)
def test_wrong_usage(train, more, message):
    code, _, err = train("wine", *more)
    assert code == 2
    assert message in err


def test_no_command(capsys):
    assert run(capsys)[0] == 2


# What cannot be read: 3


def test_missing_and_unknown_files(train, tmp_path):
    for data, message in {
        tmp_path / "absent.csv": "absent.csv' is neither a data set nor a file",
        tmp_path / "absent.xlsx": "or a path that ends in .csv, .tsv, .tab, .txt, .parquet, .npz",
        "iris": "'iris' is neither a data set nor a file. Expected one of digits, breast-cancer",
    }.items():
        code, _, err = train(data)
        assert code == 3
        assert message in err
    (tmp_path / "folder.csv").mkdir()
    assert train(tmp_path / "folder.csv")[0] == 3


@pytest.mark.parametrize("ending", ["csv", "parquet", "npz"])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00 not what it says \x80"])
def test_corrupt_files(train, tmp_path, ending, content):
    path = tmp_path / f"corrupt.{ending}"
    path.write_bytes(content)
    code, _, err = train(path)
    assert code == 3
    assert "cannot be read: " in err
    assert "Expected a sound file" in err
    assert "Traceback" not in err


def test_files_that_are_cut_short(train, tmp_path, table):
    table.to_parquet(tmp_path / "whole.parquet")
    np.savez(tmp_path / "whole.npz", x=np.zeros((30, 5)), y=np.zeros(30))
    for ending in ("parquet", "npz"):
        whole = (tmp_path / f"whole.{ending}").read_bytes()
        path = tmp_path / f"short.{ending}"
        path.write_bytes(whole[: len(whole) // 2])
        assert train(path)[0] == 3
        damaged = bytearray(whole)
        damaged[len(whole) // 3] ^= 255
        path.write_bytes(damaged)
        assert train(path)[0] in (0, 3, 4)


def test_python_objects_are_not_loaded(train, tmp_path):
    path = tmp_path / "objects.npz"
    np.savez(path, x=np.zeros((30, 2)), y=np.array(["a", None] * 15, object))
    code, _, err = train(path)
    assert code == 3
    assert "without Python objects" in err


def test_uneven_csv(train, tmp_path):
    path = tmp_path / "uneven.csv"
    path.write_text("a,b\n1,2\n3,4,5\n")
    assert train(path)[0] == 3


def test_missing_and_corrupt_models(train, capsys, tmp_path):
    code, _, err = train("wine", "--model", tmp_path / "absent.keras")
    assert code == 3
    assert "absent.keras does not exist" in err
    code, _, err = train("wine", "--model", "transformer")
    assert code == 3
    assert "The model transformer does not exist" in err
    code, _, err = run(capsys, "summary", tmp_path)
    assert code == 3
    assert "is a folder without a model.keras" in err
    (tmp_path / "corrupt.keras").write_bytes(b"PK not a model")
    code, _, err = train("wine", "--model", tmp_path / "corrupt.keras")
    assert code == 3
    assert "corrupt.keras cannot be read" in err


# What does not fit: 4


def test_missing_column(train, tmp_path, table):
    code, _, err = train(csv(tmp_path, table), "--target", "prize")
    assert code == 4
    assert "'prize'" in err
    assert "It has length, width, price, kind." in err


@pytest.mark.parametrize(
    ("column", "entry", "message"),
    [
        ("length", "wide", "column 'length' of .* holds 'wide' in row 6, and 1 such"),
        ("width", "inf", "column 'width' of .* holds 'inf' in row 6, and 1 such .* finite"),
        ("width", "1e39", "column 'width' of .* holds '1e\\+39' in row 6"),
        ("kind", "", "target 'kind' of .* is missing in row 6"),
    ],
)
def test_bad_entries(train, tmp_path, table, column, entry, message):
    table = table.astype({column: object})
    table.loc[5, column] = entry
    code, _, err = train(csv(tmp_path, table))
    assert code == 4
    assert re.search(message, err), err


def test_a_word_in_a_target_of_numbers(train, tmp_path, table):
    table = table.drop(columns="kind").astype({"price": object})
    table.loc[7, "price"] = "ask"
    code, _, err = train(csv(tmp_path, table))
    assert code == 4
    assert "'price' of" in err
    assert "holds 'ask' in row 8" in err


def test_targets_that_do_not_fit(train, tmp_path, table):
    for kind, more, message in [
        (["same"] * 40, [], "is same in every row"),
        ([1.5] * 40, [], "is 1.5 in every row"),
        (["rare"] + ["usual"] * 39, [], "cannot be held out: The least populated class"),
        (
            [f"class {row // 2}" for row in range(40)],
            [],
            "greater or equal to the number of classes",
        ),
        (["a", "b"] * 20, ["--task", "regression"], "holds 'a' in row 1"),
    ]:
        code, _, err = train(csv(tmp_path, table.assign(kind=kind)), *more)
        assert code == 4
        assert message in err


def test_tables_that_do_not_fit(train, tmp_path, table):
    for text, message in [
        ("a,b\n", "has 0 rows"),
        ("a,b\n" + "1,2\n" * 5, "has 5 rows and 1 columns of features. Expected at least 10"),
        ("b\n" + "1\n3\n" * 20, "has 40 rows and 0 columns of features"),
        ("a,b\n" + "same,1\nsame,2\n" * 20, "the column 'a' of"),
        ("0.5,7\n" + "1,2\n3,4\n" * 20, "the first line holds numbers only"),
    ]:
        (tmp_path / "table.csv").write_text(text)
        code, _, err = train(tmp_path / "table.csv")
        assert code == 4
        assert message in err


@on_one_backend
def test_columns_that_are_not_there(train, tmp_path, table):
    path = csv(tmp_path, table)
    for more, message in [
        (["--target", "Kind"], "has no column 'Kind'; 'kind' is near. It has length, width"),
        (["--target", "zebra"], "has no column 'zebra'. It has length, width"),
        (["--drop", "lenght"], "has no column 'lenght'; 'length' is near"),
        (["--keep", "id"], "has no column 'id'"),
        (["--drop", "kind", "--target", "kind"], "the column 'kind' is wanted, and dropped"),
    ]:
        code, _, err = train(path, *more)
        assert code == 4
        assert message in err


def test_arrays_that_do_not_fit(train, tmp_path):
    for arrays, message in [
        ({"x": np.zeros((30, 2))}, "it has no array 'y'. It has x. Expected"),
        ({"x": np.zeros((30, 2, 2)), "y": np.zeros(30)}, "(30, 2, 2)"),
        ({"x": np.zeros((30, 2)), "y": np.zeros((30, 1))}, "y (rows,)"),
        ({"x": np.zeros((30, 2)), "y": np.zeros(29)}, "29"),
        ({"x": np.full((30, 2), np.nan), "y": np.arange(30) % 2}, "column 'x0' of"),
        ({"x": np.full((30, 2), "a"), "y": np.arange(30) % 2}, "holds 'a' in row 1"),
        ({"x": np.full((30, 2), 1j), "y": np.arange(30) % 2}, "holds '1j' in row 1"),
    ]:
        np.savez(tmp_path / "arrays.npz", **arrays)
        code, _, err = train(tmp_path / "arrays.npz")
        assert code == 4
        assert message in err


def test_training_that_ends_in_nothing(train):
    code, _, err = train("wine", "--model", "multiplier", "--values=1.5e38,-1.5e38", "--epochs", 1)
    assert code == 4
    assert "predicts NaN or infinity" in err


# What cannot be written: 5


def test_folders_that_cannot_be_written(capsys, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    (tmp_path / "taken" / "values.png").mkdir(parents=True)
    monkeypatch.setattr(results, "fit", lambda *_, **__: pytest.fail("trained before looking"))
    for folder, message in [
        (tmp_path / "file", "cannot be written: File exists"),
        (tmp_path / "file" / "run", "cannot be written: Not a directory"),
        (tmp_path / "taken", "values.png is a folder"),
    ]:
        code, _, err = run(capsys, "train", "wine", "--out", folder)
        assert code == 5
        assert message in err


def test_a_failure_while_writing_leaves_the_old_files(train, tmp_path, monkeypatch):
    assert train("wine", "--model", "multiplier")[0] == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fail)
    code, _, err = train("wine", "--model", "multiplier", "--seed", 1)
    assert code == 5
    assert "No space left on device" in err
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


def test_a_run_is_not_replaced_without_a_word(capsys, tmp_path, monkeypatch):
    """A named folder is refused; without one, the next one is taken."""
    monkeypatch.setattr(results, "train_pair", lambda *_, **__: pytest.fail("trained"))
    (tmp_path / "quantal-run").mkdir()
    (tmp_path / "quantal-run" / "model.keras").write_text("a run")
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, "train", "wine", "--out", "quantal-run")
    assert code == 5
    assert "quantal-run has a run already. Expected a folder without one" in err
    assert results.default_folder() == pathlib.Path("quantal-run-2")
    (tmp_path / "quantal-run" / "model.keras").unlink()
    assert results.default_folder() == pathlib.Path("quantal-run")


# Tables as they are


@pytest.fixture
def customers(random):
    """60 rows of an index, identifiers, words, dates and gaps, and a target."""
    ages = random.integers(18, 80, 60).astype(float)
    days = pandas.to_timedelta(random.integers(0, 400, 60), "D")
    table = pandas.DataFrame(
        {
            "customer_id": 5000 + random.permutation(60),
            "joined": (pandas.Timestamp("2020-01-01") + days).strftime("%d.%m.%Y"),
            "country": random.choice(["Germany", "France", "Spain"], 60),
            "age": ages,
            "active": random.choice(["yes", "no"], 60),
            "left": np.where(ages > 50, "left", "stayed"),
        }
    )
    # So many that some are in the training rows, whatever the split.
    table.loc[:14, "country"] = table.loc[20:34, "joined"] = None
    table.loc[40:54, "age"] = np.nan
    return table


def test_a_table_as_it_is_and_another_one_to_predict(train, capsys, tmp_path, customers):
    path = tmp_path / "customers.csv"
    customers.to_csv(path, sep=";", decimal=",")
    code, out, err = train(path, "--values", "ternary", "--json", "--class-weight", "balanced")
    assert (code, err.replace("Training discrete weights\nTraining free weights\n", "")) == (0, "")
    result = json.loads(out)
    assert result["columns"] == ["joined", "country", "age", "active"]
    assert result["classes"] == ["left", "stayed"]
    assert len(result["remarks"]) == 2
    assert result["scores"]["baseline"]["balanced accuracy"] == 0.5
    assert set(result["scores"]["discrete"]) == {
        "accuracy",
        "balanced accuracy",
        "F1 of stayed",
        "area under ROC",
    }
    model = tmp_path / "run" / "model.keras"
    written = pandas.read_csv(tmp_path / "run" / "predictions.csv")
    # Other order, separator and decimals; a further column; no index, identifiers or target.
    new = customers.iloc[written["row"] - 1][["active", "age", "country", "joined"]]
    new.assign(note="x").to_csv(tmp_path / "new.tsv.gz", sep="\t", index=False)
    # The folder stands for the model in it.
    code, out, err = run(capsys, "predict", model.parent, tmp_path / "new.tsv.gz")
    assert (code, err) == (0, "quantal: not used: note\n")
    predicted = pandas.read_csv(io.StringIO(out))
    assert list(predicted["prediction"]) == list(written["discrete"])
    np.testing.assert_allclose(
        predicted["probability_left"], written["probability_left"], rtol=1e-4, atol=1e-6
    )
    # The target gives the scores; a new word and a new gap are named.
    customers.loc[0, "country"], customers.loc[1, "active"] = "Portugal", None
    path = csv(tmp_path, customers)
    code, out, err = run(capsys, "predict", model, path, "--out", tmp_path / "new.csv")
    assert (code, out) == (0, "")
    assert "country holds 'Portugal', which was never in training" in err
    assert "active is missing in 1 row, and never was in training" in err
    assert "balanced accuracy: " in err
    assert len(pandas.read_csv(tmp_path / "new.csv")) == 60
    code, _, err = run(capsys, "predict", model, path, "--out", tmp_path / "new.csv")
    assert (code, "new.csv is there already" in err) == (5, True)
    more = ["--out", tmp_path / "new.csv", "--force"]
    assert run(capsys, "predict", model, path, *more)[0] == 0
    for change, message in [
        (customers.drop(columns=["age", "country"]), "has no column 'country', 'age'"),
        (customers.assign(age="old"), "column 'age' of .* holds 'old' in row 1"),
        (customers.assign(joined="soon"), "column 'joined' of .* holds 'soon' in row 1"),
        (customers.assign(left="unsure"), "target 'left' of .* is 'unsure' in row 1"),
        (customers[:0], "has no rows"),
    ]:
        code, _, err = run(capsys, "predict", model, csv(tmp_path, change))
        assert code == 4
        assert re.search(message, err), err


def test_what_becomes_of_a_table_elsewhere(train, capsys, tmp_path, customers, table):
    """A packed file predicts the same; C takes columns of numbers and refuses words by name."""
    assert train(csv(tmp_path, customers), "--epochs", 1)[0] == 0
    model = keras.saving.load_model(tmp_path / "run" / "model.keras")
    quantal.save(model, tmp_path / "packed.quantal")
    outputs = [
        run(capsys, "predict", path, tmp_path / "table.csv")[1]
        for path in (tmp_path / "run" / "model.keras", tmp_path / "packed.quantal")
    ]
    assert outputs[0] == outputs[1] != ""
    arguments = ["export", tmp_path / "run" / "model.keras", tmp_path / "model.c", "--no-check"]
    code, _, err = run(capsys, *arguments)
    assert code == 4
    assert "'table' is of the class TableFeatures for a table with words, dates or gaps" in err
    assert train(csv(tmp_path, table), "--epochs", 1)[0] == 0
    assert run(capsys, *arguments)[0] == 0


def test_a_model_with_one_output_for_two_classes(train, capsys, tmp_path, table):
    """Of a file, as probability or as logit; the written one gives probabilities."""
    path = csv(tmp_path, table.drop(columns="price"))
    for activation in ("sigmoid", None):
        own = keras.Sequential([keras.Input((2,)), keras.layers.Dense(4)])
        own.add(keras.layers.Dense(1, activation=activation))
        own.save(tmp_path / "own.keras")
        code, _, err = train(path, "--model", tmp_path / "own.keras", "--patience", 1)
        assert (code, err) == (0, "")
        model = keras.saving.load_model(tmp_path / "run" / "model.keras")
        rows = table[["length", "width"]].to_numpy(np.float32)
        outputs = model.predict(rows, verbose=0)
        assert outputs.shape == (40, 1)
        assert np.all((outputs >= 0) & (outputs <= 1))
        written = pandas.read_csv(tmp_path / "run" / "predictions.csv")
        expected = np.where(outputs[written["row"] - 1, 0] > 0.5, "short", "long")
        assert list(written["discrete"]) == list(expected)


@on_one_backend
def test_predict_with_a_model_of_ones_own(capsys, tmp_path, table):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    model.save(tmp_path / "own.keras")
    rows = table[["length", "width"]]
    code, out, _ = run(capsys, "predict", tmp_path / "own.keras", csv(tmp_path, rows))
    assert code == 0
    written = pandas.read_csv(io.StringIO(out))
    outputs = model.predict(rows.to_numpy(np.float32), verbose=0)
    np.testing.assert_allclose(written[["output_0", "output_1"]], outputs, rtol=1e-5, atol=1e-5)
    code, _, err = run(capsys, "predict", tmp_path / "own.keras", csv(tmp_path, rows[["width"]]))
    assert code == 4
    assert "has 1 columns of features, and the model takes the shape (None, 2)" in err


# Other commands


def test_summary(capsys, tmp_path):
    layer = quantal.Discrete(keras.layers.Dense(3, name="hidden"), [1, -1])
    model = keras.Sequential([keras.Input((4,)), layer])
    quantal.save(model, tmp_path / "model.quantal")
    model.save(tmp_path / "model.keras")
    for name in ("model.quantal", "model.keras"):
        code, out, err = run(capsys, "summary", tmp_path / name)
        assert (code, err) == (0, "")
        assert re.search("^(hidden/)?kernel ", out, re.MULTILINE)
        assert "binary" in out
    code, _, err = run(capsys, "summary", tmp_path / "absent.keras")
    assert code == 3
    assert "absent.keras does not exist" in err


def test_export(capsys, tmp_path):
    layer = quantal.LearnableMultiplier([1, -1])
    quantal.save(keras.Sequential([keras.Input((4,)), layer]), tmp_path / "model.quantal")
    code, out, err = run(capsys, "export", tmp_path / "model.quantal", tmp_path / "codes.csv")
    assert (code, err) == (0, "")
    assert "csv" in out
    assert (tmp_path / "codes.csv").read_text().startswith("index,code,value")
    code, _, err = run(capsys, "export", tmp_path / "model.quantal", tmp_path / "codes.csv")
    assert (code, "codes.csv is there already" in err) == (5, True)
    more = [tmp_path / "model.quantal", tmp_path / "codes.csv", "--force"]
    assert run(capsys, "export", *more)[0] == 0
    code, _, err = run(capsys, "export", tmp_path / "model.quantal", tmp_path / "codes.doc")
    assert code == 4
    assert "ends in '.doc'" in err
    code, _, _ = run(capsys, "export", tmp_path / "model.quantal", tmp_path / "none" / "codes.csv")
    assert code == 5


def test_summary_as_json(capsys, tmp_path):
    layer = quantal.Discrete(keras.layers.Dense(3, name="hidden"), [1, -1])
    quantal.save(keras.Sequential([keras.Input((4,)), layer]), tmp_path / "model.quantal")
    _, out, _ = run(capsys, "summary", tmp_path / "model.quantal", "--json")
    row = json.loads(out)["rows"][0]
    assert row["path"].endswith("hidden/kernel")
    assert row["shape"] == [4, 3]


@on_one_backend
def test_search(capsys, tmp_path):
    code, out, err = run(capsys, "search", "autocorrelation", "--n", 13, "--json")
    result = json.loads(out)
    assert (code, err, result["loss"], result["proved"]) == (0, "", 6.0, True)
    assert len(result["vector"]) == 13
    (tmp_path / "parts.csv").write_text("3\n1\n1\n2\n2\n1\n")
    code, out, _ = run(capsys, "search", tmp_path / "parts.csv")
    assert code == 0
    vector = [float(number) for number in out.splitlines()[0].split()]
    assert np.dot(vector, [3, 1, 1, 2, 2, 1]) == 0
    np.save(tmp_path / "couplings.npy", np.array([[0, 1.0], [1.0, 0]]))
    code, out, _ = run(capsys, "search", tmp_path / "couplings.npy", "--values", "1,-1,0.5")
    assert code == 0
    assert "loss -2 (proved)" in out
    arguments = [tmp_path / "couplings.npy", "--maximize"]
    code, out, _ = run(capsys, "search", *arguments)
    assert code == 0
    assert "value 2 (proved)" in out
    code, out, _ = run(capsys, "search", *arguments, "--json")
    result = json.loads(out)
    assert (code, result["loss"], result["maximize"]) == (0, 2.0, True)


@on_one_backend
def test_searches_that_do_not_fit(capsys, tmp_path):
    (tmp_path / "wide.csv").write_text("1,2,3\n4,5,6\n")
    (tmp_path / "words.csv").write_text("a,b\n1,2\n")
    for arguments, expected, message in [
        (["autocorrelation"], 2, "needs the length of the code"),
        (["absent.npy"], 3, "neither the name of an objective nor a file"),
        ([tmp_path / "words.csv"], 3, "Expected numbers alone"),
        ([tmp_path / "wide.csv"], 4, "has the shape (2, 3). Expected a square matrix"),
        (["autocorrelation", "--n", 5, "--budget", 0], 4, "Expected a number above 0"),
    ]:
        code, _, err = run(capsys, "search", *arguments)
        assert code == expected, err
        assert message in err


@pytest.fixture
def free_model(tmp_path):
    """The file of a compiled model from two columns to two classes."""
    model = keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Dense(8, name="hidden"),
            keras.layers.Dense(2, name="last"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss)
    model.save(tmp_path / "free.keras")
    return tmp_path / "free.keras"


def test_discretize_and_polish(capsys, tmp_path, random, free_model):
    x = random.normal(size=(60, 2)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x, y=(x[:, 0] > 0).astype(int))
    out = tmp_path / "listed.keras"
    rules = json.dumps({"hidden": [1, -1, 0.5], "last": None})
    arguments = ["discretize", free_model, out, "--rules", rules]
    arguments += ["--calibrate", tmp_path / "data.npz"]
    code, written, err = run(capsys, *arguments, "--json")
    assert (code, err) == (0, "")
    rows = json.loads(written)["rows"]
    assert [row["values"] for row in rows if "kernel" in row["path"]] == [[1, -1, 0.5], None]
    code, _, err = run(capsys, *arguments)
    assert code == 5
    assert "listed.keras is there already. Expected a new file" in err
    polish = ["polish", out, tmp_path / "data.npz", "--evaluations", 50]
    code, written, err = run(capsys, *polish, "--validation", tmp_path / "data.npz", "--json")
    assert (code, err) == (0, "")
    report = json.loads(written)
    assert report["validation"] <= report["validation_before"]
    assert report["file"] == str(tmp_path / "listed-polished.keras")
    quantal.testing.assert_listed(keras.saving.load_model(report["file"]), x)


@on_one_backend
def test_files_and_rules_that_do_not_fit(capsys, tmp_path, free_model):
    np.savez(tmp_path / "wide.npz", x=np.ones((5, 3)))
    np.savez(tmp_path / "inputs.npz", x=np.ones((5, 2)))
    (tmp_path / "names.json").write_text('["hidden"]')
    ternary = [tmp_path / "out.keras", "--values", "ternary", "--calibrate"]
    for arguments, expected, message in [
        (["out.keras"], 2, "There are 0 lists and no rules. Expected one --values"),
        (["out.keras", "--rules", "{a"], 2, "is neither JSON nor a file of it"),
        (
            ["out.onnx", "--values", "ternary"],
            5,
            "ends in '.onnx'. Expected one of .keras, .quantal",
        ),
        ([tmp_path / "no" / "out.keras", "--values", "ternary"], 5, "folder that does not exist"),
        ([tmp_path / "out.keras", "--rules", '{"x": "ternary"}'], 4, "'x'"),
        ([tmp_path / "out.keras", "--rules", '{"(": "ternary"}'], 4, "'(', which is no regular"),
        ([tmp_path / "out.keras", "--rules", tmp_path / "names.json"], 2, "it holds list, no"),
        ([*ternary, tmp_path / "wide.npz"], 4, "the shape (5, 3). Expected (rows, 2)"),
    ]:
        code, _, err = run(capsys, "discretize", free_model, *arguments)
        assert code == expected, err
        assert message in err
    code, _, err = run(capsys, "polish", free_model, "absent.csv", "--out", tmp_path / "p.keras")
    assert code == 3
    polish = ["polish", free_model, tmp_path / "inputs.npz", "--out", tmp_path / "p.keras"]
    code, _, err = run(capsys, *polish)
    assert code == 4
    assert "no column 'y'. It has none for a target. Name the target" in err
    export = ["export", free_model, tmp_path / "no" / "net.c"]
    code, _, err = run(capsys, *export)
    assert code == 5
    assert ".." not in err
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)]).save(tmp_path / "bare.keras")
    code, _, err = run(capsys, "polish", tmp_path / "bare.keras", "wine")
    assert code == 4
    assert "is a model without a loss" in err


@on_one_backend
def test_polish_of_a_trained_table(train, capsys, tmp_path, customers):
    path = csv(tmp_path, customers)
    assert train(path, "--epochs", 1)[0] == 0
    polish = ["polish", tmp_path / "run" / "model.keras", path, "--evaluations", 50]
    code, out, err = run(capsys, *polish, "--out", tmp_path / "better.quantal", "--json")
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert report["loss"] <= report["loss_before"]
    code, out, _ = run(capsys, "predict", tmp_path / "better.quantal", path, "--json")
    assert code == 0
    result = json.loads(out)
    assert len(result["predictions"]) == 60
    assert set(result["predictions"][0]) == {
        "row",
        "prediction",
        "probability_left",
        "probability_stayed",
    }
    assert 0 <= result["scores"]["balanced accuracy"] <= 1


@on_one_backend
def test_report(train, capsys, tmp_path, customers):
    path = csv(tmp_path, customers)
    assert train(path, "--epochs", 1)[0] == 0
    page = tmp_path / "report.html"
    arguments = ["report", tmp_path / "run" / "model.keras", page]
    code, out, err = run(capsys, *arguments, "--data", path, "--title", "Customers", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == {"file": str(page), "bytes": page.stat().st_size}
    text = page.read_text()
    assert "Customers" in text
    code, _, err = run(capsys, *arguments)
    assert code == 5
    assert "is there already" in err


@on_one_backend
def test_sweep(capsys, tmp_path, table):
    lists = ["--values", "float", "--values", "1,-1,0.5"]
    more = ["--seeds", "0,1", "--epochs", 1, "--csv", tmp_path / "sweep.csv", "--json"]
    code, out, err = run(capsys, "sweep", csv(tmp_path, table), *lists, *more)
    assert (code, err) == (0, "")
    result = json.loads(out)
    assert [row["values"] for row in result["rows"]] == ["float", "float", "1,-1,0.5", "1,-1,0.5"]
    assert [row["seed"] for row in result["rows"]] == [0, 1, 0, 1]
    assert len(pandas.read_csv(tmp_path / "sweep.csv")) == 4
    code, _, err = run(capsys, "sweep", "wine", *lists, "--seeds", "one")
    assert code == 2
    assert "'one' are no numbers" in err


@on_one_backend
def test_a_sweep_trains_from_small_first_weights(capsys):
    """Without a scale Glorot's would all be rounded to 0, and nothing could learn."""
    code, out, _ = run(capsys, "sweep", "wine", "--values", "ternary", "--epochs", 3, "--json")
    result = json.loads(out)
    assert code == 0
    assert result["rows"][0]["score"] > result["baseline"] + 0.2


@on_one_backend
def test_a_sweep_over_unequal_classes(capsys, tmp_path, random):
    """The most frequent class is scored beside the lists, and classes can count alike."""
    numbers = random.normal(size=(80, 2))
    kind = np.where(np.arange(80) % 8 == 0, "rare", "usual")
    path = csv(tmp_path, pandas.DataFrame(numbers, columns=["a", "b"]).assign(kind=kind))
    arguments = ["sweep", path, "--values", "ternary", "--epochs", 1, "--learning-rates", "1e-9"]
    code, out, err = run(capsys, *arguments)
    assert (code, err) == (0, "")
    # Of ten rare ones in eighty two are held out, of sixteen rows.
    assert "The most frequent class alone has accuracy 0.8750, and no list more: try" in out
    code, out, err = run(capsys, *arguments, "--class-weight", "balanced", "--json")
    assert err == ""
    result = json.loads(out)
    assert (code, result["metric"], result["baseline"]) == (0, "balanced_accuracy", 0.5)
    stack = [keras.layers.Dense(2), keras.layers.Dense(2, activation="softmax")]
    model = keras.Sequential([keras.Input((2,)), *stack])
    model.layers[1].set_weights([np.zeros((2, 2)), np.array([1.0, 0.0])])
    model.save(tmp_path / "rare.keras")
    more = ["--model", tmp_path / "rare.keras", "--values", "float", "--class-weight", "balanced"]
    code, out, err = run(capsys, *arguments[:2], *more, *arguments[-4:], "--json")
    assert err == ""
    # Only the rare ones are right: without weights it would be an eighth.
    assert (code, json.loads(out)["rows"][0]["score"]) == (0, pytest.approx(0.5))
    code, _, err = run(capsys, "sweep", "diabetes", "--values", "float", *more[-2:])
    assert code == 2
    assert "has no classes" in err


@on_one_backend
@pytest.mark.parametrize(("listed", "expected"), [(0.875, True), (0.9, False)])
def test_the_most_frequent_class_is_compared_with_lists_alone(listed, expected):
    """What free floats reach says nothing of a list."""
    cells = [
        types.SimpleNamespace(mean=mean, scores=[mean], is_free=is_free)
        for mean, is_free in [(0.99, True), (listed, False)]
    ]
    said = _on_baseline(types.SimpleNamespace(metric="accuracy", cells=cells), 0.875, False)
    assert ("and no list more: try --class-weight balanced" in said) == expected


def test_an_interrupt(train, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(datasets, "read_dataset", interrupt)
    code, _, err = train("wine")
    assert (code, err) == (130, "quantal: interrupted.\n")


class Sending(keras.callbacks.Callback):
    """A callback that sends this process a signal at the end of an epoch of one model."""

    def __init__(self, number, epoch):
        super().__init__()
        self.number, self.epoch, self.epochs = number, epoch, 0

    def on_epoch_end(self, epoch, logs=None):
        self.epochs += 1
        if self.epochs == self.epoch:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("epoch", [2, 8])
def test_an_interrupted_training_is_written(train, tmp_path, monkeypatch, number, epoch):
    """In the training of the discrete model, which has five epochs here, and of the free one."""
    sending, fit = Sending(number, epoch), comparison.fit
    monkeypatch.setattr(
        results, "fit", lambda *arguments: fit(*arguments[:-1], [*arguments[-1], sending])
    )
    folder = tmp_path / "run"
    code, out, err = train("wine", "--model", "multiplier", "--epochs", 5)
    assert code == 130
    assert f"interrupted while training {'discrete' if epoch == 2 else 'free'} weights" in err
    assert "Written" not in out
    assert sending.epochs in (epoch, epoch + 1)
    assert sorted(path.name for path in folder.iterdir()) == sorted(results.FILES)
    written = pandas.read_csv(folder / "predictions.csv")
    assert list(written)[:4] == ["row", "target", "discrete", "probability_0"]
    model = keras.saving.load_model(folder / "model.keras")
    features = datasets.read_dataset("wine").features[written["row"] - 1].astype(np.float32)
    outputs = model.predict(features, verbose=0)
    assert list(outputs.argmax(axis=1)) == list(written["discrete"])


def test_training_is_written_as_it_goes(train, tmp_path, monkeypatch):
    """Every few seconds by the clock, within an epoch; a failure is said once."""
    failing, listings = [], []
    write = results.write_files

    def watched(folder, comparison, dataset):
        if failing:
            raise Unwritable("the disk is full.")
        write(folder, comparison, dataset)
        listings.append((len(comparison.scores), sorted(path.name for path in folder.iterdir())))
        failing.extend(len(listings) * [True] if len(listings) == 2 else [])

    monkeypatch.setattr(results, "write_files", watched)
    monkeypatch.setattr(results, "SECONDS_BETWEEN_WRITES", 0.0)
    code, _, err = train("wine", "--model", "multiplier", "--epochs", 2, "--batch-size", 60)
    assert code == 5
    assert listings == 2 * [(1, sorted(results.FILES))]
    assert err.count("the disk is full. The training goes on.") == 1


# Packages: 1


def test_missing_packages(train, monkeypatch):
    for module in ("pandas", "matplotlib", "sklearn.metrics"):
        for name in ["reading", "columns", "encoding", "datasets", "scores", "comparison"]:
            monkeypatch.delitem(sys.modules, f"quantal._command.{name}", raising=False)
        monkeypatch.delitem(sys.modules, "quantal._command.results", raising=False)
        for name in [name for name in sys.modules if name.startswith("quantal.plots")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, module, None)
        code, _, err = train("wine")
        assert code == 1
        assert module in err
        assert 'pip install "quantal[command]"' in err
        monkeypatch.undo()


def test_a_missing_framework_of_the_command():
    program = "import sys; sys.modules['typer'] = None; from quantal._command import command"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("quantal: typer is not installed.")
    assert 'pip install "quantal[command]"' in done.stderr


def test_backends(capsys, monkeypatch):
    def only(*names):
        monkeypatch.setattr("importlib.util.find_spec", lambda module: module in names or None)

    only("jax", "torch")
    assert backend.choose_backend(None) == "jax"
    assert backend.choose_backend("torch") == "torch"
    with pytest.raises(MissingPackage, match=r'pip install "quantal\[tensorflow\]"') as stop:
        backend.choose_backend("tensorflow")
    assert stop.value.code == 1
    only()
    with pytest.raises(MissingPackage, match="Expected one of tensorflow, jax, torch"):
        backend.choose_backend(None)
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    code, _, err = run(capsys, "summary", "absent.keras")
    assert code == 1
    assert "torch is not installed" in err
    monkeypatch.setenv("KERAS_BACKEND", "abacus")
    code, _, err = run(capsys, "summary", "absent.keras")
    assert code == 2
    assert "'abacus' is not one of" in err


# The process


def test_version(capsys):
    assert run(capsys, "--version")[:2] == (0, f"quantal {quantal.__version__}\n")


@on_one_backend
def test_every_help_text_has_an_example(capsys):
    _, out, _ = run(capsys, "--help")
    names = re.findall(r"^  ([a-z]+) +[A-Z]", out.partition("Commands:")[2], re.MULTILINE)
    assert {"train", "predict", "summary", "discretize", "polish", "export", "search"} <= set(names)
    for name in names:
        _, out, _ = run(capsys, name, "--help")
        assert f"Example: quantal {name} " in out


def test_help_loads_no_framework():
    program = (
        "import json, sys\n"
        "from quantal._command import command as cli\n"
        "code = cli.main(['train', '--help'])\n"
        "print(json.dumps([code, sorted(sys.modules)]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    text, _, last = done.stdout.rstrip().rpartition("\n")
    code, modules = json.loads(last)
    assert code == 0
    for name in ("keras", "tensorflow", "jax", "torch", "pandas", "sklearn", "rich", "matplotlib"):
        assert name not in modules
    assert "Example: quantal train" in text
    for words in ("exit codes", "5  DIR cannot be written", "stays plain float", "quantal-run"):
        assert words in text


def test_the_module_is_a_program_that_keeps_quiet(tmp_path):
    arguments = ["train", "wine", "--model", "multiplier", "--epochs", "1", "--out", "run"]
    environment = {**os.environ, "KERAS_BACKEND": "none of them"}
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "quantal._command.command",
            *arguments,
            "--backend",
            keras.config.backend(),
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": str(pathlib.Path(quantal.__file__).parents[1])},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert sorted(os.listdir(tmp_path / "run")) == sorted(results.FILES)
