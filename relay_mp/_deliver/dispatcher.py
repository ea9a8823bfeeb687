"""The dispatcher: takes records out of the ring in order and hands each to the subscribers.

    ring ──▶ Reader.next_batch ──▶ a run: Subscriptions.stretch ──▶ take_batch, then Reader.deliver: its callbacks
                               └─▶ any other record, alone: Subscriptions.viewers ──▶ callbacks ──▶ Reader.done

Most records need nothing but their callbacks. A run of those is delivered by compiled code. What is rare takes the
long way, record by record: requests, what comes behind a loss, what was begun before, scope-local subscribers, gates.
A callback that has `take_batch` is given a run as a whole, ahead of the others, and is not called with what it took.

Runs in one thread of one process at a time: the holder of the session's lease. A record stays in the
ring until all its callbacks have returned, so a dispatcher that dies loses nothing; its successor
delivers at most one record again, flagged. The same holds for the marks of losses, which are in no ring:
each is written down in the header before it is delivered, and what has none yet is known from the slots.
A record whose callbacks end the process again and again is given up after `max_deliveries` of its deaths,
counted as `poison`. If the ring's tail is destroyed, what still proves itself is delivered, and the
session is broken for good: its emits return, and are counted as lost. A callback that raises is logged
and counted, and harms neither the dispatcher nor the other callbacks. A callback may emit (the events
queue behind, and are dropped and counted if the ring is full, since waiting would be for itself),
register, deregister and fork; it may not flush.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import msgpack  # type: ignore[import-untyped]

from relay_mp._deliver import named
from relay_mp._deliver.allowed import Allowed
from relay_mp._deliver.askers import Askers
from relay_mp._deliver.frames import Opened
from relay_mp._deliver.liveness import SCAN_SECONDS, Liveness, is_dead
from relay_mp._deliver.open_scopes import OpenScopes, OpenStart
from relay_mp._deliver.replacement import Named, replace
from relay_mp._deliver.subscriptions import Subscription, Subscriptions
from relay_mp._emit import middleware
from relay_mp._log import logger
from relay_mp._native import core
from relay_mp._native.core import UNIT_BYTES, is_dispatching
from relay_mp._native.reader import Reader, Record
from relay_mp._native.segments import Segment
from relay_mp._native.shorten import CUT_KEY
from relay_mp.errors import RecordError, SegmentError, SessionError, SubscriberError
from relay_mp.events import Event, MarkEvent, decode, view_of

BATCH_EVENTS = 256
RUN_EVENTS = 64
"""The most that are delivered without a look around, and the most that a callback takes ahead of the others: an
emitting thread of the owner may have to wait so long for the GIL."""
IDLE_SECONDS = 0.25
"""How long it waits for news before it looks around. Each look costs 0.1 ms of Python: at this pace a session that
has nothing to do costs less than a thousandth of a core."""
OWNED_SCAN_SECONDS = 0.5
"""Between two looks at the producers while a subscription belongs to a process: it ends within a second of that."""
LOSS_MARK = "relay_mp.loss"
LOSS_CAUSES = ("full", "writer_died", "fenced", "corrupt", "poison")
"""Why events were lost: the ring was full; their writer died, or was too slow, before it had finished them; their
record was damaged; their delivery ended the dispatcher's process again and again. In the order of the native half."""

_KEPT_SEQS = 4
"""Of a place, for what comes there in any case: the record or its own loss, the loss before it, the unregistered."""

REPLY_OK, REPLY_NO, REPLY_ERROR = 0, 1, 2

_CONTROL = bytes([core.KIND_CONTROL])


class OpenBounds(NamedTuple):
    """What is kept of open scopes, for who begins to watch: beyond so many bytes the oldest lose their payloads, and
    are given up if that is not enough, or there are too many. No scopes: nothing is kept, which is cheaper."""

    scopes: int
    size_bytes: int


OPEN_BOUNDS = OpenBounds(100_000, 16 << 20)
"""What the settings `max_open_scopes` and `max_open_bytes` are by default."""


