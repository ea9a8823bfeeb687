"""Builds what is published, and environments to install it in: what conftest.py gives the tests here as fixtures.

    tracked files ──▶ a copy ──▶ python -m build ──▶ sdist ──▶ wheel
                                                       │         └──▶ environment(wheel, an extra)
                                                       └──▶ unpacked ──▶ environment(editable, test)

The copy holds no more than git tracks: a build in the checkout would take its SOURCES.txt and compiled files over.
"""

import importlib.metadata
import os
import shutil
import subprocess
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD_TIMEOUT_SECONDS = 1200
PROBE_CFLAGS = "-O1 -DRMP_PROBE"
NOT_COPIED = shutil.ignore_patterns(".*", "*.so", "*.egg-info", "__pycache__", "build", "_build", "dist")
"""Where there is no git to ask, as in an unpacked sdist."""


def run(*command: str | Path, cwd: Path, environment: dict[str, str] | None = None) -> str:
    """What the command prints; it must end with 0."""
    # PYTHONPATH: what is installed is looked at, not this checkout.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("RELAY_MP_", "PYTHON"))}
    inherited["PATH"] = f"{Path(command[0]).parent}{os.pathsep}{os.environ['PATH']}"  # as in an activated environment
    ran = subprocess.run(
        [str(part) for part in command],
        cwd=cwd, env={**inherited, **(environment or {})}, stdin=subprocess.DEVNULL, capture_output=True,
        text=True, timeout=BUILD_TIMEOUT_SECONDS, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, (
        f"{' '.join(map(str, command))} ended with {ran.returncode}:\n{ran.stdout}\n{ran.stderr}"
    )
    return ran.stdout


def tracked_files() -> list[Path] | None:
    """Relative to the checkout, what git tracks and is there; None outside a checkout."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode or not (ROOT / ".git").exists():
        return None
    return [path for line in listed.stdout.splitlines() if (ROOT / (path := Path(line))).is_file()]


def copy_of_the_sources(directory: Path) -> Path:
    files = tracked_files()
    if files is None:
        shutil.copytree(ROOT, directory, ignore=NOT_COPIED)
        shutil.copytree(ROOT / ".ci", directory / ".ci")
        return directory
    for file in files:
        (directory / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / file, directory / file)
    return directory


def needs(*packages: str) -> None:
    """Skips where a package of the extra `package` is missing; its modules' names may be those of folders."""
    for package in packages:
        try:
            importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            pytest.skip(f"{package} is not installed: pip install '.[package]', or run tox -e package")


@dataclass(frozen=True)
class Environment:
    """A virtual environment, and a directory without sources to run its programs in."""

    directory: Path

    @property
    def python(self) -> Path:
        return self.directory / "bin" / "python"

    def install(self, *arguments: str | Path, cwd: Path | None = None) -> None:
        command = [self.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments]
        run(*command, cwd=cwd or self.directory)

    def run(self, *arguments: str | Path, cwd: Path | None = None) -> str:
        segments = self.directory / "segments"  # other runs' sessions are not to be found, nor this one's by them
        segments.mkdir(exist_ok=True)
        place = {"RELAY_MP_DIRECTORY": str(segments)}
        return run(self.python, *arguments, cwd=cwd or self.directory, environment=place)


@dataclass(frozen=True)
class Distribution:
    """What `python -m build` made, and what it said."""

    sdist: Path
    wheel: Path
    log: str

    def names_in_sdist(self) -> set[str]:
        """Without the folder that all of it is in."""
        with tarfile.open(self.sdist) as archive:
            return {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}

    def names_in_wheel(self) -> set[str]:
        with zipfile.ZipFile(self.wheel) as archive:
            return set(archive.namelist())
