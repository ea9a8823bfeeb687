"""The command line itself: its table, help, examples, errors, exit codes, colours and widths."""

import io
import os
import re
import shlex
import subprocess
import sys
import time

import pytest
from recorded import answer, error, line, scope_lines

from relay_mp.cli import exits, main, progress, table, terminal, units
from relay_mp.cli.exits import Exit


@pytest.fixture
def directory(tmp_path, monkeypatch):
    """The current one, with the files that the examples name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RELAY_MP_DIRECTORY", str(tmp_path))  # other sessions of this user are not the tests'
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    lines = [
        line("start", 1, 0, name="answer", category="agent"),
        *scope_lines(2, 1000, 3000, name="search", category="tool", parent=1, metadata=error("OSError", "gone")),
        *scope_lines(3, 4000, 9000, name="gpt", category="llm", parent=1, data=answer(1200, 34, 0.01), pid=8),
        line("end", 1, 10_000, name="answer", category="agent"),
    ]
    for name in ("events.jsonl", "before.jsonl", "after.jsonl"):
        (tmp_path / name).write_text("".join(f"{each}\n" for each in lines), encoding="utf-8")
    return tmp_path


def called(capsys, *argv):
    """A command's exit code, and what it writes to both outputs."""
    code = main.main(argv)
    return code, *capsys.readouterr()


def test_help_lists_every_command(capsys):
    with pytest.raises(SystemExit) as ended:
        main.main(["--help"])
    printed = capsys.readouterr().out
    assert ended.value.code == 0
    assert [command.name for command in main.COMMANDS if f"\n    {command.name} " not in printed] == []


@pytest.mark.parametrize("command", [command.name for command in main.COMMANDS])
def test_every_command_says_what_it_takes_with_an_example(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main.main([command, "--help"])
    printed = capsys.readouterr().out
    assert ended.value.code == 0
    assert printed.startswith(f"usage: relay-mp {command}")
    assert main.module_of(command).EXAMPLE.splitlines()[0] in printed


@pytest.mark.parametrize("command", [command.name for command in main.COMMANDS])
def test_every_command_s_example_runs(command, directory, agents, capsys):
    for example in main.module_of(command).EXAMPLE.splitlines():
        program, *argv = shlex.split(example)
        code, out, err = called(capsys, *argv)
        assert (program, code) == ("relay-mp", Exit.DONE)
        results, beside = (err, out) if command == "run" else (out, err)  # stdout is the program's, and not this one's
        assert beside == ""
        assert results


def test_the_package_is_the_command():
    command = [sys.executable, "-m", "relay_mp", "--version"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert re.fullmatch(r"relay-mp \d+\.\d+\.\d+\S*\n", ran.stdout)


def test_without_a_command_the_help_is_shown_and_nothing_was_done(capsys):
    code, out, _ = called(capsys)
    assert code == Exit.USAGE
    assert out.startswith("usage: relay-mp")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("relay-mp summ", {"summary"}),
        ("relay-mp summary --so", {"--sort"}),
        ("relay-mp summary --sort p9", {"p95", "p99"}),
    ],
)
def test_a_shell_s_question_is_answered(line, expected, directory):
    pytest.importorskip("argcomplete")
    asked = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line))}
    asked["_ARGCOMPLETE_STDOUT_FILENAME"] = "answer"
    command = [sys.executable, "-m", "relay_mp"]
    subprocess.run(command, env={**os.environ, **asked}, check=True, timeout=60)
    answers = (directory / "answer").read_text(encoding="utf-8").split("\v")
    assert {answer.strip() for answer in answers} == expected


def test_help_loads_no_command():
    code = "import sys\nfrom relay_mp.cli.main import main\nmain([])\nprint(*sys.modules, sep='\\n')"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    loaded = set(ran.stdout.split())
    assert "relay_mp.cli.main" in loaded
    assert not {f"relay_mp.cli.{command.name}" for command in main.COMMANDS} & loaded
    assert not {"numpy", "psutil", "relay_mp.codecs", "relay_mp._runs.run"} & loaded


# ------------------------------------------------------------------------------------------------ errors


def test_a_missing_file_is_one_line(directory, capsys):
    code, out, err = called(capsys, "summary", "no.jsonl")
    assert (code, out, err) == (Exit.INPUT, "", "relay-mp summary: no.jsonl: no such file or directory\n")


