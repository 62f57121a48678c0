"""Every public module and name can be the first that a program imports."""

import importlib.util
import os
import subprocess
import sys

import pytest

import quantal
from conftest import in_turn_today
from repository import MODULES

PUBLIC_MODULES = [
    "callbacks", "estimators", "layers", "objectives", "plots", "regularizers", "schedules",
    "testing",
]  # fmt: skip
LOADED = (
    "import sys; {}; print(sorted({{'keras', 'tensorflow', 'jax', 'torch'}} & set(sys.modules)))"
)

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks a process for each import")


def failing(statements):
    """The statements that fail as the first of a process, and what they print."""
    program = os.path.join(os.path.dirname(__file__), "first_imports.py")
    run = subprocess.run(
        [sys.executable, program], input="\n".join(statements), capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.split("\n")[:-1], run.stderr


@needs_fork
def test_every_public_module_and_name_can_be_the_first_import(request):
    names = [f"from quantal import {name}" for name in quantal.__all__]
    rotates = request.config.getoption("rotate")
    if rotates:
        names = [name for name in names if in_turn_today(name)]
    modules = [module for module in PUBLIC_MODULES if not rotates or in_turn_today(module)]
    statements = [
        *(f"import quantal.{module}" for module in modules),
        *names,
        "from quantal.estimators import StraightThrough",
        "import keras; import quantal",
        "import quantal; import keras",
    ]
    wrong = [
        "import quantal.nothing",
        "import keras",  # Keras does not know quantal's classes.
        "import quantal, sys, types; name = 'quantal.layers._channels'; "
        "sys.modules[name] = types.ModuleType(name); import keras",
    ]
    failed, output = failing(statements + wrong)
    assert failed == wrong
    # Registering waits for a file that is still being imported, and hides no other error.
    assert "cannot import name 'output_axes' from 'quantal.layers._channels'" in output


@needs_fork
@pytest.mark.slow
def test_every_private_file_can_be_the_first_import():
    # Pickles name private files. The next public name registers the classes.
    failed, output = failing([f"import {name}; from quantal import Scale" for name in MODULES])
    assert failed == [], output


def test_public_modules_are_all_of_them():
    assert set(PUBLIC_MODULES) <= set(quantal.__all__)


def loaded_by(statement):
    run = subprocess.run(
        [sys.executable, "-c", LOADED.format(statement)], capture_output=True, text=True, check=True
    )
    return run.stdout.strip()


def test_importing_quantal_loads_no_framework():
    assert loaded_by("import quantal; quantal.Values('nf4').codes([0.3])") == "[]"
    assert (
        loaded_by("import quantal.objectives, quantal.schedules, quantal.plots, quantal.runtime")
        == "[]"
    )


@pytest.mark.product
def test_that_the_check_of_frameworks_can_fail():
    assert "keras" in loaded_by("import quantal; quantal.LearnableMultiplier")


def test_public_names_resolve_and_unknown_ones_do_not():
    for name in quantal.__all__:
        assert getattr(quantal, name) is not None
    assert set(quantal.__all__) <= set(dir(quantal))
    with pytest.raises(AttributeError, match="No quantal attribute TernaryDense"):
        _ = quantal.TernaryDense


@pytest.mark.parametrize("installed", [["jax"], ["torch", "jax"], []])
def test_a_missing_backend_comes_with_the_way_to_choose_another(installed, monkeypatch):
    def load(name):
        raise ModuleNotFoundError("No module named 'tensorflow'", name="tensorflow")

    monkeypatch.setattr(quantal, "_load", load)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name in installed or None)
    with pytest.raises(ModuleNotFoundError) as caught:
        _ = quantal.a_name_not_loaded_before
    (note,) = caught.value.__notes__
    assert "looks for its backend tensorflow" in note
    if installed:
        assert f"Set KERAS_BACKEND={min(installed)} in the environment" in note
    else:
        assert "pip install 'quantal[tensorflow]'" in note


def test_an_error_about_another_module_stays_as_it_is():
    error = ModuleNotFoundError("No module named 'matplotlib'", name="matplotlib")
    quantal._registration.explain_missing_backend(error)
    assert not hasattr(error, "__notes__")
