"""The section `atif`: one exporter of trajectories, to files, to storage, or to both."""

import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from relay_mp.observability.atif.exporter import AtifFileExporter
from relay_mp.observability.atif.filenames import check_template
from relay_mp.observability.atif.storage import HttpStorageConfig
from relay_mp.observability.export.checks import check_at_least, check_limits
from relay_mp.observability.export.endpoint import redacted_url
from relay_mp.observability.export.findings import Report, Where
from relay_mp.observability.export.section import Planned, Section, default_of, placed

__all__ = ["AtifConfig"]


@dataclass(slots=True)
class AtifConfig(Section):
    """A trajectory for each top-level agent. See `AtifFileExporter` for what each field does.

    Attributes:
        output_directory: None: the current one, unless there is storage.
    """

    enabled: bool = False
    agent_name: str = default_of(AtifFileExporter, "agent_name")
    agent_version: str | None = None
    model_name: str = "unknown"
    tool_definitions: list[dict[str, Any]] | None = None
    extra: dict[str, Any] | None = None
    output_directory: str | None = None
    filename_template: str = default_of(AtifFileExporter, "filename_template")
    storage: list[HttpStorageConfig] | None = None
    limits: dict[str, Any] = field(default_factory=dict)
    max_open_scopes: int | None = None
    max_open_bytes: int | None = None
    max_trajectory_events: int | None = None

    def check(self, report: Report) -> None:
        """See Section."""
        try:
            check_template(self.filename_template)
        except ValueError as error:
            report.key("filename_template").unsupported(f"cannot be used: {error}")
        for place, storage in placed(report, "storage", self.storage):
            storage.check(place)
        check_limits(self, report)
        check_at_least(self, report, 1, "max_open_scopes", "max_open_bytes", "max_trajectory_events")

    def exporters(self, at: Where) -> Iterator[Planned]:
        """See Section."""
        storage = [one for _, one in placed(at, "storage", self.storage)]
        directory = os.getcwd() if self.output_directory is None and not storage else self.output_directory
        settings = {**self.settings(), "output_directory": directory, "storage": storage}
        name = os.path.abspath(directory) if directory else redacted_url(storage[0].endpoint)
        yield Planned(at, f"atif:{name}", functools.partial(AtifFileExporter, **settings))
