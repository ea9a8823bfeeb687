"""What a forked child has a copy of, and how it may end: the program of test_copies.py, in an interpreter of its own.

    the parent makes a thing ──▶ a child for each way: it ends ──▶ the parent uses the thing on ──▶ all is complete

A thing that can be ended is a function here that makes one, and calls `fork_children` while it is in use.
"""

import contextlib
import gc
import json
import os
import signal
import sys
import threading

import relay_mp
from relay_mp import (
    LLMRequest,
    ScopeType,
    ToolExecutionResult,
    guardrails,
    llm,
    plugin,
    scope,
    scope_local,
    subscribers,
    tools,
)

CHILD_SECONDS = 20
PARENT = os.getpid()


class Rows:
    """Writes down what a subscriber sees, wherever the dispatcher is."""

    def __init__(self, path):
        self._path = path

    def __call__(self, event):
        row = [event.pid, event.name, getattr(event, "scope_category", None)]
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def rows(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


# ------------------------------------------------------------------------------------------ ways in which a child ends


def by_its_verb(_thing, end):
    end()
    os._exit(0)


def by_its_verb_twice(_thing, end):
    for _ in range(2):
        with contextlib.suppress(relay_mp.RelayError):
            end()
    os._exit(0)


def by_garbage_collection(thing, _end):
    thing.clear()
    gc.collect()
    os._exit(0)


def by_sys_exit(_thing, _end):
    sys.exit(0)  # out of all blocks that the parent is in, and through atexit


def by_an_exception(_thing, _end):
    raise RuntimeError("of the child")


def by_os_exit(_thing, _end):
    os._exit(0)


def by_sigkill(_thing, _end):
    os.kill(os.getpid(), signal.SIGKILL)


WAYS = [
    by_its_verb,
    by_its_verb_twice,
    by_garbage_collection,
    by_sys_exit,
    by_an_exception,
    by_os_exit,
    by_sigkill,
]
MARKS = [f"after {way.__name__}" for way in WAYS]


def fork_children(thing, end):
    """One child a way, each of which has ended before the next; the parent emits a mark after each."""
    for way, mark in zip(WAYS, MARKS, strict=True):
        child = os.fork()
        if child == 0:
            signal.alarm(CHILD_SECONDS)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            way(thing, end)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status != -signal.SIGALRM, f"the child hangs: {way.__name__}"
        scope.event(mark)


# --------------------------------------------------------------------------------------------- things that can be ended


def the_session(session, _folder):
    fork_children([session], session.close)


def the_session_by_shutdown(session, _folder):
    fork_children([session], relay_mp.shutdown)


def the_sessions_statistics(session, _folder):
    fork_children([session], session.stats)


def a_thread_that_is_left_behind(session, _folder):
    """It goes on in a process that has left the session."""

    def leave():
        has_left, is_done = threading.Event(), threading.Event()

        def work():
            has_left.wait()
            with scope.scope("of a child", ScopeType.Agent):
                scope.event("of a child")
            is_done.set()

        threading.Thread(target=work, daemon=True).start()
        session.close()
        has_left.set()
        assert is_done.wait(CHILD_SECONDS)

    fork_children([session], leave)


def a_subscriber(session, _folder):
    fork_children([session], lambda: subscribers.deregister("rows"))


def a_subscriber_by_the_inherited_session(session, _folder):
    fork_children([session], lambda: session.deregister("rows", None))


def a_subscriber_of_a_scope(_session, folder):
    with scope.scope("outer", ScopeType.Agent) as handle:
        local = {"path": f"{folder}/local"}
        scope_local.register_subscriber(handle, "local", "copies:Rows", arguments=local)
        fork_children([handle], lambda: scope_local.deregister_subscriber(handle, "local"))
    subscribers.flush()
    assert [name for _, name, _ in rows(f"{folder}/local")] == [*MARKS, "outer"]


def a_scope(_session, _folder):
    with scope.scope("outer", ScopeType.Agent) as handle:
        fork_children([handle], lambda: scope.pop(handle))


def a_tool_call(_session, _folder):
    def tool(_args):
        fork_children([], lambda: sys.exit(0))
        return ToolExecutionResult(1)

    assert tools.execute_sync("outer", {}, tool).result == 1


def a_tool_call_with_middleware(session, folder):
    guardrails.register_tool_conditional_execution("guardrail", 1, lambda _name, _args: None)
    a_tool_call(session, folder)


def a_guardrail(_session, _folder):
    guardrails.register_tool_conditional_execution("guardrail", 1, lambda _name, _args: fork_children([], sys.exit))
    assert tools.execute_sync("outer", {}, lambda _args: ToolExecutionResult(1)).result == 1


def an_llm_call(_session, _folder):
    def provider(_request):
        fork_children([], lambda: sys.exit(0))
        return {"answer": 1}

    assert llm.execute_sync("outer", LLMRequest({}, {}), provider) == {"answer": 1}


def a_stream(_session, folder):
    def chunks(_request):
        yield from ({"n": 1}, {"n": 2})

    def finalize():
        with open(f"{folder}/finalized", "a", encoding="utf-8") as file:
            file.write(f"{os.getpid()} ")

    things = [llm.stream_execute_sync("outer", LLMRequest({}, {}), chunks, lambda _chunk: None, finalize)]
    next(things[0])

    def close():
        things[0].close()

    fork_children(things, close)
    assert list(things[0]) == [{"n": 2}]
    with open(f"{folder}/finalized", encoding="utf-8") as file:
        assert file.read() == f"{PARENT} "


def a_decorated_generator(_session, _folder):
    @scope.scope("outer", ScopeType.Function)
    def numbers():
        yield 1
        yield 2

    things = [numbers()]
    assert next(things[0]) == 1

    def close():
        things[0].close()

    fork_children(things, close)
    assert list(things[0]) == [2]


def atof(folder):
    return relay_mp.AtofExporter(relay_mp.AtofExporterConfig(output_directory=folder, filename="events.jsonl"))


def perfetto(folder):
    return relay_mp.PerfettoExporter(f"{folder}/trace.json")


def trajectories(folder):
    return relay_mp.AtifFileExporter(folder)


def _exports_on(exporter, verb):
    exporter.register("exporter")
    with scope.scope("outer", ScopeType.Agent):
        fork_children([exporter], verb)
    assert exporter.force_flush()
    (report,) = exporter.report().values()
    assert (report.state, report.taken, report.exported, report.lost) == ("running", 2 + len(WAYS), 2 + len(WAYS), 0)
    exporter.shutdown()


def an_atof_exporter(_session, folder):
    exporter = atof(folder)
    _exports_on(exporter, exporter.shutdown)
    assert [row["name"] for row in rows(f"{folder}/events.jsonl")] == ["outer", *MARKS, "outer"]


def an_atof_exporter_by_deregister(_session, folder):
    exporter = atof(folder)
    _exports_on(exporter, lambda: exporter.deregister("exporter"))
    assert [row["name"] for row in rows(f"{folder}/events.jsonl")] == ["outer", *MARKS, "outer"]


def an_atof_exporter_by_its_name(_session, folder):
    _exports_on(atof(folder), lambda: subscribers.deregister("exporter"))


def a_perfetto_exporter(_session, folder):
    exporter = perfetto(folder)
    _exports_on(exporter, exporter.shutdown)
    with open(f"{folder}/trace.json", encoding="utf-8") as file:
        drawn = [row["name"] for row in json.load(file) if row["ph"] in "Xi"]
    assert sorted(drawn) == sorted(["outer", *MARKS])


def an_atif_file_exporter(_session, folder):
    exporter = trajectories(folder)
    _exports_on(exporter, exporter.shutdown)
    (name,) = (name for name in os.listdir(folder) if name.startswith("relay-mp-atif-"))
    with open(f"{folder}/{name}", encoding="utf-8") as file:
        written = file.read()
    assert all(mark in written for mark in MARKS)


def an_atif_exporter(_session, _folder):
    exporter = relay_mp.AtifExporter("s", "agent", "1")
    exporter.register("atif")
    fork_children([exporter], lambda: (exporter.clear(), exporter.deregister("atif")))
    subscribers.flush()
    assert all(mark in exporter.export_json() for mark in MARKS)
    assert exporter.deregister("atif")


def a_configuration_of_plugins(session, folder):
    sink = {"type": "file", "output_directory": folder, "filename": "plugins.jsonl"}
    config = {"atof": {"enabled": True, "sinks": [sink]}}
    plugin.activate({"version": 1, "components": [{"kind": "observability", "config": config}]})
    fork_children([session], plugin.clear)
    subscribers.flush()
    assert [row["name"] for row in rows(f"{folder}/plugins.jsonl")] == MARKS
    plugin.clear()


THINGS = [
    the_session,
    the_session_by_shutdown,
    the_sessions_statistics,
    a_thread_that_is_left_behind,
    a_subscriber,
    a_subscriber_by_the_inherited_session,
    a_subscriber_of_a_scope,
    a_scope,
    a_tool_call,
    a_tool_call_with_middleware,
    a_guardrail,
    an_llm_call,
    a_stream,
    a_decorated_generator,
    an_atof_exporter,
    an_atof_exporter_by_deregister,
    an_atof_exporter_by_its_name,
    a_perfetto_exporter,
    an_atif_file_exporter,
    an_atif_exporter,
    a_configuration_of_plugins,
]


def fork_in_a_callback():
    """A child that is forked there is in the dispatcher's thread, and leaves it in each way; a worker then emits on."""

    def fork(event):
        if event.name == "fork":
            fork_children([], lambda: sys.exit(0))

    seen = []
    with relay_mp.session(ring_bytes=1 << 16):
        subscribers.register("forks", fork)
        subscribers.register("seen", lambda event: seen.append(event.name))
        scope.event("fork")
        subscribers.flush()
        worker = os.fork()
        if worker == 0:
            for _ in range(1000):  # more than the ring has room for
                scope.event("of a worker", data="x" * 100)
            os._exit(subscribers.flush().lost)
        print(os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]), subscribers.flush().lost)
    print(seen == ["fork", *MARKS, *["of a worker"] * 1000])


