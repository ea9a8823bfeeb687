"""The observability component: all exporters of a session from one configuration, as a plugin.

    plugins.toml, ObservabilityConfig ─▶ reading.py ─▶ sections ──check──────▶ diagnostics
                                                           └─exporters─▶ PluginContext.register_exporter
                                                                             └─▶ starting.start, with the dispatcher

No format is named here: the sections are the fields of the configuration's dataclass, by their types.

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
from relay_mp.observability.component.config import CONFIG_VERSION, ObservabilityConfig
from relay_mp.observability.component.destinations import check_destinations
from relay_mp.observability.component.reading import UNUSABLE, read, read_section, section_types
from relay_mp.observability.export.base import Exporter
from relay_mp.observability.export.findings import Findings, Report, Where
from relay_mp.observability.export.section import Planned, Section
from relay_mp.types import JsonObject

__all__ = ["Observability"]

_SUPPORTED_VERSIONS = (3, CONFIG_VERSION)
_ROOT = Where("observability")
_LEGACY_ATOF = ("endpoints", "output_directory", "filename", "mode")

Made = tuple[Planned, Exporter]


class Observability:
    """The plugin of kind "observability". A configuration may have one such component.

    Args:
        config: the dataclass of its configuration; its sections are what can be exported.
    """

    is_single = True

    def __init__(self, config: type = ObservabilityConfig) -> None:
        self._config = config
        self._sections = section_types(config)

    def validate_with_policy(self, plugin_config: JsonObject, policy: dict[str, str]) -> list[ConfigDiagnostic]:
        """See `Plugin.validate`; the document's policy counts where it is not at its default."""
        findings, _ = self._examine(plugin_config, policy)
        return findings.diagnostics

    def register(self, plugin_config: JsonObject, context: PluginContext) -> None:
        """Registers an exporter for each section that is enabled and can be used."""
        _, made = self._examine(plugin_config, DEFAULT_POLICY)
        names: set[str] = set()
        for planned, exporter in made:
            for number, (target, arguments) in enumerate(exporter._sinks):
                context.register_exporter(
                    _free(planned.name, names),
                    "relay_mp.observability.export.starting:start",
                    {"target": target, "arguments": arguments},
                    field=str(planned.where).removeprefix("observability."),
                    prepare=exporter._prepare if number == 0 else None,
                )

    def _examine(self, config: dict[str, Any], policy: dict[str, str]) -> tuple[Findings, list[Made]]:
        """What there is to say about a config, and the exporters that it makes, not yet registered anywhere."""
        findings = _with_policy(config, policy)
        root = Report(findings, _ROOT)
        _check_version(config, root)
        rest = _without_legacy(config, findings)
        parts = {name: rest.pop(name) for name in self._sections if rest.get(name) is not None}
        rest.pop("policy", None)
        read_section(self._config, {key: value for key, value in rest.items() if key != "version"}, root)
        made = [each for name, part in parts.items() for each in self._made(name, part, findings)]
        check_destinations([(Report(findings, planned.where), exporter) for planned, exporter in made])
        return findings, [each for each in made if not findings.has_unusable(each[0].where)]

    def _made(self, name: str, part: Any, findings: Findings) -> Iterator[Made]:
        report = Report(findings, Where(name))
        found = read(self._sections[name], part, report)
        if isinstance(found, list):
            sections = [(report.item(index), item) for index, item in enumerate(found)]
        else:
            sections = [(report, found)]
        for place, section in sections:
            if section is not None and section is not UNUSABLE:
                yield from _made_of(section, place, findings)


def _made_of(section: Section, report: Report, findings: Findings) -> Iterator[Made]:
    """The exporters of one section that can be made."""
    section.check(report)
    for planned in section.exporters(report.where) if section.enabled else ():
        if findings.has_unusable(planned.where):
            continue
        place = Report(findings, planned.where)
        try:
            yield planned, planned.make()
        except ImportError as error:
            place.error("missing_extra", str(error))
        except (TypeError, ValueError) as error:
            # What the checks have found is not said again, in other words.
            if all(each.component != planned.where.component for each in findings.unusable):
                place.unsupported(f"cannot be used: {error}")


def _free(name: str, taken: set[str]) -> str:
    """The name, with a number if it is taken."""
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{name}.{number}"
    taken.add(free)
    return free


def _with_policy(config: dict[str, Any], document: dict[str, str]) -> Findings:
    """The document's policy where it differs from its default, else the component's own."""
    own = config.get("policy")
    given = own if isinstance(own, dict) else {}
    kept = {
        name: value for name, value in given.items() if name in DEFAULT_POLICY and value in ("ignore", "warn", "error")
    }
    policy = {**kept, **{name: value for name, value in document.items() if value != DEFAULT_POLICY[name]}}
    findings = Findings(policy, config.get("version", CONFIG_VERSION))
    report = Report(findings, _ROOT.key("policy"))
    if own is not None and not isinstance(own, dict):
        report.invalid("is not a table")
    for name, value in given.items():
        if name not in DEFAULT_POLICY:
            Report(findings, Where("policy", "")).unknown(name, DEFAULT_POLICY)
        elif name not in kept and value is not None:
            report.key(name).invalid("has to be one of 'ignore', 'warn', 'error'")
    return findings


def _check_version(config: dict[str, Any], root: Report) -> None:
    version, report = config.get("version", CONFIG_VERSION), root.key("version")
    if type(version) is not int:
        report.invalid(f"is not an integer; expected {CONFIG_VERSION}")
    elif version not in _SUPPORTED_VERSIONS:
        message = f"is {version}; expected {CONFIG_VERSION}, or 3 for one without logs and metrics"
        report.error("unsupported_config_version", message)


def _without_legacy(config: dict[str, Any], findings: Findings) -> dict[str, Any]:
    """Sections of earlier versions are told of by name, for they were right once."""
    kept = dict(config)
    if kept.pop("openinference", None) is not None:
        message = 'is not a section since version 3: give an OpenTelemetry endpoint the type "openinference"'
        Report(findings, _ROOT.key("openinference")).error("legacy_openinference_section", message)
    atof = kept.get("atof")
    for name in _LEGACY_ATOF:
        if isinstance(atof, dict) and name in atof:
            message = "is not a field since version 2: give the section `sinks`, each with its type"
            Report(findings, Where("atof", name)).error("legacy_atof_field", message)
    return kept
