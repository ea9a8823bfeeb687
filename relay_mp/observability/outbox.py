"""The import path of `Limits` before it moved; goes on working."""

from relay_mp.observability.export.batch_queue import Limits, QueuedSink, Refused, Retryable, TooLarge

__all__ = ["Limits", "QueuedSink", "Refused", "Retryable", "TooLarge"]
