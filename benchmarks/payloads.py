"""What events carry: the same objects for every side. Without NumPy, whose import would be all that callgrind sees."""

from typing import Any

from relay_mp._bench.payloads import FOUR_FIELDS

_NESTED = {
    "model": "gpt-x",
    "messages": [
        {"role": role, "content": f"{role}, number {number}: " + "lorem ipsum dolor sit amet " * 2, "tokens": number}
        for number, role in enumerate(["system", "user", "assistant", "tool"] * 4)
    ],
    "options": {"temperature": 0.2, "top_p": 0.9, "stop": ["\n", "END"], "seed": 7},
}

PLAIN: dict[str, Any] = {
    "none": None,
    "4 fields": FOUR_FIELDS,
    "2 KiB nested": _NESTED,
    "64 KiB text": {"text": "x" * 65536},
}
SMALL = "4 fields"

CALLS_A_ROUND = {"none": 200, "4 fields": 200, "2 KiB nested": 100, "64 KiB text": 20, "NumPy": 100}
"""Fewer than fill a ring of the default size or a peer's queue: a round measures emitting, not waiting for space."""


# A turn of an agent: what it asks an LLM, which answers that it wants a tool, and what that tool gives.
LLM_REQUEST: dict[str, Any] = {
    "model": "m-1",
    "messages": [
        {"role": "system", "content": "You answer questions about Python's standard library."},
        {"role": "user", "content": "How do I read a file line by line?"},
    ],
    "temperature": 0.2,
}
LLM_RESPONSE: dict[str, Any] = {
    "id": "r-1",
    "model": "m-1",
    "choices": [
        {
            "message": {
                "role": "assistant",
                "content": "Let me look that up.",
                "tool_calls": [
                    {
                        "id": "call-1",
                        "type": "function",
                        "function": {"name": "search", "arguments": '{"query":"read lines"}'},
                    }
                ],
            }
        }
    ],
    "usage": {"prompt_tokens": 120, "completion_tokens": 30},
}
TOOL_ARGUMENTS = {"query": "read lines"}
TOOL_RESULT = {"hits": [1, 2, 3]}
