"""The sources pass ruff, its formatter, mypy's strict mode and codespell: what `tox -e lint` runs."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PLACES = ["relay_mp", "tests", "tools", "examples", "benchmarks"]
COMMANDS = {
    "ruff check": ["ruff", "check", "--output-format=concise", *PLACES],
    "ruff format": ["ruff", "format", "--check", *PLACES],
    "mypy": ["mypy"],
    "codespell": ["codespell_lib"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_tool_finds_nothing(name):
    tool = COMMANDS[name][0]
    if importlib.util.find_spec(tool) is None:
        pytest.skip(f"{tool} is not installed: pip install '.[lint]'")
    ran = subprocess.run([sys.executable, "-m", *COMMANDS[name]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
