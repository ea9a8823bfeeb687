"""Which module of the package imports which, read from the sources: Python and Cython, at once and late.

    import, from          in a function: late
    cimport               in .pyx, and in the .pxd that belongs to it; there is no include
    import_module(...)    with a constant, or an f-string that one of the module's constants completes: late
    "relay_mp.x:y"        a name that is resolved when it is needed: late

A process that is started by `python -m` imports in another interpreter, and is no import here.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "relay_mp"


def _modules(suffix: str) -> dict[str, Path]:
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted(PACKAGE.rglob(f"*{suffix}"))
    }


MODULES = _modules(".py")
"""Those in Python, by name."""

COMPILED = _modules(".pxd") | _modules(".pyx")
"""Those in Cython, by name; of some there are declarations only."""

_NAMED = re.compile(r"(relay_mp(?:\.\w+)+):\w[\w.]*")
_FROM = re.compile(r"^( *)from +(relay_mp[\w.]*) +c?import +(\([^)]*\)|[^\n]*)", re.MULTILINE)
_INCLUDE = re.compile(r"^ *include ", re.MULTILINE)


class Import(NamedTuple):
    """One module imports another; `is_late`: not as it is imported itself."""

    module: str
    is_late: bool


def tree(module: str) -> ast.Module:
    """The module's syntax."""
    return ast.parse(MODULES[module].read_text(encoding="utf-8"), str(MODULES[module]))


def functions(body: ast.AST) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """All functions and methods in it."""
    return [node for node in ast.walk(body) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def imports(module: str) -> set[Import]:
    """What a module imports, of the package and of others."""
    return set(_of_cython(module) if module in COMPILED else of_python(tree(module)))


def _named(package: str, name: str) -> str:
    """`from package import name` names a module, or something in one."""
    full = f"{package}.{name}"
    return full if full in MODULES or full in COMPILED else package


def of_python(body: ast.Module) -> Iterator[Import]:
    """What a Python module of that syntax imports."""
    inside = {id(node) for function in functions(body) for node in ast.walk(function)}
    for node in ast.walk(body):
        is_late = id(node) in inside
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, is_late) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import hides which way it goes"
            yield from (Import(_named(str(node.module), alias.name), is_late) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "import_module":
            yield from (Import(name, True) for name in _completed(node.args[0], body))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            named = _NAMED.fullmatch(node.value)
            if named and named[1] in MODULES:
                yield Import(named[1], True)


def _completed(argument: ast.expr, body: ast.Module) -> set[str]:
    """The modules that an argument of import_module can stand for: an f-string is completed by the constants that the
    module's tables have as values, and by those that it passes to a call, as the default of `get`."""
    if isinstance(argument, ast.Constant):
        return {str(argument.value)}
    if not isinstance(argument, ast.JoinedStr) or not isinstance(argument.values[0], ast.Constant):
        return set()
    tables = {value for node in ast.walk(body) if isinstance(node, ast.Dict) for value in node.values}
    passed = {value for node in ast.walk(body) if isinstance(node, ast.Call) for value in node.args}
    constants = [node.value for node in tables | passed if isinstance(node, ast.Constant)]
    return {name for each in constants if (name := f"{argument.values[0].value}{each}") in MODULES}


def _of_cython(module: str) -> Iterator[Import]:
    for source in _sources(COMPILED[module]):
        for indent, package, names in _FROM.findall(source):
            for name in re.sub(r"#[^\n]*|[()\n]", " ", names).split(","):
                if name.strip():
                    yield Import(_named(package, name.split()[0]), bool(indent))


def _sources(path: Path) -> Iterator[str]:
    declared = path.with_suffix(".pxd")
    for file in dict.fromkeys([path, declared]):
        if file.exists():
            text = file.read_text(encoding="utf-8")
            assert not _INCLUDE.search(text), f"{file} includes another: cimport the names instead"
            yield text
