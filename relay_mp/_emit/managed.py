"""What managed and manual calls of tools and LLMs share: their events, guardrails, intercepts, failures.

Runs in every emitting process, on the caller's thread. `relay_mp.tools` and `relay_mp.llm` are the public
verbs; what differs between the two is theirs. A managed call, in order:

    guardrails       check_guardrails    a pair of guardrail events each; the first rejection ends it
    request          request intercepts, one after the other
    begin_call       the start event, its payload sanitized
    execution        through_intercepts  each wraps the next; the innermost is the callback itself
    end_call         the end event, its payload sanitized, and the marks that intercepts asked for
    fail_call        the end event of what raised, with `otel.status_code` ERROR and `error.type`

A managed call is a scope: from `begin_call` to `end_call` it is the current one (`Inside`), so that what its callback
and its execution intercepts emit stands below it.

What a callback or middleware raises passes unchanged: the very exception. A `CallbackError` is for a return value that
the pipeline cannot use; a `RejectedError` for what a guardrail has rejected.

A full ring: each event may hold the call up, as any emit; see `relay_mp.scope`. While nobody listens, no
event is made and payloads are not looked at; middleware runs all the same, for it guards the call itself.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Self, TypeVar

from relay_mp._emit.arguments import freeze, merge_metadata, thaw, to_microseconds
from relay_mp._emit.calls import AnyHandle, PendingMarkSpec, _CallHandle
from relay_mp._emit.current import _current as current
from relay_mp._emit.current import current_scope, record_stack
from relay_mp._emit.event_middleware import report
from relay_mp._emit.failures import (
    STATUS_KEY,
    describe,
    failure_status,
    is_cancellation,
    plain_text,
    type_name,
)
from relay_mp._emit.families import Family
from relay_mp._emit.handle import ScopeHandle, scope_handle
from relay_mp._emit.middleware import Registration, visible
from relay_mp._emit.settle import AWAIT, settle
from relay_mp._emit.verbs import end_silently
from relay_mp._native.core import active, emit, fork_epoch, uuid7
from relay_mp._native.encoder import replaced_so_far
from relay_mp.errors import CallbackError, RejectedError, described_type
from relay_mp.events import KIND_END, KIND_MARK, KIND_START
from relay_mp.types import ScopeType

__all__ = [
    "WITHHELD",
    "Inside",
    "begin_call",
    "check_guardrails",
    "copy_payload",
    "copy_to_go_on_with",
    "emit_marks",
    "end_call",
    "fail_call",
    "fails",
    "intercepted",
    "parent_of",
    "reject_mark",
    "returned",
    "sanitize",
    "through_intercepts",
]

_H = TypeVar("_H", bound=_CallHandle)

WITHHELD = object()
"""What `sanitize` gives where the payload is not to be shown."""

_GUARDRAIL = ScopeType.Guardrail.code


def copy_payload(value: Any, argument: str) -> Any:
    """A payload of the same JSON, keys sorted, that shares nothing with it. What cannot be recorded is replaced.

    Raises:
        PayloadError: in strict mode, something in it cannot be recorded.
    """
    return thaw(freeze(value, argument))


def copy_to_go_on_with(value: Any, argument: str) -> Any:
    """`copy_payload` for what the call goes on with: the value itself, where it contains what cannot be recorded."""
    before = replaced_so_far()
    copy = copy_payload(value, argument)
    return copy if replaced_so_far() == before else value


def parent_of(handle: AnyHandle | None) -> ScopeHandle:
    """The scope that a call is under: the one named, or the current one.

    Raises:
        TypeError: it is not a handle.
    """
    return current_scope() if handle is None else scope_handle(handle)


# ------------------------------------------------------------------------------------------- failures


def returned(value: object, who: str, expected: str) -> CallbackError:
    """The error for a callback that returned what it must not."""
    # Not the value itself: this text goes into an event, past the sanitizers.
    message = f"{who} returned {described_type(value)}; expected {expected}"
    return CallbackError(message, error_type="invalid_argument")


def fails(error: BaseException) -> dict[str, str]:
    """The end event's metadata of what raised: ERROR, or UNSET for what ends the program."""
    found = failure_status(error)
    if found[STATUS_KEY] == "ERROR":
        found["error.type"] = error.error_type if isinstance(error, CallbackError) else type_name(error)
    return found


