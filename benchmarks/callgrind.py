"""Instructions of the emit path, counted by valgrind: what CI can judge, for no other work on the machine changes it.

    python -m benchmarks.callgrind      prints instructions a call: a mark with four fields, msgpack.packb of the record

One process does both under callgrind. A call of getppid, which nothing else here makes, parts the phases: callgrind
dumps its counters there. The dispatcher is held in a callback meanwhile, so that only the emitting thread runs.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import msgpack

import relay_mp
from benchmarks.payloads import EVENT_NAME, FOUR_FIELDS, record

CALLS = 500
PHASES = ["start", "loop", "mark", "packb"]
TIMEOUT_SECONDS = 240
_INSIDE = "inside"


def instructions() -> dict[str, float]:
    """Instructions of one call, by what is called; the loop's own are taken off.

    Raises:
        FileNotFoundError: there is no valgrind.
        RuntimeError: it failed, or counted other phases than were run.
    """
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise FileNotFoundError("valgrind is not installed")
    with tempfile.TemporaryDirectory(prefix="relay-mp-bench-") as directory:
        out = os.path.join(directory, "out")
        options = ["--tool=callgrind", "--dump-before=getppid", f"--callgrind-out-file={out}"]
        ran = subprocess.run(
            [valgrind, *options, sys.executable, "-m", "benchmarks.callgrind", _INSIDE],
            cwd=Path(__file__).parent.parent,
            env={**os.environ, "PYTHONHASHSEED": "0"},
            capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False,
        )  # fmt: skip
        dumps = sorted(Path(directory).glob("out.*"), key=lambda path: int(path.suffix[1:]))
        phases = [path for path in dumps if "--dump-before=getppid" in path.read_text(encoding="utf-8")]
        if ran.returncode or len(phases) != len(PHASES):
            raise RuntimeError(f"{len(phases)} phases, expected {len(PHASES)}; code {ran.returncode}\n{ran.stderr}")
        counts = dict(zip(PHASES, map(_total, phases), strict=True))
    return {name: (counts[name] - counts["loop"]) / CALLS for name in ("mark", "packb")}


def _total(dump: Path) -> int:
    (total,) = re.findall(r"^totals: (\d+)$", dump.read_text(encoding="utf-8"), re.MULTILINE)
    return int(total)


def _inside() -> None:
    held = threading.Event()

    def hold(_event: relay_mp.Event) -> None:
        held.set()
        threading.Event().wait()

    session = relay_mp.session()
    relay_mp.subscribers.register("hold", hold)
    relay_mp.scope.event(EVENT_NAME, data=FOUR_FIELDS)
    if not held.wait(TIMEOUT_SECONDS):
        raise RuntimeError("the dispatcher does not deliver")
    packed = record()
    phases: list[Callable[[], None]] = [_loop, _mark, lambda: _packb(packed)]
    for phase in phases:  # the interpreter specialises what it runs, the thread takes its slot and its buffer
        phase()
    for phase in phases:
        os.getppid()
        phase()
    os.getppid()
    # The session is left as a crash would leave it: closing imports NumPy, which takes longer here than all the rest.
    os.unlink(session.path)
    os._exit(0)


def _loop() -> None:
    for _ in range(CALLS):
        pass


def _mark() -> None:
    event = relay_mp.scope.event
    for _ in range(CALLS):
        event(EVENT_NAME, data=FOUR_FIELDS)


def _packb(packed: list[object]) -> None:
    packb = msgpack.packb
    for _ in range(CALLS):
        packb(packed)


if __name__ == "__main__":
    if sys.argv[1:] == [_INSIDE]:
        _inside()
    print({name: round(count) for name, count in instructions().items()})
