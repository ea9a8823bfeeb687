"""What a process asks of its session's dispatcher, which runs here or elsewhere. Chosen once, as the session is made.

    Session ─▶ Dispatch: LocalDispatch    a thread of this process: its Subscriptions are changed directly
                         RemoteDispatch   another process: each request is a record of the ring, answered in the slot

Either way a change takes effect at its place in the stream: directly at the present tail, by a request at that record.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from relay_mp._deliver import named
from relay_mp._deliver.askers import told_uids
from relay_mp._deliver.dispatcher import REPLY_ERROR, REPLY_OK
from relay_mp._deliver.replacement import Named, replace
from relay_mp._deliver.subscriptions import Callback, Subscription, Subscriptions
from relay_mp._native import core
from relay_mp._native.segments import Segment
from relay_mp.errors import SubscriberError

__all__ = ["Dispatch", "LocalDispatch", "RemoteDispatch", "choose", "takes_events"]

Arguments = dict[str, Any] | None


def takes_events(segment: Segment) -> bool:
    """Whether its session is open."""
    return bool(segment.is_open and segment.state == core.STATE_OPEN)


class Dispatch(Protocol):
    """The dispatcher, wherever it is."""

    is_remote: bool
    """Whether callbacks run in another process, where only named subscribers are found."""

    def register(self, name: str, callback: Callback | str, arguments: Arguments, scope: bytes | None) -> None:
        """Begins a subscription; see Session.register."""

    def is_known(self, name: str, callback: Callback | str) -> bool:
        """Whether a global subscriber of that name calls the same; see Subscriptions.is_known."""

    def deregister(self, name: str, scope: bytes | None) -> bool:
        """Ends one. False if there is none of the name."""

    def replace(self, remove: Sequence[str], add: Sequence[Named]) -> None:
        """Ends global named subscribers and begins others; see Session.replace."""

    def subscriber_names(self) -> list[str]:
        """The live global subscribers that this process knows of."""

    def request_flush(self, name: str) -> None:
        """Makes the exporter of that name send what it has gathered, and publish its report."""

    def publish_reports(self) -> None:
        """Has what exporters say of themselves written to the segment, where it is not done from time to time."""

    def close_scope(self, scope: bytes) -> None:
        """Ends the local subscribers of a scope that has ended."""


class _Requests:
    """Requests to the dispatcher's thread, through the ring.

    Args:
        flush: waits until what was emitted before is delivered, and so until a request is answered.
    """

    def __init__(self, segment: Segment, flush: Callable[[], object]) -> None:
        self._segment = segment
        self._flush = flush

    def ask(self, verb: str, *, scope: bytes | None, **request: Any) -> int:
        """Waits for the answer: REPLY_OK or REPLY_NO.

        Raises:
            SubscriberError: the dispatcher refused it, or did not answer.
            FlushError, FlushTimeoutError: as Session.flush.
        """
        slot, owner_seq = core.emit_control(verb, {**request, "scope": _text(scope), "uids": told_uids()})
        self._flush()
        answered, code, text = self._segment.read_reply(slot)
        if answered != owner_seq:
            raise SubscriberError(f"the dispatcher did not answer the request to {verb} {request.get('name')!r}")
        if code == REPLY_ERROR:
            raise SubscriberError(text)
        return int(code)

    def replace(self, remove: Sequence[str], add: Sequence[Named]) -> None:
        """In the dispatcher's thread: nothing is delivered meanwhile."""
        self.ask("replace", scope=None, remove=list(remove), add=[list(each) for each in add])


class LocalDispatch:
    """The dispatcher is in this process."""

    is_remote = False

    def __init__(self, segment: Segment, subscriptions: Subscriptions, flush: Callable[[], object]) -> None:
        self._segment = segment
        self._subscriptions = subscriptions
        self._requests = _Requests(segment, flush)

    def _tail(self) -> int:
        return int(self._segment.tail)

    def register(self, name: str, callback: Callback | str, arguments: Arguments, scope: bytes | None) -> None:
        self._subscriptions.require_free(name, scope)
        target = callback if isinstance(callback, str) else None
        call = named.resolve(callback, arguments) if isinstance(callback, str) else callback
        subscription = Subscription(name, call, scope, target=target, arguments=arguments)
        self._subscriptions.add(subscription, self._tail)

    def is_known(self, name: str, callback: Callback | str) -> bool:
        return self._subscriptions.is_known(name, named.identity_of(callback))

    def deregister(self, name: str, scope: bytes | None) -> bool:
        return self._subscriptions.remove(name, scope, self._tail)

    def replace(self, remove: Sequence[str], add: Sequence[Named]) -> None:
        if remove and add and not core.is_dispatching():
            self._requests.replace(remove, add)
            return
        tail = self._tail()
        # In a callback, the dispatcher's thread is here: nothing is delivered meanwhile, and one place serves for all.
        position = (lambda: tail) if remove else self._tail
        replace(self._subscriptions, remove, add, position, self._segment.read_pos)

    def subscriber_names(self) -> list[str]:
        return [s.name for s in self._subscriptions.all() if s.scope is None and s.is_live]

    def request_flush(self, name: str) -> None:
        self._subscriptions.request_flush(name, self._segment.read_pos)

    def publish_reports(self) -> None:
        self._subscriptions.publish_reports()

    def close_scope(self, scope: bytes) -> None:
        self._subscriptions.close_scope(scope, self._tail)


class RemoteDispatch:
    """The dispatcher is in another process."""

    is_remote = True

    def __init__(self, segment: Segment, flush: Callable[[], object]) -> None:
        self._segment = segment
        self._requests = _Requests(segment, flush)

    def register(self, name: str, callback: Callback | str, arguments: Arguments, scope: bytes | None) -> None:
        target = callback if isinstance(callback, str) else named.name_of(callback)
        self._requests.ask("register", name=name, target=target, arguments=arguments, scope=scope)

    def is_known(self, name: str, callback: Callback | str) -> bool:
        return self._requests.ask("is_known", name=name, identity=named.identity_of(callback), scope=None) == REPLY_OK

    def deregister(self, name: str, scope: bytes | None) -> bool:
        return takes_events(self._segment) and self._requests.ask("deregister", name=name, scope=scope) == REPLY_OK

    def replace(self, remove: Sequence[str], add: Sequence[Named]) -> None:
        self._requests.replace(remove, add)

    def subscriber_names(self) -> list[str]:
        return []

    def request_flush(self, name: str) -> None:
        self._requests.ask("request_flush", name=name, scope=None)

    def publish_reports(self) -> None:
        """Nothing: the dispatcher does it by itself, at least once a second."""

    def close_scope(self, scope: bytes) -> None:
        core.emit_control("close_scope", {"scope": _text(scope), "uids": told_uids()})


def choose(segment: Segment, subscriptions: Subscriptions | None, flush: Callable[[], object]) -> Dispatch:
    """The local one where this process has the subscriptions, else the remote one."""
    if subscriptions is None:
        return RemoteDispatch(segment, flush)
    return LocalDispatch(segment, subscriptions, flush)


def _text(scope: bytes | None) -> str | None:
    return None if scope is None else scope.hex()