# --------------------------------------------------------------------------------------------- events


def begin_call(
    kind: type[_H],
    category: int,
    name: str,
    parent: ScopeHandle,
    bits: int,
    data: Any,
    metadata: Any,
    profile: dict[str, Any],
    shown: Any,
    timestamp: object,
    shown_profile: dict[str, Any] | None = None,
) -> _H:
    """Makes a call's handle and emits its start.

    Args:
        kind: the handle's class.
        category, name, bits: as the record has them.
        parent: the scope that the call is under.
        data, metadata: what the handle keeps; the metadata is in both events.
        profile: `category_profile` of both events.
        shown: the start event's data, sanitized, or WITHHELD.
        timestamp: a timezone-aware datetime; None: now.
        shown_profile: `category_profile` of the start event, if it has more than `profile`.

    Raises:
        PayloadError: a payload holds a value that cannot be recorded; nothing was emitted.
        TypeError, ValueError: the timestamp is not a timezone-aware datetime.
    """
    uuid, above = uuid7(), parent._uuid
    if not active():
        return kind(uuid, above, name, bits, None, None, profile)
    handle = kind(
        uuid,
        above,
        name,
        bits,
        None if data is None else freeze(data, "data"),
        None if metadata is None else freeze(metadata, "metadata"),
        profile,
    )
    handle._start_us = emit(
        KIND_START,
        uuid,
        above,
        None if timestamp is None else to_microseconds(timestamp),
        0,
        name,
        category,
        bits,
        record_stack(),
        None if shown is WITHHELD else shown,
        metadata,
        shown_profile or profile,
        None,
    )
    return handle


def end_call(
    handle: _CallHandle,
    category: int,
    shown: Any,
    metadata: Any,
    profile: dict[str, Any],
    timestamp: object = None,
    fallback: Any = None,
) -> None:
    """Emits a call's end. More than once, if it is called so.

    Args:
        handle: the call.
        category: as the record has it.
        shown: the end event's data, sanitized, or WITHHELD.
        metadata: the end event's, merged with the start's already.
        profile: `category_profile`.
        timestamp: a timezone-aware datetime; None: now, and later than the start.
        fallback: the data where `shown` is None.

    Raises:
        PayloadError: a payload holds a value that cannot be recorded; nothing was emitted.
        TypeError, ValueError: the timestamp is not a timezone-aware datetime.
    """
    if not active():
        return
    if shown is None:
        shown = fallback
    start_us = handle._start_us
    emit(
        KIND_END,
        handle._uuid,
        handle._parent,
        None if timestamp is None else to_microseconds(timestamp),
        start_us + 1 if start_us else 0,
        handle._name,
        category,
        handle._bits,
        record_stack(),
        None if shown is WITHHELD else shown,
        metadata,
        profile,
        None,
    )


def managed_metadata(handle: _CallHandle, status: dict[str, str]) -> dict[str, Any]:
    """A managed call's end metadata: the status over the start's, which counts only if it is a dict."""
    start = handle._metadata
    if start is None:
        return status
    thawed = thaw(start)
    return {**thawed, **status} if isinstance(thawed, dict) else status


def manual_metadata(handle: _CallHandle, metadata: Any) -> Any:
    """A manual call's end metadata: the end's over the start's."""
    return metadata if handle._metadata is None else merge_metadata(handle._metadata, metadata)


def fail_call(handle: _CallHandle, category: int, error: BaseException, shown: Any) -> None:
    """Emits the end of a call that raised, with `shown` as its data. The caller raises the error on.

    Nothing in a forked child that comes back out of its parent's call.
    """
    if handle.is_copy:
        return
    end_call(handle, category, shown, managed_metadata(handle, fails(error)), handle._profile)


