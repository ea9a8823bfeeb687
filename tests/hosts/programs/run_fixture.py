"""Runners of tests: `run_fixture.py xdist|forked|unittest`. A test with the fixture does what a pool's row does."""

import subprocess
import sys
from pathlib import Path

FUNCTION = """
from run_pools import OwnPool
from workload import run

def test_it(relay_events):
    run(OwnPool())  # its session is the fixture's
    relay_events.assert_no_loss()
"""

CASE = """
import unittest

import pytest
from run_pools import OwnPool
from workload import run

class Case(unittest.TestCase):
    @pytest.fixture(autouse=True)
    def events(self, relay_events):
        self.relay_events = relay_events

    def test_it(self):
        run(OwnPool())
        self.relay_events.assert_no_loss()
"""

RUNNERS = {
    "xdist": (FUNCTION, ["-p", "xdist", "-n", "2"]),
    "forked": (FUNCTION, ["--forked"]),
    "unittest": (CASE, []),
}

if __name__ == "__main__":
    text, options = RUNNERS[sys.argv[1]]
    Path("test_it.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, "test_it.py"]
    sys.exit(subprocess.run(command, timeout=120, check=False).returncode)
