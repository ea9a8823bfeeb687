"""Random programs over scopes, marks, tools, LLM calls, middleware and subscribers, for the differential test.

A program is JSON: a list of steps `[verb, *arguments]`, the verbs being the methods of `driver.Run`.
`program(seed)` is the same program for ever.

Priorities of injectors are unique within a program: between levels the packages break ties differently.
"""

import random

NAMES = ["a", "b", "c", "d", "e"]
KINDS = ["Agent", "Function", "Retriever", "Custom"]
PAYLOADS = [None, 1, "text", [1, 2], {"x": 1}, {"x": {"y": [None, True]}, "z": 2.5}, {}]
ARGUMENTS = [None, {"x": 1}, {"q": "text", "n": [1, 2]}, [1], "text", {}]
METADATA = [None, {"m": 1}, {"kept": "own", "m": {"n": 1}}, {"otel.status_code": "mine"}, "text", [1]]
HEADERS = [{}, {"X-A": "1"}, {"Authorization": "secret", "x-api-key": "k", "X-A": "1"}, {"traceparent": "theirs"}]
CONTENTS = [{"model": "m"}, {"model": "m", "messages": [{"role": "user", "content": "hi"}]}, {}]
CHUNKS = [
    [{"i": 0}, {"i": 1}],
    [{"type": "message_start", "message": {}}, {"type": "ping"}],
    [
        {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {}}]},
        {"object": "chat.completion.chunk", "choices": [], "usage": {"total_tokens": 3}},
    ],
    [{"type": "response.output_text.delta", "delta": "x"}, "text", 3],
    [{"only": 1}],
]

BEHAVIOURS = {
    "event_metadata_injector": ["tag", "kept", "list", "nested", "mixed", "key", "none", "empty", "raise"],
    "mark_sanitize": ["tag", "none", "partial", "list", "raise", "profile", "object", "extra"],
    "tool_sanitize_request": ["tag", "same", "none", "number", "object", "raise", "mutate"],
    "tool_conditional_execution": ["allow", "allow", "allow", "reject", "raise", "number", "emit"],
    "tool_request": ["tag", "same", "none", "object", "raise", "mutate"],
    "tool_execution": ["wrap", "short", "marks", "twice", "catch", "around", "plain", "raise"],
    "llm_sanitize_request": ["tag", "same", "none", "plain", "raise"],
    "llm_sanitize_response": ["tag", "same", "none", "number", "object", "raise"],
    "llm_conditional_execution": ["allow", "allow", "allow", "reject", "raise", "number"],
    "llm_request": ["tag", "same", "marks", "credentials", "none", "plain", "raise"],
    "llm_execution": ["wrap", "short", "twice", "catch", "raise"],
    "llm_stream_execution": ["wrap", "delegate", "short", "raise", "middle", "twice"],
}
BEHAVIOURS["tool_sanitize_response"] = BEHAVIOURS["tool_sanitize_request"]
BEHAVIOURS["scope_sanitize_start"] = BEHAVIOURS["scope_sanitize_end"] = BEHAVIOURS["mark_sanitize"]

ALWAYS_COROUTINES = ("tool_execution", "llm_execution", "llm_stream_execution")


