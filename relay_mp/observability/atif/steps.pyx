# cython: language_level=3, freethreading_compatible=True, annotation_typing=False
"""ATIF's trajectories, compiled: from the records of a stream to JSON objects. What becomes what is in `model`.

    record ──TrajectoryBuilder.add──▶ _Scope (by uuid) ──▶ steps of its _Agent ──build──▶ the trajectory

Runs where a trajectory is asked for. Each payload is decoded for the trajectory alone, which is then its caller's own
to change. A trajectory is tens of objects an event: nothing that is made here for the time of the building refers back
to what refers to it, so that all of it goes at once, and a collection of garbage finds nothing of it.
"""

cimport cython

from relay_mp._records.records cimport RecordView

from json import JSONDecoder, dumps
from math import isfinite

from relay_mp._records.records import canonical_uuid, rfc3339
from relay_mp.codecs import answer_of as _answer_of, last_message as _last_message
from relay_mp.codecs.response import is_made_up as _is_made_up
from relay_mp.events import KIND_END as _KIND_END, KIND_MARK as _KIND_MARK, decode, view_of
from relay_mp.types import CATEGORIES as _CATEGORY_NAMES


cdef enum:
    KIND = 0  # a record's fields
    UUID = 1
    PARENT = 2
    TIME = 3
    NAME = 4
    CATEGORY = 5
    DATA = 9
    METADATA = 10
    PROFILE = 11
    OTHER = 0  # categories of scopes
    AGENT = 1
    LLM = 2
    TOOL = 3

cdef int MARK = _KIND_MARK, END = _KIND_END
cdef dict _CATEGORIES = {"agent": AGENT, "llm": LLM, "tool": TOOL}
_CATEGORIES.update({_CATEGORY_NAMES.index(name): category for name, category in _CATEGORIES.items()})

cdef str _VERSION = "ATIF-v1.7"
cdef str _FRAMEWORK = "relay_mp"
cdef dict _TOTALS = {
    "prompt_tokens": "total_prompt_tokens",
    "completion_tokens": "total_completion_tokens",
    "cached_tokens": "total_cached_tokens",
    "cost_usd": "total_cost_usd",
}
cdef tuple _PROMPT_NAMES = ("prompt_tokens", "input_tokens", "promptTokenCount")
cdef tuple _COMPLETION_NAMES = ("completion_tokens", "output_tokens", "candidatesTokenCount")
cdef tuple _CACHED_NAMES = ("cached_tokens", "cache_read_input_tokens")
cdef set _USED_NAMES = {*_PROMPT_NAMES, *_COMPLETION_NAMES, "cost_usd", "cost", "cache_read_input_tokens"}

cdef tuple _TEXT_TYPES = ("text", "input_text", "output_text")
cdef tuple _MORE_COUNTS = ("total_tokens", "cache_write_tokens", "reasoning_tokens", "tool_use_tokens")


def _finite(str text):
    """A float; None for what no JSON can say, as in payloads."""
    value = float(text)
    return value if isfinite(value) else None


cdef object _decoder = JSONDecoder(parse_float=_finite, parse_constant=lambda _: None)
cdef object _scan = _decoder.scan_once


# ------------------------------------------------------------------------------------- while it is built

@cython.final
@cython.no_gc  # an agent refers to its children, a scope to its agent: neither to what refers to it
cdef class _Agent:
    """A trajectory in the making. Agents that have their steps in the same trajectory share all but the calls."""
    cdef list steps, observed
    cdef list children  # the scopes of agents in it
    cdef dict calls     # the step in which each tool call was asked for, by the call's id
    cdef list nameless  # (step, call) of calls whose provider gave them no id
    cdef bint is_agent  # and not the run, in which agents may be

    def __cinit__(self, bint is_agent=False, _Agent shared=None):
        self.is_agent = is_agent
        self.calls, self.nameless = {}, []
        if shared is None:
            self.steps, self.observed, self.children = [], [], []
        else:
            self.steps, self.observed, self.children = shared.steps, shared.observed, shared.children

    cdef int add_step(self, dict step) except -1:
        """Behind the others; it is given its number."""
        step["step_id"] = len(self.steps) + 1
        self.steps.append(step)
        return 0


