"""What a managed call costs with no middleware: `await tools.execute(...)`, `await llm.execute(...)`, one subscriber.

Both libraries have the same verbs; the tool and the model return at once, so that what is timed is the management.
"""

import importlib
import importlib.util
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from benchmarks.emit import ignore
from benchmarks.harness import Part, Turn, rounds_of
from relay_mp._bench.children import Unavailable
from relay_mp._bench.loops import Work
from relay_mp._bench.payloads import FOUR_FIELDS
from relay_mp._bench.peers import RELAY
from relay_mp._bench.sides import Side

ROUNDS = 60
CALLS = 50
LIBRARIES = {"relay_mp": "relay_mp", "nemo-relay": "nemo_relay"}
CALLS_OF = {
    "tools.execute": "await execute('search', payload, tool)",
    "llm.execute": "await execute('model', request, model)",
}


@contextmanager
def managing(library_name: str, verb: str) -> Iterator[Turn]:
    """A side: `CALLS` awaited calls a round, in one event loop."""
    with ExitStack() as stack:
        try:
            library = importlib.import_module(library_name)
        except ImportError as error:
            raise Unavailable(f"not installed ({error})") from None
        if library_name == "relay_mp":
            stack.enter_context(RELAY.open())
        library.subscribers.register("benchmark", ignore)
        module, _, function = verb.partition(".")
        result = library.ToolExecutionResult(FOUR_FIELDS)
        names: dict[str, Any] = {
            "execute": getattr(importlib.import_module(f"{library_name}.{module}"), function),
            "payload": FOUR_FIELDS,
            "tool": lambda _arguments: result,
            "request": library.LLMRequest({}, {"messages": [{"role": "user", "content": "why?"}]}),
            "model": lambda _request: FOUR_FIELDS,
        }
        work = Work(CALLS_OF[verb], names, lambda _calls: library.subscribers.flush())
        yield stack.enter_context(rounds_of(work, CALLS))
        library.subscribers.deregister("benchmark")


def run(part: Part) -> None:
    for verb in CALLS_OF:
        module = f"relay_mp.{verb.partition('.')[0]}"
        if importlib.util.find_spec(module) is None:
            part.skip(verb, f"{module} does not exist yet")
            continue
        sides = [Side(title, managing, (library, verb)) for title, library in LIBRARIES.items()]
        part.compare(f"managed, {verb}", sides, part.scaled(ROUNDS, 2))
