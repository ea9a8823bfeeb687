"""What the suite uses beside the library itself, asked for before anything is measured.

Without any of it the suite runs, and leaves out what it says: a peer that is not installed, a program that cannot be
compiled. A side asks again when it opens (harness.Unavailable), so this list is for people, and not what decides.
"""

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass


def _installed(module: str) -> Callable[[], bool]:
    def found() -> bool:
        try:
            return importlib.util.find_spec(module) is not None
        except ModuleNotFoundError:  # a package above it
            return False

    return found


def compiler() -> str | None:
    """The C compiler that builds the suite's own programs."""
    return os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


@dataclass(frozen=True)
class Need:
    """Something that may not be here.

    Attributes:
        name: of the package or program.
        left_out: what is not measured without it.
        parts: those that this concerns; none: all.
        is_here: looks for it, and imports nothing but its parents.
        from_extra: whether the extra `bench` brings it.
    """

    name: str
    left_out: str
    parts: tuple[str, ...]
    is_here: Callable[[], bool]
    from_extra: bool = True


_COMPARED = ("emit", "load", "delivered", "exporters", "growth", "managed")
_QUEUED = ("emit", "load", "delivered")
OTLP_MODULE = "opentelemetry.exporter.otlp.proto.common"

NEEDS = (
    Need("nemo-relay", "its sides, and the targets that name it", _COMPARED, _installed("nemo_relay")),
    Need("faster-fifo", "its sides", _QUEUED, _installed("faster_fifo")),
    Need("opentelemetry-sdk", "the SDK's sides", _QUEUED, _installed("opentelemetry.sdk")),
    Need("relay_mp[otel]", "OTLP over HTTP", ("exporters",), _installed(OTLP_MODULE)),
    Need("matplotlib", "the pictures", (), _installed("matplotlib")),
    Need(
        "a C compiler", "the ring in C, memcpy, the killed writer", ("floor", "growth", "recovery"),
        lambda: compiler() is not None, from_extra=False,
    ),
)  # fmt: skip


def missing(parts: Iterable[str]) -> Iterator[str]:
    """A line for each thing that is not here and that one of the parts uses."""
    wanted = set(parts)
    for need in NEEDS:
        concerned = [part for part in need.parts if part in wanted]
        if need.is_here() or (need.parts and not concerned):
            continue
        where = f" in {', '.join(concerned)}" if concerned else ""
        how = "; pip install '.[bench]'" if need.from_extra else ""
        yield f"{need.name} is not installed: left out{where}: {need.left_out}{how}"
