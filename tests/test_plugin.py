"""Plugins in one process: documents, files, activation and its rollback; and that nemo_relay does the same.

The differences that are meant, each a row of DIFFERENCES with its reason, are asserted for both libraries.
"""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import plugin_programs
import pytest

import relay_mp
from relay_mp import PayloadError, PluginConfigError, PluginError, plugin, scope, subscribers
from relay_mp._emit.families import FAMILIES
from relay_mp._emit.middleware import registry
from relay_mp._plugins import files
from relay_mp._session.membership import current

PROGRAMS_IN_CI = 150
PROGRAMS_LONG = 5_000


@pytest.fixture(autouse=True)
def _no_plugins_after(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(files, "SYSTEM_FILE", tmp_path / "etc" / "plugins.toml")
    yield
    plugin.clear()
    for kind in set(plugin.list_kinds()) - set(plugin.BUILT_IN):
        plugin.deregister(kind)
    relay_mp.shutdown()  # the default session, where there was no other


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


# ------------------------------------------------------------------------------------------- documents, files


@pytest.mark.parametrize(
    ("policy", "level"), [(None, "warning"), ("warn", "warning"), ("error", "error"), ("ignore", None)]
)
def test_unknown_fields_are_as_the_policy_says(policy, level):
    plugin.register("a", Noting())
    document = {"components": [{"kind": "a", "enbled": False}], "polcy": {}}
    if policy:
        document["policy"] = {"unknown_field": policy}
    found = plugin.validate(document)["diagnostics"]
    assert [(each["level"], each["code"], each["field"]) for each in found] == (
        [] if level is None else [(level, "plugin.unknown_field", "polcy"), (level, "plugin.unknown_field", "enbled")]
    )
    if level == "error":
        with pytest.raises(PluginError, match="'polcy', which has no meaning.*'enbled', which has no meaning"):
            plugin.activate(document)
    else:
        plugin.activate(document)
    assert bool(names()) == (level != "error")


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"version": "1"}, r"config.version is '1'; expected an integer"),
        ({"components": [{"kind": "a"}, {}]}, r"config.components\[1\] has no kind; expected the name of a registered"),
        ({"components": [{"kind": "a", "config": 3}]}, r"config.components\[0\].config is 3; expected a table"),
        ({"policy": {"unknown_field": "x"}}, r"config.policy.unknown_field is 'x'; expected ignore, warn or error"),
        (3, "the configuration is a int; expected PluginConfig or a dict"),
    ],
)
def test_what_has_not_the_shape_of_a_configuration_is_refused_by_place(document, said):
    with pytest.raises(PluginConfigError, match=said):
        plugin.validate(document)


def test_what_is_no_json_is_refused_by_path():
    with pytest.raises(PayloadError, match=r"config.components\[0\].config.x: unsupported type object"):
        plugin.validate(config() | {"components": [{"kind": "a", "config": {"x": object()}}]})


def test_a_plugin_gets_a_copy_of_its_config():
    class Changing(Noting):
        def register(self, config, context):
            config["list"].append(1)

    plugin.register("a", Changing())
    given = {"components": [{"kind": "a", "config": {"list": []}}]}
    plugin.activate(given)
    assert given["components"][0]["config"] == {"list": []}


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_the_systems_file_is_over_the_users_and_code_over_both(tmp_path):
    noting = Noting()
    plugin.register("a", noting)
    user = '[[components]]\nkind = "a"\n[components.config]\nl = [1]\nx = "user"\nu = 1\n'
    write(tmp_path / "xdg" / "relay_mp" / "plugins.toml", user)
    write(files.SYSTEM_FILE, '[[components]]\nkind = "a"\n[components.config]\nl = [2]\nx = "system"\ns = 1980-01-01\n')
    found = plugin.activate({"components": [{"kind": "a", "config": {"l": [3], "x": "code"}}]})
    assert noting.calls[-1] == ("register", {"l": [3, 2, 1], "s": "1980-01-01", "u": 1, "x": "code"})
    assert [each["code"] for each in found["diagnostics"]] == ["plugin.configuration_inherited"] * 2


