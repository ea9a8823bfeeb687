"""What is published: an sdist that builds and tests itself, and a wheel with what is run and no more.

The default profile reads the configuration. The long one builds: `tox -e package`.
"""

import io
import re
import sysconfig
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest
from building import PROBE_CFLAGS, ROOT, needs, run, tracked_files

CONFIGURATION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = CONFIGURATION["project"]

NOT_IN_THE_SDIST = (".gitignore", ".github/*", ".pre-commit-config.yaml")
"""What serves a checkout only."""
IN_EVERY_SDIST = ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in")
IN_THE_WHEEL = re.compile(
    r"relay_mp/(py\.typed|.*\.(py|pyi|so)|view/page/[a-z]+\.(html|css|js))|relay_mp-[^/]*\.dist-info/.*"
)

GLIBC = (2, 28)
MOVED_IN_GLIBC = {"fstat", "stat", "pthread_key_create", "pthread_once", "pthread_setspecific"}
"""glibc 2.33 and 2.34 gave these older functions new versions: nothing but the compiler's own glibc asks for more."""
MOST_WHEEL_BYTES = 1_500_000
"""Stripped; 1.1 MB as this was written. With the debugging symbols that Python's own flags ask for it is 3.9 MB."""


def minor(version: str) -> int:
    return int(version.partition(".")[2])


# ---------------------------------------------------------------------------------------- what is cheap


