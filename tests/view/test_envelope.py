"""The envelope of a line is what a reader of the whole line finds, whatever its payloads hold."""

import json
import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recorded import ORIGIN, answer, error, line, scope_lines

from relay_mp import AtofExporter, AtofExporterConfig, ScopeType, scope
from relay_mp._runs.reading import event_of_line
from relay_mp.types import CATEGORIES
from relay_mp.view import envelope as reader
from relay_mp.view.envelope import END, MARK, MARK_KIND, START, envelope

names = st.sampled_from(["work", "relay_mp.loss", 'a "quoted" name', "ein Löwe", ',"kind":"', "", "back\\slash"])
leaves = st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.text(max_size=8), names)
fake = line("end", 9, 5, name="fake", category="llm", metadata=error())


def nested(inner):
    keys = st.sampled_from(["kind", "metadata", "name", "uuid", "timestamp", "data", "parent_uuid", ORIGIN, "causes"])
    return st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=4))


payloads = st.recursive(st.one_of(leaves, st.just(fake), st.just(json.loads(fake))), nested, max_leaves=8)
metadatas = st.one_of(st.none(), st.dictionaries(st.text(max_size=5), payloads, max_size=2), st.just(error()), payloads)


@given(
    kind=st.sampled_from(["start", "end", "mark"]), name=names, category=st.sampled_from(CATEGORIES), data=payloads,
    metadata=metadatas, profile=payloads, parent=st.one_of(st.none(), st.just(4)), pid=st.one_of(st.none(), st.just(7)),
)  # fmt: skip
def test_what_is_cut_out_of_a_line_is_what_is_parsed(kind, name, category, data, metadata, profile, parent, pid):
    if not isinstance(metadata, dict) and pid is not None:
        metadata = None
    if category == "llm":
        profile = None  # its usage has tests of its own
    text = line(
        kind, 3, 12_000_345, name=name, category=category, parent=parent, pid=pid, metadata=metadata, data=data,
        category_profile=profile,
    )  # fmt: skip
    text = text.replace('Z","uuid"', '+00:00","uuid"').encode()
    assert envelope(text + b"\n") == reader._of_event(event_of_line(text))


def test_lines_of_the_exporter_are_not_parsed_as_a_whole(session, tmp_path, monkeypatch):
    exporter = AtofExporter(AtofExporterConfig(output_directory=tmp_path, filename="events.jsonl"))
    exporter.register("file")
    with scope.scope("ask", ScopeType.Agent, input={"question": '","kind":"'}) as handle:
        scope.event("thought")
    exporter.shutdown()
    monkeypatch.setattr(reader, "event_of_line", lambda found: pytest.fail(f"parsed as a whole: {found}"))
    lines = (tmp_path / "events.jsonl").read_bytes().splitlines(keepends=True)
    start, mark, end = map(envelope, lines)
    assert [each.phase for each in (start, mark, end)] == [START, MARK, END]
    assert start.uuid == end.uuid == mark.parent == handle.uuid.encode()
    assert (start.name, start.kind, mark.kind) == (b"ask", CATEGORIES.index("agent"), MARK_KIND)
    assert start.time_us < mark.time_us <= end.time_us
    assert start.pid == end.pid == os.getpid()
    assert start.thread_id == threading.get_native_id()


def test_an_exception_is_an_error():
    plain, failed = (envelope(scope_lines(1, 0, 5, metadata=metadata)[1].encode()) for metadata in (None, error()))
    assert (plain.is_error, failed.is_error) == (False, True)


@pytest.mark.parametrize("profile", [None, {"annotated_response": {"usage": {
    "prompt_tokens": 120, "completion_tokens": 8, "cost": {"total": 0.002, "currency": "USD"}}}}])  # fmt: skip
def test_a_call_s_tokens_and_cost_come_from_its_profile_or_else_its_answer(profile):
    data = answer(120, 8, 0.002)
    end = envelope(line("end", 1, 5, category="llm", data=data, category_profile=profile).encode())
    assert (end.read_tokens, end.written_tokens, end.cost) == (120, 8, 0.002)


def test_a_loss_says_how_many():
    data = {"pid": 7, "lost": 5, "causes": {"full": 3, "too_big": 2}}
    assert envelope(line("mark", 1, 5, name="relay_mp.loss", data=data).encode()).lost == 5


@pytest.mark.parametrize("text", ["", "hello", "[]", '{"kind":"scope"}', line("start", 1, 5)[:-9], "\xff"])
def test_what_is_no_event_is_refused(text):
    with pytest.raises(ValueError):
        envelope(text.encode("latin-1"))
