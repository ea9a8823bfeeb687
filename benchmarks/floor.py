"""What nothing can be faster than: an empty call, the clock, msgpack of the same record, the ring in C, a copy."""

import time
from contextlib import ExitStack

import msgpack

from benchmarks.harness import Part, statement
from benchmarks.native import in_c, program
from relay_mp._bench.children import Unavailable
from relay_mp._bench.payloads import record
from relay_mp._bench.sides import Side

ROUNDS = 120
CALLS = 200
EMPTY = "empty Python function"


def _empty() -> None:
    return None


def in_python(packed: bytes = msgpack.packb(record())) -> list[Side]:
    """The sides that need no compiler."""
    return [
        Side(EMPTY, statement, ("empty()", CALLS, {"empty": _empty})),
        Side("time.time_ns", statement, ("time_ns()", CALLS, {"time_ns": time.time_ns})),
        Side("msgpack.packb", statement, ("packb(record)", CALLS, {"packb": msgpack.packb, "record": record()})),
        Side("msgpack.unpackb", statement, ("unpackb(packed)", CALLS, {"unpackb": msgpack.unpackb, "packed": packed})),
    ]


def run(part: Part) -> None:
    sides, record_bytes = in_python(), len(msgpack.packb(record()))
    with ExitStack() as stack:
        try:
            binary = stack.enter_context(program())
        except Unavailable as reason:
            part.skip("the ring in C", reason)
        else:
            sides += [
                Side("claim, copy, commit in C", in_c, (binary, "write", record_bytes, CALLS)),
                Side("memcpy of the record in C", in_c, (binary, "memcpy", record_bytes, CALLS)),
            ]
        part.compare("floor", sides, part.scaled(ROUNDS, 2), record_bytes=record_bytes)
