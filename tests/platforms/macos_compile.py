"""Compiles the C and Cython sources for macOS on both its processors, and links them. Nothing is run.

    python -m tests.platforms.macos_compile

Needs Cython and ziglang (from PyPI), whose compiler comes with macOS's headers. CPython's headers are this
machine's own. What only a Mac can show is in docs/explanation/platforms.md.
"""

import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

from tests.platforms import helpers

TARGETS = ["aarch64-macos", "x86_64-macos"]
WARNINGS = ["-Wall", "-Wextra", "-Werror"]
MACH_O = b"\xcf\xfa\xed\xfe"


def modules() -> list[dict]:
    """The compiled modules, as pyproject.toml has them."""
    project = tomllib.loads((helpers.CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
    return project["tool"]["setuptools"]["ext-modules"]


def compile_source(source: Path, target: str, flags: list[str], built: Path) -> Path:
    """One C file; ours without a warning."""
    output = built / f"{'-'.join(source.with_suffix('').parts[-3:])}.o"
    command = [sys.executable, "-m", "ziglang", "cc", "-target", target, *flags, "-c", source, "-o", output]
    helpers.must(helpers.here(command), f"compiling {source.name} for {target}")
    return output


def build_module(module: dict, checkout: Path, target: str, built: Path) -> None:
    """Compiles and links one module."""
    include = [f"-I{checkout / directory}" for directory in module.get("include-dirs", [])]
    flags = [*module["extra-compile-args"], *include]
    objects = []
    for name in module["sources"]:
        source = checkout / name
        if source.suffix == ".pyx":
            python = [f"-I{sysconfig.get_path('include')}", "-DNDEBUG"]
            objects.append(compile_source(source.with_suffix(".c"), target, [*flags, *python], built))
        else:
            objects.append(compile_source(source, target, [*flags, *WARNINGS], built))
    linked = built / f"{module['name']}.so"
    link = ["-target", target, "-shared", "-Wl,-undefined,dynamic_lookup", *objects, "-o", linked]
    helpers.must(helpers.here([sys.executable, "-m", "ziglang", "cc", *link]), f"linking {module['name']}")
    if linked.read_bytes()[:4] != MACH_O:
        sys.exit(f"{linked.name} is no 64-bit Mach-O file")


def main() -> int:
    """Compiles everything for both processors."""
    checkout = helpers.copy_checkout(helpers.cache() / "macos" / "relay_mp")
    for module in modules():
        for source in (name for name in module["sources"] if name.endswith(".pyx")):
            command = [sys.executable, "-m", "cython", "-3", source]
            helpers.must(subprocess.run(command, cwd=checkout, check=False).returncode, f"Cython's run on {source}")
    for target in TARGETS:
        built = helpers.cache() / "macos" / target
        shutil.rmtree(built, ignore_errors=True)
        built.mkdir()
        for module in modules():
            build_module(module, checkout, target, built)
    print(f"compiled and linked, not run: {len(modules())} modules for {' and '.join(TARGETS)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
