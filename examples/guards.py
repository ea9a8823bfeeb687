"""The middleware of tools_and_llm.py: what it strikes out of events, and the budget of a run.

A module of its own, because every process of the session imports it by name: the program's main module has
another name in each of them.
"""

from __future__ import annotations

import re
from contextvars import ContextVar
from typing import Any

from relay_mp import LLMRequest, guardrails

CALLS = 5
"""Calls of the model that a run may make."""

_SECRET = re.compile(r"sk-[\w-]+|\b(?:\d{4}[ -]?){4}\b|[\w.+-]+@[\w-]+\.\w+")


def redact(value: Any) -> Any:
    """The value with every secret in its texts struck out."""
    if isinstance(value, str):
        return _SECRET.sub("[redacted]", value)
    if isinstance(value, dict):
        return {key: redact(item) for key, item in value.items()}
    return [redact(item) for item in value] if isinstance(value, list) else value


# Each family of sanitizers has its own arguments.


def redact_tool(name: str, payload: Any) -> Any:
    return redact(payload)


def redact_request(request: LLMRequest, context: Any) -> LLMRequest:
    return LLMRequest(redact(request.headers), redact(request.content))


def redact_response(response: Any, context: Any) -> Any:
    return redact(response)


def redact_event(event: Any, fields: Any) -> Any:
    return redact(fields)


# How many calls of the model the current run has made; each task of a worker has its own.
calls_made: ContextVar[int] = ContextVar("calls_made", default=0)


class Budget:
    """A guardrail that rejects an LLM call once a run has used up its budget."""

    def __init__(self, calls: int) -> None:
        self.calls = calls

    def __call__(self, request: LLMRequest) -> str | None:
        made = calls_made.get()
        return f"the run has used its budget of {self.calls} calls" if made >= self.calls else None


def register() -> None:
    """Once, in the parent, before the pool."""
    here = "guards"
    guardrails.register_tool_sanitize_request("redact", 0, f"{here}:redact_tool")
    guardrails.register_tool_sanitize_response("redact", 0, f"{here}:redact_tool")
    guardrails.register_llm_sanitize_request("redact", 0, f"{here}:redact_request")
    guardrails.register_llm_sanitize_response("redact", 0, f"{here}:redact_response")
    guardrails.register_scope_sanitize_start("redact", 0, f"{here}:redact_event")
    guardrails.register_scope_sanitize_end("redact", 0, f"{here}:redact_event")
    guardrails.register_mark_sanitize("redact", 0, f"{here}:redact_event")
    guardrails.register_llm_conditional_execution("budget", 0, f"{here}:Budget", arguments={"calls": CALLS})
