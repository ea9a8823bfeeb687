"""Every program and every command of README and docs is run, and prints what the page says it prints.

The blocks of a page are run in order, in one directory that is empty at first; a page is a test. How a block says that
it goes on with the one before, or needs an extra, is told in `doc_blocks.py`.
"""

import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import doc_blocks
import pytest

TIMEOUT_SECONDS = 120

# The beginnings of commands that are not run here, and why. Each of them is in some page.
NOT_RUN = {
    "python3 -m venv": "makes an environment, by a build of the package; CI runs the README's test command",
    "pip install": "changes the environment that the tests run in",
    "pytest -m long": "the long profile takes an hour",
    "python -m benchmarks": "measures for ten minutes; tests/test_benchmarks.py runs its smoke size",
    "python -m tests.faults.chaos": "a minute of random faults; the tests of faults run it with less",
    "pre-commit": "installs into the git checkout; the lint test runs what it runs",
    "gdb": "is interactive",
    "pipx run cibuildwheel": "needs containers; release.md says that it has not been run",
    "python -m build": "builds for a minute; tests/packaging does it in the long profile",
    "auditwheel": "is of the extra `package`; tests/packaging runs it in the long profile",
}

EXTRAS = {
    "docs": "sphinx",
    "hosts": "gevent",
    "openai": "openai",
    "openinference": "openinference.semconv",
    "otel": "opentelemetry.exporter.otlp.proto.grpc",
    "prometheus": "prometheus_client",
    "pydantic": "pydantic",
}
"""A module of each extra that blocks may need."""


def is_run(command):
    return not any(command.startswith(beginning) for beginning in NOT_RUN)


def has(extra):
    try:
        return importlib.util.find_spec(EXTRAS[extra]) is not None
    except ModuleNotFoundError:  # of a package above it
        return False


def matches(expected, printed, in_any_order=False):
    """Whether a text is the expected one: `...` stands for anything, on a line of its own for lines; a pid for any."""
    if in_any_order:
        expected, printed = ("".join(sorted(_pid.sub("pid 0", text).splitlines(True))) for text in (expected, printed))
    return re.fullmatch("".join(map(_pattern, expected.splitlines(keepends=True))), printed) is not None


_pid = re.compile(r"\bpid \d+")


def _pattern(line):
    if line == "...\n":
        return r"(?s:.*?)"
    return re.sub(r"\bpid\\ \d+", r"pid\\ \\d+", re.escape(line).replace(r"\.\.\.", r"[^\n]*?"))


@dataclass
class Run:
    """What is run at once: a program that stands in one block or several, or the commands of a block."""

    first: doc_blocks.Block
    text: str
    expected: str | None = None  # None: the page says nothing of what it prints
    in_any_order: bool = False


def runs(page):
    """A page's, in order, and its blocks that are files."""
    found = []
    for block in doc_blocks.blocks(page):
        if block.language == "output":
            found[-1].expected = (found[-1].expected or "") + block.text
            found[-1].in_any_order = block.option("any") is not None
        elif block.option("continues") is not None:
            found[-1].text += f"\n{block.text}"
        elif block.language in {"python", "sh", "toml"} or block.option("file"):
            found.append(Run(block, block.text))
    return found


def carry_out(run, directory, script):
    """Runs it, or writes the file that it is."""
    block, name, extra = run.first, run.first.option("file"), run.first.option("needs")
    if name is not None:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(run.text, encoding="utf-8")
    elif block.language == "toml":
        tomllib.loads(run.text)
    elif extra is None or has(extra):
        command, place = command_of(run, directory)
        if command:
            returncode, printed, errors = script(command, place)
            assert returncode == 0, f"{block.place} ends with {returncode}\n{printed}\n{errors}"
            is_right = run.expected is None or matches(run.expected, printed, run.in_any_order)
            assert is_right, f"{block.place} prints\n{printed}"


