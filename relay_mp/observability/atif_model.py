"""From events to ATIF v1.7 trajectories. Pure: a list of events in, JSON objects out.

    LLM start                a step of the user, if the request ends with what a user said
    LLM end                  a step of the agent: message, tool calls, metrics
    tool start, end          a tool call and its result, in the step of the LLM call that asked for it, found
                             by the call's id; else in a step of its own, with llm_call_count 0
    agent inside an agent    a subagent trajectory, and a step that refers to it
    marks, other scopes      extra.observed_events of their trajectory, as ATOF has them

Everything is placed by uuid and by the tool calls' own ids, never by what came last: agents of many
processes interleave in one stream. Steps are in the order of the stream. What ended never, or whose start
was not seen, is there with what is known of it. Lineage: `extra.ancestry` of trajectories, steps and tool
calls, `extra.invocation` beside it, both as the models of `nvidia-nat-atif` have them.

Source of the format: ATIF, "Agent Trajectory Interchange Format", RFC of the Harbor project, v1.7.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from relay_mp.events import Event, ScopeEvent

__all__ = ["ATIF_VERSION", "AgentInfo", "trajectory_of"]

ATIF_VERSION = "ATIF-v1.7"
FRAMEWORK = "relay_mp"

_TOTALS = {
    "prompt_tokens": "total_prompt_tokens",
    "completion_tokens": "total_completion_tokens",
    "cached_tokens": "total_cached_tokens",
    "cost_usd": "total_cost_usd",
}
_NOTHING: dict[str, Any] = {}
_DATA, _METADATA, _PROFILE = 9, 10, 11
"""A record's payloads. They are decoded for the trajectory alone, which is then its caller's own to change, and are not
kept by the events: a collection of garbage would go through all of them, again and again."""
_PROMPT_NAMES = ("prompt_tokens", "input_tokens", "promptTokenCount")
_COMPLETION_NAMES = ("completion_tokens", "output_tokens", "candidatesTokenCount")
_CACHED_NAMES = ("cached_tokens", "cache_read_input_tokens")
_USED_NAMES = {*_PROMPT_NAMES, *_COMPLETION_NAMES, "cost_usd", "cost", "cache_read_input_tokens"}


@dataclass(frozen=True)
class AgentInfo:
    """What a trajectory says of the agent system."""

    name: str = "relay_mp"
    version: str = "unknown"
    model_name: str | None = None
    tool_definitions: list[dict[str, Any]] | None = None
    extra: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """As ATIF's `agent`."""
        return _present(
            {
                "name": self.name,
                "version": self.version,
                "model_name": self.model_name,
                "tool_definitions": self.tool_definitions,
                "extra": self.extra,
            }
        )


class _Scope:
    """A scope, a tool call or an LLM call: its events, and which trajectory it is in."""

    __slots__ = ("agent", "category", "end", "is_said", "name", "parent", "parent_uuid", "start", "uuid")

    def __init__(self, event: ScopeEvent, parent: "_Scope | None", root: "_Agent") -> None:
        self.uuid, self.name, self.parent_uuid = event.uuid, event.name, event.parent_uuid
        self.category = event.category
        self.parent = parent
        self.agent: _Agent = parent.agent if parent is not None else root
        self.start: ScopeEvent | None = None
        self.end: ScopeEvent | None = None
        self.is_said = False
        """Whether its request is in a step of the user."""

    def ancestry(self) -> dict[str, Any]:
        found = {"function_id": self.uuid, "function_name": self.name}
        if self.parent_uuid is not None:
            found["parent_id"] = self.parent_uuid
        if self.parent is not None:
            found["parent_name"] = self.parent.name
        return found

    def invocation(self, invocation_id: str | None = None) -> dict[str, Any]:
        ended = {"invocation_id": invocation_id or self.uuid, "status": self.status, "framework": FRAMEWORK}
        if self.start is None or self.end is None:
            return ended
        times = {"start_timestamp": self.start.timestamp_us / 1e6, "end_timestamp": self.end.timestamp_us / 1e6}
        return times | ended

    @property
    def status(self) -> str:
        if self.end is None:
            return "unfinished"
        metadata = self.end._fresh(_METADATA)
        failed = isinstance(metadata, dict) and metadata.get("otel.status_code") == "ERROR"
        return "error" if failed else "completed"


