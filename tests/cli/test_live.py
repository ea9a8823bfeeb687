"""`top` and `tail` on a program that runs: what they show, in a pipe and on a terminal, filters, keys, the end."""

import json
import os
import re
import sys
import threading

import pytest
from recorded import answer, line, uuid

import relay_mp
from relay_mp import ScopeType, llm, scope
from relay_mp._runs import live
from relay_mp._runs.reading import event_of_line
from relay_mp._runs.records import event_of
from relay_mp.cli import main
from relay_mp.cli.exits import Exit
from relay_mp.cli.top import Observer, Row, View, chosen

TIMEOUT_SECONDS = 60


@pytest.fixture
def directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RELAY_MP_DIRECTORY", str(tmp_path))
    return tmp_path


def called(capsys, *argv):
    """A command's exit code, and what it writes to both outputs."""
    code = main.main(argv)
    return code, *capsys.readouterr()


@pytest.fixture
def on_terminal(directory):
    """`on_terminal("top")`: the command in a terminal of 100 columns and 24 lines."""
    pexpect = pytest.importorskip("pexpect")
    started = []

    def start(*argv):
        environment = {**os.environ, "TERM": "xterm"}
        for name in ("NO_COLOR", "COLUMNS", "LINES"):
            environment.pop(name, None)
        command = pexpect.spawn(
            sys.executable, ["-m", "relay_mp", *argv],
            env=environment, dimensions=(24, 100), timeout=TIMEOUT_SECONDS, encoding="utf-8", cwd=str(directory),
        )  # fmt: skip
        started.append(command)
        return command

    yield start
    for command in started:
        command.close(force=True)


# --------------------------------------------------------------------------------------------------- tail


def test_tail_shows_a_line_for_each_event(directory, agents, capsys):
    code, out, err = called(capsys, "tail", "--count", "12")
    lines = out.splitlines()
    assert (code, err, len(lines)) == (Exit.DONE, "", 12)
    assert all(re.match(rf"\d\d:\d\d:\d\d\.\d\d\d  +{agents.pid}  [<>*] ", line) for line in lines)
    assert any(line.endswith("> support  agent") for line in lines)
    assert any(re.search(r"< search  tool  .*error KeyError: 'gone'", line) for line in lines)
    assert any(line.endswith('* looked  {"hits":[3,4]}') for line in lines)


def test_tail_indents_what_is_inside(directory, agents, capsys):
    _, out, _ = called(capsys, "tail", "--tree", "--count", "24")
    assert re.search(r"\d  > support", out)
    assert re.search(r"\d    > search", out)
    assert re.search(r"\d      \* looked", out)


def test_tail_gives_lines_of_the_format(directory, agents, capsys):
    _, out, _ = called(capsys, "tail", "--json", "--count", "5")
    events = [json.loads(line) for line in out.splitlines()]
    assert len(events) == 5
    assert {event["metadata"]["relay_mp.origin"]["pid"] for event in events} == {agents.pid}


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["--name", "sea*"], {"search"}),
        (["--name", "looked", "--name", "answer"], {"looked", "answer"}),
        (["--category", "function"], {"answer"}),
        (["--text", "HITS"], {"looked"}),
        (["--where", "data.hits[1]=4"], {"looked"}),
        (["--where", ".data.user.name=ann"], {"search"}),
        (["--where", "data.hits"], {"looked"}),
        (["--where", "category!=null", "--where", "category!=tool", "--category", "function"], {"answer"}),
    ],
)
def test_tail_shows_what_the_filters_let_through(options, names, directory, agents, capsys):
    _, out, _ = called(capsys, "tail", "--json", "--count", "6", *options)
    assert {json.loads(line)["name"] for line in out.splitlines()} == names


def test_tail_of_another_process_shows_nothing(directory, agents, capsys):
    code, out, _ = called(capsys, "tail", "--pid", "1", "--seconds", "0.2")
    assert (code, out) == (Exit.DONE, "")


@pytest.mark.parametrize("path", ["", "data..x", "=1", "data[x]"])
def test_a_path_that_is_none_is_a_wrong_command_line(path, directory, capsys):
    code, _, err = called(capsys, "tail", "--where", path)
    assert code == Exit.USAGE
    assert "expected a path, such as data.user" in err


def test_tail_ends_with_the_session(directory, agents, capsys):
    threading.Timer(0.2, agents.stdin.close).start()
    code, out, err = called(capsys, "tail")
    assert (code, err) == (Exit.DONE, "the session has ended\n")
    assert "< support  agent" in out


def test_without_a_session_the_error_says_so(directory, capsys):
    code, out, err = called(capsys, "tail")
    assert (code, out) == (Exit.SESSION, "")
    assert "there is no living session of this user" in err
    assert err.count("\n") == 1


