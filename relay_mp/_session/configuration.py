"""How the owner's middleware gets to every process of the session.

    owner                                                any other process
    registry changes ─▶ table ─▶ segment, version + 1 ─▶ its next event sees the version ─▶ registry changes

The table is msgpack: a row for each of the owner's registrations. What crosses is a name,
"package.module:attribute" with JSON arguments, or the plugin component that made the registration; never a
pickle. A row becomes a registration at once, and its callback is imported where it is first called: so the
version is heeded without running anybody's code, and what cannot be imported fails as any callback does that
raises, which for sanitizers and guardrails means closed. A callback without a name (a lambda, a closure, a
bound method) has a row too: forked children have the callback itself, others are told of it once.

The owner alone writes. What another process registers is its own, and that of the children it forks.

If the table is damaged, a process keeps what it has, and withholds every payload and refuses every guarded call
until it reads a good one: what it does not know might have been a sanitizer.
"""

import contextlib
import logging
from collections import deque
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NamedTuple

import msgpack  # type: ignore[import-untyped]

from relay_mp._deliver import named
from relay_mp._emit.arguments import freeze, thaw
from relay_mp._emit.families import FAMILIES, Family
from relay_mp._emit.middleware import GLOBAL_API, Registration, registry
from relay_mp._native import core
from relay_mp._native.core import Segment
from relay_mp._session import inheritance
from relay_mp.errors import ConfigurationError, MiddlewareError, PluginError, SubscriberError
from relay_mp.types import RuntimeRegistrationKind, RuntimeRegistrationOwner, RuntimeRegistrationOwnerKind

__all__ = [
    "Callbacks",
    "Component",
    "Unreachable",
    "enter",
    "failures",
    "failures_of_all",
    "leave",
    "own",
    "set_component_loader",
    "share",
    "sync",
    "tell",
    "unreachable",
]

logger = logging.getLogger("relay_mp")

FORMAT = 1
_READ_ATTEMPTS = 100
"""Both copies are torn only if the owner has written twice while one was read."""

KEPT_FAILURES = 100
"""A process keeps this many texts of what it could not use; all are counted in the segment."""

Callbacks = dict[tuple[str, str], Callable[..., Any]]
"""What a plugin component registers: callbacks by kind of middleware and local name."""


class Component(NamedTuple):
    """A plugin component that is active in the owner. `target`: where its plugin is found, None: nowhere."""

    kind: str
    ordinal: int
    target: str | None
    config: dict[str, Any]

    @property
    def owner(self) -> RuntimeRegistrationOwner:
        return RuntimeRegistrationOwner(RuntimeRegistrationOwnerKind.PLUGIN, self.kind, self.ordinal)


class Unreachable(NamedTuple):
    """A registration of the owner that only its forks have."""

    family: Family
    name: str
    why: str


class _Row(NamedTuple):
    """One of the owner's registrations. Its number is never used again in a session."""

    number: int
    kind: str
    name: str
    local_name: str
    priority: int
    break_chain: bool
    scope: bytes | None
    target: str | None
    arguments: dict[str, Any] | None
    component: Component | None

    @property
    def family(self) -> Family:
        return FAMILIES[RuntimeRegistrationKind(self.kind)]

    @property
    def is_reachable(self) -> bool:
        return (self.component.target if self.component else self.target) is not None


def _first_component(component: Component) -> Callbacks:
    """relay_mp.plugin is loaded on first use, here too: its import says how components are made."""
    import_module("relay_mp.plugin")
    return _state.load_component(component)


class _State:
    """This process's part. Changed under the registry's lock, which a fork finds free."""

    def __init__(self) -> None:
        self.segment: Segment | None = None
        self.owner_epoch = -1  # the fork_epoch of the process that owns the session
        self.rows: tuple[_Row, ...] = ()
        self.numbers = 0
        # By number: in the owner what it has published, elsewhere what has arrived; a fork has its parent's.
        self.shared: dict[int, Registration] = {}
        self.components: dict[RuntimeRegistrationOwner, Component] = {}
        self.load_component: Callable[[Component], Callbacks] = _first_component
        self.failed: deque[str] = deque(maxlen=KEPT_FAILURES)

    @property
    def owns(self) -> bool:
        return self.owner_epoch == core.fork_epoch()


