"""The table of middleware families: which kinds of callback there are, and what is peculiar to each.

A family is a row of `FAMILIES`. `relay_mp._emit.middleware` keeps and orders the registrations of all of them
alike. The public functions that register them are generated from this table:

    FAMILIES  ->  python -m tools.generate_registrations  ->  guardrails, intercepts, event_metadata,
                                                              scope_local, and methods of PluginContext

The command reads this module without the rest of the package, so nothing is imported here but `relay_mp.types`.
"""

from dataclasses import dataclass

from relay_mp.types import RuntimeRegistrationKind

__all__ = [
    "END_SANITIZERS",
    "EVENT_FAMILIES",
    "EVENT_INJECTORS",
    "FAMILIES",
    "MARK_SANITIZERS",
    "START_SANITIZERS",
    "TOOL_FAMILIES",
    "Family",
]

_Kind = RuntimeRegistrationKind


# Not frozen: that alone would be half a percent of what `import relay_mp` costs.
@dataclass(slots=True, eq=False)
class Family:
    """One kind of middleware. It is never changed.

    Args:
        kind: its name, as `runtime_registrations` lists it. Its last word says what part the callbacks play: an
            injector, a guardrail or an intercept.
        callback: the type of its callbacks, a name of `relay_mp._emit.callbacks`.
        arguments: what a callback is given.
        what: what a callback is, for docstrings.
        returns: what a callback returns, for docstrings.
        failure: what a callback that raises, or returns something else, does: "withhold" the event's payload
            (fails closed), "omit" what it would have added (fails open), or "fail" the call.
        breaks: whether a registration can end its chain (`break_chain`).
    """

    kind: RuntimeRegistrationKind
    callback: str
    arguments: str
    what: str
    returns: str
    failure: str
    breaks: bool = False

    @property
    def verbs(self) -> str:
        """What `scope_local` calls its functions, after `register_` and `deregister_`."""
        return self.kind.value.removesuffix("_guardrail").removesuffix("_intercept")

    def __repr__(self) -> str:
        return f"<Family {self.kind.value}>"


_ROWS = (
    Family(
        _Kind.EVENT_METADATA_INJECTOR,
        callback="EventMetadataInjector",
        arguments="event",
        what="an injector of metadata",
        returns="a dict to add to the event's metadata",
        failure="omit",
    ),
    Family(
        _Kind.MARK_SANITIZE_GUARDRAIL,
        callback="EventSanitizeGuardrail",
        arguments="event, fields",
        what="a sanitizer of marks",
        returns="the fields to show",
        failure="withhold",
    ),
    Family(
        _Kind.SCOPE_SANITIZE_START_GUARDRAIL,
        callback="EventSanitizeGuardrail",
        arguments="event, fields",
        what="a sanitizer of the start events of scopes and calls",
        returns="the fields to show",
        failure="withhold",
    ),
    Family(
        _Kind.SCOPE_SANITIZE_END_GUARDRAIL,
        callback="EventSanitizeGuardrail",
        arguments="event, fields",
        what="a sanitizer of the end events of scopes and calls",
        returns="the fields to show",
        failure="withhold",
    ),
    Family(
        _Kind.TOOL_SANITIZE_REQUEST_GUARDRAIL,
        callback="ToolSanitizeGuardrail",
        arguments="tool_name, args",
        what="a sanitizer of the arguments in tool calls' start events",
        returns="the arguments to show",
        failure="withhold",
    ),
    Family(
        _Kind.TOOL_SANITIZE_RESPONSE_GUARDRAIL,
        callback="ToolSanitizeGuardrail",
        arguments="tool_name, result",
        what="a sanitizer of the results in tool calls' end events",
        returns="the result to show",
        failure="withhold",
    ),
    Family(
        _Kind.TOOL_CONDITIONAL_EXECUTION_GUARDRAIL,
        callback="ToolConditionalExecutionGuardrail",
        arguments="tool_name, args",
        what="a guardrail that can reject tool calls",
        returns="the reason to reject one, or None",
        failure="fail",
    ),
    Family(
        _Kind.TOOL_REQUEST_INTERCEPT,
        callback="ToolRequestIntercept",
        arguments="tool_name, args",
        what="an intercept of tool calls' arguments",
        returns="the arguments to go on with",
        failure="fail",
        breaks=True,
    ),
    Family(
        _Kind.TOOL_EXECUTION_INTERCEPT,
        callback="ToolExecutionIntercept",
        arguments="tool_name, args, next_call",
        what="an intercept around tool calls",
        returns="a `ToolExecutionInterceptOutcome`",
        failure="fail",
    ),
    Family(
        _Kind.LLM_SANITIZE_REQUEST_GUARDRAIL,
        callback="LlmSanitizeRequestGuardrail",
        arguments="request, context",
        what="a sanitizer of the requests in LLM calls' start events",
        returns="the `LLMRequest` to show, or None",
        failure="withhold",
    ),
    Family(
        _Kind.LLM_SANITIZE_RESPONSE_GUARDRAIL,
        callback="LlmSanitizeResponseGuardrail",
        arguments="response, context",
        what="a sanitizer of the responses in LLM calls' end events",
        returns="the response to show, or None",
        failure="withhold",
    ),
    Family(
        _Kind.LLM_CONDITIONAL_EXECUTION_GUARDRAIL,
        callback="LlmConditionalExecutionGuardrail",
        arguments="request",
        what="a guardrail that can reject LLM calls",
        returns="the reason to reject one, or None",
        failure="fail",
    ),
    Family(
        _Kind.LLM_REQUEST_INTERCEPT,
        callback="LlmRequestIntercept",
        arguments="name, request, annotated",
        what="an intercept of LLM requests",
        returns="an `LLMRequestInterceptOutcome`",
        failure="fail",
        breaks=True,
    ),
    Family(
        _Kind.LLM_EXECUTION_INTERCEPT,
        callback="LlmExecutionIntercept",
        arguments="name, request, next_call",
        what="an intercept around LLM calls",
        returns="the response",
        failure="fail",
    ),
    Family(
        _Kind.LLM_STREAM_EXECUTION_INTERCEPT,
        callback="LlmStreamExecutionIntercept",
        arguments="request, next_call",
        what="an intercept around streamed LLM calls",
        returns="an asynchronous iterator of chunks",
        failure="fail",
    ),
)

FAMILIES = {family.kind: family for family in _ROWS}
"""Every family there is, by its kind, in the order in which registrations are listed."""

EVENT_INJECTORS = FAMILIES[_Kind.EVENT_METADATA_INJECTOR]
MARK_SANITIZERS = FAMILIES[_Kind.MARK_SANITIZE_GUARDRAIL]
START_SANITIZERS = FAMILIES[_Kind.SCOPE_SANITIZE_START_GUARDRAIL]
END_SANITIZERS = FAMILIES[_Kind.SCOPE_SANITIZE_END_GUARDRAIL]

EVENT_FAMILIES = (EVENT_INJECTORS, MARK_SANITIZERS, START_SANITIZERS, END_SANITIZERS)
"""Those that see every event, and so run in the core's event hook."""

TOOL_FAMILIES = tuple(family for kind, family in FAMILIES.items() if kind.value.startswith("tool_"))
"""Those that a tool call looks at."""
