"""A scope as text, for a child process to begin under: what a `TaskContext` is to a task.

It goes through the environment and multiprocessing's process config (see _session/inheritance.py), so
what comes in is checked field by field, and refused whole.
"""

import json
from typing import Any

from relay_mp._emit.current import current_scope, stack_uuids
from relay_mp._emit.handle import ScopeHandle, make_foreign_handle
from relay_mp.errors import PropagationError
from relay_mp.types import CATEGORIES

MAX_TEXT_CHARACTERS = 64 * 1024
"""A stack of some 1,900 scopes. Deeper ones carry their innermost scopes only."""

_ENTRY_CHARACTERS = 32
_MAX_DEPTH = (MAX_TEXT_CHARACTERS - 4096) // _ENTRY_CHARACTERS
_MAX_NAME_CHARACTERS = 256


def current_scope_text() -> str:
    """The calling context's scope, for `scope_from_text` in a child."""
    handle = current_scope()
    return json.dumps(
        {
            "stack": stack_uuids(handle)[: 16 * _MAX_DEPTH].hex(),
            "parent": handle._parent.hex() if handle._parent else None,
            "trace": handle._trace.hex() if handle._trace else None,
            "name": handle._name[:_MAX_NAME_CHARACTERS],
            "type": handle._type.code,
        },
        separators=(",", ":"),
    )


def scope_from_text(text: str) -> ScopeHandle:
    """A foreign handle: a parent for what this process emits.

    Raises:
        PropagationError: the text is not one that `current_scope_text` gives.
    """
    try:
        if len(text) > MAX_TEXT_CHARACTERS:
            raise ValueError(f"it has {len(text)} characters, at most {MAX_TEXT_CHARACTERS} are taken")
        fields = json.loads(text)
        stack, name, code = bytes.fromhex(fields["stack"]), fields["name"], fields["type"]
        if not stack or len(stack) % 16 or not isinstance(name, str) or type(code) is not int:
            raise ValueError("a field is of the wrong type or length")
        if not 0 <= code < len(CATEGORIES):
            raise ValueError(f"there is no scope type {code}")
        parent, trace = _uuid(fields["parent"]), _uuid(fields["trace"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise PropagationError(f"an inherited scope is malformed: {error}") from error
    handle = make_foreign_handle(stack[:16], parent, name, code, trace=trace)
    handle._stack = stack
    return handle


def _uuid(field: Any) -> bytes | None:
    if field is None:
        return None
    packed = bytes.fromhex(field)
    if len(packed) != 16:
        raise ValueError(f"a uuid of {len(packed)} bytes")
    return packed
