"""The owner's middleware is active in every worker before its first event, however the worker is started.

{fork, spawn, forkserver} x {Process, Pool, ProcessPoolExecutor}, and subprocess
"""

import concurrent.futures
import logging
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import across
import msgpack
import pytest
from across import MARKER, SECRET

import relay_mp
from relay_mp import ConfigurationError, ScopeType, plugin, pools, scope
from relay_mp._deliver import named
from relay_mp._emit.families import FAMILIES
from relay_mp._emit.middleware import Registration, registry
from relay_mp._native.segments import Segment
from relay_mp._session.configuration import diagnostics, table
from relay_mp.types import RuntimeRegistrationKind as Kind

METHODS = ["fork", "spawn", "forkserver"]
UNFORKED = ["spawn", "forkserver"]
TIMEOUT_SECONDS = 60

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(autouse=True)
def _nothing_registered_after(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("ACROSS_OWNER", str(os.getpid()))
    yield
    plugin.clear()
    for kind in set(plugin.list_kinds()) - set(plugin.BUILT_IN):
        plugin.deregister(kind)
    registry.exchange(remove=registry.all())
    diagnostics._failed.clear()


def add(kind: Kind, name: str, callback: Any, arguments: dict[str, Any] | None = None, **more: Any) -> Registration:
    """Registers a callable, or one by its name."""
    target = callback if isinstance(callback, str) else None
    call = named.resolve(callback, arguments) if isinstance(callback, str) else callback
    registration = Registration(
        family=FAMILIES[kind], name=name, priority=10, callback=call, target=target, arguments=arguments, **more
    )
    registry.exchange(add=[registration])
    return registration


def add_redactors(**more: Any) -> None:
    add(Kind.MARK_SANITIZE_GUARDRAIL, "marks", "across:Redactor", {"marker": MARKER}, **more)
    add(Kind.SCOPE_SANITIZE_START_GUARDRAIL, "starts", across.redact, **more)


# ------------------------------------------------------------------------------------- ways to have a worker


def in_process(api: Any, method: str, target: Callable[..., Any]) -> None:
    process = api.get_context(method).Process(target=target)
    process.start()
    process.join(TIMEOUT_SECONDS)
    assert process.exitcode == 0
    process.close()


def in_pool(api: Any, method: str, target: Callable[..., Any]) -> None:
    with api.get_context(method).Pool(2) as pool:
        pool.map(target, [None])
        pool.close()
        pool.join()


def in_executor(api: Any, method: str, target: Callable[..., Any]) -> None:
    executor = pools.ProcessPoolExecutor if api is pools else concurrent.futures.ProcessPoolExecutor
    with executor(2, mp_context=api.get_context(method)) as pool:
        list(pool.map(target, [None]))


def in_subprocess(api: Any, _method: str, _target: Callable[..., Any]) -> None:
    environment = pools.environ() if api is pools else None
    subprocess.run([sys.executable, across.__file__], env=environment, timeout=TIMEOUT_SECONDS, check=True)


WAYS = [*((way, method) for way in (in_process, in_pool, in_executor) for method in METHODS), (in_subprocess, "exec")]
IN_CI = {(in_process, method) for method in METHODS} | {(in_pool, "forkserver"), (in_executor, "spawn"), WAYS[-1]}
WAYS_TO_TEST = [
    pytest.param(*way, id=f"{way[0].__name__}-{way[1]}", marks=[] if way in IN_CI else [pytest.mark.long])
    for way in WAYS
]


def is_in_memory(session: relay_mp.Session, text: str) -> bool:
    return text.encode() in Path(session.path).read_bytes()


class Running:
    """A worker that emits a mark when it is told to, until the block ends."""

    def __init__(self, method: str) -> None:
        context = multiprocessing.get_context(method)
        self._ours, self._theirs = context.Pipe()
        self._process = context.Process(target=across.work_on_request, args=(self._theirs,))

    def __enter__(self) -> "Running":
        self._process.start()
        return self

    def emit(self, name: str) -> None:
        self._ours.send(name)
        assert self._ours.poll(TIMEOUT_SECONDS)
        assert self._ours.recv() == name

    def __exit__(self, *failure: object) -> None:
        if failure[0] is None:
            self._ours.send(None)
            self._process.join(TIMEOUT_SECONDS)
        self._process.kill()
        self._process.join()
        self._process.close()
        self._ours.close()
        self._theirs.close()


# ------------------------------------------------------------------------------------------ what is active


@pytest.mark.parametrize(("way", "method"), WAYS_TO_TEST)
def test_middleware_is_active_before_a_workers_first_event(session, seen, way, method):
    add_redactors()
    plugin.register("noting", across.NotingPlugin())
    plugin.activate({"components": [{"kind": "noting", "config": {"says": "hello"}}]})
    with scope.scope("local", ScopeType.Agent) as handle:
        add(Kind.MARK_SANITIZE_GUARDRAIL, "local", across.note_scope, scope=handle._uuid)
        way(pools, method, across.work)
    way(multiprocessing, method, across.work)
    session.flush()
    inside, outside = [event for event in seen if event.name == "m"]
    assert inside.pid != os.getpid()
    assert inside.data == outside.data | {"pid": inside.data["pid"]}
    assert inside.data["key"] == "redacted"
    assert (inside.metadata, outside.metadata) == ({"local": True, "plugin": "hello"}, {"plugin": "hello"})
    starts = [event for event in seen if event.name == "s" and event.scope_category == "start"]
    assert [event.data["key"] for event in starts] == ["redacted"] * 2
    assert not is_in_memory(session, SECRET)
    assert session.stats().middleware_failures == 0


def test_without_middleware_the_secret_is_in_memory(session, seen):
    in_process(multiprocessing, "spawn", across.work)
    session.flush()
    assert is_in_memory(session, SECRET)


@pytest.mark.parametrize("method", METHODS)
def test_what_a_process_lists_is_the_owners(session, seen, method):
    add_redactors()
    add(Kind.LLM_REQUEST_INTERCEPT, "model", "across:instead_of_the_call", break_chain=True)
    with multiprocessing.get_context(method).Pool(1) as pool:
        (found,) = pool.map(across.registrations, [None])
        pool.close()
        pool.join()
    assert [row[:2] for row in found] == [(each.family.kind.value, each.name) for each in registry.all()]
    assert {row[2] for row in found} == {method != "fork"}


@pytest.mark.parametrize("method", METHODS)
def test_workers_that_run_see_what_comes_and_goes(session, seen, method):
    plugin.register("noting", "across:NotingPlugin")
    with Running(method) as worker:
        worker.emit("before")
        plugin.activate({"components": [{"kind": "noting", "config": {"says": "one"}}]})
        worker.emit("one")
        plugin.activate({"components": [{"kind": "noting", "config": {"says": "two"}}]})
        redactor = add(Kind.MARK_SANITIZE_GUARDRAIL, "marks", "across:Redactor", {"marker": MARKER, "by": "***"})
        worker.emit("two")
        registry.exchange(remove=[redactor])
        plugin.clear()
        worker.emit("after")
    session.flush()
    found = {event.name: (event.metadata, event.data["key"]) for event in seen}
    assert found == {
        "before": (None, SECRET),
        "one": ({"plugin": "one"}, SECRET),
        "two": ({"plugin": "two"}, "***"),
        "after": (None, SECRET),
    }


@pytest.mark.parametrize("method", METHODS)
def test_an_llm_intercept_and_a_guardrail_work_in_a_worker(session, method):
    """Nobody subscribes: what changes a call does not depend on whether anybody looks."""
    add(Kind.LLM_REQUEST_INTERCEPT, "model", "across:instead_of_the_call")
    add(Kind.TOOL_CONDITIONAL_EXECUTION_GUARDRAIL, "no", "across:no_deleting")
    with multiprocessing.get_context(method).Pool(1) as pool:
        model, said = pool.apply(across.call_model_and_tool)
        pool.close()
        pool.join()
    assert model == "intercepted"
    assert "no deleting" in said


def test_a_guardrail_that_a_worker_cannot_have_lets_no_call_through(session, seen):
    add(Kind.TOOL_CONDITIONAL_EXECUTION_GUARDRAIL, "no", "across:owners_only", {})
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        _, said = pool.apply(across.call_model_and_tool)
        pool.close()
        pool.join()
    assert "cannot be had here" in said
    assert session.stats().middleware_failures == 1


def test_scope_local_middleware_goes_with_its_scope(session, seen):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        with scope.scope("local", ScopeType.Agent) as handle:
            add(Kind.MARK_SANITIZE_GUARDRAIL, "local", across.note_scope, scope=handle._uuid)
            inside = pool.map(pools.propagate(across.registrations), [None])[0]
        after = pool.map(across.registrations, [None])[0]
        pool.close()
        pool.join()
    assert [name for _, name, _ in inside] == ["local"]
    assert after == []


def test_two_sessions_of_a_worker_do_not_mix(run_script):
    """A worker that goes from one session to another has the other's middleware, not the first's."""
    run_script(
        """
import multiprocessing, across, relay_mp
from relay_mp import pools
from relay_mp._emit.families import FAMILIES
from relay_mp._emit.middleware import Registration, registry
from relay_mp.types import RuntimeRegistrationKind as Kind

def named(name):
    return Registration(family=FAMILIES[Kind.MARK_SANITIZE_GUARDRAIL], name=name, priority=1, callback=across.redact)

def names(pool):
    return [name for _, name, _ in pool.map(pools.propagate(across.registrations), [None])[0]]

if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        first, second = named("first"), named("second")
        with relay_mp.session():
            relay_mp.subscribers.register("s", print)
            registry.exchange(add=[first])
            assert names(pool) == ["first"]
        with relay_mp.session():
            relay_mp.subscribers.register("s", print)
            registry.exchange(remove=[first], add=[second])
            assert names(pool) == ["second"]
        pool.close()
        pool.join()
"""
    )


def test_dispatcher_process_has_it_too(run_script):
    """With dispatcher="process", what a worker emits is sanitized as well."""
    run_script(
        """
import multiprocessing, across, named_subscribers, relay_mp
from across import MARKER, SECRET
from relay_mp._emit.families import FAMILIES
from relay_mp._emit.middleware import Registration, registry
from relay_mp.types import RuntimeRegistrationKind as Kind
from pathlib import Path

if __name__ == "__main__":
    with relay_mp.session(dispatcher="process") as session:
        relay_mp.subscribers.register("s", "builtins:repr")
        registry.exchange(add=[Registration(family=FAMILIES[kind], name="r", priority=1, callback=across.redact)
                               for kind in (Kind.MARK_SANITIZE_GUARDRAIL, Kind.SCOPE_SANITIZE_START_GUARDRAIL)])
        process = multiprocessing.get_context("spawn").Process(target=across.work)
        process.start()
        process.join(60)
        assert session.flush().lost == 0 and session.stats().delivered == 3
        memory = Path(session.path).read_bytes()
        assert SECRET.encode() not in memory and b"redacted" in memory
"""
    )


# ---------------------------------------------------------------------------------- what does not get there


def by_lambda() -> None:
    add(Kind.MARK_SANITIZE_GUARDRAIL, "lambda", lambda event, fields: fields)


def by_plugin() -> None:
    plugin.register("stateful", across.PluginWithState())
    plugin.activate({"components": [{"kind": "stateful", "config": {"says": "x"}}]})


STATEFUL = "relay-mp-plugin.v1.stateful:1:note"


@pytest.mark.parametrize(
    ("way", "method", "register", "name"),
    [
        (in_process, "spawn", by_lambda, "lambda"),
        (in_executor, "forkserver", by_plugin, STATEFUL),
        (in_pool, "forkserver", by_lambda, "lambda"),
    ],
)
def test_what_cannot_cross_is_told_once_by_the_parent(session, seen, caplog, capfd, way, method, register, name):
    register()
    with caplog.at_level(logging.WARNING, "relay_mp"):
        in_process(multiprocessing, "fork", across.work)
        assert caplog.messages == []  # a fork has it
        way(multiprocessing, method, across.work)
        way(multiprocessing, method, across.work)
    (told,) = caplog.messages
    assert told.startswith(f"mark_sanitize_guardrail '{name}' does not reach workers that are not forked: ")
    assert "package.module:attribute" in told
    assert "does not reach" not in capfd.readouterr().err  # nor do the workers repeat it
    (found,) = plugin.report()["runtime_diagnostics"]
    assert (found["code"], found["component"], found["count"]) == ("middleware.unreachable", name, 1)


def test_what_cannot_cross_is_told_by_a_subprocess_that_nobody_has_told(session, seen, caplog, capfd):
    by_lambda()
    in_subprocess(multiprocessing, "exec", across.work)
    in_subprocess(multiprocessing, "exec", across.work)
    assert caplog.messages == []
    assert capfd.readouterr().err.count("mark_sanitize_guardrail 'lambda' does not reach workers") == 1


def test_environ_tells_what_cannot_cross(session, caplog):
    by_lambda()
    pools.environ()
    pools.environ()
    assert len(caplog.messages) == 1


@pytest.mark.parametrize(
    ("register", "said"),
    [
        (lambda: add(Kind.MARK_SANITIZE_GUARDRAIL, "r", "across:owners_only", {}), "ImportError: not in a worker"),
        (lambda: _activate("across:Forgetful"), "has not registered 'note' in this process"),
    ],
)
def test_a_sanitizer_that_a_worker_cannot_have_withholds_the_payload(session, seen, capfd, register, said):
    register()
    in_process(multiprocessing, "spawn", across.work)
    in_process(multiprocessing, "spawn", across.work_three)
    assert session.flush().lost == 0
    assert [event.data for event in seen if event.kind == "mark"] == [None] * 4
    assert session.stats().middleware_failures == 2  # once for each process, not for each event
    err = capfd.readouterr().err
    assert err.count("cannot be had here") >= 2
    assert said in err
    (found,) = plugin.report()["runtime_diagnostics"]
    assert (found["code"], found["count"]) == ("middleware.worker_failures", 2)


def _activate(target: str, **config: Any) -> None:
    plugin.register("p", target)
    plugin.activate({"components": [{"kind": "p", "config": config}]})


def test_a_processes_own_registration_takes_the_place_of_one_that_arrives(session, seen):
    add_redactors()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        result = pool.apply(across.register_own)
        pool.close()
        pool.join()
    assert result == [("marks", False), ("starts", True)]


# ------------------------------------------------------------------------------------------------ bounds


def test_configuration_bytes_bounds_what_is_shared():
    with relay_mp.session(configuration_bytes=1024) as session:
        before = registry.all()
        with pytest.raises(ConfigurationError, match=r"need \d+ bytes and have 1020.*RELAY_MP_CONFIGURATION_BYTES"):
            add(Kind.MARK_SANITIZE_GUARDRAIL, "r", "across:Redactor", {"marker": "x" * 1024})
        assert registry.all() == before  # taken back: it is active here if and only if it is in the workers
        assert session._segment.load_configuration()[1] == msgpack.packb([table.FORMAT, [], []])
        with pytest.raises(ConfigurationError):
            _activate("across:NotingPlugin", says="x" * 1024)
        assert registry.all() == before
        assert plugin.report() is None
    with relay_mp.session(configuration_bytes=4096):
        add(Kind.MARK_SANITIZE_GUARDRAIL, "r", "across:Redactor", {"marker": "x" * 1024})


def test_configuration_may_fill_its_place_to_the_last_byte():
    with relay_mp.session(configuration_bytes=1024) as session:
        first = add(Kind.MARK_SANITIZE_GUARDRAIL, "r", "across:Redactor", {"marker": "x" * 300})
        free = 1020 - len(session._segment.load_configuration()[1])
        registry.exchange(remove=[first])
        with pytest.raises(ConfigurationError, match="need 1021 bytes"):
            add(Kind.MARK_SANITIZE_GUARDRAIL, "r", "across:Redactor", {"marker": "x" * (301 + free)})
        add(Kind.MARK_SANITIZE_GUARDRAIL, "r", "across:Redactor", {"marker": "x" * (300 + free)})
        assert len(session._segment.load_configuration()[1]) == 1020


def test_a_session_that_has_no_room_for_what_is_registered_does_not_start():
    add(Kind.MARK_SANITIZE_GUARDRAIL, "r", "across:Redactor", {"marker": "x" * 2000})
    with pytest.raises(ConfigurationError, match="configuration_bytes"):
        relay_mp.session(configuration_bytes=1024)
    with relay_mp.session() as session:
        assert len(table.decode(session._segment.load_configuration()[1])) == 1


def test_arguments_that_are_no_json_are_refused(session):
    with pytest.raises(relay_mp.PayloadError, match="arguments.marker"):
        add(Kind.MARK_SANITIZE_GUARDRAIL, "r", "across:Redactor", {"marker": object()})
    assert registry.all() == []


# ------------------------------------------------------------------------------------------- a damaged table


def break_checksum(path: str) -> None:
    with open(path, "r+b") as file:
        at = file.read().index(b"llm_request_intercept")
        file.seek(at)
        file.write(b"?")


def break_content(path: str) -> None:
    segment = Segment.attach(path)
    segment.store_configuration(b"\xc1")
    segment.close()


def break_length(path: str) -> None:
    """Says of the copy that it is longer than its place."""
    segment = Segment.attach(path)
    found = segment.load_configuration()[1]
    assert found is not None
    with open(path, "r+b") as file:
        header = file.read(4096)
        word = next(
            header[at : at + 8]
            for at in range(0, 4096, 8)
            if int.from_bytes(header[at : at + 8], sys.byteorder) >> 32 == len(found)
        )
        file.seek(header.index(word))
        file.write((1 << 63 | int.from_bytes(word, sys.byteorder)).to_bytes(8, sys.byteorder))
    segment.close()


@pytest.mark.parametrize("damage", [break_checksum, break_content, break_length])
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_worker_that_reads_a_damaged_table_withholds_payloads(session, seen, capfd, damage, method):
    with Running(method) as worker:
        worker.emit("whole")
        for name in ("r", "r2"):  # so that both copies have it
            add(Kind.LLM_REQUEST_INTERCEPT, name, "across:instead_of_the_call")
        add(Kind.MARK_SANITIZE_GUARDRAIL, "note", across.note_scope)
        damage_both(session.path, damage)
        worker.emit("damaged")
        add(Kind.MARK_SANITIZE_GUARDRAIL, "again", across.note_scope)
        worker.emit("mended")
    assert session.flush().lost == 0
    assert [(event.name, event.data and event.data["key"]) for event in seen] == [
        ("whole", SECRET),
        ("damaged", None),
        ("mended", SECRET),
    ]
    assert method == "fork" or "withholds payloads" in capfd.readouterr().err  # a fork has pytest's log handlers
    assert session.stats().middleware_failures == 1


def damage_both(path: str, damage: Callable[[str], None]) -> None:
    damage(path)
    if damage is not break_content:
        segment = Segment.attach(path)
        while segment.load_configuration()[1] is not None:
            damage(path)
        segment.close()
