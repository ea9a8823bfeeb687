"""Every exception that the library raises on purpose, under one base.

Imported by every process and every layer; imports nothing.

Each class has the standard library's parent beside `RelayError`, so that a handler written for the
builtin class goes on working: a bad payload is a `ValueError`, a scope popped twice a `RuntimeError`.
Arguments of the wrong type stay plain `TypeError`s, and a timestamp without a time zone a plain
`ValueError`: they are mistakes in the call, not conditions of the runtime.

    RelayError
    ├── PayloadError        (ValueError)    a payload that is no JSON, with the path to the culprit
    ├── RecordError         (ValueError)    bytes from shared memory that are no event record
    ├── PropagationError    (ValueError)    a parent that came over a wire and is malformed
    ├── ScopeError          (RuntimeError)  a scope popped twice, out of order, or not one's own
    ├── SubscriberError     (RuntimeError)  a name taken, a callable that the dispatcher cannot reach
    ├── FlushError          (RuntimeError)  a flush that would wait for itself
    ├── FlushTimeoutError   (TimeoutError)  a flush whose deadline passed
    └── SessionError        (RuntimeError)  a session that cannot start, attach or go on
        ├── SegmentError                    its shared memory is missing, foreign, damaged or too small
        └── RegistryFullError               no slot is left for another producer thread
"""

__all__ = [
    "FlushError",
    "FlushTimeoutError",
    "PayloadError",
    "PropagationError",
    "RecordError",
    "RegistryFullError",
    "RelayError",
    "ScopeError",
    "SegmentError",
    "SessionError",
    "SubscriberError",
]


class RelayError(Exception):
    """The base of every exception of this library."""


class PayloadError(RelayError, ValueError):
    """A payload that cannot become JSON. The message starts with the path to the culprit.

    Nothing was emitted, and the scope stack is as it was.
    """


class RecordError(RelayError, ValueError):
    """Bytes that passed their checksum but are no event record of this version."""


class PropagationError(RelayError, ValueError):
    """A propagation context or `traceparent` that is malformed, unusable or of an unknown version.

    Nothing of it was applied.
    """


class ScopeError(RelayError, RuntimeError):
    """A scope operation that the state of the scopes does not allow."""


class SubscriberError(RelayError, RuntimeError):
    """A subscriber that cannot be registered."""


class SessionError(RelayError, RuntimeError):
    """A session that cannot be started, attached or used."""


class SegmentError(SessionError):
    """A shared memory segment that is missing, foreign, truncated, too small or of another version."""


class RegistryFullError(SessionError):
    """Every producer slot of the session is taken."""


class FlushError(RelayError, RuntimeError):
    """A flush at a place where it can never return, such as inside a subscriber's callback."""


class FlushTimeoutError(RelayError, TimeoutError):
    """A flush whose deadline passed before everything was delivered. The events are still in the ring."""
