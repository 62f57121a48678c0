"""Files are replaced as a whole or not at all."""

import itertools
import json
import os
import stat
import subprocess
import sys
import threading

import pytest

from quantal._storage import atomic
from quantal._storage.atomic import folder_beside, move_file, move_files, replace_file

pytestmark = pytest.mark.without_keras  # the standard library alone


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


def write(path, data):
    with replace_file(path) as file:
        file.write(data)


def test_a_new_file_has_the_mode_of_open(tmp_path, monkeypatch):
    (tmp_path / "opened").write_bytes(b"")
    # The umask belongs to the whole process: another thread may open a file meanwhile.
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("touched the umask"))
    write(tmp_path / "new", b"new")
    assert mode_of(tmp_path / "new") == mode_of(tmp_path / "opened")


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666, 0o755, 0o444])
def test_an_existing_file_keeps_its_mode(tmp_path, mode):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(mode)
    write(path, b"new")
    assert (path.read_bytes(), mode_of(path)) == (b"new", mode)
    (tmp_path / "finished").write_bytes(b"newer")
    move_file(tmp_path / "finished", path)
    assert (path.read_bytes(), mode_of(path)) == (b"newer", mode)


@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt, SystemExit])
def test_an_error_or_an_interrupt_leaves_everything_as_it_was(tmp_path, error):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail():
        with replace_file(path) as file:
            file.write(b"half of the ne")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failure_at_the_end_leaves_everything_as_it_was(tmp_path, monkeypatch, step):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(atomic.os, step, lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_the_bytes_are_on_the_disk_before_the_move(tmp_path, monkeypatch):
    steps = []
    for step in ("fsync", "replace"):
        original = getattr(os, step)
        monkeypatch.setattr(
            atomic.os, step, lambda *a, s=step, o=original: (steps.append(s), o(*a))
        )
    write(tmp_path / "file", b"new")
    assert steps == ["fsync", "replace"]


def test_a_missing_folder_is_reported(tmp_path):
    with pytest.raises(FileNotFoundError):
        write(tmp_path / "none" / "file", b"new")


def test_writers_at_the_same_time_do_not_mix(tmp_path):
    path = tmp_path / "file"
    parts = [bytes([number]) * 1_000_000 for number in range(8)]
    threads = [threading.Thread(target=write, args=(path, part)) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() in parts
    assert os.listdir(tmp_path) == ["file"]


def test_leftovers_of_a_killed_writer_are_removed(tmp_path):
    path = tmp_path / "file"
    program = (
        "import os, sys\n"
        "from quantal._storage.atomic import folder_beside, replace_file\n"
        "with replace_file(sys.argv[1]) as file, folder_beside(sys.argv[1]) as folder:\n"
        "    (folder / 'part').write_bytes(b'half')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", program, path], check=False)
    assert len(os.listdir(tmp_path)) == 2
    (tmp_path / ".file.backup").write_bytes(b"of the user")
    write(path, b"new")
    assert sorted(os.listdir(tmp_path)) == [".file.backup", "file"]


def test_what_another_writer_writes_is_no_leftover(tmp_path):
    path = tmp_path / "file"
    with folder_beside(path) as folder:
        with replace_file(path) as file:
            file.write(b"first")
            write(path, b"second")
            (folder / "part").write_bytes(b"whole")
        assert path.read_bytes() == b"first"
        assert os.listdir(folder) == ["part"]
    assert os.listdir(tmp_path) == ["file"]


def test_a_link_stays_and_its_file_is_replaced(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "folder" / "file")
    write(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "folder" / "file").read_bytes() == b"new"


def test_links_of_several_files_stay(tmp_path):
    (tmp_path / "folder").mkdir()
    for name in ("a", "b"):
        (tmp_path / name).symlink_to(tmp_path / "folder" / name)
        (tmp_path / f"new {name}").write_bytes(name.encode())
    (tmp_path / "folder" / "a").write_bytes(b"old")
    move_files({tmp_path / f"new {name}": tmp_path / name for name in ("a", "b")})
    for name in ("a", "b"):
        assert (tmp_path / name).is_symlink()
        assert (tmp_path / "folder" / name).read_bytes() == name.encode()
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "folder"]


