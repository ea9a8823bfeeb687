"""The Perfetto exporter: a session as a Chrome trace, a picture of who did what when.

Processes and threads are named tracks, scopes are slices, marks are instants, and an arrow leads from a
scope to each child of another thread or process. The file is JSON, streamed: a day's run takes no more
memory than an hour's, and opens in https://ui.perfetto.dev, in chrome://tracing and in trace processors,
also when the program was killed before its end. JSON rather than Perfetto's protobuf, since it is read
by more tools, by people too, and needs no further package.
"""

import os
from typing import Any

from relay_mp._session.membership import session_id
from relay_mp.observability.export.base import Exporter
from relay_mp.observability.export.sink import MAX_OPEN_SCOPES

__all__ = ["PerfettoExporter", "perfetto"]


class PerfettoExporter(Exporter):
    """Writes the session to a file in the Chrome trace format.

    A scope is written when it ends. One that has not ended at shutdown is written as it is, with
    `"unfinished": true`, and counted. One whose start was not seen, as after the kill of a dispatcher
    process, shows as an instant at its end, and is counted as an orphan.

    Args:
        path: the file; default: `relay-mp-trace-<session id>.json` in the current directory. A trace of
            this exporter that is there already is continued; any other file is refused.
        max_open_scopes: the oldest open scope is written as unfinished beyond that; default 1,000,000.
        payloads: whether slices and instants carry input, output, data and metadata, each up to 8192
            characters.

    Raises:
        TypeError: the path is not a path.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        max_open_scopes: int | None = None,
        payloads: bool = True,
    ) -> None:
        given = os.fspath(path) if path is not None else f"relay-mp-trace-{session_id()}.json"
        self.path: str = os.path.abspath(given)
        arguments: dict[str, Any] = {
            "path": self.path,
            "max_open_scopes": MAX_OPEN_SCOPES if max_open_scopes is None else max_open_scopes,
            "payloads": payloads,
        }
        super().__init__([("relay_mp.observability.perfetto.sink:PerfettoSink", arguments)])

    def _describe(self) -> str:
        return f"this exporter of {self.path}"


def perfetto(path: str, **settings: Any) -> Any:
    """The kind of exporter of that name: a sink.

    Args:
        path: of the file.
        settings: as of PerfettoExporter.
    """
    return PerfettoExporter(path).make_sink(**settings)
