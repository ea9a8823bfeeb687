"""Types of the compiled module payloads.pyx; what each name does is said there.

`tests/native/test_stubs.py` compares the two.
"""

from relay_mp.types import Json

def read_payload(packed: bytes) -> Json: ...
