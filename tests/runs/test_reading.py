"""Recorded files are read as they are: with and without who has emitted, rotated, compressed, damaged."""

import gzip
import json
import os

import pytest
from recorded import line, scope_lines, uuid

import relay_mp
from relay_mp import scope
from relay_mp._runs.files import whole_set
from relay_mp._runs.reading import MAX_BAD_LINES_KEPT, Recording, event_of_line, recorded
from relay_mp._runs.records import event_of
from relay_mp.errors import RecordError


def write(path, lines):
    path.write_text("".join(f"{each}\n" for each in lines), encoding="utf-8")
    return str(path)


def test_an_event_has_its_fields_and_its_emitter(tmp_path):
    path = write(tmp_path / "events.jsonl", [line("start", 1, 5, name="run", category="agent", metadata={"k": 1})])
    [event] = Recording([path])
    assert (event.kind, event.uuid, event.name, event.category) == ("start", uuid(1), "run", "agent")
    assert (event.pid, event.thread_id, event.seq, event.session) == (7, 7, 5, "1-2-3-4")
    assert event.timestamp_us == 1767225600_000005
    assert event.fields["metadata"] == {"k": 1}


def test_an_event_without_origin_has_no_emitter():
    event = event_of_line(line("mark", 1, 5, pid=None))
    assert (event.pid, event.seq, event.session, event.category) == (None, None, None, None)


def test_a_timestamp_may_be_microseconds():
    fields = json.loads(line("mark", 1, 5)) | {"timestamp": 1767225600_000005}
    assert event_of_line(json.dumps(fields)).timestamp_us == 1767225600_000005


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("{", "not JSON"),
        ("[]", "expected an object, found list"),
        ("{}", "'kind' is None"),
        ('{"kind":"scope","uuid":"u","name":"n"}', "'scope_category' is None; expected 'start' or 'end'"),
        ('{"kind":"mark","name":"n"}', "'uuid' is None; expected a text"),
        ('{"kind":"mark","uuid":"u","name":"n","timestamp":"soon"}', "'timestamp' is 'soon'"),
        ('{"kind":"mark","uuid":"u","name":"n","timestamp":"2026-01-01T00:00:00"}', "RFC 3339 with a time zone"),
        ("[" * 100_000, "nested too deep"),
        ("\udc80", "not UTF-8"),
    ],
)  # fmt: skip
def test_a_line_that_is_not_an_event_is_counted_and_said(tmp_path, bad, why):
    path = tmp_path / "events.jsonl"
    path.write_text(f"{line('mark', 1, 1)}\n{bad}\n{line('mark', 2, 2)}\n", encoding="utf-8", errors="surrogateescape")
    recording = Recording([str(path)])
    assert [event.uuid for event in recording] == [uuid(1), uuid(2)]
    assert recording.bad.count == 1
    assert recording.bad.first[0].startswith(f"{path}:2: ")
    assert why in recording.bad.first[0]


def test_bad_lines_are_all_counted_and_the_first_are_kept(tmp_path):
    recording = Recording([write(tmp_path / "events.jsonl", ["x"] * (MAX_BAD_LINES_KEPT + 1))])
    assert list(recording) == []
    assert (recording.bad.count, len(recording.bad.first)) == (MAX_BAD_LINES_KEPT + 1, MAX_BAD_LINES_KEPT)
    assert list(recording) == []
    assert recording.bad.count == MAX_BAD_LINES_KEPT + 1


def test_rotated_files_come_before_the_one_that_is_written(tmp_path):
    names = ["events-aa-1.0002.jsonl", "events-aa-1.0001.jsonl", "events.jsonl", "events-bb-1.0001.jsonl"]
    for age, name in enumerate(names):
        write(tmp_path / name, [line("mark", age, age)])
        os.utime(tmp_path / name, (age, age))
    write(tmp_path / "events-other.jsonl", [])
    found = whole_set([str(tmp_path / "events.jsonl"), str(tmp_path / "events-bb-1.0001.jsonl")])
    expected = ["events-aa-1.0001.jsonl", "events-aa-1.0002.jsonl", "events-bb-1.0001.jsonl", "events.jsonl"]
    assert found == [str(tmp_path / name) for name in expected]


def test_what_the_exporter_puts_aside_is_read_back_whole(tmp_path, session):
    config = relay_mp.AtofExporterConfig(output_directory=tmp_path, filename="events.jsonl", rotate_bytes=2000)
    exporter = relay_mp.AtofExporter(config)
    exporter.register("file")
    for number in range(20):
        scope.event("step", data={"number": number})
    exporter.shutdown()
    recording = Recording([str(tmp_path / "events.jsonl")])
    assert len(recording.paths) > 2
    assert [event.fields["data"]["number"] for event in recording] == list(range(20))


def test_compressed_files_are_read_whatever_they_are_called(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_bytes(gzip.compress(f"{line('mark', 1, 1)}\n".encode()))
    assert [event.uuid for event in Recording([str(path)])] == [uuid(1)]


def test_a_compressed_file_that_is_cut_off_gives_what_is_there(tmp_path):
    whole = gzip.compress("".join(f"{line('mark', number, number)}\n" for number in range(500)).encode())
    path = tmp_path / "events.jsonl.gz"
    path.write_bytes(whole[: len(whole) // 2])
    recording = Recording([str(path)])
    assert 0 < len(list(recording)) < 500
    assert "the compressed file ends in the middle" in recording.bad.first[-1]


def test_progress_is_told_in_bytes_and_events(tmp_path):
    told = []
    recording = Recording(
        [write(tmp_path / "events.jsonl", [line("mark", number, number) for number in range(5000)])],
        on_progress=lambda done, events: told.append((done, events)),
    )
    assert len(list(recording)) == 5000
    assert [events for _, events in told] == [2048, 4096]
    assert 0 < told[0][0] <= told[1][0] <= recording.size_bytes


def test_events_are_rebuilt_to_the_byte(tmp_path, session):
    """Export and read back: what the exporters would be given again is what they were given."""
    config = relay_mp.AtofExporterConfig(output_directory=tmp_path, filename="events.jsonl")
    exporter = relay_mp.AtofExporter(config)
    exporter.register("file")
    with scope.scope("run", relay_mp.ScopeType.Agent, input={"b": [1, 2.5, None], "a": "ä"}, metadata={"k": True}):
        scope.event("step", data=[1, {"x": "y"}])
    exporter.shutdown()
    path = tmp_path / "events.jsonl"
    for text, event in zip(path.read_text(encoding="utf-8").splitlines(), Recording([str(path)]), strict=True):
        rebuilt = event_of(event)
        assert (rebuilt.seq, rebuilt.pid, rebuilt.thread_id) == (event.seq, event.pid, event.thread_id)
        assert rebuilt._dict_with_origin(event.session) == json.loads(text)
        assert recorded(rebuilt, event.session) == event


def test_an_event_that_fits_no_record_is_an_error():
    event = event_of_line(line("mark", 1, 5, uuid="not one"))
    with pytest.raises(RecordError, match="'work' cannot be a record"):
        event_of(event)


def test_scope_lines_are_a_start_and_an_end():
    assert [event_of_line(each).kind for each in scope_lines(1, 0, 5)] == ["start", "end"]
