"""Builds the native ring with its C tests, plain, under sanitizers, for other processors and C libraries, and runs each
test by its name.

The tests themselves are in `test_*.c` here (`TEST(name)`); they fork, kill and stop real processes. Each
runs in a process of its own, with a timeout, whose children die with it.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

HERE = Path(__file__).parent
NATIVE = HERE.parents[1] / "relay_mp" / "_native"
SOURCES = [
    *sorted(HERE.glob("*.c")),
    *(
        NATIVE / f"{name}.c"
        for name in ("crc32c", "eventcount", "fork", "platform_linux", "process", "ring", "segment", "slots", "uuid7")
    ),
]
COMPILER = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang") or "cc"
FLAGS = [
    "-std=c11", "-g", "-Wall", "-Wextra", "-Werror", "-fno-strict-aliasing", "-pthread", "-DRMP_TEST_POINTS",
    f"-I{NATIVE}", "-include", str(HERE / "backstop.h"),
]  # fmt: skip


@dataclass(frozen=True)
class Build:
    """How the tests are compiled, and by which program the binary is run."""

    flags: list[str]
    compiler: str = COMPILER
    runner: str | None = None
    kernel_headers: bool = False
    """Whether the C library comes without Linux's own headers: the machine's are taken."""


BUILDS = {
    "plain": Build(["-O2"]),
    # As a system would be that lacks what platform.h asks for; and as Python's own flags have it.
    "fallbacks": Build(["-O2", "-DNDEBUG", "-DRMP_WITHOUT_FUTEX", "-DRMP_WITHOUT_PIDFD", "-DRMP_WITHOUT_WIPEONFORK"]),
    "address": Build(["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]),
    # gcc's does not know fences, and says so: what they order here (a wake-up) is not memory that races.
    "thread": Build(
        ["-O1", "-fsanitize=thread", "-DRMP_TSAN", *(["-Wno-tsan"] if "gcc" in COMPILER else [])],
    ),
    "aarch64": Build(["-O2", "-static"], "aarch64-linux-gnu-gcc", runner="qemu-aarch64"),
    "musl": Build(["-O2", "-static"], "musl-gcc", kernel_headers=True),
}
ENVIRONMENT = {
    **os.environ,
    "ASAN_OPTIONS": "detect_leaks=1:abort_on_error=0",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
    "TSAN_OPTIONS": f"halt_on_error=1:suppressions={HERE / 'tsan.supp'}",
}
TIMEOUT_SECONDS = 120
LONG_TIMEOUT_SECONDS = 3600


def names_of(pattern: str) -> list[str]:
    """The tests in the sources of such a name."""
    return [
        name
        for file in sorted(HERE.glob(pattern))
        for name in re.findall(r"^TEST(?:_COUNTED)?\((\w+)", file.read_text(), re.M)
    ]


TESTS = names_of("test_*.c")

# What waits, and what asks for processes. The others' dispatcher sees no zombie without pidfd: psutil does, in Python.
FALLBACK_TESTS = [*names_of("test_eventcount.c"), *names_of("test_process.c")]

# Counts for the builds in which the default takes too long.
COUNTS = {
    ("address", "no_wake_up_is_lost_between_producer_and_reader"): 5_000,
    ("address", "no_wake_up_is_lost_among_waiters_for_space"): 5_000,
    ("address", "no_wake_up_is_lost_among_flushes"): 2_000,
    ("address", "order_and_payloads_hold_with_2_processes"): 100_000,
    ("address", "order_and_payloads_hold_with_8_processes"): 20_000,
    ("aarch64", "a_reader_that_fences_at_once_loses_what_it_fences_and_nothing_else"): 4_000,
    ("aarch64", "bit_flips_cost_no_more_than_the_records_they_hit"): 2_000,
    ("aarch64", "no_wake_up_is_lost_among_waiters_for_space"): 20_000,
    ("aarch64", "order_and_payloads_hold_with_2_processes"): 50_000,
    ("aarch64", "order_and_payloads_hold_with_8_processes"): 20_000,
    ("musl", "bit_flips_cost_no_more_than_the_records_they_hit"): 2_000,
    ("musl", "order_and_payloads_hold_with_2_processes"): 50_000,
    ("musl", "order_and_payloads_hold_with_8_processes"): 20_000,
    ("thread", "a_reader_that_fences_at_once_loses_what_it_fences_and_nothing_else"): 4_000,
    ("thread", "a_slot_has_one_holder_at_a_time"): 20_000,
    ("thread", "order_and_payloads_hold_with_2_processes"): 20_000,
}

# What has threads, and two that have processes, for the fences' and the swap's other code path.
THREAD_TESTS = [
    "a_reader_that_fences_at_once_loses_what_it_fences_and_nothing_else",
    "a_slot_has_one_holder_at_a_time",
    "order_and_payloads_hold_with_2_processes",
    "order_and_payloads_hold_with_4_threads",
    "order_and_payloads_hold_with_4_threads_in_the_smallest_ring",
    "survivors_are_not_blocked_by_a_producer_killed_at_any_point",
    "uuid7_ids_sort_within_a_thread_and_differ_everywhere",
]

LONG = [
    # The count is a stride: all 2,662 pairs of a triple of points and a way to meet a full ring.
    ("plain", "three_producers_killed_at_any_three_points_lose_one_record_each_at_most", 1),
    ("plain", "order_and_payloads_hold_with_2_processes", 10_000_000),
    ("plain", "order_and_payloads_hold_with_8_processes", 1_000_000),
    ("plain", "no_wake_up_is_lost_between_producer_and_reader", 10_000_000),
    ("plain", "no_wake_up_is_lost_among_waiters_for_space", 10_000_000),
    ("plain", "no_wake_up_is_lost_among_flushes", 10_000_000),
    ("plain", "bit_flips_cost_no_more_than_the_records_they_hit", 1_000_000),
    ("address", "bit_flips_cost_no_more_than_the_records_they_hit", 1_000_000),
    ("thread", "order_and_payloads_hold_with_4_threads", 500_000),
    ("thread", "a_reader_that_fences_at_once_loses_what_it_fences_and_nothing_else", 100_000),
]

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="the tests use /dev/shm and Linux's way to name processes"
)


def link_kernel_headers(directory: Path) -> list[str]:
    """Of the machine's headers those of Linux alone, and the flags that find them."""
    found = subprocess.run([COMPILER, "-print-multiarch"], capture_output=True, text=True, check=False).stdout.strip()
    directory.mkdir()
    for name, of_the_processor in (("linux", ""), ("asm-generic", ""), ("asm", found)):
        (directory / name).symlink_to(Path("/usr/include", of_the_processor, name))
    return ["-idirafter", str(directory)]


