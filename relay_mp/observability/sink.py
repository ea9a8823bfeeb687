"""The import path of `Sink` before it moved; goes on working."""

from relay_mp.observability.export.sink import MAX_OPEN_SCOPES, Sink, brief

__all__ = ["MAX_OPEN_SCOPES", "Sink", "brief"]
