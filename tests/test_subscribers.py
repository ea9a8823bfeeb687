"""Global subscribers: who sees what, in which order, and what a callback may do."""

import asyncio
import logging
import os
import threading

import named_subscribers
import pytest

import relay_mp
from relay_mp import ScopeType, scope, subscribers
from relay_mp._deliver.subscriptions import Subscription, Subscriptions
from relay_mp._session.membership import current_session
from relay_mp.errors import described_type

WAIT_SECONDS = 30


class Latch:
    """A subscriber that stands still at each mark `hold`, until it is opened."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.entered = threading.Event()
        self._opened = threading.Event()

    def __call__(self, event):
        self.names.append(event.name)
        if event.name == "hold":
            self.entered.set()
            assert self._opened.wait(WAIT_SECONDS)

    def hold(self) -> None:
        scope.event("hold")
        assert self.entered.wait(WAIT_SECONDS)

    def open(self) -> None:
        self._opened.set()


@pytest.fixture
def latch(session):
    latch = Latch()
    subscribers.register("latch", latch)
    yield latch
    latch.open()


def names_to(found):
    return lambda event: found.append(event.name)


# ---- registration ----


def test_events_are_seen_from_registration_to_deregistration(session):
    found = []
    scope.event("before")
    subscribers.register("x", names_to(found))
    scope.event("between")
    assert subscribers.deregister("x") is True
    scope.event("after")
    subscribers.flush()
    assert found == ["between"]


def test_subscribers_are_called_in_order_of_registration_for_each_event(session):
    found = []
    for name in "cab":
        subscribers.register(name, lambda event, name=name: found.append((event.name, name)))
    for mark in ("1", "2"):
        scope.event(mark)
    subscribers.flush()
    assert found == [(mark, name) for mark in "12" for name in "cab"]


def test_a_name_is_taken_once_and_free_again_after_deregistration(session):
    subscribers.register("x", print)
    with pytest.raises(relay_mp.SubscriberError, match="'x' is already registered globally; deregister it first"):
        subscribers.register("x", print)
    assert subscribers.deregister("x")
    subscribers.register("x", print)


def test_a_taken_name_is_refused_before_the_callback_is_made(session, tmp_path):
    subscribers.register("x", print)
    with pytest.raises(relay_mp.SubscriberError, match="already registered"):
        subscribers.register("x", "named_subscribers:broken_factory", arguments={})


def test_deregistering_an_unknown_name_is_false(session):
    assert subscribers.deregister("nobody") is False


def test_deregistering_outside_any_session_is_false():
    assert subscribers.deregister("nobody") is False
    assert current_session() is None


@pytest.mark.parametrize("callback", [3, None, ["print"], b"builtins:print"])
def test_what_cannot_be_called_is_refused_and_starts_no_session(callback):
    said = f"callback is {described_type(callback)}; expected a callable that takes an event"
    with pytest.raises(TypeError, match=said):
        subscribers.register("x", callback)
    assert current_session() is None


@pytest.mark.parametrize("name", [3, None, b"x"])
def test_a_name_that_is_no_str_is_refused(name):
    with pytest.raises(TypeError, match=f"name is {described_type(name)}; expected str"):
        subscribers.register(name, print)
    assert current_session() is None


@pytest.mark.parametrize(("callback", "arguments"), [(print, {}), (print, {"end": ""}), ("builtins:print", [1])])
def test_arguments_go_with_a_named_subscriber_only(callback, arguments):
    with pytest.raises(TypeError, match="arguments are .* expected a dict, with a subscriber named"):
        subscribers.register("x", callback, arguments=arguments)
    assert current_session() is None


# ---- places in the stream ----


def test_registration_takes_effect_at_its_place(session, latch):
    found = []
    latch.hold()
    for i in range(5):
        scope.event(f"early {i}")
    subscribers.register("late", names_to(found))
    for i in range(5):
        scope.event(f"late {i}")
    latch.open()
    subscribers.flush()
    assert found == [f"late {i}" for i in range(5)]


def test_removal_takes_effect_at_its_place(session, latch):
    found = []
    subscribers.register("short", names_to(found))
    latch.hold()
    for i in range(5):
        scope.event(f"early {i}")
    subscribers.deregister("short")
    for i in range(5):
        scope.event(f"late {i}")
    latch.open()
    subscribers.flush()
    assert found == ["hold", *(f"early {i}" for i in range(5))]


def test_a_name_that_changes_hands_has_each_event_once(session, latch):
    first, second = [], []
    subscribers.register("x", names_to(first))
    latch.hold()
    scope.event("one")
    subscribers.deregister("x")
    scope.event("nobody's")
    subscribers.register("x", names_to(second))
    scope.event("two")
    latch.open()
    subscribers.flush()
    assert (first, second) == (["hold", "one"], ["two"])


def test_the_last_removal_leaves_what_was_emitted_before(session, latch):
    latch.hold()
    scope.event("still seen")
    subscribers.deregister("latch")
    scope.event("not emitted at all")
    latch.open()
    subscribers.flush()
    assert latch.names == ["hold", "still seen"]
    assert session.stats().emitted == 2


def test_registrations_of_many_threads_see_a_suffix_of_the_stream_each(session, latch):
    found = {}
    start = threading.Barrier(4)

    def register(name):
        found[name] = []
        start.wait(WAIT_SECONDS)
        for i in range(50):
            subscribers.register(f"{name}{i}", names_to(found[name]) if i == 49 else id)
            scope.event(f"{name} {i}")

    latch.open()
    threads = [threading.Thread(target=register, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    subscribers.flush()
    for name in "abcd":
        assert found[name] == latch.names[-len(found[name]) :]
        assert f"{name} 49" in found[name]


def test_a_registration_covers_nothing_before_its_place_is_known():
    # Between the two the dispatcher may be at any older event: it must not be shown to the new one.
    early = []
    subscriptions = Subscriptions(lambda subscribers, scope_locals: early.extend(subscriptions.viewers(5, None)))
    subscriptions.add(Subscription("x", print, None), lambda: 7)
    assert early == []
    assert list(subscriptions.viewers(6, None)) == []
    assert [subscription.name for subscription in subscriptions.viewers(7, None)] == ["x"]


def test_what_a_successor_takes_over_is_published_whole():
    published = []
    subscriptions = Subscriptions(lambda *counts: published.append(counts))
    subscriptions.restore([Subscription("a", print, None, 3), Subscription("b", print, b"s" * 16, 4)])
    assert published == [(2, 1)]
    assert [subscription.name for subscription in subscriptions.viewers(4, b"s" * 16)] == ["a", "b"]
    assert list(subscriptions.viewers(2, b"s" * 16)) == []


# ---- what a callback may do ----


@pytest.mark.parametrize("error", [RuntimeError("no use"), SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_a_subscriber_that_raises_is_logged_and_counted_and_harms_nobody(session, caplog, error, capfd):
    before, after = [], []

    def fail(_event):
        raise error

    subscribers.register("before", names_to(before))
    subscribers.register("bad", fail)
    subscribers.register("after", names_to(after))
    with caplog.at_level(logging.ERROR, "relay_mp"):
        scope.event("1")
        scope.event("2")
        subscribers.flush()
    assert before == after == ["1", "2"]
    assert session.stats().subscriber_errors == 2
    records = [record for record in caplog.records if "subscriber 'bad' failed on <MarkEvent" in record.getMessage()]
    assert len(records) == 1
    assert records[0].exc_info[1] is error
    session.close()
    assert "2 failures of subscribers" in capfd.readouterr().err


def test_emission_inside_a_callback_comes_later_in_the_stream(session):
    found = []

    def answer(event):
        found.append(("answer", event.name))
        if event.name == "question":
            scope.event("reply")
            with scope.scope("work", ScopeType.Tool):
                found.append(("emitted", None))

    subscribers.register("answer", answer)
    subscribers.register("second", lambda event: found.append(("second", event.name)))
    scope.event("question")
    subscribers.flush()
    subscribers.flush()  # the first one's position is before the answers
    assert found[:3] == [("answer", "question"), ("emitted", None), ("second", "question")]
    assert [name for who, name in found if who == "second"] == ["question", "reply", "work", "work"]


def test_emission_inside_a_callback_does_not_wait_for_room(run_script):
    out = run_script(
        """
