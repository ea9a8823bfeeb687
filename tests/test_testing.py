"""`relay_mp.testing`: what users' own tests of emitting programs are given."""

import json
import multiprocessing
import re

import pytest

import relay_mp
from relay_mp import ScopeType, pools, scope, subscribers
from relay_mp.testing import assert_balanced, assert_no_loss, tree


def work(number):
    with scope.scope("task", ScopeType.Tool):
        scope.event("step", data=number)


def test_the_fixture_sees_child_processes_as_a_tree(relay_events):
    with scope.scope("run", ScopeType.Agent), pools.get_context("spawn").Pool(2) as pool:
        pool.map(work, range(4), chunksize=1)
    relay_events.assert_balanced()
    relay_events.assert_no_loss()
    (run,) = relay_events.tree()
    assert [child.name for child in run.children] == ["task"] * 4
    assert sorted(node.start.data for node in run.walk() if node.kind == "mark") == [0, 1, 2, 3]
    assert len(relay_events.scopes("task")) == 4 == len(relay_events.marks("step"))
    assert run.find("step").start.name == "step"
    assert run.find("nothing") is None


def test_dicts_from_json_lines_make_the_same_tree(relay_events):
    with scope.scope("run", ScopeType.Agent):
        work(7)
    (node,) = tree(json.loads(event.to_json()) for event in relay_events.events)
    assert [inner.name for inner in node.walk()] == ["run", "task", "step"]
    assert node.end["scope_category"] == "end"


def test_an_open_scope_is_not_balanced(relay_events):
    handle = scope.push("open", ScopeType.Agent)
    with pytest.raises(AssertionError, match="without an end: open"):
        relay_events.assert_balanced()
    scope.pop(handle)
    relay_events.assert_balanced()


def test_starts_and_ends_that_do_not_pair_are_named(relay_events):
    with scope.scope("once", ScopeType.Agent):
        pass
    start, end = relay_events.events
    unpaired = {"started twice": [start, start], "without a start": [end], "ended twice": [start, end, end]}
    for message, wrong in unpaired.items():
        with pytest.raises(AssertionError, match=message):
            assert_balanced(wrong)


def test_a_loss_is_named_with_its_cause():
    def emit_from_inside(event):
        if event.name == "go":
            for _ in range(2000):
                scope.event("too many", data="x" * 100)

    with relay_mp.session(ring_bytes=65536) as session:
        subscribers.register("x", emit_from_inside)
        scope.event("go")
        result = subscribers.flush()
        for found in (result, session, session.stats()):
            with pytest.raises(AssertionError, match="full"):
                assert_no_loss(found)


PYTEST = """
import pytest, sys
without = "cacheprovider hypothesispytest benchmark timeout".split()  # they take their time to import
sys.exit(pytest.main([*sys.argv[1:], *(f"-pno:{plugin}" for plugin in without)]))
"""


def test_pytest_finds_the_fixture_by_itself(run_script, tmp_path):
    """In another project's tests, in processes of pytest's own choosing."""
    (tmp_path / "test_user.py").write_text(
        "import relay_mp\n"
        "def test_it(relay_events):\n"
        "    relay_mp.scope.event('hello')\n"
        "    assert [event.name for event in relay_events.events] == ['hello']\n"
    )
    run_script(PYTEST, tmp_path, "-q")


def test_the_fixture_is_safe_under_xdist(run_script, tmp_path):
    """Two of pytest-xdist's processes, each in a test with a session of its own open at the same time."""
    (tmp_path / "test_user.py").write_text(
        """
import os, pathlib, time

import pytest
import relay_mp
from relay_mp import pools, scope


def emit(name):
    scope.event(name)
    return os.getpid()


def meet(own, other):
    here = pathlib.Path(__file__).parent
    (here / own).touch()
    deadline = time.monotonic() + 50
    while not (here / other).exists():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize(("own", "other"), [("a", "b"), ("b", "a")])
def test_it(relay_events, own, other):
    with scope.scope(own, relay_mp.ScopeType.Agent), pools.get_context("fork").Pool(1) as pool:
        meet(own + " is open", other + " is open")
        pids = {pool.apply(emit, (own,)) for _ in range(20)}
        meet(own + " has emitted", other + " has emitted")
    relay_events.assert_balanced()
    relay_events.assert_no_loss()
    assert [event.name for event in relay_events.events] == [own] * 22
    assert {event.pid for event in relay_events.marks()} == pids
    print(os.environ["PYTEST_XDIST_WORKER"], relay_events.session.id)
"""
    )
    done = run_script(PYTEST, tmp_path, "-n", 2, "-rP")
    assert "2 passed" in done.stdout
    workers, sessions = zip(*re.findall(r"^(gw\d) (\S+)$", done.stdout, re.MULTILINE), strict=True)
    assert sorted(workers) == ["gw0", "gw1"]
    assert len(set(sessions)) == 2


