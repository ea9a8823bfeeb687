"""A copy is no owner: what a forked child has of its parent's ends and shuts down nothing of the parent's.

One table: each thing that can be ended x each way in which a child ends, under both dispatchers. See copies.py.
"""

import copies
import pytest
from processes import run_alone

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
