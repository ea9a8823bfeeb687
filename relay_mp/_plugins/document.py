"""A plugin configuration as a document: what may be passed, its shape, and what it says.

    PluginConfig, dict, TOML ──plain()──▶ JSON object ──parse()──▶ Document ──examine()──▶ diagnostics

`parse` refuses what has not the document's shape; what has it, but says something that this version does
not know, is for the policy to judge, and becomes a diagnostic. Nothing here runs or registers anything
but the plugins' own `validate`.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Literal, NotRequired, TypedDict

from relay_mp._emit.arguments import freeze_setting, thaw
from relay_mp._plugins.components import copied
from relay_mp.errors import PluginConfigError, PluginError, described_type
from relay_mp.types import JsonObject

__all__ = [
    "ComponentSpec",
    "ConfigDiagnostic",
    "ConfigPolicy",
    "Document",
    "PluginConfig",
    "UnsupportedBehavior",
    "diagnostic",
    "examine",
    "parse",
    "plain",
    "refuse_errors",
    "remedy",
]

UnsupportedBehavior = Literal["ignore", "warn", "error"]
"""What is done about something that this version does not know."""

VERSION = 1
DEFAULT_POLICY = {"unknown_component": "warn", "unknown_field": "warn", "unsupported_value": "error"}
_LEVELS = {"warn": "warning", "error": "error"}
_FIELDS = ("version", "components", "policy")
_COMPONENT_FIELDS = ("kind", "enabled", "config")


class ConfigDiagnostic(TypedDict):
    """One finding about a configuration. An "error" keeps it from being activated."""

    level: Literal["warning", "error"]
    code: str
    message: str
    component: NotRequired[str]
    field: NotRequired[str]


@dataclass(slots=True)
class ConfigPolicy:
    """What is done about what a configuration has and this version does not know.

    "warn" reports it as a warning, "error" as an error, which keeps the configuration from being
    activated, "ignore" not at all.

    Args:
        unknown_component: a kind that no plugin is registered for.
        unknown_field: a key of the document, of its policy or of a component that has no meaning.
        unsupported_value: a key with a meaning, whose value has none, as another `version`.
    """

    unknown_component: UnsupportedBehavior = "warn"
    unknown_field: UnsupportedBehavior = "warn"
    unsupported_value: UnsupportedBehavior = "error"

    def to_dict(self) -> JsonObject:
        """The policy as the JSON object of a document."""
        return {name: getattr(self, name) for name in DEFAULT_POLICY}


@dataclass(slots=True)
class ComponentSpec:
    """One component of a configuration: a plugin, and what it is configured with.

    Args:
        kind: the name under which the plugin is registered.
        enabled: whether it is activated; if not, it is validated all the same.
        config: what its plugin is given: JSON.
    """

    kind: str
    enabled: bool = True
    config: JsonObject = field(default_factory=dict)

    def to_dict(self) -> JsonObject:
        """The component as the JSON object of a document."""
        return {"kind": self.kind, "enabled": self.enabled, "config": self.config}


@dataclass(slots=True)
class PluginConfig:
    """A whole configuration.

    Args:
        version: of the document's format: 1.
        components: `ComponentSpec`s, or objects with a `to_dict`, or dicts; activated in this order.
        policy: what is done about what is not known.
    """

    version: int = VERSION
    components: list[Any] = field(default_factory=list)
    policy: ConfigPolicy = field(default_factory=ConfigPolicy)

    def to_dict(self) -> JsonObject:
        """The configuration as a JSON object."""
        components = [_as_mapping(component) for component in self.components]
        return {"version": self.version, "components": components, "policy": self.policy.to_dict()}


@dataclass(frozen=True, slots=True)
class ParsedComponent:
    """One component as parsed."""

    kind: str
    enabled: bool
    config: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Document:
    """A configuration as parsed; `unknown`: (component's kind or None, key) of what has no meaning."""

    version: int
    components: tuple[ParsedComponent, ...]
    policy: dict[str, str]
    unknown: tuple[tuple[str | None, str], ...]


def _as_mapping(value: Any) -> Any:
    to_dict = getattr(value, "to_dict", None)
    return to_dict() if callable(to_dict) else value


def plain(config: object) -> dict[str, Any]:
    """A configuration, in whatever form, as a JSON object; nulls count as left out, but not inside `config`.

    Raises:
        PluginConfigError: it is not a JSON object.
        PayloadError: a value in it is not JSON; the message names its path.
    """
    document = thaw(freeze_setting(_as_mapping(config), "config"))
    if not isinstance(document, dict):
        raise PluginConfigError(f"the configuration is {described_type(config)}; expected PluginConfig or a dict")
    document = {key: value for key, value in document.items() if value is not None}
    components = document.get("components")
    if isinstance(components, list):
        document["components"] = [
            {key: value for key, value in component.items() if value is not None}
            if isinstance(component, dict)
            else component
            for component in components
        ]
    return document


# ------------------------------------------------------------------------------------------------ shape


def _expect(value: Any, expected: type, path: str) -> Any:
    if type(value) is not expected:
        names = {int: "an integer", str: "a string", bool: "true or false", list: "a list", dict: "a table"}
        raise PluginConfigError(f"{path} is {value!r:.80}; expected {names[expected]}")
    return value


def _parse_component(found: Any, path: str) -> ParsedComponent:
    _expect(found, dict, path)
    if "kind" not in found:
        raise PluginConfigError(f"{path} has no kind; expected the name of a registered plugin")
    kind = _expect(found["kind"], str, f"{path}.kind")
    enabled = _expect(found.get("enabled", True), bool, f"{path}.enabled")
    return ParsedComponent(kind, enabled, _expect(found.get("config", {}), dict, f"{path}.config"))


def _parse_policy(found: Any, path: str) -> dict[str, str]:
    policy = {**DEFAULT_POLICY}
    for name in DEFAULT_POLICY:
        value = _expect(found, dict, path).get(name)
        if value is None:
            continue
        if value not in ("ignore", "warn", "error"):
            raise PluginConfigError(f"{path}.{name} is {value!r:.80}; expected ignore, warn or error")
        policy[name] = value
    return policy


def parse(document: dict[str, Any], where: str = "config") -> Document:
    """Checks a JSON object for the shape of a configuration.

    Args:
        document: from `plain`, or from TOML.
        where: what the messages call it.

    Raises:
        PluginConfigError: a part has not its type; the message names it, and what was expected.
    """
    version = _expect(document.get("version", VERSION), int, f"{where}.version")
    if version < 0:
        raise PluginConfigError(f"{where}.version is {version}; expected {VERSION}")
    found = _expect(document.get("components", []), list, f"{where}.components")
    components = tuple(_parse_component(each, f"{where}.components[{index}]") for index, each in enumerate(found))
    policy = document.get("policy", {})
    unknown: list[tuple[str | None, str]] = [(None, key) for key in document if key not in _FIELDS]
    parsed = _parse_policy(policy, f"{where}.policy")
    unknown += [(None, f"policy.{key}") for key in policy if key not in DEFAULT_POLICY]
    for raw, component in zip(found, components, strict=True):
        unknown += [(component.kind, key) for key in raw if key not in _COMPONENT_FIELDS]
    return Document(version, components, parsed, tuple(unknown))


# ------------------------------------------------------------------------------------------ diagnostics


def diagnostic(
    level: str, code: str, message: str, *, component: str | None = None, field: str | None = None
) -> ConfigDiagnostic:
    """One finding, without the keys that it has no use for."""
    found: Any = {"code": code, "component": component, "field": field, "level": level, "message": message}
    kept: ConfigDiagnostic = {key: value for key, value in found.items() if value is not None}  # type: ignore[assignment]
    return kept


def _judge(document: Document, policy: str, *arguments: Any, **keywords: Any) -> list[ConfigDiagnostic]:
    behavior = document.policy[policy]
    return [] if behavior == "ignore" else [diagnostic(_LEVELS[behavior], *arguments, **keywords)]


def examine(document: Document, find: Callable[[str], Any]) -> list[ConfigDiagnostic]:
    """What is to be said about a configuration, in its order; asks each component's plugin.

    Args:
        find: the plugin of a kind, or None; may raise PluginError, where it cannot be loaded.
    """
    findings: list[ConfigDiagnostic] = []
    if document.version != VERSION:
        findings += _judge(
            document,
            "unsupported_value",
            "plugin.unsupported_config_version",
            f"version is {document.version}; this version of relay_mp knows {VERSION}",
            field="version",
        )
    for kind, key in document.unknown:
        where = "the configuration" if kind is None else f"component {kind!r}"
        known = _COMPONENT_FIELDS if kind is not None else (*_FIELDS, *(f"policy.{name}" for name in DEFAULT_POLICY))
        what_to_do = f"{remedy(key, known)}, or set policy.unknown_field"
        message = f"{where} has a field {key!r}, which has no meaning; {what_to_do}"
        findings += _judge(document, "unknown_field", "plugin.unknown_field", message, component=kind, field=key)
    for component in document.components:
        findings += _examine_component(document, component, find)
    return findings


def remedy(key: str, known: Iterable[str]) -> str:
    """What to do about a key that has no meaning, beside those that have one."""
    close = get_close_matches(key, known, n=1)
    return f"write {close[0]!r} or remove it" if close else "remove it"


def _is_repeated(document: Document, component: ParsedComponent) -> bool:
    """Whether another of its kind comes before it."""
    return next(each for each in document.components if each.kind == component.kind) is not component


def _examine_component(
    document: Document, component: ParsedComponent, find: Callable[[str], Any]
) -> list[ConfigDiagnostic]:
    kind = component.kind
    try:
        plugin = find(kind)
    except PluginError as error:
        return [diagnostic("error", "plugin.load_failed", str(error), component=kind)]
    if plugin is None:
        message = f"no plugin is registered for kind {kind!r}; call plugin.register({kind!r}, ...) first"
        return _judge(document, "unknown_component", "plugin.unknown_component", message, component=kind)
    if getattr(plugin, "is_single", False) and _is_repeated(document, component):
        message = f"there are several components of kind {kind!r}; expected one"
        return [diagnostic("error", "plugin.duplicate_component", message, component=kind)]
    try:
        return _checked(_validated(plugin, component, document.policy))
    except (Exception, KeyboardInterrupt, SystemExit) as error:
        # What a plugin raises, whatever it is, is a finding about its component; nothing has been touched.
        message = f"validate of plugin {kind!r} failed with {type(error).__name__}: {error}"
        return [diagnostic("error", "plugin.validate_failed", message, component=kind)]


def _validated(plugin: Any, component: ParsedComponent, policy: dict[str, str]) -> Any:
    """What the plugin says to `validate_with_policy(config, policy)`, if it has that, else to `validate(config)`."""
    validate = getattr(plugin, "validate", None)
    with_policy = getattr(plugin, "validate_with_policy", None)
    if with_policy is not None:
        return with_policy(copied(component.config), dict(policy))
    return None if validate is None else validate(copied(component.config))


def _checked(found: Any) -> list[ConfigDiagnostic]:
    """What a plugin's validate returned, reduced to the keys of a diagnostic."""
    if found is None:
        return []
    if not isinstance(found, list | tuple):
        close = getattr(found, "close", None)
        if callable(close):
            close()  # a coroutine, of an `async def validate`: it would complain that nobody awaits it
        raise TypeError(f"it returned {described_type(found)}; expected a list of diagnostics, or None")
    findings = []
    for each in found:
        if not isinstance(each, Mapping) or each.get("level") not in ("warning", "error"):
            raise TypeError(f"it returned {each!r:.80}; expected a dict with level, warning or error, code and message")
        for key in ("code", "message", "component", "field"):
            value = each.get(key)
            if not isinstance(value, str) and (value is not None or key in ("code", "message")):
                raise TypeError(f"its diagnostic's {key} is {value!r:.80}; expected a string")
        findings.append(
            diagnostic(
                each["level"],
                each["code"],
                each["message"],
                component=each.get("component"),
                field=each.get("field"),
            )
        )
    return findings


def refuse_errors(findings: list[ConfigDiagnostic]) -> None:
    """Holds if none of the findings is an error.

    Raises:
        PluginError: with the message of each that is.
    """
    errors = [found["message"] for found in findings if found["level"] == "error"]
    if errors:
        raise PluginError(f"the plugin configuration is invalid: {'; '.join(errors)}")
