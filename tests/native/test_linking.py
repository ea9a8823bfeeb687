"""The extension modules' tables in pyproject.toml: what each is built from, and what of it a process has once.

A C source that two modules link is there twice, with its static data. So whatever keeps a state (this process's
attachment, its fork epoch, each thread's ids) is linked by `relay_mp._native.core` alone, and the others go through
core.pxd.
"""

import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NATIVE = ROOT / "relay_mp" / "_native"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
MODULES = {module["name"]: module for module in PROJECT["tool"]["setuptools"]["ext-modules"]}
SHARED = sorted(
    source
    for source in {source for module in MODULES.values() for source in module["sources"]}
    if sum(source in module["sources"] for module in MODULES.values()) > 1
)
SAME_IN_EACH_COPY = {"moved_byte", "use_hardware"}
"""crc32c.c's table, and whether the processor has the instruction: computed when a module is loaded, and constant."""


def named_files(path: Path) -> Iterator[Path]:
    """The project's files that one names: by cimport, `cdef extern from` and #include, and a pyx its own pxd."""
    text = path.read_text(encoding="utf-8")
    modules = re.findall(r"^(?:from ([\w.]+) cimport|cimport ([\w.]+))", text, re.MULTILINE)
    headers = re.findall(r'^(?:#include|cdef extern from) "(\w+\.h)"', text, re.MULTILINE)
    candidates = [ROOT / f"{(one or other).replace('.', '/')}.pxd" for one, other in modules]
    candidates += [NATIVE / header for header in headers]
    if path.suffix == ".pyx":
        candidates.append(path.with_suffix(".pxd"))
    return filter(Path.exists, candidates)


def files_behind(sources: list[str]) -> list[str]:
    found, rest = set(), [ROOT / source for source in sources]
    while rest:
        for file in named_files(rest.pop()):
            if file not in found:
                found.add(file)
                rest.append(file)
    return sorted(str(file.relative_to(ROOT)) for file in found)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_depends_on_all_that_its_sources_name(name):
    assert MODULES[name]["depends"] == files_behind(MODULES[name]["sources"])


def state_of(source: str, directory: Path) -> set[str]:
    """The names of what a C source keeps in memory of its own that may be written to."""
    compiled = directory / "source.o"
    command = ["gcc", "-std=c11", "-O0", f"-I{NATIVE}", "-c", str(ROOT / source), "-o", str(compiled)]
    subprocess.run(command, check=True, timeout=60)
    listed = subprocess.run(["nm", str(compiled)], check=True, capture_output=True, text=True, timeout=60).stdout
    return set(re.findall(r" [bBdDC] (\S+)$", listed, re.MULTILINE))


needs_compiler = pytest.mark.skipif(not shutil.which("gcc") or not shutil.which("nm"), reason="needs gcc and nm")


@needs_compiler
@pytest.mark.parametrize("source", SHARED)
def test_a_source_that_several_modules_link_keeps_no_state(source, tmp_path):
    assert state_of(source, tmp_path) <= SAME_IN_EACH_COPY


@needs_compiler
def test_the_sources_with_state_are_seen_as_such(tmp_path):
    found = {name: state_of(f"relay_mp/_native/{name}.c", tmp_path) for name in ("fork", "producer", "uuid7")}
    assert {"rmp_fork_page", "rmp_fork_count"} <= found["fork"]
    assert {"current", "own"} <= found["producer"]
    assert "own" in found["uuid7"]
