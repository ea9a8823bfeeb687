"""The dispatcher: takes records out of the ring in order and hands each to the subscribers.

    ring ──▶ Reader.next_batch ──▶ decode ──▶ Registry.viewers ──▶ callbacks ──▶ Reader.done

Runs in one thread of one process at a time: the holder of the session's lease. A record stays in the
ring until all its callbacks have returned, so a dispatcher that dies loses nothing; its successor
delivers at most one record again, flagged. A callback that raises is logged and counted, and harms
neither the dispatcher nor the other callbacks. A callback may emit (the events queue behind, and are
dropped and counted if the ring is full, since waiting would be for itself), register, deregister and
fork; it may not flush.
"""

import logging
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import msgpack  # type: ignore[import-untyped]

from relay_mp._deliver import named
from relay_mp._deliver.liveness import SCAN_SECONDS, Liveness
from relay_mp._deliver.registry import Registry, Subscription
from relay_mp._native import core
from relay_mp._native.core import Reader, Segment
from relay_mp.errors import RecordError, SegmentError, SessionError, SubscriberError
from relay_mp.events import Event, MarkEvent, decode

logger = logging.getLogger("relay_mp")

BATCH_EVENTS = 256
IDLE_SECONDS = 0.05
LOSS_MARK = "relay_mp.loss"
CUT_KEY = "relay_mp.cut"
LOSS_CAUSES = ("full", "writer_died", "fenced", "corrupt")

_KEPT_SEQS = 4
"""Of a place, for what comes there in any case: the record, the loss before it, the unregistered."""

REPLY_OK, REPLY_NO, REPLY_ERROR = 0, 1, 2

_CONTROL = bytes([core.KIND_CONTROL])


