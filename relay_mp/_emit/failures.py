"""What an end event says of the exception that ended its scope or call.

    exception ─▶ otel.status_code, otel.status_description      how it ended
             └─▶ exception.type, .message, .stacktrace         what it was

Runs in every emitting process, where a block or a managed call is left by an exception. The exception itself is only
looked at: it goes on to the program unchanged. Names of the keys: OpenTelemetry's semantic conventions for exceptions.
"""

import os
import sys
import traceback
from typing import Literal, TypeAlias

from relay_mp.errors import described_type

__all__ = [
    "DESCRIPTION_KEY",
    "STATUS_KEY",
    "STATUS_OK",
    "Status",
    "describe",
    "failure_status",
    "is_cancellation",
    "plain_text",
    "status_of",
    "type_name",
]

STATUS_KEY = "otel.status_code"
DESCRIPTION_KEY = "otel.status_description"

# Never changed: the encoder reads them, and merging copies.
STATUS_OK = {STATUS_KEY: "OK"}
_STATUS_UNSET = {STATUS_KEY: "UNSET"}
_STATUSES = {"OK": STATUS_OK, "ERROR": {STATUS_KEY: "ERROR"}, "UNSET": _STATUS_UNSET}

Status: TypeAlias = BaseException | Literal["OK", "ERROR", "UNSET"]
"""How a scope or a call ended, as its caller says it."""

STACKTRACES_VARIABLE = "RELAY_MP_STACKTRACES"
"""`0` leaves `exception.stacktrace` out of every event of the process."""

MAX_STACKTRACE_CHARACTERS = 8192
"""The end of a stack trace, with the innermost frames, is kept."""

MAX_STACKTRACE_FRAMES = 64
"""Of each exception in the chain, the innermost are kept."""

MAX_MESSAGE_CHARACTERS = 4096


def plain_text(text: str) -> str:
    """A text as an event can have it: lone surrogates are escaped."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def type_name(exc: BaseException) -> str:
    """The exception's class, with its module unless that is `builtins`."""
    kind = type(exc)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def describe(exc: BaseException) -> str:
    """An exception's text, as far as it can be had: what is raised by its `__str__` harms nobody."""
    try:
        text = plain_text(str(exc))
    except Exception:
        return f"<{type(exc).__name__}, whose text could not be had>"
    return text if len(text) <= MAX_MESSAGE_CHARACTERS else f"{text[:MAX_MESSAGE_CHARACTERS]}..."


def is_cancellation(exc: BaseException) -> bool:
    """Whether asyncio has cancelled the task. Who was cancelled has imported asyncio; this package does not."""
    exceptions = sys.modules.get("asyncio.exceptions")
    return exceptions is not None and isinstance(exc, exceptions.CancelledError)


def failure_status(exc: BaseException) -> dict[str, str]:
    """The end's metadata of a scope or call that an exception ended.

    ERROR for an Exception or a cancellation; UNSET for what ends the program, such as KeyboardInterrupt, and for a
    generator that was closed.
    """
    if isinstance(exc, GeneratorExit):
        return _STATUS_UNSET
    text = describe(exc)
    found = {"exception.type": type_name(exc), "exception.message": text}
    if is_cancellation(exc):
        found |= {STATUS_KEY: "ERROR", DESCRIPTION_KEY: text or "cancelled"}
    elif isinstance(exc, Exception):
        found |= {STATUS_KEY: "ERROR", DESCRIPTION_KEY: text}
    else:
        found |= _STATUS_UNSET
    trace = _stacktrace(exc)
    if trace:
        found["exception.stacktrace"] = trace
    return found


def status_of(status: object) -> dict[str, str]:
    """The end's metadata of what its caller says of it.

    Raises:
        TypeError: it is neither a text nor an exception.
        ValueError: it is a text other than "OK", "ERROR" and "UNSET".
    """
    if isinstance(status, BaseException):
        return failure_status(status)
    if not isinstance(status, str):
        raise TypeError(f"status is {described_type(status)}; expected 'OK', 'ERROR', 'UNSET' or an exception")
    if status not in _STATUSES:
        raise ValueError(f"status is {plain_text(status)[:80]!r}; expected 'OK', 'ERROR', 'UNSET' or an exception")
    return _STATUSES[status]


def _stacktrace(exc: BaseException) -> str:
    if os.environ.get(STACKTRACES_VARIABLE) == "0":
        return ""
    try:
        lines = traceback.format_exception(exc, limit=-MAX_STACKTRACE_FRAMES)
        text = plain_text("".join(lines))
    except Exception:  # of the exception's own __str__, or of a source file that cannot be read
        return ""
    left_out = len(text) - MAX_STACKTRACE_CHARACTERS
    return text if left_out <= 0 else f"[{left_out} characters left out]\n{text[left_out:]}"
