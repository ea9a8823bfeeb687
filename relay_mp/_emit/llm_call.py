"""The steps of an LLM call that managed, streamed and manual ones share: requests, sanitizers, events.

Runs in every emitting process, between `relay_mp.llm`, which has the public verbs, and `managed.py`, which
has what tools and LLMs share.

    prepare      guardrails, codec, request intercepts      -> a Prepared request
    begin        sanitizers, the start event, the intercepts' marks
    traced       the request that the provider gets: with a `traceparent` header
    finish       sanitizers, the response codec, the end event

Headers of `calls.CREDENTIAL_HEADERS` are taken out before a sanitizer sees a request, and again after.
"""

from typing import Any, NamedTuple

from relay_mp._emit.arguments import merge_metadata, thaw
from relay_mp._emit.calls import LLMHandle, LLMRequest, LLMRequestInterceptOutcome, PendingMarkSpec
from relay_mp._emit.failures import STATUS_OK, status_of
from relay_mp._emit.families import FAMILIES
from relay_mp._emit.handle import ScopeHandle
from relay_mp._emit.llm_codec import (
    LlmSanitizeRequestContext,
    LlmSanitizeResponseContext,
    annotation_of,
    decode_request,
    decode_response,
    encode_request,
)
from relay_mp._emit.managed import (
    WITHHELD,
    begin_call,
    check_guardrails,
    copy_payload,
    emit_marks,
    end_call,
    fail_call,
    managed_metadata,
    reject_mark,
    returned,
    sanitize,
)
from relay_mp._emit.middleware import Registration, visible
from relay_mp._emit.propagation import format_traceparent
from relay_mp._emit.settle import settle
from relay_mp._log import logger
from relay_mp._native.core import active
from relay_mp.errors import CallbackError, RejectedError, described_type
from relay_mp.types import RuntimeRegistrationKind, ScopeType

__all__ = [
    "LLM",
    "REQUEST_SANITIZERS",
    "RESPONSE_SANITIZERS",
    "Prepared",
    "Spec",
    "ask_guardrails",
    "begin",
    "end_metadata",
    "end_profile",
    "fail",
    "finish",
    "intercept_request",
    "prepare",
    "show_response",
    "traced",
]

LLM = ScopeType.Llm.code

_GUARDRAILS = FAMILIES[RuntimeRegistrationKind.LLM_CONDITIONAL_EXECUTION_GUARDRAIL]
_REQUESTS = FAMILIES[RuntimeRegistrationKind.LLM_REQUEST_INTERCEPT]
REQUEST_SANITIZERS = FAMILIES[RuntimeRegistrationKind.LLM_SANITIZE_REQUEST_GUARDRAIL]
RESPONSE_SANITIZERS = FAMILIES[RuntimeRegistrationKind.LLM_SANITIZE_RESPONSE_GUARDRAIL]

_TRACEPARENT = "traceparent"


class Spec(NamedTuple):
    """What a call was asked for with, checked."""

    name: str
    parent: ScopeHandle
    bits: int
    data: Any
    metadata: Any
    profile: dict[str, Any]
    codec: Any = None
    response_codec: Any = None


class Prepared(NamedTuple):
    """A request that has passed the guardrails and the request intercepts."""

    request: LLMRequest
    annotated: Any = None
    marks: tuple[PendingMarkSpec, ...] = ()
    contributions: tuple[Any, ...] = ()


async def ask_guardrails(request: LLMRequest, parent: ScopeHandle, metadata: Any, mode: int) -> None:
    """Asks the conditional guardrails; see `check_guardrails`."""

    def arguments() -> tuple[Any, ...]:
        return (request,)

    await check_guardrails(_GUARDRAILS, None, arguments, parent, metadata, mode)


