"""Kinds of plugin, and what a component registers: here, and as another process makes it."""

import pytest
from plugin_cases import Noting, config, names

from relay_mp import PluginError, plugin
from relay_mp._plugins import components
from relay_mp._plugins.components import Component

pytestmark = pytest.mark.usefixtures("no_plugins_after")


def test_a_plugin_gets_a_copy_of_its_config():
    class Changing(Noting):
        def register(self, config, context):
            config["list"].append(1)

    plugin.register("a", Changing())
    given = {"components": [{"kind": "a", "config": {"list": []}}]}
    plugin.activate(given)
    assert given["components"][0]["config"] == {"list": []}


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
    plugin.register("name", "plugin_cases:Noting")
    plugin.register("nowhere", "plugin_cases:Nothing")
    plugin.activate(config("class", "name"))
    assert len(names()) == 2
    (found,) = plugin.validate(config("nowhere"))["diagnostics"]
    assert (found["level"], found["code"]) == ("error", "plugin.load_failed")
    with pytest.raises(TypeError, match="without a method register"):
        plugin.register("nothing", object())


def test_another_process_finds_a_class_or_a_name_but_no_object():
    class Local:
        def register(self, config, context):
            pass

    given = {"class": Noting, "name": "plugin_cases:Noting", "object": Noting(), "local": Local}
    for kind, each in given.items():
        components.add(kind, each)
    found = {kind: components.find(kind).target for kind in given}
    assert found == {"class": "plugin_cases:Noting", "name": "plugin_cases:Noting", "object": None, "local": None}


def test_the_callbacks_of_a_component_are_made_once_until_its_config_changes():
    first = Component("noted", 1, "plugin_cases:Noting", {"n": 1})
    callbacks = components.callbacks(first)
    assert list(callbacks) == [("mark_sanitize_guardrail", "m")]
    assert components.callbacks(Component("noted", 1, "plugin_cases:Noting", {"n": 1})) is callbacks
    assert components.callbacks(first._replace(config={"n": 2})) is not callbacks
    assert names() == []  # nothing of it takes effect here


def test_a_component_whose_plugin_is_nowhere_has_no_callbacks():
    with pytest.raises(PluginError, match="plugin 'plugin_cases:Nothing' cannot be made"):
        components.callbacks(Component("nowhere", 1, "plugin_cases:Nothing", {}))


def test_a_kind_is_taken_once():
    plugin.register("a", Noting())
    with pytest.raises(PluginError, match="a plugin 'a' is already registered"):
        plugin.register("a", Noting())
    assert plugin.deregister("a")
    assert not plugin.deregister("a")