def test_classifiers_wheels_and_what_is_required_agree_on_the_versions_of_python():
    named = [name.rpartition(" ")[2] for name in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", name)]
    assert named[0] == PROJECT["requires-python"].removeprefix(">=")
    assert [minor(version) for version in named] == list(range(minor(named[0]), minor(named[-1]) + 1))
    tags = CONFIGURATION["tool"]["cibuildwheel"]["build"]
    for tag in [f"cp{version.replace('.', '')}-*" for version in named]:
        assert tag in tags


def test_the_manifest_names_all_that_is_tracked():
    files = tracked_files()
    if files is None:
        pytest.skip("this is no git checkout")
    rules = [line.split() for line in (ROOT / "MANIFEST.in").read_text(encoding="utf-8").splitlines()]
    included = [pattern for rule in rules if rule and rule[0] == "include" for pattern in rule[1:]]
    grafted = [rule[1] for rule in rules if rule and rule[0] == "graft"]
    patterns = [*IN_EVERY_SDIST, *NOT_IN_THE_SDIST, *included, *(f"{folder}/*" for folder in (*grafted, "relay_mp"))]
    missing = [str(file) for file in files if not any(fnmatch(str(file), pattern) for pattern in patterns)]
    assert not missing, f"MANIFEST.in has no rule for {missing}"


def test_an_extra_that_contains_another_names_it():
    """Two lists of the same packages would drift apart; only `test` may need less than the extras it tests."""
    extras = PROJECT["optional-dependencies"]
    for name in ("openinference", "bench", "viewers"):
        assert any(requirement.startswith("relay_mp[") for requirement in extras[name]), name


# ---------------------------------------------------------------------------------------- what is built


@pytest.mark.long
def test_the_configuration_is_valid(tmp_path):
    needs("validate-pyproject")
    run(command("validate-pyproject"), ROOT / "pyproject.toml", cwd=tmp_path)


def command(name: str) -> Path:
    """Of this environment."""
    return Path(sysconfig.get_path("scripts")) / name


@pytest.mark.long
def test_registries_and_installers_take_both(distribution, tmp_path):
    needs("twine", "check-wheel-contents")
    run(command("twine"), "check", "--strict", distribution.sdist, distribution.wheel, cwd=tmp_path)
    run(command("check-wheel-contents"), distribution.wheel, cwd=tmp_path)


@pytest.mark.long
def test_the_wheel_holds_what_is_imported_and_no_sources(distribution):
    names = distribution.names_in_wheel()
    assert [name for name in sorted(names) if not IN_THE_WHEEL.fullmatch(name)] == []
    assert [name for name in sorted(names) if re.search(r"chaos|conftest|(^|/)tests?/|/test_", name)] == []
    installed = re.compile(r"relay_mp/.*\.(py|pyi|typed|html|css|js)")
    tracked = {name for name in distribution.names_in_sdist() if installed.fullmatch(name)}
    assert tracked <= names
    extensions = {module["name"].replace(".", "/") for module in CONFIGURATION["tool"]["setuptools"]["ext-modules"]}
    assert {name.partition(".")[0] for name in names if name.endswith(".so")} == extensions


@pytest.mark.long
def test_the_sdist_holds_what_git_tracks(distribution):
    files = tracked_files()
    if files is None:
        pytest.skip("this is no git checkout")
    expected = {str(file) for file in files if not any(fnmatch(str(file), pattern) for pattern in NOT_IN_THE_SDIST)}
    made = {"PKG-INFO", "setup.cfg"}
    found = {name for name in distribution.names_in_sdist() if not name.startswith("relay_mp.egg-info/")} - made
    assert found == expected


@pytest.mark.long
def test_the_source_build_honours_cflags(distribution):
    """They follow Python's own flags, and nothing of ours takes them back."""
    compiled = [line.split() for line in distribution.log.splitlines() if re.search(r"\s-c relay_mp/\S+\.c\s", line)]
    sources = {source for module in CONFIGURATION["tool"]["setuptools"]["ext-modules"] for source in module["sources"]}
    assert len(compiled) >= len(sources)
    for words in compiled:
        assert "-DRMP_PROBE" in words
        assert [word for word in words if re.match("-O.", word)][-1] == PROBE_CFLAGS.split()[0]


@pytest.mark.long
def test_the_wheel_asks_a_newer_glibc_for_nothing_that_an_old_one_has_not(distribution):
    """So a compiler that targets an old glibc, or an old system, makes a manylinux_2_28 wheel of the same sources."""
    needs("auditwheel")
    with zipfile.ZipFile(distribution.wheel) as archive:
        newer = {
            symbol
            for name in archive.namelist()
            if name.endswith(".so")
            for symbol, version in glibc_symbols(archive.read(name))
            if version > GLIBC
        }
    assert newer <= MOVED_IN_GLIBC


def glibc_symbols(library: bytes) -> Iterator[tuple[str, tuple[int, ...]]]:
    """What the shared library takes from glibc, with the version that it asks for."""
    elffile = pytest.importorskip("elftools.elf.elffile")  # auditwheel's own reader
    elf = elffile.ELFFile(io.BytesIO(library))
    versions = elf.get_section_by_name(".gnu.version_r")
    indices = elf.get_section_by_name(".gnu.version")
    for number, symbol in enumerate(elf.get_section_by_name(".dynsym").iter_symbols()):
        index = indices.get_symbol(number)["ndx"]
        if symbol["st_shndx"] == "SHN_UNDEF" and isinstance(index, int) and (needed := versions.get_version(index)):
            name = needed[1].name
            if name.startswith("GLIBC_"):
                yield symbol.name, tuple(map(int, name.removeprefix("GLIBC_").split(".")))


@pytest.mark.long
def test_the_wheel_is_small_when_stripped(distribution, tmp_path):
    needs("auditwheel", "patchelf")
    output = tmp_path / "repaired"
    run(command("auditwheel"), "repair", "--strip", "--wheel-dir", output, distribution.wheel, cwd=tmp_path)
    (repaired,) = output.iterdir()
    assert repaired.stat().st_size < MOST_WHEEL_BYTES


@pytest.mark.long
def test_the_sdist_runs_its_own_tests(distribution, make_environment, tmp_path):
    """All of them are collected; a few of each kind are run: of one process, of workers, of the C part."""
    with tarfile.open(distribution.sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (sources,) = tmp_path.glob("relay_mp-*")
    environment = make_environment()
    environment.install("--editable", ".[test]", cwd=sources)
    assert "error" not in environment.run("-m", "pytest", "--collect-only", "--quiet", cwd=sources).splitlines()[-1]
    chosen = ["tests/test_scope.py", "tests/test_acceptance.py", "tests/native/test_encode.py", "tests/packaging"]
    environment.run("-m", "pytest", "--quiet", *chosen, cwd=sources)
    environment.run("examples/minimal.py", cwd=sources)
