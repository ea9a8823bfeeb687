"""Who sees which event. One registry a session, where its dispatcher runs.

A registration covers a stretch of the stream: from the tail at the time it was made, to the tail at the
time it was taken back. So both take effect at their place: what was emitted before a removal is still
delivered, what was emitted before a registration never is, whenever the dispatcher gets there.
"""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from relay_mp.errors import SubscriberError

Callback = Callable[[Any], object]

_FOREVER = 1 << 62


@dataclass(slots=True)
class Subscription:
    """One registration. Positions are in units of the ring."""

    name: str
    callback: Callback
    scope: bytes | None
    since: int
    until: int = _FOREVER
    target: str | None = None
    arguments: dict[str, Any] | None = None

    @property
    def is_live(self) -> bool:
        return self.until == _FOREVER

    def covers(self, position: int) -> bool:
        return self.since <= position < self.until


class Registry:
    """Registrations in order. Changed under a lock, read without one: readers see old or new, whole."""

    def __init__(self, publish_counts: Callable[[int, int], None]) -> None:
        """`publish_counts(subscribers, scope_locals)` tells the emitting processes who listens."""
        self._lock = threading.Lock()
        self._globals: tuple[Subscription, ...] = ()
        self._locals: dict[bytes, tuple[Subscription, ...]] = {}
        self._publish_counts = publish_counts

    def add(self, subscription: Subscription, position: Callable[[], int]) -> None:
        """Registers; `position()` gives the tail once emitters know that somebody listens.

        Raises:
            SubscriberError: the name is taken at that level.
        """
        with self._lock:
            if any(other.name == subscription.name and other.is_live for other in self._level(subscription.scope)):
                where = "globally" if subscription.scope is None else "on this scope"
                raise SubscriberError(
                    f"a subscriber {subscription.name!r} is already registered {where}; deregister it first"
                )
            self._set_level(subscription.scope, (*self._level(subscription.scope), subscription))
            self._publish()
            subscription.since = max(subscription.since, position())

    def remove(self, name: str, scope: bytes | None, position: Callable[[], int]) -> bool:
        """Ends a registration at the present tail. False if there is none of the name."""
        with self._lock:
            for subscription in self._level(scope):
                if subscription.name == name and subscription.is_live:
                    subscription.until = position()
                    self._publish()
                    return True
            return False

    def close_scope(self, scope: bytes, position: Callable[[], int]) -> None:
        """A scope has ended: its local registrations end with it."""
        with self._lock:
            for subscription in self._level(scope):
                if subscription.is_live:
                    subscription.until = position()
            self._publish()

    def viewers(self, position: int, stack: bytes | None) -> Iterator[Subscription]:
        """Who sees the record at `position`: global ones first, then scope-local ones, outer scope first."""
        for subscription in self._globals:
            if subscription.covers(position):
                yield subscription
        if stack is None or not self._locals:
            return
        for start in range(len(stack) - 16, -1, -16):
            for subscription in self._locals.get(stack[start : start + 16], ()):
                if subscription.covers(position):
                    yield subscription

    @property
    def has_locals(self) -> bool:
        """Whether any scope-local registration may still see an event."""
        return bool(self._locals)

    def prune(self, read_position: int) -> None:
        """Forgets registrations that ended before `read_position`."""
        with self._lock:
            for scope in (None, *self._locals):
                level = self._level(scope)
                if any(subscription.until <= read_position for subscription in level):
                    self._set_level(scope, tuple(s for s in level if s.until > read_position))

    def all(self) -> list[Subscription]:
        return [*self._globals, *(s for level in self._locals.values() for s in level)]

    def publish(self) -> None:
        """Tells the emitting processes again who listens."""
        with self._lock:
            self._publish()

    def _level(self, scope: bytes | None) -> tuple[Subscription, ...]:
        return self._globals if scope is None else self._locals.get(scope, ())

    def _set_level(self, scope: bytes | None, level: tuple[Subscription, ...]) -> None:
        if scope is None:
            self._globals = level
            return
        remaining = {**self._locals, scope: level}
        self._locals = {key: value for key, value in remaining.items() if value}

    def _publish(self) -> None:
        local = sum(s.is_live for level in self._locals.values() for s in level)
        self._publish_counts(local + sum(s.is_live for s in self._globals), local)
