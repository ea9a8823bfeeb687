"""What every test has: the hypothesis profiles, the `long` marker, a session, and a look at what it left behind.

pytest                                  the default profile, without the tests marked `long`
pytest -m long                          only those, with the long profile: 10,000 examples
RELAY_MP_TEST_PROFILE=long pytest       the default tests with the long profile
"""

import contextlib
import gc
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

import relay_mp
from relay_mp import plugin
from relay_mp._log import WRITER_NAME, logger
from relay_mp._plugins import files
from relay_mp._session import naming, settings

hypothesis_settings.register_profile("default", max_examples=60, deadline=None)
hypothesis_settings.register_profile(
    "long", max_examples=10_000, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)

SCRIPT_TIMEOUT_SECONDS = 60.0
RING_BYTES = 4 * 1024 * 1024

# Where it is set, as on some CI machines, a print is two writes, and the lines of processes that share a pipe mix.
os.environ.pop("PYTHONUNBUFFERED", None)

# Where it is set, as in many containers, each of the hundreds of interpreters that the tests start compiles the package
# anew: twice the time of its import.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# A shell's background job ignores it, and so would all that tests start and interrupt: a handler is not inherited,
# but what stands in its place is the default again.
signal.signal(signal.SIGINT, signal.default_int_handler)


def _only_long(config: pytest.Config) -> bool:
    return config.getoption("markexpr") == "long"


def pytest_configure(config: pytest.Config) -> None:
    """Chooses hypothesis' profile: by the environment, else by the marker."""
    name = os.environ.get("RELAY_MP_TEST_PROFILE") or ("long" if _only_long(config) else "default")
    hypothesis_settings.load_profile(name)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves the long tests out, unless an expression of markers says otherwise."""
    if config.getoption("markexpr"):
        return
    long = [item for item in items if item.get_closest_marker("long")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if not item.get_closest_marker("long")]


def pytest_collection_finish() -> None:
    """What has been collected stays: no collection of garbage, of this process or of its forks, looks at it again."""
    gc.freeze()


# ------------------------------------------------------------------------------------ what is left behind


def _descriptors() -> dict[int, str]:
    """Of this process, with what each is open on."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # that of the listing itself
            continue
    return found


def _has_children() -> bool:
    """Asked of the kernel, before all processes of the machine are looked at; who has none has no descendants."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _children() -> dict[int, str]:
    """Descendants of this process, zombies included."""
    if not _has_children():
        return {}
    found = {}
    for child in psutil.Process().children(recursive=True):
        try:
            found[child.pid] = f"{child.status()}: {' '.join(child.cmdline())[:120]}"
        except psutil.NoSuchProcess:
            continue
        except psutil.AccessDenied:
            found[child.pid] = "access denied"
    return found


def _pid_of(segment: str) -> int:
    """The owner's, from the segment's name; see relay_mp/_session/naming.py."""
    try:
        return int(os.path.basename(segment).removeprefix(naming.PREFIX).split("-")[2], 16)
    except (IndexError, ValueError):
        return 0


def _segments(pids: set[int]) -> set[str]:
    """Segments whose owner is one of the pids: other programs of this user have sessions too."""
    return {path for path in naming.own_segments(settings.SHARED_MEMORY) if _pid_of(path) in pids}


def _variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("RELAY_MP_")}


def _stop_helpers() -> None:
    """multiprocessing's two processes that outlive their use, if a test has started them."""
    # They have no public stop; both calls are no-ops if there is nothing to stop.
    tracker = multiprocessing.resource_tracker._resource_tracker
    if tracker._pid is not None:
        gc.collect()  # pools unlink their semaphores when they are collected; the tracker would do it first
    multiprocessing.forkserver._forkserver._stop()
    tracker._stop()


class Scripts:
    """Runs Python in a fresh interpreter: for what forks or ends a process. `pids` are those it ran."""

    def __init__(self) -> None:
        self.pids: set[int] = set()

    def __call__(
        self,
        code: str,
        *arguments: object,
        returncode: int = 0,
        environment: dict[str, str] | None = None,
        timeout_seconds: float = SCRIPT_TIMEOUT_SECONDS,
    ) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, *map(str, arguments)]
        paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        with subprocess.Popen(
            command,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": paths, **(environment or {})},
        ) as process:
            self.pids.add(process.pid)
            try:
                out, err = process.communicate(timeout=timeout_seconds)
            except subprocess.TimeoutExpired as expired:
                process.kill()  # not read on to the end: a child of it may have its pipes
                said = b"\n".join(text or b"" for text in (expired.stdout, expired.stderr)).decode(errors="replace")
                pytest.fail(f"the script did not end within {timeout_seconds} s\n{said}")
        assert process.returncode == returncode, f"code {process.returncode}\n{out}\n{err}"
        return subprocess.CompletedProcess(command, process.returncode, out, err)