def test_an_interrupted_tail_has_the_exit_code_of_ctrl_c(on_terminal, agents):
    command = on_terminal("tail")
    command.expect("search")
    command.sendintr()
    command.wait()
    assert command.exitstatus == Exit.INTERRUPTED


# ---------------------------------------------------------------------------------------------------- top


def test_top_once_shows_processes_and_agents(directory, agents, capsys):
    code, out, err = called(capsys, "top", "--once", "--interval", "0.3")
    lines = out.splitlines()
    assert (code, err) == (Exit.DONE, "")
    assert re.search(r"[\d,]+ events · \d+/s · ring \d+ % of 16.0 MiB · 1 process", lines[1])
    assert lines[3].split()[:3] == ["pid", "events/s", "events"]
    assert lines[4].split()[0] == str(agents.pid)


def test_top_gives_json(directory, agents, capsys):
    _, out, _ = called(capsys, "top", "--once", "--json", "--interval", "0.3")
    picture = json.loads(out)
    [process] = picture["processes"]
    assert (process["pid"], picture["owner_pid"], picture["lost"]) == (agents.pid, agents.pid, 0)
    assert process["events"] > 0
    assert process["rate"] > 0


def test_an_open_agent_is_a_row_with_what_has_ended_in_it(tmp_path):
    with relay_mp.session(directory=str(tmp_path)) as session, relay_mp.watch(session.handle) as watching:
        observer = Observer(watching)
        with scope.scope("support", ScopeType.Agent):
            call = llm.call("gpt", relay_mp.LLMRequest({}, {}))
            llm.call_end(call, answer(10, 2, 0.5))
            with pytest.raises(KeyError), scope.scope("search", ScopeType.Tool):
                raise KeyError("gone")
            with scope.scope("plan", ScopeType.Function), scope.scope("think", ScopeType.Function):
                session.flush()
                observer.read(0.5)
                picture = observer.picture()
        session.flush()
        observer.read(0.5)
        assert observer.picture().agents == []
    [process], [agent] = picture.processes, picture.agents
    assert (agent.name, agent.pid, agent.scope) == ("support", os.getpid(), "plan > think")
    assert (process.scope, process.pid) == ("think", os.getpid())
    for row in (process, agent):
        assert (row.errors, row.tokens, row.costs) == (1, 12, {"USD": 0.5})


def test_more_open_scopes_than_are_kept_forget_the_oldest(monkeypatch):
    monkeypatch.setattr(live, "MAX_OPEN_SCOPES", 3)
    found = live.Live()
    for number in range(1, 6):
        found.add(event_of(event_of_line(line("start", number, number))))
    assert list(found.open) == [uuid(3), uuid(4), uuid(5)]
    assert list(found.processes[7].open) == [uuid(3), uuid(4), uuid(5)]


def test_top_on_a_terminal_answers_its_keys_and_leaves_it_as_it_was(on_terminal, agents):
    command = on_terminal("top", "--interval", "0.1")
    command.expect(re.escape("\x1b[?1049h"))
    command.expect("sorted by rate")
    command.send("s")
    command.expect("sorted by events")
    command.send("r")
    command.expect(re.escape("sorted by events (reversed)"))
    command.send("p")
    command.expect("PAUSED")
    command.send("p/xyz\r")
    command.expect("filter: xyz")
    command.send("q")
    command.expect(re.escape("\x1b[?25h\x1b[?1049l"))
    command.wait()
    assert command.exitstatus == Exit.DONE


def test_top_ends_with_the_session(on_terminal, agents):
    command = on_terminal("top", "--interval", "0.1")
    command.expect("sorted by rate")
    agents.stdin.close()
    command.expect(re.escape("\x1b[?1049l"))
    command.expect("the session has ended")
    command.wait()
    assert command.exitstatus == Exit.DONE


def test_rows_are_chosen_and_ordered():
    rows = [Row("process 1", 1, rate=5.0, errors=1), Row("process 2", 2, rate=9.0), Row("process 3", 3, scope="search")]
    assert [row.pid for row in chosen(rows, View())] == [2, 1, 3]
    assert [row.pid for row in chosen(rows, View(is_reversed=True))] == [3, 1, 2]
    assert [row.pid for row in chosen(rows, View(sort="errors"))] == [1, 2, 3]
    assert [row.pid for row in chosen(rows, View(sort="pid"))] == [1, 2, 3]
    assert [row.pid for row in chosen(rows, View(filter="SEAR"))] == [3]


def test_the_filter_is_typed_and_taken_back():
    view = View()
    for key in "/ab\x7fc\r":
        assert not view.key(key)
    assert (view.filter, view.is_typing) == ("ac", False)
    for key in "/x\x1b":
        assert not view.key(key)
    assert view.filter == ""
    assert view.key("q")