_state = _State()


def set_component_loader(load: Callable[[Component], Callbacks]) -> None:
    """Tells how a plugin component is made here, for a registration of it that has arrived."""
    _state.load_component = load


# ------------------------------------------------------------------------------------------- the owner


def own(segment: Segment) -> None:
    """This process has started a session: what it has registered so far is shared, and every change to it.

    Raises:
        ConfigurationError: there is no room for it.
        PayloadError: arguments of a registration are no JSON.
    """
    with registry.lock:
        _forget()
        _state.segment, _state.owner_epoch = segment, core.fork_epoch()
        _publish()


def share(components: Sequence[Component]) -> None:
    """Says what the plugin components are of which registrations are shared from now on."""
    _state.components = {component.owner: component for component in components}


def _changed(_removed: Sequence[Registration], _added: Sequence[Registration]) -> None:
    if _state.owns and _state.segment is not None and _state.segment.is_open:
        _publish()


def _publish() -> None:
    assert _state.segment is not None
    before = (_state.shared, _state.numbers)
    known = {id(registration): number for number, registration in _state.shared.items()}
    shared, rows = {}, []
    for registration in registry.all():
        number = known.get(id(registration))
        if number is None:
            number = _state.numbers = _state.numbers + 1
        shared[number] = registration
        rows.append(_row(number, registration))
    _state.shared = shared
    try:
        version = _state.segment.store_configuration(_packed(rows))
    except BaseException:
        _state.shared, _state.numbers = before
        raise
    _state.rows = tuple(rows)
    core.set_configuration_seen(version)
    inheritance.publish(_state.segment.path)  # multiprocessing may have been imported since


def _row(number: int, registration: Registration) -> _Row:
    target, component = registration.target, _state.components.get(registration.owner)
    arguments = None if registration.arguments is None else thaw(freeze(registration.arguments, "arguments"))
    if target is None and component is None:
        with contextlib.suppress(SubscriberError):
            target = named.name_of(registration.callback)
    return _Row(
        number,
        registration.family.kind.value,
        registration.name,
        registration.local_name,
        registration.priority,
        registration.break_chain,
        registration.scope,
        target,
        arguments,
        component,
    )


def _packed(rows: Sequence[_Row]) -> bytes:
    components = list(dict.fromkeys(row.component.owner for row in rows if row.component))
    of_owner = {row.component.owner: row.component for row in rows if row.component}
    table = [
        FORMAT,
        [list(of_owner[owner]) for owner in components],
        [[*row[:-1], components.index(row.component.owner) if row.component else None] for row in rows],
    ]
    return bytes(msgpack.packb(table))


# --------------------------------------------------------------------------------------- other processes


def enter(segment: Segment) -> None:
    """This process is attached to a session: it has that session's middleware before its first event."""
    with registry.lock:
        if _state.segment is not segment:
            _forget()
        _state.segment, _state.owner_epoch = segment, -1


def leave(segment: Segment) -> None:
    """This process has left a session: what has arrived from it goes, what is its own stays."""
    with registry.lock:
        if _state.segment is segment:
            _forget()


def _forget() -> None:
    _state.segment, arrived = None, [each for each in _state.shared.values() if each.arrived]
    _state.shared, _state.rows = {}, ()
    registry.exchange(remove=arrived)


def sync() -> None:
    """Brings this process's middleware up to date. Called by the core, before an event; never raises."""
    try:
        with registry.lock:
            segment = _state.segment
            if segment is None or not segment.is_open:
                return
            version, table = _read(segment)
            if not _state.owns:
                _apply(segment, version, table)
            core.set_configuration_seen(version)
    except Exception:
        logger.exception("the session's middleware cannot be brought up to date in process %d", core.process_self()[0])


