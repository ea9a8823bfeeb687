"""What a session can be told, and how: argument, then `RELAY_MP_*` environment variable, then default.

Every bound of a session is here, with its name, default and limits.
"""

import os
from dataclasses import dataclass, fields
from typing import Any

from relay_mp._deliver.allowed import ANY, check_patterns
from relay_mp._deliver.dispatcher import OPEN_BOUNDS
from relay_mp._native import core
from relay_mp.errors import SessionError, described_type

PREFIX = "RELAY_MP_"
ALLOWED_VARIABLE = f"{PREFIX}ALLOWED_SUBSCRIBERS"
OPEN_VARIABLES = (f"{PREFIX}MAX_OPEN_SCOPES", f"{PREFIX}MAX_OPEN_BYTES")

DEFAULT_RING_BYTES = 16 * 1024 * 1024
MIN_RING_BYTES = 64 * 1024
DEFAULT_MIN_RING_BYTES = 1024 * 1024
MAX_RING_BYTES = 1 << 36
EVENT_SHARE_OF_RING = 8
MIN_EVENT_BYTES = 1024
SUBSCRIPTIONS_BYTES = 64 * 1024
MAX_DELIVERIES = 255
MAX_RESTARTS = 1_000_000


SHARED_MEMORY = "/dev/shm"


