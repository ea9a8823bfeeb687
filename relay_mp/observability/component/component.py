"""The observability component: all exporters of a session from one configuration, as a plugin.

    plugins.toml, ObservabilityConfig ─▶ reading.py ─▶ sections ─▶ checks.py ─▶ diagnostics
                                                           └─▶ exporters ─▶ PluginContext.register_exporter
                                                                                └─▶ starting.start, with the dispatcher

What is wrong with the configuration itself keeps all of it from being activated, as any error of a plugin
configuration does: a value that has no meaning, a variable that is not set, an extra that is not installed, two
exporters of one file. What is wrong with the world only keeps the exporter in question from running, and only as
long as it is wrong: a port that is taken, a directory that cannot be made, a receiver that is down. That is in
`plugin.report()` and `session.stats().exporters`, in the log, and nowhere else.

Runs where a configuration is activated. The exporters run where the dispatcher runs, once in a session.
"""

from collections.abc import Iterator
from typing import Any

from relay_mp._plugins.context import PluginContext
from relay_mp._plugins.document import DEFAULT_POLICY, ConfigDiagnostic
from relay_mp.observability.component import sections
from relay_mp.observability.component.checks import check, check_together
from relay_mp.observability.component.config import CONFIG_VERSION, ObservabilityConfig
from relay_mp.observability.component.reading import UNUSABLE, Findings, Where, read, read_section
from relay_mp.observability.component.unit import Unit
from relay_mp.observability.export.base import Exporter
from relay_mp.types import JsonObject

__all__ = ["Observability"]

_SUPPORTED_VERSIONS = (3, CONFIG_VERSION)
_ROOT = Where("observability")
_LEGACY_ATOF = ("endpoints", "output_directory", "filename", "mode")

Made = tuple[Unit, Exporter]


class Observability:
    """The plugin of kind "observability". A configuration may have one such component."""

    is_single = True

    def validate_with_policy(self, plugin_config: JsonObject, policy: dict[str, str]) -> list[ConfigDiagnostic]:
        """See `Plugin.validate`; the document's policy counts where it is not at its default."""
        findings, _ = _examine(plugin_config, policy)
        return findings.diagnostics

    def register(self, plugin_config: JsonObject, context: PluginContext) -> None:
        """Registers an exporter for each section that is enabled and can be used."""
        _, made = _examine(plugin_config, DEFAULT_POLICY)
        names: set[str] = set()
        for unit, exporter in made:
            for number, (target, arguments) in enumerate(exporter._sinks):
                context.register_exporter(
                    _free(unit.name, names),
                    "relay_mp.observability.export.starting:start",
                    {"target": target, "arguments": arguments},
                    field=str(unit.where).removeprefix("observability."),
                    prepare=exporter._prepare if number == 0 else None,
                )


def _free(name: str, taken: set[str]) -> str:
    """The name, with a number if it is taken."""
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{name}.{number}"
    taken.add(free)
    return free


def _examine(config: dict[str, Any], policy: dict[str, str]) -> tuple[Findings, list[Made]]:
    """What there is to say about a config, and the exporters that it makes, not yet registered anywhere."""
    findings = _with_policy(config, policy)
    _check_version(config, findings)
    rest = _without_legacy(config, findings)
    parts = {name: rest.pop(name) for name in sections.SECTIONS if rest.get(name) is not None}
    rest.pop("policy", None)
    read_section(ObservabilityConfig, {key: value for key, value in rest.items() if key != "version"}, _ROOT, findings)
    made = [each for name, part in parts.items() for each in _made(name, part, config, findings)]
    check_together([(unit.where, exporter) for unit, exporter in made], findings)
    return findings, [each for each in made if not findings.has_unusable(each[0].where)]


def _made(name: str, part: Any, config: dict[str, Any], findings: Findings) -> Iterator[Made]:
    where, hint = sections.SECTIONS[name]
    section = read(hint, part, where, findings)
    if section is UNUSABLE:
        return
    check(name, section, config.get("version", CONFIG_VERSION), findings)
    for unit in sections.units(name, section):
        if findings.has_unusable(unit.where):
            continue
        try:
            yield unit, unit.make()
        except ImportError as error:
            findings.error("missing_extra", unit.where, str(error))
        except (TypeError, ValueError) as error:
            # What the checks have found is not said again, in other words.
            if all(each.component != unit.where.component for each in findings.unusable):
                findings.unsupported(unit.where, f"cannot be used: {error}")


def _with_policy(config: dict[str, Any], document: dict[str, str]) -> Findings:
    """The document's policy where it differs from its default, else the component's own."""
    own = config.get("policy")
    given = own if isinstance(own, dict) else {}
    kept = {
        name: value for name, value in given.items() if name in DEFAULT_POLICY and value in ("ignore", "warn", "error")
    }
    findings = Findings({**kept, **{name: value for name, value in document.items() if value != DEFAULT_POLICY[name]}})
    where = _ROOT.key("policy")
    if own is not None and not isinstance(own, dict):
        findings.invalid(where, "is no table")
    for name, value in given.items():
        if name not in DEFAULT_POLICY:
            findings.unknown(Where("policy", name))
        elif name not in kept and value is not None:
            findings.invalid(where.key(name), "has to be one of 'ignore', 'warn', 'error'")
    return findings


def _check_version(config: dict[str, Any], findings: Findings) -> None:
    version = config.get("version", CONFIG_VERSION)
    if type(version) is not int:
        findings.invalid(_ROOT.key("version"), f"is no integer; expected {CONFIG_VERSION}")
    elif version not in _SUPPORTED_VERSIONS:
        findings.error(
            "unsupported_config_version",
            _ROOT.key("version"),
            f"is {version}; expected {CONFIG_VERSION}, or 3 for one without logs and metrics",
        )


def _without_legacy(config: dict[str, Any], findings: Findings) -> dict[str, Any]:
    """Sections of earlier versions are told of by name, for they were right once."""
    kept = dict(config)
    if kept.pop("openinference", None) is not None:
        message = 'is no section since version 3: give an OpenTelemetry endpoint the type "openinference"'
        findings.error("legacy_openinference_section", _ROOT.key("openinference"), message)
    atof = kept.get("atof")
    for name in _LEGACY_ATOF:
        if isinstance(atof, dict) and name in atof:
            message = "is no field since version 2: give the section `sinks`, each with its type"
            findings.error("legacy_atof_field", Where("atof", name), message)
    return kept
