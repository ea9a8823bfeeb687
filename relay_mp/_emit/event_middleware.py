"""What sees every event before it is encoded: metadata injectors, then the sanitizers of its kind.

Runs in the emitting process, on the emitting thread, called by `core.emit` for each event that somebody
listens to, and only while such middleware is registered. So a payload is sanitized before it enters
shared memory. In the order of `middleware.visible`:

    injectors     return metadata to add; keys that are there already stay; one that fails adds nothing
    sanitizers    return data, metadata and category_profile anew; one that fails withholds all three

A callback gets an event of its own, and its own copy of the fields. What it emits itself goes through
the same middleware, MAX_NESTING deep; beyond that, events lose their payloads, so that a sanitizer which
emits for each event it sees comes to an end.
"""

import os
import re
from contextvars import ContextVar
from typing import Any

import msgpack  # type: ignore[import-untyped]

from relay_mp._emit.arguments import freeze, thaw
from relay_mp._emit.calls import peek
from relay_mp._emit.families import END_SANITIZERS, EVENT_INJECTORS, MARK_SANITIZERS, START_SANITIZERS
from relay_mp._emit.middleware import Registration, registry, visible
from relay_mp._emit.settle import BLOCK, run_now, settle
from relay_mp._log import logger
from relay_mp._native.core import thread_id
from relay_mp.errors import MiddlewareError, described_type
from relay_mp.events import Event, decode

__all__ = ["MAX_NESTING", "report"]

MAX_NESTING = 8
"""How deep events emitted by event middleware go through it themselves."""

_SANITIZERS = (START_SANITIZERS, END_SANITIZERS, MARK_SANITIZERS)

_nesting: ContextVar[int] = ContextVar("relay_mp_event_middleware", default=0)

_KEY = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", re.ASCII)

Payloads = tuple[Any, Any, Any, Any]


def _hook(
    kind: int,
    uuid: bytes,
    parent: bytes | None,
    timestamp_us: int,
    name: str,
    category: int | str | None,
    attributes: int,
    stack: bytes | None,
    data: Any,
    metadata: Any,
    profile: Any,
    schema: Any,
) -> Payloads:
    injectors = visible(EVENT_INJECTORS, stack)
    sanitizers = visible(_SANITIZERS[kind], stack)
    if not injectors and not sanitizers:
        return data, metadata, profile, schema
    depth = _nesting.get()
    if depth >= MAX_NESTING:
        logger.error("event middleware emits for what it emits; %r loses its payload", name)
        return None, None, None, schema
    envelope = (kind, uuid, parent, timestamp_us, name, category, attributes, thread_id(), stack)
    draft = _Draft(envelope, data, metadata, profile, schema)
    token = _nesting.set(depth + 1)
    try:
        run_now(_pass(draft, injectors, sanitizers))
    finally:
        _nesting.reset(token)
    return draft.payloads()


registry.set_event_hook(_hook)


class _Draft:
    """An event on its way through the middleware: its payloads as they are now, packed."""

    def __init__(self, envelope: tuple[Any, ...], data: Any, metadata: Any, profile: Any, schema: Any) -> None:
        self.envelope = envelope
        self.data = freeze(data, "data")
        self.metadata = freeze(metadata, "metadata")
        self.profile = freeze(profile, "category_profile")
        self.schema = freeze(schema, "data_schema")

    def event(self) -> Event:
        """As a subscriber would see it. `seq` is 0: it has no place in the stream yet."""
        payloads = (self.data, self.metadata, self.profile, self.schema)
        packed = [None if p is None else p if type(p) is bytes else msgpack.packb(p) for p in payloads]
        return decode(msgpack.packb([*self.envelope, *packed]), 0, os.getpid())

    def fields(self) -> dict[str, Any]:
        """What a sanitizer may change."""
        return {
            "category_profile": thaw(self.profile),
            "data": thaw(self.data),
            "metadata": thaw(self.metadata),
        }

    def withhold(self) -> None:
        self.data = self.metadata = self.profile = None

    def payloads(self) -> Payloads:
        return peek(self.data), peek(self.metadata), peek(self.profile), peek(self.schema)


async def _pass(draft: _Draft, injectors: Any, sanitizers: Any) -> None:
    for registration in injectors:
        try:
            added = await settle(registration.callback(draft.event()), BLOCK)
            _inject(draft, added)
        except Exception as error:
            report(registration, error)
    for registration in sanitizers:
        try:
            fields = await settle(registration.callback(draft.event(), draft.fields()), BLOCK)
            _replace(draft, fields)
        except Exception as error:
            report(registration, error)
            draft.withhold()
            return


def _inject(draft: _Draft, added: Any) -> None:
    _check_added(added)
    if not added:
        return
    present = thaw(draft.metadata)
    if present is None:
        present = {}
    if not isinstance(present, dict):
        found = described_type(present)
        raise MiddlewareError(f"the event's metadata is {found}, which has no place for more; expected a dict")
    draft.metadata = freeze({**added, **present}, "metadata")


def _check_added(added: object) -> None:
    if not isinstance(added, dict):
        raise MiddlewareError(f"it returned {described_type(added)}; expected a dict")
    for key, value in added.items():
        if not isinstance(key, str) or _KEY.fullmatch(key) is None:
            raise MiddlewareError(
                f"it returned the key {key!r:.80}; expected letters, digits, '_', '-', in parts joined by single dots"
            )
        items = value if isinstance(value, list) else [value]
        kinds = {_primitive_kind(item) for item in items}
        if None in kinds or len(kinds) > 1:
            raise MiddlewareError(
                f"it returned {described_type(value)} under {key!r:.80}; expected str, bool, an int of 64 bits, "
                "a finite float, or a list of one of these"
            )


def _primitive_kind(value: object) -> str | None:
    if isinstance(value, str):
        return "text"
    if isinstance(value, bool):
        return "flag"
    if isinstance(value, int):
        return "number" if -(2**63) <= value < 2**63 else None
    if isinstance(value, float):
        return "number" if value - value == 0.0 else None
    return None


def _replace(draft: _Draft, fields: Any) -> None:
    if not isinstance(fields, dict):
        raise MiddlewareError(
            f"it returned {described_type(fields)}; expected a dict with data, metadata and category_profile"
        )
    profile = fields.get("category_profile")
    if profile is not None and not isinstance(profile, dict):
        raise MiddlewareError(f"its category_profile is {described_type(profile)}; expected a dict or None")
    # All three first: what fails changes nothing.
    data, metadata = freeze(fields.get("data"), "data"), freeze(fields.get("metadata"), "metadata")
    draft.profile = freeze(profile, "category_profile")
    draft.data, draft.metadata = data, metadata


_WHAT = {
    "withhold": "the event's payload is withheld",
    "omit": "it adds nothing",
    "fail": "the call fails",
}


def report(registration: Registration, error: BaseException) -> None:
    """Logs a failed callback. How often is the log's to bound."""
    logger.error(
        "%s failed; %s: %s",
        f"{registration.family.kind.value} {registration.name!r}",
        _WHAT[registration.family.failure],
        error if isinstance(error, MiddlewareError) else type(error).__name__,
        exc_info=None if isinstance(error, MiddlewareError) else error,
    )
