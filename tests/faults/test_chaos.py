"""tests.faults.chaos: it finds nothing in a sound library, would find what is unsound, and repeats itself."""

import dataclasses
import itertools
import json
import logging
import os
import re
import subprocess
import sys
from collections import Counter

import chaos
import psutil
import pytest

from relay_mp._session.stats import Stats

FIGURES = re.compile(
    r"seed=\d+ dispatcher=\w+ workers=\d+ decisions=(?P<decisions>\d+) emitted=(?P<emitted>\d+) "
    r"delivered=(?P<delivered>\d+) redelivered=(?P<redelivered>\d+) lost=(?P<lost>\d+) (lost_\w+=\d+ )*"
    r"kills=(?P<kills>\d+) dispatcher_kills=(?P<dispatcher_kills>\d+) stops=(?P<stops>\d+) forks=(?P<forks>\d+) "
    r"recycled=\d+ worst_recovery_ms=[\d.]+ hangs=(?P<hangs>\d+) mismatches=(?P<mismatches>\d+) "
    r"steps=\S+"
)


def run_program(*arguments: object, timeout_seconds: float) -> tuple[str, str]:
    """What the program says on stdout and stderr; it must find nothing wrong. What it starts ends with it."""
    command = [sys.executable, "-m", "tests.faults.chaos", *map(str, arguments)]
    with subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            out, err = process.communicate(timeout=timeout_seconds)
        except subprocess.TimeoutExpired:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()
            pytest.fail(f"hangs\n{process.communicate()}")
    assert process.returncode == 0, f"{out}\n{err}"
    return out, err


def run(*arguments: object, timeout_seconds: float) -> dict[str, int]:
    """The program's figures."""
    (line,) = run_program(*arguments, timeout_seconds=timeout_seconds)[0].splitlines()
    found = FIGURES.fullmatch(line)
    assert found, line
    return {name: int(value) for name, value in found.groupdict().items()}


@pytest.mark.parametrize("dispatcher", ["thread", "process"])
def test_a_pool_under_random_faults_keeps_its_accounts(dispatcher):
    figures = run("--decisions", 80, "--seed", 3, "--workers", 3, "--dispatcher", dispatcher, timeout_seconds=100)
    assert figures["decisions"] == 80
    assert figures["emitted"] == figures["delivered"] + figures["lost"] > 0
    assert figures["kills"] > 10
    assert figures["stops"] > 0
    assert figures["forks"] > 0
    assert figures["redelivered"] <= figures["dispatcher_kills"]
    assert (figures["hangs"], figures["mismatches"]) == (0, 0)


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("dispatcher", ["thread", "process"])
def test_a_pool_under_random_faults_for_five_minutes(dispatcher, seed):
    figures = run("--seconds", 300, "--seed", seed, "--dispatcher", dispatcher, timeout_seconds=600)
    assert figures["emitted"] == figures["delivered"] + figures["lost"]


def test_the_seed_gives_the_decisions():
    def first(*arguments):
        return list(itertools.islice(chaos.decisions(*arguments), 500))

    assert first(1, 4, "thread") == first(1, 4, "thread") != first(2, 4, "thread")
    assert {decision.fault for decision in first(1, 4, "process")} - {d.fault for d in first(1, 4, "thread")} == {
        "kill the dispatcher",
        "kill the dispatcher in close",
    }
    assert {decision.worker for decision in first(1, 4, "thread")} == {0, 1, 2, 3}


def test_a_step_can_be_left_out():
    left = [decision.fault for decision in itertools.islice(chaos.decisions(1, 4, "process", ["kill", "flush"]), 2000)]
    assert set(left) == chaos.STEPS.keys() - {"kill", "flush"}


@pytest.mark.timeout(150)
def test_a_run_with_the_same_seed_decides_the_same():
    """Whatever the kernel makes of the moments: the losses and the order of events may differ."""

    def decided(seed):
        arguments = ("--decisions", 15, "--seed", seed, "--workers", 2, "--verbose")
        _, err = run_program(*arguments, timeout_seconds=100)
        return [line for line in err.splitlines() if line.startswith("Decision(")]

    first = decided(5)
    assert len(first) == 15
    assert first == decided(5) != decided(6)


def test_a_worker_ends_when_it_is_told_though_another_process_holds_its_pipe(tmp_path, caplog):
    """As a sibling does that is stopped as soon as it is forked, before it has closed what it was born with."""
    caplog.set_level(logging.CRITICAL, "relay_mp")  # as the round does; put back behind the test
    figures = chaos.Figures()
    round_ = chaos._Round(0, str(tmp_path), 2, "thread", figures)
    held = [os.dup(worker.commands) for worker in round_._workers]
    try:
        round_.end()
    finally:
        round_.close()
        for descriptor in held:
            os.close(descriptor)
    assert figures.mismatches == []


