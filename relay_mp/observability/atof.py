"""The ATOF exporter: the canonical event stream as JSON lines in a file.

Each event is one line and goes to the kernel before the next one is looked at. A full disk or a missing
directory is a counted subscriber failure; the line is then wholly missing, never half there, and the
application goes on.
"""

import enum
import os

from relay_mp import subscribers
from relay_mp._deliver.dispatcher import logger
from relay_mp._deliver.jsonl import JsonlFile
from relay_mp._session.membership import current, current_or_default, session_id
from relay_mp.errors import SubscriberError
from relay_mp.events import Event

__all__ = ["AtofExporter", "AtofExporterConfig", "AtofExporterMode"]


class AtofExporterMode(enum.Enum):
    """What happens to a file that is there already."""

    Append = "append"
    Overwrite = "overwrite"

    def __repr__(self) -> str:
        return f"AtofExporterMode.{self.name}"

    __str__ = __repr__


class AtofExporterConfig:
    """Where an AtofExporter writes. Attributes may be set until the exporter is made.

    Attributes:
        output_directory: default: the current directory. Made if it is missing.
        filename: default: `relay-mp-events-<session id>.jsonl`, so that no two runs share a file.
        mode: Append, or Overwrite, which empties a file that is there and says so in the log.
        sink_type: "file".
    """

    def __init__(self) -> None:
        self.sink_type = "file"
        self.output_directory = os.getcwd()
        self.filename = f"relay-mp-events-{session_id()}.jsonl"
        self.mode = AtofExporterMode.Append


class AtofExporter:
    """Writes every event of the session to a file, as ATOF 0.1 JSON lines, in the order of the stream.

    Args:
        config: read now; later changes to it have no effect.

    Raises:
        TypeError, ValueError: the config holds what it should not.
    """

    def __init__(self, config: AtofExporterConfig) -> None:
        if not isinstance(config, AtofExporterConfig):
            raise TypeError(f"config is a {type(config).__name__}; expected AtofExporterConfig")
        if config.sink_type != "file":
            raise ValueError(f"sink_type is {config.sink_type!r}; there is only 'file'")
        if not isinstance(config.mode, AtofExporterMode):
            raise TypeError(f"mode is {config.mode!r}; expected AtofExporterMode.Append or .Overwrite")
        for name in ("output_directory", "filename"):
            value = getattr(config, name)
            if not isinstance(value, (str, os.PathLike)):
                raise TypeError(f"{name} is a {type(value).__name__}; expected str")
        if not os.path.basename(config.filename):
            raise ValueError(f"filename is {config.filename!r}; expected a file's name")
        self._path = os.path.abspath(os.path.join(config.output_directory, config.filename))
        self._overwrite = config.mode is AtofExporterMode.Overwrite
        self._file: JsonlFile | None = None
        self._names: list[str] = []
        self._shut_down = False

    @property
    def path(self) -> str:
        """The file."""
        return self._path

    def register(self, name: str) -> None:
        """Starts writing the events emitted from now on. The file is opened here, so that errors show.

        Args:
            name: of the subscriber; see subscribers.register.

        Raises:
            SubscriberError: the name is taken, the exporter is shut down or registered already.
            OSError: the file cannot be opened, another process or exporter is writing to it, or it ends in
            what is no event.
        """
        if self._shut_down or self._names:
            state = "shut down" if self._shut_down else f"registered as {self._names[0]!r}"
            raise SubscriberError(f"this exporter of {self._path} is {state}; make another one")
        self._finish()
        self._prepare()
        try:
            if current_or_default().dispatches_elsewhere:
                subscribers.register(name, "relay_mp._deliver.jsonl:JsonlFile", arguments={"path": self._path})
            else:
                self._file = JsonlFile(self._path)
                subscribers.register(name, self._write)
        except BaseException:
            self._close()
            raise
        self._names.append(name)

    def _prepare(self) -> None:
        """Opens the file once here: wherever it is written later, its errors are this caller's."""
        replaced = os.path.getsize(self._path) if self._overwrite and os.path.exists(self._path) else 0
        if replaced:
            logger.warning("overwriting %s, which held %d bytes", self._path, replaced)
        JsonlFile(self._path, overwrite=self._overwrite).close()

    def _write(self, event: Event) -> None:
        if self._file is not None:
            self._file(event)

    def deregister(self, name: str) -> bool:
        """Stops writing: events emitted before are still written.

        Returns:
            Whether the exporter was registered under that name.
        """
        if name not in self._names:
            return False
        self._names.remove(name)
        return subscribers.deregister(name)

    def force_flush(self) -> None:
        """Waits until every event emitted before is in the file.

        Raises:
            FlushError, FlushTimeoutError: see subscribers.flush.
        """
        subscribers.flush()

    def shutdown(self) -> None:
        """Deregisters, waits for the last events, closes the file. Idempotent.

        It also waits in a running event loop, which it blocks meanwhile.

        Raises:
            FlushError, FlushTimeoutError: as `Session.flush`; the file is then still open for what is yet
                to come, and closed by another shutdown.
        """
        self._shut_down = True
        for name in list(self._names):
            self.deregister(name)
        self._finish()

    def _finish(self) -> None:
        """Closes the file behind the last event of a registration that has ended."""
        if self._file is None:
            return
        session = current()
        if session is not None and session.is_open:
            session.flush()
        self._close()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
