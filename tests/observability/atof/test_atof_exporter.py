"""The ATOF exporter: its file, line by line, whatever happens to the disk, the dispatcher and other writers."""

import asyncio
import json
import os
import signal
import threading

import pytest

import relay_mp
from relay_mp import AtofExporter, AtofExporterConfig, AtofExporterMode, ScopeType, scope, subscribers
from relay_mp._session.membership import current_session

BOTH = pytest.mark.parametrize("session", ["thread", "process"], indirect=True)


def config_for(path, mode=AtofExporterMode.Append):
    config = AtofExporterConfig()
    config.output_directory, config.filename = str(path.parent), path.name
    config.mode = mode
    return config


@pytest.fixture
def path(tmp_path):
    return tmp_path / "out" / "events.jsonl"


@pytest.fixture
def exporter(session, path):
    exporter = AtofExporter(config_for(path))
    exporter.register("file")
    yield exporter
    exporter.shutdown()


def lines(path):
    """The lines of a file of whole lines."""
    text = path.read_text()
    assert text == "" or text.endswith("\n")
    return text.splitlines()


def names(path):
    return [json.loads(line)["name"] for line in lines(path)]


def emit(count, prefix=""):
    for i in range(count):
        scope.event(f"{prefix}{i}")


# ---- what it writes ----


@BOTH
def test_without_origin_lines_are_the_events_canonical_json_to_the_byte(session, path):
    copies = path.parent / "copies"
    config = config_for(path)
    config.origin = False
    exporter = AtofExporter(config)
    exporter.register("file")
    subscribers.register("copies", "test_atof_exporter:Copies", arguments={"path": str(copies)})
    with scope.scope(
        "s", ScopeType.Tool, input={"b": [1, None, 2.5], "a": "ü\u2028\n"}, metadata={"m": {"z": 1, "y": 2}}
    ):
        scope.event("m", data=(1, 2, {"k": {3}}), data_schema={"name": "n", "version": "1"})
    exporter.force_flush()
    assert lines_exactly(path) == lines_exactly(copies)
    assert [list(json.loads(line)) for line in lines_exactly(path)] == [
        sorted(json.loads(line)) for line in lines_exactly(path)
    ]
    assert all(json.loads(line)["atof_version"] == "0.1" for line in lines_exactly(path))


def lines_exactly(path):
    return path.read_bytes().decode().split("\n")[:-1]


class Copies:
    """Writes what to_json gives, for comparison."""

    def __init__(self, path):
        self._path = path

    def __call__(self, event):
        with open(self._path, "a", newline="\n") as file:
            file.write(event.to_json() + "\n")


@BOTH
def test_it_writes_from_registration_to_deregistration(session, path):
    exporter = AtofExporter(config_for(path))
    emit(3, "before ")
    exporter.register("file")
    emit(3)
    assert exporter.deregister("file") is True
    assert exporter.deregister("file") is False
    assert exporter.deregister("other") is False
    emit(3, "after ")
    exporter.shutdown()
    assert names(path) == ["0", "1", "2"]


@BOTH
def test_force_flush_has_everything_in_the_file(session, exporter, path):
    emit(500)
    exporter.force_flush()
    assert names(path) == [f"{i}" for i in range(500)]
    assert exporter.path == str(path)


@BOTH
def test_shutdown_is_idempotent_and_final(session, path):
    exporter = AtofExporter(config_for(path))
    exporter.register("file")
    emit(5)
    exporter.shutdown()
    exporter.shutdown()
    emit(5, "after ")
    assert names(path) == [f"{i}" for i in range(5)]
    with pytest.raises(relay_mp.SubscriberError, match=f"this exporter of {path} is shut down; make another one"):
        exporter.register("file")


@BOTH
def test_a_file_is_free_again_after_a_shutdown(session, path):
    for n in range(3):
        exporter = AtofExporter(config_for(path))
        exporter.register("file")
        emit(1, f"{n} ")
        exporter.shutdown()
    assert names(path) == ["0 0", "1 0", "2 0"]


def test_an_exporter_registers_again_after_deregistering(session, path):
    exporter = AtofExporter(config_for(path))
    for n in range(2):
        exporter.register("file")
        with pytest.raises(relay_mp.SubscriberError, match="is registered as 'file'; make another one"):
            exporter.register("again")
        emit(1, f"{n} ")
        exporter.deregister("file")
    exporter.shutdown()
    assert names(path) == ["0 0", "1 0"]


def test_shutdown_in_a_running_event_loop_loses_nothing(session, path):
    async def main():
        exporter = AtofExporter(config_for(path))
        exporter.register("file")
        emit(100)
        exporter.shutdown()

    asyncio.run(main())
    assert len(names(path)) == 100


