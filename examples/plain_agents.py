"""Two agents in a pool of the standard library, which ask a model through the `openai` client and log what they do.

    relay-mp run -- python examples/plain_agents.py

There is no word of a recorder in this program, and none in its workers: `relay-mp run` shows one tree with the calls of
all processes, their tokens and their cost. The model is a server of this program's own, so that no key is needed. Its
answers say what they cost, as those of a gateway do.
"""

import json
import logging
import multiprocessing
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from openai import OpenAI

QUESTIONS = ["How long is a ring?", "Who reads first?", "What is lost?", "Is it late?"]
WAIT_SECONDS = 60

log = logging.getLogger("plain_agents")
_agent: dict[str, Any] = {}


class Model(BaseHTTPRequestHandler):
    """Answers every question alike."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        message = {"role": "assistant", "content": "It depends."}
        answer = {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": asked["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110, "cost": 0.002},
        }
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        """The agents' own lines are enough."""


@contextmanager
def model() -> Iterator[str]:
    """The server's address while it runs."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Model)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def begin(url: str, both: Any) -> None:
    """What each worker does first."""
    _agent["client"] = OpenAI(base_url=url, api_key="none", max_retries=0)
    _agent["both"] = both


def answer(question: str) -> str:
    """One question, in a worker; the two answer at the same time."""
    _agent["both"].wait(WAIT_SECONDS)
    log.info("asking: %s", question)
    response = _agent["client"].chat.completions.create(
        model="small-1", messages=[{"role": "user", "content": question}]
    )
    return response.choices[0].message.content or ""


def main() -> None:
    """Asks all questions."""
    log.info("%d questions", len(QUESTIONS))
    spawn = multiprocessing.get_context("spawn")
    with model() as url, spawn.Pool(2, begin, (url, spawn.Barrier(2))) as pool:
        for question, said in zip(QUESTIONS, pool.map(answer, QUESTIONS, chunksize=1), strict=True):
            print(f"{question} {said}")


if __name__ == "__main__":
    main()
