"""The ATOF exporter: the canonical event stream as JSON lines, in a file or to an HTTP receiver.

File: each event is one line, which is with the kernel before the event counts as delivered, and before its other
subscribers are called or right with them; lines that have gathered go with one write. A full disk or a missing
directory is a counted failure; the line is then wholly missing, never half there. Stream: lines
wait in a bounded queue for a thread that posts them, so that a receiver that is slow or down holds up
nothing; what it does not take in time is dropped and counted. Either way the application goes on, and
`session.stats().exporters` says how it went.
"""

import enum
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import TIMEOUT_MAX
from typing import Any, Literal, TypeAlias, get_args

from relay_mp._deliver.file_lock import await_orphan
from relay_mp._deliver.jsonl import JsonlFile
from relay_mp._session.membership import session_id
from relay_mp.errors import described_type
from relay_mp.observability.export.base import Exporter
from relay_mp.observability.export.endpoint import redacted_url

__all__ = ["AtofExporter", "AtofExporterConfig", "AtofExporterMode", "atof_file", "atof_stream"]

Transport: TypeAlias = Literal["http_post", "ndjson"]
FieldNamePolicy: TypeAlias = Literal["preserve", "replace_dots"]
FsyncPolicy: TypeAlias = Literal["never", "flush", "always"]


class AtofExporterMode(enum.Enum):
    """What happens to a file that is there already."""

    Append = "append"
    Overwrite = "overwrite"

    def __repr__(self) -> str:
        return f"AtofExporterMode.{self.name}"

    __str__ = __repr__


