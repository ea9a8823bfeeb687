"""The `openai` client against a server of the test's own: what is recorded, and what the program gets."""

import asyncio
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import openai
import pytest

import relay_mp
from relay_mp import subscribers
from relay_mp.integrations import openai as integration

USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
CHAT = {
    "id": "c1", "object": "chat.completion", "created": 1, "model": "m-2",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
    "usage": USAGE,
}  # fmt: skip
RESPONSE = {
    "id": "r1", "object": "response", "created_at": 1, "model": "m-2", "status": "completed",
    "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "error": None,
    "incomplete_details": None, "instructions": None, "metadata": {}, "output": [{
        "type": "message", "id": "o1", "role": "assistant", "status": "completed",
        "content": [{"type": "output_text", "text": "Hello", "annotations": []}],
    }],
    "usage": {"input_tokens": 9, "output_tokens": 3, "total_tokens": 12,
              "input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}},
}  # fmt: skip
PARTS = [
    {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "Hel"}}]},
    {"choices": [{"index": 0, "delta": {"content": "lo"}, "finish_reason": "stop"}]},
    {"choices": [], "usage": USAGE},
]
MESSAGES = [{"role": "user", "content": "Hi"}]


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if asked["model"] == "refused":
            self.answer(400, "application/json", json.dumps({"error": {"message": "no"}}))
        elif self.path == "/v1/responses":
            self.answer(200, "application/json", json.dumps(RESPONSE))
        elif asked.get("stream"):
            shared = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m-2"}
            lines = [f"data: {json.dumps({**shared, **part})}\n\n" for part in PARTS]
            self.answer(200, "text/event-stream", "".join(lines) + "data: [DONE]\n\n")
        else:
            self.answer(200, "application/json", json.dumps(CHAT))

    def answer(self, status, kind, body):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def url():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def events():
    found = []
    with relay_mp.session():
        subscribers.register("list", found.append)
        integration.instrument()
        yield lambda: (subscribers.flush(), found)[1]
        integration.uninstrument()


def client(url):
    return openai.OpenAI(base_url=url, api_key="secret-key", max_retries=0)


def ends(events):
    return [event for event in events() if event.kind == "scope" and event.scope_category == "end"]


def tokens(event):
    usage = event.annotated_response.usage
    return usage["prompt_tokens"], usage["completion_tokens"]


def test_a_chat_completion(url, events):
    with client(url) as asked:
        response = asked.chat.completions.create(model="m", messages=MESSAGES)
    assert type(response) is openai.types.chat.ChatCompletion
    start, end = events()
    assert (start.name, start.category, start.category_profile["model_name"]) == ("openai", "llm", "m")
    assert start.data["content"] == {"model": "m", "messages": MESSAGES}
    assert end.data["choices"][0]["message"]["content"] == "Hello"
    assert tokens(end) == (9, 3)
    assert "secret-key" not in start.to_json() + end.to_json()


def test_a_response(url, events):
    with client(url) as asked:
        assert asked.responses.create(model="m", input="Hi").output_text == "Hello"
    assert [tokens(end) for end in ends(events)] == [(9, 3)]


def test_a_stream_is_the_program_s(url, events):
    with client(url) as asked:
        stream = asked.chat.completions.create(model="m", messages=MESSAGES, stream=True)
        assert isinstance(stream, openai.Stream)
        assert stream.response.status_code == 200
        with stream:
            said = [choice.delta.content for chunk in stream for choice in chunk.choices]
    assert said == ["Hel", "lo"]
    (end,) = ends(events)
    assert end.data["choices"][0]["message"]["content"] == "Hello"
    assert tokens(end) == (9, 3)


def test_a_stream_that_is_left_early_ends_the_call(url, events):
    with client(url) as asked, asked.chat.completions.create(model="m", messages=MESSAGES, stream=True) as stream:
        assert next(stream).choices[0].delta.content == "Hel"
    (end,) = ends(events)
    assert end.data["choices"][0]["message"]["content"] == "Hel"


def test_asynchronous_clients(url, events):
    async def main():
        async with openai.AsyncOpenAI(base_url=url, api_key="k", max_retries=0) as asked:
            await asked.chat.completions.create(model="m", messages=MESSAGES)
            await asked.responses.create(model="m", input="Hi")
            stream = await asked.chat.completions.create(model="m", messages=MESSAGES, stream=True)
            assert isinstance(stream, openai.AsyncStream)
            async with stream:
                return [choice.delta.content async for chunk in stream for choice in chunk.choices]

    assert asyncio.run(main()) == ["Hel", "lo"]
    assert [tokens(end) for end in ends(events)] == [(9, 3)] * 3


def test_the_client_s_error_is_the_program_s(url, events):
    with client(url) as asked, pytest.raises(openai.BadRequestError):
        asked.chat.completions.create(model="refused", messages=MESSAGES)
    (end,) = ends(events)
    assert end.metadata["exception.type"].endswith("BadRequestError")


def test_a_raw_response_is_left_alone(url, events):
    with client(url) as asked:
        raw = asked.chat.completions.with_raw_response.create(model="m", messages=MESSAGES)
        assert raw.parse().choices[0].message.content == "Hello"
    assert events() == []


def test_it_is_put_in_once_and_taken_back():
    create = openai.resources.chat.Completions.create
    integration.instrument()
    replaced = openai.resources.chat.Completions.create
    integration.instrument()
    assert openai.resources.chat.Completions.create is replaced is not create
    integration.uninstrument()
    integration.uninstrument()
    assert openai.resources.chat.Completions.create is create
