"""examples/tools_and_llm.py as it is run: workers of every start method, a real server, a real client."""

import multiprocessing
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
EXAMPLE = EXAMPLES / "tools_and_llm.py"
SECRETS = ["sk-local-0123456789", "4111 1111 1111 1111", "ada@example.com"]


@pytest.fixture
def load(monkeypatch):
    """Reads a file of events as a tree."""
    monkeypatch.syspath_prepend(EXAMPLES)
    import trace_tree

    return lambda path: (trace_tree.load(path), trace_tree.build(trace_tree.load(path)))


@pytest.mark.parametrize("start_method", multiprocessing.get_all_start_methods())
def test_agents_in_workers_are_guarded_and_leave_no_secret(start_method, tmp_path, load):
    pytest.importorskip("openai")
    command = [sys.executable, EXAMPLE, "--start-method", start_method, "--workers", "2", "--output", tmp_path]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr
    assert "Lost 0. Secrets in the file: 0" in run.stdout
    (file,) = tmp_path.iterdir()
    text = file.read_text(encoding="utf-8")
    assert {secret: text.count(secret) for secret in SECRETS} == dict.fromkeys(SECRETS, 0)
    assert text.count("[redacted]") >= 10
    # What the model and the tools were given, and the caller got, is not redacted.
    assert "4111 1111 1111 1111" in run.stdout

    events, (root,) = load(file)
    agents = {node.data["question"].partition(" ")[0]: node for node in root.children}
    assert [node.category for node in root.children] == ["agent"] * 4
    assert all(node.ended for node in root.walk() if node.category != "mark")
    assert len({node.pid for node in agents.values()} - {root.pid}) >= 1

    def steps(agent):
        return [node.name for node in agents[agent].children if node.category in ("llm", "tool")]

    assert steps("What") == ["local", "multiply", "local", "local"]
    assert steps("Write") == ["local", "look_up_customer", "local", "local"]
    assert steps("Dig") == ["local", "dig"] * 5
    assert [node.name for node in agents["Dig"].children][-3:] == ["budget", "local", "gave-up"]
    assert "budget of 5 calls" in agents["Dig"].children[-2].data["rejection_reason"]
    assert [node.name for node in agents["Who"].children[-1].children] == ["llm.chunk"] * 8
    check_annotations(events)


def check_annotations(events):
    calls = [event for event in events if event["kind"] == "scope" and event["category"] == "llm"]
    assert all("authorization" not in map(str.lower, event["data"].get("headers", {})) for event in calls)
    for event in calls:
        key = "annotated_request" if event["scope_category"] == "start" else "annotated_response"
        assert event["category_profile"][key]["api_specific"]["api"] == "openai_chat"
        assert event["category_profile"]["model_name"] == "rules-1"


def test_without_its_client_it_says_what_to_install():
    code = f"import runpy, sys; sys.modules['openai'] = None; runpy.run_path({str(EXAMPLE)!r}, run_name='__main__')"
    environment = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(EXAMPLES)!r})\n{code}"]
    run = subprocess.run(environment, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 1
    assert "pip install 'relay_mp[openai]'" in run.stderr
