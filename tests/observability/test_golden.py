"""The exports of small scenarios, to the byte."""

import json

import golden
import pytest
import scenarios
import trace_format
from nat.atif import AtifStepExtra, AtifToolCallExtra, Trajectory


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Each scenario's exports, made once."""
    return {
        name: golden.exports(scenario, tmp_path_factory.mktemp(name)) for name, scenario in scenarios.SCENARIOS.items()
    }


@pytest.mark.parametrize("scenario", scenarios.SCENARIOS)
@pytest.mark.parametrize(
    "file",
    [
        "atof.jsonl", "atif.json", "otel_full.json", "otel_gen_ai.json", "otel_logs.json", "otel_metrics.json",
        "otel_openinference.json", "perfetto.json", "prometheus.txt",
    ],
)  # fmt: skip
def test_export_is_the_golden_file(exported, scenario, file):
    """If the change is meant: python tests/observability/golden.py"""
    assert exported[scenario][file] == (golden.DIRECTORY / f"{scenario}.{file}").read_text()


def test_there_are_no_other_golden_files(exported):
    expected = {f"{scenario}.{file}" for scenario, files in exported.items() for file in files}
    assert {path.name for path in golden.DIRECTORY.iterdir()} == expected


def trajectories(exported, scenario):
    return json.loads(exported[scenario]["atif.json"])


def all_steps(trajectory):
    yield from trajectory["steps"]
    for subagent in trajectory.get("subagent_trajectories", ()):
        yield from all_steps(subagent)


@pytest.mark.parametrize("scenario", scenarios.SCENARIOS)
def test_trajectories_are_those_of_the_public_models(exported, scenario):
    for trajectory in trajectories(exported, scenario):
        Trajectory.model_validate(trajectory)
        for step in all_steps(trajectory):
            if "extra" in step:
                AtifStepExtra.model_validate(step["extra"])
            for call in step.get("tool_calls", ()):
                AtifToolCallExtra.model_validate(call.get("extra", {}))


@pytest.mark.parametrize("scenario", scenarios.SCENARIOS)
def test_traces_keep_the_format(exported, scenario):
    trace_format.check(json.loads(exported[scenario]["perfetto.json"]))


def test_each_llm_step_keeps_its_own_metadata_however_calls_interleave(exported):
    """NeMo-Relay 937: start a, start b, end a, agent a ends, end b."""
    by_agent = {t["extra"]["ancestry"]["function_name"]: t for t in trajectories(exported, "interleaved")}
    for name, trajectory in by_agent.items():
        (asked,) = [step for step in trajectory["steps"] if step["source"] == "user"]
        (answered,) = [step for step in trajectory["steps"] if step.get("llm_call_count")]
        assert asked["extra"]["llm_request"]["messages"][0]["content"] == f"of {name}"
        assert answered["extra"]["llm_response"]["choices"][0]["message"]["content"] == f"to {name}"
        assert answered["extra"]["invocation"]["status"] == "completed"
        assert answered["extra"]["ancestry"]["parent_name"] == name
        assert answered["model_name"] == f"m-{name}"


def test_a_tool_is_never_put_into_another_agents_step(exported):
    """The call of agent b has the id that agent a's model asked with."""
    by_agent = {t["extra"]["ancestry"]["function_name"]: t for t in trajectories(exported, "interleaved")}
    assert not [step for step in by_agent["a"]["steps"] if "observation" in step]
    (ran,) = [step for step in by_agent["b"]["steps"] if "observation" in step]
    assert ran["observation"]["results"][0]["content"] == "of b"
    assert ran["llm_call_count"] == 0


def test_a_late_mark_is_in_its_own_agents_trajectory_and_no_step(exported):
    """NeMo-Relay 870 and 381: a mark after the end of its parent; marks are never steps."""
    by_agent = {t["extra"]["ancestry"]["function_name"]: t for t in trajectories(exported, "interleaved")}
    assert [event["name"] for event in by_agent["a"]["extra"]["observed_events"]] == ["late"]
    assert "observed_events" not in by_agent["b"]["extra"]
    assert len(by_agent["a"]["steps"]) == 2


def test_a_parent_that_nobody_has_seen_is_not_made_up(exported):
    """NeMo-Relay 1022: an unknown parent has an id and no more; no name, no slice, no arrow."""
    (trajectory,) = trajectories(exported, "loose_ends")
    ancestry = trajectory["extra"]["ancestry"]
    assert ancestry["parent_id"].endswith("ffff")
    assert "parent_name" not in ancestry
    trace = json.loads(exported["loose_ends"]["perfetto.json"])
    assert not [event for event in trace if event["ph"] in "sf"]


def test_costs_and_tokens_are_summed(exported):
    (trajectory,) = trajectories(exported, "one_agent")
    assert trajectory["final_metrics"] == {
        "total_steps": 4,
        "total_prompt_tokens": 40,
        "total_completion_tokens": 10,
        "total_cost_usd": 0.75,
    }
    (helper,) = trajectory["subagent_trajectories"]
    assert helper["final_metrics"]["total_cost_usd"] == 0.5