def build(name: str, directory: Path) -> Path | str:
    """The binary, or what the compiler said."""
    binary, how = directory / f"ring_test_{name}", BUILDS[name]
    headers = link_kernel_headers(directory / f"headers_{name}") if how.kernel_headers else []
    command = [how.compiler, *FLAGS, *how.flags, *headers, *map(str, SOURCES), "-o", str(binary)]
    compiled = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
    return binary if compiled.returncode == 0 else f"{' '.join(command)}\n{compiled.stderr}"


@pytest.fixture(scope="session")
def binaries(tmp_path_factory):
    """Builds at first use: binaries("plain")."""
    directory = tmp_path_factory.mktemp("ring_test")
    built: dict[str, Path | str] = {}

    def binary(name: str) -> Path:
        if name not in built:
            built[name] = build(name, directory)
        result = built[name]
        if isinstance(result, str):
            pytest.fail(f"the {name} build failed:\n{result}", pytrace=False)
        return result

    return binary


def run(build_name: str, binary: Path, test: str, timeout_seconds: float) -> str:
    runner = BUILDS[build_name].runner
    process = subprocess.Popen(
        [*([runner] if runner else []), str(binary), test],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=ENVIRONMENT,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=timeout_seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        pytest.fail(f"{test} hangs: killed after {timeout_seconds} s\n{output}", pytrace=False)
    if process.returncode:
        pytest.fail(f"{test} ended with {process.returncode}:\n{output}", pytrace=False)
    return output


@pytest.fixture(autouse=True)
def _nothing_is_left_in_shared_memory():
    """Of processes that have ended; other runs of these tests on this machine go on."""
    yield
    left = [path.name for path in Path("/dev/shm").glob("rmp_*_test.*")]
    assert not [name for name in left if not psutil.pid_exists(int(name.split(".")[1]))]


def check(binaries, build_name: str, test: str) -> None:
    count = COUNTS.get((build_name, test))
    run(build_name, binaries(build_name), f"{test}={count}" if count else test, TIMEOUT_SECONDS)


def needs(build_name: str) -> pytest.MarkDecorator:
    """Leaves the build's tests out where its programs are not installed."""
    programs = [BUILDS[build_name].compiler, BUILDS[build_name].runner]
    missing = [program for program in programs if program and shutil.which(program) is None]
    return pytest.mark.skipif(bool(missing), reason=f"the C tests for {build_name} need {' and '.join(missing)}")


@pytest.mark.parametrize("test", TESTS)
def test_plain(binaries, test):
    check(binaries, "plain", test)


@pytest.mark.parametrize("test", FALLBACK_TESTS)
def test_fallbacks(binaries, test):
    check(binaries, "fallbacks", test)


@pytest.mark.parametrize("test", TESTS)
def test_address_and_undefined_behaviour(binaries, test):
    check(binaries, "address", test)


@pytest.mark.parametrize("test", THREAD_TESTS)
def test_thread_races(binaries, test):
    check(binaries, "thread", test)


@needs("aarch64")
@pytest.mark.parametrize("test", TESTS)
def test_aarch64(binaries, test):
    check(binaries, "aarch64", test)


@needs("musl")
@pytest.mark.parametrize("test", TESTS)
def test_musl(binaries, test):
    check(binaries, "musl", test)


@pytest.mark.long
@pytest.mark.timeout(LONG_TIMEOUT_SECONDS + 60)
@pytest.mark.parametrize(("build_name", "test", "count"), LONG)
def test_long(binaries, build_name, test, count):
    print(run(build_name, binaries(build_name), f"{test}={count}", LONG_TIMEOUT_SECONDS))