def _read(segment: Segment) -> tuple[int, bytes | None]:
    for _ in range(_READ_ATTEMPTS):
        version, table = segment.load_configuration()
        if version == 0 or table is not None:
            break
    return version, table


def _apply(segment: Segment, version: int, table: bytes | None) -> None:
    try:
        rows = decode(table) if version else ()
    except ConfigurationError as error:
        segment.count_middleware_failure()
        _note_failure(str(error))
        logger.error("%s; until it is whole again, this process withholds payloads and refuses guarded calls", error)
        _exchange((), {-1 - n: _refusing(family, error) for n, family in enumerate(_guarding())})
        return
    numbers = {row.number for row in rows}
    gone = [number for number in _state.shared if number not in numbers]
    new = [row for row in rows if row.number not in _state.shared]
    _exchange(gone, {row.number: _arrived(row) for row in new if row.is_reachable})
    _state.rows = tuple(row for row in new if not row.is_reachable)
    tell()


def _exchange(gone: Sequence[int], come: dict[int, Registration]) -> None:
    """By number; a process's own registration of a name keeps its place before one that arrives."""
    registry.exchange(remove=[_state.shared[number] for number in gone], add=come.values())
    for number in gone:
        del _state.shared[number]
    _state.shared.update(come)


def _arrived(row: _Row) -> Registration:
    return Registration(
        family=row.family,
        name=row.name,
        priority=row.priority,
        callback=_Arrived(row),
        break_chain=row.break_chain,
        scope=row.scope,
        target=row.target,
        arguments=row.arguments,
        local_name=row.local_name,
        owner=GLOBAL_API if row.component is None else row.component.owner,
        arrived=True,
    )


def _guarding() -> list[Family]:
    return [family for family in FAMILIES.values() if family.kind.value.endswith("_guardrail")]


def _refusing(family: Family, error: Exception) -> Registration:
    def refuse(*_arguments: Any) -> Any:
        raise MiddlewareError(str(error))

    name = "relay_mp.configuration"
    return Registration(family=family, name=name, priority=-(1 << 31), callback=refuse, arrived=True)


class _Arrived:
    """A callback of the owner's, imported here where it is first called.

    No lock is held meanwhile: two threads may import it at once, as two that import a module do not
    wait for each other's locks; one result is kept.
    """

    __slots__ = ("_callback", "_row", "_untold")

    def __init__(self, row: _Row) -> None:
        self._row = row
        self._callback: Callable[..., Any] | None = None
        self._untold = [True]

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        callback = self._callback
        if callback is None:
            callback = self._callback = self._load()
        return callback(*arguments, **keywords)

    def _load(self) -> Callable[..., Any]:
        row = self._row
        try:
            if row.component is not None:
                return _of_component(row, row.component)
            assert row.target is not None
            return named.resolve(row.target, row.arguments, row.kind)
        except Exception as error:
            return self._failing(f"{row.kind} {row.name!r} of the session's owner cannot be had here: {error}")

    def _failing(self, why: str) -> Callable[..., Any]:
        if self._untold:
            self._untold.clear()
            _note_failure(why)
            logger.error("%s", why)
            segment = _state.segment
            if segment is not None and segment.is_open:
                segment.count_middleware_failure()

        def fail(*_arguments: Any, **_keywords: Any) -> Any:
            raise MiddlewareError(why)

        return fail

    def __repr__(self) -> str:
        return f"<arrived {self._row.kind} {self._row.name!r}>"


def _of_component(row: _Row, component: Component) -> Callable[..., Any]:
    callbacks = _state.load_component(component)
    try:
        return callbacks[row.kind, row.local_name]
    except KeyError:
        raise PluginError(
            f"plugin {component.kind!r} has not registered {row.local_name!r} in this process, as it has in the "
            "owner's; its `register` must do the same for the same config"
        ) from None


# --------------------------------------------------------------------------------------------- the table