@dataclass(slots=True, eq=False, repr=False)
class AtofExporterConfig:
    """Where one sink of an AtofExporter writes. Attributes may be set until the exporter is made.

    Attributes:
        sink_type: "file" or "stream".
        output_directory: file; default: the current directory. Made if it is missing.
        filename: file; default: `relay-mp-events-<session id>.jsonl`, so that no two runs share one.
        mode: file; Append, or Overwrite, which empties a file that is there.
        fsync: file; "never": the kernel has each line at once, and writes it to the disk in its own time;
            "flush": the disk has it when `force_flush` and `shutdown` return; "always": before the next event.
        rotate_bytes: file; one this long is renamed to `<name>-<session id>.0001.jsonl` and so on, and a new
            one begun, before the next line; 0: never.
        rotated_files: file; how many of those are kept, the newest; 0: all.
        orphan_wait_seconds: file; how long `register` waits for the dispatcher process of a program that was killed and
            still writes the file, before it is a `FileTakenError`; 0: not at all.
        url: stream; http or https.
        transport: stream; "http_post": a request an event; "ndjson": as many lines a request as have gathered.
        headers: stream; of every request.
        header_env: stream; header names to names of environment variables that hold their values, looked
            up where the dispatcher runs.
        timeout_millis: stream; of one attempt.
        field_name_policy: stream; "preserve", or "replace_dots": dots in keys become underscores.
        origin: whether each line says who has emitted its event and where it is in the stream: its metadata has
            `relay_mp.origin`, an object with `seq`, `pid`, `thread_id` and `session`. An event that brings one along
            keeps it. False: the line is the event's `to_json_line()`.
        limits: stream; bounds of queue, batch and retries by name, see `relay_mp.observability.Limits`.
    """

    sink_type: str = "file"
    output_directory: str | os.PathLike[str] = field(default_factory=os.getcwd)
    filename: str = field(default_factory=lambda: f"relay-mp-events-{session_id()}.jsonl")
    mode: AtofExporterMode = AtofExporterMode.Append
    fsync: FsyncPolicy = "never"
    rotate_bytes: int = 0
    rotated_files: int = 0
    orphan_wait_seconds: float = 15.0
    url: str = ""
    transport: Transport = "http_post"
    headers: dict[str, str] = field(default_factory=dict)
    header_env: dict[str, str] = field(default_factory=dict)
    timeout_millis: int = 3000
    field_name_policy: FieldNamePolicy = "preserve"
    origin: bool = True
    limits: dict[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """The file, absolute."""
        return os.path.abspath(os.path.join(self.output_directory, self.filename))


class AtofExporter(Exporter):
    """Exports every event of the session as ATOF 0.1 JSON lines, in the order of the stream.

    Args:
        config: read now; later changes to it have no effect. A list of them: several sinks at once, each
            of which goes on when another fails.

    Raises:
        TypeError, ValueError: a config holds what it should not.
    """

    def __init__(self, config: AtofExporterConfig | Sequence[AtofExporterConfig]) -> None:
        configs = list(config) if isinstance(config, Sequence) else [config]
        if not configs:
            raise ValueError("config is an empty list; expected at least one AtofExporterConfig")
        self._files: list[tuple[str, bool, float]] = []
        super().__init__([self._sink(one) for one in configs])

    def _sink(self, config: AtofExporterConfig) -> tuple[str, dict[str, Any]]:
        if not isinstance(config, AtofExporterConfig):
            raise TypeError(f"config is {described_type(config)}; expected AtofExporterConfig")
        if config.sink_type == "file":
            path = _checked_path(config)
            _check_seconds("orphan_wait_seconds", config.orphan_wait_seconds)
            self._files.append((path, config.mode is AtofExporterMode.Overwrite, config.orphan_wait_seconds))
            return "relay_mp.observability.atof.sink:FileSink", {**_file_arguments(config), "path": path}
        if config.sink_type != "stream":
            raise ValueError(f"sink_type is {config.sink_type!r}; expected 'file' or 'stream'")
        return "relay_mp.observability.atof.sink:StreamSink", _stream_arguments(config)

    def _describe(self) -> str:
        return f"this exporter of {self.path or redacted_url(self._sinks[0][1]['url'])}"

    @property
    def path(self) -> str | None:
        """The file, of several the first; None if there is none."""
        return self._files[0][0] if self._files else None

    def _prepare(self) -> None:
        """Opens the files once here: wherever they are written later, their errors are this caller's."""
        for path, overwrite, wait_seconds in self._files:
            await_orphan(path, wait_seconds)
            JsonlFile(path, overwrite=overwrite).close()


def atof_file(path: str, **settings: Any) -> Any:
    """The kind of exporter of that name: a sink.

    Args:
        path: of the file.
        settings: "fsync", "rotate_bytes", "rotated_files", "origin", as in AtofExporterConfig.
    """
    return AtofExporter(AtofExporterConfig()).make_sink(path=path, **settings)


def atof_stream(url: str, **settings: Any) -> Any:
    """The kind of exporter of that name: a sink.

    Args:
        url: of the receiver.
        settings: those of a stream, as in AtofExporterConfig.
    """
    return AtofExporter(AtofExporterConfig(sink_type="stream", url=url)).make_sink(**settings)


def _checked_path(config: AtofExporterConfig) -> str:
    if not isinstance(config.mode, AtofExporterMode):
        raise TypeError(f"mode is {config.mode!r}; expected AtofExporterMode.Append or .Overwrite")
    for name in ("output_directory", "filename"):
        value = getattr(config, name)
        if not isinstance(value, (str, os.PathLike)):
            raise TypeError(f"{name} is {described_type(value)}; expected str")
    if not os.path.basename(config.filename):
        raise ValueError(f"filename is {config.filename!r}; expected a file's name")
    return config.path


def _file_arguments(config: AtofExporterConfig) -> dict[str, Any]:
    _check_choice("fsync", config.fsync, get_args(FsyncPolicy))
    for name in ("rotate_bytes", "rotated_files"):
        _check_count(name, getattr(config, name), 0)
    return {
        "fsync": config.fsync,
        "rotate_bytes": config.rotate_bytes,
        "rotated_files": config.rotated_files,
        "session_id": session_id(),
        "origin": _checked_origin(config),
    }


def _stream_arguments(config: AtofExporterConfig) -> dict[str, Any]:
    if not config.url.startswith(("http://", "https://")):
        found = redacted_url(config.url)
        raise ValueError(f"url is {found!r}; a stream sink needs one that begins with http:// or https://")
    _check_choice("transport", config.transport, get_args(Transport))
    _check_choice("field_name_policy", config.field_name_policy, get_args(FieldNamePolicy))
    _check_count("timeout_millis", config.timeout_millis, 1)
    _checked_origin(config)
    names = ("url", "transport", "headers", "header_env", "timeout_millis", "field_name_policy", "origin", "limits")
    return {name: getattr(config, name) for name in names}


def _checked_origin(config: AtofExporterConfig) -> bool:
    if not isinstance(config.origin, bool):
        raise TypeError(f"origin is {config.origin!r}; expected True or False")
    return config.origin


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; expected one of {', '.join(map(repr, choices))}")


def _check_seconds(name: str, value: object) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{name} is {described_type(value)}; expected seconds as a number")
    if not 0 <= value <= TIMEOUT_MAX:
        raise ValueError(f"{name} is {value}; expected 0 to {TIMEOUT_MAX:.0f} seconds")


def _check_count(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} is {described_type(value)}; expected int")
    if value < least:
        raise ValueError(f"{name} is {value}; expected at least {least}")
