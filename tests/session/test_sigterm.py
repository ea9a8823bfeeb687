"""A SIGTERM under `on_sigterm="flush"`: what was emitted is exported, then the program does as it had done."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

import relay_mp

TIMEOUT_SECONDS = 60

PROLOGUE = """
import os, signal, sys, threading, time
import relay_mp
from relay_mp import ScopeType, scope, subscribers

def terminate():
    os.kill(os.getpid(), signal.SIGTERM)

def export():
    config = relay_mp.AtofExporterConfig()
    config.output_directory, config.filename = ".", "events.jsonl"
    exporter = relay_mp.AtofExporter(config)
    exporter.register("atof")
    return exporter

def lines():
    with open("events.jsonl") as file:
        return file.read().count("\\n")
"""


@pytest.fixture
def run(tmp_path):
    """Runs a program in a directory of its own, where its segment lies too."""

    def run(program, **variables):
        where = {"RELAY_MP_DIRECTORY": str(tmp_path), "RELAY_MP_RECOVERY_DIRECTORY": str(tmp_path)}
        return subprocess.run(
            [sys.executable, "-c", PROLOGUE + program],
            cwd=tmp_path,
            env={**os.environ, **where, **variables},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )

    return run


def exported(directory):
    return [json.loads(line)["name"] for line in (directory / "events.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("dispatcher", ["thread", "process"])
@pytest.mark.parametrize("rest_seconds", ["0", "0.5"])
def test_a_program_without_a_handler_ends_of_the_signal_with_everything_exported(
    run, tmp_path, dispatcher, rest_seconds
):
    ran = run(
        """
relay_mp.session(on_sigterm="flush")
export()
with scope.scope("outer", ScopeType.Agent):
    for number in range(200):
        scope.event("done")
    time.sleep(float(os.environ["REST"]))
    terminate()
    time.sleep(60)
""",
        RELAY_MP_DISPATCHER=dispatcher,
        REST=rest_seconds,
    )
    assert ran.returncode == -signal.SIGTERM, ran.stderr
    assert exported(tmp_path) == ["outer"] + ["done"] * 200
    assert ran.stderr == ""
    assert not list(tmp_path.glob("relay_mp-*")), "the segment is left"


def test_the_variable_says_the_same(run, tmp_path):
    program = 'export(); scope.event("one"); terminate(); time.sleep(60)'
    ran = run(program, RELAY_MP_ON_SIGTERM="flush")
    assert ran.returncode == -signal.SIGTERM, ran.stderr
    assert exported(tmp_path) == ["one"]


def test_by_default_there_is_no_handler(run):
    ran = run("relay_mp.session(); print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)")
    assert ran.stdout == "True\n", ran.stderr


def test_a_handler_of_the_program_is_called_behind_it_and_the_session_goes_on(run, tmp_path):
    ran = run("""
def stop(number, frame):
    print("stop", number == signal.SIGTERM, lines())

signal.signal(signal.SIGTERM, stop)
session = relay_mp.session(on_sigterm="flush")
export()
for turn in range(2):
    for number in range(100):
        scope.event("before")
    terminate()
scope.event("after")
session.close()
print(signal.getsignal(signal.SIGTERM) is stop, lines())
""")
    assert ran.stdout == "stop True 100\nstop True 200\nTrue 201\n", ran.stderr


def test_what_the_programs_handler_raises_is_the_programs(run, tmp_path):
    ran = run("""
def stop(number, frame):
    sys.exit(7)

signal.signal(signal.SIGTERM, stop)
with relay_mp.session(on_sigterm="flush"):
    export()
    scope.event("one")
    terminate()
""")
    assert ran.returncode == 7, ran.stderr
    assert exported(tmp_path) == ["one"]


def test_where_the_program_ignores_it_the_program_goes_on(run, tmp_path):
    ran = run("""
signal.signal(signal.SIGTERM, signal.SIG_IGN)
session = relay_mp.session(on_sigterm="flush")
export()
scope.event("one")
terminate()
print(lines())
session.close()
print(signal.getsignal(signal.SIGTERM) is signal.SIG_IGN)
""")
    assert ran.stdout == "1\nTrue\n", ran.stderr


def test_a_handler_that_was_set_later_stays(run):
    ran = run("""
def later(number, frame):
    print("later")