@pytest.fixture
def run_script(_nothing_is_left_behind: Scripts) -> Scripts:
    """`run_script(code, *arguments)`; `tests/` is on its path. What it leaves in shared memory is seen."""
    return _nothing_is_left_behind


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Iterator[Scripts]:
    """After each test: no segment, descriptor, child, zombie, thread or variable that was not there before, and no
    scope that is still open, under which all later tests would be."""
    scripts = Scripts()
    descriptors, children, variables = _descriptors(), _children(), _variables()
    threads = set(threading.enumerate())
    logger.forget()
    yield scripts
    _stop_helpers()
    # It ends by itself, once there is no more to write. Not `join`: it may be about to start.
    deadline = time.monotonic() + 5.0
    while any(thread.name == WRITER_NAME for thread in threading.enumerate()) and time.monotonic() < deadline:
        time.sleep(0.001)
    new_threads = [thread.name for thread in threading.enumerate() if thread not in threads]
    new_children = {pid: what for pid, what in _children().items() if pid not in children}
    new_segments = _segments({os.getpid(), *scripts.pids, *new_children})
    if _new(_descriptors(), descriptors):
        gc.collect()  # the queues of multiprocessing close their pipes when they are collected
    left = {
        "threads": new_threads,
        "child processes": new_children,
        "segments": new_segments,
        "descriptors": _new(_descriptors(), descriptors),
        "variables": set(_variables().items()) ^ set(variables.items()),
        "open scope": _current_scope(),
    }
    for pid in new_children:  # reported below; not to be found again by every test that follows
        with contextlib.suppress(psutil.NoSuchProcess, ChildProcessError):
            psutil.Process(pid).kill()
            os.waitpid(pid, 0)
    found = {kind: what for kind, what in left.items() if what}
    assert not found, f"left behind by the test: {found}"


@contextlib.contextmanager
def _mounted(mount: Path, size: str) -> Iterator[Path]:
    """A file system of that size in memory."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(mount)]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"mounting is not allowed here: {done.stderr.decode().strip()}")
    try:
        yield mount
    finally:
        subprocess.run(["umount", str(mount)], check=True)


@pytest.fixture
def no_plugins_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No file of this machine counts as a configuration; no kind, nothing active and no session is left behind."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(files, "SYSTEM_FILE", tmp_path / "etc" / "plugins.toml")
    yield
    plugin.clear()
    for kind in set(plugin.list_kinds()) - set(plugin.BUILT_IN):
        plugin.deregister(kind)
    relay_mp.shutdown()  # the default session, where there was no other


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    with _mounted(tmp_path / "disk", "64k") as mount:
        yield mount


@pytest.fixture
def small_file_system(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB, for a segment."""
    with _mounted(tmp_path / "shm", "1m") as mount:
        yield mount


def _current_scope() -> str | None:
    """The name of this thread's scope, if it is not the root; there is none for the next test."""
    handle = relay_mp.scope.get_handle()
    if handle.name == "root":
        return None
    relay_mp.set_thread_scope_stack(relay_mp.create_scope_stack())
    return str(handle.name)


def _new(now: dict[int, str], before: dict[int, str]) -> dict[int, str]:
    return {number: what for number, what in now.items() if before.get(number) != what}


# ------------------------------------------------------------------------------------------ sessions


@pytest.fixture
def session(request: pytest.FixtureRequest) -> Iterator[relay_mp.Session]:
    """An open session that this process owns.

    Parametrized indirectly by a dispatcher, or by the arguments of `relay_mp.session` as a dict:
    `@pytest.mark.parametrize("session", ["thread", "process"], indirect=True)`. Its ring is a quarter of the default:
    to allocate, format and free that costs more than most of the tests.
    """
    given = getattr(request, "param", {})
    arguments = {"dispatcher": given} if isinstance(given, str) else given
    with relay_mp.session(**{"ring_bytes": RING_BYTES, **arguments}) as session:
        yield session


@pytest.fixture
def seen(session: relay_mp.Session) -> Iterator[list[relay_mp.Event]]:
    """What a live subscriber of this process has seen of the session: complete after a flush."""
    events: list[relay_mp.Event] = []
    relay_mp.subscribers.register("seen", events.append)
    yield events
    if session.is_open:
        relay_mp.subscribers.deregister("seen")
