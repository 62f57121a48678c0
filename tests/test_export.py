"""What other tools read: the model's numbers, and nothing left where it fails."""

import csv
import inspect
import json
import re
import resource
import signal

import keras
import numpy as np
import pytest
from keras import layers

import quantal
from conftest import numpy, on_one_backend
from models import ARGUMENTS
from quantal import Discrete, LearnableMultiplier, parameters_of
from quantal._export.registry import TARGETS
from quantal._export.report import Figures, Report
from quantal._storage import atomic
from repository import ROOT


def model_of(*wrapped, size=6):
    return keras.Sequential([keras.Input((size,)), *wrapped])


@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_npz(arguments, tmp_path):
    layer = Discrete(layers.Dense(2), **arguments)
    model = model_of(LearnableMultiplier(), layer)
    report = quantal.export(model, tmp_path / "m.npz")
    assert report.paths == [tmp_path / "m.npz"]
    assert report.figures.bytes == (tmp_path / "m.npz").stat().st_size
    with np.load(tmp_path / "m.npz", allow_pickle=False) as arrays:
        for parameter in parameters_of(model):
            codes, values = (arrays[f"{parameter.path}.{what}"] for what in ("codes", "values"))
            numbers = values[np.arange(2), codes] if values.ndim == 2 else values[codes]
            scale = arrays.get(f"{parameter.path}.scale", 1)
            np.testing.assert_array_equal(numbers * scale, numpy(parameter.weight))


def test_csv(tmp_path):
    model = model_of(LearnableMultiplier([0.1, -0.3, 1 / 3], scale="learned"))
    quantal.export(model, tmp_path / "m.csv")
    with open(tmp_path / "m.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    parameter = parameters_of(model)[0]
    assert [int(row["index"]) for row in rows] == list(range(6))
    np.testing.assert_array_equal([int(row["code"]) for row in rows], numpy(parameter.codes))
    values = np.array([row["value"] for row in rows], np.float32)
    np.testing.assert_array_equal(values, numpy(parameter.weight))


def read_memory(text):
    """As `$readmemh` reads: numbers in hexadecimal, comments left out."""
    return [int(word, 16) for word in re.sub(r"//.*", "", text).split()]


@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_verilog(arguments, tmp_path):
    model = model_of(LearnableMultiplier(), Discrete(layers.Dense(2, name="d"), **arguments))
    written = quantal.export(model, tmp_path / "m.mem").paths
    assert len(written) == 2
    for path, parameter in zip(written, parameters_of(model), strict=True):
        text = path.read_text()
        assert read_memory(text) == numpy(parameter.codes).ravel().tolist()
        listed = re.findall(r"^// (?:channel \d+, )?([0-9a-f]+) = (.*)$", text, re.MULTILINE)
        assert len(listed) == parameter.values.numbers.size
        values = np.array([value for _, value in listed], np.float32)
        np.testing.assert_array_equal(values, parameter.values.numbers.ravel())
    (alone,) = quantal.export(model_of(LearnableMultiplier()), tmp_path / "alone.mem").paths
    assert alone == tmp_path / "alone.mem"


def test_keras(tmp_path, random):
    model = model_of(LearnableMultiplier(), Discrete(layers.Dense(2), "ternary", scale="learned"))
    quantal.export(model, tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    assert parameters_of(again) == []
    x = random.normal(size=(4, 6))
    np.testing.assert_array_equal(model.predict(x, verbose=0), again.predict(x, verbose=0))


def test_state_dict(tmp_path):
    model = model_of(Discrete(layers.Dense(2, use_bias=False), "ternary"))
    if keras.config.backend() != "torch":
        with pytest.raises(ValueError, match=r"Set KERAS_BACKEND=torch, or export to '\.keras'"):
            quantal.export(model, tmp_path / "m.pt")
        return
    import torch

    quantal.export(model, tmp_path / "m.pt")
    # Keras lists a weight under its layer and under the model.
    weights = torch.load(tmp_path / "m.pt", weights_only=True)
    assert weights
    for weight in weights.values():
        np.testing.assert_array_equal(weight.numpy(), numpy(model.layers[0].kernel))


@on_one_backend
@pytest.mark.parametrize("file", ["m.pt", "m.onnx", "m.c", "m.npz", "m.keras"])
def test_a_full_disk_is_named(tmp_path, file):
    """The model is not to blame, and an old file stays."""
    if file == "m.pt" and keras.config.backend() != "torch":
        pytest.skip("PyTorch's own file")
    model = model_of(Discrete(layers.Dense(999), "ternary"))
    (tmp_path / file).write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (900, limits[1]))
        with pytest.raises(OSError, match="File too large"):
            quantal.export(model, tmp_path / file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert (tmp_path / file).read_bytes() == b"old"


def test_refusals(tmp_path):
    with pytest.raises(ValueError, match=r"ends in '\.gguf'\. Expected one of \.npz"):
        quantal.export(model_of(LearnableMultiplier()), tmp_path / "m.gguf")
    with pytest.raises(ValueError, match=r"target is 'gguf'\. Expected one of npz"):
        quantal.export(model_of(LearnableMultiplier()), tmp_path / "m.npz", "gguf")
    with pytest.raises(ValueError, match=r"Expected '\.onnx' for the target 'onnx_fast'"):
        quantal.export(model_of(LearnableMultiplier()), tmp_path / "m.npz", "onnx_fast")
    with pytest.raises(ValueError, match=r"CSV holds one vector\. Export to '\.npz'"):
        quantal.export(model_of(Discrete(layers.Dense(2), "ternary")), tmp_path / "m.csv")
    for ending in (".npz", ".csv", ".mem"):
        with pytest.raises(ValueError, match="has no discrete weight"):
            quantal.export(model_of(layers.Dense(2)), tmp_path / f"m{ending}")
    assert not list(tmp_path.iterdir())


def test_names_of_layers_are_escaped_and_numbered(tmp_path):
    line_ends = LearnableMultiplier(name='a\nff\nee `include "x"\n\u2028')
    (path,) = quantal.export(model_of(line_ends), tmp_path / "one.mem").paths
    assert len(read_memory(path.read_text())) == 6
    assert set(read_memory(path.read_text())) <= {0, 1}
    model = model_of(
        Discrete(layers.Dense(4, name="conv-1"), "ternary", name="q1"),
        Discrete(layers.Dense(3, name="Conv_1"), "ternary", name="q2"),
        LearnableMultiplier(name="é" * 300),
    )
    paths = quantal.export(model, tmp_path / "m.mem").paths
    assert len({path.name.lower() for path in paths}) == len(paths) == 3
    for path, parameter in zip(paths, parameters_of(model), strict=True):
        assert path.name.isascii()
        assert read_memory(path.read_text()) == numpy(parameter.codes).ravel().tolist()
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "one.mem", *paths])