import relay_mp
from relay_mp import scope, subscribers
def flood(event):
    if event.name == "go":
        for i in range(5000):
            scope.event("x" * 100)
with relay_mp.session(ring_bytes=65536, block_timeout_seconds=3600) as session:
    subscribers.register("flood", flood)
    scope.event("go")
    subscribers.flush()
    subscribers.flush()
    stats = session.stats()
    print(stats.emitted, stats.delivered + stats.lost, stats.causes["full"] == stats.lost > 0)
"""
    ).stdout
    assert out == "5001 5001 True\n"


def test_a_flush_inside_a_callback_is_an_error_at_once(session):
    errors = []

    def flush(_event):
        for attempt in (subscribers.flush, session.flush, lambda: asyncio.run(subscribers.flush_async())):
            try:
                attempt()
            except relay_mp.FlushError as error:
                errors.append(str(error))

    subscribers.register("x", flush)
    scope.event("m")
    subscribers.flush()
    assert len(errors) == 3
    assert all("would wait for itself" in error for error in errors)


def test_a_flush_inside_a_callback_is_an_error_while_the_session_closes():
    errors = []

    def flush(event):
        if event.name == "last":
            try:
                subscribers.flush()
            except relay_mp.FlushError as error:
                errors.append(error)

    with relay_mp.session():
        latch = Latch()
        subscribers.register("latch", latch)
        subscribers.register("x", flush)
        latch.hold()
        scope.event("last")
        threading.Thread(target=latch.open).start()
    assert len(errors) == 1


def test_a_close_inside_a_callback_is_an_error(session):
    errors = []

    def close(_event):
        try:
            relay_mp.shutdown()
        except relay_mp.FlushError as error:
            errors.append(error)

    subscribers.register("x", close)
    scope.event("m")
    subscribers.flush()
    assert len(errors) == 1
    assert session.is_open


def test_a_callback_may_register_and_deregister_others_and_itself(session):
    first, second = [], []

    def once(event):
        first.append(event.name)
        subscribers.register("second", names_to(second))
        assert subscribers.deregister("once")
        scope.event("said by once")

    subscribers.register("once", once)
    scope.event("1")
    subscribers.flush()
    scope.event("2")
    subscribers.flush()
    assert first == ["1"]
    assert second == ["said by once", "2"]


def test_a_registration_inside_a_callback_of_a_closing_session_starts_no_other():
    errors = []

    def register(event):
        if event.name == "last":
            assert subscribers.deregister("x") is True
            try:
                subscribers.register("y", print)
            except relay_mp.SessionError as error:
                errors.append(str(error))

    with relay_mp.session():
        latch = Latch()
        subscribers.register("latch", latch)
        subscribers.register("x", register)
        latch.hold()
        scope.event("last")
        closing = threading.Thread(target=relay_mp.shutdown)
        closing.start()
        while current_session() is not None and current_session().is_open:  # closing begins
            pass
        latch.open()
        closing.join()
    assert len(errors) == 1
    assert "closing" in errors[0]
    assert current_session() is None


@pytest.mark.parametrize("end", ["exit", "return"])
def test_a_callback_may_fork(run_script, end):
    out = run_script(
        """
