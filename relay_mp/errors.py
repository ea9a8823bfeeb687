"""Every exception that the library raises on purpose, under one base.

Imported by every process and every layer; imports nothing.

Each class has the standard library's parent beside `RelayError`, so that a handler written for the
builtin class goes on working: a bad payload is a `ValueError`, a scope popped twice a `RuntimeError`.
Arguments of the wrong type stay plain `TypeError`s, and a timestamp without a time zone a plain
`ValueError`: they are mistakes in the call, not conditions of the runtime.

    RelayError
    ├── PayloadError        (ValueError)    a payload that is not JSON, with the path to the culprit
    ├── RecordError         (ValueError)    bytes from shared memory that are not an event record
    ├── PluginConfigError   (ValueError)    a plugin configuration that has not the shape of one
    ├── PropagationError    (ValueError)    a parent that came over a wire and is malformed
    ├── ScopeError          (RuntimeError)  a scope popped twice, out of order, or not one's own
    ├── CodecError          (RuntimeError)  a provider's request or response that a codec cannot translate
    ├── SubscriberError     (RuntimeError)  a name taken, a callable that the dispatcher cannot reach
    ├── MiddlewareError     (RuntimeError)  a name taken, a named callable that cannot be had
    ├── RejectedError       (RuntimeError)  a managed call that a guardrail has rejected
    ├── CallbackError       (RuntimeError)  a callback of a managed call that raised or returned rubbish
    ├── PluginError         (RuntimeError)  plugins that cannot be registered, or activated
    ├── FlushError          (RuntimeError)  a flush that would wait for itself
    ├── FlushTimeoutError   (TimeoutError)  a flush whose deadline passed
    └── SessionError        (RuntimeError)  a session that cannot start, attach or go on
        ├── SegmentError                    its shared memory is missing, foreign, damaged or too small
        ├── ConfigurationError              middleware that cannot be shared with workers, or is damaged
        └── RegistryFullError               no slot is left for another producer thread
"""

__all__ = [
    "CallbackError",
    "CodecError",
    "ConfigurationError",
    "FileTakenError",
    "FlushError",
    "FlushTimeoutError",
    "MiddlewareError",
    "PayloadError",
    "PluginConfigError",
    "PluginError",
    "PropagationError",
    "RecordError",
    "RegistryFullError",
    "RejectedError",
    "RelayError",
    "ScopeError",
    "SegmentError",
    "SessionError",
    "SubscriberError",
]


def described_type(value: object) -> str:
    """A value's type, as a message says it: "None", "an int", "a dict"."""
    if value is None:
        return "None"
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeioAEIO' else 'a'} {name}"


class RelayError(Exception):
    """The base of every exception of this library."""


class PayloadError(RelayError, ValueError):
    """A payload that cannot become JSON. The message starts with the path to the culprit.

    Nothing was emitted, and the scope stack is as it was.
    """


class RecordError(RelayError, ValueError):
    """Bytes that passed their checksum but are not an event record of this version."""


class PropagationError(RelayError, ValueError):
    """A propagation context or `traceparent` that is malformed, unusable or of an unknown version.

    Nothing of it was applied.
    """


class CodecError(RelayError, RuntimeError):
    """A request or response that is not one of the codec's API, or a change that the API cannot express.

    The payload is as it was.
    """


class ScopeError(RelayError, RuntimeError):
    """A scope operation that the state of the scopes does not allow."""


class PluginConfigError(RelayError, ValueError):
    """A plugin configuration that has not the shape of one. The message starts with the path to the culprit."""


class PluginError(RelayError, RuntimeError):
    """A plugin, or a plugin configuration, that cannot be registered, found or activated. All is as before."""


class FileTakenError(RelayError, FileExistsError):
    """A file that another process or exporter writes. The message names the process."""


class SubscriberError(RelayError, RuntimeError):
    """A subscriber that cannot be registered."""


class SessionError(RelayError, RuntimeError):
    """A session that cannot be started, attached or used."""


class SegmentError(SessionError):
    """A shared memory segment that is missing, foreign, truncated, too small or of another version."""


class ConfigurationError(SessionError):
    """The middleware and plugins that a session's workers share do not fit in their place, or are damaged there."""


class RegistryFullError(SessionError):
    """Every producer slot of the session is taken."""


class MiddlewareError(RelayError, RuntimeError):
    """Middleware that cannot be registered, or cannot run where it was asked for."""


class RejectedError(RelayError, RuntimeError):
    """A managed call that a guardrail has rejected: the tool or the provider was not called.

    Attributes:
        guardrail: the guardrail's name.
        reason: what it gave as the reason.
    """

    def __init__(self, guardrail: str, reason: str) -> None:
        super().__init__(guardrail, reason)
        self.guardrail = guardrail
        self.reason = reason

    def __str__(self) -> str:
        return f"guardrail {self.guardrail!r} rejected the call: {self.reason}"


class CallbackError(RelayError, RuntimeError):
    """A managed call failed because its callable or middleware returned a value that the call cannot use.

    What the callable or middleware raises is not this: it passes unchanged.

    Attributes:
        error_type: "invalid_argument" for a return value of the wrong type, else "internal_error"; the
            end event's metadata has it as `error.type`.
    """

    def __init__(self, message: str, error_type: str = "internal_error") -> None:
        super().__init__(message, error_type)
        self.error_type = error_type

    def __str__(self) -> str:
        return str(self.args[0])


class FlushError(RelayError, RuntimeError):
    """A flush at a place where it can never return, such as inside a subscriber's callback."""


class FlushTimeoutError(RelayError, TimeoutError):
    """A flush whose deadline passed before everything was delivered. The events are still in the ring."""
