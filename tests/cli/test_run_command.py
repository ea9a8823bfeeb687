"""`relay-mp run`: programs that know nothing of the library, in processes of every kind."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
ORIGIN = "relay_mp.origin"

POOL = """
import logging, multiprocessing, sys
log = logging.getLogger("pool")

def work(number):
    log.info("task %d", number)
    return number

if __name__ == "__main__":
    with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
        print(pool.map(work, range(8), 1))
    log.warning("done")
    sys.exit(3)
"""


@pytest.fixture
def launch(tmp_path):
    """Runs a command; what it ended with, and the events that it left."""

    def launch(*command, options=(), **more):
        file = tmp_path / "run.jsonl"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RELAY_MP_")}
        environment["RELAY_MP_DIRECTORY"] = str(tmp_path)  # sessions of others are none of its business
        started = subprocess.run(
            [sys.executable, "-m", "relay_mp", "run", "--jsonl", str(file), *options, *command],
            cwd=tmp_path, env=environment | more, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        print(started.stderr)  # shown where a test fails
        events = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        return started, events

    return launch


def python(code):
    return "--", sys.executable, "-c", code


def root_of(events):
    """The one scope whose parent is none of the others; its end's output says the exit code."""
    started = [each for each in events if each.get("scope_category") == "start"]
    (start,) = [each for each in started if each["parent_uuid"] not in {other["uuid"] for other in started}]
    (end,) = [each for each in events if each["uuid"] == start["uuid"] and each is not start]
    return start, end


def marks(events):
    return [each for each in events if each["kind"] == "mark"]


def test_agents_that_know_nothing_of_it_are_one_tree_with_tokens_and_cost(launch):
    ran, events = launch("--", sys.executable, str(EXAMPLES / "plain_agents.py"))
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("It depends.") == 4
    root, end = root_of(events)
    assert (root["name"], end["data"]) == ("plain_agents.py", {"exit_code": 0})
    started = {each["uuid"]: each for each in events if each.get("scope_category") == "start"}
    assert [each["category"] for each in started.values()].count("llm") == 4
    assert {each["parent_uuid"] for each in events if each["uuid"] != root["uuid"]} <= started.keys()
    assert all(each["parent_uuid"] == root["uuid"] for each in started.values() if each["category"] == "llm")
    pids = {each["metadata"][ORIGIN]["pid"] for each in events}
    assert len(pids - {root["metadata"][ORIGIN]["pid"]}) == 3
    assert sorted(each["data"]["message"] for each in marks(events) if each["name"] == "plain_agents") == [
        "4 questions", "asking: How long is a ring?", "asking: Is it late?", "asking: What is lost?",
        "asking: Who reads first?",
    ]  # fmt: skip
    assert "400 tokens in · 40 out · $0.0080" in ran.stderr
    assert "no errors" in ran.stderr
    assert "events in run.jsonl" in ran.stderr


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_pools_of_the_standard_library_are_below_the_root(launch, tmp_path, method):
    (tmp_path / "pool.py").write_text(POOL)
    ran, events = launch("--", sys.executable, "pool.py", method)
    assert (ran.returncode, ran.stdout) == (3, "[0, 1, 2, 3, 4, 5, 6, 7]\n")
    assert ran.stderr.startswith("done\n")  # a warning without handlers, as without `relay-mp run`
    root, end = root_of(events)
    assert end["data"] == {"exit_code": 3}
    assert end["metadata"]["otel.status_code"] == "ERROR"
    found = marks(events)
    assert sorted(mark["data"]["message"] for mark in found) == ["done", *(f"task {number}" for number in range(8))]
    assert {mark["parent_uuid"] for mark in found} == {root["uuid"]}


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import logging, os; logging.error('m'); os._exit(4)", 4),
        ("import logging; logging.error('m'); raise ValueError", 1),
        ("import logging, sys; logging.error('m'); sys.exit(3)", 3),
        ("import logging, os, signal; logging.error('m'); os.kill(os.getpid(), signal.SIGKILL)", 137),
    ],
)
def test_however_a_program_ends_its_events_and_its_exit_code_are_there(launch, code, expected):
    ran, events = launch(*python(code))
    assert ran.returncode == expected
    assert root_of(events)[1]["data"] == {"exit_code": expected}
    assert [mark["data"]["message"] for mark in marks(events)] == ["m"]


