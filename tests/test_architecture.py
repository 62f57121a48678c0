"""The order of the files: each imports only from files above it."""

import ast
import pathlib
import subprocess
import sys

import keras
import pytest

import quantal

SOURCE = pathlib.Path(quantal.__file__).parent
ORDER = [
    "registration",
    "values", "fitting", "packing", "container", "schedules",  # numbers: NumPy only
    "projection", "latents", "estimators", "regularizers",  # tensors
    "scales", "parameters", "stored",
    "layers", "rebuilding", "convert", "callbacks", "tracing",      # models
    "searching",                                    # vectors without a model
    "objective", "tempering", "polishing",          # and of a model
    "files", "targets",                             # out of Python
    "plots", "testing",                             # for people
    "datasets", "comparison", "cli",                # the command
]  # fmt: skip
NUMPY_ONLY = ["values", "fitting", "packing", "container", "schedules"]
FRAMEWORKS = {"keras", "tensorflow", "jax", "torch"}


def imports_of(text):
    """Every module that a source text imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def upward_only(name, text):
    """Imports of files that do not stand above; a package may import within itself."""
    own = {module.split(".")[1] for module in imports_of(text) if module.startswith("quantal.")}
    below = ORDER[ORDER.index(name) :]
    return [other for other in own & set(below) if other != name]


def files_of(name):
    return [
        path for path in (SOURCE / f"{name}.py", *(SOURCE / name).glob("*.py")) if path.exists()
    ]


def test_every_file_has_its_place():
    names = {path.relative_to(SOURCE).parts[0].removesuffix(".py") for path in SOURCE.rglob("*.py")}
    assert names - {"__init__"} == set(ORDER)


@pytest.mark.parametrize("name", ORDER)
def test_files_import_only_from_files_above(name):
    for path in files_of(name):
        assert upward_only(name, path.read_text()) == []


def test_the_check_can_fail():
    assert upward_only("values", "from quantal.layers import Discrete") == ["layers"]
    assert upward_only("values", "def f():\n    from quantal import cli") == ["cli"]
    assert upward_only("layers", "from quantal.values import Values") == []
    assert upward_only("layers", "from quantal.layers.base import DiscreteLayer") == []


@pytest.mark.parametrize("name", NUMPY_ONLY)
def test_numbers_are_numpy_only(name):
    modules = {m.split(".")[0] for m in imports_of((SOURCE / f"{name}.py").read_text())}
    assert not modules & FRAMEWORKS


LOADED = (
    "import sys; {}; print(sorted({{'keras', 'tensorflow', 'jax', 'torch'}} & set(sys.modules)))"
)


def loaded_by(statement):
    run = subprocess.run(
        [sys.executable, "-c", LOADED.format(statement)], capture_output=True, text=True, check=True
    )
    return run.stdout.strip()


def test_importing_quantal_loads_no_framework():
    assert loaded_by("import quantal; quantal.Values('nf4').codes([0.3])") == "[]"


def test_that_check_can_fail():
    assert "keras" in loaded_by("import quantal; quantal.LearnableMultiplier")


@pytest.mark.skipif(
    keras.config.backend() != "jax",
    reason="the order of imports is every backend's; JAX loads fastest",
)
@pytest.mark.parametrize("name", quantal.__all__)
def test_every_public_name_can_be_the_first_one(name):
    loaded_by(f"from quantal import {name}")


def test_public_names_resolve_and_unknown_ones_do_not():
    for name in quantal.__all__:
        assert getattr(quantal, name) is not None
    assert set(quantal.__all__) <= set(dir(quantal))
    with pytest.raises(AttributeError, match="no attribute 'TernaryDense'"):
        _ = quantal.TernaryDense