@cython.final
@cython.no_gc
cdef class _Scope:
    """A scope, a tool call or an LLM call: its events, and which trajectory it is in."""
    cdef _Agent agent
    cdef object uuid, name, parent_uuid, parent_name
    cdef int category
    cdef RecordView start, end
    cdef bint is_said         # whether its request is in a step of the user
    cdef dict step, call      # of a tool call: where it is
    cdef dict trajectory      # of an agent in an agent, at last

    cdef dict ancestry(self):
        cdef dict found = {"function_id": self.uuid, "function_name": self.name}
        if self.parent_uuid is not None:
            found["parent_id"] = self.parent_uuid
        if self.parent_name is not None:
            found["parent_name"] = self.parent_name
        return found

    cdef dict invocation(self, invocation_id):
        cdef dict found = {}
        if self.start is not None and self.end is not None:
            found["start_timestamp"] = self.start._read_field(TIME) / 1e6
            found["end_timestamp"] = self.end._read_field(TIME) / 1e6
        found["invocation_id"] = invocation_id
        found["status"] = self.status()
        found["framework"] = _FRAMEWORK
        return found

    cdef str status(self):
        if self.end is None:
            return "unfinished"
        metadata = self.end._read_payload(METADATA)
        return "error" if type(metadata) is dict and metadata.get("otel.status_code") == "ERROR" else "completed"


