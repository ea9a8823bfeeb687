"""Agents in a worker pool ask a model and run tools; middleware redacts what events show, and sets a budget.

    parent                       workers                                dispatcher
    chat_server (HTTP)  <------    llm.execute      openai client
    guards (redact, budget)        tools.execute    the tool it asked for   --events-->  AtofExporter
    pool.map  --question-->        llm.stream_execute   the answer, in chunks

The parent registers middleware by name, once; it holds in every worker, whatever the start method. The
sanitizers take secrets out of events in the process that emits them: what the model and the tools get is
not changed, and what enters shared memory and the file has no secret. The budget ends a run that would go
on for ever. It needs the `openai` package; the server is its own.

    python examples/tools_and_llm.py --start-method forkserver
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import chat_server
import guards
import trace_tree

import relay_mp
from relay_mp import LLMRequest, ScopeType, ToolExecutionResult, llm, pools, scope, tools
from relay_mp.codecs import OpenAIChatCodec

try:
    import openai
except ImportError:
    raise SystemExit("this example asks its model with the openai package: pip install 'relay_mp[openai]'") from None

MODEL = "rules-1"
SECRETS = ("sk-local-0123456789", "4111 1111 1111 1111", "ada@example.com")
QUESTIONS = (
    "What is 23 * 19?",
    "Write to ada@example.com: which card does customer Ada pay with?",
    "Dig for gold!",
    "Who are you?",
)
MAX_TURNS = 20

# --- tools ----------------------------------------------------------------------------------------


def multiply(a: int, b: int) -> dict[str, Any]:
    return {"product": a * b}


def look_up_customer(name: str) -> dict[str, Any]:
    return {"name": name, "card": "4111 1111 1111 1111", "mail": f"{name.lower()}@example.com"}


def dig(thing: str) -> dict[str, Any]:
    return {"found": f"no {thing} yet, dig on"}


TOOLS = {tool.__name__: tool for tool in (multiply, look_up_customer, dig)}

# --- in the workers -------------------------------------------------------------------------------


def run_agent(task: tuple[str, str, str]) -> str:
    """One agent run: ask the model, run the tools that it calls, stream its answer."""
    question, url, key = task
    inputs: Any = {"question": question}
    with scope.scope("agent", ScopeType.Agent, input=inputs, metadata={"pid": os.getpid()}):
        return asyncio.run(converse(question, url, key))


async def converse(question: str, url: str, key: str) -> str:
    guards.calls_made.set(0)
    messages: list[Any] = [{"role": "user", "content": question}]
    async with openai.AsyncOpenAI(base_url=url, api_key=key, max_retries=0) as client:
        for _ in range(MAX_TURNS):
            try:
                message = await ask(client, messages)
            except relay_mp.RejectedError as rejection:
                scope.event("gave-up", data={"because": str(rejection)})
                return "I gave up."
            if not message.get("tool_calls"):
                return await stream_answer(client, messages)
            messages.append(message)
            messages += [await run_tool(call) for call in message["tool_calls"]]
    return "I had too many turns."


def request_of(client: openai.AsyncOpenAI, messages: list[Any]) -> LLMRequest:
    """With the headers as they are sent: the credentials among them never enter an event."""
    return LLMRequest({"Authorization": f"Bearer {client.api_key}"}, {"model": MODEL, "messages": messages})


async def ask(client: openai.AsyncOpenAI, messages: list[Any]) -> dict[str, Any]:
    async def send(request: LLMRequest) -> dict[str, Any]:
        guards.calls_made.set(guards.calls_made.get() + 1)
        headers: Any = request.headers
        completion = await client.chat.completions.create(**request.content, extra_headers=headers)
        return completion.model_dump(mode="json", exclude_unset=True)

    codec = OpenAIChatCodec()
    request = request_of(client, messages)
    response = await llm.execute("local", request, send, model_name=MODEL, codec=codec, response_codec=codec)
    message: dict[str, Any] = response["choices"][0]["message"]
    return message


async def run_tool(call: dict[str, Any]) -> dict[str, Any]:
    name, arguments = call["function"]["name"], json.loads(call["function"]["arguments"])

    def run(given: dict[str, Any]) -> ToolExecutionResult[Any]:
        return ToolExecutionResult(TOOLS[name](**given))

    done = await tools.execute(name, arguments, run, tool_call_id=call["id"])
    return {"role": "tool", "tool_call_id": call["id"], "content": json.dumps(done.result)}


async def stream_answer(client: openai.AsyncOpenAI, messages: list[Any]) -> str:
    async def send(request: LLMRequest) -> AsyncIterator[Any]:
        headers: Any = request.headers
        chunks: Any = await client.chat.completions.create(**request.content, extra_headers=headers, stream=True)
        async for chunk in chunks:
            yield chunk.model_dump(mode="json", exclude_unset=True)

    said: list[str] = []

    def collect(chunk: Any) -> None:
        said.extend(choice["delta"].get("content") or "" for choice in chunk["choices"])

    def finish() -> dict[str, Any]:
        message = {"role": "assistant", "content": "".join(said)}
        return {"model": MODEL, "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}

    codec = OpenAIChatCodec()
    request = request_of(client, messages)
    stream = await llm.stream_execute(
        "local", request, send, collect, finish, model_name=MODEL, codec=codec, response_codec=codec
    )
    async for _ in stream:
        pass
    return "".join(said)


# --- in the parent --------------------------------------------------------------------------------


def main() -> None:
    options = parse_arguments()
    config = relay_mp.AtofExporterConfig()
    config.output_directory = str(options.output or tempfile.mkdtemp(prefix="relay-mp-"))
    context = multiprocessing.get_context(options.start_method)
    with chat_server.serving(SECRETS[0]) as url, relay_mp.session():
        exporter = relay_mp.AtofExporter(config)
        exporter.register("file")
        guards.register()
        tasks = [(question, url, SECRETS[0]) for question in QUESTIONS]
        with (
            scope.scope("answer-questions", ScopeType.Function, metadata={"pid": os.getpid()}),
            pools.ProcessPoolExecutor(options.workers, mp_context=context) as pool,
        ):
            answers = list(pool.map(run_agent, tasks))
        result = relay_mp.subscribers.flush()
        exporter.shutdown()
    report(answers, exporter.path, result)


def report(answers: list[str], path: str, result: relay_mp.FlushResult) -> None:
    for question, answer in zip(QUESTIONS, answers, strict=True):
        print(f"{question}\n    {answer}")
    print("\nThe tree, from the file")
    for root in trace_tree.build(trace_tree.load(path)):
        print(*trace_tree.render(root), sep="\n")
    text = Path(path).read_text(encoding="utf-8")
    found = sum(text.count(secret) for secret in SECRETS)
    print(f"\nLost {result.lost}. Secrets in the file: {found}; texts redacted: {text.count('[redacted]')}")
    print(f"File: {path}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 2, metavar="N")
    parser.add_argument(
        "--start-method",
        choices=multiprocessing.get_all_start_methods(),
        default=multiprocessing.get_context().get_start_method(),
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="where the JSONL file goes; a new temporary directory if left out",
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
