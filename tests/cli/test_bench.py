"""`relay-mp bench`: its table, histogram and files, and what it refuses."""

import io
import json
import os
import select
import signal
import subprocess
import sys
import time
from xml.etree import ElementTree

import psutil
import pytest

from relay_mp.cli import bench, main, strips, terminal
from relay_mp.cli.exits import Exit

SMALL = ["--seconds", "0.05", "--rounds", "2", "--ring", "1MiB"]


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


def called(capsys, *argv):
    code = main.main(["bench", *argv])
    return code, *capsys.readouterr()


def test_a_small_load_gives_a_table_a_histogram_and_files(capsys, tmp_path):
    code, out, err = called(capsys, *SMALL, "--payload", "1KiB", "--svg", "a.svg", "--json", "a.json")
    assert (code, err) == (Exit.DONE, "")
    printed = out.splitlines()
    assert printed[0].startswith("2 processes x 1 thread · 1,000 calls/s each · payload 1KiB (1.01 KiB) · dispatcher")
    (head,) = [line for line in printed if line.startswith("side ")]
    assert [word for word in head.split() if word in {"p50", "p90"}] == ["p50", "p90"]
    assert [line.split()[0] for line in printed if line.startswith(("relay_mp ", "floor"))] == [
        "relay_mp",
        "floor:",
    ] * 2
    assert any(bar in out for bar in "▁▂▃▄▅▆▇█")
    document = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert document["command"].startswith("relay-mp bench --processes 2 --threads 1 --rate 1000 --seconds 0.05")
    assert document["rows"][0]["count"] == 200
    assert ElementTree.fromstring((tmp_path / "a.svg").read_text(encoding="utf-8")).tag.endswith("svg")


def test_json_on_standard_output_is_all_that_is_printed(capsys):
    code, out, _ = called(capsys, *SMALL, "--rate", "max", "--processes", "0", "--json", "-", "--on-full", "drop")
    assert code == Exit.DONE
    document = json.loads(out)
    assert document["load"]["rate_hz"] is None
    assert document["rows"][0]["corrected"] is None


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--processes", "65"], "'65'; expected a number from 0 to 64"),
        (["--threads", "0"], "'0'; expected a number from 1 to 64"),
        (["--rate", "0"], "'0'; expected a number from 0.1 to 1e+06"),
        (["--seconds", "61"], "'61'; expected a number from 0.001 to 60"),
        (["--rounds", "x"], "'x'; expected a number from 1 to 1000"),
        (["--ring", "many"], "'many'; expected a size such as 4MiB"),
        (["--exporter", "atof_file=[]"], "is not a JSON object"),
    ],
)
def test_a_wrong_option_says_what_is_expected(capsys, argv, said):
    with pytest.raises(SystemExit) as ended:
        main.main(["bench", *argv])
    assert ended.value.code == Exit.USAGE
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (["--payload", "no.json"], Exit.INPUT, "no.json: no such file or directory"),
        (["--payload", "65MiB"], Exit.INPUT, "--payload 65MiB: it has 68,157,440 bytes; expected at most 67,108,864"),
        (["--payload", "threading:Lock"], Exit.INPUT, "cannot pickle"),
        (["--payload", "256KiB", *SMALL], Exit.INPUT, "over the size limit of an event"),
        (["--svg", "missing/a.svg", *SMALL], Exit.OUTPUT, "missing/a.svg cannot be written: No such file"),
    ],
)
def test_what_cannot_be_done_is_one_line(capsys, argv, code, said):
    found, out, err = called(capsys, *argv)
    assert (found, out) == (code, "")
    assert said in err
    assert err.count("\n") == 1


def test_the_payload_s_function_is_found_in_the_current_directory(capsys, tmp_path):
    (tmp_path / "made_for_bench.py").write_text("def payload():\n    return [1, 2]\n", encoding="utf-8")
    code, out, _ = called(capsys, *SMALL, "--payload", "made_for_bench:payload", "--json", "-")
    assert code == Exit.DONE
    assert json.loads(out)["load"]["payload_msgpack_bytes"] == 3


