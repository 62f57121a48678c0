"""Optimizations that are killed, interrupted or run out of disk lose next to nothing."""

import errno
import io
import os
import pathlib
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time
import tracemalloc
import zipfile

import numpy as np
import pytest

import quantal
from quantal._optimize.autosave import Autosave
from quantal._optimize.budget import Budget
from quantal._optimize.checkpoint import Checkpoint, Unwritable, distinct, fingerprint
from quantal._optimize.interruption import interrupts_ignored, termination_as_interrupt
from repository import ROOT
from searches import random_quadratic, search

pytestmark = pytest.mark.without_keras

MEMBERS = np.arange(6).reshape(2, 3)


def checkpoint_at(path):
    return Checkpoint(path, fingerprint(MEMBERS), {"members": (None, 3)})


def wait_for(condition, seconds=60):
    """Wait until a condition is met; the test fails where it never is."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


class Program:
    """A program in another process, which says when its loss has been called a few times."""

    def __init__(self, folder, text):
        self.file = folder / "good.npz"
        self._process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(text), str(self.file)],
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_for_file(self):
        wait_for(self.file.exists)

    def wait_for_line(self):
        return self._process.stdout.readline()

    def end_with(self, number):
        """(exit code, standard output, standard error) after a signal."""
        self._process.send_signal(number)
        output, errors = self._process.communicate(timeout=60)
        return self._process.returncode, output, errors


SLOW = """
    import sys, time, numpy as np, quantal
    rng = np.random.default_rng(0)
    h = rng.normal(size=60)

    def loss(v):
        if len(v) > 1:
            print("called", flush=True)
            time.sleep({seconds})
        return np.abs(v @ h) ** 1.5

    result = quantal.search(loss, [1, -1, 3], n=60, budget=600, file=sys.argv[1], verbose=0{more})
    print("result", result.loss)
