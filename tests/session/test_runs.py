"""Runs of records: what compiled code delivers keeps all that holds for a record alone.

A subscriber stands still at a mark while the events behind it gather, so that they come in runs.
"""

import logging
import os
import threading
from itertools import pairwise

import pytest
from run_subscribers import Takes

import relay_mp
from relay_mp import ScopeType, scope, scope_local, subscribers
from relay_mp._deliver.dispatcher import RUN_EVENTS
from relay_mp.types import RuntimeRegistrationKind

WAIT_SECONDS = 30


class Latch:
    """Stands still at the mark `hold`, until it is opened."""

    def __init__(self):
        self.entered, self.opened = threading.Event(), threading.Event()

    def __call__(self, event):
        if event.name == "hold":
            self.entered.set()
            assert self.opened.wait(WAIT_SECONDS)


@pytest.fixture
def latch(session):
    """Opened, the dispatcher has all that was emitted meanwhile before it."""
    latch = Latch()
    subscribers.register("latch", latch)
    scope.event("hold")
    assert latch.entered.wait(WAIT_SECONDS)
    yield latch
    latch.opened.set()


def emit(count):
    for i in range(count):
        scope.event(f"{i}")


def numbers(count):
    return [f"{i}" for i in range(count)]


def deliver(latch):
    latch.opened.set()
    subscribers.flush()


def taking(name="takes", **arguments):
    """A subscriber that takes runs; what it was given."""
    subscribers.register(name, "run_subscribers:Takes", arguments=arguments)
    return Takes.made[-1]


# ---- what is taken ahead ----


def test_a_run_is_bounded_and_comes_before_the_other_callbacks(latch, session):
    order = []
    subscribers.register("first", lambda event: order.append((event.name, len(takes.names))))
    takes = taking()
    emit(RUN_EVENTS * 3)
    deliver(latch)
    assert takes.names == numbers(RUN_EVENTS * 3)
    assert takes.called == []
    assert max(map(len, takes.runs)) == RUN_EVENTS
    assert [name for name, _ in order] == takes.names
    assert all(taken > at for at, (_, taken) in enumerate(order))


@pytest.mark.parametrize("takes", [[3], [0], [-5], [10**6], [0, 0, 1, 2, 0, 60], [1] * 200])
def test_what_is_not_taken_comes_by_the_call_in_order(latch, session, takes):
    found = []
    taker, other = taking(takes=takes), taking("other", takes=takes[::-1])
    subscribers.register("x", lambda event: found.append(event.name))
    emit(200)
    deliver(latch)
    assert taker.names == other.names == found == numbers(200)
    assert session.stats().delivered == 201


def test_who_fails_to_take_is_called_and_its_failures_are_counted(latch, session, caplog):
    failing, other = taking(error="no"), taking("other")
    emit(10)
    with caplog.at_level(logging.ERROR, "relay_mp"):
        deliver(latch)
    assert failing.names == failing.called == other.names == numbers(10)
    assert session.stats().subscriber_errors == 10


def test_only_what_was_made_from_a_name_takes_runs(latch, session):
    passed = Takes()
    subscribers.register("passed", passed)
    emit(10)
    deliver(latch)
    assert (passed.called, passed.runs) == (numbers(10), [])


# ---- what ends a run ----


def test_registrations_take_effect_at_their_place_within_a_batch(latch, session):
    takes, late = taking(), []
    emit(5)
    subscribers.register("late", lambda event: late.append(event.name))
    scope.event("both")
    subscribers.deregister("takes")
    scope.event("late only")
    subscribers.deregister("late")
    scope.event("nobody's")
    deliver(latch)
    assert takes.names == [*numbers(5), "both"]
    assert late == ["both", "late only"]


