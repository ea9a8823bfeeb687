"""Where exporters write: no two to one file, and into directories that are there or can be made."""

import os
from collections.abc import Sequence

from relay_mp.observability.export.base import Exporter
from relay_mp.observability.export.findings import Report

__all__ = ["check_destinations"]


def check_destinations(made: Sequence[tuple[Report, Exporter]]) -> None:
    """Notes files that two exporters would write, and directories that are not there and cannot be made.

    Args:
        made: the exporters, each with what takes what there is to say about its place.
    """
    writers: dict[str, Report] = {}
    for report, exporter in made:
        for _, arguments in exporter._sinks:
            given = arguments.get("arguments", arguments)  # of one that goes by its kind
            path, directory = given.get("path"), given.get("output_directory")
            if isinstance(path, str):
                other = writers.setdefault(os.path.realpath(path), report)
                if other is not report:
                    report.error("duplicate_destination", f"would write the file that {other.where} writes")
                directory = os.path.dirname(os.path.abspath(path))
            trouble = _trouble_of(directory) if isinstance(directory, str) else None
            if trouble:
                message = f"cannot be written now, and is tried again while the session runs: {trouble}"
                report.warn("unusable_directory", message)


def _trouble_of(directory: str) -> str | None:
    """Why a directory cannot be written, or made."""
    found = directory
    while not os.path.lexists(found) and os.path.dirname(found) != found:
        found = os.path.dirname(found)
    if not os.path.isdir(found):
        return f"{found} is not a directory"
    if not os.access(found, os.W_OK | os.X_OK):
        return f"no permission to write in {found}"
    return None