def temporary_directory() -> str:
    """The system's, by `TMPDIR` and its kind.

    Raises:
        FileNotFoundError: there is none that can be written to.
    """
    # With shutil and random a twentieth of the package's import, and only who starts a session asks.
    import tempfile

    return tempfile.gettempdir()


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a session. Times in seconds, sizes in bytes.

    Args:
        dispatcher: "thread" (of the owner; any callable can subscribe) or "process" (its own
            interpreter; subscribers are named "package.module:attribute"; outlives a crash of the owner).
        on_full: what an emit does when the ring is full: "block" waits up to `block_timeout_seconds`,
            then drops and counts; "drop" drops and counts at once.
        block_timeout_seconds: see `on_full`.
        stall_timeout_seconds: how long delivery waits for a live process that has claimed space and does
            not finish (stopped, swapped out) before it skips that event. 0: for ever.
        max_deliveries: how often an event is delivered, if the dispatcher's process dies of it each time, before it
            is given up and counted as lost ("poison"). With dispatcher="process" only: a thread's owner dies with it.
        max_restarts: how often in a row a dispatcher process that delivers nothing is started again, with ever longer
            pauses, after `max_deliveries` without one. Then none is any more: events are kept until the ring is full.
        flush_timeout_seconds: the default deadline of `flush`, and that of closing.
        ring_bytes: size of the ring; rounded up to a power of two.
        min_ring_bytes: how small the ring may be made where there is no room for `ring_bytes`; rounded up likewise.
        max_event_bytes: larger events lose their payloads, not their identity. 0: an eighth of the ring.
        max_producers: how many threads, of all processes, may emit at the same time.
        configuration_bytes: room for the middleware and plugins that workers share with the owner.
        allowed_subscribers: what other processes of the session may have the dispatcher import, beside exporters of
            installed packages and what the owner registers: names "package.module:attribute" with commas between them,
            in which * stands for any part without a dot; "*": anything; "none": nothing more.
        max_open_scopes: how many open scopes the dispatcher keeps for who begins to watch (`relay_mp.watch`); beyond
            that the oldest are given up. 0: none, which saves a tenth of a microsecond a scope event at delivery; who
            begins to watch then sees what begins later.
        max_open_bytes: how much it keeps of them; beyond that the oldest lose their payloads, then are given up.
        directory: where the segment is made; a memory file system. "": /dev/shm, or the temporary directory where
            there is no room.
        recovery_directory: where events that dead sessions left behind are written. "": the temporary directory.
        strict: whether a value that cannot be recorded is a PayloadError where it is emitted, in every process of the
            session, and a session that cannot start an error. If not, the value is replaced in the event and counted
            (`stats().replaced`), and the program goes on unrecorded (`stats().unrecorded`).
        on_sigterm: "leave": SIGTERM is the program's. "flush": what was emitted is delivered and exported first, and
            where the program has no handler of its own, the session is closed; then the handler that was there before
            is called, or the process ends of the signal. Set by the owner, whose main thread must start the session.
        sigterm_timeout_seconds: how long a SIGTERM may wait for that.
    """

    dispatcher: str = "thread"
    on_full: str = "block"
    block_timeout_seconds: float = 10.0
    stall_timeout_seconds: float = 0.0
    flush_timeout_seconds: float = 30.0
    max_deliveries: int = 3
    max_restarts: int = 10
    ring_bytes: int = DEFAULT_RING_BYTES
    min_ring_bytes: int = DEFAULT_MIN_RING_BYTES
    max_event_bytes: int = 0
    max_producers: int = 1024
    configuration_bytes: int = 64 * 1024
    allowed_subscribers: str = ANY
    max_open_scopes: int = OPEN_BOUNDS.scopes
    max_open_bytes: int = OPEN_BOUNDS.size_bytes
    directory: str = ""
    recovery_directory: str = ""
    strict: bool = False
    on_sigterm: str = "leave"
    sigterm_timeout_seconds: float = 5.0


_LIMITS: dict[str, tuple[float, float]] = {
    "block_timeout_seconds": (0, 86400),
    "stall_timeout_seconds": (0, 86400),
    "flush_timeout_seconds": (0, 86400),
    "sigterm_timeout_seconds": (0, 86400),
    "max_deliveries": (1, MAX_DELIVERIES),
    "max_restarts": (0, MAX_RESTARTS),
    "ring_bytes": (MIN_RING_BYTES, MAX_RING_BYTES),
    "min_ring_bytes": (MIN_RING_BYTES, MAX_RING_BYTES),
    "max_producers": (1, core.MAX_PRODUCERS),
    "configuration_bytes": (1024, 16 * 1024 * 1024),
    "max_open_scopes": (0, 10_000_000),
    "max_open_bytes": (1, 1 << 40),
}
_CHOICES = {"dispatcher": ("thread", "process"), "on_full": ("block", "drop"), "on_sigterm": ("leave", "flush")}


def resolve(**arguments: Any) -> Settings:
    """Settings from arguments (None: not given), environment and defaults, checked.

    Raises:
        TypeError: an argument that no setting has.
        SessionError: a value is not of the setting's type, or outside its limits.
    """
    kinds = {field.name: type(field.default) for field in fields(Settings)}
    unknown = set(arguments) - set(kinds)
    if unknown:
        raise TypeError(f"unknown setting {sorted(unknown)[0]!r}; there are {', '.join(kinds)}")
    values: dict[str, Any] = {}
    for name, kind in kinds.items():
        variable = PREFIX + name.upper()
        if arguments.get(name) is not None:
            values[name] = _checked(name, kind, arguments[name], name)
        elif os.environ.get(variable):
            values[name] = _checked(name, kind, os.environ[variable], variable)
    return _derived(values)


_NUMBERS = {int: "a whole number, such as 65536", float: "a number, such as 2.5"}


def _checked(name: str, kind: type, value: Any, source: str) -> Any:
    given = value
    if kind is bool:
        return _switch(value, source)
    if isinstance(given, bool) or (kind is str and not isinstance(given, (str, os.PathLike))):
        raise SessionError(f"{source}={given!r} is {described_type(given)}; expected {kind.__name__}")
    try:
        value = os.fspath(value) if kind is str else kind(value)
    except (TypeError, ValueError, OverflowError):
        raise SessionError(f"{source}={given!r} is not {_NUMBERS[kind]}") from None
    if kind is int and isinstance(given, float) and given != value:
        raise SessionError(f"{source}={given!r} is not {_NUMBERS[int]}")
    if name in _CHOICES and value not in _CHOICES[name]:
        raise SessionError(f"{source}={value!r}; expected one of {', '.join(_CHOICES[name])}")
    if name == "allowed_subscribers":
        _require_patterns(value, source)
    low, high = _LIMITS.get(name, (value, value))
    if not low <= value <= high:
        raise SessionError(f"{source}={value!r} is outside {low} to {high}")
    return value


def _require_patterns(value: str, source: str) -> None:
    try:
        check_patterns(value)
    except ValueError as error:
        raise SessionError(f"{source}={value!r}: {error}") from None


_SWITCH = {"0": False, "false": False, "1": True, "true": True}


def _switch(value: Any, source: str) -> bool:
    found = value if isinstance(value, bool) else _SWITCH.get(value.lower()) if isinstance(value, str) else None
    if found is None:
        raise SessionError(f"{source}={value!r}; expected True or False, in the environment 1 or 0")
    return found


def _derived(values: dict[str, Any]) -> Settings:
    ring_bytes = values["ring_bytes"] = _power_of_two(values.get("ring_bytes", DEFAULT_RING_BYTES))
    # An event and the padding before it must fit; 16 bits count its units.
    largest = min(ring_bytes // EVENT_SHARE_OF_RING, core.MAX_EVENT_BYTES)
    asked: int = values.get("max_event_bytes", 0)
    wanted = asked or largest
    if not MIN_EVENT_BYTES <= wanted <= largest:
        raise SessionError(
            f"max_event_bytes={wanted} is outside {MIN_EVENT_BYTES} to {largest}, an eighth of the ring of "
            f"{ring_bytes} bytes (and at most {core.MAX_EVENT_BYTES}); make the ring larger or the limit smaller"
        )
    values["max_event_bytes"] = wanted
    # A smaller ring has room for every event that was asked for.
    needed = max(values.get("min_ring_bytes", DEFAULT_MIN_RING_BYTES), EVENT_SHARE_OF_RING * asked)
    values["min_ring_bytes"] = min(_power_of_two(needed), ring_bytes)
    return Settings(**values)


def _power_of_two(size: int) -> int:
    """The size, rounded up."""
    return 1 << (size - 1).bit_length()
