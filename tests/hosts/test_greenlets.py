"""gevent and eventlet: the library's threads are the system's, and waiting for them lets other greenlets run."""

import pytest

PROGRAM = """
import sys, time, warnings
warnings.simplefilter("ignore")
library, moment, dispatcher, directory = sys.argv[1:]

def patch():
    if library == "gevent":
        from gevent import monkey
        monkey.patch_all()
    else:
        import eventlet
        eventlet.monkey_patch()

if moment == "before":
    patch()
import relay_mp
from relay_mp import ScopeType, _threads, pools, scope, subscribers
if moment == "after":
    patch()
if library == "gevent":
    import gevent
    spawn, join = gevent.spawn, gevent.joinall
else:
    import eventlet
    spawn, join = eventlet.spawn, lambda greenlets: [each.wait() for each in greenlets]

ticks = 0
def tick():
    global ticks
    while True:
        ticks += 1
        time.sleep(0.001)
spawn(tick)

def ticked(wait):
    before = ticks
    result = wait()
    assert ticks > before, f"{wait} has held up the other greenlets"
    return result

def work(number):
    with scope.scope(f"work {number}", ScopeType.Function):
        time.sleep(0.01)  # the others run
        scope.event(f"mark {number}")

seen, threads = [], set()
def look(event):
    seen.append(event)
    threads.add(_threads._current_id())
    _threads.sleep(0.005)

session = relay_mp.session(dispatcher=dispatcher, ring_bytes=1 << 20, directory=directory)
config = relay_mp.AtofExporterConfig()
config.output_directory, config.filename = directory, "events.jsonl"
relay_mp.AtofExporter(config).register("file")
if dispatcher == "thread":
    subscribers.register("look", look)
else:
    subscribers.register("slow", "run_slowly:slow")
with scope.scope("run", ScopeType.Agent) as run:
    join([spawn(pools.propagate(work), number) for number in range(20)])
assert ticked(subscribers.flush).lost == 0
ticked(lambda: [scope.event("large", data="x" * 100_000) for _ in range(40)])  # four times the ring
ticked(session.close)
stats = session.stats()
assert (stats.lost, stats.delivered) == (0, 2 + 20 * 3 + 40), stats
if dispatcher == "thread":
    assert len(seen) == stats.delivered and threads.isdisjoint({_threads._current_id()})

import json
lines = [json.loads(line) for line in open(directory + "/events.jsonl")]
works = {line["uuid"]: line for line in lines if line["name"].startswith("work") and line["scope_category"] == "start"}
marks = [line for line in lines if line["name"].startswith("mark")]
assert len(lines) == stats.delivered and len(works) == len(marks) == 20
assert all(line["parent_uuid"] == run.uuid for line in works.values())
assert all(works[mark["parent_uuid"]]["name"][5:] == mark["name"][5:] for mark in marks)
print("whole")
"""


@pytest.mark.parametrize("dispatcher", ["thread", "process"])
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("library", ["gevent", "eventlet"])
def test_nothing_holds_up_the_other_greenlets(run_script, needs, tmp_path, library, moment, dispatcher):
    """Whether Python is patched before the library is imported, or after."""
    needs(library)
    (tmp_path / "run_slowly.py").write_text("import time\ndef slow(event):\n    time.sleep(0.005)\n")
    environment = {"RELAY_MP_STRICT": "1"}
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{PROGRAM}"
    assert run_script(code, library, moment, dispatcher, tmp_path, environment=environment).stdout == "whole\n"


DEFAULT = """
import sys, warnings
warnings.simplefilter("ignore")
if sys.argv[1] == "gevent":
    from gevent import monkey
    monkey.patch_all()
else:
    import eventlet
    eventlet.monkey_patch()
import atexit, relay_mp
seen = []
atexit.register(lambda: print([event.name for event in seen]))  # runs after what is registered later
relay_mp.subscribers.register("seen", seen.append)  # begins the default session
relay_mp.scope.event("mark")
"""

LATE = """
import signal, sys
import relay_mp
seen = []
session = relay_mp.session()
relay_mp.subscribers.register("seen", seen.append)
from gevent import monkey
monkey.patch_all()
relay_mp.scope.event("mark")
relay_mp.subscribers.flush()
session.close()
print([event.name for event in seen])
"""


def test_a_session_that_began_before_gevent_patched_goes_on(run_script, needs):
    needs("gevent")
    assert run_script(LATE).stdout == "['mark']\n"


@pytest.mark.parametrize("library", ["gevent", "eventlet"])
def test_the_end_of_the_program_closes_the_default_session(run_script, needs, library):
    needs(library)
    assert run_script(DEFAULT, library).stdout == "['mark']\n"


SIGTERM = """
import os, signal
from gevent import monkey
monkey.patch_all()
import gevent, relay_mp
def serve():
    relay_mp.session(on_sigterm="flush")  # in a greenlet of the main thread, which may set handlers
    config = relay_mp.AtofExporterConfig()
    config.output_directory, config.filename = __import__("sys").argv[1], "events.jsonl"
    relay_mp.AtofExporter(config).register("file")
    relay_mp.scope.event("mark")
    os.kill(os.getpid(), signal.SIGTERM)
    gevent.sleep(30)
gevent.spawn(serve).join()
"""


def test_sigterm_delivers_and_exports(run_script, needs, tmp_path):
    needs("gevent")
    run_script(SIGTERM, tmp_path, returncode=-15)
    assert '"mark"' in (tmp_path / "events.jsonl").read_text()