def test_a_file_without_an_event_says_what_is_in_it(directory, capsys):
    (directory / "other.jsonl").write_text("hello\n", encoding="utf-8")
    code, _, err = called(capsys, "summary", "other.jsonl")
    assert code == Exit.INPUT
    assert "there is no event in other.jsonl (1 line, the first other.jsonl:1: not JSON" in err
    assert err.count("\n") == 1


def test_bad_lines_are_left_out_and_said(directory, capsys):
    with open("events.jsonl", "a", encoding="utf-8") as file:
        file.write('{"kind":')
    code, out, err = called(capsys, "summary", "events.jsonl")
    assert code == Exit.DONE
    assert out
    assert err.startswith("1 line is not an event and left out; the first: events.jsonl:7: not JSON")


def test_a_defect_is_told_with_its_traceback(directory, capsys, monkeypatch):
    monkeypatch.setattr(main.module_of("summary"), "run", lambda arguments, terminal: 1 // 0)
    code, _, err = called(capsys, "summary", "events.jsonl")
    assert code == Exit.DEFECT
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("relay-mp summary: ")


def test_an_interrupt_has_its_exit_code(directory, capsys, monkeypatch):
    def interrupted(arguments, terminal):
        raise KeyboardInterrupt

    monkeypatch.setattr(main.module_of("summary"), "run", interrupted)
    assert called(capsys, "summary", "events.jsonl") == (Exit.INTERRUPTED, "", "")


def test_a_reader_that_goes_is_no_error(directory):
    command = f"{shlex.quote(sys.executable)} -m relay_mp summary events.jsonl | true; echo ${{PIPESTATUS[0]}}"
    ran = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stderr == ""
    assert int(ran.stdout) in (Exit.DONE, Exit.CLOSED_PIPE)


def test_every_exit_code_has_a_meaning():
    assert set(exits.MEANINGS) == set(Exit)


# -------------------------------------------------------------------------------------- colours and widths


class Tty(io.StringIO):
    """An output that says that it is a terminal."""

    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("variables", "color", "out", "has_color"),
    [
        ({}, "auto", io.StringIO, False),
        ({}, "auto", Tty, True),
        ({"NO_COLOR": "1"}, "auto", Tty, False),
        ({"NO_COLOR": ""}, "auto", Tty, True),
        ({"TERM": "dumb"}, "auto", Tty, False),
        ({"FORCE_COLOR": "1"}, "auto", io.StringIO, True),
        ({"NO_COLOR": "1"}, "always", io.StringIO, True),
        ({"FORCE_COLOR": "1"}, "never", Tty, False),
    ],
)
def test_colours_follow_the_output_and_the_environment(variables, color, out, has_color, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    output = terminal.Terminal(out(), out(), color)
    assert (output.style("x", "red") == "\x1b[31mx\x1b[0m") == has_color


def test_what_a_program_has_named_moves_no_cursor():
    assert terminal.plain("a\x1b[2Jb\nc") == "a\\x1b[2Jb\\x0ac"
    assert terminal.plain("größe 数") == "größe 数"


def test_a_table_fits_into_its_width_and_keeps_its_numbers(monkeypatch):
    monkeypatch.setenv("COLUMNS", "44")
    columns = [table.Column("name", is_text=True), table.Column("empty"), table.Column("count"),
               table.Column("said", is_text=True)]  # fmt: skip
    rows = [["a" * 60, "", "123,456", "short"], ["数" * 30, "", "1", "数"]]
    lines = table.table(terminal.Terminal(Tty(), Tty(), "never"), columns, rows)
    assert [terminal.columns_of(each) <= 44 for each in lines] == [True] * 3
    assert "empty" not in lines[0]
    assert "123,456" in lines[1]
    assert "…" in lines[1]
    assert "…" in lines[2]


def test_in_a_pipe_nothing_is_shortened(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    lines = table.table(
        terminal.Terminal(io.StringIO(), io.StringIO()), [table.Column("n", is_text=True)], [["a" * 500]]
    )
    assert lines[1] == "a" * 500


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 µs"), (7, "7 µs"), (0.5, "0.50 µs"), (999, "999 µs"), (999.7, "1.00 ms"), (1000, "1.00 ms"),
     (12_345, "12.3 ms"), (999_999, "1.00 s"), (1_500_000, "1.50 s"), (59_999_999, "60.0 s"), (125_000_000, "2 m 05 s"),
     (11_220_000_000, "3 h 07 m")],
)  # fmt: skip
def test_durations_have_three_digits_and_a_unit(value, text):
    assert units.duration(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.50 KiB"), (16 << 20, "16.0 MiB"), (1 << 41, "2048 GiB")]
)
def test_sizes_have_a_unit(value, text):
    assert units.size(value) == text