"""


def test_the_first_incumbent_is_written_at_once(tmp_path):
    """The first call of many vectors never ends here, and the process is killed in it."""
    program = Program(tmp_path, SLOW.format(seconds=1000, more=""))
    program.wait_for_line()
    assert program.file.exists()
    code, output, _ = program.end_with(signal.SIGKILL)
    assert (code, output) == (-signal.SIGKILL, "")
    with np.load(program.file) as archive:
        assert archive["members"].shape == (1, 60)
    assert [file.name for file in tmp_path.iterdir()] == ["good.npz"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_search_with_its_result(tmp_path, number):
    program = Program(tmp_path, SLOW.format(seconds=0.01, more=""))
    for _ in range(20):
        program.wait_for_line()
    code, output, errors = program.end_with(number)
    assert (code, errors) == (0, "")
    loss = float(output.split()[-1])
    with np.load(program.file) as archive:
        assert len(archive["members"]) >= 1
    h = np.random.default_rng(0).normal(size=60)
    later = search(lambda v: np.abs(v @ h) ** 1.5, [1, -1, 3], 60, 1, file=program.file)
    assert later.loss <= loss


def test_a_handler_of_the_program_stays():
    calls = []
    old = signal.signal(signal.SIGTERM, lambda number, frame: calls.append(number))
    try:
        with termination_as_interrupt():
            os.kill(os.getpid(), signal.SIGTERM)
        assert calls == [signal.SIGTERM]
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with pytest.raises(KeyboardInterrupt), termination_as_interrupt():
            os.kill(os.getpid(), signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, old)


def test_what_has_to_be_done_as_a_whole_is_not_interrupted():
    with termination_as_interrupt():
        with interrupts_ignored():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_other_threads_search_without_signals(random):
    results = []
    thread = threading.Thread(
        target=lambda: results.append(search(random_quadratic(random), [1, -1]))
    )
    thread.start()
    thread.join()
    assert results[0].proved


def test_it_writes_by_the_clock_while_nothing_else_happens(tmp_path):
    rows, path = [MEMBERS], tmp_path / "good.npz"

    def lengths():
        return len(checkpoint_at(path).read()["members"])

    with Autosave(checkpoint_at(path), lambda: {"members": rows[-1]}, 0.01):
        assert lengths() == 2
        rows.append(MEMBERS[[0, 1, 0]])
        wait_for(lambda: lengths() == 3)
        rows.append(MEMBERS[:1])
    assert lengths() == 1
    assert [file.name for file in tmp_path.iterdir()] == ["good.npz"]


def test_it_writes_in_the_end_of_an_error(tmp_path):
    rows, path = [MEMBERS], tmp_path / "good.npz"

    def fail():
        with Autosave(checkpoint_at(path), lambda: {"members": rows[-1]}, 1000):
            rows.append(MEMBERS[:1])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert len(checkpoint_at(path).read()["members"]) == 1


def test_a_disk_that_fills_up_is_a_warning(tmp_path, monkeypatch, random):
    """Once for each cause; the result comes, and the file is what it was."""
    path, full = tmp_path / "good.npz", []
    write = Checkpoint.write

    def failing(self, **arrays):
        if full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self, **arrays)
        full.append(True)

    monkeypatch.setattr(Checkpoint, "write", failing)
    loss = random_quadratic(random, 60)
    with pytest.warns(UserWarning, match=r"good.npz' cannot be written: .*No space") as warned:
        result = search(loss, [1, -1], evaluations=20_000, file=path)
    assert len(warned) == 1
    monkeypatch.undo()
    assert result.loss < search(loss, [1, -1], evaluations=1, file=path).loss


@pytest.mark.skipif(sys.platform == "win32", reason="it has no limits of this kind")
def test_a_place_is_tried_first(tmp_path):
    """Before the first evaluation, and nothing is left behind."""

    def loss(v):
        raise AssertionError("evaluated")

    def refused(path, words):
        with pytest.raises(ValueError, match=words):
            quantal.search(loss, [1, -1], n=30, budget=Budget(evaluations=9), file=path)

    refused(tmp_path / "none" / "good.npz", "no folder")
    refused(tmp_path, "a folder. Expected a file")
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "a pipe")
    refused("/dev/full", "a device")
    refused(tmp_path / (240 * "a" + ".npz"), "cannot be written: File name too long")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        refused(tmp_path / "large.npz", "cannot be written: File too large")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    if os.geteuid():
        tmp_path.chmod(0o500)
        refused(tmp_path / "good.npz", "cannot be written: Permission denied")
        tmp_path.chmod(0o700)
    assert [file.name for file in tmp_path.iterdir()] == ["pipe"]
    with pytest.raises(OSError, match="too long"):  # It is an OSError as well.
        checkpoint_at(tmp_path / (240 * "a" + ".npz"))
    assert issubclass(Unwritable, ValueError)


def test_a_damaged_file_is_refused_before_anything_is_evaluated(tmp_path):
    path = tmp_path / "good.npz"
    path.write_bytes(b"")

    def loss(v):
        raise AssertionError("evaluated")

    with pytest.raises(ValueError, match="not readable as a search's file"):
        quantal.search(loss, [1, -1], n=30, file=path)
    assert pathlib.Path(path).read_bytes() == b""


def test_a_resumed_search_that_is_killed_at_once_keeps_what_it_has_not_used(tmp_path, random):
    path, loss = tmp_path / "good.npz", random_quadratic(random, 300)
    search(loss, [1, -1], evaluations=2_000_000, file=path)
    with np.load(path) as archive:
        before = {row.tobytes() for row in archive["members"].astype(np.int64)}
    assert len(before) > 3
    search(loss, [1, -1], evaluations=1, seed=1, file=path)
    with np.load(path) as archive:
        after = {row.tobytes() for row in archive["members"].astype(np.int64)}
    assert before <= after


def test_assignments_are_kept_once():
    rows = [np.array(row) for row in ([1, 2], [3, 4], [1, 2], [0, 0])]
    assert distinct(rows).tolist() == [[1, 2], [3, 4], [0, 0]]
    assert len(distinct([np.array([i]) for i in range(99)])) == 40


def archive_of(path, compression=zipfile.ZIP_DEFLATED, **members):
    """Write an archive of any bytes as a checkpoint of MEMBERS, except for what is replaced."""
    with np.load(path) as archive:
        arrays = dict(archive)
    contents = {}
    for name, array in arrays.items():
        stream = io.BytesIO()
        np.save(stream, array)
        contents[name] = stream.getvalue()
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in {**contents, **members}.items():
            if content is not None:
                archive.writestr(f"{name}.npy", content)


def header_of(text, version=1):
    text = text.encode() + b"\n"
    length = len(text).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + length + text


def claiming(shape, dtype="'|u1'", order="False", **more):
    return header_of(f"{{'descr': {dtype}, 'fortran_order': {order}, 'shape': {shape}}}", **more)


SIX = bytes(range(6))
HOSTILE = {
    "nothing": b"",
    "text": b"no archive",
    "no header": SIX,
    "huge header": b"\x93NUMPY\x02\x00\xff\xff\xff\x7f" + SIX,
    "nested header": header_of("(" * 9000),
    "version 3": claiming("(2, 3)", version=3) + SIX,
    "too few": claiming("(2, 3)") + SIX[:5],
    "too many": claiming("(2, 3)") + SIX + SIX,
    "a billion rows": claiming("(1000000000, 3)"),
    "many digits": claiming("(" + "9" * 4000 + ", 3)"),
    "negative": claiming("(-2, -3)") + SIX,
    "no axis": claiming("()") + SIX[:1],
    "three axes": claiming("(1, 2, 3)") + SIX,
    "another length": claiming("(3, 2)") + SIX,
    "objects": claiming("(2, 3)", "'|O'") + 8 * SIX,
    "numbers with a point": claiming("(2, 3)", "'<f4'") + 4 * SIX,
    "complex": claiming("(2, 3)", "'<c16'") + 16 * SIX,
    "text in it": claiming("(2, 3)", "'<U1'") + 4 * SIX,
    "records": claiming("(2, 3)", "[('a', '|u1')]") + SIX,
    "a bomb": claiming("(10000000, 3)") + bytes(30_000_000),
    "empty codes": claiming("(2, 3)", "'|V0'"),
}


def resumed(path, members, **constraints):
    """A search of the least sum of six elements that goes on from a file with such codes."""

    def go():
        return search(
            lambda v: (v**3).sum(axis=1), [1, -1, 2], 6, start=[0] * 6, file=path, evaluations=300,
            constraints=quantal.Constraints(**constraints),
        )  # fmt: skip

    go()
    with np.load(path) as archive:
        np.savez(path, **{**archive, "members": np.array(members, np.uint8)})
    return go()


def test_a_file_changes_no_fixed_elements(tmp_path):
    with pytest.raises(ValueError, match=r"good.npz' has codes .* or change fixed elements"):
        resumed(tmp_path / "good.npz", [[1] * 6], fixed=[True] * 2 + [False] * 4)


def test_a_file_has_codes_of_the_lists(tmp_path):
    with pytest.raises(ValueError, match=r"good.npz' has codes that are not in the lists"):
        resumed(tmp_path / "good.npz", [[0, 0, 0, 0, 0, 3]])


def test_a_file_breaks_no_constraints(tmp_path):
    result = resumed(tmp_path / "good.npz", [[1] * 6], total=4)
    assert result.vector.sum() == 4


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused(tmp_path, name):
    """Each is the error that names the file, and takes no memory."""
    path = tmp_path / "good.npz"
    checkpoint = checkpoint_at(path)
    checkpoint.write(members=MEMBERS)
    archive_of(path, members=HOSTILE[name])
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"good.npz' is not readable as a search's file"):
            checkpoint.read()
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_archives_that_another_tool_has_packed(tmp_path):
    path = tmp_path / "good.npz"
    checkpoint = checkpoint_at(path)
    checkpoint.write(members=MEMBERS)
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        archive_of(path, compression, members=claiming("(2, 3)", order="True") + SIX)
        assert checkpoint.read()["members"].tolist() == [[0, 2, 4], [1, 3, 5]]
    for compression in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        archive_of(path, compression)
        with pytest.raises(ValueError, match="packed in another way"):
            checkpoint.read()
    checkpoint.write(members=MEMBERS)
    archive_of(path, members=None, fingerprint=None)
    with pytest.raises(ValueError, match="not readable"):
        checkpoint.read()


def test_every_damage_is_seen(tmp_path):
    """A byte that is changed or missing; some bytes say nothing, such as the time of writing."""
    path = tmp_path / "good.npz"
    checkpoint = checkpoint_at(path)
    checkpoint.write(members=MEMBERS)
    whole, messages = path.read_bytes(), []
    damaged = [whole[:length] for length in range(0, len(whole), 7)]
    for position in range(0, len(whole), 3):
        damaged.append(whole[:position] + bytes([whole[position] ^ 0x5A]) + whole[position + 1 :])
    for content in damaged:
        path.write_bytes(content)
        try:
            members = checkpoint.read()["members"]
        except ValueError as error:
            messages.append(str(error))
        else:
            np.testing.assert_array_equal(members, MEMBERS)
    assert len(messages) > len(damaged) / 2
    assert all("good.npz" in message for message in messages)


def test_a_file_that_is_replaced_by_a_pipe_is_not_waited_for(tmp_path):
    path = tmp_path / "good.npz"
    checkpoint = checkpoint_at(path)
    os.mkfifo(path)
    with pytest.raises(ValueError, match="no regular file"):
        checkpoint.read()


def test_codes_are_written_small(tmp_path):
    path = tmp_path / "good.npz"
    checkpoint = checkpoint_at(path)
    for largest, dtype in ((255, np.uint8), (256, np.uint16), (70_000, np.uint32)):
        members = np.array([[0, 1, largest]])
        checkpoint.write(members=members)
        with np.load(path) as archive:
            assert archive["members"].dtype == dtype
        np.testing.assert_array_equal(checkpoint.read()["members"], members)