@dataclass
class _Agent:
    """A trajectory in the making."""

    scope: _Scope | None = None
    steps: list[dict[str, Any]] = field(default_factory=list)
    observed: list[dict[str, Any]] = field(default_factory=list)
    children: "list[_Agent]" = field(default_factory=list)
    calls: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The step in which each tool call was asked for, by the call's id."""

    def add_step(self, step: dict[str, Any]) -> None:
        """Behind the others; it is given its number."""
        step["step_id"] = len(self.steps) + 1
        self.steps.append(step)


class _Builder:
    def __init__(self, root_uuid: str | None) -> None:
        self._root_uuid = root_uuid
        self._scopes: dict[bytes | None, _Scope] = {}  # by packed uuid
        self._tool_places: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
        self.root = _Agent()

    def add(self, event: Event) -> None:
        if not isinstance(event, ScopeEvent):
            self._agent_of(event.packed_parent).observed.append(event.to_dict())
        elif event.scope_category == "start":
            self._start(event)
        else:
            self._end(event)

    def _agent_of(self, packed_uuid: bytes | None) -> _Agent:
        scope = self._scopes.get(packed_uuid)
        return scope.agent if scope else self.root

    def _start(self, event: ScopeEvent) -> None:
        scope = self._scope_of(event)
        scope.start = event
        if scope.category == "llm":
            self._llm_start(scope, event)
        elif scope.category == "tool":
            self._tool_start(scope, event)
        elif scope.category == "agent":
            self._agent_start(scope, event)
        else:
            scope.agent.observed.append(event.to_dict())

    def _end(self, event: ScopeEvent) -> None:
        scope = self._scopes.get(event.packed_uuid) or self._scope_of(event)
        scope.end = event
        if scope.category == "llm":
            self._llm_end(scope, event)
        elif scope.category == "tool":
            self._tool_end(scope, event)
        elif scope.category != "agent":
            scope.agent.observed.append(event.to_dict())

    def _scope_of(self, event: ScopeEvent) -> _Scope:
        scope = self._scopes[event.packed_uuid] = _Scope(event, self._scopes.get(event.packed_parent), self.root)
        return scope

    # ---- agents ----

    def _agent_start(self, scope: _Scope, event: ScopeEvent) -> None:
        outer = scope.agent
        if scope.uuid == self._root_uuid:
            outer.scope = scope
        elif self._root_uuid is not None or outer.scope is not None:
            scope.agent = _Agent(scope)
            outer.children.append(scope.agent)
            outer.add_step(_subagent_step(scope, event))
        else:
            # A trajectory of all that was collected: its top-level agents are its own steps, those in them are not.
            scope.agent = _Agent(scope, self.root.steps, self.root.observed, self.root.children)

    # ---- LLM calls ----

    def _llm_start(self, scope: _Scope, event: ScopeEvent) -> None:
        request = _content(event._fresh(_DATA))
        said = _user_message(request)
        if said is not None:
            scope.is_said = True
            extra = {"ancestry": scope.ancestry(), "llm_request": request}
            step = {"step_id": 0, "source": "user", "timestamp": event.timestamp, "message": said, "extra": extra}
            scope.agent.add_step(step)

    def _llm_end(self, scope: _Scope, event: ScopeEvent) -> None:
        scope.agent.add_step(self._llm_step(scope, event.timestamp, event._fresh(_DATA)))

    def _llm_step(self, scope: _Scope, timestamp: str, response: Any) -> dict[str, Any]:
        message = _message(response)
        calls = [_tool_call(call) for call in _dicts(message.get("tool_calls"))]
        step = {"step_id": 0, "source": "agent", "timestamp": timestamp, "message": _text(message.get("content"))}
        model, reasoning, metrics = self._model(scope, response), message.get("reasoning_content"), _metrics(response)
        if model is not None:
            step["model_name"] = model
        if reasoning:
            step["reasoning_content"] = _text(reasoning)
        if calls:
            step["tool_calls"] = calls
        if metrics:
            step["metrics"] = metrics
        step["llm_call_count"] = 1
        step["extra"] = extra = {"ancestry": scope.ancestry(), "invocation": scope.invocation()}
        request = _content(scope.start._fresh(_DATA)) if scope.start is not None and not scope.is_said else None
        if request is not None:
            extra["llm_request"] = request
        if response is not None:
            extra["llm_response"] = response
        for call in calls:
            scope.agent.calls[call["tool_call_id"]] = step
        return step

    @staticmethod
    def _model(scope: _Scope, response: Any) -> str | None:
        named = response.get("model") if isinstance(response, dict) else None
        if isinstance(named, str):
            return named  # who answered, which may not be who was asked
        for event in (scope.end, scope.start):
            profile = event._fresh(_PROFILE) if event else None
            if isinstance(profile, dict) and isinstance(profile.get("model_name"), str):
                return str(profile["model_name"])
        return None

    # ---- tools ----

    def _tool_start(self, scope: _Scope, event: ScopeEvent) -> None:
        call_id = _call_id(event) or scope.uuid
        arguments = _arguments(event._fresh(_DATA))
        step = scope.agent.calls.get(call_id)
        call = _call_in(step, call_id) if step is not None else None
        if step is None or call is None or "extra" in call:  # asked for by nobody known, or run already
            call = {"tool_call_id": call_id, "function_name": scope.name, "arguments": arguments}
            step = {"step_id": 0, "source": "agent", "timestamp": event.timestamp, "message": "", "llm_call_count": 0}
            step["tool_calls"] = [call]
            scope.agent.add_step(step)
        call["extra"] = {"ancestry": scope.ancestry()}
        if arguments != call["arguments"]:
            call["extra"]["executed_arguments"] = event._fresh(_DATA)
        self._tool_places[scope.uuid] = (step, call)

    def _tool_end(self, scope: _Scope, event: ScopeEvent) -> None:
        if scope.uuid not in self._tool_places:
            self._tool_start(scope, event)
            self._tool_places[scope.uuid][1]["arguments"] = {}
        step, call = self._tool_places[scope.uuid]
        call["extra"]["invocation"] = scope.invocation(call["tool_call_id"])
        result = {"source_call_id": call["tool_call_id"], **_result(scope, event)}
        if "observation" in step:
            step["observation"]["results"].append(result)
        else:
            step["observation"] = {"results": [result]}

    # ---- end ----

    def finish(self) -> None:
        """What has not ended is there too: LLM calls as steps of their own."""
        for scope in self._scopes.values():
            if scope.end is not None or scope.start is None:
                continue
            if scope.category == "llm":
                scope.agent.add_step(self._llm_step(scope, scope.start.timestamp, None))
            elif scope.category == "tool":
                call = self._tool_places[scope.uuid][1]
                call["extra"]["invocation"] = scope.invocation(call["tool_call_id"])

    def to_dict(self, agent: _Agent, info: dict[str, Any], session_id: str, trajectory_id: str) -> dict[str, Any]:
        subagents = [self.to_dict(child, info, session_id, child.scope.uuid) for child in agent.children if child.scope]
        return _present(
            {
                "schema_version": ATIF_VERSION,
                "session_id": session_id,
                "trajectory_id": trajectory_id,
                "agent": info,
                "steps": agent.steps,
                "final_metrics": _final_metrics(agent.steps, subagents),
                "extra": self._extra(agent) or None,
                "subagent_trajectories": subagents or None,
            }
        )

    def _extra(self, agent: _Agent) -> dict[str, Any]:
        extra: dict[str, Any] = {}
        if agent.scope is not None:
            scope = agent.scope
            extra["ancestry"] = scope.ancestry()
            extra["invocation"] = scope.invocation()
            found = {
                "input": scope.start._fresh(_DATA) if scope.start else None,
                "output": scope.end._fresh(_DATA) if scope.end else None,
                "metadata": (scope.end or scope.start)._fresh(_METADATA) if scope.end or scope.start else None,  # type: ignore[union-attr]
            }
            extra.update(_present(found))
        if agent.observed:
            extra["observed_events"] = agent.observed
        return extra