def command_of(run, directory):
    """The command line, None for commands that are not run here; and where."""
    block = run.first
    if block.language == "python":
        program = directory / f"example_{block.line}.py"
        program.write_text(run.text, encoding="utf-8")
        return [sys.executable, program.name], directory
    commands = [line for line in run.text.splitlines() if line and not line.startswith("#")]
    here = [command for command in commands if is_run(command)]
    assert here in ([], commands), f"{block.place}: of these commands some are run and some are not; make two blocks"
    place = doc_blocks.ROOT if block.option("in") == "the checkout" else directory
    return (["bash", "-euo", "pipefail", "-c", run.text] if here else None), place


@pytest.fixture
def script(run_script):
    """Runs a command to its end, or its timeout; what it leaves in shared memory is seen."""

    def run(command, place):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RELAY_MP_")}
        # A fork takes along, and writes again, what the dispatcher's thread has printed and stdout still buffers.
        environment["PYTHONUNBUFFERED"] = "1"
        # From 3.12 on Python warns of a fork beside a thread, and pytest counts such warnings in its last line.
        environment["PYTEST_ADDOPTS"] = "-p no:warnings"
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
        with subprocess.Popen(
            command, cwd=place, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            run_script.pids.add(process.pid)
            try:
                out, err = process.communicate(timeout=TIMEOUT_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                pytest.fail(f"{command} did not end within {TIMEOUT_SECONDS} s")
        return process.returncode, out, err

    return run


def name_of(page):
    return str(page.relative_to(doc_blocks.ROOT))


@pytest.mark.parametrize("page", [page for page in doc_blocks.PAGES if runs(page)], ids=name_of)
def test_the_blocks_of_a_page_run_and_print_what_it_says(page, tmp_path, script):
    for run in runs(page):
        carry_out(run, tmp_path, script)


@pytest.mark.parametrize("page", doc_blocks.PAGES, ids=name_of)
def test_blocks_say_what_they_are(page):
    for block in doc_blocks.blocks(page):
        assert block.language in doc_blocks.LANGUAGES or re.fullmatch(r"\{[\w-]+\}", block.language), block.place
        for option in block.options:
            assert option.split()[0] in {"any", "continues", "file", "in", "needs"}, f"{block.place}: {option}"
            assert option.split()[0] != "needs" or option.split()[1] in EXTRAS, f"{block.place}: {option}"


@pytest.mark.parametrize("page", doc_blocks.PAGES, ids=name_of)
def test_the_text_before_a_file_names_it(page):
    """The comment that names it is not seen by a reader, who has to save it."""
    paragraphs = page.read_text(encoding="utf-8").split("\n\n")
    for block in doc_blocks.blocks(page):
        name = block.option("file")
        if name is not None:
            (place,) = [at for at, text in enumerate(paragraphs) if text.startswith(f"<!-- run: file {name} -->")]
            assert f"`{name}`" in paragraphs[place - 1], f"{block.place}: say before it that this is `{name}`"


def test_every_command_that_is_not_run_is_in_some_page():
    commands = {
        line for page in doc_blocks.PAGES for block in doc_blocks.blocks(page) if block.language == "sh"
        for line in block.text.splitlines()
    }  # fmt: skip
    unused = [beginning for beginning in NOT_RUN if not any(line.startswith(beginning) for line in commands)]
    assert unused == []


def test_the_output_on_a_page_may_leave_parts_open():
    assert matches("pid 7: ...\n", "pid 12: run\n")
    assert not matches("pid 7: ...\n", "pid 12: run\nmore\n")
    assert matches("a\n...\nz\n", "a\nb\nc\nz\n")
    assert not matches("a\n", "b\n")


PLACES = re.compile(r"`((?:\.ci|benchmarks|docs|examples|relay_mp|tests)/[\w./-]+)`")


@pytest.mark.parametrize("page", doc_blocks.PAGES, ids=name_of)
def test_files_of_the_project_that_a_page_names_exist(page):
    named = PLACES.findall(page.read_text(encoding="utf-8"))
    assert [name for name in named if not (doc_blocks.ROOT / name).exists() and name not in OTHERS_FILES] == []


OTHERS_FILES = {"relay_mp/plugins.toml"}
"""Files that a user has."""