class Writer:
    """Writes one program."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.next_priority = 0
        self.has_stream_intercepts = False
        self.has_execution_intercepts = False

    def steps(self, depth: int, count: int) -> list:
        return [self.step(depth) for _ in range(count)]

    def step(self, depth: int) -> list:
        pick = self.random.choice
        verbs = ["register"] * 6 + ["tool"] * 5 + ["llm"] * 4 + ["stream_llm"] * 3 + ["mark"] * 2
        verbs += ["tool_manual", "llm_manual", "tool_helper", "llm_helper", "deregister", "subscriber", "broken"]
        verbs += ["scope"] * (4 if depth < 3 else 0)
        return getattr(self, pick(verbs))(depth)

    def options(self, **choices: list) -> dict:
        return {name: self.random.choice(values) for name, values in choices.items() if self.random.random() < 0.4}

    def scope(self, depth: int) -> list:
        options = self.options(input=PAYLOADS, data=PAYLOADS, metadata=METADATA[:3])
        inner = self.steps(depth + 1, self.random.randint(1, 5))
        return ["scope", self.random.choice(NAMES), self.random.choice(KINDS), options, inner]

    def broken(self, depth: int) -> list:
        return ["broken", "broken", self.random.choice(["text", ""])]

    def mark(self, depth: int) -> list:
        up = self.random.choice([None, None, 0, 1])
        schema = {"name": "schema", "version": "1"}
        options = self.options(data=PAYLOADS, metadata=METADATA, data_schema=[schema])
        return ["mark", self.random.choice(NAMES), options, up]

    def subscriber(self, depth: int) -> list:
        scope = self.random.choice([None, 0, 1]) if depth else None
        return ["subscriber", f"subscriber {self.random.randint(0, 3)}", scope]

    def register(self, depth: int) -> list:
        family = self.random.choice(list(BEHAVIOURS))
        self.has_stream_intercepts |= family == "llm_stream_execution"
        self.has_execution_intercepts |= family in ("tool_execution", "llm_execution")
        behaviour = self.random.choice(BEHAVIOURS[family])
        if family not in ALWAYS_COROUTINES and self.random.random() < 0.3:
            behaviour += "_async"
        priority = self.random.randint(-1, 2)
        if family == "event_metadata_injector":
            self.next_priority += 1
            priority = self.next_priority
        scope = self.random.choice([None, 0, 1, 2]) if depth else None
        break_chain = self.random.random() < 0.2 if family in ("tool_request", "llm_request") else None
        return ["register", family, self.random.choice(NAMES), priority, behaviour, scope, break_chain]

    def deregister(self, depth: int) -> list:
        return ["deregister", self.random.choice(list(BEHAVIOURS)), self.random.choice(NAMES)]

    def tool_manual(self, depth: int) -> list:
        options = self.options(data=PAYLOADS, metadata=METADATA, tool_call_id=["id"], tool_bits=[0, 1])
        end_options = self.options(data=PAYLOADS, metadata=METADATA)
        args, result = self.random.choice(ARGUMENTS), self.random.choice(PAYLOADS)
        annotation = self.random.choice(PAYLOADS)
        return ["tool_manual", "manual tool", args, result, annotation, options, end_options]

    def tool(self, depth: int) -> list:
        options = self.options(data=PAYLOADS, metadata=METADATA, tool_call_id=["id"], tool_bits=[0, 1])
        behaviour = self.random.choice(["return"] * 5 + ["emit", "emit", "raise", "plain", "rejected inside"])
        annotation = self.random.choice(PAYLOADS)
        return ["tool", "tool", self.random.choice(ARGUMENTS), self.body(behaviour), annotation, options]

    def tool_helper(self, depth: int) -> list:
        verb = self.random.choice(["request_intercepts", "conditional_execution"])
        return ["tool_helper", verb, "tool", self.random.choice(ARGUMENTS)]

    def llm_manual(self, depth: int) -> list:
        options = self.options(data=PAYLOADS, metadata=METADATA, model_name=["model"], llm_bits=[0, 1, 2, 3])
        end_options = self.options(data=PAYLOADS, metadata=METADATA)
        headers, content = self.random.choice(HEADERS), self.random.choice(CONTENTS)
        return ["llm_manual", "manual llm", headers, content, self.random.choice(PAYLOADS), options, end_options]

    def llm(self, depth: int) -> list:
        options = self.options(data=PAYLOADS, metadata=METADATA, model_name=["model"], llm_bits=[0, 1, 2, 3])
        behaviour = self.random.choice(["return"] * 4 + ["emit", "raise"])
        headers, content = self.random.choice(HEADERS), self.random.choice(CONTENTS)
        return ["llm", "llm", headers, content, self.body(behaviour), options]

    def stream_llm(self, depth: int) -> list:
        options = self.options(metadata=METADATA, model_name=["model"], llm_bits=[0, 1, 2, 3])
        behaviour = self.random.choice(["return"] * 4 + ["raise", "collector", "finalizer"])
        consume = self.random.choice([None, None, None, 1]) if behaviour == "return" else None
        chunks = self.random.choice(CHUNKS)
        if len(chunks) == 1 or self.has_stream_intercepts:
            consume = None  # an end that comes at once has been read ahead by the peer
        headers, content = self.random.choice(HEADERS), self.random.choice(CONTENTS)
        return ["stream_llm", "stream", headers, content, chunks, behaviour, consume, options]

    def body(self, behaviour: str) -> str:
        # The peer loses what is registered on a scope after a body opened one within an execution intercept.
        return "return" if behaviour == "emit" and self.has_execution_intercepts else behaviour

    def llm_helper(self, depth: int) -> list:
        verb = self.random.choice(["request_intercepts", "conditional_execution"])
        return ["llm_helper", verb, "llm", self.random.choice(HEADERS), self.random.choice(CONTENTS)]


WORK = [
    ["tool", "tool", {"x": 1}, "return", {"y": 1}, {"metadata": {"m": 1}}],
    ["tool_manual", "manual tool", {"x": 1}, {"r": 1}, None, {"data": 1}, {"metadata": {"m": 1}}],
    ["tool_helper", "request_intercepts", "tool", {"x": 1}],
    ["tool_helper", "conditional_execution", "tool", {"x": 1}],
    ["llm", "llm", HEADERS[2], CONTENTS[1], "return", {"model_name": "model"}],
    ["llm_manual", "manual llm", HEADERS[1], CONTENTS[0], {"r": 1}, {}, {"data": 1}],
    ["llm_helper", "request_intercepts", "llm", HEADERS[1], CONTENTS[0]],
    ["llm_helper", "conditional_execution", "llm", HEADERS[1], CONTENTS[0]],
    ["stream_llm", "stream", HEADERS[1], CONTENTS[0], CHUNKS[0], "return", None, {}],
    ["scope", "work", "Function", {"input": {"x": 1}}, [["mark", "m", {"data": {"x": 1}}, 0]]],
]
"""A step of each kind that middleware takes part in."""


def _everywhere(name: str, priority: int, scope: int | None) -> list:
    """Registers each family, with the behaviour that shows."""
    breaks = {"tool_request": False, "llm_request": False}
    return [
        ["register", family, name, priority, behaviours[0], scope, breaks.get(family)]
        for family, behaviours in BEHAVIOURS.items()
    ]


def full() -> list:
    """Every family at every level, one name at two, and chains that end early; work at each stage."""
    ending = [["register", family, "end", -1, "tag", 1, True] for family in ("tool_request", "llm_request")]
    verdicts = [["register", f"{kind}_conditional_execution", "no", 1, "reject", 1, None] for kind in ("tool", "llm")]
    inner = ["scope", "inner", "Function", {}, [*ending, *WORK, *verdicts, *WORK]]
    removed = [["deregister", family, "b"] for family in BEHAVIOURS]
    outer = ["scope", "outer", "Agent", {}, [*_everywhere("a", 0, 0), *WORK, inner, *removed, *WORK]]
    return [*_everywhere("a", 2, None), *_everywhere("b", 1, None), *WORK, outer, *WORK]


FULL = -1
"""The number of that one program."""


def program(seed: int) -> list:
    """The program of that number."""
    if seed == FULL:
        return full()
    writer = Writer(seed)
    return writer.steps(0, writer.random.randint(6, 14))
