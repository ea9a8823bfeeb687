"""A run as a Chrome trace, which Perfetto opens: made by the exporter of that format, in a temporary directory."""

import contextlib
import os
import tempfile

from relay_mp._runs.reading import event_of_line
from relay_mp._runs.records import event_of
from relay_mp.errors import RecordError
from relay_mp.observability.perfetto.exporter import PerfettoExporter
from relay_mp.view.payloads import Payloads

__all__ = ["trace_of"]

GIVE_UP_SECONDS = 10.0


def trace_of(lines: Payloads) -> bytes:
    """The trace of all lines that are there; what is not an event is left out.

    Raises:
        OSError: there is no room for it.
    """
    with tempfile.TemporaryDirectory(prefix="relay-mp-view-") as directory:
        path = os.path.join(directory, "trace.json")
        sink = PerfettoExporter(path).make_sink()
        try:
            for _, piece in lines.chunks():
                for line in piece.splitlines():
                    with contextlib.suppress(ValueError, RecordError):
                        sink(event_of(event_of_line(line)))
        finally:
            sink.finish(GIVE_UP_SECONDS)
            sink.close()
        with open(path, "rb") as file:
            return file.read()