async def prepare(spec: Spec, request: LLMRequest, mode: int) -> Prepared:
    """All that comes before the start event.

    Raises:
        RejectedError: a guardrail said no; the mark has been emitted.
        CallbackError: a guardrail or an intercept returned what it must not. What they or the codec raise passes.
    """
    try:
        await ask_guardrails(request, spec.parent, spec.metadata, mode)
    except RejectedError as error:
        reject_mark(spec.name, spec.parent, error, spec.metadata)
        raise
    annotated = None if spec.codec is None else _decoded(spec.codec, request)
    prepared = await intercept_request(spec.name, Prepared(request, annotated), annotated is not None, mode)
    if annotated is None or not visible(_REQUESTS):  # nobody has seen it, and so nobody has changed it
        return prepared
    return prepared._replace(request=encode_request(spec.codec, prepared.annotated, prepared.request))


def _decoded(codec: Any, request: LLMRequest) -> Any:
    """The request in its normalized form. Where only events want it, and the codec fails, there is none."""
    try:
        return decode_request(codec, request)
    except Exception:
        if visible(_REQUESTS):
            raise
        logger.exception("the codec %r failed; the event has no annotation of the request", type(codec).__name__)
        return None


async def intercept_request(name: str, prepared: Prepared, has_codec: bool, mode: int) -> Prepared:
    """Passes a request through the request intercepts.

    Raises:
        CallbackError: one returned what it must not, or changed what the codec is to write. What it raises passes.
    """
    for registration in visible(_REQUESTS):
        outcome = await settle(registration.callback(name, prepared.request, prepared.annotated), mode)
        if not isinstance(outcome, LLMRequestInterceptOutcome):
            found = described_type(outcome)
            raise CallbackError(
                f"intercept {registration.name!r} returned {found}; expected LLMRequestInterceptOutcome"
            )
        if has_codec:
            _require_consistent(registration, prepared, outcome)
        prepared = Prepared(
            outcome.request,
            outcome.annotated_request,
            (*prepared.marks, *outcome.pending_marks),
            (*prepared.contributions, *outcome.optimization_contributions),
        )
        if registration.break_chain:
            break
    return prepared


def _require_consistent(registration: Registration, before: Prepared, outcome: LLMRequestInterceptOutcome) -> None:
    # With a codec the normalized form is what counts: the codec writes it over the request's body.
    if outcome.annotated_request is None:
        raise CallbackError(
            f"intercept {registration.name!r} left annotated_request out, and the call has a codec; pass it on",
            error_type="invalid_argument",
        )
    if outcome.request is not before.request and outcome.request.content != before.request.content:
        raise CallbackError(
            f"intercept {registration.name!r} changed the request's content, and the call has a codec, which writes "
            "it; change annotated_request instead",
            error_type="invalid_argument",
        )


async def begin(spec: Spec, prepared: Prepared, mode: int, timestamp: object = None) -> LLMHandle:
    """Emits the start, and the marks that the request intercepts asked for."""
    shown: Any = None
    annotation = None
    if active():
        shown, annotation = await _show_request(spec, prepared, mode)
    profile = spec.profile if annotation is None else {**spec.profile, "annotated_request": annotation}
    name, parent, bits, data, metadata, own_profile, _codec, _response_codec = spec
    handle = begin_call(
        LLMHandle, LLM, name, parent, bits, data, metadata, own_profile, shown, timestamp, profile
    )  # fmt: skip
    emit_marks(prepared.marks, handle._uuid)
    return handle


async def _show_request(spec: Spec, prepared: Prepared, mode: int) -> tuple[Any, Any]:
    annotated = prepared.annotated
    if not visible(REQUEST_SANITIZERS):
        return prepared.request.observed(), _annotation(annotated)
    context = LlmSanitizeRequestContext(spec.codec)

    def arguments(request: LLMRequest) -> tuple[Any, ...]:
        return request, context

    clean = prepared.request.without_credentials()
    shown = await sanitize(REQUEST_SANITIZERS, clean, arguments, _require_request, mode, none_withholds=True)
    if shown is WITHHELD:
        return WITHHELD, None
    if shown is not clean and shown.content != clean.content:
        annotated = _annotate_again(spec.codec, shown)
    return shown.observed(), _annotation(annotated)


def _require_request(value: Any) -> LLMRequest:
    if not isinstance(value, LLMRequest):
        raise returned(value, "the sanitizer", "LLMRequest or None")
    return value


