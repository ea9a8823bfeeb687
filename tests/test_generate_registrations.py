"""The functions that register middleware are what the table of families gives, and a new family gets its own."""

import ast
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools.generate_registrations import BEGIN, END, LINE_LENGTH, PARTS

ROOT = Path(__file__).resolve().parents[1]

# A long one, for which calls and signatures need a line for each item.
KIND = "answers_of_scopes_that_end_late_guardrail"
ROW = f"""
    Family(
        _Kind.{KIND.upper()},
        callback="ToolSanitizeGuardrail",
        arguments="name, answer",
        what="a guardrail of answers",
        returns="the answer",
        failure="withhold",
        breaks=True,
    ),
)

FAMILIES = """


def generate(root, *options):
    """Runs the command on the sources below `root`, which need not be importable."""
    command = [sys.executable, "-m", "tools.generate_registrations", *options]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60, check=False)


def replace_once(path, old, new):
    text = path.read_text()
    assert text.count(old) == 1, f"{path} has {old!r} {text.count(old)} times"
    path.write_text(text.replace(old, new))


@pytest.fixture
def sources(tmp_path):
    """A copy of what the command reads and writes."""
    table = ["relay_mp/types.py", "relay_mp/_emit/__init__.py", "relay_mp/_emit/families.py", "pyproject.toml"]
    for path in [*PARTS, *table, "tools/__init__.py", "tools/generate_registrations.py"]:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, tmp_path / path)
    return tmp_path


def test_the_sources_are_what_the_table_gives():
    ran = generate(ROOT, "--check")
    assert ran.returncode == 0, ran.stderr


def test_a_family_without_its_functions_is_found_and_then_gets_them(sources):
    replace_once(
        sources / "relay_mp/types.py",
        '    TOOL_REQUEST_INTERCEPT = "tool_request_intercept"\n',
        f'    TOOL_REQUEST_INTERCEPT = "tool_request_intercept"\n    {KIND.upper()} = "{KIND}"\n',
    )
    replace_once(sources / "relay_mp/_emit/families.py", "\n)\n\nFAMILIES = ", ROW)
    own = ["relay_mp/guardrails.py", "relay_mp/scope_local.py", "relay_mp/_plugins/context.py"]

    ran = generate(sources, "--check")
    assert ran.returncode == 1
    assert [line.split()[0] for line in ran.stderr.splitlines()] == own
    assert all("python -m tools.generate_registrations" in line for line in ran.stderr.splitlines())

    ran = generate(sources)
    assert (ran.returncode, ran.stdout.split("wrote ")[1:]) == (0, [f"{path}\n" for path in own])
    assert generate(sources, "--check").returncode == 0
    verbs = KIND.removesuffix("_guardrail")
    expected = ["name", "priority", "break_chain", "guardrail"]
    assert parameters(sources / own[0], f"register_{verbs}") == expected
    assert parameters(sources / own[0], f"deregister_{verbs}") == ["name"]
    assert parameters(sources / own[1], f"register_{verbs}") == ["scope_handle", *expected]
    assert parameters(sources / own[1], f"deregister_{verbs}") == ["scope_handle", "name"]
    assert parameters(sources / own[2], f"register_{KIND}") == ["self", "name", "priority", "break_chain", "callback"]
    for path in own[:2]:
        assert (sources / path).read_text().count(f'"register_{verbs}",') == 1

    if importlib.util.find_spec("ruff") is not None:
        command = [sys.executable, "-m", "ruff", "format", "--check", "--no-cache", *own]
        ran = subprocess.run(command, cwd=sources, capture_output=True, text=True, timeout=60, check=False)
        assert ran.returncode == 0, ran.stdout + ran.stderr
    lines = (sources / own[1]).read_text().splitlines()
    assert f"        _Kind.{KIND.upper()}," in lines
    assert max(map(len, lines)) <= LINE_LENGTH


def parameters(path, name):
    """The names of a function's positional parameters. There is one function of the name in the file."""
    functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
    [found] = [function for function in functions if function.name == name]
    assert ast.get_docstring(found)
    return [argument.arg for argument in found.args.args]


def test_what_is_changed_by_hand_is_found_and_undone_and_the_rest_is_left_alone(sources):
    path = sources / "relay_mp/scope_local.py"
    before = path.read_text()
    replace_once(path, "def deregister_subscriber(", "# By hand.\ndef deregister_subscriber(")
    assert generate(sources, "--check").returncode == 0
    by_hand = path.read_text()
    # As a merge leaves it: no Python.
    replace_once(path, "def register_mark_sanitize(", "<<<<<<< mine\ndef register_mark_sanitize(")
    assert generate(sources, "--check").returncode == 1
    assert generate(sources).returncode == 0
    assert path.read_text() == by_hand != before


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (END, "", "1 lines of BEGIN and 0 of END"),
        (BEGIN, f"{BEGIN}\n{BEGIN}", "2 lines of BEGIN and 1 of END"),
        (BEGIN, "", "0 lines of BEGIN and 1 of END"),
    ],
)
def test_a_file_without_its_two_marks_is_refused_and_nothing_is_written(sources, old, new, said):
    replace_once(sources / "relay_mp/intercepts.py", f"{old}\n", f"{new}\n")
    replace_once(sources / "relay_mp/_emit/families.py", 'what="a sanitizer of marks"', 'what="a cleaner of marks"')
    before = {path: (sources / path).read_text() for path in PARTS}
    ran = generate(sources)
    assert ran.returncode != 0
    assert f"relay_mp/intercepts.py has {said}; expected one each" in ran.stderr
    assert {path: (sources / path).read_text() for path in PARTS} == before
