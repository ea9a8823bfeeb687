"""`plugins.toml`: where it is looked for, and how configurations are laid over one another.

    lowest   the user's     $XDG_CONFIG_HOME/relay_mp/plugins.toml (~/.config), or a file that is named
             the system's   /etc/relay_mp/plugins.toml
    highest  the code's     what `plugin.initialize` is given

Components are matched by kind. Tables merge; a list at the top of a component's `config` is put before
that of the layer below, any other list replaces it. A component that a file disables is as if it were not
there. What code leaves out, or leaves at its default, in `version` and `policy`, comes from the files.
Source of these rules: nemo-relay 0.8's documentation of plugin configuration files, and its behaviour.
"""

import os
from pathlib import Path
from typing import Any

from relay_mp._emit.arguments import freeze_setting, thaw
from relay_mp._plugins.document import DEFAULT_POLICY, VERSION, ConfigDiagnostic, diagnostic, parse
from relay_mp.errors import PluginConfigError, PluginError, RelayError

__all__ = ["layered", "read"]

SYSTEM_FILE = Path("/etc/relay_mp/plugins.toml")
MAX_FILE_BYTES = 1024 * 1024
"""A configuration is text that people write; what is larger is the wrong file."""


def _user_file() -> Path:
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return Path(base) / "relay_mp" / "plugins.toml"


def read(path: Path) -> dict[str, Any]:
    """The configuration in a TOML file, checked for its shape.

    Raises:
        PluginError: it cannot be read, is not TOML, or not a configuration; the message names the file.
    """
    import tomllib

    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE_BYTES + 1)
        if len(text) > MAX_FILE_BYTES:
            raise PluginConfigError(f"it has more than {MAX_FILE_BYTES} bytes")
        document: dict[str, Any] = thaw(freeze_setting(tomllib.loads(text.decode()), "document"))
        if (version := document.get("version", VERSION)) != VERSION or type(version) is not int:
            raise PluginConfigError(f"its version is {version!r:.80}; expected {VERSION}")
        kinds = [component.kind for component in parse(document, "document").components]
        for kind in kinds:
            if kinds.count(kind) > 1:
                raise PluginConfigError(f"it has {kinds.count(kind)} components of kind {kind!r}; expected one of each")
    except (OSError, ValueError, RelayError) as error:
        raise PluginError(f"the plugin configuration {path} cannot be used: {error}") from error
    return document


def _found(explicit: str | os.PathLike[str] | None) -> list[Path]:
    """The files that there are, lowest first, each physical file once."""
    candidates = [_user_file() if explicit is None else Path(explicit), SYSTEM_FILE]
    found: dict[Path, Path] = {}
    for path in candidates:
        if path.exists() or (explicit is not None and path is candidates[0]):
            found.setdefault(path.resolve(), path)
    return list(found.values())


def _merge_tables(low: dict[str, Any], high: dict[str, Any]) -> dict[str, Any]:
    merged = {**low, **high}
    for key, value in high.items():
        below = low.get(key)
        if isinstance(value, dict) and isinstance(below, dict):
            merged[key] = _merge_tables(below, value)
    return merged


def _merge_components(low: dict[str, Any], high: dict[str, Any]) -> dict[str, Any]:
    below, above = low.get("config", {}), high.get("config", {})
    config = _merge_tables(below, above)
    for key, value in above.items():
        if isinstance(value, list) and isinstance(below.get(key), list):
            config[key] = value + below[key]
    return {**low, **high, "config": config}


def _merge(low: dict[str, Any], high: dict[str, Any]) -> dict[str, Any]:
    """One document over another. Of two components of a kind in `high`, the first meets that of `low`."""
    merged = _merge_tables(low, {key: value for key, value in high.items() if key != "components"})
    components = list(low.get("components", []))
    below = {component["kind"]: index for index, component in enumerate(components)}
    for component in high.get("components", []):
        index = below.pop(component["kind"], None)
        if index is None:
            components.append(component)
        else:
            components[index] = _merge_components(components[index], component)
    return {**merged, "components": components}


def _without_defaults(code: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in code.items() if key != "version" or value != VERSION}
    if "policy" in code:
        policy = code["policy"]
        kept["policy"] = {key: value for key, value in policy.items() if DEFAULT_POLICY.get(key) != value}
    return kept


def layered(
    code: dict[str, Any], explicit: str | os.PathLike[str] | None = None
) -> tuple[dict[str, Any], list[ConfigDiagnostic]]:
    """The configuration that counts: the code's over the files', and what is to be said of that.

    Args:
        code: what was passed, as a JSON object that parses.
        explicit: a file to be read instead of the user's; it has to be there.

    Raises:
        PluginError: a file cannot be used.
    """
    findings: list[ConfigDiagnostic] = []
    merged: dict[str, Any] = {}
    said: dict[str, tuple[bool, Path]] = {}  # by kind: the highest file that says whether it is enabled
    for path in _found(explicit):
        document = read(path)
        if explicit is None or path != Path(explicit):
            message = f"the configuration in {path} was found and used"
            findings.append(diagnostic("warning", "plugin.configuration_inherited", message))
        components = document.get("components", [])
        said.update({each["kind"]: (each["enabled"], path) for each in components if "enabled" in each})
        enabled = [each for each in components if each.get("enabled", True)]
        merged = _merge(merged, {**document, "components": enabled})
    for component in code.get("components", []):
        is_enabled, path = said.get(component["kind"], (True, SYSTEM_FILE))
        if component.get("enabled", True) and not is_enabled:
            message = f"component {component['kind']!r} is enabled by code, though {path} has enabled = false"
            findings.append(
                diagnostic(
                    "warning", "plugin.component_reenabled", message, component=component["kind"], field="enabled"
                )
            )
    return _merge(merged, _without_defaults(code)), findings
