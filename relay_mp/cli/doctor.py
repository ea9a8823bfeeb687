"""`relay-mp doctor`: whether the library can work here: each line with what was found, and what to do about it."""

import difflib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
import sysconfig
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import partial
from typing import Literal, TypeAlias

from relay_mp._emit.failures import STACKTRACES_VARIABLE
from relay_mp._emit.settle import TIMEOUT_VARIABLE
from relay_mp._session import placing
from relay_mp._session import settings as settings_module
from relay_mp._session.inheritance import SCOPE_VARIABLE, SESSION_VARIABLE
from relay_mp._session.seen import LEFT, SessionInfo, sessions
from relay_mp._session.settings import PREFIX, Settings
from relay_mp.cli import trial
from relay_mp.cli.exits import Exit
from relay_mp.cli.progress import Progress
from relay_mp.cli.terminal import Terminal, plain
from relay_mp.cli.units import plural, size
from relay_mp.errors import SessionError
from relay_mp.pricing import VARIABLE as PRICES_VARIABLE

EXAMPLE = "relay-mp doctor"

Verdict: TypeAlias = Literal["good", "note", "problem"]

FEW_DESCRIPTORS = 256
"""A limit below this is told: a session needs some in each process, and the program its own."""

TRIAL_SECONDS = 60.0

EXTRAS = {
    "completion": "argcomplete",
    "openai": "openai",
    "openinference": "openinference.semconv",
    "otel": "opentelemetry.sdk",
    "parquet": "pyarrow",
    "pricing": "genai_prices",
    "prometheus": "prometheus_client",
    "pydantic": "pydantic",
}
"""A module of each extra that a program may use."""

_OWN_VARIABLES = {SESSION_VARIABLE, SCOPE_VARIABLE, PRICES_VARIABLE, TIMEOUT_VARIABLE, STACKTRACES_VARIABLE}
_OTHER_VARIABLES = re.compile(rf"{PREFIX}(BENCH|LOG|RUN|TEST|VIEW|WATCH)_\w+")

_MARKS = {"good": ("ok", "green"), "note": ("note", "yellow"), "problem": ("PROBLEM", "red")}


@dataclass(frozen=True)
class Finding:
    """One line.

    Attributes:
        verdict: "problem": something will not work; "note": something to know.
        what: what was looked at.
        found: what is there.
        advice: what to do; "" where there is nothing.
    """

    verdict: Verdict
    what: str
    found: str
    advice: str = ""


