"""What the scripts of this folder share: a cache, Debian's packages, roots of other systems, and commands in them.

Everything that is made lies in one directory outside the checkout: RELAY_MP_PLATFORMS, or `relay_mp-platforms` in the
user's cache. A second run finds it there. Debian's mirror is the one that this machine's apt is configured with.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

CHECKOUT = Path(__file__).resolve().parents[2]

SUBSET = [
    "tests/emit", "tests/session", "tests/native/test_reader_binding.py", "tests/native/test_encode.py",
    "tests/test_acceptance.py", "tests/test_across_processes.py", "tests/test_events.py", "tests/test_pools.py",
    "tests/test_promises.py", "tests/test_scope.py", "tests/test_scope_local.py", "tests/test_subscribers.py",
]  # fmt: skip
"""What depends on the system and on CPython: processes, threads, the native half, contexts. No peer is imported."""

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Do(Protocol):
    """Runs a command in a place: this machine, or a root of another system. Gives its exit code."""

    def __call__(self, command: Sequence[str | Path], /, cwd: Path | None = None, **environment: str) -> int: ...


def cache() -> Path:
    """The directory for all that is made."""
    users = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    directory = Path(os.environ.get("RELAY_MP_PLATFORMS") or Path(users, "relay_mp-platforms"))
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def here(command: Sequence[str | Path], /, cwd: Path | None = None, **environment: str) -> int:
    """Runs a command on this machine, and shows it."""
    print("+", shlex.join(map(str, command)), flush=True)
    return subprocess.run(command, cwd=cwd, env={**os.environ, **environment}, check=False).returncode


def must(code: int, what: str) -> None:
    """Ends the script where a step has failed."""
    if code:
        sys.exit(f"{what} failed with {code}")


def need(*programs: str, why: str) -> None:
    """Ends the script where a program is missing."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        sys.exit(f"{' and '.join(missing)} must be installed: {why}")


def copy_checkout(target: Path) -> Path:
    """A fresh copy of what git tracks, or would: nothing that an earlier build has left."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=CHECKOUT, check=False, capture_output=True, text=True)
    must(listed.returncode, f"`git ls-files` in {CHECKOUT}, which must be a git checkout,")
    shutil.rmtree(target, ignore_errors=True)
    for name in filter(None, listed.stdout.split("\0")):
        if (CHECKOUT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, target / name)
    return target


# --------------------------------------------------------------------------------------------------- the package


def requirements_of(extra: str) -> list[str]:
    """What an extra of the package asks for, and the extras that it is made of."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = []
    for requirement in project["optional-dependencies"][extra]:
        others = re.fullmatch(rf"{project['name']}\[(.*)\]", requirement)
        found += [one for other in others[1].split(",") for one in requirements_of(other)] if others else [requirement]
    return found


def runtime_requirements() -> list[str]:
    """What the package itself asks for."""
    return list(tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"])


def make_environment(do: Do, base: str | Path, place: Path) -> Path:
    """An environment with what the package and its tests ask for.

    What the package asks for may be built from source. Of what the tests ask for, the wheels are installed; what has
    none for this Python is left out, and said to be.

    Returns:
        Its Python.
    """
    python, done = place / "bin/python", place / "installed"
    runtime, requirements = runtime_requirements(), requirements_of("test")
    wanted = "\n".join([*runtime, *requirements])
    if done.exists() and done.read_text(encoding="utf-8") == wanted:
        return python
    must(do([base, "-m", "venv", "--clear", place]), "making an environment")
    must(
        do([python, "-m", "pip", "install", "-qqq", "--prefer-binary", *runtime]),
        "installing what the package asks for",
    )
    install = [python, "-m", "pip", "install", "-qqq", "--only-binary=:all:"]
    if do([*install, *requirements]):
        left_out = [requirement for requirement in requirements if do([*install, requirement])]
        print(f"left out, for there is no wheel of it here: {', '.join(left_out)}")
        if len(left_out) == len(requirements):
            sys.exit("pip can install nothing at all there")
    done.write_text(wanted, encoding="utf-8")
    return python


def build_package(do: Do, python: str | Path, checkout: Path, **environment: str) -> None:
    """Builds the package where it lies, for a Python that has what it asks for."""
    command = [python, "-m", "pip", "install", "-q", "--no-deps", "-e", checkout]
    must(do(command, **environment), "the build of the package")


def run_tests(do: Do, python: str | Path, checkout: Path, arguments: Sequence[str]) -> int:
    """Runs tests of a checkout whose package is installed."""
    return do([python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments], checkout)


# -------------------------------------------------------------------------------------------------------- Debian


def mirror() -> str:
    """The address of Debian's archive in this machine's configuration of apt."""
    need("apt-get", "dpkg-deb", why="this script takes Debian's packages")
    release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    listed = ["apt-get", "indextargets", "--format", "$(RELEASE) $(COMPONENT) $(REPO_URI)", "Created-By: Packages"]
    targets = subprocess.run(listed, check=True, capture_output=True, text=True).stdout.splitlines()
    wanted = [release.get("VERSION_CODENAME", "stable"), "main"]
    found = [line.split()[2] for line in targets if line.split()[:2] == wanted]
    if not found:
        sys.exit(f"apt's sources have no component `main` of {wanted[0]}: this script needs a Debian with its archive")
    return found[0]


def apt(suite: str) -> list[str]:
    """`apt-get` for another release, with lists of its own."""
    place = cache() / "apt" / suite
    (place / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    sources = place / "debian.sources"
    sources.write_text(
        f"Types: deb deb-src\nURIs: {mirror()}\nSuites: {suite}\nComponents: main\nSigned-By: {KEYRING}\n"
    )
    options = {
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": "-",
        "Dir::State::lists": place / "lists",
        "Acquire::Check-Valid-Until": "false",
        "APT::Sandbox::User": "root",
    }
    command = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in options.items())]
    must(here([*command, "update"]), "apt-get update")
    return command


