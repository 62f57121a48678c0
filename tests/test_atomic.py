"""Files are replaced as a whole or not at all."""

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
