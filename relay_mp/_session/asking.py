"""A request to a session's dispatcher, from a process that is not in the session and emits nothing into it.

    ask ─▶ a slot of the session, for this one request ─▶ a record of its ring ─▶ the dispatcher answers in the slot

What a worker asks goes the same way, see dispatch.py; it has its slot from its events. Any process of the same user.
"""

import time
from typing import Any

from relay_mp._deliver.askers import told_uids
from relay_mp._deliver.dispatcher import REPLY_ERROR, REPLY_OK
from relay_mp._native import core
from relay_mp._native.segments import Segment
from relay_mp._session import flush as flushing
from relay_mp._threads import nap, sleep
from relay_mp.errors import FlushTimeoutError, SessionError, SubscriberError
from relay_mp.events import KIND_CONTROL, pack_record

__all__ = ["ask"]

FULL_RING_SECONDS = 0.005
"""Between two attempts to put a request into a full ring."""


def ask(segment: Segment, verb: str, timeout_seconds: float, **request: Any) -> bool:
    """Waits for the answer: yes or no.

    Raises:
        SubscriberError: the dispatcher refused it.
        SessionError: the session has ended, nobody delivers in it, or this is a subscriber's callback of it.
        RegistryFullError: all its producer slots are taken.
        FlushTimeoutError: the dispatcher did not come to it in time.
    """
    if core.is_dispatching():
        raise SessionError(f"a subscriber's callback cannot ask to {verb}: the dispatcher would wait for itself")
    deadline = time.monotonic() + timeout_seconds
    slot = segment.take_slot()
    try:
        owner_seq = _put(segment, slot, _record(verb, request), deadline, timeout_seconds)
        left = max(deadline - time.monotonic(), 0.0)
        flushing.flush(segment, left, is_abandoned=lambda: flushing.nobody_delivers(segment))
        answered, code, text = segment.read_reply(slot)
    finally:
        segment.leave_slot(slot)
    if answered != owner_seq or code == REPLY_ERROR:
        raise SubscriberError(text if answered == owner_seq else f"the dispatcher did not answer the request to {verb}")
    return bool(code == REPLY_OK)


def _record(verb: str, request: dict[str, Any]) -> bytes:
    asked = {**request, "scope": None, "uids": told_uids()}
    return pack_record(
        KIND_CONTROL, core.uuid7(), None, core.now_us(), verb, thread_id=core.thread_id(), data=asked
    )  # fmt: skip


def _put(segment: Segment, slot: int, record: bytes, deadline: float, timeout_seconds: float) -> int:
    while not (owner_seq := segment.put_request(slot, record)):
        if flushing.nobody_delivers(segment):
            raise SessionError(f"nobody delivers in the session of {segment.path}, and its ring is full")
        if time.monotonic() >= deadline:
            raise FlushTimeoutError(
                f"the ring of {segment.path} was full for {timeout_seconds:g} s: a subscriber is slow or stuck; "
                "nothing was asked of it"
            )
        if not nap(FULL_RING_SECONDS):
            sleep(FULL_RING_SECONDS)
    return owner_seq
