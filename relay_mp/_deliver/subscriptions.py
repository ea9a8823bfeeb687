"""Who sees which event. One `Subscriptions` a session, where its dispatcher runs.

A registration covers a stretch of the stream: from the tail at the time it was made, to the tail at the
time it was taken back. So both take effect at their place: what was emitted before a removal is still
delivered, what was emitted before a registration never is, whenever the dispatcher gets there.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from relay_mp._deliver import named
from relay_mp._deliver.absent import Absent
from relay_mp._deliver.frames import Opened
from relay_mp._deliver.reports import CLOSED, ExporterReport
from relay_mp._emit import middleware
from relay_mp._log import logger
from relay_mp._native import core
from relay_mp._threads import Lock
from relay_mp.errors import SessionError, SubscriberError
from relay_mp.types import RuntimeRegistrationKind

Callback = Callable[[Any], object]

_FOREVER = 1 << 62

MAX_ENDED_REPORTS = 64
"""Exporters that have ended and whose reports are kept; the oldest go first."""


@dataclass(slots=True, eq=False)
class Subscription:
    """One registration: of the records at `since` and behind it, but before `until`, in units of the ring.

    What it has taken ahead of the other callbacks, by its `take_batch`, is before `taken`: see dispatcher.
    `process`: (pid, start time, pid namespace) of the process that it belongs to, and with which it ends; None: none.
    """

    name: str
    callback: Callback
    scope: bytes | None
    since: int = _FOREVER
    until: int = _FOREVER
    target: str | None = None
    arguments: dict[str, Any] | None = field(default=None, repr=False)  # secrets may be among them
    taken: int = 0
    process: tuple[int, int, int] | None = None
    has_begun: bool = field(init=False, default=False)
    take_batch: Callable[[list[Any]], int] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        take_batch = getattr(self.callback, "take_batch", None)
        if self._is_ours and callable(take_batch):
            self.take_batch = take_batch

    @property
    def identity(self) -> str:
        """What it calls, as other processes name it."""
        return named.identity_of(self.target or self.callback)

    @property
    def is_live(self) -> bool:
        return self.until == _FOREVER

    def begin(self, opened: Callable[[], Opened]) -> None:
        """Tells a callback that asks for it what is open, once."""
        begin = getattr(self.callback, "begin", None)
        if self._is_ours and not self.has_begun and callable(begin):
            self._run(begin, opened())
        self.has_begun = True

    def is_of_use(self, is_dead: Callable[[int, int, int], bool]) -> bool:
        """Whether the process that it belongs to lives, and its callback has more to do."""
        if self.process is not None and is_dead(*self.process):
            return False
        check = getattr(self.callback, "check", None)
        if not self._is_ours or not callable(check):
            return True
        try:
            return bool(check())
        except Exception:
            logger.exception("checking subscriber %r failed", self.name)
            return True

    def end_stream(self) -> None:
        """The session has ended: a callback that asks for it is told."""
        end_stream = getattr(self.callback, "end_stream", None)
        if self._is_ours and callable(end_stream):
            self._run(end_stream)

    @property
    def can_finish(self) -> bool:
        """Whether it ends in two steps, `finish` and `close`, since it has work of its own under way."""
        return self._is_ours and callable(getattr(self.callback, "finish", None))

    def finish(self, seconds: float | None = None) -> None:
        """Makes it send what it has left, within `seconds`; returns at once."""
        self._run(self.callback.finish, seconds)  # type: ignore[attr-defined]

    def close(self) -> None:
        """Ends a callback that was made here from a name and has something to close, such as a file."""
        close = getattr(self.callback, "close", None)
        if self._is_ours and callable(close):
            self._run(close)

    @property
    def _is_ours(self) -> bool:
        return self.arguments is not None and self.target is not None

    def _run(self, method: Callable[..., object], *arguments: object) -> None:
        try:
            method(*arguments)
        except Exception:
            logger.exception("closing subscriber %r failed", self.name)

    def report(self) -> ExporterReport | None:
        """What the callback says of itself, if it is an exporter."""
        report = getattr(self.callback, "report", None)
        if not self._is_ours or not callable(report):
            return None
        try:
            found = report()
        except Exception:
            logger.exception("the report of subscriber %r failed", self.name)
            return None
        return found if isinstance(found, ExporterReport) else None


def _is_let_through(name: str) -> bool:
    return middleware.is_let_through(RuntimeRegistrationKind.SUBSCRIBER, name)


class Subscriptions:
    """Registrations in order. Changed under a lock, read without one: readers see old or new, whole."""

    def __init__(self, publish_counts: Callable[[int, int], None], save: Callable[[], None] | None = None) -> None:
        """`publish_counts(subscribers, scope_locals)` tells the emitting processes who listens.

        `save()` is called after each change, to keep what a successor needs; it may raise SessionError
        if there is no room for one more.
        """
        self._lock = Lock()
        self._globals: tuple[Subscription, ...] = ()
        self._locals: dict[bytes, tuple[Subscription, ...]] = {}
        self.has_locals = False
        """Whether any scope-local registration may still see an event."""
        self._finishing: tuple[Subscription, ...] = ()
        self._held = 0
        self._earlier: dict[str, ExporterReport] = {}
        self._published: dict[str, ExporterReport] | None = {}
        self.saved_reports: tuple[int, dict[str, ExporterReport]] = 0, {}
        """As a successor finds them, and how many events had been delivered then; see table."""
        self._publish_counts = publish_counts
        self._save = save
        self._is_heard = False
        self.heard_since_us = core.now_us()
        """Since when there was always somebody who subscribes: what began before was perhaps never emitted."""

    def add(self, subscription: Subscription, position: Callable[[], int]) -> None:
        """Registers; `position()` gives the tail once emitters know that somebody listens.

        Raises:
            SubscriberError: the name is taken at that level.
            SessionError: there is no room for it where registrations are kept.
        """
        with self._lock:
            self.require_free(subscription.name, subscription.scope)
            # `since` is still nowhere: the dispatcher may be at an older event just now.
            self._set_level(subscription.scope, (*self._level(subscription.scope), subscription))
            self._publish()
            subscription.since = position()
            try:
                self._note_change()
            except SessionError:
                self._discard(subscription)
                raise

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Emitters emit meanwhile, though the last subscriber may go: another one comes."""
        self._hold(1)
        try:
            yield
        finally:
            self._hold(-1)

    def _hold(self, more: int) -> None:
        with self._lock:
            self._held += more
            self._publish()

    def restore(self, subscriptions: list[Subscription], reports: dict[str, ExporterReport] | None = None) -> None:
        """Takes over what an earlier dispatcher had, with its places in the stream, and its exporters' counts.

        Published once, at the end: a count that is too low meanwhile would make emitters leave out what
        the missing ones need.
        """
        with self._lock:
            for subscription in subscriptions:
                self._set_level(subscription.scope, (*self._level(subscription.scope), subscription))
            self._earlier = dict(reports or {})
            self._publish()

    def retry_absent(self) -> None:
        """Puts subscribers that can be made again in their places. Where the dispatcher runs."""
        for subscription in self.all():
            if isinstance(subscription.callback, Absent):
                callback = subscription.callback.attempt()
                if callback is not None:
                    self._fill(subscription, callback)

    def _fill(self, absent: Subscription, callback: Callback) -> None:
        with self._lock:
            found = Subscription(
                absent.name, callback, absent.scope, absent.since, absent.until, absent.target, absent.arguments,
                process=absent.process,
            )  # fmt: skip
            self._keep_report(absent.name, absent.report())
            level = self._level(absent.scope)
            self._set_level(absent.scope, tuple(found if s is absent else s for s in level))

    def require_free(self, name: str, scope: bytes | None) -> None:
        """Refuses a name that is taken; asked before a named callback is made, and again by `add`.

        Raises:
            SubscriberError: the name is taken at that level.
        """
        if self.live(name, scope) is not None:
            where = "globally" if scope is None else "on this scope"
            raise SubscriberError(f"a subscriber {name!r} is already registered {where}; deregister it first")

    def is_known(self, name: str, identity: str) -> bool:
        """Whether a global subscriber of that name is there and calls the same.

        Raises:
            SubscriberError: it calls something else.
        """
        known = self.live(name, None)
        if known is not None and known.identity != identity:
            raise SubscriberError(
                f"a subscriber {name!r} is already registered globally, as {known.identity!r}; here it would be "
                f"{identity!r}. This process is a worker: register in the process that owns the session, in a module "
                'that is imported here too under `if __name__ == "__main__":`, or take another name'
            )
        return known is not None

    def live(self, name: str, scope: bytes | None) -> Subscription | None:
        """The live registration of that name at that level."""
        for subscription in self._level(scope):
            if subscription.name == name and subscription.is_live:
                return subscription
        return None

    def ended_at(self, name: str, scope: bytes | None, position: int) -> bool:
        """Whether a registration of that name was ended at just that place."""
        return any(s.name == name and s.until == position for s in self._level(scope))

    def _discard(self, subscription: Subscription) -> None:
        level = self._level(subscription.scope)
        self._set_level(subscription.scope, tuple(s for s in level if s is not subscription))
        self._publish()
        subscription.close()

    def _note_change(self) -> None:
        # Reports are saved along, as they are by then: what was published last is not there any more.
        self._published = None
        if self._save is not None:
            self._save()

    def remove(self, name: str, scope: bytes | None, position: Callable[[], int]) -> bool:
        """Ends a registration at the present tail. False if there is none of the name."""
        with self._lock:
            subscription = self.live(name, scope)
            if subscription is None:
                return False
            subscription.until = position()
            self._publish()
            self._note_change()
            return True

    def close_scope(self, scope: bytes, position: Callable[[], int]) -> None:
        """A scope has ended: its local registrations end with it."""
        with self._lock:
            for subscription in self._level(scope):
                if subscription.is_live:
                    subscription.until = position()
            self._publish()
            self._note_change()

    def viewers(self, position: int, stack: bytes | None) -> list[Subscription]:
        """Who sees the record at `position`: global ones first, then scope-local ones, outer scope first."""
        viewers = [s for s in self._globals if s.since <= position < s.until]
        if viewers and middleware.registry.snapshot.gates:
            viewers = [s for s in viewers if _is_let_through(s.name)]
        if stack is not None and self._locals:
            for start in range(len(stack) - 16, -1, -16):
                level = self._locals.get(stack[start : start + 16], ())
                viewers += [s for s in level if s.since <= position < s.until]
        return viewers

    def stretch(self, position: int) -> tuple[list[Subscription], int]:
        """Who sees the record at `position`, by global registrations without their gates; and before which position
        that holds. What is registered or ended from now on takes effect behind all that is in the ring already."""
        edge, viewers = _FOREVER, []
        for s in self._globals:
            if position < s.since:
                edge = min(edge, s.since)
            elif position < s.until:
                edge = min(edge, s.until)
                viewers.append(s)
        return viewers, edge

    @property
    def has_owned(self) -> bool:
        """Whether one belongs to a process."""
        return any(s.process is not None for s in self._globals)

    def end_useless(self, is_dead: Callable[[int, int, int], bool], position: Callable[[], int]) -> None:
        """Ends those whose process has ended, or whose callback has no more to do. Where the dispatcher runs."""
        for subscription in self.all():
            if subscription.is_live and not subscription.is_of_use(is_dead):
                logger.debug("subscriber %r ends: its process has ended, or wants no more", subscription.name)
                self.remove(subscription.name, subscription.scope, position)

    def prune(self, read_position: int) -> None:
        """Forgets registrations that ended before `read_position`."""
        for subscription in self._take_ended(read_position):
            # Without the lock: a callback's own close may register and deregister.
            if subscription.can_finish:
                subscription.finish()
            else:
                subscription.close()
        if self._finishing:
            self._settle_finished()

    def _take_ended(self, read_position: int) -> list[Subscription]:
        if all(s.until > read_position for s in self.all()):
            return []
        with self._lock:
            ended = [s for s in self.all() if s.until <= read_position]
            for scope in {s.scope for s in ended}:
                self._set_level(scope, tuple(s for s in self._level(scope) if s.until > read_position))
            self._finishing = (*self._finishing, *(s for s in ended if s.can_finish))
        return ended

    def _settle_finished(self) -> None:
        reports = [(subscription, subscription.report()) for subscription in self._finishing]
        for subscription, report in reports:
            if report is not None and report.state != CLOSED:
                continue
            subscription.close()
            with self._lock:
                if subscription in self._finishing:
                    self._finishing = tuple(s for s in self._finishing if s is not subscription)
                    self._keep_report(subscription.name, report)

    def _keep_report(self, name: str, report: ExporterReport | None) -> None:
        if report is None:
            return
        earlier = self._earlier.pop(name, None)
        self._earlier[name] = report.after(earlier) if earlier else report
        while len(self._earlier) > MAX_ENDED_REPORTS:
            del self._earlier[next(iter(self._earlier))]

    def close(self, seconds: float | None = None) -> None:
        """The stream has ended: closes what was made from names. Exporters are given `seconds`, all at once."""
        ending = [*self.all(), *self._finishing]
        for subscription in ending:
            subscription.end_stream()
        for subscription in ending:
            if subscription.can_finish:
                subscription.finish(seconds)
        for subscription in ending:
            subscription.close()

    # ---- exporters ----

    def request_flush(self, name: str, read_position: int) -> None:
        """Makes the exporter of that name send what it has gathered, and publishes how far it is."""
        self.prune(read_position)
        for subscription in (*self._globals, *self._finishing):
            request_flush = getattr(subscription.callback, "request_flush", None)
            if subscription.name == name and subscription.arguments is not None and callable(request_flush):
                request_flush()
        self.publish_reports()

    def reports(self) -> dict[str, ExporterReport]:
        """What exporters say of themselves, those that have ended too, by subscriber's name."""
        found = dict(self._earlier)
        for subscription in (*self._finishing, *self.all()):
            report = subscription.report()
            if report is not None:
                earlier = found.get(subscription.name)
                found[subscription.name] = report.after(earlier) if earlier else report
        return found

    def publish_reports(self) -> None:
        """Writes the reports to where other processes find them, if they have changed."""
        with self._lock:
            reports = self.reports()
            if reports == self._published:
                return
            try:
                self._note_change()
                self._published = self.saved_reports[1]  # those of before, while a callback has taken events ahead
            except SessionError as error:
                logger.debug("the exporters' reports are not published: %s", error)

    def all(self) -> list[Subscription]:
        return [*self._globals, *(s for level in self._locals.values() for s in level)]

    def _level(self, scope: bytes | None) -> tuple[Subscription, ...]:
        return self._globals if scope is None else self._locals.get(scope, ())

    def _set_level(self, scope: bytes | None, level: tuple[Subscription, ...]) -> None:
        if scope is None:
            self._globals = level
            return
        remaining = {**self._locals, scope: level}
        self._locals = {key: value for key, value in remaining.items() if value}
        self.has_locals = bool(self._locals)

    def _publish(self) -> None:
        local = sum(s.is_live for level in self._locals.values() for s in level)
        subscribers = self._held + local + sum(s.is_live for s in self._globals)
        self._publish_counts(subscribers, local)
        if subscribers and not self._is_heard:
            self.heard_since_us = core.now_us()  # behind it: who begins from now on is emitted
        self._is_heard = bool(subscribers)
