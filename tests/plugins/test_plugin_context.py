"""What a plugin's `register` is given: what it takes, what it refuses, and until when."""

import pytest
from plugin_cases import Noting, config, names

from relay_mp import PluginError, plugin
from relay_mp._emit.families import FAMILIES
from relay_mp._emit.middleware import registry

pytestmark = pytest.mark.usefixtures("no_plugins_after")


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
        (lambda c: c.register_mark_sanitize_guardrail("x", 1, 3), "callback is an int; expected a callable"),
        (lambda c: c.register_mark_sanitize_guardrail(1, 1, print), "name is an int; expected str"),
        (lambda c: c.register_tool_request_intercept("x", 1, "no", print), "break_chain is a str; expected bool"),
        (lambda c: c.register_subscriber("x", 3), "callback is an int; expected a callable"),
    ],
)
def test_what_a_context_refuses_fails_the_activation(register, said):
    plugin.register("a", Noting(register=register))
    with pytest.raises(PluginError, match=said):
        plugin.activate(config("a"))
    assert names() == []