@cython.final
cdef class TrajectoryBuilder:
    """Makes one trajectory, with its subagents in it.

    Args:
        root_uuid: the agent scope that the trajectory is; None: a trajectory of all the events, in which agents without
            an agent around them have their steps in it.
    """
    cdef object _root_uuid
    cdef dict _scopes     # by packed uuid
    cdef list _subagents  # scopes; outer ones first
    cdef _Agent _root
    cdef _Scope _root_scope

    def __cinit__(self, root_uuid: str | None):
        self._root_uuid = root_uuid
        self._scopes, self._subagents = {}, []
        self._root = _Agent()

    def add(self, list records not None) -> None:
        """Events' records, in the order of the stream.

        Raises:
            RecordError: one of them is not an event, or damaged.
        """
        for record in records:
            self._add(view_of(record, 0, 0) or decode(record, 0, 0))

    def build(self, dict info not None, str session_id not None) -> dict:
        """The trajectory. What has not ended is there too: LLM calls as steps of their own.

        Args:
            info: ATIF's `agent`.
            session_id: of the run; also the trajectory's id.
        """
        cdef _Scope scope
        for scope in self._scopes.values():
            if scope.end is not None or scope.start is None:
                continue
            if scope.category == LLM:
                scope.agent.add_step(self._llm_step(scope, scope.start, None))
            elif scope.category == TOOL:
                scope.call["extra"]["invocation"] = scope.invocation(scope.call["tool_call_id"])
        for scope in reversed(self._subagents):  # no recursion: agents may be in agents to any depth
            scope.trajectory = _trajectory(scope.agent, scope, info, session_id, scope.uuid)
        return _trajectory(self._root, self._root_scope, info, session_id, session_id)

    cdef int _add(self, RecordView event) except -1:
        cdef int kind = event._read_field(KIND)
        cdef _Scope scope
        if kind == MARK:
            scope = self._scopes.get(event._read_field(PARENT))
            (self._root if scope is None else scope.agent).observed.append(event.to_dict())
            return 0
        if kind == END:
            scope = self._scopes.get(event._read_field(UUID)) or self._scope_of(event)
            scope.end = event
        else:
            scope = self._scope_of(event)
            scope.start = event
        if scope.category == LLM:
            return self._llm_end(scope, event) if kind == END else self._llm_start(scope, event)
        if scope.category == TOOL:
            return self._tool_end(scope, event) if kind == END else self._tool_start(scope, event)
        if scope.category != AGENT:
            scope.agent.observed.append(event.to_dict())
        elif kind != END:
            self._agent_start(scope, event)
        return 0

    cdef _Scope _scope_of(self, RecordView event):
        cdef _Scope scope = _Scope.__new__(_Scope)
        cdef object packed_parent = event._read_field(PARENT)
        cdef _Scope parent = self._scopes.get(packed_parent)
        cdef object packed_uuid = event._read_field(UUID)
        scope.uuid, scope.name = canonical_uuid(packed_uuid), event._read_field(NAME)
        scope.category = _CATEGORIES.get(event._read_field(CATEGORY), OTHER)
        scope.agent = self._root
        if parent is not None:
            scope.agent, scope.parent_uuid, scope.parent_name = parent.agent, parent.uuid, parent.name
        elif packed_parent is not None:
            scope.parent_uuid = canonical_uuid(packed_parent)
        self._scopes[packed_uuid] = scope
        return scope

    # ---- agents ----

    cdef int _agent_start(self, _Scope scope, RecordView event) except -1:
        cdef _Agent outer = scope.agent
        if scope.uuid == self._root_uuid:
            if outer is self._root:
                self._root_scope = scope
        elif self._root_uuid is not None or outer.is_agent:
            scope.agent = _Agent(True)
            outer.children.append(scope)
            self._subagents.append(scope)
            outer.add_step(_subagent_step(scope, event))
        else:
            # A trajectory of all that was collected: its top-level agents are its own steps, those in them are not.
            scope.agent = _Agent(True, self._root)
        return 0

    # ---- LLM calls ----

    cdef int _llm_start(self, _Scope scope, RecordView event) except -1:
        cdef object request = _content(event._read_payload(DATA))
        cdef object said = _user_message(request, event)
        if said is None:
            return 0
        scope.is_said = True
        return scope.agent.add_step({
            "step_id": 0,
            "source": "user",
            "timestamp": _timestamp(event),
            "message": said,
            "extra": {"ancestry": scope.ancestry(), "llm_request": request},
        })

    cdef int _llm_end(self, _Scope scope, RecordView event) except -1:
        return scope.agent.add_step(self._llm_step(scope, event, event._read_payload(DATA)))

    cdef dict _llm_step(self, _Scope scope, RecordView event, response):
        """At the time of the event."""
        cdef object answer = None if response is None else _answer_of(response, _annotated(event), scope.start, event)
        cdef dict message = _message(response) if answer is None else _said(answer)
        cdef list calls = _tool_calls(message.get("tool_calls"))
        cdef dict step = {
            "step_id": 0, "source": "agent", "timestamp": _timestamp(event), "message": _text(message.get("content"))
        }  # fmt: skip
        cdef object model = _model(scope, response if answer is None else answer)
        cdef object reasoning = message.get("reasoning_content")
        cdef dict metrics = _metrics(response) if answer is None else _usage_metrics(answer.get("usage"))
        if model is not None:
            step["model_name"] = model
        if reasoning:
            step["reasoning_content"] = _text(reasoning)
        if calls:
            step["tool_calls"] = calls
        if metrics:
            step["metrics"] = metrics
        step["llm_call_count"] = 1
        step["extra"] = _llm_extra(scope, response)
        if answer is not None:
            _add_rest(<dict>step["extra"], answer)
        cdef int place
        for place, call in enumerate(calls):
            scope.agent.calls[(<dict>call)["tool_call_id"]] = step
            if answer is not None and _is_made_up({"id": call["tool_call_id"], "name": call["function_name"]}, place):
                scope.agent.nameless.append((step, call))
        return step

    # ---- tools ----

    cdef int _tool_start(self, _Scope scope, RecordView event) except -1:
        cdef object call_id = _call_id(event) or scope.uuid, data = event._read_payload(DATA)
        cdef dict arguments = _arguments(data)
        cdef dict step = scope.agent.calls.get(call_id)
        cdef dict call = None if step is None else _call_in(step, call_id)
        if call is None or "extra" in call:  # asked for by nobody known by that id, or run already
            step, call = _nameless_call(scope.agent, scope.name, arguments)
        if call is None:
            call = {"tool_call_id": call_id, "function_name": scope.name, "arguments": arguments}
            step = _step(event, call)
            scope.agent.add_step(step)
        call["extra"] = extra = {"ancestry": scope.ancestry()}
        if arguments != call["arguments"]:
            extra["executed_arguments"] = data
        scope.step, scope.call = step, call
        return 0

    cdef int _tool_end(self, _Scope scope, RecordView event) except -1:
        if scope.call is None:
            self._tool_start(scope, event)
            scope.call["arguments"] = {}
        scope.call["extra"]["invocation"] = scope.invocation(scope.call["tool_call_id"])
        cdef dict result = _result(scope, event), observation = scope.step.get("observation")
        if observation is None:
            scope.step["observation"] = {"results": [result]}
        else:
            observation["results"].append(result)
        return 0


