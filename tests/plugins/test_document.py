"""A configuration as a document: its shape, what it says that has no meaning, and what is no JSON."""

import pytest
from plugin_cases import Noting, config, names

from relay_mp import PayloadError, PluginConfigError, PluginError, plugin

pytestmark = pytest.mark.usefixtures("no_plugins_after")


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
        said = "'polcy', which has no meaning; write 'policy' or .*'enbled', which has no meaning; write 'enabled' or "
        with pytest.raises(PluginError, match=said):
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
        (3, "the configuration is an int; expected PluginConfig or a dict"),
    ],
)
def test_what_has_not_the_shape_of_a_configuration_is_refused_by_place(document, said):
    with pytest.raises(PluginConfigError, match=said):
        plugin.validate(document)


def test_what_is_no_json_is_refused_by_path():
    with pytest.raises(PayloadError, match=r"config.components\[0\].config.x: unsupported type object"):
        plugin.validate(config() | {"components": [{"kind": "a", "config": {"x": object()}}]})
