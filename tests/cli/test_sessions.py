"""`ls`, `recover` and `doctor`: real sessions, living and killed, and what is wrong with a machine."""

import json
import os
import signal
import subprocess
import sys

import pytest

import relay_mp
from relay_mp import scope, subscribers
from relay_mp.cli import doctor, main, trial
from relay_mp.cli.exits import Exit

KILLED = """
import os, signal, sys, time
import relay_mp
relay_mp.session(directory=sys.argv[1], recovery_directory=sys.argv[1])
relay_mp.subscribers.register("stuck", lambda event: time.sleep(60))
for number in range(5):
    relay_mp.scope.event("tick", data=number)
os.kill(os.getpid(), signal.SIGKILL)
"""


def called(capsys, *argv):
    """A command's exit code, and what it writes to both outputs."""
    code = main.main(argv)
    return code, *capsys.readouterr()


@pytest.fixture
def dead(tmp_path, monkeypatch):
    """A directory with the segment of a session whose owner was killed with five events to deliver."""
    monkeypatch.chdir(tmp_path)
    ran = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False, timeout=60)
    assert ran.returncode == -signal.SIGKILL
    return tmp_path


def test_no_session_is_said(tmp_path, capsys):
    code, out, _ = called(capsys, "ls", "--directory", str(tmp_path))
    assert (code, out) == (Exit.DONE, "no session of this user lives, and no dead one has left events\n")


def test_a_living_session_is_listed_with_what_it_does(tmp_path, capsys):
    with relay_mp.session(directory=str(tmp_path)) as session:
        subscribers.register("count", lambda event: None)
        scope.event("tick")
        session.flush()
        code, out, _ = called(capsys, "ls", "--directory", str(tmp_path))
        _, lines, _ = called(capsys, "ls", "--directory", str(tmp_path), "--json")
    head, row = out.splitlines()
    assert code == Exit.DONE
    assert head.split() == ["session", "state", "pid", "age", "processes", "events", "ring", "command"]
    cells = row.split()
    assert (cells[0], cells[1], cells[2]) == (session.id.rpartition("-")[2], "open", str(os.getpid()))
    info = json.loads(lines)
    assert (info["id"], info["emitted"], info["lost"], info["owner_pid"]) == (session.id, 1, 0, os.getpid())


def test_what_a_killed_session_has_left_is_listed_and_recovered(dead, capsys):
    _, out, _ = called(capsys, "ls", "--directory", ".")
    assert " left " in out
    assert "1 session has left events; `relay-mp recover` writes them to files" in out
    code, out, err = called(capsys, "recover", "--directory", ".")
    assert (code, err) == (Exit.DONE, "")
    [file] = dead.glob("relay-mp-recovered-*.jsonl")
    assert out.endswith(f": events in {file.name}\n")
    assert [json.loads(line)["data"] for line in file.read_text().splitlines()] == [0, 1, 2, 3, 4]
    assert called(capsys, "recover", "--directory", ".")[1] == "nothing is left to recover\n"


def test_a_dead_session_is_recovered_by_the_beginning_of_its_id(dead, capsys):
    _, out, _ = called(capsys, "ls", "--directory", ".", "--json")
    name = json.loads(out)["id"].rpartition("-")[2]
    code, _, err = called(capsys, "recover", "nonsense", "--directory", ".")
    assert code == Exit.SESSION
    assert f"'nonsense' names no dead session; there are: {name}" in err
    assert called(capsys, "recover", name[:5], "--directory", ".", "-o", "all.jsonl")[0] == Exit.DONE
    assert len((dead / "all.jsonl").read_text().splitlines()) == 5


def test_a_living_session_is_not_recovered(tmp_path, capsys):
    with relay_mp.session(directory=str(tmp_path)) as session:
        code, out, err = called(capsys, "recover", session.path)
    assert (code, out) == (Exit.SESSION, "")
    assert "goes on" in err


# ------------------------------------------------------------------------------------------------- doctor


def findings(capsys, *argv):
    code = main.main(["doctor", "--json", *argv])
    return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.fixture
def clean(monkeypatch):
    for name in [name for name in os.environ if name.startswith("RELAY_MP_")]:
        monkeypatch.delenv(name)
    return monkeypatch


def test_a_machine_that_is_well_has_no_problem(clean, capsys):
    code, found = findings(capsys, "--no-trial")
    assert code == Exit.DONE
    assert [each for each in found if each["verdict"] == "problem"] == []
    assert {"versions", "settings", "extras", "sessions"} <= {each["what"] for each in found}


@pytest.mark.parametrize("method", trial.METHODS)
def test_a_test_session_has_a_worker_of_each_start_method(method, clean, run_script):
    ran = run_script("import sys; from relay_mp.cli.trial import main; main(sys.argv[1])", method)
    assert json.loads(ran.stdout) == {"came": 1, "lost": 0}


@pytest.mark.parametrize(
    ("name", "value", "advice"),
    [
        ("RELAY_MP_RING_BYTE", "65536", "RELAY_MP_RING_BYTES is meant?"),
        ("RELAY_MP_QQQQ", "1", "remove it"),
        ("RELAY_MP_SESSION", "/nowhere/relay_mp-1", "unset RELAY_MP_SESSION"),
        ("RELAY_MP_RING_BYTES", "much", "correct the variable"),
        ("RELAY_MP_DIRECTORY", "/nowhere", "name another"),
    ],
)
def test_a_variable_that_is_wrong_is_a_problem_with_what_to_do(name, value, advice, clean, capsys):
    clean.setenv(name, value)
    code, found = findings(capsys, "--no-trial")
    assert code == Exit.FOUND
    assert [each for each in found if each["verdict"] == "problem" and advice in each["advice"]]


def test_little_room_is_told(clean, capsys):
    clean.setattr(doctor.shutil, "disk_usage", lambda directory: type("Usage", (), {"free": 1 << 20}))
    _, found = findings(capsys, "--no-trial")
    assert any("1.00 MiB free" in each["found"] and each["verdict"] == "note" for each in found)


def test_a_worker_that_does_not_come_is_a_problem(clean, capsys):
    clean.setattr(doctor.sys, "executable", "/bin/false")
    code, found = findings(capsys)
    assert code == Exit.FOUND
    assert [each["what"] for each in found if each["verdict"] == "problem"] == [
        f"a worker by {m}" for m in trial.METHODS
    ]