def test_shutdown_after_the_session_has_everything(path):
    with relay_mp.session():
        exporter = AtofExporter(config_for(path))
        exporter.register("file")
        emit(10)
    exporter.shutdown()
    assert len(names(path)) == 10


def test_a_name_that_is_taken_leaves_no_file_open(session, path):
    subscribers.register("file", id)
    with pytest.raises(relay_mp.SubscriberError, match="already registered"):
        AtofExporter(config_for(path)).register("file")
    other = AtofExporter(config_for(path))
    other.register("other")
    other.shutdown()


@pytest.mark.parametrize("dispatcher", ["thread", "process"])
def test_it_starts_a_default_session(run_script, tmp_path, dispatcher):
    out = run_script(
        """
import sys
import relay_mp
from relay_mp import scope
config = relay_mp.AtofExporterConfig()
config.output_directory = sys.argv[1]
exporter = relay_mp.AtofExporter(config)
exporter.register("file")
for i in range(10):
    scope.event(f"{i}")
exporter.shutdown()
print(exporter.path)
""",
        tmp_path,
        environment={"RELAY_MP_DISPATCHER": dispatcher},
    ).stdout
    (file,) = tmp_path.iterdir()
    assert str(file) == out.strip()
    assert names(file) == [f"{i}" for i in range(10)]


@BOTH
def test_a_worker_may_have_one(session, path, run_script):
    run_script(
        """
import sys
import relay_mp
from relay_mp import scope
config = relay_mp.AtofExporterConfig()
assert relay_mp.attach(sys.argv[3]).id in config.filename
config.output_directory, config.filename = sys.argv[1:3]
exporter = relay_mp.AtofExporter(config)
exporter.register("file")
scope.event("m")
exporter.shutdown()
scope.event("after")
""",
        path.parent,
        path.name,
        session.path,
    )
    assert names(path) == ["m"]


# ---- which file ----