# ------------------------------------------------------------------------------------- steps and their parts

cdef str _timestamp(RecordView event):
    return rfc3339(event._read_field(TIME))


cdef dict _step(RecordView event, dict call):
    """One that is a call, and no LLM's."""
    return {
        "step_id": 0,
        "source": "agent",
        "timestamp": _timestamp(event),
        "message": "",
        "llm_call_count": 0,
        "tool_calls": [call],
    }


cdef dict _llm_extra(_Scope scope, response):
    cdef dict extra = {"ancestry": scope.ancestry(), "invocation": scope.invocation(scope.uuid)}
    cdef object request = None
    if scope.start is not None and not scope.is_said:
        request = _content(scope.start._read_payload(DATA))
    if request is not None:
        extra["llm_request"] = request
    if response is not None:
        extra["llm_response"] = response
    return extra


cdef object _model(_Scope scope, response):
    cdef object named = response.get("model") if type(response) is dict else None
    if type(named) is str:
        return named  # who answered, which may not be who was asked
    named = None if scope.end is None else _named_model(scope.end)
    return _named_model(scope.start) if named is None and scope.start is not None else named


cdef object _named_model(RecordView event):
    cdef object profile = event._read_payload(PROFILE)
    cdef object named = profile.get("model_name") if type(profile) is dict else None
    return named if type(named) is str else None


cdef object _annotated(RecordView event):
    cdef object profile = event._read_payload(PROFILE)
    return profile.get("annotated_response") if type(profile) is dict else None


cdef object _call_id(RecordView event):
    cdef object profile = event._read_payload(PROFILE)
    cdef object found = profile.get("tool_call_id") if type(profile) is dict else None
    return found if type(found) is str else None


cdef dict _call_in(dict step, call_id):
    for call in <list>step["tool_calls"]:
        if (<dict>call)["tool_call_id"] == call_id:
            return call
    return None


cdef tuple _nameless_call(_Agent agent, name, dict arguments):
    """Of the calls without ids one of this tool with these arguments, and its step; else nothing.

    Any such one: what two equal calls return is the same to whoever asked.
    """
    cdef int place
    for place, (step, call) in enumerate(agent.nameless):
        if (<dict>call)["function_name"] == name and (<dict>call)["arguments"] == arguments:
            del agent.nameless[place]
            if "extra" not in <dict>call:
                return step, call
            return _nameless_call(agent, name, arguments)
    return None, None


cdef dict _result(_Scope scope, RecordView event):
    cdef dict extra = {"event_name": scope.name, "event_uuid": scope.uuid, "parent_event_uuid": scope.parent_uuid}
    cdef object metadata = event._read_payload(METADATA), content = event._read_payload(DATA)
    cdef dict result = {"source_call_id": scope.call["tool_call_id"]}
    if metadata is not None:
        extra["metadata"] = metadata
    if type(content) is str:
        result["content"] = content
    else:
        parts = _text_parts(content) if type(content) is list else None
        if parts:
            result["content"] = parts
        else:
            extra["tool_result"] = content
    result["extra"] = extra
    return result


cdef dict _subagent_step(_Scope scope, RecordView event):
    cdef str call_id = f"subagent:{scope.uuid}"
    cdef dict extra = {"event_name": scope.name, "event_uuid": scope.uuid, "parent_event_uuid": scope.parent_uuid}
    cdef dict reference = {"trajectory_id": scope.uuid, "extra": {"name": scope.name, "scope_uuid": scope.uuid}}
    cdef dict arguments = _present({"name": scope.name, "payload": event._read_payload(DATA)})
    cdef dict step = _step(
        event, {"tool_call_id": call_id, "function_name": scope.name, "arguments": arguments, "extra": extra}
    )
    result = {"source_call_id": call_id, "subagent_trajectory_ref": [reference], "extra": extra}
    step["observation"] = {"results": [result]}
    return step


# ------------------------------------------------------------------------------------- the whole

cdef dict _trajectory(_Agent agent, _Scope scope, dict info, str session_id, str trajectory_id):
    cdef _Scope child
    cdef list subagents = [child.trajectory for child in agent.children]
    return _present({
        "schema_version": _VERSION,
        "session_id": session_id,
        "trajectory_id": trajectory_id,
        "agent": info,
        "steps": agent.steps,
        "final_metrics": _final_metrics(agent.steps, subagents),
        "extra": _agent_extra(agent, scope) or None,
        "subagent_trajectories": subagents or None,
    })


