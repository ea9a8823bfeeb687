"""ATOF files beyond the plain one: rotation, fsync, several at once, a directory that is removed."""

import json
import os
import shutil
import signal

import named_subscribers
import pytest

from relay_mp import AtofExporter, AtofExporterConfig, scope, subscribers

BOTH = pytest.mark.parametrize("session", ["thread", "process"], indirect=True)


def config_for(directory, **settings):
    config = AtofExporterConfig()
    config.output_directory, config.filename = str(directory), "events.jsonl"
    for name, value in settings.items():
        setattr(config, name, value)
    return config


def names(path):
    text = path.read_text()
    assert text == "" or text.endswith("\n")
    return [json.loads(line)["name"] for line in text.splitlines()]


def emit(count, prefix=""):
    for i in range(count):
        scope.event(f"{prefix}{i}")


def all_names(directory):
    """Of the files put aside, in order, then of the current one."""
    return [name for path in sorted(directory.glob("events-*.jsonl")) for name in names(path)] + names(
        directory / "events.jsonl"
    )


@BOTH
def test_files_are_rotated_by_size_with_the_sessions_id_in_the_name(session, tmp_path):
    exporter = AtofExporter(config_for(tmp_path, rotate_bytes=2000))
    exporter.register("file")
    emit(100)
    exporter.shutdown()
    aside = sorted(path.name for path in tmp_path.glob("events-*.jsonl"))
    assert aside == [f"events-{session.id}.{n:04d}.jsonl" for n in range(1, len(aside) + 1)]
    assert len(aside) > 5
    assert all_names(tmp_path) == [str(i) for i in range(100)]
    sizes = [path.stat().st_size for path in tmp_path.glob("events-*.jsonl")]
    assert min(sizes) >= 2000
    assert max(sizes) < 2000 + 300  # one line more
    assert session.stats().exporters["file"].exported == 100


def test_the_oldest_files_go_when_so_many_are_kept(session, tmp_path):
    exporter = AtofExporter(config_for(tmp_path, rotate_bytes=1000, rotated_files=2))
    exporter.register("file")
    emit(50)
    exporter.shutdown()
    assert len(list(tmp_path.glob("events-*.jsonl"))) == 2
    kept = all_names(tmp_path)
    assert kept == [str(i) for i in range(50)][-len(kept) :]


@pytest.mark.parametrize("session", ["process"], indirect=True)
def test_rotation_goes_on_after_the_dispatcher_was_killed(session, tmp_path):
    exporter = AtofExporter(config_for(tmp_path, rotate_bytes=1500))
    exporter.register("file")
    for n in range(3):
        emit(60, f"{n} ")
        os.kill(session._segment.lease()[1], signal.SIGKILL)
        emit(60, f"{n} and ")
        exporter.force_flush()
    exporter.shutdown()
    assert all_names(tmp_path) == [f"{n} {part}{i}" for n in range(3) for part in ("", "and ") for i in range(60)]
    report = session.stats().exporters["file"]
    assert (report.exported, report.lost) == (360, 0)


@pytest.mark.parametrize("session", ["process"], indirect=True)
@pytest.mark.parametrize("dies_first", [True, False])
def test_an_event_that_is_delivered_again_is_counted_once(session, tmp_path, dies_first):
    """The dispatcher dies of it before the file has its line, or after."""
    exporter = AtofExporter(config_for(tmp_path))
    arguments = {"path": str(tmp_path / "seen")}
    if not dies_first:
        exporter.register("file")
    subscribers.register("dies", "named_subscribers:Dies", arguments=arguments)
    if dies_first:
        exporter.register("file")
    emit(5)
    scope.event("die")
    emit(5)
    exporter.force_flush()
    subscribers.deregister("dies")
    exporter.shutdown()
    assert [fields[0] for fields in named_subscribers.read(tmp_path / "seen")].count("die") == 2
    assert all_names(tmp_path) == [*"01234", "die", *"01234"]
    report = session.stats().exporters["file"]
    assert (report.taken, report.exported, report.lost) == (11, 11, 0)


