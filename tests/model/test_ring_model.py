"""The ring protocol holds in every interleaving at small bounds, and each of its rules is needed.

The model is `ring_model.cpp`. Each mutant drops one rule of the protocol and must violate the invariant
that the rule is there for; the unmutated protocol must pass at the very same bounds. The tests marked
`long` visit about a hundred million states in two minutes; run them with `pytest -m long`.
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("ring_model.cpp")
PASSED, VIOLATED, MISUSED, TOO_LARGE = 0, 1, 2, 3

# mutant: (bounds, the invariant that it violates)
MUTANTS = {
    "no-help": ("", "head-has-known-length"),
    "no-dispatcher-help": ("--kills 1", "drained-at-quiescence"),
    "commit-before-copy": ("", "no-torn-payload"),
    "deliver-busy-of-dead": ("--kills 1", "only-claimed-and-committed-is-delivered"),
    "advance-before-deliver": ("--crashes 1", "delivered-exactly-once"),
    "free-without-position": ("--records 2", "writer-holds-its-header"),
    "release-header-only": ("--records 2", "writer-holds-its-header"),
    "release-first-unit-first": ("--crashes 1", "only-headers-are-read-as-headers"),
    "reclaim-on-fence": ("--fence", "space-not-released-under-live-writer"),
    "commit-by-store": ("--fence", "delivered-exactly-once"),
    "fence-by-store": ("--producers 1 --fence", "delivered-exactly-once"),
    "reuse-owner-early": ("--kills 1 --takeovers 1", "head-has-known-length"),
    "no-look-again": ("--park", "no-lost-wakeup"),
    "no-look-again-for-space": ("--records 2 --park", "no-lost-wakeup"),
    "wake-before-commit": ("--park", "no-lost-wakeup"),
    "plain-space-flag": ("--records 2 --park --kills 1", "no-lost-wakeup"),
    "no-backstop": ("--park --kills 1", "no-lost-wakeup"),
    "payload-looks-free": ("--records 2", "no-torn-payload"),
}

SHORT_BOUNDS = sorted(
    {bounds for bounds, _ in MUTANTS.values()}
    | {
        "--kills 2 --crashes 1 --fence",
        "--kills 2 --crashes 1 --takeovers 1 --fence",
        "--kills 1 --crashes 1 --park --fence",
        "--capacity 2 --records 2 --kills 2 --crashes 1 --fence",
        "--producers 3 --kills 3 --crashes 1",
        "--records 2 --kills 2 --crashes 1",
    }
)

LONG_BOUNDS = [
    "--records 2 --kills 2 --crashes 1 --fence",
    "--producers 3 --kills 3 --crashes 1 --fence",
    "--records 2 --kills 2 --crashes 1 --fence --park",
    "--producers 3 --kills 3 --crashes 1 --park",
    "--records 3 --kills 2 --crashes 1",
    "--records 2 --kills 2 --crashes 1 --takeovers 1",
    "--producers 3 --kills 2 --crashes 1 --takeovers 1",
    "--records 2 --capacity 5 --units 3 --kills 1 --crashes 1 --fence",
]


@pytest.fixture(scope="session")
def ring_model(tmp_path_factory):
    """Build the model; return a function that runs it with a line of arguments."""
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler (c++) on PATH")
    program = tmp_path_factory.mktemp("ring_model") / "ring_model"
    subprocess.run([compiler, "-std=c++17", "-O2", "-o", program, SOURCE], check=True)

    def run(arguments):
        return subprocess.run([program, *arguments.split()], check=False, capture_output=True, text=True, timeout=1800)

    return run


def assert_passes(result):
    assert result.returncode == PASSED, result.stdout + result.stderr
    assert re.match(r"OK \d+ states", result.stdout)


@pytest.mark.parametrize("bounds", SHORT_BOUNDS)
def test_protocol_holds(ring_model, bounds):
    assert_passes(ring_model(bounds))


@pytest.mark.parametrize("mutant", MUTANTS)
def test_dropping_a_rule_violates_its_invariant(ring_model, mutant):
    bounds, invariant = MUTANTS[mutant]
    result = ring_model(f"{bounds} --mutant {mutant}")
    assert result.returncode == VIOLATED, result.stdout + result.stderr
    assert result.stdout.startswith(f"VIOLATED {invariant}: "), result.stdout


def test_violation_is_reported_with_the_steps_that_lead_to_it(ring_model):
    lines = ring_model("--mutant no-help").stdout.splitlines()
    assert re.match(r" +1\. P\d load tail", lines[1])
    assert "read word   <-- here" in lines[-1]


def test_every_mutant_of_the_model_is_tried(ring_model):
    usage = ring_model("--mutant unknown")
    assert usage.returncode == MISUSED
    assert re.findall(r"^  ([a-z-]+) {2,}", usage.stderr, re.MULTILINE) == list(MUTANTS)


def test_search_ends_at_its_limit_of_states(ring_model):
    assert ring_model("--records 2 --max-states 1000").returncode == TOO_LARGE


@pytest.mark.parametrize("bounds", ["--kills 2 --crashes 1 --fence", "--records 2 --kills 1"])
def test_protocol_holds_without_merging_symmetric_states(ring_model, bounds):
    assert_passes(ring_model(f"{bounds} --no-reduction"))


@pytest.mark.long
@pytest.mark.parametrize("bounds", LONG_BOUNDS)
def test_protocol_holds_at_larger_bounds(ring_model, bounds):
    assert_passes(ring_model(bounds))


@pytest.mark.long
@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutants_fail_without_merging_symmetric_states(ring_model, mutant):
    result = ring_model(f"{MUTANTS[mutant][0]} --no-reduction --mutant {mutant}")
    assert result.returncode == VIOLATED, result.stdout + result.stderr