class Dispatcher:
    """Delivers one session's stream. `run` returns when `stop` was called and all is delivered."""

    def __init__(self, segment: Segment, registry: Registry) -> None:
        self._segment = segment
        self._registry = registry
        self._reader = Reader(segment)
        self._liveness = Liveness(segment, self._reader)
        self._stall_seconds = segment.stall_timeout_ns / 1e9
        self._reported = self._reported_before()
        self._unregistered_reported = segment.lost_unregistered
        self._last_loss_seq = 0
        self._late_losses: deque[tuple[int, int, dict[str, Any]]] = deque()
        self._next_scan = time.monotonic() + SCAN_SECONDS
        self._stopping = False
        self.live_producers = 0

    def stop(self) -> None:
        """Ends `run` once the sealed ring is drained. Any thread."""
        self._stopping = True

    def run(self, keep_going: Callable[[], bool] = lambda: True) -> None:
        """Delivers until stopped and drained; `keep_going` is asked at least every 50 ms."""
        core.set_dispatching(True)
        try:
            while keep_going() and self.step():
                pass
            if core.is_dispatching():
                self._scan()
                self._report_trailing_losses()
        finally:
            core.set_dispatching(False)

    def step(self) -> bool:
        """One batch. False when there is no more to come, or this is a forked child of a callback."""
        batch = self._next_batch()
        for record in batch:
            self._deliver(*record)
            if not core.is_dispatching():
                return False
        self._reader.end_batch()
        if not batch:
            self._while_idle()
        if time.monotonic() >= self._next_scan:
            self._scan()
        return not (self._stopping and self._segment.read_pos == self._segment.tail)

    def _next_batch(self) -> list[tuple[bytes, int, int, int, int]]:
        try:
            return self._reader.next_batch(BATCH_EVENTS, IDLE_SECONDS)
        except SegmentError:
            self._segment.condemn()  # who emits or flushes must not wait for what can never come
            raise

    # ---- one record ----

    def _deliver(self, payload: bytes, seq: int, next_position: int, slot: int, owner_seq: int) -> None:
        missing = self._reader.begin(slot, owner_seq)
        position = seq // core.UNIT_BYTES
        if missing > 0:
            self._report_loss(slot, missing, position)
        try:
            if payload[1:2] == _CONTROL:
                self._control(payload, slot, owner_seq, position, missing < 0)
            else:
                event = decode(payload, seq, self._segment.slot_state(slot) >> 32, missing < 0)
                stack = event.packed_stack if self._registry.has_locals else None
                self._publish(event, position, stack)
        except RecordError:
            logger.exception("a record at %d of slot %d is no event; it is skipped", position, slot)
        if core.is_dispatching():
            self._reader.done(next_position)

    def _publish(self, event: Event, position: int, stack: bytes | None) -> None:
        for subscription in self._registry.viewers(position, stack):
            try:
                subscription.callback(event)
            except BaseException as error:  # SystemExit too: a subscriber ends nothing but itself
                if not core.is_dispatching():
                    raise
                self._segment.count_subscriber_error()
                logger.error("subscriber %r failed on %r", subscription.name, event, exc_info=error)
            if not core.is_dispatching():
                return

    # ---- losses ----

    def _report_loss(self, slot: int, missing: int, position: int) -> None:
        """Puts a mark where events are missing, before the next event of the same producer."""
        self._mark_loss(self._segment.slot_process(slot)[0], missing, self._causes(slot, missing), position)

    def _report_unregistered(self) -> None:
        """Events of threads that found no slot have no number, and so no place but this."""
        missing = self._segment.lost_unregistered - self._unregistered_reported
        if missing:
            self._unregistered_reported += missing
            self._mark_loss(0, missing, {"unregistered": missing}, self._segment.read_pos)

    def _mark_loss(self, pid: int, missing: int, causes: dict[str, Any], position: int) -> None:
        mark = MarkEvent.from_fields(
            LOSS_MARK,
            uuid=core.uuid7(),
            timestamp_us=core.now_us(),
            seq=self._loss_seq(position),
            pid=pid,
            data={"pid": pid, "lost": missing, "causes": causes},
        )
        self._publish(mark, position, None)

    def _reported_before(self) -> dict[int, tuple[int, ...]]:
        """What earlier dispatchers of this session have put into the stream, by slot and cause."""
        reported: dict[int, tuple[int, ...]] = {}
        registry, at = self._segment.registry(), core.SLOT_FIELDS["passed_lost"]
        for slot in range(1, len(registry) // core.SLOT_BYTES):
            start = slot * core.SLOT_BYTES + at
            passed = int.from_bytes(registry[start : start + 8], sys.byteorder)
            if passed:
                shares: list[int] = []
                for counted in self._segment.slot_losses(slot):
                    shares.append(min(counted, passed - sum(shares)))
                reported[slot] = tuple(shares)
        return reported

    def _causes(self, slot: int, missing: int) -> dict[str, Any]:
        # A producer that drops on counts further losses before this place is reached: they are for the
        # next mark, so each mark takes no more than its own number.
        counted = self._segment.slot_losses(slot)
        reported = list(self._reported.get(slot, (0, 0, 0, 0)))
        causes: dict[str, Any] = {}
        for index, cause in enumerate(LOSS_CAUSES):
            share = min(counted[index] - reported[index], missing - sum(causes.values()))
            if share > 0:
                causes[cause] = share
                reported[index] += share
        self._reported[slot] = tuple(reported)
        return causes

    def _report_late_losses(self, *, has_ended: bool) -> None:
        """Losses that have no place of their own. A place has numbers for as many marks as a unit has bytes, and
        the next record's own may be among them; the rest waits until the stream has moved on, or `has_ended`."""
        position = self._segment.read_pos
        last = (position + 1) * core.UNIT_BYTES - _KEPT_SEQS
        while self._late_losses and (has_ended or self._last_loss_seq < last):
            self._mark_loss(*self._late_losses.popleft(), position)

    def _loss_seq(self, position: int) -> int:
        """Between the last record's seq and the next one's, which is its last byte's position."""
        self._last_loss_seq = max(self._last_loss_seq + 1, position * core.UNIT_BYTES)
        return self._last_loss_seq

    # ---- between batches ----

    def _while_idle(self) -> None:
        slot = self._reader.blocked_slot
        if not slot:
            self._registry.prune(self._segment.read_pos)
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
        self._next_scan = time.monotonic() + SCAN_SECONDS
        self._registry.prune(self._segment.read_pos)
        self._report_unregistered()
        lost, self.live_producers = self._liveness.scan()
        for slot in lost:
            self._report_unreported(slot)
        self._report_late_losses(has_ended=False)

    def _report_trailing_losses(self) -> None:
        """The stream has ended: what producers dropped after their last event has no later place."""
        for slot, status in enumerate(self._segment.slot_statuses()):
            if slot and status:
                self._report_unreported(slot)
        self._report_late_losses(has_ended=True)

    def _report_unreported(self, slot: int) -> None:
        unreported = sum(self._segment.slot_losses(slot)) - sum(self._reported.get(slot, (0,)))
        if unreported > 0:
            # Whose they are is settled now: the slot may have another owner by the time there is room.
            pid = self._segment.slot_process(slot)[0]
            self._late_losses.append((pid, unreported, self._causes(slot, unreported)))

    # ---- requests from other processes ----

    def _control(self, payload: bytes, slot: int, owner_seq: int, position: int, redelivered: bool) -> None:
        try:
            fields = msgpack.unpackb(payload)
            code, text = self._answer(fields[4], msgpack.unpackb(fields[9]), position, redelivered), ""
        except (SubscriberError, SessionError) as error:
            code, text = REPLY_ERROR, str(error)
        except Exception as error:
            code, text = REPLY_ERROR, f"malformed request: {error!r}"
        self._segment.reply(slot, owner_seq, code, text)

    def _answer(self, verb: str, request: dict[str, Any], position: int, redelivered: bool) -> int:
        if CUT_KEY in request:
            raise SubscriberError(
                f"a request of {request[CUT_KEY]['bytes']} bytes is above the session's max_event_bytes of "
                f"{self._segment.max_event_bytes}; pass less in the arguments, or raise it"
            )
        scope = bytes.fromhex(request["scope"]) if request["scope"] else None
        if verb == "register":
            self._register(request, scope, position, redelivered)
        elif verb == "close_scope":
            self._registry.close_scope(bytes.fromhex(request["scope"]), lambda: position)
        elif verb != "deregister":
            raise SubscriberError(f"unknown request {verb!r}; the processes use different versions of relay_mp")
        elif self._registry.remove(request["name"], scope, lambda: position):
            self._registry.prune(position)  # all before it has been delivered
        else:
            # The dispatcher that died in between may have done it, and not said so.
            return REPLY_OK if redelivered and self._registry.ended_at(request["name"], scope, position) else REPLY_NO
        return REPLY_OK

    def _register(self, request: dict[str, Any], scope: bytes | None, position: int, redelivered: bool) -> None:
        name, target, arguments = request["name"], request["target"], request["arguments"]
        known = self._registry.live(name, scope)
        if redelivered and known is not None and known.since == position:
            return  # done by the dispatcher that died
        self._registry.require_free(name, scope)
        callback = named.resolve(target, arguments)
        subscription = Subscription(name, callback, scope, target=target, arguments=arguments)
        self._registry.add(subscription, lambda: position)