def trajectory_of(
    events: Iterable[Event], info: AgentInfo, session_id: str, root_uuid: str | None = None
) -> dict[str, Any]:
    """One trajectory, with its subagents in it.

    Args:
        events: in the order of the stream.
        info: what is said of the agent system.
        session_id: of the run; also the trajectory's id.
        root_uuid: the agent scope that the trajectory is; None: a trajectory of all the events, in which
            agents without an agent around them have their steps in it.

    Returns:
        A JSON object of ATIF v1.7.
    """
    builder = _Builder(root_uuid)
    for event in events:
        builder.add(event)
    builder.finish()
    return builder.to_dict(builder.root, info.to_dict(), session_id, session_id)


# ------------------------------------------------------------------------------------------- payloads


def _present(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _text(value: Any) -> Any:
    """A message's content: text, or parts of text, or anything else as JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else _text_parts(value) or _json(value)


def _text_parts(value: Any) -> list[dict[str, str]]:
    """Parts of text, if it is nothing else."""
    parts = _dicts(value)
    if len(parts) != len(value) or not all(_is_text(part) for part in parts):
        return []
    return [{"type": "text", "text": part["text"]} for part in parts]


def _is_text(part: dict[str, Any]) -> bool:
    return part.get("type") == "text" and isinstance(part.get("text"), str)


def _content(data: Any) -> Any:
    """An LLM call's request, without its headers."""
    is_request = isinstance(data, dict) and len(data) == 2 and "content" in data and "headers" in data
    return data["content"] if is_request else data


def _user_message(request: Any) -> Any:
    """What a user said last, if the request ends with it; a request that is no list of messages says itself."""
    messages = request.get("messages", request.get("input")) if isinstance(request, dict) else request
    if isinstance(messages, list) and any(isinstance(message, dict) for message in messages):
        last = messages[-1]
        return _text(last.get("content")) if isinstance(last, dict) and last.get("role") == "user" else None
    return None if request is None else _text(request)


def _message(response: Any) -> dict[str, Any]:
    """The assistant's message of a response, in the shapes of OpenAI's and Anthropic's APIs; else its text."""
    if not isinstance(response, dict):
        return {"content": response}
    choices = _dicts(response.get("choices"))
    if choices and isinstance(choices[0].get("message"), dict):
        message: dict[str, Any] = choices[0]["message"]
        return message
    blocks = _dicts(response.get("content"))
    if not blocks:
        return response if "content" in response else {"content": response}
    uses = [block for block in blocks if block.get("type") == "tool_use"]
    return {
        "content": "".join(str(block.get("text", "")) for block in blocks if block.get("type") == "text"),
        "reasoning_content": "".join(str(b.get("thinking", "")) for b in blocks if b.get("type") == "thinking") or None,
        "tool_calls": [{"id": use.get("id"), "name": use.get("name"), "arguments": use.get("input")} for use in uses],
    }


def _tool_call(call: dict[str, Any]) -> dict[str, Any]:
    function = call.get("function")
    named: dict[str, Any] = function if isinstance(function, dict) else call
    return {
        "tool_call_id": str(call.get("id") or ""),
        "function_name": str(named.get("name") or ""),
        "arguments": _arguments(named.get("arguments")),
    }


def _arguments(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return {"raw": value}
    return value if isinstance(value, dict) else {} if value is None else {"raw": value}


def _call_id(event: ScopeEvent) -> str | None:
    profile = event._fresh(_PROFILE)
    found = profile.get("tool_call_id") if isinstance(profile, dict) else None
    return found if isinstance(found, str) and found else None


def _call_in(step: dict[str, Any], call_id: str) -> dict[str, Any] | None:
    return next((call for call in step["tool_calls"] if call["tool_call_id"] == call_id), None)


def _result(scope: _Scope, event: ScopeEvent) -> dict[str, Any]:
    extra: dict[str, Any] = {
        "event_name": scope.name, "event_uuid": scope.uuid, "parent_event_uuid": scope.parent_uuid
    }  # fmt: skip
    metadata, data = event._fresh(_METADATA), event._fresh(_DATA)
    if metadata is not None:
        extra["metadata"] = metadata
    content = data if isinstance(data, str) else isinstance(data, list) and _text_parts(data)
    if isinstance(data, str) or content:
        return {"content": content, "extra": extra}
    extra["tool_result"] = data
    return {"extra": extra}


def _subagent_step(scope: _Scope, event: ScopeEvent) -> dict[str, Any]:
    call_id = f"subagent:{scope.uuid}"
    extra = {"event_name": scope.name, "event_uuid": scope.uuid, "parent_event_uuid": scope.parent_uuid}
    reference = {"trajectory_id": scope.uuid, "extra": {"name": scope.name, "scope_uuid": scope.uuid}}
    arguments = _present({"name": scope.name, "payload": event._fresh(_DATA)})
    call = {"tool_call_id": call_id, "function_name": scope.name, "arguments": arguments, "extra": extra}
    result = {"source_call_id": call_id, "subagent_trajectory_ref": [reference], "extra": extra}
    return {
        "step_id": 0,
        "source": "agent",
        "timestamp": event.timestamp,
        "message": "",
        "llm_call_count": 0,
        "tool_calls": [call],
        "observation": {"results": [result]},
    }


def _number(names: Iterable[str], *places: dict[str, Any]) -> int | None:
    for name in names:
        for place in places:
            value = place.get(name)
            if isinstance(value, int) and not isinstance(value, bool):
                return value
    return None


def _metrics(response: Any) -> dict[str, Any] | None:
    """What a response says it took, if it does."""
    usage = response.get("usage", response.get("usageMetadata")) if isinstance(response, dict) else None
    if not isinstance(usage, dict):
        return None
    details = usage.get("prompt_tokens_details", usage.get("input_tokens_details"))
    cached = _number(_CACHED_NAMES, details, usage) if isinstance(details, dict) else _number(_CACHED_NAMES, usage)
    found: dict[str, Any] = {"prompt_tokens": _number(_PROMPT_NAMES, usage)}
    found["completion_tokens"] = _number(_COMPLETION_NAMES, usage)
    if cached is not None:
        found["cached_tokens"] = cached
    cost = usage.get("cost_usd", usage.get("cost"))
    if isinstance(cost, (int, float)) and not isinstance(cost, bool):
        found["cost_usd"] = float(cost)
    for name, value in usage.items():
        if name not in _USED_NAMES and isinstance(value, (int, float)):
            found.setdefault("extra", {})[name] = value
    return _present(found)


def _final_metrics(steps: list[dict[str, Any]], subagents: list[dict[str, Any]]) -> dict[str, Any]:
    """Sums over the trajectory's own steps; the cost, as the format has it, with that of its subagents."""
    totals: dict[str, Any] = {"total_steps": len(steps)}
    for step in steps:
        for name, value in step.get("metrics", _NOTHING).items():
            if name in _TOTALS:
                totals[_TOTALS[name]] = totals.get(_TOTALS[name], 0) + value
    costs = [agent["final_metrics"].get("total_cost_usd") for agent in subagents]
    if any(cost is not None for cost in costs):
        totals["total_cost_usd"] = totals.get("total_cost_usd", 0.0) + sum(cost or 0.0 for cost in costs)
    return totals
