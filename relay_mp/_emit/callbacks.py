"""What middleware callbacks look like, family by family: for annotations, and to read.

Each may be synchronous or return an awaitable of what it says here.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias, TypedDict

from relay_mp._emit.calls import (
    LLMRequest,
    LLMRequestInterceptOutcome,
    ToolExecutionInterceptOutcome,
    ToolExecutionResult,
)
from relay_mp._emit.llm_codec import LlmSanitizeRequestContext, LlmSanitizeResponseContext
from relay_mp.events import Event
from relay_mp.types import Json, JsonObject

__all__ = [
    "EventMetadataInjector",
    "EventSanitizeFields",
    "EventSanitizeGuardrail",
    "LlmConditionalExecutionGuardrail",
    "LlmExecutionIntercept",
    "LlmRequestIntercept",
    "LlmSanitizeRequestGuardrail",
    "LlmSanitizeResponseGuardrail",
    "LlmStreamExecutionIntercept",
    "ToolConditionalExecutionGuardrail",
    "ToolExecutionIntercept",
    "ToolRequestIntercept",
    "ToolSanitizeGuardrail",
]


class EventSanitizeFields(TypedDict):
    """What an event sanitizer gets and returns; what it leaves out becomes null."""

    data: Json
    metadata: Json
    category_profile: JsonObject | None


EventSanitizeGuardrail: TypeAlias = Callable[
    [Event, EventSanitizeFields], EventSanitizeFields | Awaitable[EventSanitizeFields]
]
EventMetadataInjector: TypeAlias = Callable[[Event], dict[str, Any] | Awaitable[dict[str, Any]]]

ToolSanitizeGuardrail: TypeAlias = Callable[[str, Any], Any]
ToolConditionalExecutionGuardrail: TypeAlias = Callable[[str, Any], str | Awaitable[str | None] | None]
ToolRequestIntercept: TypeAlias = Callable[[str, Any], Any]
ToolExecutionIntercept: TypeAlias = Callable[
    [str, Any, Callable[[Any], Awaitable[ToolExecutionResult[Any]]]],
    ToolExecutionInterceptOutcome | Awaitable[ToolExecutionInterceptOutcome],
]

LlmSanitizeRequestGuardrail: TypeAlias = Callable[
    [LLMRequest, LlmSanitizeRequestContext], LLMRequest | Awaitable[LLMRequest | None] | None
]
LlmSanitizeResponseGuardrail: TypeAlias = Callable[[Any, LlmSanitizeResponseContext], Any]
LlmConditionalExecutionGuardrail: TypeAlias = Callable[[LLMRequest], str | Awaitable[str | None] | None]
LlmRequestIntercept: TypeAlias = Callable[
    [str, LLMRequest, Any], LLMRequestInterceptOutcome | Awaitable[LLMRequestInterceptOutcome]
]
LlmExecutionIntercept: TypeAlias = Callable[[str, LLMRequest, Callable[[LLMRequest], Awaitable[Any]]], Any]
LlmStreamExecutionIntercept: TypeAlias = Callable[
    [LLMRequest, Callable[[LLMRequest], Awaitable[AsyncIterator[Any]]]],
    AsyncIterator[Any] | Awaitable[AsyncIterator[Any]],
]
