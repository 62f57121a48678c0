"""What several processes of one program decide is decided once, and a file is written once."""

import collections
import pathlib

import numpy as np
import pytest

from quantal._core import processes

pytestmark = pytest.mark.without_keras


class Program:
    """Two processes that run one after the other: first 0, then 1, with one store."""

    def __init__(self, monkeypatch):
        self.monkeypatch, self.entries = monkeypatch, {}

    def process(self, index):
        group = processes.Group(index, 2, self.entries.__setitem__, self.entries.__getitem__)
        self.monkeypatch.setattr(processes, "_group", lambda: group)
        self.monkeypatch.setattr(processes, "_calls", collections.Counter())


@pytest.fixture
def program(monkeypatch):
    return Program(monkeypatch)


def test_one_process_decides_for_itself():
    assert (processes.index(), processes.count()) == (0, 1)
    assert processes.agreed("a loss", 0.5) == 0.5


def test_all_processes_have_what_process_0_has(program):
    program.process(0)
    assert [processes.agreed("a loss", loss) for loss in (0.5, 0.25)] == [0.5, 0.25]
    clock = processes.agreed_clock()
    program.process(1)
    assert (processes.index(), processes.count()) == (1, 2)
    assert [processes.agreed("a loss", loss) for loss in (3.0, 4.0)] == [0.5, 0.25]
    assert processes.agreed_clock() == clock


def test_a_function_is_called_in_process_0_alone(program):
    calls = []
    program.process(0)
    assert processes.done_once("a sum", lambda: calls.append(0) or 3) == 3
    program.process(1)
    assert processes.done_once("a sum", lambda: calls.append(1) or 4) == 3
    assert calls == [0]


def test_where_process_0_fails_all_fail(program):
    program.process(0)
    with pytest.raises(ZeroDivisionError):
        processes.done_once("a quotient", lambda: 1 / 0)
    program.process(1)
    words = r"Process 0 failed \(a quotient\)\. Expected what it says: ZeroDivisionError: division"
    with pytest.raises(RuntimeError, match=words):
        processes.done_once("a quotient", lambda: 1)


def test_a_process_that_waits_in_vain_says_so(program):
    program.process(1)
    with pytest.raises(TimeoutError, match=r"Process 1 of 2 waited for process 0 in vain \(a"):
        processes.agreed("a loss", 0.5)
    assert processes.written_once("model", lambda: "written") == "written"


def test_a_file_is_written_once_and_each_other_path_by_its_process(program, tmp_path):
    written = []

    def write(path):
        def note():
            written.append(path)
            return len(written)

        return processes.written_once(path, note)

    program.process(0)
    assert [write(tmp_path / "model"), write("first")] == [1, 2]
    program.process(1)
    assert [write(str(tmp_path / "model")), write(pathlib.Path("second"))] == [1, 3]
    assert [str(path) for path in written] == [str(tmp_path / "model"), "first", "second"]


def test_data_that_differ_between_processes_are_refused(program):
    numbers = np.arange(6.0)
    program.process(0)
    for _ in range(3):
        processes.check_alike("data", [numbers])
    program.process(1)
    processes.check_alike("data", [numbers.copy()])
    words = r"Process 1 of 2 has data that differ from those of process 0\. Expected the same"
    for other in (numbers + 1, numbers.reshape(2, 3)):
        with pytest.raises(ValueError, match=words):
            processes.check_alike("data", [other])
