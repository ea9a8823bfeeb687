"""The standard library's logging: a record becomes a mark with a severity, under the scope that is current.

    log.info("found %d", 3)  ──▶  mark "app.search", data {"message": "found 3", "level": "INFO", ...}
                             └─▶  the program's handlers, exactly as without this

No handler is added and no level set, for both would change what the program writes: a program without handlers has its
warnings on stderr, and `basicConfig()` does nothing where there is a handler already. Records that the program's levels
leave out become marks and go to no handler. `logging.disable()` holds.

What the library logs itself is left out, and so is what is logged while an event is delivered or a mark is emitted
here: a record of it would cause the next. Full ring: as for every mark. Any thread of any process.
"""

import logging
import threading
from typing import Any

from relay_mp import scope
from relay_mp._native.core import is_dispatching
from relay_mp.types import LogSeverity

__all__ = ["MAX_FIELDS", "MAX_MESSAGE_CHARACTERS", "instrument", "uninstrument"]

MAX_MESSAGE_CHARACTERS = 8192
"""Of a message or a traceback; the rest is left out."""

MAX_FIELDS = 32
"""Of a record's `extra`; the others are left out."""

_USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_SEVERITIES = (
    (logging.ERROR, LogSeverity.Error),
    (logging.WARNING, LogSeverity.Warn),
    (logging.INFO, LogSeverity.Info),
    (logging.DEBUG, LogSeverity.Debug),
)
_busy = threading.local()
_tracebacks = logging.Formatter()

_is_enabled_for = logging.Logger.isEnabledFor
_call_handlers = logging.Logger.callHandlers
_least = logging.INFO


def instrument(level: int = logging.INFO) -> None:
    """Has every record of at least that level become a mark. Idempotent; the newest level holds.

    Args:
        level: one of logging's.
    """
    global _least
    _least = level
    logging.Logger.isEnabledFor = _is_wanted  # type: ignore[method-assign]
    logging.Logger.callHandlers = _take  # type: ignore[method-assign]


def uninstrument() -> None:
    """Takes it back. Idempotent."""
    logging.Logger.isEnabledFor = _is_enabled_for  # type: ignore[method-assign]
    logging.Logger.callHandlers = _call_handlers  # type: ignore[method-assign]


def _is_own(name: str) -> bool:
    return name == "relay_mp" or name.startswith("relay_mp.")


def _is_wanted(self: logging.Logger, level: int) -> bool:
    if _is_enabled_for(self, level):
        return True
    return level >= _least and not self.disabled and level > self.manager.disable and not _is_own(self.name)


def _take(self: logging.Logger, record: logging.LogRecord) -> None:
    if record.levelno >= _least and not _is_own(record.name):
        _emit(record)
    if _is_enabled_for(self, record.levelno):
        _call_handlers(self, record)


def _emit(record: logging.LogRecord) -> None:
    if is_dispatching() or getattr(_busy, "is_emitting", False):
        return
    _busy.is_emitting = True
    try:
        severity = next((named for least, named in _SEVERITIES if record.levelno >= least), LogSeverity.Trace)
        scope.event(record.name, data=_data(record), severity=severity)
    except Exception:  # such as a message that its arguments do not fit: logging tells that by its own way
        return
    finally:
        _busy.is_emitting = False


def _data(record: logging.LogRecord) -> dict[str, Any]:
    data: dict[str, Any] = {
        "message": record.getMessage()[:MAX_MESSAGE_CHARACTERS],
        "level": record.levelname,
        "file": record.pathname,
        "line": record.lineno,
        "function": record.funcName,
    }
    extra = [(name, value) for name, value in vars(record).items() if name not in _USUAL]
    if extra:
        data["extra"] = dict(extra[:MAX_FIELDS])
    if record.exc_info and record.exc_info[0] is not None:
        data["exception"] = _tracebacks.formatException(record.exc_info)[-MAX_MESSAGE_CHARACTERS:]
    return data