def test_the_default_name_has_the_sessions_id(session, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = AtofExporterConfig()
    assert config.filename == f"relay-mp-events-{session.id}.jsonl"
    assert config.output_directory == str(tmp_path)
    assert (config.mode, config.sink_type) == (AtofExporterMode.Append, "file")


def test_the_default_name_is_the_coming_sessions(tmp_path, monkeypatch):
    config = AtofExporterConfig()
    assert current_session() is None
    with relay_mp.session() as session:
        assert config.filename == f"relay-mp-events-{session.id}.jsonl"


@BOTH
def test_append_keeps_what_is_there(session, path):
    path.parent.mkdir()
    path.write_text('{"earlier": 1}\n')
    exporter = AtofExporter(config_for(path))
    exporter.register("file")
    emit(1)
    exporter.shutdown()
    assert [json.loads(line).get("earlier") for line in lines(path)] == [1, None]


@BOTH
def test_an_overwrite_that_was_asked_for_empties_the_file_without_a_warning(session, path, caplog):
    path.parent.mkdir()
    path.write_text('{"earlier": 1}\n')
    exporter = AtofExporter(config_for(path, AtofExporterMode.Overwrite))
    exporter.register("file")
    emit(1)
    exporter.shutdown()
    assert names(path) == ["0"]
    assert caplog.records == []


@BOTH
@pytest.mark.parametrize("mode", AtofExporterMode)
def test_a_second_writer_of_the_file_is_refused_and_harms_nothing(session, exporter, path, mode, run_script):
    emit(3)
    exporter.force_flush()
    names(path)  # reading it, and closing it again, does not give it up
    with pytest.raises(FileExistsError, match="is being written by another process or exporter"):
        AtofExporter(config_for(path, mode)).register("second")
    out = run_script(
        """
import sys
import relay_mp
config = relay_mp.AtofExporterConfig()
config.output_directory, config.filename = sys.argv[1:3]
config.mode = relay_mp.AtofExporterMode[sys.argv[3]]
try:
    relay_mp.AtofExporter(config).register("x")
except FileExistsError as error:
    print(error)
""",
        path.parent,
        path.name,
        mode.name,
        environment={"RELAY_MP_SESSION": ""},
    ).stdout
    assert f"{path} is being written by another process or exporter; give each run a file of its own" in out
    emit(3, "more ")
    exporter.force_flush()
    assert names(path) == ["0", "1", "2", "more 0", "more 1", "more 2"]


def test_a_forked_worker_does_not_hold_the_file(run_script, path):
    out = run_script(
        """
import os, signal, sys
import relay_mp
config = relay_mp.AtofExporterConfig()
config.output_directory, config.filename = sys.argv[1:3]
def register():
    exporter = relay_mp.AtofExporter(config)
    exporter.register("x")
    return exporter
exporter = register()
ready, go = os.pipe(), os.pipe()
pid = os.fork()
if pid == 0:
    os.write(ready[1], b"x")
    os.read(go[0], 1)
    os._exit(0)
os.read(ready[0], 1)
fds = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
print(exporter.path in fds)
exporter.shutdown()
register().shutdown()
os.write(go[1], b"x")
os.wait()
""",
        path.parent,
        path.name,
    ).stdout
    assert out == "False\n"


# ---- whole lines ----


@pytest.mark.parametrize(
    ("left", "kept"),
    [
        ('{"a": 1}\n{"atof_version":"0.1","na', '{"a": 1}\n'),
        ('{"atof_version":"0.1","na', ""),
        ('{"a": 1}\n{"a', '{"a": 1}\n'),
        ('{"a": 1}', '{"a": 1}\n'),
        ('{"a": "' + "x" * 100_000 + '"}\n{', '{"a": "' + "x" * 100_000 + '"}\n'),
    ],
)
def test_half_a_line_of_a_killed_writer_is_cut_off(session, path, left, kept):
    path.parent.mkdir()
    path.write_text(left)
    exporter = AtofExporter(config_for(path))
    exporter.register("file")
    emit(1)
    exporter.shutdown()
    assert path.read_text().startswith(kept)
    assert json.loads(path.read_text()[len(kept) :])["name"] == "0"


def test_a_file_that_is_something_else_is_refused_and_kept(session, path):
    path.parent.mkdir()
    path.write_text("dear diary")
    with pytest.raises(
        OSError, match="ends in a line that is not an event: b'dear diary'; give each run a file of its own"
    ):
        AtofExporter(config_for(path)).register("file")
    assert path.read_text() == "dear diary"


@BOTH
def test_a_full_disk_is_counted_and_leaves_whole_lines(session, small_disk, capfd):
    path = small_disk / "events.jsonl"
    exporter = AtofExporter(config_for(path))
    exporter.register("file")
    emit(1000)
    exporter.force_flush()
    written = names(path)
    assert written == [f"{i}" for i in range(len(written))]
    assert 0 < len(written) < 1000
    assert session.stats().subscriber_errors == 1000 - len(written)
    assert session.stats().lost == 0
    exporter.shutdown()
    capfd.readouterr()


@pytest.mark.parametrize("session", ["process"], indirect=True)
def test_after_the_dispatcher_was_killed_the_file_goes_on_with_whole_lines(session, exporter, path):
    for n in range(3):
        emit(300, f"{n} ")
        os.kill(session._segment.lease()[1], signal.SIGKILL)
        emit(300, f"{n} and ")
        exporter.force_flush()
    expected = [f"{n} {part}{i}" for n in range(3) for part in ("", "and ") for i in range(300)]
    assert names(path) == expected


# ---- configuration ----


@pytest.mark.parametrize(
    ("field", "value", "error", "said"),
    [
        ("mode", "append", TypeError, r"mode is 'append'; expected AtofExporterMode\.Append or \.Overwrite"),
        ("sink_type", "socket", ValueError, "sink_type is 'socket'; expected 'file' or 'stream'"),
        ("sink_type", "stream", ValueError, "url is ''; a stream sink needs one that begins with http"),
        ("fsync", "sometimes", ValueError, "fsync is 'sometimes'; expected one of 'never', 'flush', 'always'"),
        ("rotate_bytes", -1, ValueError, "rotate_bytes is -1; expected at least 0"),
        ("rotate_bytes", "1M", TypeError, "rotate_bytes is a str; expected int"),
        ("output_directory", None, TypeError, "expected str"),
        ("filename", 3, TypeError, "expected str"),
        ("filename", "", ValueError, "filename is ''"),
    ],
)
def test_a_wrong_configuration_is_refused(field, value, error, said):
    config = AtofExporterConfig()
    setattr(config, field, value)
    with pytest.raises(error, match=said):
        AtofExporter(config)


def test_what_is_no_configuration_is_refused():
    with pytest.raises(TypeError, match="config is a dict; expected AtofExporterConfig"):
        AtofExporter({})


def test_later_changes_to_the_configuration_have_no_effect(session, path):
    config = config_for(path)
    exporter = AtofExporter(config)
    config.filename = "other"
    exporter.register("file")
    exporter.shutdown()
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_directory_that_cannot_be_made_is_the_callers_error(session, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        AtofExporter(config_for(tmp_path / "file" / "events.jsonl")).register("x")
    assert session._segment.subscribers == 0


def test_two_exporters_of_two_files_have_the_same_lines(session, exporter, path, tmp_path):
    other = AtofExporter(config_for(tmp_path / "other.jsonl"))
    other.register("other")
    threads = [threading.Thread(target=emit, args=(100, f"{n} ")) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.shutdown()
    assert path.read_bytes() == (tmp_path / "other.jsonl").read_bytes()
