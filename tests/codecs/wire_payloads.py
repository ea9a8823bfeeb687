"""Requests, responses and streams as the providers' APIs have them, each with what is to be made of it.

Written after the public documentation of the wire formats: the API references of OpenAI, Anthropic, Google, Oracle,
Mistral, DeepSeek, xAI, Groq, Perplexity, OpenRouter, vLLM and Ollama. What tests make of the table is in
`test_wire_payloads.py`.
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Case:
    """A call.

    What is expected: `said`, the user's last message (None: the request does not end with one); `message`, `calls`
    (id, name, arguments), `reason`, `thoughts`, `refusal`, `others` (the messages of alternatives); `usage`, whole,
    without a cost; `provider` and OpenInference's `system` and `host`; `cost`, where the provider reports one.
    """

    name: str
    api: str
    provider: str
    request: dict[str, Any]
    response: Any
    usage: dict[str, int] | None
    message: Any = "4"
    reason: str | None = "complete"
    calls: list[tuple[str, str, Any]] = field(default_factory=list)
    said: str | None = "2+2?"
    thoughts: str | None = None
    refusal: str | None = None
    others: list[Any] = field(default_factory=list)
    system: str = "openai"
    host: str | None = None
    cost: float | None = None
    call: str = "model"
    headers: dict[str, str] = field(default_factory=dict)
    incomplete: bool = False
    model: str | None = "m"


def counts(prompt=10, completion=5, total=15, **more):
    """The counts of a usage; a prompt with cached tokens has a rest."""
    found = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total, **more}
    if "cache_read_tokens" in more or "cache_write_tokens" in more:
        found["uncached_input_tokens"] = prompt - more.get("cache_read_tokens", 0) - more.get("cache_write_tokens", 0)
    return {name: count for name, count in found.items() if count is not None}


ADD = [("call_a", "add", {"a": 2, "b": 2})]
ARGUMENTS = '{"a":2,"b":2}'

# --------------------------------------------------------------------------------------- OpenAI's Chat

CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "2+2?"}]}
USAGE: dict[str, Any] = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


def chat(message, usage=USAGE, finish="stop", **more):
    choice = {"index": 0, "message": {"role": "assistant", "content": "4", **message}, "finish_reason": finish}
    whole = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], **more}
    return whole if usage is None else {**whole, "usage": usage}


def chunk(delta=None, finish=None, usage=None, index=0, **more):
    choices = [] if delta is None else [{"index": index, "delta": delta, "finish_reason": finish, "logprobs": None}]
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "model": "m",
        "choices": choices,
        "usage": usage,
        **more,
    }


def called(id_="call_a", arguments: Any = ARGUMENTS, **more):
    return {"id": id_, "type": "function", "function": {"name": "add", "arguments": arguments}, **more}


def openai(name, response, usage=None, provider="openai", request=CHAT, **expected):
    return Case(name, "openai_chat", provider, request, response, counts() if usage is None else usage, **expected)


OPENAI_CHAT = [
    openai("chat: an answer", chat({})),
    openai(
        "chat: cached and reasoning tokens",
        chat(
            {},
            {
                **USAGE,
                "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 3, "accepted_prediction_tokens": 0},
            },
        ),
        counts(cache_read_tokens=4, reasoning_tokens=3),
    ),
    openai(
        "chat: tokens written to the cache",
        chat({}, {**USAGE, "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2}}),
        counts(cache_read_tokens=4, cache_write_tokens=2),
    ),
    openai(
        "chat: a tool call",
        chat({"content": None, "tool_calls": [called()]}, finish="tool_calls"),
        message=None,
        calls=ADD,
        reason="tool_use",
    ),
    openai(
        "chat: two parallel calls, and a tool's answers in the request",
        chat({"content": None, "tool_calls": [called("c1"), called("c2")]}, finish="tool_calls"),
        request={
            **CHAT,
            "messages": [
                *CHAT["messages"],
                {"role": "assistant", "tool_calls": [called()]},
                {"role": "tool", "tool_call_id": "call_a", "content": "4"},
            ],
        },
        message=None,
        reason="tool_use",
        said=None,
        calls=[("c1", "add", {"a": 2, "b": 2}), ("c2", "add", {"a": 2, "b": 2})],
    ),
    openai(
        "chat: a custom tool",
        chat(
            {
                "content": None,
                "tool_calls": [{"id": "c", "type": "custom", "custom": {"name": "run", "input": "ls -l"}}],
            },
            finish="tool_calls",
        ),
        message=None,
        reason="tool_use",
        calls=[("c", "run", "ls -l")],
    ),
    openai(
        "chat: a function_call of old",
        chat({"content": None, "function_call": {"name": "add", "arguments": ARGUMENTS}}, finish="function_call"),
        message=None,
        reason="tool_use",
        calls=[("call_0", "add", {"a": 2, "b": 2})],
    ),
    openai("chat: a refusal", chat({"content": None, "refusal": "I cannot."}), message=None, refusal="I cannot."),
    openai("chat: the filter", chat({"content": ""}, finish="content_filter"), message="", reason="content_filter"),
    openai("chat: cut for its length", chat({}, finish="length"), reason="length"),
    openai(
        "chat: three choices",
        {
            **chat({}),
            "choices": [
                {"index": n, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
                for n, text in enumerate(("4", "four", "IV"))
            ],
        },
        request={**CHAT, "n": 3},
        others=["four", "IV"],
    ),
    openai(
        "chat: an SDK's dump, nulls and all",
        chat(
            {"refusal": None, "annotations": [], "audio": None, "function_call": None, "tool_calls": None},
            service_tier=None,
            system_fingerprint=None,
        ),
        request={
            **CHAT,
            "messages": [{"role": "assistant", "content": "Hi", "refusal": None, "audio": None}, *CHAT["messages"]],
        },
    ),
    openai(
        "chat: parts in the request",
        chat({}),
        request={
            **CHAT,
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "2+2?"},
                        {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
                    ],
                }
            ],
        },
        said='[{"text":"2+2?","type":"text"},{"image_url":{"url":"https://x/y.png"},"type":"image_url"}]',
    ),
    openai(
        "chat: odd types",
        chat(
            {"content": None, "tool_calls": [called(arguments={"a": 2, "b": 2}), "?", {"id": 3}]},
            {**USAGE, "prompt_tokens": 10.0, "prompt_tokens_details": "?"},
            "tool_calls",
            id=7,
        ),
        message=None,
        calls=ADD,
        reason="tool_use",
    ),
    openai("chat: no usage", chat({}, None), {}),
    openai(
        "chat: an odd request",
        chat({}),
        request={
            "model": "m",
            "temperature": "0.5",
            "max_tokens": None,
            "stop": 3,
            "messages": [7, {"content": "?"}, *CHAT["messages"]],
        },
    ),
]
OPENAI_CHAT_STREAMS = [
    openai(
        "chat stream: usage in the last chunk",
        [chunk({"role": "assistant", "content": ""}), chunk({"content": "4"}), chunk({}, "stop"), chunk(usage=USAGE)],
    ),
    openai(
        "chat stream: no usage was asked for", [chunk({"role": "assistant", "content": "4"}), chunk({}, "stop")], {}
    ),
    openai(
        "chat stream: two tool calls in deltas",
        [
            chunk(
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {"index": 0, "id": "c1", "type": "function", "function": {"name": "add", "arguments": ""}}
                    ],
                }
            ),
            chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"a":2,'}}]}),
            chunk({"tool_calls": [{"index": 0, "function": {"arguments": '"b":2}'}}]}),
            chunk(
                {
                    "tool_calls": [
                        {"index": 1, "id": "c2", "type": "function", "function": {"name": "now", "arguments": "{}"}}
                    ]
                }
            ),
            chunk({}, "tool_calls"),
            chunk(usage=USAGE),
        ],
        message=None,
        reason="tool_use",
        calls=[("c1", "add", {"a": 2, "b": 2}), ("c2", "now", {})],
    ),
    openai(
        "chat stream: two choices",
        [
            chunk({"content": "4"}),
            chunk({"content": "f"}, index=1),
            chunk({"content": "our"}, index=1),
            chunk({}, "stop"),
            chunk({}, "stop", index=1),
            chunk(usage=USAGE),
        ],
        others=["four"],
    ),
    openai(
        "chat stream: a refusal",
        [
            chunk({"role": "assistant", "content": None, "refusal": ""}),
            chunk({"refusal": "I can"}),
            chunk({"refusal": "not."}),
            chunk({}, "stop"),
            chunk(usage=USAGE),
        ],
        message=None,
        refusal="I cannot.",
    ),
    openai(
        "chat stream: broken off in the text",
        [chunk({"role": "assistant", "content": ""}), chunk({"content": "The answer"}), chunk({"content": " is"})],
        {},
        message="The answer is",
        reason=None,
        incomplete=True,
    ),
    openai(
        "chat stream: broken off in a call",
        [
            chunk(
                {
                    "tool_calls": [
                        {"index": 0, "id": "c1", "type": "function", "function": {"name": "add", "arguments": ""}}
                    ]
                }
            ),
            chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"a":2,'}}]}),
        ],
        {},
        message=None,
        reason=None,
        incomplete=True,
        calls=[("c1", "add", '{"a":2,')],
    ),
]

# ------------------------------------------------------------------------- others who speak OpenAI's Chat

THINKING = [{"type": "thinking", "thinking": [{"type": "text", "text": "Easy."}]}, {"type": "text", "text": "4"}]


def mistral(name, response, usage=None, **expected):
    request = expected.pop("request", {**CHAT, "model": "magistral-medium-latest", "safe_prompt": False})
    return openai(name, response, usage, "mistral_ai", request, system="mistralai", host="mistralai", **expected)


COMPATIBLE = [
    mistral("Mistral: an answer", chat({}, model="mistral-large-latest"), model="mistral-large-latest"),
    mistral("Mistral: thinking in the content", chat({"content": THINKING}), thoughts="Easy."),
    mistral(
        "Mistral: a call, whose arguments are an object",
        chat(
            {
                "content": "",
                "tool_calls": [{"id": "call_a", "function": {"name": "add", "arguments": {"a": 2, "b": 2}}}],
            },
            finish="tool_calls",
        ),
        message="",
        calls=ADD,
        reason="tool_use",
    ),
    mistral(
        "Mistral stream: thinking, then text",
        [
            chunk({"role": "assistant", "content": ""}),
            chunk({"content": [THINKING[0]]}),
            chunk({"content": "4"}),
            chunk({"content": ""}, "stop", USAGE),
        ],
        thoughts="Easy.",
    ),
    mistral(
        "Mistral stream: whole calls in one delta",
        [
            chunk({"role": "assistant", "content": ""}),
            chunk(
                {
                    "content": "",
                    "tool_calls": [
                        {"id": "c1", "function": {"name": "add", "arguments": ARGUMENTS}, "index": 0},
                        {"id": "c2", "function": {"name": "now", "arguments": "{}"}, "index": 1},
                    ],
                },
                "tool_calls",
                USAGE,
            ),
        ],
        message="",
        reason="tool_use",
        calls=[("c1", "add", {"a": 2, "b": 2}), ("c2", "now", {})],
    ),
    openai(
        "DeepSeek: reasoning_content and cache hits",
        chat(
            {"reasoning_content": "Easy."},
            {
                **USAGE,
                "prompt_cache_hit_tokens": 8,
                "prompt_cache_miss_tokens": 2,
                "completion_tokens_details": {"reasoning_tokens": 3},
            },
            model="deepseek-reasoner",
        ),
        counts(cache_read_tokens=8, reasoning_tokens=3),
        "deepseek",
        thoughts="Easy.",
        model="deepseek-reasoner",
    ),
    openai(
        "DeepSeek stream: reasoning_content",
        [
            chunk({"role": "assistant", "content": None, "reasoning_content": "Ea"}),
            chunk({"content": None, "reasoning_content": "sy."}),
            chunk({"content": "4"}),
            chunk({"content": ""}, "stop", {**USAGE, "prompt_cache_hit_tokens": 0, "prompt_cache_miss_tokens": 10}),
        ],
        counts(cache_read_tokens=0),
        "deepseek",
        thoughts="Easy.",
    ),
    openai(
        "xAI: thoughts beside the completion",
        chat(
            {"reasoning_content": "Easy."},
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "total_tokens": 45,
                "prompt_tokens_details": {"cached_tokens": 6},
                "completion_tokens_details": {"reasoning_tokens": 30},
            },
            model="grok-4",
        ),
        counts(completion=35, total=45, cache_read_tokens=6, reasoning_tokens=30),
        "x_ai",
        thoughts="Easy.",
        host="xai",
        model="grok-4",
    ),
    openai(
        "Groq: usage and its times",
        chat({"reasoning": "Easy."}, {**USAGE, "queue_time": 0.1, "total_time": 0.5}, x_groq={"id": "req_1"}),
        provider="groq",
        thoughts="Easy.",
    ),
    openai(
        "Groq stream: usage in x_groq",
        [
            chunk({"role": "assistant", "content": "4"}, x_groq={"id": "req_1"}),
            chunk({}, "stop", x_groq={"id": "req_1", "usage": USAGE}),
        ],
        provider="groq",
    ),
    openai(
        "Perplexity: cost in parts",
        chat(
            {},
            {
                **USAGE,
                "search_context_size": "low",
                "cost": {
                    "input_tokens_cost": 0.001,
                    "output_tokens_cost": 0.002,
                    "request_cost": 0.005,
                    "total_cost": 0.008,
                },
            },
            citations=["https://x"],
            search_results=[{"title": "x"}],
        ),
        provider="perplexity",
        cost=0.008,
    ),
    openai(
        "OpenRouter: cost",
        chat(
            {"reasoning": "Easy.", "reasoning_details": []},
            {
                **USAGE,
                "cost": 0.00125,
                "cost_details": {"upstream_inference_cost": None},
                "prompt_tokens_details": {"cached_tokens": 2},
                "completion_tokens_details": {"reasoning_tokens": 3},
            },
            id="gen-1",
            provider="Anthropic",
            model="anthropic/claude-x",
        ),
        counts(cache_read_tokens=2, reasoning_tokens=3),
        "openrouter",
        thoughts="Easy.",
        cost=0.00125,
        model="anthropic/claude-x",
    ),
    openai(
        "OpenRouter: a cost that is a text",
        chat({}, {**USAGE, "cost": "0.00125"}, provider="Azure"),
        provider="openrouter",
        cost=0.00125,
    ),
    openai(
        "OpenRouter stream: cost in the last chunk",
        [
            chunk({"role": "assistant", "content": ""}, provider="OpenAI"),
            chunk({"content": "4"}, provider="OpenAI"),
            chunk({"content": ""}, "stop", provider="OpenAI"),
            chunk({"content": ""}, usage={**USAGE, "cost": 0.5}),
        ],
        provider="openrouter",
        cost=0.5,
    ),
    openai(
        "vLLM: its own keys",
        chat(
            {"reasoning_content": "Easy.", "tool_calls": []},
            {**USAGE, "prompt_tokens_details": None},
            prompt_logprobs=None,
            kv_transfer_params=None,
        ),
        provider="vllm",
        request={**CHAT, "top_k": 20, "chat_template_kwargs": {"enable_thinking": True}},
        thoughts="Easy.",
    ),
    openai(
        "vLLM stream: usage in every chunk",
        [
            chunk(
                {"role": "assistant", "content": ""},
                usage={"prompt_tokens": 10, "total_tokens": 10, "completion_tokens": 0},
            ),
            chunk({"content": "4"}, usage={"prompt_tokens": 10, "total_tokens": 11, "completion_tokens": 1}),
            chunk({"content": ""}, "stop", USAGE),
            chunk(usage=USAGE),
        ],
        provider="vllm",
        call="vllm",
    ),
    openai(
        "Ollama: reasoning",
        chat({"reasoning": "Easy."}, system_fingerprint="fp_ollama"),
        provider="ollama",
        thoughts="Easy.",
    ),
    openai(
        "Ollama stream: several calls, all of them number 0",
        [
            chunk(
                {"role": "assistant", "content": "", "tool_calls": [called("c1", index=0)]},
                system_fingerprint="fp_ollama",
            ),
            chunk({"role": "assistant", "content": "", "tool_calls": [called("c2", index=0)]}),
            chunk({"content": ""}, "tool_calls"),
            chunk(usage=USAGE),
        ],
        provider="ollama",
        message="",
        reason="tool_use",
        calls=[("c1", "add", {"a": 2, "b": 2}), ("c2", "add", {"a": 2, "b": 2})],
    ),
    openai(
        "a server without ids: parallel calls stay apart",
        chat({"content": "", "tool_calls": [called(None), called("")]}, finish="tool_calls"),
        message="",
        reason="tool_use",
        calls=[("call_0", "add", {"a": 2, "b": 2}), ("call_1", "add", {"a": 2, "b": 2})],
    ),
    openai(
        "Azure: filters; an empty first chunk",
        [
            {
                "choices": [],
                "created": 0,
                "id": "",
                "model": "",
                "object": "",
                "prompt_filter_results": [{"prompt_index": 0}],
            },
            chunk({"role": "assistant", "content": "4"}),
            chunk({}, "stop"),
            chunk(usage=USAGE),
        ],
        provider="azure.ai.openai",
        host="azure",
    ),
]

# ------------------------------------------------------------------------------------ OpenAI's Responses

RESPONSES: dict[str, Any] = {"model": "m", "input": "2+2?"}
RESPONSES_USAGE = {
    "input_tokens": 10,
    "input_tokens_details": {"cached_tokens": 4},
    "output_tokens": 5,
    "output_tokens_details": {"reasoning_tokens": 3},
    "total_tokens": 15,
}
SAID = {
    "type": "message",
    "id": "msg_1",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "4", "annotations": []}],
}
THOUGHT = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Easy."}]}
CALLED = {"type": "function_call", "id": "fc_1", "call_id": "call_a", "name": "add", "arguments": ARGUMENTS}


def responses(*output, usage=RESPONSES_USAGE, status="completed", **more):
    whole = {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": status,
        "model": "m",
        "error": None,
        "incomplete_details": None,
        "output": list(output),
        **more,
    }
    return {**whole, "usage": usage}


def event(kind, **more):
    return {"type": f"response.{kind}", "sequence_number": 0, **more}


def response_case(name, response, usage=None, request=RESPONSES, **expected):
    usage = counts(cache_read_tokens=4, reasoning_tokens=3) if usage is None else usage
    return Case(name, "openai_responses", "openai", request, response, usage, **expected)


CREATED = event("created", response=responses(usage=None, status="in_progress"))
OPENAI_RESPONSES = [
    response_case("Responses: an answer", responses(SAID)),
    response_case("Responses: a summary of its thoughts", responses(THOUGHT, SAID), thoughts="Easy."),
    response_case(
        "Responses: an open model's thoughts",
        responses(
            {"type": "reasoning", "id": "rs", "summary": [], "content": [{"type": "reasoning_text", "text": "Easy."}]},
            SAID,
        ),
        thoughts="Easy.",
    ),
    response_case("Responses: a call", responses(THOUGHT, CALLED), message=None, calls=ADD, thoughts="Easy."),
    response_case(
        "Responses: a custom tool and a server's own",
        responses(
            {"type": "web_search_call", "id": "ws", "status": "completed"},
            {"type": "custom_tool_call", "call_id": "c", "name": "run", "input": "ls"},
            SAID,
        ),
        calls=[("c", "run", "ls")],
    ),
    response_case(
        "Responses: a refusal",
        responses({**SAID, "content": [{"type": "refusal", "refusal": "I cannot."}]}),
        message=None,
        refusal="I cannot.",
    ),
    response_case(
        "Responses: cut for its length",
        responses(SAID, status="incomplete", incomplete_details={"reason": "max_output_tokens"}),
        reason="length",
    ),
    response_case(
        "Responses: a conversation of items",
        responses(SAID),
        request={
            "model": "m",
            "instructions": "Add.",
            "input": [
                {"role": "user", "content": [{"type": "input_text", "text": "2+2?"}]},
                CALLED,
                {"type": "function_call_output", "call_id": "call_a", "output": "4"},
            ],
        },
        said=None,
    ),
    response_case(
        "Responses: odd types",
        {
            **responses(7, {"type": "message", "content": "?"}, SAID, {**CALLED, "arguments": {}}),
            "id": 9,
            "reasoning": "?",
            "store": 1,
        },
        calls=[("call_a", "add", {})],
    ),
    response_case(
        "Responses stream: the last event has it all",
        [
            CREATED,
            event("output_item.added", output_index=0, item={**SAID, "content": []}),
            event("output_text.delta", output_index=0, content_index=0, delta="4"),
            event("completed", response=responses(SAID)),
        ],
    ),
    response_case(
        "Responses stream: cut for its length",
        [
            CREATED,
            event("output_text.delta", output_index=0, content_index=0, delta="4"),
            event(
                "incomplete",
                response=responses(SAID, status="incomplete", incomplete_details={"reason": "max_output_tokens"}),
            ),
        ],
        reason="length",
    ),
    response_case(
        "Responses stream: broken off",
        [
            CREATED,
            event("in_progress", response=responses(usage=None, status="in_progress")),
            event("output_item.added", output_index=0, item={**THOUGHT, "summary": []}),
            event(
                "reasoning_summary_part.added",
                output_index=0,
                summary_index=0,
                part={"type": "summary_text", "text": ""},
            ),
            event("reasoning_summary_text.delta", output_index=0, summary_index=0, delta="Ea"),
            event("reasoning_summary_text.delta", output_index=0, summary_index=0, delta="sy."),
            event("output_item.added", output_index=1, item={**SAID, "content": []}),
            event("output_text.delta", output_index=1, content_index=0, delta="The answer is"),
            event("output_item.added", output_index=2, item={**CALLED, "arguments": ""}),
            event("function_call_arguments.delta", output_index=2, delta='{"a":2,'),
        ],
        {},
        message="The answer is",
        thoughts="Easy.",
        reason=None,
        incomplete=True,
        calls=[("call_a", "add", '{"a":2,')],
    ),
]

# -------------------------------------------------------------------------------------------- Anthropic

MESSAGES: dict[str, Any] = {"model": "m", "max_tokens": 64, "messages": [{"role": "user", "content": "2+2?"}]}
TEXT_BLOCK = {"type": "text", "text": "4"}
THINK_BLOCK = {"type": "thinking", "thinking": "Easy.", "signature": "EqQB"}
USE_BLOCK = {"type": "tool_use", "id": "call_a", "name": "add", "input": {"a": 2, "b": 2}}


def message(*content, reason="end_turn", usage=None, **more):
    usage = {"input_tokens": 10, "output_tokens": 5} if usage is None else usage
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": list(content),
        "stop_reason": reason,
        "stop_sequence": None,
        "usage": usage,
        **more,
    }


def anthropic(name, response, usage=None, request=MESSAGES, provider="anthropic", host="anthropic", **expected):
    usage = counts() if usage is None else usage
    return Case(
        name, "anthropic_messages", provider, request, response, usage, system="anthropic", host=host, **expected
    )


BEGUN = {
    "type": "message_start",
    "message": message(
        reason=None,
        usage={"input_tokens": 10, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0, "output_tokens": 1},
    ),
}


def block(index, started, *deltas):
    yield {"type": "content_block_start", "index": index, "content_block": started}
    yield from ({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas)
    yield {"type": "content_block_stop", "index": index}


def ended(reason="end_turn", **usage):
    yield {
        "type": "message_delta",
        "delta": {"stop_reason": reason, "stop_sequence": None},
        "usage": {"output_tokens": 5, **usage},
    }
    yield {"type": "message_stop"}


ANTHROPIC = [
    anthropic("Anthropic: an answer", message(TEXT_BLOCK)),
    anthropic(
        "Anthropic: cached tokens are the prompt's",
        message(
            TEXT_BLOCK,
            usage={
                "input_tokens": 3,
                "cache_read_input_tokens": 1000,
                "cache_creation_input_tokens": 200,
                "output_tokens": 5,
                "cache_creation": {"ephemeral_5m_input_tokens": 200, "ephemeral_1h_input_tokens": 0},
                "service_tier": "standard",
            },
        ),
        counts(1203, 5, 1208, cache_read_tokens=1000, cache_write_tokens=200),
    ),
    anthropic(
        "Anthropic: thinking",
        message(THINK_BLOCK, {"type": "redacted_thinking", "data": "x"}, TEXT_BLOCK),
        request={**MESSAGES, "thinking": {"type": "enabled", "budget_tokens": 1024}},
        thoughts="Easy.",
    ),
    anthropic(
        "Anthropic: thinking tokens",
        message(
            TEXT_BLOCK, usage={"input_tokens": 10, "output_tokens": 5, "output_tokens_details": {"thinking_tokens": 2}}
        ),
        counts(reasoning_tokens=2),
    ),
    anthropic(
        "Anthropic: a call",
        message(TEXT_BLOCK, USE_BLOCK, reason="tool_use"),
        calls=ADD,
        reason="tool_use",
        request={**MESSAGES, "tools": [{"name": "add", "input_schema": {"type": "object"}}]},
    ),
    anthropic(
        "Anthropic: a tool's answer is not the user's",
        message(TEXT_BLOCK),
        said=None,
        request={
            **MESSAGES,
            "messages": [
                *MESSAGES["messages"],
                {"role": "assistant", "content": [USE_BLOCK]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "call_a", "content": "4"}]},
            ],
        },
    ),
    anthropic(
        "Anthropic: a server's tool",
        message(
            {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "2+2"}},
            {"type": "web_search_tool_result", "tool_use_id": "s", "content": []},
            TEXT_BLOCK,
            usage={"input_tokens": 10, "output_tokens": 5, "server_tool_use": {"web_search_requests": 1}},
        ),
    ),
    anthropic("Anthropic: cut for its length", message(TEXT_BLOCK, reason="max_tokens"), reason="length"),
    anthropic("Anthropic: refused", message(reason="refusal"), message=None, reason="refusal"),
    anthropic(
        "Anthropic: on Vertex AI",
        message(TEXT_BLOCK),
        request={"anthropic_version": "vertex-2023-10-16", **MESSAGES},
        provider="gcp.vertex_ai",
        host="google",
        call="vertex_ai",
    ),
    anthropic("Anthropic: on Bedrock", message(TEXT_BLOCK), provider="aws.bedrock", host="aws", call="bedrock"),
    anthropic(
        "Anthropic: odd types",
        {
            **message("?", {"type": "text", "text": 4}, TEXT_BLOCK, {**USE_BLOCK, "id": 8}),
            "container": 5,
            "service_tier": {},
        },
        calls=[("8", "add", {"a": 2, "b": 2})],
    ),
    anthropic(
        "Anthropic stream: text",
        [
            BEGUN,
            {"type": "ping"},
            *block(0, {"type": "text", "text": ""}, {"type": "text_delta", "text": "4"}),
            *ended(),
        ],
        counts(cache_read_tokens=0, cache_write_tokens=0),
    ),
    anthropic(
        "Anthropic stream: thinking and input_json_delta",
        [
            BEGUN,
            *block(
                0,
                {"type": "thinking", "thinking": "", "signature": ""},
                {"type": "thinking_delta", "thinking": "Ea"},
                {"type": "thinking_delta", "thinking": "sy."},
                {"type": "signature_delta", "signature": "EqQB"},
            ),
            *block(
                1,
                {**USE_BLOCK, "input": {}},
                {"type": "input_json_delta", "partial_json": ""},
                {"type": "input_json_delta", "partial_json": '{"a":2,'},
                {"type": "input_json_delta", "partial_json": '"b":2}'},
            ),
            *ended("tool_use"),
        ],
        counts(cache_read_tokens=0, cache_write_tokens=0),
        message=None,
        thoughts="Easy.",
        calls=ADD,
        reason="tool_use",
    ),
    anthropic(
        "Anthropic stream: counts of the end go before those of the start",
        [
            BEGUN,
            *block(0, {"type": "text", "text": ""}, {"type": "text_delta", "text": "4"}),
            *ended(input_tokens=10, cache_read_input_tokens=7, cache_creation_input_tokens=None),
        ],
        counts(17, 5, 22, cache_read_tokens=7, cache_write_tokens=0),
    ),
    anthropic(
        "Anthropic stream: broken off",
        [
            BEGUN,
            *list(
                block(
                    0,
                    {"type": "text", "text": ""},
                    {"type": "text_delta", "text": "The answer"},
                    {"type": "text_delta", "text": " is"},
                )
            )[:-1],
        ],
        counts(10, 1, None, cache_read_tokens=0, cache_write_tokens=0),
        message="The answer is",
        reason=None,
        incomplete=True,
    ),
    anthropic(
        "Anthropic stream: overloaded in a call",
        [
            BEGUN,
            *list(block(0, {**USE_BLOCK, "input": {}}, {"type": "input_json_delta", "partial_json": '{"a":2,'}))[:-1],
            {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
        ],
        counts(10, 1, None, cache_read_tokens=0, cache_write_tokens=0),
        message=None,
        reason=None,
        incomplete=True,
        calls=[("call_a", "add", '{"a":2,')],
    ),
]

# ----------------------------------------------------------------------------------------------- Gemini

CONTENTS: dict[str, Any] = {"model": "m", "contents": [{"role": "user", "parts": [{"text": "2+2?"}]}]}
FOUR = {"text": "4"}
F_CALL = {"functionCall": {"name": "add", "args": {"a": 2, "b": 2}}}
GEMINI_USAGE = {"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 15}


def generated(*parts, usage=GEMINI_USAGE, reason="STOP", **more):
    candidate = {"content": {"role": "model", "parts": list(parts)}, "finishReason": reason, "index": 0}
    candidate = {key: item for key, item in candidate.items() if item is not None}
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "m", "responseId": "r", **more}


def gemini(name, response, usage=None, request=CONTENTS, provider="gcp.gemini", **expected):
    usage = counts() if usage is None else usage
    return Case(
        name,
        "gemini_generate_content",
        provider,
        request,
        response,
        usage,
        system="vertexai",
        host="google",
        **expected,
    )


GEMINI = [
    gemini("Gemini: an answer", generated(FOUR)),
    gemini(
        "Gemini: thoughts are output, a tool's prompt is input",
        generated(
            {"text": "Easy.", "thought": True},
            FOUR,
            usage={
                "promptTokenCount": 10,
                "candidatesTokenCount": 5,
                "thoughtsTokenCount": 30,
                "toolUsePromptTokenCount": 7,
                "totalTokenCount": 52,
            },
        ),
        counts(17, 35, 52, reasoning_tokens=30, tool_use_tokens=7),
        thoughts="Easy.",
    ),
    gemini(
        "Gemini: cached content",
        generated(FOUR, usage={**GEMINI_USAGE, "cachedContentTokenCount": 8}),
        counts(cache_read_tokens=8),
    ),
    gemini(
        "Gemini: a call without an id",
        generated(F_CALL),
        message=None,
        reason="tool_use",
        calls=[("add", "add", {"a": 2, "b": 2})],
    ),
    gemini(
        "Gemini: parallel calls of one function without ids stay apart",
        generated(F_CALL, F_CALL),
        message=None,
        reason="tool_use",
        calls=[("add", "add", {"a": 2, "b": 2}), ("add#2", "add", {"a": 2, "b": 2})],
    ),
    gemini(
        "Gemini: a call without args, and answers in the request",
        generated({"functionCall": {"id": "c", "name": "now"}}),
        message=None,
        reason="tool_use",
        calls=[("c", "now", {})],
        said=None,
        request={
            "contents": [
                *CONTENTS["contents"],
                {"role": "model", "parts": [F_CALL, F_CALL]},
                {
                    "role": "user",
                    "parts": [
                        {"functionResponse": {"name": "add", "response": {"result": 4}}},
                        {"functionResponse": {"name": "add", "response": {"result": 5}}},
                    ],
                },
            ]
        },
    ),
    gemini(
        "Gemini: two candidates",
        {**generated(FOUR), "candidates": [*generated(FOUR)["candidates"], *generated({"text": "four"})["candidates"]]},
        others=["four"],
    ),
    gemini(
        "Gemini: all tokens went into thoughts",
        generated(usage={"promptTokenCount": 10, "thoughtsTokenCount": 64, "totalTokenCount": 74}, reason="MAX_TOKENS"),
        counts(10, 64, 74, reasoning_tokens=64),
        message=None,
        reason="length",
    ),
    gemini(
        "Gemini: a blocked prompt",
        {
            "promptFeedback": {"blockReason": "SAFETY"},
            "modelVersion": "m",
            "usageMetadata": {"promptTokenCount": 10, "totalTokenCount": 10},
        },
        counts(10, None, 10),
        message=None,
        reason="content_filter",
    ),
    gemini("Gemini: a safety stop", generated(FOUR, reason="SAFETY"), reason="content_filter"),
    gemini(
        "Gemini: the SDK's dump",
        {
            "candidates": [
                {
                    "content": {
                        "parts": [{"text": "4", "function_call": None, "inline_data": None, "thought": None}],
                        "role": "model",
                    },
                    "finish_reason": "STOP",
                    "index": 0,
                    "safety_ratings": None,
                }
            ],
            "usage_metadata": {
                "prompt_token_count": 10,
                "candidates_token_count": 5,
                "thoughts_token_count": 30,
                "cached_content_token_count": 4,
                "total_token_count": 45,
                "cache_tokens_details": None,
            },
            "model_version": "m",
            "response_id": "r",
            "prompt_feedback": None,
        },
        counts(10, 35, 45, cache_read_tokens=4, reasoning_tokens=30),
        request={"model": "m", "contents": "2+2?"},
    ),
    gemini("Gemini: on Vertex AI", generated(FOUR), provider="gcp.vertex_ai", call="vertexai"),
    gemini(
        "Gemini: odd parts",
        generated({"text": 7}, "?", {"functionCall": "?"}, FOUR, {"functionCall": {"name": "add", "args": None}}),
        message=[
            {"type": "provider_native", "provider": "gemini", "kind": "unknown", "value": {"text": 7}},
            {"type": "text", "text": "4"},
        ],
        reason="tool_use",
        calls=[("add", "add", {})],
    ),
    gemini(
        "Gemini stream: texts, the last usage counts",
        [
            generated({"text": "The answer"}, usage={"promptTokenCount": 10, "totalTokenCount": 10}, reason=None),
            generated({"text": " is 4"}),
        ],
        message="The answer is 4",
    ),
    gemini(
        "Gemini stream: thoughts and a call",
        [
            generated({"text": "Ea", "thought": True}, reason=None),
            generated({"text": "sy.", "thought": True}, reason=None),
            generated(F_CALL),
        ],
        message=None,
        thoughts="Easy.",
        reason="tool_use",
        calls=[("add", "add", {"a": 2, "b": 2})],
    ),
    gemini(
        "Gemini stream: broken off",
        [
            {
                key: item
                for key, item in generated({"text": "The answer is"}, reason=None).items()
                if key != "usageMetadata"
            }
        ],
        {},
        message="The answer is",
        reason=None,
        incomplete=True,
    ),
]

# --------------------------------------------------------------------------------------------------- OCI

DETAILS: dict[str, Any] = {"compartmentId": "c", "servingMode": {"servingType": "ON_DEMAND", "modelId": "m"}}
GENERIC = {
    **DETAILS,
    "chatRequest": {
        "apiFormat": "GENERIC",
        "messages": [{"role": "USER", "content": [{"type": "TEXT", "text": "2+2?"}]}],
    },
}
COHERE = {**DETAILS, "chatRequest": {"apiFormat": "COHERE", "message": "2+2?", "chatHistory": []}}
OCI_USAGE = {"promptTokens": 10, "completionTokens": 5, "totalTokens": 15}
OCI_TEXT = {"role": "ASSISTANT", "content": [{"type": "TEXT", "text": "4"}]}
OCI_CALL = {"type": "FUNCTION", "id": "call_a", "name": "add", "arguments": ARGUMENTS}


def result(message=OCI_TEXT, reason="stop", usage=OCI_USAGE, **more):
    choice = {"index": 0, "message": message, "finishReason": reason, "logprobs": {}}
    return {
        "modelId": "m",
        "modelVersion": "1",
        "chatResponse": {"apiFormat": "GENERIC", "timeCreated": "t", "choices": [choice], "usage": usage, **more},
    }


def oci(name, response, usage=None, request=GENERIC, **expected):
    usage = counts() if usage is None else usage
    return Case(name, "oci_genai", "oci.genai", request, response, usage, system="oci", host="oracle", **expected)


OCI = [
    oci("OCI: an answer", result()),
    oci(
        "OCI: cached and reasoning tokens",
        result(
            usage={
                **OCI_USAGE,
                "promptTokensDetails": {"cachedTokens": 4},
                "completionTokensDetails": {"reasoningTokens": 3},
            }
        ),
        counts(cache_read_tokens=4, reasoning_tokens=3),
    ),
    oci(
        "OCI: Gemini, all tokens went into thoughts",
        result(
            {"role": "ASSISTANT"},
            "max_tokens",
            {"promptTokens": 7, "totalTokens": 24, "completionTokensDetails": {"reasoningTokens": 17}},
        ),
        counts(7, 17, 24, reasoning_tokens=17),
        message=None,
        reason="length",
    ),
    oci(
        "OCI: calls, one without an id",
        result(
            {
                "role": "ASSISTANT",
                "content": None,
                "toolCalls": [OCI_CALL, {"type": "FUNCTION", "name": "now", "arguments": "{}"}],
            },
            "tool_calls",
        ),
        message=None,
        reason="tool_use",
        calls=[*ADD, ("call_1", "now", {})],
    ),
    oci("OCI: reasoning content", result({**OCI_TEXT, "reasoningContent": "Easy."}), thoughts="Easy."),
    oci(
        "OCI: Cohere",
        {
            "modelId": "m",
            "modelVersion": "1",
            "chatResponse": {
                "apiFormat": "COHERE",
                "text": "4",
                "finishReason": "COMPLETE",
                "usage": OCI_USAGE,
                "chatHistory": [],
            },
        },
        request=COHERE,
    ),
    oci(
        "OCI: Cohere, version 2",
        {
            "modelId": "m",
            "modelVersion": "1",
            "chatResponse": {
                "apiFormat": "COHEREV2",
                "id": "x",
                "message": OCI_TEXT,
                "finishReason": "COMPLETE",
                "usage": OCI_USAGE,
            },
        },
    ),
    oci(
        "OCI: the SDK's dump",
        {
            "model_id": "m",
            "model_version": "1",
            "chat_response": {
                "api_format": "GENERIC",
                "choices": [
                    {
                        "index": 0,
                        "finish_reason": "stop",
                        "message": {
                            "role": "ASSISTANT",
                            "content": [{"type": "TEXT", "text": "4"}],
                            "tool_calls": None,
                        },
                    }
                ],
                "usage": {
                    "prompt_tokens": 10,
                    "completion_tokens": 5,
                    "total_tokens": 15,
                    "prompt_tokens_details": None,
                },
            },
        },
    ),
    oci(
        "OCI stream: usage after the end",
        [
            {
                "index": 0,
                "message": {"role": "ASSISTANT", "content": [{"type": "TEXT", "text": "The answer"}]},
                "pad": "a",
            },
            {"index": 0, "message": {"role": "ASSISTANT", "content": [{"type": "TEXT", "text": " is 4"}]}, "pad": "aa"},
            {"message": {"role": "ASSISTANT", "content": [{"type": "TEXT", "text": ""}]}, "finishReason": "stop"},
            {"usage": OCI_USAGE},
            "[DONE]",
        ],
        message="The answer is 4",
        model=None,
    ),
    oci(
        "OCI stream: a call in deltas",
        [
            {"index": 0, "message": {"role": "ASSISTANT", "toolCalls": [{**OCI_CALL, "arguments": ""}]}},
            {"index": 0, "message": {"role": "ASSISTANT", "toolCalls": [{"type": "FUNCTION", "arguments": ARGUMENTS}]}},
            {"finishReason": "tool_calls"},
            {"usage": OCI_USAGE},
        ],
        message=None,
        reason="tool_use",
        calls=ADD,
        model=None,
    ),
    oci(
        "OCI stream: Cohere",
        [
            {"apiFormat": "COHERE", "text": "The answer"},
            {"apiFormat": "COHERE", "text": " is 4"},
            {
                "apiFormat": "COHERE",
                "text": "The answer is 4",
                "finishReason": "COMPLETE",
                "chatHistory": [],
                "usage": OCI_USAGE,
            },
        ],
        request=COHERE,
        message="The answer is 4",
        model=None,
    ),
    oci(
        "OCI stream: broken off",
        [{"index": 0, "message": {"role": "ASSISTANT", "content": [{"type": "TEXT", "text": "The answer is"}]}}],
        {},
        message="The answer is",
        reason=None,
        incomplete=True,
        model=None,
    ),
]

CASES = [
    *OPENAI_CHAT,
    *OPENAI_CHAT_STREAMS,
    *COMPATIBLE,
    *OPENAI_RESPONSES,
    *ANTHROPIC,
    *GEMINI,
    *OCI,
]
