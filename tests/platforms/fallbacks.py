"""Runs tests on Linux with the fallbacks of other systems and old kernels: see relay_mp/_native/platform.h.

    python -m tests.platforms.fallbacks [futex pidfd wipe_on_fork all] [-- arguments of pytest]

Runs where the package is installed with what the tests ask for, as in an environment of tox; builds the package anew
for each fallback, in a copy of the checkout. The C tests have a build of their own (tests/native/test_ring.py).
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

from tests.platforms import helpers

TESTS = ["tests/session", "tests/test_pools.py", "tests/test_acceptance.py", "tests/test_promises.py"]


@dataclass(frozen=True)
class Fallback:
    """What Linux is to lack, and the tests that still have to pass."""

    without: list[str]
    more_tests: list[str] = field(default_factory=list)


FALLBACKS = {
    "futex": Fallback(["FUTEX"]),
    "pidfd": Fallback(["PIDFD"], ["tests/faults/test_liveness.py", "tests/faults/test_namespaces.py"]),
    "wipe_on_fork": Fallback(["WIPEONFORK"]),
    "all": Fallback(["FUTEX", "PIDFD", "WIPEONFORK", "START_TIME", "PID_NAMESPACE"]),
}


def test(name: str, checkout: Path, arguments: list[str]) -> int:
    """Builds the package with one fallback, and runs tests."""
    fallback = FALLBACKS[name]
    flags = " ".join(f"-DRMP_WITHOUT_{what}" for what in fallback.without)
    for source in (checkout / "relay_mp/_native").glob("*.pyx"):
        source.touch()  # the flags are no file that the build would look at
    helpers.build_package(helpers.here, sys.executable, checkout, CFLAGS=flags)
    return helpers.run_tests(helpers.here, sys.executable, checkout, arguments or TESTS + fallback.more_tests)


def main(arguments: list[str]) -> int:
    """Runs tests with each fallback."""
    split = arguments.index("--") if "--" in arguments else len(arguments)
    names, pytest_arguments = arguments[:split] or list(FALLBACKS), arguments[split + 1 :]
    checkout = helpers.copy_checkout(helpers.cache() / "fallbacks")
    failed = [name for name in names if test(name, checkout, pytest_arguments)]
    print(f"failed: {failed}" if failed else f"passed: {names}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