cdef dict _agent_extra(_Agent agent, _Scope scope):
    cdef dict extra = {}
    cdef RecordView last
    if scope is not None:
        last = scope.start if scope.end is None else scope.end
        extra["ancestry"] = scope.ancestry()
        extra["invocation"] = scope.invocation(scope.uuid)
        extra.update(_present({
            "input": scope.start._read_payload(DATA),
            "output": None if scope.end is None else scope.end._read_payload(DATA),
            "metadata": last._read_payload(METADATA),
        }))
    if agent.observed:
        extra["observed_events"] = agent.observed
    return extra


cdef dict _final_metrics(list steps, list subagents):
    """Sums over the trajectory's own steps; the cost, as the format has it, with that of its subagents."""
    cdef dict totals = {"total_steps": len(steps)}
    for step in steps:
        metrics = (<dict>step).get("metrics")
        if metrics is not None:
            for name, value in (<dict>metrics).items():
                total = _TOTALS.get(name)
                if total is not None:
                    totals[total] = totals.get(total, 0) + value
    costs = [agent["final_metrics"].get("total_cost_usd") for agent in subagents]
    if any([cost is not None for cost in costs]):
        totals["total_cost_usd"] = totals.get("total_cost_usd", 0.0) + sum([cost or 0.0 for cost in costs])
    return totals


# ------------------------------------------------------------------------------------- payloads

cdef dict _present(dict fields):
    return {name: value for name, value in fields.items() if value is not None}


cdef list _dicts(value):
    return [item for item in <list>value if type(item) is dict] if type(value) is list else []


cdef str _json(value):
    return dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


cdef object _text(value):
    """A message's content: text, or parts of text, or anything else as JSON."""
    if value is None:
        return ""
    return value if type(value) is str else _text_parts(value) or _json(value)


cdef list _text_parts(value):
    """Parts of text, if it is nothing else."""
    cdef list parts = []
    if type(value) is not list:
        return parts
    for part in <list>value:
        if type(part) is not dict or part.get("type") not in _TEXT_TYPES or type(part.get("text")) is not str:
            return []
        parts.append({"type": "text", "text": part["text"]})
    return parts


cdef object _content(data):
    """An LLM call's request, without its headers."""
    is_request = type(data) is dict and len(data) == 2 and "content" in data and "headers" in data
    return data["content"] if is_request else data


cdef object _user_message(request, RecordView event):
    """What a user said last, if the request ends with it.

    A request of no known API says what its annotation says, and without one itself.
    """
    cdef object messages = request, last
    if type(request) is dict:
        messages = request["messages"] if "messages" in request else request.get("input")
        if messages is None:
            last = _last_message(request)  # of an API whose messages are elsewhere
            if last is not None:
                return _text(last.get("content")) if last.get("role") == "user" else None
    if type(messages) is list and _has_dicts(<list>messages):
        last = (<list>messages)[len(<list>messages) - 1]
        if type(last) is not dict or last.get("role") != "user" or _is_result(last.get("content")):
            return None
        return _text(last.get("content"))
    if type(request) is dict and type(messages) is str:
        return messages
    cdef object profile = event._read_payload(PROFILE)
    cdef object annotated = profile.get("annotated_request") if type(profile) is dict else None
    cdef list said = _dicts(annotated.get("messages")) if type(annotated) is dict else []
    if said:
        last = said[len(said) - 1]
        return _text(last.get("content")) if last.get("role") == "user" else None
    return None if request is None else _text(request)


cdef bint _is_result(content):
    """Whether a message is nothing but what tools returned, which Anthropic's API has as the user's."""
    if type(content) is not list or not content:
        return False
    for part in <list>content:
        if type(part) is not dict or part.get("type") != "tool_result":
            return False
    return True


cdef bint _has_dicts(list items):
    for item in items:
        if type(item) is dict:
            return True
    return False


cdef dict _said(answer):
    """The message of a response's view."""
    cdef object content = answer.get("message")
    return {
        "content": answer.get("refusal") if content is None else content,
        "reasoning_content": answer.get("reasoning_content"),
        "tool_calls": answer.get("tool_calls"),
    }