def _annotate_again(codec: Any, shown: LLMRequest) -> Any:
    # The annotation of what was sanitized away must not be shown.
    if codec is None:
        return None
    try:
        return decode_request(codec, shown)
    except Exception:
        logger.exception("the codec failed; the event has no annotation of the sanitized request")
        return None


def _annotation(annotated: Any) -> Any:
    return None if annotated is None else annotation_of(annotated, "annotated_request")


def traced(handle: LLMHandle, parent: ScopeHandle, request: LLMRequest) -> LLMRequest:
    """The request as the provider gets it: its one `traceparent` header names this call.

    The trace is the outermost scope's, or the call's own where no scope is open. Where nobody listens,
    there is no trace, and the request stays as it is.
    """
    if not handle._start_us:
        return request
    return with_traceparent(request, parent._trace or handle._uuid, handle._uuid)


def with_traceparent(request: LLMRequest, trace: bytes, span: bytes) -> LLMRequest:
    """The request with this `traceparent` in place of any it has."""
    headers = {key: value for key, value in request.headers.items() if key.lower() != _TRACEPARENT}
    return request.with_headers({**headers, _TRACEPARENT: format_traceparent(trace, span)})


# ------------------------------------------------------------------------------------------------- ends


async def show_response(response: Any, response_codec: Any, annotated: Any, mode: int) -> tuple[Any, Any]:
    """A response as events may show it, and its annotation.

    Args:
        response: the provider's.
        response_codec: makes the annotation, if there is one.
        annotated: an annotation that is there already, as JSON; counts while no sanitizer has changed
            the response.
        mode: see `settle`.
    """
    shown = response
    if visible(RESPONSE_SANITIZERS):
        context = LlmSanitizeResponseContext(response_codec)
        before = copy_payload(response, "data")

        def arguments(value: Any) -> tuple[Any, ...]:
            return _copy(value), context

        shown = await sanitize(RESPONSE_SANITIZERS, before, arguments, _copy, mode, none_withholds=True)
        if shown is WITHHELD:
            return WITHHELD, None
        if annotated is not None and shown != before:
            return shown, None
    if annotated is None and response_codec is not None:
        annotated = decode_response(response_codec, _copy(shown))
    return shown, annotated


def _copy(value: Any) -> Any:
    return copy_payload(value, "response")


async def finish(spec: Spec, handle: LLMHandle, response: Any, mode: int) -> None:
    """Emits the end of a managed call that went well. Nothing in a forked child that comes back out of its parent's."""
    if handle.is_copy or not active():
        return
    if response is None:
        response = thaw(handle._data)
    shown, annotation = await show_response(response, spec.response_codec, None, mode)
    metadata: Any = STATUS_OK if handle._metadata is None else managed_metadata(handle, STATUS_OK)
    end_call(handle, LLM, shown, metadata, end_profile(handle, annotation))


async def fail(handle: LLMHandle, error: BaseException, mode: int) -> None:
    """Emits the end of a call that raised; the caller raises the error on."""
    shown: Any = None
    try:
        if handle._data is not None and not handle.is_copy and active():
            shown, _annotation = await show_response(thaw(handle._data), None, None, mode)
    finally:
        fail_call(handle, LLM, error, shown)


def end_profile(handle: LLMHandle, annotation: Any) -> dict[str, Any]:
    """`category_profile` of an end event."""
    return handle._profile if annotation is None else {**handle._profile, "annotated_response": annotation}


def end_metadata(handle: LLMHandle, metadata: Any, status: object) -> dict[str, Any]:
    """A manual call's end metadata: the end's over the start's, as far as they are dicts, and the status: mostly OK."""
    found = STATUS_OK if status is None else status_of(status)
    if metadata is None and handle._metadata is None:
        return found
    start = thaw(handle._metadata)
    if metadata is None or (isinstance(start, dict) and not isinstance(metadata, dict)):
        merged = start
    else:
        merged = merge_metadata(handle._metadata, metadata)
    return {**merged, **found} if isinstance(merged, dict) else found