def unpack_package(package: str, suite: str) -> Path:
    """A package of another release, unpacked beside this machine's own."""
    target = cache() / f"{package}-{suite}"
    if not target.exists():
        download = cache() / "apt" / package
        download.mkdir(parents=True, exist_ok=True)
        must(here([*apt(suite), "download", package], cwd=download), f"the download of {package}")
        (archive,) = download.glob("*.deb")
        must(here(["dpkg-deb", "-x", archive, target]), f"unpacking {package}")
    return target


def make_root(suite: str, packages: Sequence[str], architecture: str | None = None) -> Path:
    """A small Debian of another release. Of another processor it is only unpacked: nothing of it can run yet."""
    root = cache() / f"debian-{suite}{'-' + architecture if architecture else ''}"
    if (root / ".complete").exists():
        return root
    need("debootstrap", why="it makes the other Debian")
    if os.geteuid():
        sys.exit("only root can make and enter another Debian")
    shutil.rmtree(root, ignore_errors=True)
    script = cache() / f"{suite}.script"  # debootstrap knows no release that is younger than itself
    script.unlink(missing_ok=True)
    script.symlink_to("/usr/share/debootstrap/scripts/sid")
    foreign = ["--foreign", f"--arch={architecture}"] if architecture else []
    command = ["debootstrap", "--variant=minbase", *foreign, f"--include={','.join(packages)}", suite, root, mirror()]
    must(here([*command, script]), "debootstrap")
    for archive in (root / "var/cache/apt/archives").glob("*.deb") if architecture else ():
        must(subprocess.run(["dpkg-deb", "-x", archive, root], check=False).returncode, f"unpacking {archive.name}")
    (root / CERTIFICATES).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(Path("/", CERTIFICATES), root / CERTIFICATES)
    (root / ".complete").touch()
    return root


ENTER = """
mount --make-rprivate /
mount --rbind /dev "$1/dev"
mount -t tmpfs tmpfs "$1/dev/shm"
mount -t proc proc "$1/proc"
if [ -n "$2" ]; then
    mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
    printf '%s' "$2" >/proc/sys/fs/binfmt_misc/register
fi
root=$1
shift 2
exec chroot "$root" "$@"
"""

AARCH64_ELF = (
    r":qemu-aarch64:M::\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
    r":\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:"
)
"""How the kernel recognizes such a program; then comes what runs it."""


@dataclass(frozen=True)
class Root:
    """Another system's root. Commands run in it with a /proc and a /dev/shm of their own, and end with this script.

    With an emulator they run in a user namespace too, where the kernel (6.7 or later) is told of it alone.
    """

    path: Path
    emulator: Path | None = None

    def __call__(self, command: Sequence[str | Path], /, cwd: Path | None = None, **environment: str) -> int:
        """Runs a command. Paths below the root may be given as they are seen from outside."""
        inside = [str(part).replace(str(self.path), "", 1) for part in ["env", f"--chdir={cwd or '/'}", *command]]
        print(f"+ in {self.path.name}:", shlex.join(inside), flush=True)
        user = ["--user", "--map-root-user"] if self.emulator else []
        binary = f"{AARCH64_ELF}{self.emulator}:OCF" if self.emulator else ""
        namespaces = ["unshare", *user, "--mount", "--pid", "--fork", "--kill-child"]
        return subprocess.run(
            [*namespaces, "bash", "-euc", ENTER, "enter", self.path, binary, *inside],
            env=self._environment(environment),
            cwd="/",
            check=False,
        ).returncode

    def _environment(self, more: Mapping[str, str]) -> dict[str, str]:
        passed = {name: value for name, value in os.environ.items() if name.lower() in ("https_proxy", "http_proxy")}
        own = {"HOME": "/root", "PATH": SEARCH_PATH, "LC_ALL": "C.UTF-8", "PIP_CERT": f"/{CERTIFICATES}"}
        return {**passed, **own, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore", **more}