# ----------------------------------------------------------------- programs that have a session of their own


@pytest.mark.parametrize("times", [1, 2])
def test_a_program_that_begins_a_session_joins_the_tests(relay_events, times):
    for _ in range(times):
        seen = []
        with relay_mp.session(ring_bytes=65536) as session:
            subscribers.register("the program's", seen.append)
            work(1)
        assert not session.is_open
        assert [event.name for event in seen] == ["task", "step", "task"]
        session.close()
    assert relay_events.session.is_open
    assert subscribers.deregister("the program's") is False
    work(2)
    assert [node.name for node in relay_events.tree()] == ["task"] * (times + 1)
    relay_events.assert_no_loss()


def test_what_the_test_has_registered_outlives_the_programs_session(relay_events):
    seen = []
    subscribers.register("the test's", seen.append)
    with relay_mp.session():
        subscribers.deregister("the test's")
        subscribers.register("the test's", seen.append)
    work(1)
    relay_events.session.flush()
    assert len(seen) == 3


def test_a_session_joined_by_nobody_is_refused_once_the_test_is_over(run_script, tmp_path):
    (tmp_path / "test_user.py").write_text(
        """
import pytest
import relay_mp

def test_a_registers():
    relay_mp.subscribers.register("app", id)

@pytest.mark.parametrize("number", range(2))
def test_b_listens_to_that_one(relay_events, number):
    with relay_mp.session(), relay_mp.scope.scope("work", relay_mp.ScopeType.Function):
        pass
    assert [node.name for node in relay_events.tree()] == ["work"]

def test_c_the_session_goes_on_and_is_lent_no_more():
    assert relay_mp.subscribers.deregister("app")
    with pytest.raises(relay_mp.SessionError, match="a session inside a session"):
        relay_mp.session()
    relay_mp.scope.event("m", data=b"lenient again")
"""
    )
    assert "4 passed" in run_script(PYTEST, tmp_path, "-q", "-s").stdout


def test_the_fixture_is_strict(relay_events):
    with pytest.raises(relay_mp.PayloadError, match="data.image"):
        scope.event("m", data={"image": b"x"})
    assert relay_events.events == []


@pytest.mark.relay_mp(strict=False)
def test_the_fixture_replaces_where_it_is_told_to(relay_events):
    scope.event("m", data={"image": b"x"})
    assert relay_events.marks()[0].data == {"image": {"relay_mp.unrecorded": {"type": "bytes"}}}


def test_a_fixture_that_finds_no_room_for_a_session_fails_the_test(run_script, tmp_path):
    """Rather than see no events: also where the program would go on without a record."""
    (tmp_path / "test_it.py").write_text(
        "import pytest\n"
        "@pytest.mark.relay_mp(strict=False)\n"
        "def test_it(relay_events):\n"
        "    assert relay_events.events == []\n"
    )
    missing = {"RELAY_MP_DIRECTORY": str(tmp_path / "missing")}
    ran = run_script(PYTEST, tmp_path, "-q", returncode=1, environment=missing)
    assert "relay_events has no session to listen to: no segment can be made in" in ran.stdout
    assert "1 error" in ran.stdout


def refused(results):
    try:
        scope.event("m", data=b"x")
    except relay_mp.PayloadError as error:
        results.put(str(error))


def test_the_fixture_is_strict_in_child_processes(relay_events):
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    child = context.Process(target=refused, args=(results,))
    child.start()
    assert results.get().startswith("data: unsupported type bytes")
    child.join()
    results.close()
    child.close()


def test_its_methods_take_what_the_functions_take(relay_events):
    work(1)
    assert_balanced(relay_events)
    relay_events.assert_balanced(relay_events.events)
    relay_events.assert_no_loss(relay_events.session.stats())
    assert [node.name for node in relay_events.tree(relay_events.marks())] == ["step"]
    assert len(list(relay_events)) == 3