@pytest.mark.parametrize(("policy", "least"), [("never", 0), ("flush", 1), ("always", 20)])
def test_fsync_is_as_often_as_was_said(session, tmp_path, monkeypatch, policy, least):
    calls = []
    monkeypatch.setattr(os, "fsync", calls.append)
    exporter = AtofExporter(config_for(tmp_path, fsync=policy))
    exporter.register("file")
    emit(20)
    exporter.force_flush()
    assert (len(calls) >= least) if least else calls == []
    assert len(calls) < 20 or policy == "always"
    exporter.shutdown()


@BOTH
def test_of_several_sinks_each_has_every_line(session, tmp_path):
    exporter = AtofExporter([config_for(tmp_path / str(n)) for n in range(3)])
    exporter.register("file")
    emit(30)
    assert set(exporter.report()) == {"file", "file.2", "file.3"}
    exporter.shutdown()
    for n in range(3):
        assert names(tmp_path / str(n) / "events.jsonl") == [str(i) for i in range(30)]


@BOTH
def test_one_sink_that_fails_stops_no_other(session, tmp_path, capfd):
    """Rotation of the second cannot rename: its directory is gone."""
    first, second = tmp_path / "1", tmp_path / "2"
    exporter = AtofExporter([config_for(first), config_for(second, rotate_bytes=200)])
    exporter.register("file")
    emit(1)
    exporter.force_flush()
    shutil.rmtree(second)
    second.write_text("in the way")
    emit(20, "more ")
    exporter.force_flush()
    assert len(names(first / "events.jsonl")) == 21
    reports = session.stats().exporters
    assert (reports["file"].exported, reports["file"].dropped) == (21, 0)
    assert reports["file.2"].state == "failing"
    assert reports["file.2"].dropped + reports["file.2"].exported == 21
    assert reports["file.2"].drops["unwritten"] == session.stats().subscriber_errors == 20
    exporter.shutdown()
    session.close()
    capfd.readouterr()


@BOTH
@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_file_that_is_moved_keeps_its_lines_and_a_new_one_is_made(session, tmp_path, is_replaced):
    path, moved = tmp_path / "events.jsonl", tmp_path / "moved.jsonl"
    AtofExporter(config_for(tmp_path, rotate_bytes=20_000)).register("file")
    for number in range(10):
        scope.event("e", data=number)
    subscribers.flush()
    path.rename(moved)
    if is_replaced:
        path.write_text("")  # as logrotate makes one
    for number in range(10, 1000):
        scope.event("e", data=number)
        if number % 100 == 0:
            subscribers.flush()
    subscribers.flush()
    files = [file for file in tmp_path.iterdir() if file.suffix != ".lock"]
    written = [json.loads(line)["data"] for file in files for line in file.read_text().splitlines()]
    assert sorted(written) == list(range(1000))
    assert session.stats().exporters["file"].drops == {}
    assert path.exists()


def test_a_directory_that_is_removed_is_made_anew_and_what_went_with_it_is_counted(session, tmp_path, capfd):
    directory = tmp_path / "out"
    exporter = AtofExporter(config_for(directory))
    exporter.register("file")
    emit(5)
    exporter.force_flush()
    shutil.rmtree(directory)
    emit(1000, "later ")
    exporter.force_flush()
    written = names(directory / "events.jsonl")
    report = session.stats().exporters["file"]
    assert written == [f"later {i}" for i in range(1000 - len(written), 1000)]
    assert len(written) >= 1000 - 256
    assert report.taken == report.exported + report.dropped == 1005
    assert report.drops["removed"] >= 1000 - len(written)
    assert session.stats().lost == session.stats().subscriber_errors == 0
    exporter.shutdown()
    session.close()
    capfd.readouterr()
