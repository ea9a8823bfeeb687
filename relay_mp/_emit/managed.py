"""What managed and manual calls of tools and LLMs share: their events, guardrails, intercepts, failures.

Runs in every emitting process, on the caller's thread. `relay_mp.tools` and `relay_mp.llm` are the public
verbs; what differs between the two is theirs. A managed call, in order:

    guardrails       check_guardrails    a pair of guardrail events each; the first rejection ends it
    request          request intercepts, one after the other
    begin_call       the start event, its payload sanitized
    execution        through_intercepts  each wraps the next; the innermost is the callback itself
    end_call         the end event, its payload sanitized, and the marks that intercepts asked for
    fail_call        the end event of what raised, with `otel.status_code` ERROR and `error.type`

A call is no scope: what the callback emits is under the scope that the call was made in.

A full ring: each event may hold the call up, as any emit; see `relay_mp.scope`. While nobody listens, no
event is made and payloads are not looked at; middleware runs all the same, for it guards the call itself.
"""

import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NoReturn, TypeVar

from relay_mp._emit.arguments import freeze, merge_metadata, thaw, to_microseconds
from relay_mp._emit.calls import PendingMarkSpec, _CallHandle
from relay_mp._emit.current import _current, current_scope, record_stack
from relay_mp._emit.event_middleware import report
from relay_mp._emit.families import Family
from relay_mp._emit.handle import ScopeHandle, check_handle
from relay_mp._emit.middleware import Registration, visible
from relay_mp._emit.settle import settle
from relay_mp._native.core import active, emit, uuid7
from relay_mp.errors import CallbackError, PayloadError, RejectedError
from relay_mp.events import KIND_END, KIND_MARK, KIND_START
from relay_mp.types import ScopeType

__all__ = [
    "STATUS_OK",
    "WITHHELD",
    "begin_call",
    "check_guardrails",
    "copy_payload",
    "emit_marks",
    "end_call",
    "fail_call",
    "fails",
    "failure",
    "parent_of",
    "reject_mark",
    "returned",
    "sanitize",
    "through_intercepts",
]

_H = TypeVar("_H", bound=_CallHandle)

STATUS_KEY = "otel.status_code"
DESCRIPTION_KEY = "otel.status_description"

# Never changed: the encoder reads it, and merging copies.
STATUS_OK = {STATUS_KEY: "OK"}

WITHHELD = object()
"""What `sanitize` gives where the payload is not to be shown."""

_GUARDRAIL = ScopeType.Guardrail.code


def copy_payload(value: Any, argument: str) -> Any:
    """A payload of the same JSON, keys sorted, that shares nothing with it.

    Raises:
        PayloadError: it is none.
    """
    return thaw(freeze(value, argument))


def parent_of(handle: ScopeHandle | None) -> ScopeHandle:
    """The scope that a call is under: the one named, or the current one.

    Raises:
        TypeError: it is no ScopeHandle.
    """
    if handle is None:
        return current_scope()
    check_handle(handle)
    return handle


# ------------------------------------------------------------------------------------------- failures


def plain_text(text: str) -> str:
    """A text as an event can have it: lone surrogates are escaped."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def describe(error: BaseException) -> str:
    """An exception's type and text, as far as it can be had."""
    try:
        text = plain_text(str(error))
    except Exception:
        text = "<its text could not be had>"
    return f"{type(error).__name__}: {text}"


def failure(error: Exception) -> CallbackError:
    """What a callback raised, as the call raises it. What is one already stays as it is."""
    if isinstance(error, CallbackError):
        return error
    wrapped = CallbackError(describe(error), exception_type=type(error).__name__)
    wrapped.__cause__ = error
    return wrapped


def returned(value: object, who: str, expected: str) -> CallbackError:
    """The error for a callback that returned what it must not."""
    # Not the value itself: this text goes into an event, past the sanitizers.
    message = f"{who} returned a {type(value).__name__}; expected {expected}"
    return CallbackError(message, error_type="invalid_argument")


def no_payload(error: PayloadError) -> CallbackError:
    """The error for a callback whose value is no payload: the value is at fault, nothing was raised."""
    wrapped = CallbackError(describe(error))
    wrapped.__cause__ = error
    return wrapped


