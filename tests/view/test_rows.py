"""The columns: what a reader gets is their state, whenever it comes; at the bound the oldest go, open ones stay."""

import gzip
import math
import os
import time
from array import array

import pytest
from recorded import error, line, scope_lines, uuid

from relay_mp import ScopeType, scope, subscribers
from relay_mp.cli import view as relay_mp_view
from relay_mp.view.envelope import envelope
from relay_mp.view.payloads import CHUNK_BYTES, FilePayloads, KeptPayloads
from relay_mp.view.rows import COLUMNS, FAILED, NO_START, Cursor, Rows
from relay_mp.view.search import search
from relay_mp.view.sources import add_files


def taken(rows, run, lines, payloads=None):
    rows.take(
        run, [(envelope(each.encode()), payloads.keep(f"{each}\n".encode()) if payloads else 0) for each in lines]
    )


@pytest.fixture
def rows():
    return Rows()


@pytest.fixture
def run(rows):
    return rows.add_run("run", KeptPayloads())


def column(batch, name, kind="columns"):
    return array(COLUMNS[name], getattr(batch, kind)[name]).tolist()


def test_rows_have_parents_names_tracks_and_ends(rows, run):
    lines = [line("start", 1, 0, name="a", pid=5), *scope_lines(2, 10, 20, name="b", parent=1, pid=6, metadata=error())]
    taken(rows, run, [*lines, line("mark", 3, 15, name="m", parent=2, pid=None), line("end", 1, 30, name="a", pid=5)])
    batch = rows.since(Cursor(), 100)
    assert (batch.first, batch.restart, batch.names) == (0, True, ["a", "b", "m"])
    assert column(batch, "parent") == [-1, 0, 1]
    assert column(batch, "track") == [0, 1, 1]  # a mark without a process is where its parent is
    assert batch.tracks[:2] == [(0, 5, 5), (0, 6, 6)]
    start, end = column(batch, "start"), column(batch, "end")
    assert [e - s for s, e in zip(start, end, strict=True)] == [30, 10, 0]
    assert column(batch, "flags") == [0, FAILED, 0]


def test_a_reader_hears_of_a_row_when_it_begins_and_when_it_ends(rows, run):
    cursor = Cursor()
    taken(rows, run, [line("start", 1, 0), line("start", 2, 5)])
    assert all(map(math.isnan, column(rows.since(cursor, 100), "end")))
    assert not rows.since(cursor, 100)
    taken(rows, run, [line("end", 2, 9, metadata=error())])
    batch = rows.since(cursor, 100)
    assert array("I", batch.ended["row"]).tolist() == [1]
    assert column(batch, "flags", "ended") == [FAILED]
    assert not batch.columns


def test_a_reader_that_comes_late_gets_the_same_rows(rows, run):
    early, late = Cursor(), Cursor()
    lines = [each for number in range(1, 50) for each in scope_lines(number, number * 10, number * 10 + 5)]
    for each in lines:
        taken(rows, run, [each])
        rows.since(early, 3)
    got, first = {name: [] for name in COLUMNS}, 0
    while batch := rows.since(late, 7):
        assert batch.first == first
        for name in COLUMNS:
            got[name] += column(batch, name)
        first = len(got["start"])
    assert first == 49
    assert not any(map(math.isnan, got["end"]))


def test_an_end_without_a_start_is_a_row_that_says_so(rows, run):
    taken(rows, run, [line("end", 1, 9)])
    assert column(rows.since(Cursor(), 9), "flags") == [NO_START]


def test_an_end_that_is_delivered_again_changes_nothing(rows, run):
    taken(rows, run, [*scope_lines(1, 0, 9), line("end", 1, 99)])
    batch = rows.since(Cursor(), 9)
    assert column(batch, "end")[0] - column(batch, "start")[0] == 9


def test_at_the_limit_the_oldest_go_but_for_open_ones():
    rows = Rows(limit=8)
    run = rows.add_run("run", KeptPayloads())
    taken(rows, run, [line("start", 1, 0, name="open")])
    taken(rows, run, [each for number in range(2, 9) for each in scope_lines(number, number, number + 1, parent=1)])
    cursor = Cursor()
    rows.since(cursor, 100)
    assert (len(rows), run.dropped) == (8, 0)
    taken(rows, run, scope_lines(9, 9, 10, parent=8))
    assert len(rows) == 7
    assert run.dropped == 2
    batch = rows.since(cursor, 100)
    assert (batch.restart, batch.first) == (True, 0)
    assert column(batch, "parent") == [-1, 0, 0, 0, 0, 0, 5]
    assert rows.find(uuid(1)) == 0
    assert rows.find(uuid(2)) is None
    assert rows.find(uuid(9)) == 6
    taken(rows, run, [line("end", 1, 50)])
    assert array("I", rows.since(cursor, 100).ended["row"]).tolist() == [0]