KILLED_AT_EACH_STEP = """
import itertools, json, os, pathlib, sys
from quantal._storage.atomic import folder_beside, move_files

os.fsync = lambda file: None  # Slow, and no matter where the machine runs on.
STEPS = {"open", "os.rename", "os.remove", "os.link", "os.chmod"}
folder, never_mixed = pathlib.Path(sys.argv[1]), bool(int(sys.argv[2]))

def write(kind, step=-1):
    with folder_beside(folder / "a") as temporary:
        for name in "abc":
            (temporary / name).write_text(kind)
        numbers = itertools.count()
        if step >= 0:
            def kill(event, _):
                if event in STEPS and next(numbers) == step:
                    os.kill(os.getpid(), 9)

            sys.addaudithook(kill)
        move_files({temporary / name: folder / name for name in "cba"}, never_mixed=never_mixed)

def seen():
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}

outcomes = []
for step in range(99):
    write("old")
    process = os.fork()
    if process == 0:
        write("new", step)
        os._exit(0)
    ended = os.waitpid(process, 0)[1]
    outcomes.append([{name: text for name, text in seen().items() if name in "abc"}])
    write("next")
    outcomes[-1].append([seen(), len(list(folder.iterdir()))])
    if ended == 0:
        break
print(json.dumps(outcomes))
"""


@pytest.mark.parametrize("never_mixed", [True, False])
def test_a_writer_of_several_files_is_killed_at_each_step(tmp_path, never_mixed):
    program = [sys.executable, "-c", KILLED_AT_EACH_STEP, tmp_path, str(int(never_mixed))]
    outcomes = json.loads(subprocess.run(program, check=True, capture_output=True).stdout)
    assert 10 < len(outcomes) < 99
    for killed, after_the_next in outcomes:
        assert after_the_next == [dict.fromkeys("abc", "next"), 3]
        if never_mixed:
            assert set(killed.values()) in ({"old"}, {"new"}, set())
        else:
            assert set(killed) == set("abc")
    assert outcomes[-1][0] == dict.fromkeys("abc", "new")


@pytest.mark.parametrize("never_mixed", [True, False])
@pytest.mark.parametrize("fails_at", range(3))
def test_several_files_keep_their_modes_or_stay(tmp_path, monkeypatch, never_mixed, fails_at):
    for number, name in enumerate("abc"):
        (tmp_path / f"new {name}").write_text("new")
        if name != "b":
            (tmp_path / name).write_text("old")
            (tmp_path / name).chmod(0o600 + number)
    files = {tmp_path / f"new {name}": tmp_path / name for name in "abc"}
    calls, replace = itertools.count(), os.replace

    def fail(source, target):
        if next(calls) == fails_at:
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(atomic.os, "replace", fail)
        with pytest.raises(KeyboardInterrupt):
            move_files(files, never_mixed=never_mixed)
    assert not (tmp_path / "b").exists()
    assert [(tmp_path / name).read_text() for name in "ac"] == ["old"] * 2
    assert [mode_of(tmp_path / name) for name in "ac"] == [0o600, 0o602]
    move_files({new: old for new, old in files.items() if new.exists()}, never_mixed=never_mixed)
    assert not [path for path in os.listdir(tmp_path) if path.startswith(".")]
    assert [mode_of(tmp_path / name) for name in "ac"] == [0o600, 0o602]


def test_a_link_to_itself_is_refused(tmp_path):
    (tmp_path / "one").symlink_to(tmp_path / "two")
    (tmp_path / "two").symlink_to(tmp_path / "one")
    with pytest.raises(OSError, match="leads back to itself"):
        write(tmp_path / "one", b"new")
    assert sorted(os.listdir(tmp_path)) == ["one", "two"]


def test_pipes_devices_and_folders_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path / "link", "/dev/null", tmp_path):
        with pytest.raises(IsADirectoryError, match="Expected the path of a file"):
            write(path, b"new")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
