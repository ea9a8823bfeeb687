"""What Phoenix, a server of its own, has understood of a run: its spans are the forest of the JSON lines.

Needs the extra `viewers`: `tox -e viewers`. It runs on this machine's loopback, with its data in the test's directory.
"""

import importlib
import json
from datetime import datetime
from pathlib import Path

import pytest

from relay_mp import (
    AtofExporter,
    AtofExporterConfig,
    LLMRequest,
    OpenTelemetryConfig,
    OpenTelemetrySubscriber,
    ScopeType,
    llm,
    pools,
    scope,
)

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]
NEEDED = (["openinference"], "phoenix")
"""Of the extra `viewers`, and of its programs."""

PROJECT = "a run"
QUESTIONS = ["How do I read a file line by line?", "How do I copy a directory?", "How do I parse a date?"]
MODULES = ["argparse", "queue", "shutil", "textwrap"]
KINDS = {
    "agent": "AGENT", "embedder": "EMBEDDING", "evaluator": "EVALUATOR", "function": "CHAIN", "llm": "LLM",
    "reranker": "RERANKER", "retriever": "RETRIEVER", "tool": "TOOL",
}  # fmt: skip
"""OpenInference's span kinds, by ATOF's categories."""


def ask(number):
    """An agent whose LLM call says how many tokens it took."""
    with scope.scope("asker", ScopeType.Agent):
        request = LLMRequest({}, {"messages": [{"role": "user", "content": f"What is {number}?"}]})
        usage = {"prompt_tokens": 10 + number, "completion_tokens": number}
        message = {"role": "assistant", "content": f"It is {number}."}
        handle = llm.call("chat", request, model_name="m-1")
        llm.call_end(handle, {"model": "m-1", "choices": [{"message": message}], "usage": usage})


def run(monkeypatch, tmp_path):
    """examples/worker_pool.py over a few modules, and agents that ask a model, in two processes each."""
    worker_pool = importlib.import_module("worker_pool")
    library = tmp_path / "library"
    library.mkdir()
    for name in MODULES:
        (library / f"{name}.py").symlink_to(Path(json.__file__).parents[1] / f"{name}.py")
    read_corpus = worker_pool.stdlib_search.read_corpus
    monkeypatch.setattr(worker_pool.stdlib_search, "read_corpus", lambda: read_corpus(library))
    worker_pool.run(QUESTIONS, 2, "fork")
    with scope.scope("asking", ScopeType.Function), pools.ProcessPoolExecutor(2) as pool:
        list(pool.map(ask, range(1, 6)))


@pytest.fixture
def exported(viewers, session, tmp_path, monkeypatch):
    """(truth, spans, traces): the events of a run by its JSON lines, and what Phoenix says of it."""
    with viewers.phoenix(tmp_path) as phoenix:
        config = OpenTelemetryConfig("openinference", phoenix.traces_url)
        config.set_resource_attribute("openinference.project.name", PROJECT)
        file = AtofExporterConfig()
        file.output_directory, file.filename = str(tmp_path), "events.jsonl"
        exporters = [AtofExporter(file), OpenTelemetrySubscriber(config)]
        for number, exporter in enumerate(exporters):
            exporter.register(f"{number}")
        run(monkeypatch, tmp_path)
        for exporter in exporters:
            exporter.shutdown(60)
        assert [report.lost for report in session.stats().exporters.values()] == [0, 0]
        truth = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
        scopes = {event["uuid"] for event in truth if event["kind"] == "scope"}
        return truth, phoenix.wait_for_spans(PROJECT, len(scopes)), phoenix.traces(PROJECT)


def span_id(uuid):
    return None if uuid is None else uuid.replace("-", "")[16:]


def test_phoenix_has_the_forest_of_the_json_lines(exported):
    truth, spans, traces = exported
    starts = {event["uuid"]: event for event in truth if event.get("scope_category") == "start"}
    ends = {event["uuid"]: event for event in truth if event.get("scope_category") == "end"}
    by_id = {span["context"]["span_id"]: span for span in spans}
    assert len(spans) == len(by_id) == len(starts) == len(ends)

    expected = {
        span_id(uuid): (start["name"], span_id(start["parent_uuid"]) if start["parent_uuid"] in starts else None)
        for uuid, start in starts.items()
    }
    assert {id_: (span["name"], span["parent_id"]) for id_, span in by_id.items()} == expected
    for uuid, start in starts.items():
        span = by_id[span_id(uuid)]
        assert span["span_kind"] == KINDS[start["category"]]
        times = [datetime.fromisoformat(event["timestamp"]) for event in (start, ends[uuid])]
        assert [datetime.fromisoformat(span[name]) for name in ("start_time", "end_time")] == times
        marks = [event["name"] for event in truth if event["kind"] == "mark" and event["parent_uuid"] == uuid]
        assert sorted(event["name"] for event in span["events"]) == sorted(marks)

    usages = {span_id(uuid): end["data"]["usage"] for uuid, end in ends.items() if end["category"] == "llm"}
    assert len(usages) == 5
    for id_, usage in usages.items():
        assert by_id[id_]["attributes"]["llm.token_count.prompt"] == usage["prompt_tokens"]
        assert by_id[id_]["attributes"]["llm.token_count.completion"] == usage["completion_tokens"]
    assert len(traces) == 2
    assert sum(trace["token_count_prompt"] for trace in traces) == sum(u["prompt_tokens"] for u in usages.values())
    assert sum(trace["token_count_completion"] for trace in traces) == sum(
        usage["completion_tokens"] for usage in usages.values()
    )
