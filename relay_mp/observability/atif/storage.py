"""Where trajectories are posted to, as the program and the configuration say it."""

from dataclasses import dataclass, field
from typing import ClassVar

from relay_mp.observability.export.checks import check_requests, check_url
from relay_mp.observability.export.findings import Report
from relay_mp.observability.export.section import Section

__all__ = ["HttpStorageConfig"]


@dataclass(slots=True)
class HttpStorageConfig(Section):
    """Where trajectories are posted to.

    Attributes:
        endpoint: http or https.
        headers: of every request.
        header_env: header names to names of environment variables that hold their values, looked up where the
            dispatcher runs.
        timeout_millis: of one attempt.
    """

    TYPE: ClassVar[str] = "http"

    endpoint: str = field(default="", repr=False)
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    header_env: dict[str, str] = field(default_factory=dict)
    timeout_millis: int = 3000

    def check(self, report: Report) -> None:
        """See Section."""
        check_url(self.endpoint, report.key("endpoint"))
        check_requests(self, report)
