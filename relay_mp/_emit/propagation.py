"""A scope's identity over a wire: `PropagationContext` as JSON, and W3C `traceparent`.

Out of a process goes the current scope; in another one, of any kind and on any machine, it becomes the
parent of what that one pushes:

    capture_propagation_context() ─▶ to_json() ─ ─ wire ─ ─▶ from_json() ─▶ create_scope_stack_from_
                                                                              propagation() ─▶ use_...
    capture_traceparent() ─ ─ ─ ─ ─ wire ─ ─ ─▶ from_traceparent() ─▶ (the same)

Workers of one session need none of this: `relay_mp._emit.context.capture` carries more, by itself.

What comes in is validated before anything is made of it, and fails with one exception: a
`PropagationError`, or a `TypeError` for an argument of the wrong type. A scope that came over a wire is
a parent only: nothing here ever emits events for it.

How a `traceparent` and Relay's uuids map onto each other: the trace id is the root's uuid, all 32
digits; the span id is the last 16 digits of the scope's uuid, which are random in a UUIDv7. Half of the
parent's uuid is therefore lost on this way. `from_traceparent` puts the first half of the trace id in
its place. For the outermost scope that gives its very uuid. For any other it gives a stand-in whose last
16 digits, all that OpenTelemetry exporters look at, are right, and which is the same in every receiver.
"""

import json
import re
from typing import Any, Final

from relay_mp._emit.arguments import parse_uuid, shown
from relay_mp._emit.context import ScopeStack
from relay_mp._emit.current import current_scope
from relay_mp._emit.handle import make_foreign_handle
from relay_mp.errors import PropagationError, ScopeError, described_type
from relay_mp.events import REMOTE_MARK, canonical_uuid
from relay_mp.types import ScopeType

__all__ = [
    "MAX_JSON_CHARACTERS",
    "MAX_TRACEPARENT_CHARACTERS",
    "VERSION",
    "PropagationContext",
    "capture_propagation_context",
    "capture_propagation_context_with_root",
    "capture_traceparent",
    "create_scope_stack_from_propagation",
    "format_traceparent",
]

VERSION = 1

MAX_JSON_CHARACTERS = 8192
"""A context is 140 characters; the rest is room for keys of versions to come."""

MAX_TRACEPARENT_CHARACTERS = 512
"""Version 00 has 55; later versions may append fields."""

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)


class PropagationContext:
    """A scope's identity, to be sent anywhere. It does not change; equal contexts compare equal.

    Args:
        parent_uuid: the scope that becomes the parent.
        root_uuid: the trace that it belongs to, where that is known; `to_traceparent` needs it.
        version: of the wire format: 1.

    Raises:
        PropagationError: a uuid is malformed or nil, or the version is another.
        TypeError: an argument is not of its type.
        OverflowError: the version is negative.
    """

    __slots__ = ("_parent", "_root")

    def __init__(self, parent_uuid: str, root_uuid: str | None = None, version: int = VERSION) -> None:
        if not isinstance(version, int):
            raise TypeError(f"version is {described_type(version)}; expected int")
        if version < 0:
            raise OverflowError(f"version is {version}; expected {VERSION}")
        if version != VERSION:
            raise PropagationError(f"version of the propagation context is {version}; expected {VERSION}")
        self._parent: Final = parse_uuid(parent_uuid, "parent_uuid")
        if not any(self._parent[8:]):
            raise PropagationError(f"parent_uuid is {shown(parent_uuid)}; its last 16 digits make no span id")
        self._root: Final = None if root_uuid is None else parse_uuid(root_uuid, "root_uuid")

    @property
    def version(self) -> int:
        """The wire format's version."""
        return VERSION

    @property
    def parent_uuid(self) -> str:
        """The scope that becomes the parent."""
        return canonical_uuid(self._parent)

    @property
    def root_uuid(self) -> str | None:
        """The trace it belongs to, if known."""
        return None if self._root is None else canonical_uuid(self._root)

    def to_json(self) -> str:
        """The wire format: one line of ASCII. A root that is not known is left out."""
        root = "" if self._root is None else f'"root_uuid":"{canonical_uuid(self._root)}",'
        return f'{{"version":{VERSION},{root}"parent_uuid":"{canonical_uuid(self._parent)}"}}'

    @staticmethod
    def from_json(value: str) -> "PropagationContext":
        """The context that `to_json` wrote. Keys that this version does not know are ignored.

        Args:
            value: a JSON object of at most `MAX_JSON_CHARACTERS`.

        Raises:
            PropagationError: it is malformed, too long, or of another version.
            TypeError: it is not a str.
        """
        fields = _parse_json_object(value)
        version = fields.get("version")
        if type(version) is not int or not 0 <= version < 1 << 16:
            found = shown(str(version)) if "version" in fields else "missing"
            raise PropagationError(f"version is {found}; expected {VERSION}")
        parent, root = fields.get("parent_uuid"), fields.get("root_uuid")
        if not isinstance(parent, str):
            raise PropagationError(f"parent_uuid is {shown(repr(parent))}; expected a UUID as a string")
        if root is not None and not isinstance(root, str):
            raise PropagationError(f"root_uuid is {shown(repr(root))}; expected a UUID as a string, or null")
        return PropagationContext(parent, root, version)

    def to_traceparent(self) -> str:
        """The context as a W3C `traceparent`, version 00, sampled.

        Raises:
            PropagationError: the root is not known, so that there is no trace id.
        """
        if self._root is None:
            raise PropagationError(
                "a context without root_uuid has no trace id; use capture_traceparent(), or "
                "capture_propagation_context_with_root(root_uuid)"
            )
        return format_traceparent(self._root, self._parent)

    @staticmethod
    def from_traceparent(value: str) -> "PropagationContext":
        """The context that a W3C `traceparent` header names, by whomever it was written.

        The root's uuid is the trace id. The parent's ends in the span id; its first half, which the
        header does not carry, is the trace id's: see the module. Source: W3C Trace Context, level 1,
        section 3.2; versions after 00 are read as the section asks, by their first four fields.

        Args:
            value: the header's value, at most `MAX_TRACEPARENT_CHARACTERS`, lower case.

        Raises:
            PropagationError: it is malformed, of version ff, or its trace or span id is unusable.
            TypeError: it is not a str.
        """
        if not isinstance(value, str):
            raise TypeError(f"traceparent is {described_type(value)}; expected str")
        match = _TRACEPARENT.fullmatch(value) if len(value) <= MAX_TRACEPARENT_CHARACTERS else None
        if match is None or match[1] == "ff" or (match[1] == "00" and match[5] is not None):
            raise PropagationError(
                f"traceparent is {shown(value)}; expected 00-<32 digits>-<16 digits>-<2 digits>, lower-case hexadecimal"
            )
        trace_id, span_id = match[2], match[3]
        if int(trace_id, 16) == 0 or int(span_id, 16) == 0:
            raise PropagationError(f"traceparent is {shown(value)}; its trace id or span id is all zero")
        return PropagationContext(trace_id[:16] + span_id, trace_id)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PropagationContext):
            return NotImplemented
        return (self._parent, self._root) == (other._parent, other._root)

    def __hash__(self) -> int:
        return hash((self._parent, self._root))

    def __repr__(self) -> str:
        return f"PropagationContext(parent_uuid={self.parent_uuid!r}, root_uuid={self.root_uuid!r})"

    def __reduce__(self) -> tuple[type["PropagationContext"], tuple[str, str | None]]:
        return PropagationContext, (self.parent_uuid, self.root_uuid)