session = relay_mp.session(on_sigterm="flush")
signal.signal(signal.SIGTERM, later)
terminate()
session.close()
print(signal.getsignal(signal.SIGTERM) is later)
""")
    assert ran.stdout == "later\nTrue\n", ran.stderr


@pytest.mark.parametrize("from_thread", [False, True])
def test_a_forked_child_has_the_earlier_handler_and_ends_nothing_of_its_parents(run, tmp_path, from_thread):
    ran = run(f"""
session = relay_mp.session(on_sigterm="flush")
export()

def fork():
    child = os.fork()
    if child == 0:
        scope.event("child")
        was = signal.getsignal(signal.SIGTERM)
        if was is not signal.SIG_DFL:
            os._exit(1)
        terminate()
        time.sleep(60)
    print(os.waitpid(child, 0)[1] == signal.SIGTERM, session.is_open, flush=True)

if {from_thread}:
    thread = threading.Thread(target=fork)
    thread.start()
    thread.join()
else:
    fork()
scope.event("parent")
terminate()
time.sleep(60)
""")
    assert (ran.returncode, ran.stdout) == (-signal.SIGTERM, "True True\n"), ran.stderr
    assert exported(tmp_path) == ["child", "parent"]


def test_one_that_comes_while_the_session_closes_is_answered_when_it_is_closed(run, tmp_path):
    ran = run("""
def slow(event):
    if event.name == "first":
        while session.is_open:
            time.sleep(0.001)
        terminate()
    time.sleep(0.02)

session = relay_mp.session(on_sigterm="flush")
export()
subscribers.register("slow", slow)
for number in range(21):
    scope.event("first" if number == 0 else "more")
session.close()
print("not here")
""")
    assert (ran.returncode, ran.stdout) == (-signal.SIGTERM, ""), ran.stderr
    assert len(exported(tmp_path)) == 21


def test_the_deadline_ends_the_wait_and_says_so(run, tmp_path):
    started = time.monotonic()
    ran = run("""
session = relay_mp.session(on_sigterm="flush", sigterm_timeout_seconds=0.3)
subscribers.register("stuck", lambda event: time.sleep(1000))
scope.event("one")
terminate()
time.sleep(1000)
""")
    assert ran.returncode == -signal.SIGTERM
    assert time.monotonic() - started < TIMEOUT_SECONDS
    assert re.search("not delivered in time are in|sigterm_timeout_seconds", ran.stderr), ran.stderr
    assert list(tmp_path.glob("relay_mp-*")), "what was not delivered is gone"


def test_a_second_one_does_not_wait(run, tmp_path):
    ran = run("""
session = relay_mp.session(on_sigterm="flush", sigterm_timeout_seconds=1000, flush_timeout_seconds=1000)
seen = threading.Event()

def stuck(event):
    seen.set()
    time.sleep(1000)

def again():
    seen.wait()
    time.sleep(0.5)
    terminate()

subscribers.register("stuck", stuck)
threading.Thread(target=again, daemon=True).start()
scope.event("one")
terminate()
time.sleep(1000)
""")
    assert ran.returncode == -signal.SIGTERM, ran.stderr


def test_one_that_interrupts_code_with_a_lock_waits_no_longer_than_its_deadline(run):
    ran = run("""
from relay_mp._session.session import ending
session = relay_mp.session(on_sigterm="flush", sigterm_timeout_seconds=0.3)
subscribers.register("nobody", lambda event: None)
with ending:
    terminate()
    time.sleep(1000)
""")
    assert ran.returncode == -signal.SIGTERM
    assert "sigterm_timeout_seconds" in ran.stderr


def test_outside_the_main_thread_it_is_said_that_it_has_no_effect(run):
    ran = run("""
import logging
logging.basicConfig(format="%(message)s")
thread = threading.Thread(target=lambda: relay_mp.session(on_sigterm="flush"))
thread.start()
thread.join()
print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
relay_mp.shutdown()
""")
    assert ran.stdout == "True\n"
    assert "only the main thread can set a handler" in ran.stderr


@pytest.mark.parametrize("wrong", ["close", "FLUSH", 1])
def test_what_it_may_be(wrong):
    with pytest.raises(relay_mp.SessionError, match="on_sigterm"):
        relay_mp.session(on_sigterm=wrong)


def test_where_a_thread_closes_the_session_nothing_is_raised(run):
    ran = run("""
session = relay_mp.session(on_sigterm="flush")
thread = threading.Thread(target=session.close)
thread.start()
thread.join()
terminate()
time.sleep(60)
""")
    assert (ran.returncode, ran.stderr) == (-signal.SIGTERM, "")
