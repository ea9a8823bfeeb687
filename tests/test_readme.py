"""What the README says is so: its commands, its examples, its names and its settings."""

import ast
import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import relay_mp

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")

SETUP_COMMANDS = [
    "python3 -m venv .venv && .venv/bin/pip install -q -e . && .venv/bin/python examples/worker_pool.py",
    "python3 -m venv .venv && .venv/bin/pip install -q -e '.[test,lint]' && .venv/bin/pytest",
]
GLOSSARY = (
    "event scope mark subscriber dispatcher exporter sink guardrail intercept injector session segment ring claim "
    "commit padding unit stack handle propagate attach flush"
).split()


def code_blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def rows(heading):
    """The cells of the first table under a heading, without its head."""
    section = TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def first_paragraph():
    return TEXT.split("\n\n")[1]


@pytest.mark.parametrize("command", SETUP_COMMANDS)
def test_setup_command_is_there_exactly_once_on_a_line_of_its_own(command):
    assert TEXT.splitlines().count(command) == 1
    assert TEXT.count(command) == 1


def test_there_are_no_other_commands():
    assert [line for block in code_blocks("sh") for line in block.splitlines()] == SETUP_COMMANDS


def test_ci_runs_the_test_command():
    """It is taken out of the README, with the pattern that is in the script."""
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    (pattern,) = re.findall(r"grep -E '(.*)' README\.md", script)
    assert [line for line in TEXT.splitlines() if re.search(pattern, line)] == [SETUP_COMMANDS[1]]
    assert '-c "${commands[0]}"' in script
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_it_opens_with_three_sentences_and_a_picture():
    assert len(re.findall(r"[a-z)]\.(?:\s|$)", first_paragraph())) == 3
    assert TEXT.split("\n\n")[2].startswith("```text")


EXAMPLES = code_blocks("python")
EXPECTED_OUTPUT = [
    r"(\d+ (scope|mark) (run|answer|thought)\n){8}FlushResult\(lost=0, causes=\{\}\)\n",
    r"FlushResult\(lost=(\d+), causes=\{'full': \1\}\)\n",
    r"\[\]\n",
    r"OpenTelemetryConfig\(endpoint='http://localhost:4318', transport='http_binary'\)\n",
    r"",
    r"None\n",
    r"ScopeType.Agent root\n",
]


def test_the_first_example_is_short():
    assert len(EXAMPLES[0].splitlines()) <= 15


@pytest.mark.parametrize(("example", "expected"), list(zip(EXAMPLES, EXPECTED_OUTPUT, strict=True)))
def test_example_runs_in_an_empty_directory(example, expected, tmp_path):
    script = tmp_path / "example.py"
    script.write_text(example, encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RELAY_MP_")}
    # A fork takes along, and writes again, what the dispatcher's thread has printed and stdout still buffers.
    environment["PYTHONUNBUFFERED"] = "1"
    ran = subprocess.run(
        [sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert re.fullmatch(expected, ran.stdout), ran.stdout


def test_the_first_example_leaves_its_events_in_a_file(tmp_path):
    (tmp_path / "example.py").write_text(EXAMPLES[0], encoding="utf-8")
    subprocess.run([sys.executable, "example.py"], cwd=tmp_path, check=True, capture_output=True, timeout=60)
    (file,) = tmp_path.glob("relay-mp-events-*.jsonl")
    events = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    (run,) = {event["uuid"] for event in events if event["name"] == "run"}
    assert len(events) == 8
    assert {event["parent_uuid"] for event in events if event["name"] == "answer"} == {run}


def test_the_exporter_of_ones_own_is_one(tmp_path):
    (module,) = [example for example in EXAMPLES if "class Names(Sink)" in example]
    (tmp_path / "its_module.py").write_text(module, encoding="utf-8")
    use = """
import relay_mp
with relay_mp.session(dispatcher="process") as session:
    names = relay_mp.observability.Exporter([("its_module:Names", {"path": "names.txt"})])
    names.register("names")
    relay_mp.scope.event("m")
    names.shutdown()
    print(session.stats().exporters["names"].exported, open("names.txt").read())
"""
    (tmp_path / "use.py").write_text(use, encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, "use.py"], cwd=tmp_path, check=True, capture_output=True, text=True, timeout=60
    )
    assert re.fullmatch(r"1 \d+ m\n\n", ran.stdout), ran.stdout


def test_every_name_of_the_use_table_exists():
    found = [name for _, use in rows("Which function") for name in re.findall(r"`(relay_mp[\w.]*)`", use)]
    assert len(found) > 20
    for name in found:
        value = relay_mp
        for part in name.split(".")[1:]:
            value = getattr(value, part)
    assert all(use.startswith("`relay_mp.") for _, use in rows("Which function"))


def test_settings_table_has_every_setting_with_its_variable_and_default():
    fields = dataclasses.fields(relay_mp.Settings)
    assert [row[0] for row in rows("Settings")] == [f"`{field.name}`" for field in fields]
    for field, (_, variable, default, _) in zip(fields, rows("Settings"), strict=True):
        assert variable == f"`RELAY_MP_{field.name.upper()}`"
        literal = re.fullmatch(r"`([^/`]+)`", default)
        if literal:
            assert ast.literal_eval(literal[1]) == field.default, field.name
        else:
            assert field.default in {0, ""}, f"{field.name}: its default is in words, so it must be computed"


def test_glossary_has_each_word_once():
    assert [row[0] for row in rows("Glossary")] == GLOSSARY


# ---- the guarantees ----

GUARANTEES = TEXT.partition("\n## Guarantees and their limits\n")[2].partition("\n## ")[0]
CHAOS = "`python -m tests.faults.chaos --seconds 60 --seed 7`"


def guarantees():
    """(sentence, the tests it names), one a row."""
    lines = [line for line in GUARANTEES.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [row for row in cells if row[0] not in ("so it is", "---") and not row[0].startswith("---")]


def test_every_guarantee_is_a_sentence_of_a_table_with_its_tests():
    headings = re.findall(r"^### (.*)$", GUARANTEES, re.MULTILINE)
    assert headings == [
        'What "returned" means',
        "What a kill can cost",
        "What a stopped process does to the others",
        "What happens when shared memory is full",
        "What an attacker of the same uid can do",
    ]
    prose = [line for line in GUARANTEES.splitlines() if line and not line.startswith(("|", "### "))]
    assert len(prose) == 1
    assert prose[0].startswith(CHAOS)
    assert len(guarantees()) > 30
    for sentence, shown in guarantees():
        assert re.fullmatch(r"[A-Z`].*\.", sentence), sentence
        assert len(re.findall(r"[a-z)]\. ", sentence)) == 0, f"one sentence a row: {sentence}"
        assert re.fullmatch(r"(`[\w/]+\.(py|c)::\w+`)(, `[\w/]+\.(py|c)::\w+`)*", shown), shown


@pytest.mark.parametrize("name", sorted({name for _, shown in guarantees() for name in shown.strip("`").split("`, `")}))
def test_a_test_that_the_guarantees_name_exists(name):
    file, _, test = name.partition("::")
    text = (ROOT / "tests" / file).read_text(encoding="utf-8")
    pattern = rf"^def {test}\(" if file.endswith(".py") else rf"^TEST(_COUNTED)?\({test}\W"
    assert len(re.findall(pattern, text, re.MULTILINE)) == 1, f"{file} has no {test}"