def is_cancellation(error: BaseException) -> bool:
    """Whether asyncio has cancelled the task. Whoever was cancelled has imported it."""
    exceptions = sys.modules.get("asyncio.exceptions")
    return exceptions is not None and isinstance(error, exceptions.CancelledError)


def fails(error: BaseException) -> dict[str, str]:
    """The end event's metadata of what raised: ERROR, or UNSET for what ends the program."""
    if isinstance(error, CallbackError):
        found = {"error.type": error.error_type, STATUS_KEY: "ERROR", DESCRIPTION_KEY: str(error)}
        if error.exception_type is not None:
            found["exception.type"] = error.exception_type
        return found
    if is_cancellation(error):
        return {STATUS_KEY: "ERROR", DESCRIPTION_KEY: "execution cancelled"}
    return {STATUS_KEY: "UNSET"}


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
        PayloadError: a payload is none; nothing was emitted.
        TypeError, ValueError: the timestamp is no timezone-aware datetime.
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
        PayloadError: a payload is none; nothing was emitted.
        TypeError, ValueError: the timestamp is no timezone-aware datetime.
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


def fail_call(handle: _CallHandle, category: int, error: BaseException, shown: Any) -> NoReturn:
    """Emits the end of a call that raised, with `shown` as its data, and raises.

    Raises:
        CallbackError: its cause is the error; the error itself if it is one, or ends the program or task.
    """
    wrapped = failure(error) if isinstance(error, Exception) else error
    end_call(handle, category, shown, managed_metadata(handle, fails(wrapped)), handle._profile)
    if wrapped is error:
        raise error
    raise wrapped from error


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
        CallbackError: one failed, or its answer is neither None nor a text.
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
            found = type(reason).__name__
            raise CallbackError(f"guardrail {registration.name!r} returned a {found}; expected str or None")
    except Exception as error:
        wrapped = failure(error)
        _end_guardrail(call, metadata, {"allowed": False, "error": str(wrapped)})
        raise wrapped from wrapped.__cause__
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


_Pair = tuple[bytes, bytes, str, int]


def _begin_guardrail(name: str, parent: ScopeHandle, metadata: Any, asked: dict[str, Any]) -> _Pair:
    uuid = uuid7()
    stack = record_stack()
    start_us = emit(KIND_START, uuid, parent._uuid, None, 0, name, _GUARDRAIL, 0, stack, asked, metadata, None, None)
    return uuid, parent._uuid, name, start_us


def _end_guardrail(pair: _Pair, metadata: Any, answer: dict[str, Any]) -> None:
    uuid, parent, name, start_us = pair
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

Inner = Callable[[Any], Awaitable[Any]]


class NextCall:
    """The rest of a call, as an execution intercept gets it: await it with what is to be passed on.

    It may be awaited any number of times, also at once, while the intercept runs; each time in a branch
    of the scope stack of its own. Afterwards it raises. What the rest of the call raised comes as a
    CallbackError, whose cause it is.
    """

    __slots__ = ("_inner", "is_active")

    def __init__(self, inner: Inner) -> None:
        self._inner = inner
        self.is_active = True

    def __call__(self, value: Any) -> Awaitable[Any]:
        return self._run(value)

    async def _run(self, value: Any) -> Any:
        self._require_active()
        before = _current.get()
        try:
            found = await self._inner(value)
        except Exception as error:
            wrapped = failure(error)
            raise wrapped from wrapped.__cause__
        finally:
            _current.set(before)
        self._require_active()
        return found

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
        CallbackError: one of them, or the callback, raised or returned what it must not.
    """
    if not intercepts:
        return await innermost(value)
    registration = intercepts[0]

    async def inner(value: Any) -> Any:
        return await through_intercepts(intercepts[1:], value, arguments, check, innermost)

    next_call = NextCall(inner)
    try:
        found = registration.callback(*arguments(value, next_call))
        if hasattr(type(found), "__await__"):
            found = await found
        return check(registration, found)
    except CallbackError:
        raise
    except Exception as error:
        raise failure(error) from error
    finally:
        next_call.is_active = False