def test_a_gate_that_a_callback_installs_holds_from_the_next_event_on(latch, session):
    found, takes, gates = [], taking(), relay_mp.runtime_registrations

    def install(event):
        if event.name == "3":
            gates.register_conditional_middleware_guardrail(
                "closed", {RuntimeRegistrationKind.SUBSCRIBER}, "gated", lambda kinds, name: "closed"
            )

    subscribers.register("gated", lambda event: found.append(event.name))
    subscribers.register("install", install)
    emit(10)
    deliver(latch)
    gates.deregister_conditional_middleware_guardrail("closed")
    assert found == numbers(4)
    assert takes.names == numbers(10)  # with what it had taken it is not called


def test_scope_local_subscribers_see_their_scope_and_takers_take_each_event_once(latch, session):
    takes, found = taking(), []
    emit(3)
    with scope.scope("s", ScopeType.Tool) as handle:
        scope_local.register_subscriber(handle, "local", lambda event: found.append(event.name))
        scope.event("inside")
    scope.event("after")
    deliver(latch)
    assert takes.names == [*numbers(3), "s", "inside", "s", "after"]
    assert found == ["inside", "s"]


def test_a_loss_is_marked_between_the_events_around_it():
    with relay_mp.session(ring_bytes=65536, on_full="drop") as session:
        latch, found = Latch(), []
        subscribers.register("latch", latch)
        takes = taking()
        subscribers.register("x", lambda event: found.append((event.seq, event.name)))
        scope.event("hold")
        assert latch.entered.wait(WAIT_SECONDS)
        emit(3000)
        latch.opened.set()
        subscribers.flush()
        scope.event("last")
        subscribers.flush()
        lost = session.stats().lost
    names = [name for _, name in found]
    assert 0 < lost == 3000 - len(names) + 3  # hold, the mark and the last
    assert names[-2:] == ["relay_mp.loss", "last"]
    assert takes.names == names
    assert all(a < b for (a, _), (b, _) in pairwise(found))


# ---- what a callback does in a run ----


def test_a_callback_that_raises_in_a_run_harms_nobody(latch, session, caplog):
    found = []

    def fail(event):
        if int(event.name) % 7 == 0:
            raise SystemExit(3)

    subscribers.register("fails", fail)
    subscribers.register("x", lambda event: found.append(event.name))
    emit(100)
    with caplog.at_level(logging.ERROR, "relay_mp"):
        deliver(latch)
    assert found == numbers(100)
    assert session.stats().subscriber_errors == 15
    said = [record.getMessage() for record in caplog.records]
    assert sum("subscriber 'fails' failed on <MarkEvent" in message for message in said) == 1


def test_a_record_stays_until_its_callbacks_have_returned(latch, session):
    segment, positions = session._segment, []

    def look(event):
        positions.append((event.seq // 64, segment.read_pos, segment.delivering_slot))

    subscribers.register("x", look)
    emit(50)
    deliver(latch)
    assert len(positions) == 50
    assert all(position == read_pos and slot for position, read_pos, slot in positions)
    assert segment.delivering_slot == 0


def test_a_callback_may_fork_in_a_run(run_script):
    out = run_script(
        """
import os, sys, threading
import relay_mp
from relay_mp import scope, subscribers
sys.path.insert(0, sys.argv[1])
from session.test_runs import Latch, WAIT_SECONDS
names = []
def fork(event):
    names.append(event.name)
    if event.name in ("3", "40"):
        pid = os.fork()
        if pid == 0:
            scope.event("of the child")
            return
        assert os.waitpid(pid, 0)[1] == 0
with relay_mp.session() as session:
    latch = Latch()
    subscribers.register("latch", latch)
    subscribers.register("takes", "run_subscribers:Takes", arguments={})
    subscribers.register("fork", fork)
    scope.event("hold")
    assert latch.entered.wait(WAIT_SECONDS)
    for i in range(100):
        scope.event(f"{i}")
    latch.opened.set()
    subscribers.flush()
    subscribers.flush()
    from run_subscribers import Takes
    assert Takes.made[-1].names == names
    assert [name for name in names if name.isdigit()] == [f"{i}" for i in range(100)]
    print(len(names), session.stats().lost)
""",
        os.path.dirname(os.path.dirname(__file__)),
    ).stdout
    assert out == "103 0\n"
