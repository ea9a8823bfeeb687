"""The front page is short, and what it says is so: its commands, its example, its links."""

import os
import re

import doc_blocks
import pytest

ROOT, README = doc_blocks.ROOT, doc_blocks.README
TEXT = README.read_text(encoding="utf-8")

MOST_BYTES = 10_000
SETUP_COMMANDS = [
    "python3 -m venv .venv && .venv/bin/pip install -q -e . && .venv/bin/python examples/worker_pool.py",
    "python3 -m venv .venv && .venv/bin/pip install -q -e '.[test,lint]' && .venv/bin/pytest",
]


def of(language):
    return [block for block in doc_blocks.blocks(README) if block.language == language]


def part(heading):
    return TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def test_it_is_short():
    assert README.stat().st_size <= MOST_BYTES


def test_it_opens_with_three_sentences_and_a_picture():
    title, opening, picture, *_ = TEXT.split("\n\n")
    assert title == "# relay_mp"
    assert len(re.findall(r"[a-zA-Z)]\.(?:\s|$)", opening)) == 3
    assert re.fullmatch(r"!\[.+\]\(examples/screenshots/\w+\.png\)", picture)
    assert len(re.findall(r"^!\[", TEXT, re.MULTILINE)) == 1


@pytest.mark.parametrize("command", SETUP_COMMANDS)
def test_setup_command_is_there_exactly_once_on_a_line_of_its_own(command):
    assert TEXT.splitlines().count(command) == 1
    assert TEXT.count(command) == 1


def test_there_are_no_other_commands():
    assert [line for block in of("sh") for line in block.text.splitlines()] == SETUP_COMMANDS


def test_ci_runs_the_test_command():
    """It is taken out of the README, with the pattern that is in the script."""
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    (pattern,) = re.findall(r"grep -E '(.*)' README\.md", script)
    assert [line for line in TEXT.splitlines() if re.search(pattern, line)] == [SETUP_COMMANDS[1]]
    assert '-c "${commands[0]}"' in script
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_the_example_is_one_program_that_shows_what_it_prints():
    """That it runs, and prints it, is held by test_pages.py."""
    (example,), (output,) = of("python"), of("output")
    assert len(example.text.splitlines()) <= 45
    for verb in ("ProcessPoolExecutor", "llm.execute", "tools.execute", "scope.scope"):
        assert verb in example.text
    assert output.text.count("pid") == 7


@pytest.mark.parametrize("heading", ["What is guaranteed", "Figures"])
def test_five_lines_with_a_link(heading):
    lines = re.findall(r"^- ", part(heading), re.MULTILINE)
    assert len(lines) == 5
    assert re.search(r"\]\(docs/explanation/\w+\.md\)", part(heading))


@pytest.mark.parametrize("page", [README, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_links_lead_to_files(page):
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))
    assert targets
    for target in targets:
        assert "://" in target or (ROOT / target).is_file(), target
