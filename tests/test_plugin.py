"""Plugins in one process: activation and its rollback; and that nemo_relay does the same.

The differences that are meant, each a row of DIFFERENCES with its reason, are asserted for both libraries.
"""

import asyncio
import json
import subprocess
import sys
from typing import Any

import plugin_programs
import pytest
from plugin_cases import Noting, config, names

import relay_mp
from relay_mp import PluginError, plugin, scope, subscribers
from relay_mp._emit.middleware import registry
from relay_mp._session.membership import current_session

PROGRAMS_IN_CI = 150
PROGRAMS_LONG = 5_000

pytestmark = pytest.mark.usefixtures("no_plugins_after")


# ------------------------------------------------------------------------------------- the peer does the same


def run_programs(library: str, programs: list[Any]) -> list[Any]:
    done = subprocess.run(
        [sys.executable, plugin_programs.__file__, library],
        input=json.dumps(programs),
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def without_restoring(theirs: list[Any], ours: list[Any]) -> list[Any]:
    """A failed initialize: the peer has removed the configuration before, and registers it again; here it stays."""
    return theirs[: len(ours)]


def comparable(outcome: dict[str, Any]) -> Any:
    result = outcome["result"]
    if isinstance(result, dict):
        result = result["raised"]
    return result, outcome["seen"]


def compare(programs: list[Any]) -> None:
    theirs, ours = run_programs("nemo_relay", programs), run_programs("relay_mp", programs)
    for program, their, our in zip(programs, theirs, ours, strict=True):
        for step, t, o in zip(program["steps"], their, our, strict=True):
            told = json.dumps({"program": program, "step": step, "nemo_relay": t, "relay_mp": o}, indent=1)
            assert comparable(t) == comparable(o), told
            calls = without_restoring(t["calls"], o["calls"]) if isinstance(o["result"], dict) else t["calls"]
            assert calls == o["calls"], told


def test_random_programs_do_as_with_nemo_relay():
    compare([plugin_programs.random_program(seed) for seed in range(PROGRAMS_IN_CI)])


@pytest.mark.long
@pytest.mark.parametrize("batch", range(10))
def test_many_random_programs_do_as_with_nemo_relay(batch):
    size = PROGRAMS_LONG // 10
    compare([plugin_programs.random_program(10_000 + seed) for seed in range(batch * size, (batch + 1) * size)])


def one(verb: str, given: Any, before: tuple[Any, ...] = (), **plugins: Any) -> Any:
    told = {kind: {"raises": None, "diagnostics": None, **has} for kind, has in plugins.items()}
    return {"plugins": told, "steps": [*map(list, before), [verb, given]]}


INVALID = [
    {"version": "1"},
    {"version": -1},
    {"version": 1.0},
    {"components": {}},
    {"components": ["a"]},
    {"components": [{}]},
    {"components": [{"kind": 3}]},
    {"components": [{"kind": "a", "enabled": "yes"}]},
    {"components": [{"kind": "a", "config": 3}]},
    {"policy": {"unknown_component": "perhaps"}},
    {"policy": 3},
    3,
    "config",
]
BAD_FILES = [
    "version = 2",
    'version = "1"',
    "[[components]\nkind=",
    "components = 3",
    "[[components]]\nkind = 3",
    '[[components]]\nkind = "a"\n[[components]]\nkind = "a"',
    '[policy]\nunknown_component = "perhaps"',
]
DIAGNOSTICS = [
    None,
    [],
    [{"level": "warning", "code": "c", "message": "m"}],
    [{"level": "error", "code": "c", "message": "m", "field": "f", "component": "other"}],
    [{"level": "warning", "code": "c", "message": "m", "more": 1}],
    [{"level": "info", "code": "c", "message": "m"}],
    [{"level": "warning", "code": 3, "message": "m"}],
    [{"code": "c"}],
    ["c"],
    {"level": "error"},
    3,
]


def test_cases_do_as_with_nemo_relay():
    a = [{"kind": "a"}]
    compare(
        [
            *(one(verb, given) for given in INVALID for verb in ("validate", "initialize")),
            *(one("initialize", {}, [("file", text)]) for text in BAD_FILES if text != "components = 3"),
            *(one("validate", {"components": a}, a={"diagnostics": found}) for found in DIAGNOSTICS),
            *(one("initialize", {"components": a}, a={"diagnostics": found}) for found in DIAGNOSTICS),
            one("validate", {"version": None, "components": None, "policy": None}),
            one("validate", {"components": [{"kind": "a", "config": None, "enabled": None}]}, a={}),
            one("initialize", {"components": [{"kind": "a", "config": {"n": None, "t": {"n": None}}}]}, a={}),
            one("initialize", {"components": [*a, *a]}, a={}),
            one("initialize", {"components": []}, [("initialize", {"components": a})], a={}),
            one("report", None),
            one("report", None, [("initialize", {"components": a})], a={}),
            one("report", None, [("initialize", {"components": a}), ("clear", None)], a={}),
            one("register", "a", a={}),
            one("deregister", "a", a={}),
            one("deregister", "b", a={}),
            one("report", None, [("initialize", {"components": a}), ("deregister", "a")], a={}),
            one("list_kinds", None, a={}, c={}, b={}),
            one("clear", None),
            one("clear_in_loop", None),
        ]
    )


# (what, program, what nemo_relay's last step gives, what relay_mp's does, why)
DIFFERENCES = [
    (
        "unknown fields are diagnosed, as the policy says",
        one("validate", {"more": 1, "policy": {"other": "warn"}}),
        [],
        [
            {"level": "warning", "code": "plugin.unknown_field", "component": None, "field": "more"},
            {"level": "warning", "code": "plugin.unknown_field", "component": None, "field": "policy.other"},
        ],
        "a misspelt key is a setting that silently does not count",
    ),
    (
        "a list is no configuration",
        one("validate", []),
        [],
        {"raised": ["ValueError"]},
        "the peer takes any empty sequence for an empty document",
    ),
    (
        "a file whose components are no list is refused",
        one("initialize", {}, [("file", "components = 3")]),
        [{"level": "warning", "code": "plugin.configuration_inherited", "component": None, "field": None}],
        {"raised": ["RuntimeError"]},
        "the peer ignores it, and with it what it was to say",
    ),
]


@pytest.mark.parametrize("row", DIFFERENCES, ids=[row[0] for row in DIFFERENCES])
def test_differences_from_nemo_relay_are_the_meant_ones(row):
    _, program, theirs, ours, _ = row
    for library, expected in (("nemo_relay", theirs), ("relay_mp", ours)):
        result = run_programs(library, [program])[0][-1]["result"]
        if isinstance(result, dict):
            del result["said"]
        assert result == expected, library


def test_clear_removes_what_a_failed_later_configuration_has_left_in_place(session):
    """The peer's rollback registers the configuration before again; here it has never been away."""
    first = Noting()
    plugin.register("first", first)
    plugin.register("broken", Noting(register=lambda context: 1 / 0))
    plugin.activate(config("first"))
    before = registry.all()
    with pytest.raises(PluginError, match="register of plugin 'broken' failed with ZeroDivisionError"):
        plugin.activate(config("first", "broken"))
    assert registry.all() == before  # the very objects
    assert plugin.report()["diagnostics"] == []
    plugin.clear()
    assert registry.all() == []
    assert plugin.report() is None


# ------------------------------------------------------------------------------------------------ activation


def test_everything_is_registered_and_removed_together(session, seen):
    marks = []

    def register(context):
        context.register_subscriber("s", lambda event: marks.append(event.name))
        context.register_tool_request_intercept("t", 5, True, lambda name, args: args)

    plugin.register("a", Noting(register=register))
    plugin.activate(config("a", "a"))
    prefix = "relay-mp-plugin.v1.a"
    assert sorted(names()) == sorted(f"{prefix}:{n}:{name}" for n in (1, 2) for name in ("m", "t"))
    assert {registration.owner.component_ordinal for registration in registry.all()} == {1, 2}
    scope.event("one")
    plugin.clear()
    scope.event("two")
    subscribers.flush()
    assert marks == ["one", "one"]
    assert names() == []


def test_a_subscriber_that_cannot_be_registered_takes_all_back(session):
    plugin.register("old", Noting(register=lambda context: context.register_subscriber("s", lambda event: None)))
    plugin.activate(config("old"))
    before = registry.all()
    plugin.register("new", Noting(register=lambda context: context.register_subscriber("s", "no.such:thing")))
    with pytest.raises(relay_mp.SubscriberError, match="no.such"):
        plugin.activate(config("old", "new"))
    assert registry.all() == before
    assert session.deregister("relay-mp-plugin.v1.old:1:s", None)


def test_a_context_manager_clears_what_it_has_initialized():
    async def run() -> None:
        plugin.register("a", Noting())
        async with plugin.plugin(config("a")) as found:
            assert found["diagnostics"] == []
            assert len(names()) == 1
        assert names() == []
        async with plugin.plugin(config("a"), clear_on_exit=False):
            pass
        assert len(names()) == 1
        with pytest.raises(PluginError, match="await clear_async"):
            plugin.clear()
        await plugin.clear_async()

    asyncio.run(run())


def test_activating_starts_a_session_where_there_is_none():
    assert current_session() is None
    plugin.register("a", Noting())
    plugin.activate(config("a"))
    assert current_session().is_owner
