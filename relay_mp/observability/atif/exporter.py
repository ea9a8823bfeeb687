"""The ATIF exporters: what agents did, step by step, as trajectories of ATIF v1.7.

    AtifExporter      gathers events in this process; `export()` makes one trajectory of all of them
    AtifFileExporter  a file, or an HTTP request, for each top-level agent scope, when it has ended

Which event is in which trajectory, and which call is in which step, goes by uuid: agents of many
processes may interleave in any way. See model.py for what becomes what.
"""

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from relay_mp import subscribers
from relay_mp._native.core import fork_epoch
from relay_mp._session.membership import current_or_default, session_id
from relay_mp._threads import Lock
from relay_mp.errors import SubscriberError, described_type
from relay_mp.events import Event
from relay_mp.observability.atif.filenames import check_template
from relay_mp.observability.atif.model import AgentInfo, trajectory_of
from relay_mp.observability.atif.spool import read_records
from relay_mp.observability.atif.storage import HttpStorageConfig
from relay_mp.observability.export.base import Exporter
from relay_mp.observability.export.sink import MAX_OPEN_SCOPES
from relay_mp.types import JsonObject

__all__ = ["AtifExporter", "AtifFileExporter", "HttpStorageConfig", "atif"]

_SPOOL = "relay_mp.observability.atif.spool:Spool"
_SINK = "relay_mp.observability.atif.sink:AtifSink"

MAX_TRAJECTORY_EVENTS = 100_000

MAX_TRAJECTORIES_BYTES = 256 << 20
"""More than other exporters keep: here all events of an agent are, not only the starts of what is open."""
"""Events of one trajectory; what is beyond is dropped and counted ("trajectory_full")."""


class AtifExporter:
    """Gathers the session's events, from registration on, and makes a trajectory of them when asked.

    The events are kept in memory, until `clear`. With a dispatcher in another process they are kept there in
    a file in the temporary directory, which is gone with `deregister`.

    Args:
        session_id: of the run; the trajectory's id.
        agent_name: of the agent system.
        agent_version: of the agent system.
        model_name: its model, where steps do not say.
        tool_definitions: the tools it may use.
        extra: of the agent.
    """

    def __init__(
        self,
        session_id: str,
        agent_name: str,
        agent_version: str,
        *,
        model_name: str | None = None,
        tool_definitions: list[JsonObject] | None = None,
        extra: Any = None,
    ) -> None:
        for name, value in (("session_id", session_id), ("agent_name", agent_name), ("agent_version", agent_version)):
            if not isinstance(value, str):
                raise TypeError(f"{name} is {described_type(value)}; expected str")
        self._session_id = session_id
        self._info = AgentInfo(agent_name, agent_version, model_name, tool_definitions, extra)
        self._records: list[bytes] = []  # no events: a collection of garbage would go through them, again and again
        self._spool: str | None = None
        self._read_bytes = 0
        self._reading = Lock()  # who exports in two threads at once gathers each record once
        self._name: str | None = None
        self._epoch = fork_epoch()

    def register(self, name: str) -> None:
        """Gathers the events emitted from now on. In a worker whose session has it already, this does nothing.

        Raises:
            SubscriberError: the name is taken, or the exporter is registered already.
        """
        if self._name is not None:
            raise SubscriberError(f"this AtifExporter is registered as {self._name!r}; deregister it first")
        subscribers.check_registration(name, print, None)
        session = current_or_default()
        if session.is_known(name, _SPOOL if session.has_dispatcher_process else self._take):
            return
        if session.dispatches_elsewhere:
            handle, spool = tempfile.mkstemp(prefix="relay-mp-atif-", suffix=".records")
            os.close(handle)
            try:
                subscribers.register(name, _SPOOL, arguments={"path": spool})
            except BaseException:
                os.unlink(spool)
                raise
            self._spool = spool
        else:
            subscribers.register(name, self._take)
        self._name, self._epoch = name, fork_epoch()

    def deregister(self, name: str) -> bool:
        """Stops gathering; what was gathered stays, until `clear`.

        Returns:
            Whether the exporter was registered under that name.
        """
        if name != self._name:
            return False
        found = subscribers.deregister(name)
        if self._epoch != fork_epoch():
            return found  # a forked child's copy: the file is the parent's
        self._gather()
        if self._spool is not None:
            os.unlink(self._spool)
            self._spool = None
        self._read_bytes = 0
        self._name = None
        return found

    def export(self) -> JsonObject:
        """The trajectory of what was gathered so far; flush before, to have all.

        Agents without an agent around them have their steps in it, the others are subagents. Any thread. While it is
        made, some 5 us an event, the process collects no cyclic garbage: see `model.CollectionPause`.

        Raises:
            RecordError: an event is damaged.
        """
        self._gather()
        return trajectory_of(self._records.copy(), self._info, self._session_id)

    def export_json(self) -> str:
        """`export()` as JSON text."""
        return json.dumps(self.export(), ensure_ascii=False, sort_keys=True)

    def clear(self) -> None:
        """Forgets what was gathered; the registration stays."""
        self._gather()
        self._records.clear()

    def _take(self, event: Event) -> None:
        self._records.append(event._record)

    def _gather(self) -> None:
        """Reads what the dispatcher's process has written since."""
        with self._reading:
            if self._spool is None:
                return
            with open(self._spool, "rb") as file:
                records, self._read_bytes = read_records(file, self._read_bytes)
            self._records += records


