"""Threads of one process that emit flat out: nothing is lost, and each thread's events keep their order.

Part of every run; the free-threaded build runs it long (free_threaded.py).
"""

import threading

import pytest

from relay_mp import ScopeType, scope, subscribers
from relay_mp.testing import assert_no_loss

MARKS_IN_A_SCOPE = 100


class Order:
    """A subscriber that counts, and notes each mark that is not its thread's next."""

    def __init__(self):
        self.events = 0
        self.next, self.wrong = {}, []

    def __call__(self, event):
        self.events += 1
        if event.kind == "mark":
            thread, number = event.data["thread"], event.data["number"]
            if number != self.next.get(thread, 0):
                self.wrong.append((thread, number))
            self.next[thread] = number + 1


def emit(thread, scopes, start):
    start.wait()
    numbers = iter(range(scopes * MARKS_IN_A_SCOPE))
    for _ in range(scopes):
        with scope.scope("work", ScopeType.Function, input={"thread": thread}):
            for number in (next(numbers) for _ in range(MARKS_IN_A_SCOPE)):
                scope.event("mark", data={"thread": thread, "number": number, "text": "a text of some length"})


@pytest.mark.parametrize("threads", [1, 2, 8])
@pytest.mark.parametrize("scopes", [10, pytest.param(2_000, marks=pytest.mark.long)])
def test_threads_that_emit_at_once_lose_nothing_and_keep_their_order(session, threads, scopes):
    order = Order()
    subscribers.register("order", order)
    start = threading.Barrier(threads)
    workers = [threading.Thread(target=emit, args=(thread, scopes, start)) for thread in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    subscribers.flush(120)
    subscribers.deregister("order")
    assert order.wrong == []
    assert order.next == dict.fromkeys(range(threads), scopes * MARKS_IN_A_SCOPE)
    assert order.events == threads * scopes * (MARKS_IN_A_SCOPE + 2)
    assert_no_loss(session)
