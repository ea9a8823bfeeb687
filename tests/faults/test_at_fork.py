"""Forks of one thread while another opens or closes what a child must not have, or starts a process.

The moment is forced: the other thread stands in the middle of it until the fork is done, or waits for it to be over.
"""

import sys

import pytest

# In the middle of what another thread does: the main thread forks. It goes on once the fork is done, or if it waits.
MIDDLE = """
import os, sys, threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python's, of a fork beside a thread
started, forked = threading.Event(), threading.Event()
def middle():
    if not started.is_set():
        started.set()
        forked.wait(0.5)
def fork(child):
    assert started.wait(30)
    if (pid := os.fork()) == 0:
        code = 1
        try:
            code = child()
        finally:
            os._exit(code)
    forked.set()
    return pid
"""

FILE = """
from relay_mp._deliver import jsonl, locked_file
path, what = sys.argv[1:]
def holds_it():
    own = "/proc/self/fd/"
    return 3 if any(os.path.exists(own + fd) and os.readlink(own + fd) == path for fd in os.listdir(own)) else 0
files = []
if what == "open":
    real = locked_file.FileLock
    def lock(path):
        middle()
        return real(path)
    locked_file.FileLock = lock
    other = threading.Thread(target=lambda: files.append(jsonl.JsonlFile(path)))
else:
    files.append(jsonl.JsonlFile(path))
    real_close = os.close
    def close(fd):
        real_close(fd)
        if threading.current_thread() is other:
            middle()
    os.close = close
    other = threading.Thread(target=files[0].close)
other.start()
pid = fork(holds_it)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
other.join()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
@pytest.mark.parametrize("what", ["open", "close"])
def test_a_child_forked_while_a_file_is_opened_or_closed_has_nothing_of_it(run_script, tmp_path, what):
    done = run_script(MIDDLE + FILE, tmp_path / "events.jsonl", what)
    assert (done.stdout, done.stderr) == ("0\n", "")


START = """
import subprocess
import relay_mp
from relay_mp import scope, subscribers
real = subprocess._fork_exec
def fork_exec(*arguments):
    middle()
    return real(*arguments)
session = relay_mp.session(dispatcher="process", flush_timeout_seconds=30)
subscribers.register("lines", "named_subscribers:Lines", arguments={"path": sys.argv[1]})
subprocess._fork_exec = fork_exec
os.kill(session._segment.lease()[1], 9)  # another is started, in a thread of the library's
end, ending = os.pipe()
def outlive():
    os.close(ending)
    os.read(end, 1)
    return 0
pid = fork(outlive)
scope.event("m")
subscribers.flush()
os.close(ending)
os.waitpid(pid, 0)
session.close()
"""


def test_a_child_forked_while_a_dispatcher_process_is_started_does_not_hold_it_up(run_script, tmp_path):
    """With a copy of the pipes of its start, until the child ended there was no dispatcher: a worker that lives on."""
    run_script(MIDDLE + START, tmp_path / "lines")
    assert '"m"' in (tmp_path / "lines").read_text()


def test_a_fork_does_not_wait_for_ever(run_script):
    done = run_script(
        """
import os, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python's, of a fork beside a thread
from relay_mp._deliver import at_fork
at_fork.FORK_WAIT_SECONDS = 0.01
entered, go_on = threading.Event(), threading.Event()
def hold():
    with at_fork.unforked:
        entered.set()
        go_on.wait(30)
holder = threading.Thread(target=hold)
holder.start()
entered.wait(30)
if (pid := os.fork()) == 0:
    with at_fork.unforked:  # free in a child, whoever held it
        os._exit(0)
print(os.waitpid(pid, 0)[1])
go_on.set()
holder.join()
with at_fork.unforked:
    if (pid := os.fork()) == 0:
        os._exit(0)
print(os.waitpid(pid, 0)[1])
"""
    )
    assert (done.stdout, done.stderr) == ("0\n0\n", "")
