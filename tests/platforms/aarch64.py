"""Runs tests for aarch64 under qemu-user: the C tests, and Python's in a Debian of that processor.

    python -m tests.platforms.aarch64 [arguments of pytest for the emulated part]

Needs root, debootstrap, apt with Debian's archive, gcc-aarch64-linux-gnu, a Linux from 6.7 on (each user namespace has
programs of its own for other processors there) and, as `python`, the environment of tox (tox.ini). The extension is
cross-compiled, against the headers and build settings of the emulated Python; wheels of what the tests ask for are
unpacked beside it. The emulator is that of Debian's next release: what bookworm has lacks MADV_WIPEONFORK.
"""

import os
import shutil
import sys
from pathlib import Path

from tests.platforms import helpers

SUITE, VERSION = "trixie", "3.13"
PACKAGES = ["python3", "python3-dev", "procps"]
TRIPLET = "aarch64-linux-gnu"
PLATFORMS = ["manylinux_2_28_aarch64", "manylinux2014_aarch64", "manylinux_2_17_aarch64"]
REQUIREMENTS = ["numpy", "msgpack", "psutil", "pytest", "pytest-timeout", "pytest-xdist", "hypothesis"]
TESTS = ["tests/test_acceptance.py", "tests/session/test_flush.py", "tests/native/test_reader_binding.py"]
BUILD_WHEEL = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"


def python_headers(root: Path, target: Path) -> Path:
    """The headers of the emulated Python, without those of its C library: the cross compiler has its own."""
    shutil.rmtree(target, ignore_errors=True)
    (target / TRIPLET).mkdir(parents=True)
    for name in (f"python{VERSION}", f"{TRIPLET}/python{VERSION}"):
        (target / name).symlink_to(root / "usr/include" / name)
    return target


def build_settings(root: Path, target: Path) -> str:
    """The build settings of the emulated Python, alone in a directory that another Python can import from."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    found = next((root / f"usr/lib/python{VERSION}").glob(f"_sysconfigdata__*{TRIPLET}.py"))
    shutil.copy(found, target)
    return found.stem


def cross_compile(root: Path, checkout: Path, place: Path) -> Path:
    """The package's wheel for the emulated Python."""
    headers = python_headers(root, place / "include")
    environment = {
        "PYTHONPATH": str(place / "settings"),
        "_PYTHON_SYSCONFIGDATA_NAME": build_settings(root, place / "settings"),
        "_PYTHON_HOST_PLATFORM": "linux-aarch64",
        "CC": f"{TRIPLET}-gcc",
        "LDSHARED": f"{TRIPLET}-gcc -shared",
        "CFLAGS": f"-I{headers / f'python{VERSION}'} -I{headers}",
    }
    wheels = place / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    wheels.mkdir()
    helpers.must(
        helpers.here([sys.executable, "-c", BUILD_WHEEL, wheels], cwd=checkout, **environment), "cross-compiling"
    )
    return next(wheels.glob("*.whl"))


def install(root: Path, wheel: Path) -> Path:
    """What the tests ask for, and the package, unpacked in a directory of the root."""
    site = root / "root/site"
    done = site / "installed"
    if not done.exists() or done.read_text(encoding="utf-8").splitlines() != REQUIREMENTS:
        shutil.rmtree(site, ignore_errors=True)
        platforms = [f"--platform={name}" for name in PLATFORMS]
        only = ["--only-binary=:all:", "--implementation=cp", f"--python-version={VERSION}"]
        command = [sys.executable, "-m", "pip", "install", "-q", "--target", site, *platforms, *only, *REQUIREMENTS]
        helpers.must(helpers.here(command), "unpacking wheels")
        done.write_text("\n".join(REQUIREMENTS), encoding="utf-8")
    for old in site.glob("relay_mp*"):
        shutil.rmtree(old)
    helpers.must(helpers.here([sys.executable, "-m", "zipfile", "-e", wheel, site]), "unpacking the package")
    return site


def main(arguments: list[str]) -> int:
    """Runs the C tests, then Python's."""
    helpers.need(f"{TRIPLET}-gcc", why="it compiles for aarch64")
    if f"{sys.version_info.major}.{sys.version_info.minor}" != VERSION:
        sys.exit(f"this is Python {sys.version.split()[0]}; it must be {VERSION}, as the one that it compiles for")
    qemu = helpers.unpack_package("qemu-user", "forky") / "usr/bin"
    path = f"{qemu}{os.pathsep}{os.environ['PATH']}"
    alone = ["--noconftest", "-p", "no:relay_mp"]  # the package is not installed here, nor what it asks for
    c_tests = [sys.executable, "-m", "pytest", "-q", *alone, "tests/native/test_ring.py", "-k", "test_aarch64"]
    failed = helpers.here(c_tests, cwd=helpers.CHECKOUT, PATH=path)
    root = helpers.Root(helpers.make_root(SUITE, PACKAGES, "arm64"), qemu / "qemu-aarch64")
    checkout = helpers.copy_checkout(root.path / "root/relay_mp")
    site = install(root.path, cross_compile(root.path, checkout, helpers.cache() / "aarch64"))
    shutil.rmtree(checkout / "relay_mp")  # the installed one is to be found
    python, inside = f"/usr/bin/python{VERSION}", "/" + str(site.relative_to(root.path))
    root([python, "-c", "import os, relay_mp; print(os.uname().machine, relay_mp.__file__)"], PYTHONPATH=inside)
    tests = [python, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *(arguments or TESTS)]
    return root(tests, checkout, PYTHONPATH=inside) or failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
