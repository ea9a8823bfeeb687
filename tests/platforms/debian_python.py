"""Runs tests with CPython 3.14 and 3.15 of Debian's next release, in a root of their own.

    python -m tests.platforms.debian_python [3.14 3.15] [-- arguments of pytest]

Needs root, debootstrap, and apt with Debian's archive. The first run makes the root (two and a half minutes).
"""

import sys

from tests.platforms import helpers

SUITE = "forky"
VERSIONS = ["3.14", "3.15"]
PACKAGES = [
    *(f"python{version}{part}" for version in VERSIONS for part in ("", "-dev", "-venv")),
    "gcc", "libc6-dev", "ca-certificates", "procps", "git",
]  # fmt: skip


def test(root: helpers.Root, version: str, arguments: list[str]) -> int:
    """Runs tests with one version."""
    python = helpers.make_environment(root, f"python{version}", root.path / f"root/python{version}")
    checkout = helpers.copy_checkout(root.path / f"root/relay_mp-{version}")
    code = "import multiprocessing, sys; print(sys.version, multiprocessing.get_context().get_start_method())"
    root([python, "-c", code])
    helpers.build_package(root, python, checkout)
    return helpers.run_tests(root, python, checkout, arguments)


def main(arguments: list[str]) -> int:
    """Runs tests with each version."""
    split = arguments.index("--") if "--" in arguments else len(arguments)
    versions, pytest_arguments = arguments[:split] or VERSIONS, arguments[split + 1 :]
    root = helpers.Root(helpers.make_root(SUITE, PACKAGES))
    failed = [version for version in versions if test(root, version, pytest_arguments or helpers.SUBSET)]
    print(f"failed: {failed}" if failed else f"passed: {versions}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