cdef int _add_rest(dict extra, answer) except -1:
    """What of a response's view ATIF has no word for."""
    for name in ("refusal", "alternatives", "incomplete"):
        _put(extra, name, answer.get(name))


cdef dict _usage_metrics(usage):
    """What the view's usage says; its prompt has the cached tokens in it, as the format wants it."""
    cdef dict found = {}, rest = {}
    if type(usage) is not dict:
        return None
    for name, value in (
        ("prompt_tokens", usage.get("prompt_tokens")),
        ("completion_tokens", usage.get("completion_tokens")),
        ("cached_tokens", usage.get("cache_read_tokens")),
    ):
        _put(found, name, value if type(value) is int else None)
    cost = usage.get("cost")
    if type(cost) is dict and cost.get("currency", "USD") == "USD" and type(cost.get("total")) in (int, float):
        found["cost_usd"] = float(cost["total"])
    for name in _MORE_COUNTS:
        _put(rest, name, usage.get(name))
    _put(found, "extra", rest or None)
    return found


cdef dict _message(response):
    """The assistant's message of a response of no known API, by what such ones usually have; else its text."""
    cdef list choices, blocks
    if type(response) is not dict:
        return {"content": response}
    choices = _dicts(response.get("choices"))
    if choices:
        message = (<dict>choices[0]).get("message")
        if type(message) is dict:
            return message
    blocks = _dicts(response.get("content"))
    if not blocks:
        return response if "content" in response else {"content": response}
    uses = [block for block in blocks if block.get("type") == "tool_use"]
    thought = "".join([str(block.get("thinking", "")) for block in blocks if block.get("type") == "thinking"])
    return {
        "content": "".join([str(block.get("text", "")) for block in blocks if block.get("type") == "text"]),
        "reasoning_content": thought or None,
        "tool_calls": [{"id": use.get("id"), "name": use.get("name"), "arguments": use.get("input")} for use in uses],
    }


cdef list _tool_calls(asked):
    """A message's."""
    cdef list calls = []
    for call in _dicts(asked):
        function = (<dict>call).get("function")
        named = function if type(function) is dict else call
        calls.append({
            "tool_call_id": str(call.get("id") or ""),
            "function_name": str(named.get("name") or ""),
            "arguments": _arguments(named.get("arguments")),
        })
    return calls


cdef dict _arguments(value):
    if type(value) is str:
        try:
            value = _parsed(value)
        except (ValueError, RecursionError):
            return {"raw": value}
    return value if type(value) is dict else {} if value is None else {"raw": value}


cdef object _parsed(str text):
    """What it is as JSON, finite numbers only. What is mostly there, a value with nothing around it, costs a third."""
    try:
        value, end = _scan(text, 0)
        if end == len(text):
            return value
    except StopIteration:
        pass
    return _decoder.decode(text)


cdef object _number(tuple names, dict place):
    for name in names:
        value = place.get(name)
        if type(value) is int:
            return value
    return None


cdef dict _metrics(response):
    """What a response says it took, if it does."""
    cdef dict found = {}, rest = {}
    cdef object usage = None
    if type(response) is dict:
        usage = response["usage"] if "usage" in response else response.get("usageMetadata")
    if type(usage) is not dict:
        return None
    _put(found, "prompt_tokens", _number(_PROMPT_NAMES, usage))
    _put(found, "completion_tokens", _number(_COMPLETION_NAMES, usage))
    _put(found, "cached_tokens", _cached(usage))
    cost = usage["cost_usd"] if "cost_usd" in usage else usage.get("cost")
    if type(cost) is int or type(cost) is float:
        found["cost_usd"] = float(cost)
    for name, value in (<dict>usage).items():
        if name not in _USED_NAMES and (type(value) is int or type(value) is float or type(value) is bool):
            rest[name] = value
    _put(found, "extra", rest or None)
    return found


cdef int _put(dict found, str name, value) except -1:
    if value is not None:
        found[name] = value
    return 0


cdef object _cached(dict usage):
    """By the first name that either has."""
    cdef str named = "prompt_tokens_details" if "prompt_tokens_details" in usage else "input_tokens_details"
    cdef object details = usage.get(named)
    for name in _CACHED_NAMES:
        for place in (details, usage):
            value = (<dict>place).get(name) if type(place) is dict else None
            if type(value) is int:
                return value
    return None
