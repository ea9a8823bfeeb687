"""Middleware of every family: which callbacks a process has, who sees them, in which order they run.

Runs in every emitting process. There is one mechanism for all families of `relay_mp._emit.families`:

    guardrails, intercepts, event_metadata, scope_local, plugins      (public verbs)
        -> registry.exchange(remove, add)     one lock, one immutable snapshot, replaced whole
        -> visible(family)                    read without a lock, by the managed path and the event hook

Order: ascending priority; within one priority first the global ones, then those of the scopes on the
emitting stack, outer before inner; within a level by name. A name is unique per family and level.

While nothing for tools is registered, `registry.tools` is False, the one attribute that their managed path
looks at; while nothing for events is, the core has no event hook. Nothing here is in shared memory:
registrations are this process's, and a forked child has its parent's. `on_change` lets others publish what
is named, and `exchange` install it.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from relay_mp._emit import scope_end
from relay_mp._emit.current import current_scope, stack_uuids
from relay_mp._emit.families import EVENT_FAMILIES, FAMILIES, TOOL_FAMILIES, Family
from relay_mp._emit.locks import ForkSafeRLock
from relay_mp._log import logger
from relay_mp._native import core
from relay_mp.errors import MiddlewareError
from relay_mp.types import (
    RuntimeRegistrationKind,
    RuntimeRegistrationOwner,
    RuntimeRegistrationOwnerKind,
)

__all__ = [
    "GLOBAL_API",
    "Gate",
    "Registration",
    "registry",
    "visible",
]


GLOBAL_API = RuntimeRegistrationOwner(RuntimeRegistrationOwnerKind.GLOBAL_API, None, None)
"""Who owns what the public register functions register."""


@dataclass(slots=True, eq=False, kw_only=True)
class Registration:
    """One callback of one family.

    Args:
        family: a row of FAMILIES.
        name: unique per family and level; what gates match, and what orders within a priority.
        priority: lower runs first.
        callback: what is called. Whether it is asynchronous is seen by what it returns.
        break_chain: ends its chain after it has run, for families that can.
        scope: the uuid of the scope that it belongs to, None for a global one.
        target, arguments: how another process makes the same callback: "package.module:attribute", and
            the keyword arguments of a factory, None for a plain callback. None: it cannot.
        owner: who registered it.
        local_name: its name within a plugin; the name itself where there is none.
        arrived: it was installed for this process by another; one of the process's own takes its place.
    """

    family: Family
    name: str
    priority: int
    callback: Callable[..., Any]
    break_chain: bool = False
    scope: bytes | None = None
    target: str | None = None
    arguments: dict[str, Any] | None = None
    owner: RuntimeRegistrationOwner = GLOBAL_API
    local_name: str = ""
    arrived: bool = False

    def __post_init__(self) -> None:
        self.local_name = self.local_name or self.name

    def __repr__(self) -> str:
        where = "" if self.scope is None else f" on scope {self.scope.hex()}"
        return f"<Registration {self.family.kind.value} {self.name!r} priority={self.priority}{where}>"


class Gate(NamedTuple):
    """Decides, each time, whether registrations of one name take part: None lets them, a text does not."""

    name: str
    kinds: frozenset[RuntimeRegistrationKind]
    registration_name: str
    guardrail: Callable[[set[RuntimeRegistrationKind], str], str | None]


_Level = dict[Family, tuple[Registration, ...]]


class _Snapshot(NamedTuple):
    """All registrations at one time; never changed. Each tuple is in the order of its level."""

    everywhere: _Level
    scopes: dict[bytes, _Level]
    gates: tuple[Gate, ...]

    def level(self, scope: bytes | None) -> _Level:
        return self.everywhere if scope is None else self.scopes.get(scope, {})

    def with_level(self, scope: bytes | None, level: _Level) -> "_Snapshot":
        level = {family: found for family, found in level.items() if found}
        if scope is None:
            return _Snapshot(level, self.scopes, self.gates)
        scopes = {key: value for key, value in self.scopes.items() if key != scope}
        return _Snapshot(self.everywhere, {**scopes, scope: level} if level else scopes, self.gates)

    def find(self, family: Family, name: str, scope: bytes | None) -> Registration | None:
        for registration in self.level(scope).get(family, ()):
            if registration.name == name:
                return registration
        return None

    def without(self, registration: Registration) -> "_Snapshot":
        level = self.level(registration.scope)
        rest = tuple(r for r in level.get(registration.family, ()) if r is not registration)
        return self.with_level(registration.scope, {**level, registration.family: rest})

    def including(self, registration: Registration) -> "_Snapshot":
        level = self.level(registration.scope)
        found = (*level.get(registration.family, ()), registration)
        ordered = tuple(sorted(found, key=lambda r: (r.priority, r.name)))
        return self.with_level(registration.scope, {**level, registration.family: ordered})

    def all(self) -> list[Registration]:
        levels = (self.everywhere, *self.scopes.values())
        return [r for family in FAMILIES.values() for level in levels for r in level.get(family, ())]


EMPTY = _Snapshot({}, {}, ())


OnChange = Callable[[Sequence[Registration], Sequence[Registration]], None]


class Registry:
    """This process's registrations. Changed under a lock; read without one, whole.

    `any` says whether there is any registration, of any family; `tools`, whether there is one of a family
    of TOOL_FAMILIES: while it is False, a managed tool call looks at nothing else.
    """

    def __init__(self) -> None:
        self.lock = ForkSafeRLock()
        self._listeners: tuple[OnChange, ...] = ()
        self._event_hook: Callable[..., Any] | None = None
        self.snapshot = EMPTY
        self.any = False
        self.tools = False

    def on_change(self, listener: OnChange) -> None:
        """`listener(removed, added)` is called once for each change, under the registry's lock.

        It may raise, which takes the change back. It must not wait for a thread that changes the
        registry: whoever calls `exchange` holds no lock that a listener takes.
        """
        self._listeners = (*self._listeners, listener)

    def set_event_hook(self, hook: Callable[..., Any]) -> None:
        """What the core calls for each event, while a family of EVENT_FAMILIES has registrations."""
        self._event_hook = hook

    def find(self, family: Family, name: str, scope: bytes | None = None) -> Registration | None:
        """The registration of that family and name at that level."""
        return self.snapshot.find(family, name, scope)

    def all(self) -> list[Registration]:
        """Every registration: by family, globals first, in order."""
        return self.snapshot.all()

    def exchange(self, remove: Iterable[Registration] = (), add: Iterable[Registration] = ()) -> None:
        """Removes and adds in one step: readers see all of it or nothing.

        What is not there is not removed. One that `arrived` gives way to the process's own of the same
        name, whichever comes first.

        Raises:
            MiddlewareError: a name is taken at its level; nothing was changed.
            Exception: what a listener raised; nothing was changed.
        """
        with self.lock:
            before = after = self.snapshot
            removed, added = [], []
            for registration in remove:
                if after.find(registration.family, registration.name, registration.scope) is registration:
                    after = after.without(registration)
                    removed.append(registration)
            for registration in add:
                taken = after.find(registration.family, registration.name, registration.scope)
                if taken is not None and registration.arrived:
                    continue
                if taken is not None and not taken.arrived:
                    raise _taken(registration)
                if taken is not None:
                    after = after.without(taken)
                    removed.append(taken)
                after = after.including(registration)
                added.append(registration)
            if removed or added:
                self._change(before, after, removed, added)

    def _change(
        self, before: _Snapshot, after: _Snapshot, removed: list[Registration], added: list[Registration]
    ) -> None:
        self._install(after)
        try:
            for listener in self._listeners:
                listener(removed, added)
        except BaseException:
            self._install(before)
            raise
        for registration in added:
            if registration.scope is not None and not registration.arrived:  # else it is another process's to end
                scope_end.watch(registration.scope, self.end_scope)

    def remove(self, family: Family, name: str, scope: bytes | None = None) -> bool:
        """Removes one. False if there is none."""
        with self.lock:
            found = self.find(family, name, scope)
            if found is None:
                return False
            self.exchange(remove=(found,))
            return True

    def end_scope(self, scope: bytes) -> None:
        """A scope has ended: its registrations end with it."""
        with self.lock:
            self.exchange(remove=[r for rs in self.snapshot.level(scope).values() for r in rs])

    def add_gate(self, gate: Gate) -> None:
        """Adds a gate.

        Raises:
            MiddlewareError: there is one of that name.
        """
        with self.lock:
            now = self.snapshot
            if any(known.name == gate.name for known in now.gates):
                raise MiddlewareError(f"a gate {gate.name!r} is already registered; deregister it first")
            gates = tuple(sorted((*now.gates, gate), key=lambda known: known.name))
            self._install(_Snapshot(now.everywhere, now.scopes, gates))

    def remove_gate(self, name: str) -> bool:
        """Removes a gate. False if there is none."""
        with self.lock:
            now = self.snapshot
            gates = tuple(gate for gate in now.gates if gate.name != name)
            self._install(_Snapshot(now.everywhere, now.scopes, gates))
            return len(gates) < len(now.gates)

    def _install(self, snapshot: _Snapshot) -> None:
        levels = (snapshot.everywhere, *snapshot.scopes.values())
        families = {family for level in levels for family in level}
        # The snapshot first: the hook and the managed path look into it as soon as they are told to.
        self.snapshot = snapshot
        self.any = bool(families)
        self.tools = not families.isdisjoint(TOOL_FAMILIES)
        core.set_stacks_wanted(bool(snapshot.scopes))
        core.set_event_hook(self._event_hook if not families.isdisjoint(EVENT_FAMILIES) else None)


def _taken(registration: Registration) -> MiddlewareError:
    where = "globally" if registration.scope is None else "on this scope"
    return MiddlewareError(
        f"a {registration.family.kind.value} {registration.name!r} is already registered {where}; deregister it first"
    )


registry = Registry()
"""This process's."""


