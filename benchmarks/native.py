"""Builds and drives ring_floor.c: the ring's own claim, copy and commit in C, and a writer that dies between them."""

import os
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks import needs
from relay_mp._bench.children import BenchmarkError, Unavailable
from relay_mp._bench.loops import Round

HERE = Path(__file__).parent
NATIVE = HERE.parent / "relay_mp" / "_native"
SOURCES = [
    HERE / "ring_floor.c",
    *(
        NATIVE / f"{name}.c"
        for name in ("crc32c", "eventcount", "fork", "platform_linux", "process", "ring", "segment", "slots", "uuid7")
    ),
]
FLAGS = ["-std=c11", "-O2", "-fno-strict-aliasing", "-pthread", f"-I{NATIVE}"]  # as Python's own extensions are built
BUILD_TIMEOUT_SECONDS = 120


@contextmanager
def program() -> Iterator[str]:
    """The path of the built program, as long as the block lasts.

    Raises:
        Unavailable: there is no C compiler.
        BenchmarkError: it does not compile.
    """
    compiler = needs.compiler()
    if compiler is None:
        raise Unavailable("no C compiler")
    with tempfile.TemporaryDirectory(prefix="relay-mp-bench-") as directory:
        binary = os.path.join(directory, "ring_floor")
        command = [*shlex.split(compiler), *FLAGS, *map(str, SOURCES), "-o", binary]
        built = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_TIMEOUT_SECONDS, check=False)
        if built.returncode:
            raise BenchmarkError(f"{' '.join(command)}\n{built.stderr}")
        yield binary


@contextmanager
def in_c(binary: str, mode: str, payload_bytes: int, calls: int) -> Iterator[Callable[[], Round]]:
    """A side: `calls` of the ring's write, or of memcpy, a round."""
    command = [binary, mode, str(payload_bytes)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as running:
        assert running.stdin
        assert running.stdout
        ask, answer = running.stdin, running.stdout

        def run_round() -> Round:
            ask.write(f"{calls}\n")
            loop, *samples = map(int, answer.readline().split())
            return Round(np.array(samples, np.int64), loop / calls)

        yield run_round
        ask.close()
