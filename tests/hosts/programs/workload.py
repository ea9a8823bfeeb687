"""The work that test_matrix.py has every host do, and the account of it, from which each cell of the table is asserted.

    a scope for each stage ──▶ host.map(work, numbers) ──▶ in the host's workers: work, dies ──▶ the account, as JSON

Of the odd tasks each leaves a scope open in its worker, under which the next one must not stand.
"""

import json
import os
import signal

import relay_mp
from relay_mp import ScopeType, scope, subscribers

TASKS = 4
STAGES = {"arrive": 0, "recycled": 100, "killed": 200}
"""Each with the number of its first task: under its own scope, which the tasks must stand under."""


def work(number):
    from relay_mp import ScopeType, scope  # some hosts send the function alone

    with scope.scope(f"work {number}", ScopeType.Tool):
        scope.event("inside", data=number)
    if number % 2:
        scope.push("left open", ScopeType.Tool)
    return __import__("os").getpid()


def dies(_=None):
    from relay_mp import scope

    scope.event("last words")
    __import__("os").kill(__import__("os").getpid(), 9)


class Host:
    """What a program says of its host; what is left out does nothing, and its cell would fail."""

    def open(self):
        """Starts the workers, inside the session."""

    def map(self, numbers):
        """Runs `work` for each number; returns the pids."""
        raise NotImplementedError

    def recycle(self):
        """Has later tasks run in other workers, where the host does not do so by itself."""

    def kill(self):
        """Runs `dies` in a worker; then there is one that works."""

    def close(self):
        """Ends the workers."""


def numbers_of(stage):
    return range(STAGES[stage], STAGES[stage] + TASKS)


def run(host):
    """The stages, in a session of this program's own, whose scopes are those that submit."""
    events, scopes, pids = [], {}, {}
    with relay_mp.session() as session:
        subscribers.register("matrix", lambda event: events.append(json.loads(event.to_json())))
        host.open()
        for stage in STAGES:
            if stage == "recycled":
                host.recycle()
            with scope.scope(stage, ScopeType.Agent) as handle:
                scopes[stage] = handle.uuid
                if stage == "killed":
                    host.kill()
                pids[stage] = list(host.map(numbers_of(stage)))
        host.close()
        lost = session.flush().lost
    tell(scopes, pids, events, lost + session.stats().lost)


def tell(scopes, pids, events, lost):
    """Writes the account to the file that the test has named."""
    account = {"owner": os.getpid(), "scopes": scopes, "pids": pids, "events": events, "lost": lost}
    with open(os.environ["ACCOUNT"], "w") as file:
        json.dump(account, file)


def end(process):
    """SIGTERM to a host's own main process; it ends by itself."""
    process.send_signal(signal.SIGTERM)
    return process.wait(60)
