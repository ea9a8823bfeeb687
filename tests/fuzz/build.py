"""Builds and runs the fuzz target, fuzz_reader.c: with libFuzzer where there is clang, or with a main of its own."""

import os
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
NATIVE = HERE.parents[1] / "relay_mp" / "_native"
SOURCES = [
    HERE / "fuzz_reader.c",
    *(
        NATIVE / f"{name}.c"
        for name in ("crc32c", "eventcount", "fork", "platform_linux", "process", "ring", "segment", "slots", "uuid7")
    ),
]
FLAGS = [
    "-std=c11", "-g", "-O1", "-Wall", "-Wextra", "-Werror", "-fno-strict-aliasing", "-fno-omit-frame-pointer",
    "-pthread", "-fno-sanitize-recover=all", f"-I{NATIVE}",
]  # fmt: skip
BUILDS = {
    "main": ["-DFUZZ_MAIN", "-fsanitize=address,undefined"],
    "fuzzer": ["-fsanitize=fuzzer,address,undefined"],
}
BUILD_TIMEOUT_SECONDS = 120
MOST_BYTES = 8576
STUCK_SECONDS = 10
"""An input that takes longer hangs: a sound one takes a millisecond."""


def clang() -> str | None:
    """A clang, which alone has libFuzzer."""
    names = ["clang", *(f"clang-{version}" for version in range(22, 11, -1))]
    return next((path for name in names if (path := shutil.which(name))), None)


def compiler(name: str) -> str | None:
    """What can build it: any C compiler, but for the fuzzer."""
    if name == "fuzzer":
        return clang()
    return os.environ.get("CC") or shutil.which("gcc") or clang() or "cc"


def build(name: str, directory: Path) -> Path:
    """The binary of that name of BUILDS.

    Raises:
        RuntimeError: it cannot be built, with what the compiler said.
    """
    binary = directory / f"fuzz_reader_{name}"
    command = [str(compiler(name)), *FLAGS, *BUILDS[name], *map(str, SOURCES), "-o", str(binary)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_TIMEOUT_SECONDS, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
    return binary


def _run(command: list[str], timeout_seconds: float, **options: object) -> str:
    done = subprocess.run(
        command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout_seconds, check=False,
        **options,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}\n{done.stdout[-8000:]}")
    return done.stdout


def read_images(binary: Path, images: list[Path], timeout_seconds: float = 60) -> str:
    """Runs the build "main" over some images; a crash or a hang raises."""
    return _run([str(binary), *map(str, images)], timeout_seconds)


def write_seeds(binary: Path, directory: Path) -> str:
    """Images of real rings, by the build "main"."""
    return _run([str(binary)], 60, env={**os.environ, "FUZZ_SEEDS": str(directory)})


def fuzz(binary: Path, corpus: Path, seconds: int) -> str:
    """Fuzzes, adding to `corpus`; returns the last lines of what libFuzzer says. A finding raises."""
    command = [
        str(binary), f"-max_len={MOST_BYTES}", f"-max_total_time={seconds}", f"-timeout={STUCK_SECONDS}",
        "-use_value_profile=1", "-print_final_stats=1", str(corpus),
    ]  # fmt: skip
    return "\n".join(_run(command, seconds + 120, cwd=corpus).splitlines()[-10:])