def test_money_is_by_currency():
    assert units.money({"USD": 1234.5, "EUR": 0.25}) == "$1,234.5000, 0.2500 EUR"


@pytest.mark.parametrize(("out", "is_shown"), [(Tty, True), (io.StringIO, False)])
def test_progress_is_shown_on_a_terminal_after_a_second_and_is_gone_afterwards(out, is_shown, monkeypatch):
    now = [100.0]
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    output = terminal.Terminal(io.StringIO(), out())
    with progress.Progress(output, "reading x", 1000) as shown:
        shown.update(10, 1)
        assert output.err.getvalue() == ""
        now[0] += progress.SILENT_SECONDS
        shown.update(500, 2048)
        assert output.err.getvalue() == ("\r\x1b[2Kreading x: 50%, 2,048 events" if is_shown else "")
    assert output.err.getvalue().endswith("\r\x1b[2K") == is_shown


# ----------------------------------------------------------------------------------------- summary and diff


def test_the_summary_s_columns_are_aligned(directory, capsys):
    code, out, _ = called(capsys, "summary", "events.jsonl")
    assert code == Exit.DONE
    assert (
        out
        == """\
10.0 ms · 3 scopes · 0 marks · 2 processes · 1 error
1,200 tokens in · 34 out · $0.0100

name    category  count  errors      p50      p95      p99    total     self  tokens in  out     cost
gpt     llm           1          5.00 ms  5.00 ms  5.00 ms  5.00 ms  5.00 ms      1,200   34  $0.0100
answer  agent         1          10.0 ms  10.0 ms  10.0 ms  10.0 ms  3.00 ms
search  tool          1       1  2.00 ms  2.00 ms  2.00 ms  2.00 ms  2.00 ms

longest run  category  pid     time     self  tokens in  out     cost
answer       agent       7  10.0 ms  3.00 ms      1,200   34  $0.0100
├─ search    tool        7  2.00 ms                                    error OSError: gone
└─ gpt       llm         8  5.00 ms               1,200   34  $0.0100  gpt-test
"""
    )


def test_a_scope_with_many_children_shows_the_longest_and_the_rest_in_one_line(directory, capsys):
    lines = [line("start", 1, 0, name="answer", category="agent")]
    lines += [each for n in range(2, 102) for each in scope_lines(n, n * 10, n * 11, name=f"s{n}", parent=1)]
    (directory / "many.jsonl").write_text("\n".join(lines), encoding="utf-8")
    _, out, _ = called(capsys, "summary", "many.jsonl", "--rows", "2")
    assert "… 99 more names; --rows 0 shows all" in out
    assert "└─ … 95 more" in out
    assert re.findall(r"├─ (s\d+)", out) == ["s97", "s98", "s99", "s100", "s101"]


def test_diff_says_what_is_new_and_what_has_failed(directory, capsys):
    lines = [*scope_lines(1, 0, 40_000, name="answer", category="agent", metadata=error()),
             *scope_lines(2, 0, 10, name="extra")]  # fmt: skip
    (directory / "after.jsonl").write_text("\n".join(lines), encoding="utf-8")
    code, out, _ = called(capsys, "diff", "before.jsonl", "after.jsonl")
    rows = {row.split()[0]: row for row in out.splitlines()[5:]}
    assert code == Exit.DONE
    assert "10.0 ms → 40.0 ms  +300 %" in rows["answer"]
    assert "0 → 1" in rows["answer"]
    assert "new" in rows["extra"]
    assert "gone" in rows["gpt"]
    assert "1,234 → -" in rows["gpt"]


def test_prices_are_for_calls_without_a_cost(directory, capsys, monkeypatch):
    entry = {"provider": "openai", "model_id": "gpt-test", "rates": {"input_per_million": 1e6, "output_per_million": 0}}
    (directory / "prices.json").write_text(str({"version": 1, "entries": [entry]}).replace("'", '"'), encoding="utf-8")
    lines = scope_lines(3, 0, 9, name="gpt", category="llm", data=answer(3, 4))
    (directory / "events.jsonl").write_text("\n".join(lines), encoding="utf-8")
    command = [sys.executable, "-m", "relay_mp", "summary", "events.jsonl", "--prices", "prices.json"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, env={**os.environ})
    assert "$3.0000" in ran.stdout
