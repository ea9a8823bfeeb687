"""Types of the compiled module batches.pyx; what each name does is said there.

`tests/native/test_stubs.py` compares the two.
"""

from collections.abc import Callable
from typing import Any

FRAME_HEAD_BYTES: int

def frame(kind: int, body: bytes) -> bytes: ...
def size_of(events: list[Any]) -> int: ...
def pack(kind: int, events: list[Any]) -> bytes: ...
def unpack(body: bytes, make: Callable[[bytes, int, int, bool], Any]) -> list[Any]: ...