@pytest.mark.parametrize("limit", [0, 3])
def test_a_limit_that_is_too_small_is_refused(limit):
    with pytest.raises(ValueError, match="expected at least 4"):
        Rows(limit)


def test_lines_are_kept_up_to_a_number_of_bytes():
    kept = KeptPayloads(limit_bytes=10)
    references = [kept.keep(each) for each in (b"12345", b"67890", b"abc")]
    assert [kept.line(each) for each in references] == [None, b"67890", b"abc"]
    assert kept.given_up == 1
    assert b"".join(piece for _, piece in kept.chunks()) == b"67890abc"


def test_lines_of_files_are_found_again(tmp_path):
    texts = [b"first\n", b"x" * (CHUNK_BYTES + 9) + b"\n", b"third\n", b"without an end"]
    (tmp_path / "a").write_bytes(b"".join(texts[:2]))
    (tmp_path / "b").write_bytes(b"".join(texts[2:]))
    lines, references = FilePayloads(), []
    for name in "ab":
        for text in lines.add(str(tmp_path / name)):
            references.append(lines.end - len(text))
    assert [lines.line(each) for each in references] == [text.rstrip(b"\n") for text in texts]
    assert b"".join(piece for _, piece in lines.chunks()) == b"".join(texts)
    lines.close()


# ---------------------------------------------------------------------------------------- files and search


@pytest.fixture
def recorded_run(tmp_path, rows):
    """(rows, run) of a file with a few lines, one of them cut short."""

    def read(lines, name="events.jsonl", compress=None):
        data = "".join(f"{each}\n" for each in lines).encode()
        (tmp_path / name).write_bytes(compress(data) if compress else data)
        add_files(rows, [str(tmp_path / name)]).join(60)
        return rows.runs[-1]

    yield read
    rows.close()


def test_a_file_is_read_and_what_is_no_event_is_counted(recorded_run, rows):
    run = recorded_run([*scope_lines(1, 0, 5), "", line("start", 2, 7)[:-20]])
    assert (run.state, run.progress, run.events, run.unreadable) == ("complete", 1.0, 2, 1)
    assert len(rows) == 1


def test_a_compressed_file_has_its_payloads_too(recorded_run, rows):
    run = recorded_run(scope_lines(1, 0, 5, data={"found": "copytree"}), "events.jsonl.gz", gzip.compress)
    _, opened, closed = rows.lines(0)
    assert b'"start"' in run.payloads.line(opened)
    assert b"copytree" in run.payloads.line(closed)


def test_a_missing_file_is_an_error_at_once(rows, tmp_path):
    with pytest.raises(OSError):
        add_files(rows, [str(tmp_path / "no.jsonl")])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("copytree", [0]), ("COPYTREE", []), ("quoted", [1]), ('"quoted"', [1]), ("Löwe", [2]), ("no such", [3]),
        ("category", []), ("scope_category", []), ("work", []), ("", []),
    ],
)  # fmt: skip
def test_a_search_finds_payloads_and_not_envelopes(recorded_run, rows, text, found):
    lines = [
        *scope_lines(1, 0, 5, data={"found": "CopyTree"}), *scope_lines(2, 0, 5, data='a "quoted" word'),
        *scope_lines(3, 0, 5, data="ein Löwe", name="löwe"),
        *scope_lines(4, 0, 5, metadata=error(message="no such thing")),
    ]  # fmt: skip
    recorded_run(lines)
    rows_found, is_complete = search(rows, text)
    assert (rows_found.tolist(), is_complete) == (found, bool(text))


def test_a_living_session_s_scopes_are_rows_as_they_begin(session, rows):
    subscribers.register("other", lambda event: None)  # else nothing is recorded before somebody watches
    with scope.scope("open-before", ScopeType.Agent):
        relay_mp_view._add(rows, str(os.getpid()))
        run = rows.runs[0]
        with scope.scope("inside", ScopeType.Tool):
            wait_for(lambda: len([end for end in rows.columns["end"] if math.isnan(end)]) == 2)
        wait_for(lambda: len([end for end in rows.columns["end"] if math.isnan(end)]) == 1)
    assert run.state == "live"
    session.close()
    wait_for(lambda: run.state == "ended")
    assert run.problem == ""


def wait_for(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