def test_modules_and_shell_scripts_are_commands(launch):
    ran, events = launch(options=("-m", "json.tool", "--help"))
    assert (ran.returncode, root_of(events)[0]["name"]) == (0, "json.tool")
    script = "; ".join(f"{sys.executable} -c 'import logging; logging.warning({number})'" for number in (1, 2))
    ran, events = launch("--", "sh", "-c", script)
    assert ran.returncode == 0
    assert [mark["data"]["message"] for mark in marks(events)] == ["1", "2"]
    assert {mark["parent_uuid"] for mark in marks(events)} == {root_of(events)[0]["uuid"]}


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_reaches_the_program_which_decides(tmp_path, name):
    code = (
        f"import signal, sys\nsignal.signal(signal.{name}, lambda *_: sys.exit(7))\nprint('ready', flush=True)\n"
        "while True: signal.pause()"
    )
    command = [sys.executable, "-m", "relay_mp", "run", "--jsonl", "run.jsonl", *python(code)]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env=os.environ | {"RELAY_MP_DIRECTORY": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as started:
        assert started.stdout.readline() == "ready\n"
        started.send_signal(getattr(signal, name))
        said = started.communicate(timeout=60)[1]
    assert started.returncode == 7, said
    assert "exit code 7" in said


def test_a_program_s_own_session_joins(launch):
    code = """
import relay_mp
from relay_mp import scope
with relay_mp.session() as session:
    with scope.scope("own", relay_mp.ScopeType.Agent):
        scope.event("m")
    session.flush()
"""
    ran, events = launch(*python(code))
    assert ran.returncode == 0, ran.stderr
    root, _ = root_of(events)
    (own,) = [each for each in events if each["name"] == "own" and each["scope_category"] == "start"]
    assert own["parent_uuid"] == root["uuid"]
    assert [mark["parent_uuid"] for mark in marks(events)] == [own["uuid"]]


def test_what_is_switched_on_can_be_chosen(launch):
    code = "import logging, sys; logging.warning('m'); print('multiprocessing.pool' in sys.modules)"
    for options, expected in ((("--no-instrument",), ([], "False\n")), (("--only", "logging"), (["m"], "False\n"))):
        ran, events = launch(*python(code), options=options)
        assert ran.returncode == 0
        assert ([mark["data"]["message"] for mark in marks(events)], ran.stdout) == expected
    ran, _ = launch(*python(code), options=("--only", "logs"))
    assert ran.returncode == 2
    assert "--only names 'logs'; expected some of pools, logging, openai, celery" in ran.stderr


def test_a_sitecustomize_that_is_hidden_is_executed(launch, tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text("import builtins; builtins.hidden = 5\n")
    ran, events = launch(*python("import logging; logging.warning(hidden)"), PYTHONPATH=str(tmp_path / "site"))
    assert ran.returncode == 0, ran.stderr
    assert [mark["data"]["message"] for mark in marks(events)] == ["5"]


def test_the_program_writes_what_it_writes_without(launch):
    code = (
        "import logging\nlogging.getLogger('a').info('not shown')\n"
        "logging.basicConfig(format='%(message)s')\nlogging.warning('shown')"
    )
    plain = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    ran, events = launch(*python(code), options=("--no-summary",))
    assert (ran.stdout, ran.stderr) == (plain.stdout, plain.stderr)
    assert [mark["data"]["message"] for mark in marks(events)] == ["not shown", "shown"]


def test_a_command_that_is_not_there_is_one_line(launch):
    ran, _ = launch("--", "there-is-no-such-program")
    assert (ran.returncode, ran.stdout) == (5, "")
    assert (
        ran.stderr
        == "relay-mp run: there-is-no-such-program cannot be started: No such file or directory; expected a program\n"
    )
    ran, _ = launch()
    assert (ran.returncode, ran.stderr.count("\n")) == (2, 1)


def test_a_trace_for_perfetto(launch, tmp_path):
    ran, _ = launch(*python("print(1)"), options=("--perfetto", "trace.json"))
    assert ran.returncode == 0
    assert "exit_code" in (tmp_path / "trace.json").read_text()
