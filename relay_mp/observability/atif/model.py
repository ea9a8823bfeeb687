"""From events to ATIF v1.7 trajectories. Pure: records in, JSON objects out.

    LLM start                a step of the user, if the request ends with what a user said
    LLM end                  a step of the agent: message, thoughts, tool calls, metrics, as the response's view has
                             them (relay_mp.codecs): whatever the provider, cached tokens are among the prompt's
    tool start, end          a tool call and its result, in the step of the LLM call that asked for it, found by the
                             call's id; where the provider gave it none, by name and arguments; else in a step of its
                             own, with llm_call_count 0
    agent inside an agent    a subagent trajectory, and a step that refers to it
    marks, other scopes      extra.observed_events of their trajectory, as ATOF has them

Everything is placed by uuid and by the tool calls' own ids, never by what came last: agents of many
processes interleave in one stream. Steps are in the order of the stream. What ended never, or whose start
was not seen, is there with what is known of it. Lineage: `extra.ancestry` of trajectories, steps and tool
calls, `extra.invocation` beside it, both as the models of `nvidia-nat-atif` have them.

The building is compiled, in `steps.pyx`. Source of the format: ATIF, "Agent Trajectory Interchange Format",
RFC of the Harbor project, v1.7.
"""

import gc
import os
from dataclasses import dataclass
from typing import Any

from relay_mp._threads import Lock
from relay_mp.observability.atif.steps import TrajectoryBuilder

__all__ = ["AgentInfo", "CollectionPause", "collection_pause", "trajectory_of"]


class CollectionPause:
    """While any thread is inside, the process collects no cyclic garbage; then again, if it did before.

    A trajectory is a tree of tens of objects an event, and what makes it has no cycles. Python cannot know that: at
    each quarter by which the process has grown, it would look through all that there is, for a third of the time that
    the building takes.

    Any thread; where another one says `gc.disable()` meanwhile, it has to say it again. A child that is forked
    meanwhile collects, for who was inside is not there.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._inside = 0
        self._was_enabled = False
        os.register_at_fork(after_in_child=self._end)

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._was_enabled = gc.isenabled()
                gc.disable()
            self._inside += 1

    def __exit__(self, *_exception: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside and self._was_enabled:
                gc.enable()

    def _end(self) -> None:
        self._lock = Lock()
        if self._inside and self._was_enabled:
            gc.enable()
        self._inside = 0


collection_pause = CollectionPause()


@dataclass(frozen=True)
class AgentInfo:
    """What a trajectory says of the agent system."""

    name: str = "relay_mp"
    version: str = "unknown"
    model_name: str | None = None
    tool_definitions: list[dict[str, Any]] | None = None
    extra: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """As ATIF's `agent`."""
        fields = {
            "name": self.name,
            "version": self.version,
            "model_name": self.model_name,
            "tool_definitions": self.tool_definitions,
            "extra": self.extra,
        }
        return {name: value for name, value in fields.items() if value is not None}


def trajectory_of(
    records: list[bytes], info: AgentInfo, session_id: str, root_uuid: str | None = None
) -> dict[str, Any]:
    """One trajectory, with its subagents in it.

    Args:
        records: of events, in the order of the stream.
        info: what is said of the agent system.
        session_id: of the run; also the trajectory's id.
        root_uuid: the agent scope that the trajectory is; None: a trajectory of all the events, in which
            agents without an agent around them have their steps in it.

    Returns:
        A JSON object of ATIF v1.7.

    Raises:
        RecordError: a record is not an event's, or damaged.
    """
    with collection_pause:
        builder = TrajectoryBuilder(root_uuid)
        builder.add(records)
        return builder.build(info.to_dict(), session_id)
