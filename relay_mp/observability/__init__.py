"""Exporters: subscribers that take the stream out of the process. One format a file.

    base.py      what an exporter is to the program: register, deregister, force_flush, shutdown
    sink.py      what it is to the stream, where the dispatcher runs; outbox.py, http.py: how it sends
    atof, atif   the formats: NAME.py for the program, the rest of NAME where the dispatcher runs
"""

from relay_mp.observability.atif import HttpStorageConfig
from relay_mp.observability.base import Exporter, exporter

__all__ = ["Exporter", "HttpStorageConfig", "exporter"]