def add_arguments(parser: ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("--no-trial", action="store_true", help="start no test session")
    parser.add_argument("--json", action="store_true", help="a JSON object a line")


def run(arguments: Namespace, terminal: Terminal) -> int:
    """Looks at everything; ends with FOUND if there is a problem."""
    has_problem = False
    for check in _CHECKS if arguments.no_trial else [*_CHECKS, *_trials(terminal)]:
        for finding in check():
            has_problem |= finding.verdict == "problem"
            _show(finding, terminal, arguments.json)
            terminal.out.flush()
    return Exit.FOUND if has_problem else Exit.DONE


def _show(finding: Finding, terminal: Terminal, as_json: bool) -> None:
    if as_json:
        terminal.print(json.dumps(vars(finding)))
        return
    mark, style = _MARKS[finding.verdict]
    terminal.print(f"{terminal.style(f'{mark:<8}', style)} {finding.what:<24} {plain(finding.found)}")
    if finding.advice:
        terminal.print(f"{'':<33} {terminal.style('-> ', style)}{plain(finding.advice)}")


# ------------------------------------------------------------------------------------------------- checks


def _versions() -> Iterator[Finding]:
    threads = " without the GIL" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
    python = f"{platform.python_implementation()} {platform.python_version()}{threads}"
    found = f"relay_mp {importlib.metadata.version('relay_mp')}, {python}, {platform.system()} {platform.release()}"
    yield Finding("good", "versions", found)
    if sys.platform != "linux":
        yield Finding("note", "system", sys.platform, "tried on Linux; see docs/explanation/platforms.md")


def _settings() -> Iterator[Finding]:
    try:
        settings_module.resolve()
    except SessionError as error:
        yield Finding("problem", "settings", str(error), "correct the variable, or remove it")
    else:
        yield Finding("good", "settings", "can be used")


def _shared_memory() -> Iterator[Finding]:
    try:
        settings = settings_module.resolve()
    except SessionError:
        settings = Settings()
    for directory in placing.directories(settings):
        yield _place(directory, settings)


def _place(directory: str, settings: Settings) -> Finding:
    what = f"room in {directory}"
    if not os.path.isdir(directory):
        return Finding("problem", what, "there is no such directory", "name another (RELAY_MP_DIRECTORY)")
    if not os.access(directory, os.W_OK | os.X_OK):
        return Finding("problem", what, "this user may not write there", "name another (RELAY_MP_DIRECTORY)")
    free = shutil.disk_usage(directory).free
    asked = f"{size(free)} free; a ring takes {size(settings.ring_bytes)}"
    if free >= settings.ring_bytes:
        return Finding("good", what, asked)
    smaller = f"smaller rings, down to {size(settings.min_ring_bytes)}, are tried; give it more (docker: --shm-size)"
    return Finding("note" if free >= settings.min_ring_bytes else "problem", what, asked, smaller)


def _system() -> Iterator[Finding]:
    if hasattr(os, "pidfd_open"):
        try:
            os.close(os.pidfd_open(os.getpid()))
            yield Finding("good", "deaths of processes", "seen at once, by pidfd")
        except OSError as error:
            yield Finding(
                "note", "deaths of processes", f"no pidfd: {error}", "psutil is used, which looks now and then"
            )
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < FEW_DESCRIPTORS:
        yield Finding("note", "open files", f"at most {soft}", "raise the limit: ulimit -n 1024")
    else:
        yield Finding("good", "open files", "no limit" if soft < 0 else f"at most {soft:,}")


def _extras() -> Iterator[Finding]:
    there = [name for name, module in EXTRAS.items() if _is_there(module)]
    missing = [name for name in EXTRAS if name not in there]
    yield Finding("good", "extras", ", ".join(there) or "none")
    if missing:
        advice = f"where they are needed: pip install 'relay_mp[{','.join(missing)}]'"
        yield Finding("good", "extras left out", ", ".join(missing), advice)


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of a package above it
        return False


def _variables() -> Iterator[Finding]:
    known = {PREFIX + field.name.upper() for field in fields(Settings)} | _OWN_VARIABLES
    given = sorted(name for name in os.environ if name.startswith(PREFIX))
    if not given:
        yield Finding("good", "variables", f"none that begins with {PREFIX}")
    for name in given:
        if name == SESSION_VARIABLE:
            yield _inherited()
        elif name in known or _OTHER_VARIABLES.fullmatch(name):
            yield Finding("good", name, os.environ[name][:80])
        else:
            close = difflib.get_close_matches(name[len(PREFIX) :], [each[len(PREFIX) :] for each in known], 1)
            advice = f"{PREFIX}{close[0]} is meant?" if close else "remove it"
            yield Finding("problem", name, "nothing reads this variable", advice)


def _inherited() -> Finding:
    path = os.environ[SESSION_VARIABLE]
    if any(info.path == path for info in _found_sessions() if info.state != LEFT):
        return Finding("note", SESSION_VARIABLE, f"{path}, a living session", "what is started from here joins it")
    advice = "what is started from here is not recorded: unset RELAY_MP_SESSION"
    return Finding("problem", SESSION_VARIABLE, f"{path}, which is not a living session", advice)


def _sessions() -> Iterator[Finding]:
    found = _found_sessions()
    left = sum(info.state == LEFT for info in found)
    yield Finding("good", "sessions", f"{len(found) - left} living")
    if left:
        yield Finding("note", "left by dead sessions", plural(left, "session"), "relay-mp recover")


def _found_sessions() -> list[SessionInfo]:
    """None where the settings are wrong, which is told by itself."""
    try:
        return sessions(left=True)
    except SessionError:
        return []


_CHECKS: list[Callable[[], Iterator[Finding]]] = [
    _versions,
    _settings,
    _shared_memory,
    _system,
    _extras,
    _variables,
    _sessions,
]


# ------------------------------------------------------------------------------------------------- trials


def _trials(terminal: Terminal) -> Iterator[Callable[[], Iterator[Finding]]]:
    for method in trial.METHODS:
        yield partial(_trial, method, terminal)


def _trial(method: str, terminal: Terminal) -> Iterator[Finding]:
    what = f"a worker by {method}"
    environment = {name: value for name, value in os.environ.items() if name not in (SESSION_VARIABLE, SCOPE_VARIABLE)}
    with Progress(terminal, what) as progress:
        progress.say("a test session")
        try:
            ran = subprocess.run(
                [sys.executable, "-m", "relay_mp.cli.trial", method],
                capture_output=True, text=True, timeout=TRIAL_SECONDS, env=environment, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            yield Finding("problem", what, f"the test session did not end within {TRIAL_SECONDS:.0f} s", "report it")
            return
    last = ran.stderr.strip().splitlines()[-1:] or ["no output"]
    if ran.returncode:
        yield Finding("problem", what, last[0], "see the lines above; start a session in Python to see all of it")
        return
    result = json.loads(ran.stdout.splitlines()[-1])
    if result == {"came": 1, "lost": 0}:
        yield Finding("good", what, "its event has arrived")
    else:
        yield Finding(
            "problem", what, f"{result['came']} of 1 events arrived, {result['lost']} lost: {last[0]}", "report it"
        )
