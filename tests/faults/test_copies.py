"""A copy is no owner: what a forked child has of its parent's ends and shuts down nothing of the parent's.

One table: each thing that can be ended x each way in which a child ends, under both dispatchers. See copies.py.
"""

import os
import signal

import copies
import pytest
from processes import await_end, run_alone

import relay_mp

pytestmark = pytest.mark.timeout(200)


@pytest.mark.parametrize("dispatcher", ["thread", "process"])
@pytest.mark.parametrize("thing", [thing.__name__ for thing in copies.THINGS])
def test_a_forked_child_ends_nothing_of_its_parents(run_script, tmp_path, thing, dispatcher):
    """Each thing by its own verb, once and twice, by garbage collection, sys.exit, an exception, os._exit, SIGKILL."""
    ran = run_alone(run_script, copies.run, thing, dispatcher, str(tmp_path))
    assert ran.stdout == "as if there had been no child\n"


def test_a_child_that_a_callback_forks_gives_up_nothing_of_the_dispatchers(run_script):
    ran = run_alone(run_script, copies.fork_in_a_callback)
    assert ran.stdout == "0 0\nTrue\n"


@pytest.mark.parametrize("dispatcher", ["thread", "process"])
def test_a_program_that_becomes_another_leaves_its_session_and_begins_its_own(run_script, tmp_path, dispatcher):
    """As by autoreload. Each event is delivered, or recovered by the session after it; no other file is left."""
    ran = run_alone(run_script, copies.replace_the_program, dispatcher, str(tmp_path))
    first, *left = ran.stdout.split()
    assert first == "True"
    assert [name for name in left if name.startswith("relay_mp-")] == []
    delivered = [name for _, name, _ in copies.rows(tmp_path / "rows")]
    recovered = [row["name"] for file in tmp_path.glob("*.jsonl") for row in copies.rows(file)]
    own = [[name for name in names if name != "of an old worker"] for names in (delivered, recovered)]
    assert {name for names in own for name in names} == {f"of round {number}" for number in range(4)}
    # One that was in its callback when the program became another is recovered, too: nobody can say how far it came.
    assert [len(set(names)) for names in own] == [len(names) for names in own]
    assert ran.stderr.count("has become another program (exec) while it owned the session") == 3


def test_a_child_that_outlives_its_parent_keeps_no_file_of_the_parents(run_script, tmp_path):
    """The next program writes them on at once."""
    code = f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r}); import copies; "
    ran = run_script(f"{code}copies.die_with_a_living_child({str(tmp_path)!r})", returncode=-signal.SIGKILL)
    child = int(ran.stdout)
    try:
        with relay_mp.session():
            appended = relay_mp.PerfettoExporter(tmp_path / "trace.json", mode=relay_mp.PerfettoExporterMode.Append)
            appended.register("trace")
            copies.atof(tmp_path).register("lines")
            os.kill(child, 0)
    finally:
        os.kill(child, signal.SIGKILL)
        await_end(child)