import os, sys
import relay_mp
from relay_mp import scope, subscribers
names, statuses = [], []
def fork(event):
    names.append(event.name)
    if event.name == "fork":
        pid = os.fork()
        if pid == 0:
            scope.event("from the child")
            if sys.argv[1] == "exit":
                os._exit(0)
            return
        statuses.append(os.waitpid(pid, 0)[1])
with relay_mp.session() as session:
    subscribers.register("x", fork)
    scope.event("fork")
    scope.event("next")
    subscribers.flush()
    subscribers.flush()
    print(sorted(names), statuses, session.stats().delivered, session.stats().lost)
""",
        end,
    ).stdout
    assert out == "['fork', 'from the child', 'next'] [0] 3 0\n"


def test_callbacks_run_without_the_emitters_scope(session):
    found = []
    subscribers.register("x", lambda event: found.append(scope.get_handle().name))
    with scope.scope("mine", ScopeType.Agent):
        pass
    subscribers.flush()
    assert found == ["root", "root"]


# ---- flush ----


def test_flush_returns_after_everything_was_delivered(session, seen):
    for i in range(2000):
        scope.event(f"{i}")
    assert subscribers.flush() == relay_mp.FlushResult(0, {})
    assert [event.name for event in seen] == [f"{i}" for i in range(2000)]


def test_flush_outside_any_session_returns_at_once():
    assert subscribers.flush() == relay_mp.FlushResult()
    assert asyncio.run(subscribers.flush_async()) == relay_mp.FlushResult()


def test_flush_in_a_running_event_loop_names_the_way_out(session):
    async def main():
        subscribers.flush()

    with pytest.raises(RuntimeError, match="await flush_async"):
        asyncio.run(main())


def test_flush_async_lets_other_tasks_run(session, latch):
    async def main():
        latch.hold()
        scope.event("last")
        flushing = asyncio.create_task(subscribers.flush_async())
        await asyncio.sleep(0)
        assert not flushing.done()
        latch.open()
        await flushing
        return list(latch.names)

    assert asyncio.run(main()) == ["hold", "last"]


# ---- nobody listens ----


class Untouchable:
    """Whoever looks at it learns it."""

    def __getattribute__(self, name):
        raise AssertionError(f"looked at: {name}")

    def __iter__(self):
        raise AssertionError("iterated")


def emit_what_would_raise():
    scope.event("m", data=Untouchable(), metadata={1: object()}, timestamp="yesterday")
    with scope.scope("s", ScopeType.Tool, input=Untouchable(), data=object()):
        scope.metric("n", [object()])


def test_a_payload_is_not_looked_at_outside_any_session():
    emit_what_would_raise()
    assert current_session() is None


def test_a_payload_is_not_looked_at_while_nobody_subscribes(session):
    emit_what_would_raise()
    subscribers.register("x", id)
    subscribers.deregister("x")
    emit_what_would_raise()
    assert session.stats().emitted == 0


# ---- by name ----


@pytest.mark.parametrize("session", ["thread", "process"], indirect=True)
class TestNamed:
    def register(self, tmp_path, attribute, name="x", **arguments):
        path = tmp_path / f"{name}.lines"
        subscribers.register(name, f"named_subscribers:{attribute}", arguments={"path": str(path), **arguments})
        return path

    def test_it_is_made_with_its_arguments(self, session, tmp_path):
        path = self.register(tmp_path, "Lines")
        scope.event("1")
        scope.event("2")
        subscribers.flush()
        assert named_subscribers.names(path) == ["1", "2"]
        (dispatcher,) = {fields[3] for fields in named_subscribers.read(path)}
        assert (dispatcher == os.getpid()) == (session.settings.dispatcher == "thread")

    def test_without_arguments_it_is_the_callback_itself(self, session):
        subscribers.register("x", "named_subscribers:ignores")
        scope.event("1")
        assert subscribers.flush().lost == 0
        assert session.stats().subscriber_errors == 0

    def test_a_top_level_function_is_named_by_itself(self, session):
        subscribers.register("x", named_subscribers.raises)
        scope.event("1")
        scope.event("exit")
        scope.event("2")
        subscribers.flush()
        assert session.stats().subscriber_errors == 3

    @pytest.mark.parametrize(
        ("target", "said"),
        [
            ("named_subscribers", 'expected "package.module:attribute"'),
            (":attribute", 'expected "package.module:attribute"'),
            ("no_such_module:x", "ModuleNotFoundError: No module named 'no_such_module'"),
            ("named_subscribers:no_such", "AttributeError"),
            ("named_subscribers:not_callable", "is an int, which cannot be called"),
        ],
    )
    def test_what_cannot_be_found_is_a_clear_error_and_the_stream_goes_on(self, session, tmp_path, target, said):
        path = self.register(tmp_path, "Lines")
        scope.event("before")
        with pytest.raises(relay_mp.SubscriberError) as caught:
            subscribers.register("bad", target)
        assert said in str(caught.value)
        assert repr(target) in str(caught.value)
        scope.event("after")
        subscribers.flush()
        assert named_subscribers.names(path) == ["before", "after"]

    def test_a_factory_that_raises_is_a_clear_error(self, session):
        with pytest.raises(relay_mp.SubscriberError, match="failed with LookupError: 'nothing here'|nothing here"):
            subscribers.register("bad", "named_subscribers:broken_factory", arguments={})

    def test_duplicates_are_refused(self, session, tmp_path):
        self.register(tmp_path, "Lines")
        with pytest.raises(relay_mp.SubscriberError, match="'x' is already registered globally"):
            self.register(tmp_path, "Lines")

    def test_deregistering_tells_whether_it_was_there(self, session, tmp_path):
        path = self.register(tmp_path, "Lines")
        scope.event("1")
        assert subscribers.deregister("x") is True
        assert subscribers.deregister("x") is False
        scope.event("2")
        subscribers.flush()
        assert named_subscribers.names(path) == ["1"]

    def test_it_is_closed_with_the_session(self, session, tmp_path):
        path = self.register(tmp_path, "Closes")
        session.close()
        assert path.read_text() == "closed\n"

    def test_it_may_emit(self, session, tmp_path):
        path = self.register(tmp_path, "Emits")
        scope.event("question")
        subscribers.flush()
        subscribers.flush()
        assert named_subscribers.names(path) == ["question", "answer"]

    def test_it_may_register_others_and_deregister_itself(self, session, tmp_path):
        path = self.register(tmp_path, "Changes", name="self")
        scope.event("more")
        subscribers.flush()
        scope.event("enough")
        subscribers.flush()
        scope.event("last")
        subscribers.flush()
        assert named_subscribers.names(path) == ["more", "enough"]
        assert named_subscribers.names(tmp_path / "self.lines.other") == ["enough", "last"]

    def test_places_in_the_stream_hold(self, session, tmp_path):
        entered, release = tmp_path / "entered", tmp_path / "release"
        os.mkfifo(entered)
        os.mkfifo(release)
        short = self.register(tmp_path, "Lines", name="short")
        self.register(tmp_path, "Hold", name="holds", entered=str(entered), release=str(release))
        scope.event("hold")
        with open(entered, "rb") as fifo:
            fifo.read(1)
        scope.event("early")
        changing = threading.Thread(target=self.change, args=(tmp_path,))
        if session.settings.dispatcher == "thread":
            self.change(tmp_path)
            with open(release, "wb") as fifo:
                fifo.write(b"x")
        else:  # each request waits for its answer, which waits for the latch
            changing.start()
            with open(release, "wb") as fifo:
                fifo.write(b"x")
            changing.join()
        scope.event("late")
        subscribers.flush()
        assert named_subscribers.names(short) == ["hold", "early"]
        assert named_subscribers.names(tmp_path / "new.lines") == ["late"]

    def change(self, tmp_path):
        subscribers.deregister("short")
        self.register(tmp_path, "Lines", name="new")


@pytest.mark.parametrize("end", ["exit", "return"])
def test_a_named_subscriber_in_the_dispatcher_process_may_fork(session_of_process, tmp_path, end):
    path = tmp_path / "lines"
    subscribers.register("x", "named_subscribers:Forks", arguments={"path": str(path)})
    scope.event(f"fork and {end}")
    scope.event("next")
    subscribers.flush()
    subscribers.flush()
    assert sorted(named_subscribers.names(path)) == sorted([f"fork and {end}", "from the child", "next"])
    assert len({fields[3] for fields in named_subscribers.read(path)}) == 1


@pytest.fixture
def session_of_process():
    with relay_mp.session(dispatcher="process") as session:
        yield session


@pytest.mark.parametrize("make", [lambda: lambda event: None, lambda: [].append, Latch])
def test_a_callable_that_the_dispatcher_process_cannot_reach_is_a_clear_error(session_of_process, make):
    with pytest.raises(relay_mp.SubscriberError, match="cannot be reached from the dispatcher") as caught:
        subscribers.register("x", make())
    assert "module:attribute" in str(caught.value)
    assert 'dispatcher="thread"' in str(caught.value)


WORKER = """
import sys
import relay_mp
from relay_mp import scope, subscribers
path = sys.argv[1]
def own(event): pass
for callback in (lambda event: None, own, [].append):
    try:
        subscribers.register("bad", callback)
    except relay_mp.SubscriberError as error:
        assert "cannot be reached from the dispatcher" in str(error), error
    else:
        raise SystemExit(f"{callback} was taken")
subscribers.register("worker's", "named_subscribers:Lines", arguments={"path": path})
scope.event("by the worker")
try:
    subscribers.register("worker's", "named_subscribers:Lines", arguments={"path": path})
except relay_mp.SubscriberError as error:
    assert "already registered" in str(error)
subscribers.flush()
"""


@pytest.mark.parametrize("session", ["thread", "process"], indirect=True)
def test_a_worker_registers_by_name(session, run_script, tmp_path):
    path = tmp_path / "lines"
    scope.event("before")
    run_script(WORKER, path)
    scope.event("by the owner")
    subscribers.flush()
    assert named_subscribers.names(path) == ["by the worker", "by the owner"]
    assert subscribers.deregister("worker's") is True
    assert session.stats().lost == 0


def test_a_worker_sees_the_owners_subscriber_names(session, seen, run_script):
    run_script(
        """
from relay_mp import subscribers
assert subscribers.deregister("nobody") is False
assert subscribers.deregister("seen") is True
"""
    )
    assert subscribers.deregister("seen") is False
