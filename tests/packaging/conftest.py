"""The sdist and the wheel, built once, and environments; see building.py."""

import sys
from pathlib import Path

import pytest
from building import PROBE_CFLAGS, Distribution, Environment, copy_of_the_sources, needs, run


@pytest.fixture(scope="session")
def distribution(tmp_path_factory: pytest.TempPathFactory) -> Distribution:
    """The sdist and, built from it in isolation, the wheel. CFLAGS is set, so that the log shows where it lands."""
    needs("build")
    sources = copy_of_the_sources(tmp_path_factory.mktemp("sources") / "relay_mp")
    output = tmp_path_factory.mktemp("dist")
    # -v: else the compiler's command lines are not told.
    log = run(
        sys.executable, "-m", "build", "--verbose", "--outdir", output, sources,
        cwd=output, environment={"CFLAGS": PROBE_CFLAGS},
    )  # fmt: skip
    (sdist,), (wheel,) = output.glob("*.tar.gz"), output.glob("*.whl")
    return Distribution(sdist, wheel, log)


@pytest.fixture
def make_environment(tmp_path: Path):
    """`make_environment()` gives a new, empty one."""

    def make() -> Environment:
        directory = tmp_path / "environment"
        run(sys.executable, "-m", "venv", directory, cwd=tmp_path)
        return Environment(directory)

    return make
