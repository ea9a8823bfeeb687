"""The Perfetto exporter: a session as a Chrome trace, a picture of who did what when.

Processes and threads are named tracks, scopes are slices, marks are instants, and an arrow leads from a
scope to each child of another thread or process. The file is JSON, streamed: a day's run takes no more
memory than an hour's, and opens in https://ui.perfetto.dev, in chrome://tracing and in trace processors,
also when the program was killed before its end. JSON rather than Perfetto's protobuf, since it is read
by more tools, by people too, and needs no further package.
"""

import enum
import os
from typing import Any

from relay_mp._session.membership import session_id
from relay_mp.observability.export.base import Exporter
from relay_mp.observability.export.sink import MAX_OPEN_BYTES, MAX_OPEN_SCOPES
from relay_mp.observability.perfetto.trace_file import path_of_run

__all__ = ["PerfettoExporter", "PerfettoExporterMode", "perfetto"]


class PerfettoExporterMode(enum.Enum):
    """What happens to a file that is there already, of another session or of another program."""

    New = "new"
    Append = "append"
    Overwrite = "overwrite"

    def __repr__(self) -> str:
        return f"PerfettoExporterMode.{self.name}"

    __str__ = __repr__


class PerfettoExporter(Exporter):
    """Writes the session to a file in the Chrome trace format.

    A scope is written when it ends. One that has not ended at shutdown is written as it is, with
    `"unfinished": true`, and counted. One whose start was not seen, as after the kill of a dispatcher
    process, shows as an instant at its end, and is counted as an orphan.

    Args:
        path: the file; default: `relay-mp-trace-<session id>.json` in the current directory. What the same session
            has written there goes on.
        mode: what is done with a file that is there already. New: it stays as it is, and this run is written to
            `<name>-<session id>.json` beside it. Append: it goes on, if it is a trace of this exporter; any other file
            is refused. Overwrite: it is emptied.
        max_open_scopes: the oldest open scope is written as unfinished beyond that; default 1,000,000.
        max_open_bytes: what is kept of open scopes, as the records of their starts; beyond that the oldest lose their
            payloads, for which `relay_mp.cut` stands, and if that is not enough the oldest is written as unfinished;
            default 64 MiB.
        payloads: whether slices and instants carry input, output, data and metadata, each up to 8192
            characters.

    Raises:
        TypeError: the path is not a path, or the mode is not a PerfettoExporterMode.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        mode: PerfettoExporterMode = PerfettoExporterMode.New,
        max_open_scopes: int | None = None,
        max_open_bytes: int | None = None,
        payloads: bool = True,
    ) -> None:
        if not isinstance(mode, PerfettoExporterMode):
            raise TypeError(f"mode is {mode!r}; expected PerfettoExporterMode.New, .Append or .Overwrite")
        given = os.fspath(path) if path is not None else f"relay-mp-trace-{session_id()}.json"
        self._path: str = os.path.abspath(given)
        self._mode = mode
        arguments: dict[str, Any] = {
            "path": self._path,
            "mode": mode.value,
            "max_open_scopes": MAX_OPEN_SCOPES if max_open_scopes is None else max_open_scopes,
            "max_open_bytes": MAX_OPEN_BYTES if max_open_bytes is None else max_open_bytes,
            "payloads": payloads,
        }
        super().__init__([("relay_mp.observability.perfetto.sink:PerfettoSink", arguments)])

    @property
    def path(self) -> str:
        """The file, absolute: once the exporter is registered, the one in which this session's run is written."""
        beside = path_of_run(self._path, session_id())
        is_beside = self._mode is PerfettoExporterMode.New and os.path.exists(beside)
        return beside if is_beside else self._path

    def _describe(self) -> str:
        return f"this exporter of {self.path}"


def perfetto(path: str, mode: str = PerfettoExporterMode.New.value, **settings: Any) -> Any:
    """The kind of exporter of that name: a sink.

    Args:
        path: of the file.
        mode: "new", "append" or "overwrite".
        settings: as of PerfettoExporter.
    """
    return PerfettoExporter(path, mode=PerfettoExporterMode(mode)).make_sink(**settings)