class AtifFileExporter(Exporter):
    """One trajectory for each top-level agent scope of the session, in a file, or to HTTP storage, or both.

    A trajectory is written when its agent and all scopes in it have ended, as one file, whole or not at all;
    events that come later still, such as a mark under a scope that has ended, write it again. Agents that have
    not ended at shutdown are written as they are, and counted as unfinished. Until then their events are in
    the dispatcher's memory: if a dispatcher process is killed, they are counted as `unconfirmed`. While one is
    written, where the dispatcher runs, that process collects no cyclic garbage.

    Args:
        output_directory: where the files go; made if it is missing. None: nowhere, there must be storage; then a
            recovery copy of each trajectory is in the temporary directory until the receiver has it.
        filename_template: the files' names, with `{session_id}`, the agent scope's uuid, and
            `{metadata.KEY}` or `{metadata.KEY:-OTHERWISE}` from that scope's metadata, of which only letters,
            digits, `.`, `_` and `-` are taken.
        storage: one or several receivers; one that fails does not stop the others.
        agent_name: of the agent system.
        agent_version: of the agent system.
        model_name: its model, where steps do not say.
        tool_definitions: the tools it may use.
        extra: of the agent.
        limits: bounds of queue and retries of storage, by name; see `relay_mp.observability.Limits`.
        max_open_scopes: scopes kept until their trajectory is written; the oldest is written beyond that; default
            1,000,000.
        max_open_bytes: events kept, as their records, until their trajectory is written, and for what comes late;
            beyond that those that are written are forgotten, then the oldest lose their payloads, for which
            `relay_mp.cut` stands, and if that is not enough the oldest trajectory is written as it is; default 256 MiB.
        max_trajectory_events: events of one trajectory; what is beyond is dropped and counted; default 100,000.

    Raises:
        ValueError: the template is not safe, or there is nowhere to write to.
    """

    def __init__(
        self,
        output_directory: str | os.PathLike[str] | None = None,
        *,
        filename_template: str = "relay-mp-atif-{session_id}.json",
        storage: HttpStorageConfig | Sequence[HttpStorageConfig] = (),
        agent_name: str = "relay_mp",
        agent_version: str = "unknown",
        model_name: str | None = None,
        tool_definitions: list[JsonObject] | None = None,
        extra: JsonObject | None = None,
        limits: dict[str, Any] | None = None,
        max_open_scopes: int | None = None,
        max_open_bytes: int | None = None,
        max_trajectory_events: int | None = None,
    ) -> None:
        check_template(filename_template)
        storages = [storage] if isinstance(storage, HttpStorageConfig) else list(storage)
        for one in storages:
            if not isinstance(one, HttpStorageConfig):
                raise TypeError(f"storage is or has {described_type(one)}; expected HttpStorageConfig, or a list")
        if output_directory is None and not storages:
            raise ValueError("there is neither an output_directory nor a storage; expected one of them, or both")
        shared = {
            "filename_template": filename_template,
            "agent_name": agent_name,
            "agent_version": agent_version,
            "model_name": model_name,
            "tool_definitions": tool_definitions,
            "extra": extra,
            "limits": limits or {},
            "max_open_scopes": MAX_OPEN_SCOPES if max_open_scopes is None else max_open_scopes,
            "max_open_bytes": MAX_TRAJECTORIES_BYTES if max_open_bytes is None else max_open_bytes,
            "max_trajectory_events": MAX_TRAJECTORY_EVENTS if max_trajectory_events is None else max_trajectory_events,
            "output_directory": None,
            "storage": None,
            "recovery_directory": _recovery_directory(),
        }
        places: list[dict[str, Any]] = []
        if output_directory is not None:
            places.append({"output_directory": os.path.abspath(output_directory)})
        for number, one in enumerate(storages, 1):
            places.append({"storage": asdict(one), "recovery_directory": f"{shared['recovery_directory']}-{number}"})
        super().__init__([(_SINK, {**shared, **place}) for place in places])


def _recovery_directory() -> str:
    name = f"relay-mp-atif-{session_id()}"
    try:
        return os.path.join(tempfile.gettempdir(), name)
    except OSError:
        return name  # no temporary directory can be written to: the sink says so, if it needs one


def atif(**settings: Any) -> Any:
    """The kind of exporter of that name: a sink, of one directory, or one storage as a dict, or both.

    Args:
        settings: as of AtifFileExporter; and `recovery_directory`, default: one in the temporary directory.
    """
    return AtifFileExporter(os.curdir).make_sink(**{"output_directory": None, **settings})
