"""Types of the compiled module encoder.pyx; what each name does is said there.

`tests/native/test_stubs.py` compares the two.
"""

from typing import Any

class Packed:
    def __init__(self, msgpack: bytes) -> None: ...
    @property
    def msgpack(self) -> bytes: ...

def pack(value: Any) -> bytes: ...
