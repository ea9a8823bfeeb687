"""The machine that is measured on: what figures are figures of."""

import importlib.metadata
import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
_PROCESSORS = Path("/proc/cpuinfo")


def machine() -> dict[str, Any]:
    """Processor, cores that this process may use, memory, system, and what the machine does already."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "system": f"{platform.system()} {platform.release()}",
        "load_average_before": round(os.getloadavg()[0], 2),
    }


def governor() -> str | None:
    """The CPU frequency governor of the first processor; None where the system does not tell, as most virtual ones."""
    try:
        return _GOVERNOR.read_text(encoding="utf-8").strip() or None
    except OSError:
        return None


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Of Python, of its compiler, and of those of the packages that are installed."""
    found = {"python": platform.python_version(), "compiler": platform.python_compiler()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    if _PROCESSORS.exists():
        for line in _PROCESSORS.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()
