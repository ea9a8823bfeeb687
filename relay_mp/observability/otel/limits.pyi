"""Types of the compiled module limits.pyx; what each name does is said there.

`tests/native/test_stubs.py` compares the two.
"""

def make_limits(max_count: int | None, max_characters: int | None) -> AttributeLimits | None: ...

class AttributeLimits:
    def __init__(self, max_count: int | None = None, max_characters: int | None = None) -> None: ...
