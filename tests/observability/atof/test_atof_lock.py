"""Who holds the lock of a file, and what others can do about it; and files that others rotate."""

import fcntl
import json
import os
import shutil

import pytest

import relay_mp
from relay_mp import scope, subscribers
from relay_mp._deliver.file_lock import FileLock
from relay_mp._deliver.jsonl import JsonlFile
from relay_mp.observability.perfetto.trace_file import TraceFile


def exporter(path, **settings):
    config = relay_mp.AtofExporterConfig()
    config.output_directory, config.filename = path.parent, path.name
    for name, value in settings.items():
        setattr(config, name, value)
    return relay_mp.AtofExporter(config)


@pytest.mark.parametrize("make", [JsonlFile, lambda path: TraceFile(path, "s", "overwrite")])
def test_a_readers_lock_of_the_file_keeps_no_writer_from_it(tmp_path, make):
    path = tmp_path / "file"
    path.touch(0o644)
    with open(path, "rb") as reader:
        fcntl.flock(reader, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file = make(str(path))
        lock = tmp_path / ".file.lock"
        assert oct(lock.stat().st_mode & 0o777) == "0o600"
        with pytest.raises(FileExistsError, match=f"another process or exporter; .* the end of process {os.getpid()}$"):
            make(str(path))
        file.close()
        make(str(path)).close()
    assert not lock.exists()


def test_a_lock_left_by_a_killed_writer_is_taken_over(tmp_path):
    FileLock(str(tmp_path / "file")).abandon()
    assert (tmp_path / ".file.lock").exists()
    FileLock(str(tmp_path / "file")).release()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_its_holder_removes_meanwhile_is_not_taken_for_the_next(tmp_path, monkeypatch):
    held = FileLock(str(tmp_path / "file"))
    flock = fcntl.flock

    def release_first(file, how):
        monkeypatch.undo()
        held.release()
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", release_first)
    lock = FileLock(str(tmp_path / "file"))
    with pytest.raises(FileExistsError):
        FileLock(str(tmp_path / "file"))
    lock.release()


@pytest.mark.parametrize("mode", [0o644, 0o660])
def test_a_lock_in_which_others_may_have_a_hand_is_refused(tmp_path, mode):
    (tmp_path / ".file.lock").touch()
    (tmp_path / ".file.lock").chmod(mode)
    with pytest.raises(PermissionError, match="another user's, or of another mode than 0600; .* remove it if nobody"):
        FileLock(str(tmp_path / "file"))


def test_where_no_file_can_be_made_the_file_itself_is_locked(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(os, "access", lambda *_: False)
    lock = FileLock(str(tmp_path / "file"))
    with pytest.raises(FileExistsError):
        FileLock(str(tmp_path / "file"))
    lock.release()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_by_a_link_it_is_the_same_file(tmp_path):
    os.symlink(tmp_path / "file", tmp_path / "link")
    lock = FileLock(str(tmp_path / "file"))
    with pytest.raises(FileExistsError):
        FileLock(str(tmp_path / "link"))
    lock.release()


@pytest.mark.parametrize("rotate_bytes", [0, 20_000])
@pytest.mark.parametrize("way", ["create", "copytruncate"])
def test_a_file_that_others_rotate_loses_no_line(session, tmp_path, way, rotate_bytes):
    """As logrotate does it: the file is moved and made anew, or copied and emptied."""
    path = tmp_path / "events.jsonl"
    exporter(path, rotate_bytes=rotate_bytes).register("file")
    for number in range(2000):
        scope.event("e", data=number)
        if number % 400 == 399:
            subscribers.flush()
            aside = tmp_path / f"aside-{number}.jsonl"
            if way == "create":
                path.rename(aside)
                path.touch()
            else:
                shutil.copy(path, aside)
                os.truncate(path, 0)
    subscribers.flush()
    session.close()
    numbers = [json.loads(line)["data"] for file in tmp_path.iterdir() for line in file.read_bytes().splitlines()]
    assert sorted(numbers) == list(range(2000))
    assert session.stats().exporters["file"].exported == 2000
