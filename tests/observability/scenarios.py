"""Small programs whose exports are golden files, and larger ones for many processes. Times and uuids are given."""

from relay_mp import MetricKind, MetricMeasurement, MetricValueType
from relay_mp._emit.metrics import METRIC_SCHEMA, measurements_payload
from relay_mp._native import core
from relay_mp.events import KIND_END, KIND_MARK, KIND_START, SEVERITY_KEY
from relay_mp.types import CATEGORIES

BEGIN_US = 1_700_000_000_000_000


def uuid_of(number):
    """A uuid that a reader of a golden file recognises."""
    return bytes.fromhex(f"0190000000007000800000000000{number:04x}")


class Story:
    """Emits events with times and uuids of its own choosing, in the order written."""

    def __init__(self):
        self.clock_us = BEGIN_US
        self.number = 0
        self.open = {}

    def start(self, name, category, parent=None, data=None, metadata=None, profile=None):
        self.number += 1
        uuid = uuid_of(self.number)
        self.open[uuid] = (name, category, parent, profile)
        self._emit(KIND_START, uuid, name, category, parent, data, metadata, profile)
        return uuid

    def end(self, uuid, data=None, metadata=None):
        name, category, parent, profile = self.open.pop(uuid)
        self._emit(KIND_END, uuid, name, category, parent, data, metadata, profile)

    def mark(self, name, parent=None, data=None, metadata=None):
        self.number += 1
        self._emit(KIND_MARK, uuid_of(self.number), name, None, parent, data, metadata, None)

    def metric(self, name, parent, *measurements):
        self.number += 1
        data = measurements_payload(measurements)
        self._emit(KIND_MARK, uuid_of(self.number), name, None, parent, data, None, None, METRIC_SCHEMA)

    def _emit(self, kind, uuid, name, category, parent, data, metadata, profile, schema=None):
        self.clock_us += 1000
        code = None if category is None else CATEGORIES.index(category)
        core.emit(kind, uuid, parent, self.clock_us, 0, name, code, 0, None, data, metadata, profile, schema)


def request(*messages):
    return {"headers": {}, "content": {"messages": [{"role": role, "content": text} for role, text in messages]}}


def response(text, *calls, prompt=10, completion=5, **usage):
    tools = [{"id": id_, "type": "function", "function": {"name": name, "arguments": "{}"}} for id_, name in calls]
    message = {"role": "assistant", "content": text, **({"tool_calls": tools} if tools else {})}
    return {
        "choices": [{"message": message}],
        "usage": {"prompt_tokens": prompt, "completion_tokens": completion, **usage},
    }


OK = {"otel.status_code": "OK"}


def one_agent():
    """An agent that thinks, uses a tool, asks another agent, and answers."""
    s = Story()
    agent = s.start("planner", "agent", data={"question": "What is a ring?"}, metadata={"user": "alice"})
    s.mark("plan made", agent, {"steps": 2})
    asked = request(("system", "Be brief."), ("user", "What is a ring?"))
    llm = s.start("chat", "llm", agent, asked, None, {"model_name": "m-1"})
    s.end(llm, response("Let me look.", ("call-1", "search"), cost_usd=0.25), OK)
    tool = s.start("search", "tool", agent, {}, None, {"tool_call_id": "call-1"})
    s.end(tool, {"found": 3})
    helper = s.start("helper", "agent", agent, "summarise")
    inner = s.start("chat", "llm", helper, request(("user", "Summarise.")), None, {"model_name": "m-2"})
    s.end(inner, response("A buffer.", prompt=4, completion=2, cost_usd=0.5), OK)
    s.end(helper, "A buffer.", OK)
    step = s.start("rank", "function", agent)
    s.mark("ranked", step)
    s.end(step, None, {"otel.status_code": "ERROR", "otel.status_description": "no"})
    told = request(("user", "What is a ring?"), ("tool", "3"))
    last = s.start("chat", "llm", agent, told, None, {"model_name": "m-1"})
    s.end(last, response("A circular buffer.", prompt=30), OK)
    s.end(agent, "A circular buffer.", {"user": "alice", **OK})


def interleaved():
    """Two agents at once, whose calls and ends interleave; a mark comes after its agent has ended."""
    s = Story()
    a = s.start("a", "agent")
    b = s.start("b", "agent")
    llm_a = s.start("chat", "llm", a, request(("user", "of a")), None, {"model_name": "m-a"})
    llm_b = s.start("chat", "llm", b, request(("user", "of b")), None, {"model_name": "m-b"})
    s.end(llm_a, response("to a", ("same-id", "t")), OK)
    tool_b = s.start("t", "tool", b, {"of": "b"}, None, {"tool_call_id": "same-id"})
    s.end(a, "a is done", OK)
    s.end(llm_b, response("to b"), OK)
    s.end(tool_b, "of b")
    s.mark("late", a)
    s.end(b, "b is done", OK)


def loose_ends():
    """What does not fit: no end, no start, a parent that nobody has seen."""
    s = Story()
    agent = s.start("agent", "agent", uuid_of(0xFFFF))
    s.start("never answered", "llm", agent, request(("user", "?")))
    s.start("never returned", "tool", agent, {"x": 1})
    unseen = uuid_of(0xEEEE)
    s.open[unseen] = ("unseen", "function", agent, None)
    s.end(unseen)
    s.mark("orphan", uuid_of(0xDDDD))
    s.mark("top")


def measured():
    """Marks of several severities, and measurements of each kind."""
    s = Story()
    agent = s.start("cache", "agent")
    s.mark("nearly full", agent, {"entries": [900, None]}, {SEVERITY_KEY: "warn", "shard": 3})
    s.mark("looked up", agent, "a", {SEVERITY_KEY: "debug"})
    for n in (1, 2, 3):
        shard = {"shard": n % 2}
        s.metric(
            "measured",
            agent,
            MetricMeasurement("cache.hits", MetricKind.Counter, MetricValueType.U64, n, "{hit}", "Found.", shard),
            MetricMeasurement("cache.open", MetricKind.UpDownCounter, MetricValueType.I64, 2 - n),
            MetricMeasurement("cache.fill", MetricKind.Gauge, MetricValueType.F64, n / 4),
            MetricMeasurement(
                "cache.time", MetricKind.Histogram, MetricValueType.F64, n * 0.5, "s", boundaries=[0.5, 1]
            ),
        )
    s.end(agent)
    s.mark("failed", None, None, {SEVERITY_KEY: "error"})


SCENARIOS = {"one_agent": one_agent, "interleaved": interleaved, "loose_ends": loose_ends, "measured": measured}
