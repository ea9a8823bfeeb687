"""A small model server with OpenAI's Chat Completions API, which answers from rules.

For the example: it runs in a thread of its parent, on a free port of the loopback, and is asked by the real
`openai` package over real HTTP. It decides as a model would: a question with a rule calls a tool, a tool's
answer is put into words, as a whole or, with `"stream": true`, in server-sent events.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

RULES = (
    (re.compile(r"what is (\d+) \* (\d+)", re.I), "multiply", ("a", "b")),
    (re.compile(r"customer (\w+)", re.I), "look_up_customer", ("name",)),
    (re.compile(r"dig for (\w+)", re.I), "dig", ("thing",)),
)
ENDLESS = "dig"
"""The tool that never finds enough: the rule calls it again and again."""


def decide(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """The assistant's next message."""
    asked = next(message["content"] for message in reversed(messages) if message["role"] == "user")
    last = messages[-1]
    for pattern, tool, names in RULES:
        found = pattern.search(asked)
        if found and (last["role"] == "user" or tool == ENDLESS):
            given = [int(text) if text.isdigit() else text for text in found.groups()]
            return call_tool(tool, dict(zip(names, given, strict=True)), len(messages))
    if last["role"] == "tool":
        return {"role": "assistant", "content": f"I found this: {last['content']}"}
    return {"role": "assistant", "content": "I have no tool for that."}


def call_tool(tool: str, arguments: dict[str, Any], number: int) -> dict[str, Any]:
    function = {"name": tool, "arguments": json.dumps(arguments)}
    call = {"id": f"call_{number}", "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def usage_of(messages: list[dict[str, Any]], message: dict[str, Any]) -> dict[str, int]:
    prompt, completion = len(json.dumps(messages)) // 4, len(json.dumps(message)) // 4
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


class Handler(BaseHTTPRequestHandler):
    """POST /v1/chat/completions, for whoever has the key."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers["Authorization"] != f"Bearer {self.server.key}":
            self.send_json(401, {"error": {"message": "wrong key", "type": "invalid_request_error"}})
        elif self.path != "/v1/chat/completions":
            self.send_json(404, {"error": {"message": f"no {self.path}", "type": "invalid_request_error"}})
        elif body.get("stream"):
            self.send_stream(body)
        else:
            message = decide(body["messages"])
            reason = "tool_calls" if message.get("tool_calls") else "stop"
            self.send_json(200, {
                "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": body["model"],
                "choices": [{"index": 0, "message": message, "finish_reason": reason}],
                "usage": usage_of(body["messages"], message),
            })  # fmt: skip

    def send_json(self, status: int, answer: dict[str, Any]) -> None:
        encoded = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        self.wfile.write(encoded)

    def send_stream(self, body: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        content = decide(body["messages"])["content"] or ""
        deltas = [{"role": "assistant"}, *({"content": word} for word in re.findall(r"\S+\s*", content)), {}]
        for delta in deltas:
            reason = None if delta else "stop"
            self.send_event({
                "id": "chatcmpl-2", "object": "chat.completion.chunk", "created": 1, "model": body["model"],
                "choices": [{"index": 0, "delta": delta, "finish_reason": reason}],
            })  # fmt: skip
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def send_event(self, event: dict[str, Any]) -> None:
        self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())

    def log_message(self, format: str, *arguments: Any) -> None:
        """Quiet."""


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, key: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.key = key


@contextmanager
def serving(key: str) -> Iterator[str]:
    """Serves while the block runs; gives the base URL."""
    server = Server(key)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