def decode(table: bytes | None) -> tuple[_Row, ...]:
    """The rows of a table. It comes from shared memory, and nothing in it is trusted before it is checked.

    Raises:
        ConfigurationError: it is no such table.
    """
    try:
        if table is None:
            raise ValueError("its checksum is wrong")
        version, components, rows = msgpack.unpackb(table, strict_map_key=True)
        if version != FORMAT:
            raise ValueError(f"its format is {version!r:.20}; expected {FORMAT}")
        known = [_decode_component(*component) for component in components]
        return tuple(_decode_row(known, *row) for row in rows)
    except (ValueError, TypeError, KeyError, IndexError, RecursionError, msgpack.UnpackException) as error:
        raise ConfigurationError(f"the middleware that the session's owner shares is damaged: {error}") from error


def _require(is_so: bool, what: str) -> None:
    if not is_so:
        raise ValueError(f"a {what} is of the wrong type or size")


def _decode_component(kind: Any, ordinal: Any, target: Any, config: Any) -> Component:
    _require(isinstance(kind, str) and type(ordinal) is int and ordinal > 0, "component")
    _require(isinstance(target, str | None) and isinstance(config, dict), "component's target or config")
    return Component(kind, ordinal, target, config)


def _decode_row(components: list[Component], *fields: Any) -> _Row:
    number, kind, name, local_name, priority, break_chain, scope, target, arguments, index = fields
    _require(type(number) is int and number > 0 and type(priority) is int, "number or priority")
    _require(isinstance(name, str) and isinstance(local_name, str) and isinstance(target, str | None), "name")
    _require(type(break_chain) is bool and isinstance(arguments, dict | None), "row's arguments")
    _require(scope is None or (isinstance(scope, bytes) and len(scope) == 16), "scope")
    _require(index is None or (type(index) is int and 0 <= index < len(components)), "component's number")
    RuntimeRegistrationKind(kind)
    component = None if index is None else components[index]
    return _Row(number, kind, name, local_name, priority, break_chain, scope, target, arguments, component)


# -------------------------------------------------------------------------------- what cannot get there


def unreachable() -> list[Unreachable]:
    """The owner's registrations that workers which are no forks of it cannot have; in such a worker, those
    that it lacks."""
    return [_why_unreachable(row) for row in _state.rows if not row.is_reachable]


def _why_unreachable(row: _Row) -> Unreachable:
    if row.component is not None:
        why = (
            f"plugin {row.component.kind!r} is an object that no name leads to; register it as "
            '"package.module:attribute", or as a class at the top level of a module'
        )
    else:
        why = (
            "its callback is a lambda, a local function, a bound method or of __main__; register it as "
            '"package.module:attribute" with JSON arguments, or install it by a plugin'
        )
    return Unreachable(row.family, row.name, why)


def tell() -> None:
    """Says once in a session, for each registration that cannot cross, that it stays behind.

    Called where a process is handed the session by name: in the parent, as multiprocessing pickles a
    process that is not forked, whichever pool it is for, or as `pools.environ` is called; else in the
    child, where it attaches.
    """
    segment = _state.segment
    if segment is None or not segment.is_open:
        return
    told = segment.configuration_told
    untold = [row for row in _state.rows if row.number > told and not row.is_reachable]
    if untold:
        segment.set_configuration_told(max(row.number for row in untold))
    for found in map(_why_unreachable, untold):
        logger.warning(
            "%s %r does not reach workers that are not forked: %s", found.family.kind.value, found.name, found.why
        )


def _note_failure(why: str) -> None:
    if why not in _state.failed:
        _state.failed.append(why)


def failures() -> list[str]:
    """What has arrived in this process and could not be used, each once; the latest KEPT_FAILURES."""
    return list(_state.failed)


def failures_of_all() -> int:
    """How often that was so in all processes of the session."""
    segment = _state.segment
    return segment.middleware_failures if segment is not None and segment.is_open else 0


registry.on_change(_changed)
core.set_configuration_hook(sync)
inheritance.set_handing_down_hook(tell)