def test_a_named_file_takes_the_place_of_the_users(tmp_path):
    noting = Noting()
    plugin.register("a", noting)
    write(tmp_path / "xdg" / "relay_mp" / "plugins.toml", "not toml")
    named = write(tmp_path / "mine.toml", '[[components]]\nkind = "a"\nconfig = {x = "mine"}\n')
    asyncio.run(plugin.initialize({}, named))
    assert noting.calls[-1] == ("register", {"x": "mine"})
    with pytest.raises(PluginError, match="missing.toml cannot be used"):
        plugin.activate({}, tmp_path / "missing.toml")
    assert names() != []


def test_a_file_at_and_above_its_bound(tmp_path, monkeypatch):
    text = "version = 1\n# filled\n"
    path = write(tmp_path / "mine.toml", text)
    monkeypatch.setattr(files, "MAX_FILE_BYTES", len(text))
    plugin.activate({}, path)
    monkeypatch.setattr(files, "MAX_FILE_BYTES", len(text) - 1)
    with pytest.raises(PluginError, match=f"has more than {len(text) - 1} bytes"):
        plugin.activate({}, path)


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


def test_a_context_has_a_method_for_every_family():
    def register(context):
        for family in FAMILIES.values():
            chain = [True] if family.breaks else []
            getattr(context, f"register_{family.kind.value}")("n", 3, *chain, print)

    plugin.register("a", Noting(register=register))
    plugin.activate(config("a"))
    found = [each for each in registry.all() if each.local_name == "n"]
    assert [(each.family, each.priority, each.break_chain) for each in found] == [
        (family, 3, family.breaks) for family in FAMILIES.values()
    ]


def test_late_registrations_end_with_their_component(session):
    noting = Noting()
    plugin.register("a", noting)
    plugin.activate(config("a"))
    (context,) = noting.contexts
    context.register_llm_request_intercept("late", 1, False, lambda *arguments: None)
    assert len(names()) == 2
    plugin.clear()
    assert names() == []
    with pytest.raises(PluginError, match="the component is not active any more"):
        context.register_llm_request_intercept("later", 1, False, lambda *arguments: None)


@pytest.mark.parametrize(
    ("register", "said"),
    [
        (lambda c: c.register_mark_sanitize_guardrail("m", 1, print), "has registered a mark_sanitize_guardrail 'm'"),
        (lambda c: c.register_mark_sanitize_guardrail("x", "1", print), "priority is a str; expected int"),
        (lambda c: c.register_mark_sanitize_guardrail("x", 1, 3), "callback is a int; expected a callable"),
        (lambda c: c.register_mark_sanitize_guardrail(1, 1, print), "name is a int; expected str"),
        (lambda c: c.register_tool_request_intercept("x", 1, "no", print), "break_chain is a str; expected bool"),
        (lambda c: c.register_subscriber("x", 3), "callback is a int; expected a callable"),
    ],
)
def test_what_a_context_refuses_fails_the_activation(register, said):
    plugin.register("a", Noting(register=register))
    with pytest.raises(PluginError, match=said):
        plugin.activate(config("a"))
    assert names() == []


def test_asynchronous_plugins_are_refused_without_a_warning(recwarn):
    class Asynchronous(Noting):
        async def register(self, config, context):
            raise AssertionError

    class Validating(Noting):
        async def validate(self, config):
            raise AssertionError

    plugin.register("a", Asynchronous())
    plugin.register("b", Validating())
    with pytest.raises(PluginError, match="it is asynchronous; expected a plain function"):
        plugin.activate(config("a"))
    (found,) = plugin.validate(config("b"))["diagnostics"]
    assert found["code"] == "plugin.validate_failed"
    assert list(recwarn) == []


def test_a_plugin_may_be_a_class_or_a_name():
    plugin.register("class", Noting)
    plugin.register("name", "test_plugin:Noting")
    plugin.register("nowhere", "test_plugin:Nothing")
    plugin.activate(config("class", "name"))
    assert len(names()) == 2
    (found,) = plugin.validate(config("nowhere"))["diagnostics"]
    assert (found["level"], found["code"]) == ("error", "plugin.load_failed")
    with pytest.raises(TypeError, match="without a method register"):
        plugin.register("nothing", object())


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
    assert current() is None
    plugin.register("a", Noting())
    plugin.activate(config("a"))
    assert current().is_owner