# -------------------------------------------------------------------------------------------------------------- the run


def run(name, dispatcher, folder):
    """Makes one thing, ends its copies in every way, and holds that the parent's is complete."""
    session = relay_mp.session(dispatcher=dispatcher)
    subscribers.register("rows", "copies:Rows", arguments={"path": f"{folder}/rows"})
    globals()[name](session, folder)
    scope.event("at the end")
    assert subscribers.flush().lost == 0
    stats = session.stats()
    assert (stats.lost, stats.pending, stats.subscriber_errors) == (0, 0, 0), stats
    assert os.path.exists(session.path)
    session.close()
    assert not os.path.exists(session.path)
    _check(rows(f"{folder}/rows"))
    print("as if there had been no child")


def _check(seen):
    assert {pid for pid, _, _ in seen} == {PARENT}, seen
    names = [name for _, name, _ in seen]
    assert [name for name in names if name in MARKS] == MARKS
    assert names[-1] == "at the end"
    starts = sorted(name for _, name, category in seen if category == "start")
    assert starts == sorted(name for _, name, category in seen if category == "end"), seen


def die_with_a_living_child(folder):
    """The owner of a trace and of a file of lines is killed; a child that it had forked lives on until it is told."""
    relay_mp.session(directory=folder)
    perfetto(folder).register("trace")
    atof(folder).register("lines")
    child = os.fork()
    if child == 0:
        os.close(1)
        os.close(2)
        signal.pause()
    print(child, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def replace_the_program(dispatcher, folder, rounds=3):
    """The owner becomes another program again and again, as a server that reloads does, with a worker that goes on."""
    number = int(os.environ.get("ROUND", "0"))
    if number:
        scope.event("before any session")  # the first look at what the parent, here the program before, left word of
    session = relay_mp.session(
        dispatcher=dispatcher, directory=folder, recovery_directory=folder, ring_bytes=1 << 16, block_timeout_seconds=60
    )
    subscribers.register("rows", "copies:Rows", arguments={"path": f"{folder}/rows"})
    scope.event(f"of round {number}")
    if number == rounds:
        subscribers.flush()
        session.close()
        print(os.getpid() == int(os.environ["FIRST"]), *sorted(os.listdir(folder)))
        return
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.close(writing)
        os.read(reading, 1)  # until the program has become another
        for _ in range(1000):  # more than the ring has room for: nobody waits for whom nobody reads
            scope.event("of an old worker", data="x" * 200)
        os._exit(0)
    os.environ.update(ROUND=str(number + 1), FIRST=os.environ.get("FIRST", str(os.getpid())))
    code = f"import copies; copies.replace_the_program({dispatcher!r}, {folder!r})"
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    os.execv(sys.executable, [sys.executable, "-c", code])