def test_an_interrupt_ends_all_processes_without_a_traceback(tmp_path):
    segments = tmp_path / "segments"
    segments.mkdir()
    command = [sys.executable, "-m", "relay_mp", "bench", "--rounds", "1000", "--ring", "1MiB"]
    environment = {**os.environ, "RELAY_MP_DIRECTORY": str(segments), "TERM": "xterm"}
    ours, theirs = os.openpty()  # on a terminal it tells when a round begins
    with subprocess.Popen(command, env=environment, stderr=theirs, start_new_session=True) as process:
        os.close(theirs)
        written = read_until(ours, b"round ")
        started = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGINT)
        written += read_until(ours, None)
        assert process.wait(60) == Exit.INTERRUPTED
    os.close(ours)
    assert b"Traceback" not in written
    _, alive = psutil.wait_procs(started, timeout=30)
    assert alive == []
    assert list(segments.iterdir()) == []


def read_until(terminal_fd, expected):
    """What a terminal shows until then; None: until nobody writes to it any more."""
    shown, deadline = b"", time.monotonic() + 60
    while expected is None or expected not in shown:
        ready, _, _ = select.select([terminal_fd], [], [], max(deadline - time.monotonic(), 0))
        assert ready, shown
        try:
            shown += os.read(terminal_fd, 4096)
        except OSError:  # so Linux says that all who could write have gone
            assert expected is None, shown
            return shown
    return shown


# ------------------------------------------------------------------------------------------- what is shown


class Tty(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


def row(side, *figures, **more):
    names = ("median", "p90", "p99", "p999", "p9999", "max")
    return {
        "side": side, **dict(zip(names, figures, strict=False)), "corrected": None, "reached_hz": 2000.0, "lost": 0,
        "spread": {"p99": 1.25}, **more,
    }  # fmt: skip


def test_each_column_has_one_unit():
    output = terminal.Terminal(io.StringIO(), io.StringIO())
    shown = bench._table([row("a", 612, 1200, 9e4, 8e5, 2e6, 4e9), row("b", 61_234, 5e7, 1e5, 9e5, 3e6, 5e9)], output)
    assert shown[0].split("  ")[0] == "side"
    assert " ".join(shown[0].split()) == "side p50 ns p90 µs p99 µs p99.9 µs p99.99 ms max s events/s p99 spread"
    assert shown[1].split()[1:] == ["612", "1.20", "90.0", "800", "2.00", "4.00", "2,000", "x1.25"]
    assert shown[2].split()[1:3] == ["61,234", "50,000"]


def test_what_was_late_has_a_row_of_its_own_where_it_differs():
    output = terminal.Terminal(io.StringIO(), io.StringIO())
    assert len(bench._table([row("a", 5.0, corrected={"median": 5.0})], output)) == 2
    shown = bench._table([row("a", 5.0, corrected={"median": 50.0})], output)
    assert shown[2].startswith("  since it was due")


@pytest.mark.parametrize("width", [40, 60, 80])
def test_a_narrow_terminal_leaves_columns_out(monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("LINES", "24")
    output = terminal.Terminal(Tty(), Tty(), "never")
    figures = (612, 1200, 9e4, 8e5, 2e6, 4e6)
    shown = bench._table([row("floor: msgpack.packb, nothing emitted", *figures)], output)
    assert "p50 ns" in shown[0]
    assert "p99 µs" in shown[0]
    assert ("events/s" in shown[0]) == (width == 80)


def test_strips_share_an_axis_and_show_every_call(monkeypatch):
    output = terminal.Terminal(Tty(), Tty(), "never")
    monkeypatch.setenv("COLUMNS", "60")
    rows = [("one", 40, [100, 50, *[0] * 18, 1]), ("two", 60, [7])]
    first, second, marks, names = strips.strips(output, rows, [(40, "100 ns"), (60, "1 µs")])
    assert first == f"one  █▄{' ' * 18}▁"
    assert second == f"two  {' ' * 20}█"
    assert marks.index("╵") == first.index("█")
    assert names.split() == ["100", "ns", "1", "µs"]
    assert names.index("1 µs") == second.index("█")


def test_strips_are_no_wider_than_the_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    output = terminal.Terminal(Tty(), Tty(), "never")
    lines = strips.strips(output, [("a side with a long name", 0, [1] * 200)], [(n, f"{n}") for n in range(0, 200, 20)])
    assert max(len(line) for line in lines) <= 40


def test_an_output_that_has_no_bars_gets_ascii():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    output = terminal.Terminal(stream, io.StringIO())
    for line in strips.strips(output, [("µ", 0, [1, 8])], [(0, "1 µs")]):
        output.print(line)
    stream.flush()
    assert stream.buffer.getvalue().decode("ascii").splitlines() == ["u  .@", "   '", "   1 us"]
