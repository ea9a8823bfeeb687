"""Global subscribers: who sees every event of the session, whichever process emitted it.

Callbacks run where the session's dispatcher runs, one event at a time, in the order of the stream; for
one event, in the order of registration. Events that nobody subscribes to are not even encoded.
"""

import sys
from collections.abc import Callable
from typing import Any

from relay_mp._session.flush import FlushResult
from relay_mp._session.membership import current_or_default, current_session
from relay_mp._session.notebook import is_notebook
from relay_mp.errors import FlushError, described_type
from relay_mp.events import Event

__all__ = ["deregister", "flush", "flush_async", "register"]


def register(name: str, callback: Callable[[Event], object] | str, *, arguments: dict[str, Any] | None = None) -> None:
    """Subscribes to all events emitted from now on.

    In a process that is in no session, this starts the default one, of which it is the owner. In a notebook it takes
    the place of an earlier one of that name, so that a cell may be run again. In a worker, what the owner has under
    that name already, of the same target, is left as it is: a module that registers at import can be imported there.

    Args:
        name: unique among the global subscribers.
        callback: called with each event, in the dispatcher. It may emit, register and deregister, but
            not flush. If it raises, that is logged and counted, and the stream goes on. A string
            "package.module:attribute" names it; that is the only way where the dispatcher is another
            process (a worker, or dispatcher="process"); top-level functions are named by themselves.
        arguments: for a named one: JSON keyword arguments with which the attribute is called to make
            the callback. If that has a `close`, it is called after the last event.

    Raises:
        TypeError: the name is not a str, the callback cannot be called, or arguments are given and it is
            passed rather than named.
        SubscriberError: the name is taken, or the dispatcher cannot reach the callback.
        SessionError: no session could be started.
    """
    check_registration(name, callback, arguments)
    current_or_default().register(name, callback, arguments, None)


def check_registration(name: object, callback: object, arguments: object) -> None:
    """Refuses what can be no registration, before a session is started for it."""
    if not isinstance(name, str):
        raise TypeError(f"name is {described_type(name)}; expected str")
    if not callable(callback) and not isinstance(callback, str):
        raise TypeError(
            f"callback is {described_type(callback)}; expected a callable that takes an event, or the name "
            'of one as "package.module:attribute"'
        )
    if arguments is not None and (not isinstance(arguments, dict) or not isinstance(callback, str)):
        raise TypeError(
            f"arguments are {described_type(arguments)} with a callback of {type(callback).__name__}; expected a dict, "
            'with a subscriber named as "package.module:attribute"; for a callable use functools.partial'
        )


def deregister(name: str) -> bool:
    """Ends a subscription: events emitted before are still delivered to it, later ones are not.

    Returns:
        Whether there was one of that name.
    """
    session = current_session()
    return session is not None and session.deregister(name, None)


def flush(timeout: float | None = None) -> FlushResult:
    """Waits until every event emitted before, by any process, has been delivered.

    Args:
        timeout: seconds; default: the session's `flush_timeout_seconds`.

    Returns:
        The session's losses so far. Outside any session there is nothing to wait for.

    Raises:
        FlushError: inside a subscriber's callback, or in a running event loop (use `flush_async`), or
            the dispatcher has died.
        FlushTimeoutError: not delivered within `timeout`; nothing is lost by that.
    """
    if in_event_loop():
        raise FlushError("flush() would block the running event loop: use 'await flush_async()'")
    session = current_session()
    return session.flush(timeout) if session is not None else FlushResult()


def in_event_loop() -> bool:
    """Whether the calling thread runs an event loop that nothing may block: a notebook's may be."""
    # Who runs a loop has imported asyncio; this package does not, for its import time.
    events = sys.modules.get("asyncio.events")
    return events is not None and events._get_running_loop() is not None and not is_notebook()


async def flush_async(timeout: float | None = None) -> FlushResult:
    """`flush` for a running event loop: other tasks go on meanwhile. Same arguments and errors."""
    session = current_session()
    return await session.flush_async(timeout) if session is not None else FlushResult()