# ---- the book: what it would say of a library that is not sound ----

PID = 100


def stats(delivered, lost=0, pending=0, **causes):
    return Stats(
        emitted=delivered + lost + pending,
        delivered=delivered,
        lost=lost,
        pending=pending,
        cut=0,
        replaced=0,
        causes=causes,
        processes=[],
        subscriber_errors=0,
        middleware_failures=0,
        ring_bytes=65536,
        ring_used_bytes=0,
        stalled_pid=None,
    )


def balance(records, found, returned=0, unfinished=0):
    """What a book says of these records; each is (kind, redelivered, producer or number lost, number, seq)."""
    book = chaos.Book()
    for kind, redelivered, producer, number, seq in records:
        book.note(kind, redelivered, 0, PID, producer, number, seq)
    book.balance(found, Counter({PID: returned}), Counter({PID: unfinished}))
    return book.faults


def marks(*numbers):
    return [(chaos._MARK, 0, 1, number, 63 + 64 * place) for place, number in enumerate(numbers)]


def test_a_sound_book_has_no_faults():
    assert balance(marks(0, 1, 2), stats(3), returned=3) == []
    loss = (chaos._LOSS, 0, 2, 0, 64)
    assert balance([*marks(0), loss, (chaos._MARK, 0, 1, 3, 127)], stats(2, 2, full=2), returned=4) == []
    assert balance([*marks(0, 1), (chaos._MARK, 1, 1, 1, 127)], stats(2), returned=2) == []
    # Killed after it was delivered, before it returned; and before it was written.
    assert balance(marks(0, 1), stats(2), returned=1, unfinished=1) == []
    assert balance([*marks(0), (chaos._LOSS, 0, 1, 0, 64)], stats(1, 1, writer_died=1), returned=1, unfinished=1) == []


@pytest.mark.parametrize(
    ("records", "found", "returned", "says"),
    [
        (marks(0, 1), stats(2), 3, "3 emits returned, 2 delivered, 0 marked"),
        (marks(0, 1), stats(2), 1, "1 emits returned, 2 delivered"),
        (marks(0, 2, 1), stats(3), 3, "number 1 of producer 1 came after 2"),
        (marks(0, 1, 1), stats(3), 3, "number 1 of producer 1 came after 1"),
        ([*marks(0, 1), (chaos._MARK, 0, 1, 2, 70)], stats(3), 3, "seq 70 came after 127"),
        ([*marks(0, 1), (chaos._MARK, 1, 1, 0, 63)], stats(2), 2, "seq 63 came after 127"),
        (marks(0, 1), stats(3), 2, "2 seen, 3 counted as delivered"),
        (marks(0), stats(1, 1, full=1), 2, "0 marked as lost, 1 counted"),
        ([*marks(0), (chaos._LOSS, 0, 1, 0, 64)], stats(1, 1, writer_died=1), 2, "1 lost by the death of"),
        (marks(0), stats(1, pending=1), 1, "1 pending"),
    ],
)
def test_a_book_that_does_not_balance_says_what(records, found, returned, says):
    faults = balance(records, found, returned)
    assert any(says in fault for fault in faults), faults


LINES = [json.dumps({"name": "m", "metadata": {"relay_mp.origin": {"seq": seq}}}) for seq in (1, 2)]


@pytest.mark.parametrize(
    ("written", "killed", "says"),
    [
        (LINES, False, None),
        (LINES[:1], True, "2 delivered, 1 in the files, 0 lost by the exporter"),
        ([LINES[0], LINES[1], LINES[1]], True, "0 damaged lines and 1 twice"),
        ([LINES[0], LINES[1], LINES[1][:9]], True, "1 damaged lines and 0 twice"),
    ],
)
def test_files_that_do_not_have_each_event_once_say_so(session, tmp_path, written, killed, says):
    files = chaos.Files(tmp_path)
    found = dataclasses.replace(stats(2), exporters=session.stats().exporters)
    for number, line in enumerate(written):
        (tmp_path / f"{number}.jsonl").write_text(line + "\n")
    faults = files.balance(found, dispatcher_killed=killed)
    assert (not faults) if says is None else any(says in fault for fault in faults), faults


def test_faults_are_the_exit_code(monkeypatch, capsys):
    figures = chaos.Figures(hangs=1, mismatches=["round 0: hangs: nobody came"])
    monkeypatch.setattr(chaos, "run", lambda *_, **__: figures)
    assert chaos.main(["--seconds", "1"]) == 1
    out, err = capsys.readouterr()
    assert FIGURES.fullmatch(out.strip())
    assert err == "round 0: hangs: nobody came\n"
