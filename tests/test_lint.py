"""The sources pass ruff, and the package mypy's strict mode: what `tox -e lint` runs."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = {"ruff": ["check", "--output-format=concise", "relay_mp", "tests", "examples", "benchmarks"], "mypy": []}


@pytest.mark.parametrize("tool", COMMANDS)
def test_tool_finds_nothing(tool):
    if importlib.util.find_spec(tool) is None:
        pytest.skip(f"{tool} is not installed: pip install '.[lint]'")
    ran = subprocess.run(
        [sys.executable, "-m", tool, *COMMANDS[tool]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