class Inside:
    """Makes a managed call the current scope of this context, for a `with` block; it ends as a scope with the block.

    Args:
        call: the call.
    """

    __slots__ = ("scope",)

    def __init__(self, call: _CallHandle) -> None:
        self.scope = call._as_scope()

    def __enter__(self) -> Self:
        current.set(self.scope)
        return self

    def __exit__(self, *_error: object) -> None:
        end_silently(self.scope)


def emit_mark(
    name: str, parent: bytes, data: Any, metadata: Any, category: Any = None, profile: Any = None, schema: Any = None
) -> None:
    """Emits a mark under a call or a scope, while somebody listens."""
    if not active():
        return
    emit(KIND_MARK, uuid7(), parent, None, 0, name, category, 0, record_stack(), data, metadata, profile, schema)


def emit_marks(marks: Sequence[PendingMarkSpec], parent: bytes) -> None:
    """Emits what intercepts asked for."""
    for mark in marks:
        metadata, profile = mark.emitted_metadata(), mark.category_profile
        emit_mark(mark.name, parent, mark.data, metadata, mark.category, profile, mark.data_schema)


# ----------------------------------------------------------------------------------------- guardrails


async def check_guardrails(
    family: Family,
    target: str | None,
    arguments: Callable[[], tuple[Any, ...]],
    parent: ScopeHandle,
    metadata: Any,
    mode: int,
) -> None:
    """Asks every guardrail of a family; each is a pair of events around its answer.

    Args:
        family: the conditional-execution guardrails of one kind of call.
        target: the tool's name, for the events.
        arguments: makes what a guardrail is given, anew for each.
        parent: the scope that the call is under.
        metadata: the call's, which the events have too.
        mode: what becomes of an asynchronous guardrail, see `settle`.

    Raises:
        RejectedError: one said no.
        CallbackError: an answer is neither None nor a text. What a guardrail raises passes.
    """
    for registration in visible(family):
        await _ask(registration, target, arguments, parent, metadata, mode)


async def _ask(
    registration: Registration,
    target: str | None,
    arguments: Callable[[], tuple[Any, ...]],
    parent: ScopeHandle,
    metadata: Any,
    mode: int,
) -> None:
    asked: dict[str, Any] = {"kind": registration.family.verbs}
    if target is not None:
        asked["target_name"] = target
    call = _begin_guardrail(registration.name, parent, metadata, asked)
    try:
        reason = await settle(registration.callback(*arguments()), mode)
        if reason is not None and not isinstance(reason, str):
            found = described_type(reason)
            raise CallbackError(f"guardrail {registration.name!r} returned {found}; expected str or None")
    except Exception as error:
        _end_guardrail(call, metadata, {"allowed": False, "error": f"{type_name(error)}: {describe(error)}"})
        raise
    except BaseException as error:
        answer: dict[str, Any] = {"allowed": False, "error": "guardrail evaluation interrupted"}
        if is_cancellation(error):
            answer = {"allowed": False, "cancelled": True, "error": "guardrail evaluation cancelled"}
        _end_guardrail(call, metadata, answer)
        raise
    if reason is None:
        _end_guardrail(call, metadata, {"allowed": True, "rejected": False})
        return
    reason = plain_text(reason)
    _end_guardrail(call, metadata, {"allowed": False, "rejected": True, "rejection_reason": reason})
    raise RejectedError(registration.name, reason)


_Pair = tuple[bytes, bytes, str, int, int]


def _begin_guardrail(name: str, parent: ScopeHandle, metadata: Any, asked: dict[str, Any]) -> _Pair:
    uuid = uuid7()
    stack = record_stack()
    start_us = emit(KIND_START, uuid, parent._uuid, None, 0, name, _GUARDRAIL, 0, stack, asked, metadata, None, None)
    return uuid, parent._uuid, name, start_us, fork_epoch()


def _end_guardrail(pair: _Pair, metadata: Any, answer: dict[str, Any]) -> None:
    uuid, parent, name, start_us, epoch = pair
    if epoch != fork_epoch():
        return  # a forked child comes back out of its parent's guardrail
    stack = record_stack()
    emit(KIND_END, uuid, parent, None, start_us + 1, name, _GUARDRAIL, 0, stack, answer, metadata, None, None)


