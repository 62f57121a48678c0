"""The mutation testing in small: which mutants there are, and what becomes of them."""

import pathlib
import tomllib

import pytest

mutants = pytest.importorskip("mutants", reason="scripts are not beside the tests")

pytestmark = pytest.mark.without_keras

SOURCE = '''
"""Text of the module."""
LIMIT = 3


def check(x: int | None, *, flag: bool = True) -> int:
    """Return a number."""
    if x is None and flag:
        raise ValueError(f"x is {x + 1}")
    return x * LIMIT
'''


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setattr(mutants, "SOURCE", tmp_path)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    (tmp_path / "module.py").write_text(SOURCE)
    return tmp_path


def test_operators_numbers_conditions_and_statements_are_changed(source):
    lines = [mutant.difference() for mutant in mutants.mutants_of("module.py")]
    after = {line[1].removeprefix("+").strip() for line in lines}
    assert after == {
        "LIMIT = (4)",
        "def check(x: int | None, *, flag: bool = (False)) -> int:",
        "if (not (x is None and flag)):",
        "if (x is None or flag):",
        "if (x is not None) and flag:",
        "pass",
        "return None",
        "return (x / LIMIT)",
    }
    assert all(len(line) == 2 for line in lines)


def test_an_equivalent_mutant_is_known_by_its_lines(source):
    (first, *_) = mutants.mutants_of("module.py")
    settings = {"equivalent": [
        {"file": "module.py", "before": "LIMIT = 3", "after": "LIMIT = (4)", "reason": "none"}
    ]}  # fmt: skip
    assert mutants.key_of(first) in mutants.equivalents(settings)


@pytest.mark.parametrize(
    ("changed", "word"),
    [("return x * LIMIT", "passed"), ("return x", "failed"), ("while True: pass", "timeout")],
)
def test_a_fork_runs_tests_with_the_changed_file(source, changed, word):
    (source / "test_it.py").write_text(
        "import module\n\ndef test_it():\n    assert module.check(2) == 6\n"
    )
    text = SOURCE.replace("return x * LIMIT", changed)
    test = [str(source / "test_it.py"), "-c", "/dev/null", "--rootdir", str(source)]
    limit = 2 if word == "timeout" else 60
    outcome = mutants.run_tests("module.py", text, test, limit, source / "seconds")
    assert outcome.word == word, outcome.output


def test_the_quickest_tests_of_a_file_run_first(source):
    (source / "test_it.py").write_text(
        "import time\n\ndef test_slow():\n    time.sleep(0.2)\n\ndef test_quick():\n    pass\n"
    )
    test = [str(source / "test_it.py"), "-vv", "-c", "/dev/null", "--rootdir", str(source)]
    outputs = [
        mutants.run_tests("module.py", SOURCE, test, 60, source / "seconds").output
        for _ in range(2)
    ]
    own_order = [output.index("test_slow") < output.index("test_quick") for output in outputs]
    assert own_order == [True, False]


def test_settings_name_files_that_are_there():
    settings = tomllib.loads(mutants.SETTINGS.read_text())
    for path, tests in settings["tests"].items():
        assert (mutants.SOURCE / path).exists(), path
        assert all((mutants.ROOT / test.split("::")[0]).exists() for test in tests)
    # An equivalent mutant whose source was changed has to be looked at again.
    names = [pathlib.Path(path).name for path in settings["tests"]]
    for entry in settings["equivalent"]:
        assert entry["file"] in names
        (path,) = [p for p in settings["tests"] if pathlib.Path(p).name == entry["file"]]
        text = " ".join((mutants.SOURCE / path).read_text().split())
        assert entry["before"] in text, entry
