"""Plugins in one process: documents, files, activation and its rollback; and that nemo_relay does the same.

The differences that are meant, each a row of DIFFERENCES with its reason, are asserted for both libraries.
"""

import json
import subprocess
import sys
from typing import Any

import plugin_programs
import pytest

from relay_mp import plugin
from relay_mp._emit.middleware import registry
from relay_mp._plugins import files

PROGRAMS_IN_CI = 150
PROGRAMS_LONG = 5_000


@pytest.fixture(autouse=True)
def _no_plugins_after(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(files, "SYSTEM_FILE", tmp_path / "etc" / "plugins.toml")
    yield
    plugin.clear()
    for kind in plugin.list_kinds():
        plugin.deregister(kind)


class Noting:
    """A plugin that notes its calls, and registers a sanitizer and what it is told to."""

    def __init__(self, diagnostics: Any = None, register: Any = None) -> None:
        self.calls: list[Any] = []
        self.contexts: list[plugin.PluginContext] = []
        self._diagnostics, self._register = diagnostics, register

    def validate(self, config):
        self.calls.append(("validate", config))
        if isinstance(self._diagnostics, BaseException):
            raise self._diagnostics
        return self._diagnostics

    def register(self, config, context):
        self.calls.append(("register", config))
        self.contexts.append(context)
        context.register_mark_sanitize_guardrail("m", 10, lambda event, fields: fields)
        if self._register is not None:
            self._register(context)


def names() -> list[str]:
    return [registration.name for registration in registry.all()]


def config(*kinds: str, **settings: Any) -> dict[str, Any]:
    return {"components": [{"kind": kind} for kind in kinds], **settings}


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
