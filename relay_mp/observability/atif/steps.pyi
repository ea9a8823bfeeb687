"""Types of the compiled module steps.pyx; what each name does is said there.

`tests/native/test_stubs.py` compares the two.
"""

from typing import Any

class TrajectoryBuilder:
    def __init__(self, root_uuid: str | None) -> None: ...
    def add(self, records: list[bytes]) -> None: ...
    def build(self, info: dict[str, Any], session_id: str) -> dict[str, Any]: ...
