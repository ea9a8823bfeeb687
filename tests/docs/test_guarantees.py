"""Each guarantee is a sentence of a table, with tests that exist."""

import re

import doc_blocks
import pytest

PAGE = doc_blocks.DOCS / "explanation" / "guarantees.md"
TEXT = PAGE.read_text(encoding="utf-8")
HEADINGS = [
    'What "returned" means',
    "What the program gets, and what is recorded",
    "What a kill can cost",
    "What a stopped process does to the others",
    "What happens when shared memory is full",
    "What other users of the machine can do",
    "What an attacker of the same uid can do",
]
CHAOS = "python -m tests.faults.chaos --seconds 60 --seed 7"


def guarantees():
    """(sentence, the tests it names), one a row."""
    return [row for heading in HEADINGS for row in doc_blocks.rows(PAGE, heading)]


def test_every_guarantee_is_a_sentence_of_a_table_with_its_tests():
    assert re.findall(r"^## (.*)$", TEXT, re.MULTILINE) == HEADINGS
    assert len(guarantees()) > 30
    for sentence, shown in guarantees():
        assert re.fullmatch(r"[A-Z`].*\.", sentence), sentence
        assert len(re.findall(r"[a-z)]\. ", sentence)) == 0, f"one sentence a row: {sentence}"
        assert re.fullmatch(r"(`[\w/]+\.(py|c)::\w+`)(, `[\w/]+\.(py|c)::\w+`)*", shown), shown


def test_between_the_tables_nothing_is_promised_without_a_test():
    tables = TEXT.partition(f"## {HEADINGS[0]}")[2].partition(f"`{CHAOS}`")[0]
    prose = [line for line in tables.splitlines() if line and not line.startswith(("|", "## "))]
    assert prose == []


def test_the_chaos_program_is_told_as_it_is_started():
    assert CHAOS in [line for block in doc_blocks.blocks(PAGE) for line in block.text.splitlines()]
    assert (doc_blocks.ROOT / "tests" / "faults" / "chaos.py").is_file()


@pytest.mark.parametrize("name", sorted({name for _, shown in guarantees() for name in shown.strip("`").split("`, `")}))
def test_a_test_that_the_guarantees_name_exists(name):
    file, _, test = name.partition("::")
    text = (doc_blocks.ROOT / "tests" / file).read_text(encoding="utf-8")
    pattern = rf"^def {test}\(" if file.endswith(".py") else rf"^TEST(_COUNTED)?\({test}\W"
    assert len(re.findall(pattern, text, re.MULTILINE)) == 1, f"{file} has no {test}"