def visible(family: Family, stack: bytes | None = None) -> Sequence[Registration]:
    """Who takes part, in order: the global ones, and those of the scopes on the emitting stack.

    Args:
        family: which kind.
        stack: the uuids of the emitting stack, innermost first; the current scope's if left out.
    """
    snapshot = registry.snapshot
    found: Sequence[Registration] = snapshot.everywhere.get(family, ())
    if snapshot.scopes:
        found = _merge(snapshot, family, found, stack_uuids(current_scope()) if stack is None else stack)
    if found and snapshot.gates:
        found = [r for r in found if r.scope is not None or is_let_through(family.kind, r.name)]
    return found


def _merge(snapshot: _Snapshot, family: Family, found: Sequence[Registration], stack: bytes) -> Sequence[Registration]:
    merged = list(found)
    for start in range(len(stack) - 16, -1, -16):
        level = snapshot.scopes.get(stack[start : start + 16])
        if level is not None:
            merged += level.get(family, ())
    # Stable: within a priority the levels keep their order, and within a level the names theirs.
    merged.sort(key=_priority)
    return merged


def _priority(registration: Registration) -> int:
    return registration.priority


def is_let_through(kind: RuntimeRegistrationKind, name: str) -> bool:
    """Whether every gate lets a global registration take part now. A gate that raises lets it.

    Args:
        kind: the registration's.
        name: its name.
    """
    for gate in registry.snapshot.gates:
        if gate.registration_name != name or kind not in gate.kinds:
            continue
        try:
            reason = gate.guardrail(set(gate.kinds), name)
        except Exception:
            logger.exception("the gate %r of %s %r failed; it lets it through", gate.name, kind.value, name)
            continue
        if isinstance(reason, str):
            return False
        if reason is not None:
            what = type(reason).__name__
            logger.error("the gate %r returned a %s; expected str or None; it lets %r through", gate.name, what, name)
    return True