def test_paths_that_cannot_be_written_are_refused_first(tmp_path):
    model = model_of(LearnableMultiplier())
    with pytest.raises(FileNotFoundError, match=r"folder .*none.* does not exist\. Expected one"):
        quantal.export(model, tmp_path / "none" / "m.csv")
    (tmp_path / "m.csv").mkdir()
    with pytest.raises(OSError, match=r"m\.csv' is a folder\. Expected the path of a file"):
        quantal.export(model, tmp_path / "m.csv")
    for ending, other in ((".h", ".c"), (".bin", ".xml")):
        with pytest.raises(ValueError, match=rf"ends in '\{ending}'\. Expected '\{other}'"):
            quantal.export(model, tmp_path / f"m{ending}")
    assert list(tmp_path.iterdir()) == [tmp_path / "m.csv"]


@pytest.mark.parametrize("ending", [".npz", ".csv", ".mem", ".keras", ".c"])
def test_diverged_models_are_refused_before_anything_is_written(ending, tmp_path):
    path = tmp_path / f"m{ending}"
    path.write_text("old")
    model = model_of(LearnableMultiplier(scale="learned"))
    for variable in model.weights:
        before = numpy(variable)
        for number in (np.nan, np.inf):
            variable.assign(np.full(variable.shape, number))
            with pytest.raises(
                ValueError, match=f"has {number} among its weights.*{variable.path}"
            ):
                quantal.export(model, path)
        variable.assign(before)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_two_files_are_replaced_together_or_not_at_all(tmp_path, monkeypatch):
    source, header = tmp_path / "net.c", tmp_path / "net.h"
    for path in (source, header):
        path.write_text("old")
        path.chmod(0o640)
    (tmp_path / "other").mkdir()
    replace, moved = atomic.os.replace, []

    def fail_at_the_second(temporary, path):
        moved.append(path)
        if len(moved) == 2:
            raise KeyboardInterrupt
        replace(temporary, path)

    model = model_of(layers.Dense(2))
    with monkeypatch.context() as context:
        context.setattr(atomic.os, "replace", fail_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            quantal.export(model, source, check=False)
    assert (source.read_text(), header.read_text()) == ("old", "old")
    quantal.export(model, source, check=False)
    assert "old" not in (source.read_text(), header.read_text())
    assert [path.stat().st_mode & 0o777 for path in (source, header)] == [0o640, 0o640]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.c", "net.h", "other"]


def test_every_target_is_in_the_tables():
    lines = inspect.getdoc(quantal.export).splitlines()
    for name, target in TARGETS.items():
        (line,) = [line for line in lines if line.startswith(f"| `{name}` | `{target.ending}` |")]
        bound = line.split("|")[-2].strip()
        assert (float(bound) if bound else None) == target.bound
    document = ROOT / "docs" / "export.md"
    if document.exists():
        text = document.read_text()
        assert [name for name in TARGETS if f"`{name}`" not in text] == []


def test_a_file_that_exists_stays_until_all_is_well(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("old")
    path.chmod(0o640)
    with pytest.raises(ValueError, match="CSV holds one vector"):
        quantal.export(model_of(Discrete(layers.Dense(2), "ternary")), path)
    assert path.read_text() == "old"
    quantal.export(model_of(LearnableMultiplier()), path)
    assert path.read_text().startswith("index,code,value")
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [path]


@on_one_backend
def test_a_report_as_data(tmp_path):
    pytest.importorskip("pandas")
    figures, floats = Figures(1250, 0.25, 2_000_000), Figures(40_000)
    report = Report("onnx", [tmp_path / "m.onnx"], 10_000, figures, floats, 1e-7, 1e-8, 1e-5)
    assert str(report).splitlines() == [
        "                onnx  as floats",
        "bytes          1,250     40,000",
        "bits a weight  1.000     32.000",
        "milliseconds    0.25          -",
        "memory, MB      2.00          -",
        "difference to Keras: largest 1e-07, mean 1e-08 of the outputs' spread (bound 1e-05)",
    ]
    data = report.to_dict()
    assert json.loads(report.to_json()) == data
    assert data["paths"] == [str(tmp_path / "m.onnx")]
    assert data["figures"]["bytes"] == 1250
    assert report.to_frame()["bytes"].tolist() == [1250, 40_000]
    assert report._repr_html_().count("<tr>") == 1 + 4