class Dispatcher:
    """Delivers one session's stream. `run` returns when `stop` was called and all is delivered."""

    def __init__(
        self,
        segment: Segment,
        subscriptions: Subscriptions,
        allowed: Allowed | None = None,
        bounds: OpenBounds = OPEN_BOUNDS,
    ) -> None:
        """`allowed`: what other processes may have it import; anything by default."""
        self._segment = segment
        self._subscriptions = subscriptions
        self._askers = Askers(segment, allowed or Allowed())
        self._reader = Reader(segment, view_of)
        self._liveness = Liveness(segment, self._reader)
        self._keeps_open = bounds.scopes > 0
        self._open: OpenScopes[OpenStart[Any]] = OpenScopes(
            max(bounds.scopes, 1), lambda given_up: None, bounds.size_bytes
        )
        self._stall_seconds = segment.stall_timeout_ns / 1e9
        self._max_deliveries: float = segment.max_deliveries
        self._last_mark_seq = self._mark_seq_before()
        self._is_salvaging = False
        self.is_unreadable = False
        self._next_scan = time.monotonic() + SCAN_SECONDS
        self._stopping = False
        # What an earlier dispatcher died of, or had given to take_batch, is among the first so many: each comes alone.
        self._alone = RUN_EVENTS if segment.lease()[0] >> 32 > 1 else 0
        self.live_producers = 0

    def stop(self) -> None:
        """Ends `run` once the sealed ring is drained. Any thread."""
        self._stopping = True
        self._segment.call_dispatcher()

    def run(self, keep_going: Callable[[], bool] = lambda: True) -> None:
        """Delivers until stopped and drained; `keep_going` is asked at least every IDLE_SECONDS."""
        core.set_dispatching(True)
        try:
            self._begin_restored()
            if self._reader.mark_deliveries:
                self._deliver_mark()  # a dispatcher died of it, or with it
            while keep_going() and self.step():
                pass
            if is_dispatching():
                self._scan()
                self._mark_late_losses(has_ended=True)
        finally:
            core.set_dispatching(False)

    def step(self) -> bool:
        """One batch. False when there is no more to come, or this is a forked child of a callback."""
        batch = self._next_batch()
        at = 0
        while at < len(batch):
            done = self._deliver_run(batch, at)
            if not done and is_dispatching():
                done = self._deliver_alone(batch[at])
            if not is_dispatching():
                return False
            at += done
        self._reader.end_batch()
        if not batch:
            self._while_idle()
        if time.monotonic() >= self._next_scan:
            self._scan()
        if self._is_salvaging and not batch:
            self._segment.finish_salvage()
            return False
        return not (self._stopping and self._segment.read_pos == self._segment.tail)

    def _next_batch(self) -> list[Record]:
        try:
            return self._reader.next_batch(BATCH_EVENTS, IDLE_SECONDS)
        except SegmentError as error:
            self._segment.mark_broken()  # who emits or flushes must not wait for what can never come
            self._is_salvaging = True
            self.is_unreadable = not self._reader.salvage()
            left = "nothing of it can be read" if self.is_unreadable else "what can still be read of it is delivered"
            logger.error("%s; %s. The session takes no more events: close it, and start another", error, left)
            return self._reader.next_batch(BATCH_EVENTS, 0.0)

    # ---- a run of records ----

    def _deliver_run(self, batch: list[Record], start: int) -> int:
        """As many records from `start` on as need nothing but their callbacks. Returns how many those were."""
        registrations = middleware.registry.snapshot
        if self._alone or self._subscriptions.has_locals or registrations.gates:
            return 0
        position = batch[start].position
        viewers, edge = self._subscriptions.stretch(position)
        end = self._reader.run_end(batch, start, RUN_EVENTS, edge)
        if self._keeps_open:
            # Also what it does not come to now: to note a record twice is to note it once.
            self._open.note(self._reader.events(batch, start, end))
        for viewer in viewers:
            if viewer.take_batch is not None and end > start:
                end = self._offer(viewer, batch, start, end)
        left = [viewer for viewer in viewers if viewer.taken <= position]

        def failed(which: int, event: Event, error: BaseException) -> None:
            self._note_failure(left[which], event, error)

        callbacks = tuple([viewer.callback for viewer in left])
        return self._reader.deliver(batch, start, end, callbacks, failed, middleware.registry, registrations)

    def _offer(self, viewer: Subscription, batch: list[Record], start: int, end: int) -> int:
        """Gives a run to who takes it ahead of the others, unless part of it is taken already. Returns where the run
        ends for it: behind what it has taken, or else behind one record, with which it is called."""
        if viewer.taken <= batch[start].position:
            events = self._reader.events(batch, start, end)
            try:
                count = viewer.take_batch(events)  # type: ignore[misc]
            except BaseException as error:
                self._note_failure(viewer, events[0], error)
                count = 0
            if not is_dispatching():
                return start
            if count <= 0:
                return start + 1
            viewer.taken = batch[min(start + count, end) - 1].next_position
        return self._reader.run_end(batch, start, end - start, viewer.taken)

    def _note_failure(self, subscription: Subscription, event: Event, error: BaseException) -> None:
        """SystemExit too: a subscriber ends nothing but itself. In a child that it forked, its error is the child's."""
        if not is_dispatching():
            raise error
        self._segment.count_subscriber_error()
        logger.error("subscriber %r failed on %r", subscription.name, event, exc_info=error)

    # ---- one record ----

    def _deliver_alone(self, record: Record) -> int:
        """One record, whatever it is. Returns 1."""
        slot, owner_seq, position = record.slot, record.owner_seq, record.position
        self._alone = max(self._alone - 1, 0)
        begun = self._reader.begin(slot, owner_seq)
        if begun > 0:
            self._mark_losses(slot, self._reader.unmarked(slot, begun), position)
            if not is_dispatching():
                return 1
            begun = self._reader.begin(slot, owner_seq, True)
        try:
            if -begun >= self._max_deliveries:
                self._give_up(record)
            else:
                self._call(record, begun < 0)
        except RecordError:
            logger.exception("a record at %d of slot %d is not an event; it is skipped", position, slot)
        if is_dispatching():
            self._reader.done(record.next_position)
        return 1

    def _call(self, record: Record, redelivered: bool) -> None:
        if record.payload[1:2] == _CONTROL:
            self._control(record.payload, record.slot, record.owner_seq, record.position, redelivered)
        else:
            event = decode(record.payload, record.seq, self._segment.slot_pid(record.slot), redelivered)
            stack = event.packed_stack if self._subscriptions.has_locals else None
            self._publish(event, record.position, stack)

    def _give_up(self, record: Record) -> None:
        """Whoever delivers this record dies of it: it is lost, and says so at its place."""
        payload, seq, _, slot, owner_seq = record
        died = f"the dispatcher's process has ended {self._max_deliveries} times while it delivered"
        if payload[1:2] == _CONTROL:
            logger.error("%s a request of slot %d; it is refused", died, slot)
            self._segment.reply(slot, owner_seq, REPLY_ERROR, f"{died} this request; it is given up")
            return
        if self._reader.give_up(slot, owner_seq):
            event = decode(payload, seq, self._segment.slot_pid(slot))
            logger.error("%s %r of process %d, seq %d; it is given up and counted as lost", died, event, event.pid, seq)
        # Behind it: some have seen it already.
        self._mark_losses(slot, self._reader.unmarked(slot), seq // UNIT_BYTES + 1)

    def _publish(self, event: Event, position: int, stack: bytes | None) -> None:
        if self._keeps_open:
            self._open.note([event])
        for subscription in self._subscriptions.viewers(position, stack):
            if subscription.taken > position:
                continue
            try:
                subscription.callback(event)
            except BaseException as error:
                self._note_failure(subscription, event, error)
            if not is_dispatching():
                return

    # ---- losses ----

    def _mark_losses(self, slot: int, count: int, position: int) -> None:
        """Puts a mark of so many losses of a slot into the stream. Slot 0: of threads that found none."""
        if count:
            # Between the last record's seq and the next one's, which is its last byte's position.
            self._last_mark_seq = max(self._last_mark_seq + 1, position * UNIT_BYTES)
            self._reader.prepare_mark(slot, count, self._last_mark_seq)
            self._deliver_mark()

    def _deliver_mark(self) -> None:
        begun_before, seq, slot, pid, timestamp_us, uuid, lost = self._reader.begin_mark()
        causes: dict[str, Any] = {cause: count for cause, count in zip(LOSS_CAUSES, lost, strict=True) if count}
        if slot == 0:
            causes = {"unregistered": sum(lost)}
        if begun_before < self._max_deliveries:
            mark = MarkEvent.from_fields(
                LOSS_MARK,
                uuid=uuid,
                timestamp_us=timestamp_us,
                seq=seq,
                pid=pid,
                data={"pid": pid, "lost": sum(lost), "causes": causes},
                redelivered=begun_before > 0,
            )
            self._publish(mark, seq // UNIT_BYTES, None)
        else:
            logger.error(
                "the dispatcher's process has ended %d times while it delivered the mark of a loss: %s of process %d; "
                "the mark is given up, the loss stays counted",
                *(begun_before, causes, pid),
            )
        if is_dispatching():
            self._reader.mark_done()

    def _mark_seq_before(self) -> int:
        """Of the newest mark of earlier dispatchers; a damaged one that is far ahead of the stream does not count."""
        last = self._reader.last_mark_seq
        ahead = last // UNIT_BYTES - self._segment.read_pos
        return last if ahead <= core.MAX_PRODUCERS else 0

    def _mark_late_losses(self, *, has_ended: bool) -> None:
        """Losses that have no place of their own. A place has numbers for as many marks as a unit has bytes, and
        the next record's own may be among them; the rest waits until the stream has moved on, or `has_ended`."""
        position = self._segment.read_pos
        last = (position + 1) * UNIT_BYTES - _KEPT_SEQS
        for slot in self._reader.unmarked_slots(has_ended):
            if is_dispatching() and (has_ended or slot == 0 or self._last_mark_seq < last):
                self._mark_losses(slot, self._reader.unmarked(slot, 0, has_ended), position)

    # ---- between batches ----

    def _while_idle(self) -> None:
        slot = self._reader.blocked_slot
        if not slot:
            self._subscriptions.prune(self._segment.read_pos)
            self._subscriptions.publish_reports()
        elif self._liveness.slot_is_dead(slot):
            self._liveness.retire(slot)
            self._reader.abort_blocked()
        elif self._is_stalled() and self._reader.fence_blocked():
            logger.warning(
                "process %d has held up delivery for %.1f s with an unfinished event; it is skipped",
                self._segment.slot_process(slot)[0],
                self._stall_seconds,
            )

    def _is_stalled(self) -> bool:
        return 0 < self._stall_seconds <= self._reader.blocked_seconds

    def _scan(self) -> None:
        self._next_scan = time.monotonic() + (OWNED_SCAN_SECONDS if self._subscriptions.has_owned else SCAN_SECONDS)
        self._subscriptions.end_useless(is_dead, lambda: self._segment.tail)
        self._subscriptions.prune(self._segment.read_pos)
        self._subscriptions.retry_absent()
        self._begin_restored()
        self._subscriptions.publish_reports()
        self.live_producers = self._liveness.scan()
        self._mark_late_losses(has_ended=False)

    def _begin_restored(self) -> None:
        """Subscribers of an earlier dispatcher, made anew here."""
        for subscription in self._subscriptions.all():
            if not subscription.has_begun:
                subscription.begin(self._opened)

    # ---- requests from other processes ----

    def _control(self, payload: bytes, slot: int, owner_seq: int, position: int, redelivered: bool) -> None:
        try:
            fields = msgpack.unpackb(payload)
            verb, request = fields[4], msgpack.unpackb(fields[9])
            self._askers.require(verb, request, slot)
            code, text = self._answer(verb, request, slot, position, redelivered), ""
        except (SubscriberError, SessionError) as error:
            code, text = REPLY_ERROR, str(error)
        except Exception as error:
            code, text = REPLY_ERROR, f"malformed request: {error!r}"
        if not self._segment.reply(slot, owner_seq, code, text):
            asker = self._segment.slot_process(slot)[0]
            logger.error("to process %d, which could be told only the beginning of this: %s", asker, text)

    def _answer(self, verb: str, request: dict[str, Any], slot: int, position: int, redelivered: bool) -> int:
        if CUT_KEY in request:
            raise SubscriberError(
                f"a request of {request[CUT_KEY]['bytes']} bytes is above the session's max_event_bytes of "
                f"{self._segment.max_event_bytes}; pass less in the arguments, or raise it"
            )
        scope = bytes.fromhex(request["scope"]) if request["scope"] else None
        if verb == "register":
            owner = self._segment.slot_process(slot) if request.get("is_owned") else None
            self._register(request, scope, owner, position, redelivered)
        elif verb == "is_known":
            return REPLY_OK if self._subscriptions.is_known(request["name"], request["identity"]) else REPLY_NO
        elif verb == "close_scope":
            self._subscriptions.close_scope(bytes.fromhex(request["scope"]), lambda: position)
        elif verb == "request_flush":
            self._subscriptions.request_flush(request["name"], position)
        elif verb == "replace":
            add = [Named(*each) for each in request["add"]]
            replace(self._subscriptions, request["remove"], add, lambda: position, position)
        elif verb != "deregister":
            raise SubscriberError(f"unknown request {verb!r}; the processes use different versions of relay_mp")
        elif self._subscriptions.remove(request["name"], scope, lambda: position):
            self._subscriptions.prune(position)  # all before it has been delivered
        else:
            # The dispatcher that died in between may have done it, and not said so.
            return (
                REPLY_OK if redelivered and self._subscriptions.ended_at(request["name"], scope, position) else REPLY_NO
            )
        return REPLY_OK

    def _register(
        self,
        request: dict[str, Any],
        scope: bytes | None,
        owner: tuple[int, int, int] | None,
        position: int,
        redelivered: bool,
    ) -> None:
        name, target, arguments = request["name"], request["target"], request["arguments"]
        known = self._subscriptions.live(name, scope)
        if redelivered and known is not None and known.since == position:
            return  # done by the dispatcher that died
        self._subscriptions.require_free(name, scope)
        callback = named.resolve(target, arguments)
        subscription = Subscription(name, callback, scope, target=target, arguments=arguments, process=owner)
        self._subscriptions.add(subscription, lambda: position)
        subscription.begin(self._opened)

    def _opened(self) -> Opened:
        starts = [kept.start for kept in self._open.snapshot()]
        since_us = self._subscriptions.heard_since_us if self._keeps_open else core.now_us()
        return Opened(starts, since_us, self._open.evicted, self._segment.events_delivered)
