"""Runs tests with a free-threaded CPython 3.13, which is built from Debian's source package.

    python -m tests.platforms.free_threaded [arguments of pytest]

Needs a C compiler, apt with Debian's archive, and what CPython is built with (headers of zlib, OpenSSL, libffi,
SQLite). The first run builds it: nine minutes on one core that has nothing else to do.
"""

import shutil
import sys
from pathlib import Path

from tests.platforms import helpers

SUITE, PACKAGE = "trixie", "python3.13"
TESTS = [*helpers.SUBSET, "tests/platforms/test_threads.py"]
LONG_TESTS = ["-m", "long", "tests/platforms/test_threads.py"]
WITHOUT_THE_LOCK = """
import sys, msgpack, numpy, psutil, relay_mp
relay_mp.session().__enter__().__exit__(None, None, None)
print(sys.version)
assert not sys._is_gil_enabled(), "a module has switched the global interpreter lock on"
"""


def build(target: Path) -> None:
    """Builds CPython into `target`."""
    place = target.with_name("free-threaded-source")
    shutil.rmtree(place, ignore_errors=True)
    (place / "build").mkdir(parents=True)
    helpers.must(helpers.here([*helpers.apt(SUITE), "source", "--download-only", PACKAGE], cwd=place), "the download")
    (archive,) = place.glob("*.orig.tar.*")
    helpers.must(helpers.here(["tar", "xf", archive.name], cwd=place), "unpacking")
    (source,) = place.glob("Python-*")
    quiet = ["nice", "-n", "15"]
    configure = [*quiet, source / "configure", "--quiet", "--disable-gil", f"--prefix={target}"]
    for command in (configure, [*quiet, "make", "-s", "-j1"], [*quiet, "make", "-s", "install"]):
        helpers.must(helpers.here(command, cwd=place / "build"), "the build of CPython")
    shutil.rmtree(place)


def main(arguments: list[str]) -> int:
    """Runs tests without the global interpreter lock."""
    installed = helpers.cache() / "free-threaded" / "python"
    if not (installed / "bin/python3.13t").exists():
        build(installed)
    python = helpers.make_environment(helpers.here, installed / "bin/python3.13t", installed.parent / "environment")
    checkout = helpers.copy_checkout(installed.parent / "relay_mp")
    helpers.build_package(helpers.here, python, checkout)
    helpers.must(helpers.here([python, "-c", WITHOUT_THE_LOCK], checkout), "a run without the lock")
    runs = [arguments] if arguments else [LONG_TESTS, TESTS]
    return max(helpers.run_tests(helpers.here, python, checkout, tests) for tests in runs)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