def reject_mark(name: str, parent: ScopeHandle, error: RejectedError, metadata: Any) -> None:
    """The mark of a rejected call, in place of the call's own events."""
    emit_mark(name, parent._uuid, {"rejected": True, "rejection_reason": error.reason}, metadata)


# ----------------------------------------------------------------------------------------- sanitizers


async def sanitize(
    family: Family,
    value: Any,
    arguments: Callable[[Any], tuple[Any, ...]],
    check: Callable[[Any], Any],
    mode: int,
    none_withholds: bool,
) -> Any:
    """A payload as events may show it: each sanitizer sees what the one before it made.

    Args:
        family: the sanitizers of requests or responses.
        value: the payload; the call itself goes on with this one.
        arguments: makes what a sanitizer is given of the payload so far, a copy.
        check: returns what a sanitizer returned as the next one gets it, or raises.
        mode: what becomes of an asynchronous sanitizer, see `settle`.
        none_withholds: whether None means that nothing is to be shown.

    Returns:
        The payload; WITHHELD if a sanitizer failed, or said so.
    """
    for registration in visible(family):
        try:
            value = await settle(registration.callback(*arguments(value)), mode)
            if value is None and none_withholds:
                return WITHHELD
            value = check(value)
        except Exception as error:
            report(registration, error)
            return WITHHELD
    return value


# ----------------------------------------------------------------------------------------- intercepts


async def intercepted(value: Any, ask: Callable[[Any], Any], mode: int) -> Any:
    """What a request intercept makes of a payload. It is given a copy, or the value itself where that contains what
    cannot be recorded; the value goes on unless the intercept changes it.

    So what a tool is called with is what the program passed, also where that is not JSON, unless an intercept says
    otherwise.

    Args:
        value: the payload so far.
        ask: calls the intercept with a copy of it.
        mode: see `settle`.
    """
    given = copy_to_go_on_with(value, "args")
    found = await settle(ask(given), mode)
    if found is value or (given is not value and found == copy_payload(value, "args")):
        return value
    return copy_to_go_on_with(found, "args")


Inner = Callable[[Any], Awaitable[Any]]


class NextCall:
    """The rest of a call, as an execution intercept gets it: await it with what is to be passed on.

    It may be awaited any number of times, also at once, while the intercept runs; each time in a branch
    of the scope stack of its own. Afterwards it raises. What the rest of the call raises comes as it is.
    """

    __slots__ = ("_inner", "is_active")

    def __init__(self, inner: Inner) -> None:
        self._inner = inner
        self.is_active = True

    def __call__(self, value: Any) -> Awaitable[Any]:
        return self._run(value)

    async def _run(self, value: Any) -> Any:
        self._require_active()
        before = current.get()
        try:
            found = await self._inner(value)
        finally:
            current.set(before)
        self._require_active()
        return found

    def close(self) -> None:
        """From here on it raises."""
        self.is_active = False

    def _require_active(self) -> None:
        if not self.is_active:
            raise CallbackError("the intercept that was given this call has ended", error_type="invalid_argument")


async def through_intercepts(
    intercepts: Sequence[Registration],
    value: Any,
    arguments: Callable[[Any, NextCall], tuple[Any, ...]],
    check: Callable[[Registration, Any], Any],
    innermost: Inner,
) -> Any:
    """Runs a call through its execution intercepts, the first outermost.

    Args:
        intercepts: who takes part.
        value: what the first gets.
        arguments: makes what an intercept is given.
        check: returns what an intercept returned as the one around it gets it, or raises.
        innermost: the callback itself.

    Raises:
        CallbackError: one of them, or the callback, returned what it must not. What it raises passes.
    """
    if not intercepts:
        return await innermost(value)
    registration = intercepts[0]

    async def inner(value: Any) -> Any:
        return await through_intercepts(intercepts[1:], value, arguments, check, innermost)

    next_call = NextCall(inner)
    try:
        found = await settle(registration.callback(*arguments(value, next_call)), AWAIT)
        return check(registration, found)
    finally:
        next_call.close()
