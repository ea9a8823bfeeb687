"""`python -m relay_mp.cli.trial METHOD`: a session with a worker of that start method, in a program of its own.

    doctor ──▶ this program ──▶ a worker ──▶ a mark ──▶ the session's callback ──▶ how many came, as JSON

METHOD is one of multiprocessing's, or "subprocess". For `relay-mp doctor`, which tells what came of it. It is a program
of its own, since what is tried may hang or die, and since a worker under spawn imports the main program again.
"""

import json
import multiprocessing
import os
import subprocess
import sys
from typing import Any

from relay_mp import scope, subscribers
from relay_mp._session.membership import session
from relay_mp.events import Event

METHODS = (*multiprocessing.get_all_start_methods(), "subprocess")

TIMEOUT_SECONDS = 20.0

MARK = "relay_mp.trial"


def work() -> None:
    """What the worker does."""
    scope.event(MARK, data={"pid": os.getpid()})


def _run_worker(method: str) -> None:
    if method == "subprocess":
        command = [sys.executable, "-c", "from relay_mp.cli.trial import work; work()"]
        subprocess.run(command, check=True, timeout=TIMEOUT_SECONDS)
        return
    context: Any = multiprocessing.get_context(method)
    process = context.Process(target=work)
    process.start()
    process.join(TIMEOUT_SECONDS)
    if process.exitcode != 0:
        process.kill()
        raise RuntimeError(f"the worker ended with {process.exitcode}")


def main(method: str) -> None:
    """Tries it, and says how many events of the worker have arrived, and how many were lost."""
    found: list[Event] = []
    with session() as started:
        subscribers.register(MARK, found.append)
        _run_worker(method)
        result = started.flush(TIMEOUT_SECONDS)
    came = sum(event.name == MARK and event.pid != os.getpid() for event in found)
    print(json.dumps({"came": came, "lost": result.lost}))


if __name__ == "__main__":
    main(sys.argv[1])