_KNOWN_KEYS = frozenset({"version", "parent_uuid", "root_uuid"})


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        keys = [key for key, _ in pairs if key in _KNOWN_KEYS]
        if len(keys) != len(set(keys)):
            raise PropagationError("propagation JSON names a key twice; which one is meant?")
    return fields


def _refuse_constant(name: str) -> Any:
    raise PropagationError(f"propagation JSON holds {name}; JSON has no such number")


def _parse_json_object(value: object) -> dict[str, Any]:
    if not isinstance(value, str):
        raise TypeError(f"propagation JSON is {described_type(value)}; expected str")
    if len(value) > MAX_JSON_CHARACTERS:
        raise PropagationError(f"propagation JSON has {len(value)} characters; expected at most {MAX_JSON_CHARACTERS}")
    try:
        fields = json.loads(value, object_pairs_hook=_refuse_duplicates, parse_constant=_refuse_constant)
    except PropagationError:
        raise
    except (ValueError, RecursionError) as error:
        raise PropagationError(f"propagation JSON {shown(value)} is malformed: {error}") from None
    if not isinstance(fields, dict):
        raise PropagationError(f"propagation JSON is {shown(value)}; expected an object")
    return fields


def format_traceparent(trace: bytes, parent: bytes) -> str:
    """A W3C `traceparent`: sampled, of a trace, with a scope's or call's last 8 bytes as the span."""
    return f"00-{trace.hex()}-{parent[8:].hex()}-01"


def capture_propagation_context() -> PropagationContext:
    """The current scope, without a root; the thread's root where no scope is open."""
    return PropagationContext(current_scope().uuid)


def capture_propagation_context_with_root(root_uuid: str | None) -> PropagationContext:
    """The current scope, as part of the trace that the caller names.

    Args:
        root_uuid: the trace's uuid, None for none.

    Raises:
        PropagationError: it is malformed or nil.
        TypeError: it is neither str nor None.
    """
    return PropagationContext(current_scope().uuid, root_uuid)


def capture_traceparent() -> str:
    """The current scope as a W3C `traceparent`; the trace is named by its outermost scope.

    Raises:
        ScopeError: no scope is open that has a trace: a root emits no events. Push one first.
    """
    handle = current_scope()
    if handle._trace is None:
        raise ScopeError(f"{handle._name!r} belongs to no trace, and no scope is open; push one first")
    return format_traceparent(handle._trace, handle._uuid)


def create_scope_stack_from_propagation(context: PropagationContext) -> ScopeStack:
    """A stack whose next scope is a child of the scope that the context names. For `use_scope_stack`.

    On top is a handle named `propagated-parent`, of type Unknown; where the context has no root, or is
    itself the root, that is the stack's root, `propagated-root`, of type Agent. Neither has events here.

    Args:
        context: from the wire.

    Raises:
        TypeError: it is not a PropagationContext.
    """
    if not isinstance(context, PropagationContext):
        raise TypeError(f"context is {described_type(context)}; expected PropagationContext")
    parent, trace = context._parent, context._root
    root = make_foreign_handle(
        parent if trace is None else trace, None, "propagated-root", ScopeType.Agent.code, trace=trace
    )
    if trace is not None:
        root._stack = trace + REMOTE_MARK  # so that what is emitted under it tells the trace: see events.py
    if trace is None or trace == parent:
        return ScopeStack(root, root)
    top = make_foreign_handle(parent, trace, "propagated-parent", ScopeType.Unknown.code, trace=trace, outer=root)
    return ScopeStack(root, top)
