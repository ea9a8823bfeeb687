"""The package's own rules, read from its sources: which way imports go, what they cost, how long functions are.

    errors, types, events -> _native, _records -> _emit -> _deliver -> _plugins -> _session -> the public verbs
        -> observability, pools, testing -> the root package

A module imports from its own package or from those before it.
"""

import ast
import importlib
import importlib.metadata
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import relay_mp

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "relay_mp"
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}

# What belongs together, from the bottom up; the longest prefix of a module's name counts. `convert` is what the
# compiled half calls, and `types` what everybody does: both import nothing of the package.
LAYERS = [
    ["relay_mp.errors", "relay_mp.types", "relay_mp._native.convert"],
    ["relay_mp._native", "relay_mp._records.records"],
    ["relay_mp.events", "relay_mp.annotated"],
    ["relay_mp._emit"],
    ["relay_mp._deliver"],
    ["relay_mp._plugins"],
    ["relay_mp._session"],
    [
        "relay_mp.scope",
        "relay_mp.subscribers",
        "relay_mp.scope_local",
        "relay_mp.tools",
        "relay_mp.llm",
        "relay_mp.guardrails",
        "relay_mp.intercepts",
        "relay_mp.event_metadata",
        "relay_mp.runtime_registrations",
        "relay_mp.plugin",
        "relay_mp.codecs",
        "relay_mp.typed",
    ],
    ["relay_mp.observability", "relay_mp.pools", "relay_mp.testing"],
    ["relay_mp"],
]
# Neither knows the other: to the native half a record is bytes.
APART = {"relay_mp.events", "relay_mp._native"}

# (importing module, imported module): imports that wait for their first use, because they are dear or seldom needed.
LAZY = {
    ("relay_mp", "importlib"),
    ("relay_mp", "importlib.metadata"),
    ("relay_mp._deliver.liveness", "psutil"),
    ("relay_mp._emit.llm_stream", "asyncio"),
    ("relay_mp._emit.settle", "asyncio"),
    ("relay_mp._plugins.components", "relay_mp._plugins.context"),
    ("relay_mp._plugins.files", "tomllib"),
    ("relay_mp._session.exporting", "asyncio"),
    ("relay_mp._session.flush", "asyncio"),
    ("relay_mp._session.stats", "numpy"),
    ("relay_mp.events", "relay_mp.annotated"),
    ("relay_mp.observability.otel.traces_sink", "relay_mp.observability.otel.openinference"),
    ("relay_mp.observability.otel.transport", "relay_mp.observability.otel.grpc"),
    ("relay_mp.pools", "asyncio"),
}
NOT_IMPORTED_BY_THE_PACKAGE = [
    "numpy", "psutil", "multiprocessing", "concurrent.futures", "asyncio", "http.client",
    "relay_mp.observability", "relay_mp.plugin", "relay_mp._plugins.context", "relay_mp._session.activation",
    "relay_mp.codecs",
]  # fmt: skip
MAX_FUNCTION_LINES = 100


def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"), str(MODULES[module]))


def imports(body: ast.AST) -> Iterator[str]:
    """The modules that an `import` or `from` names; `from package import module` names the module."""
    for node in ast.walk(body):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import hides which way it goes"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                is_module = name in MODULES or name == "relay_mp._native.core"
                yield name if is_module else str(node.module)


def layer(module: str) -> int:
    known = {prefix: index for index, level in enumerate(LAYERS) for prefix in level}
    found = max((p for p in known if module == p or module.startswith(f"{p}.")), key=len)
    if found == "relay_mp" and module != "relay_mp":
        raise AssertionError(f"{module} is in no layer: add it to LAYERS")
    return known[found]


def functions(body: ast.AST) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(body) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_one_way(module):
    for imported in imports(tree(module)):
        if imported.split(".")[0] == "relay_mp":
            assert layer(imported) <= layer(module), f"{module} imports {imported}, which stands above it"


def test_the_native_half_and_the_event_model_do_not_know_each_other():
    for module in MODULES:
        for own in APART:
            if module.startswith(own):
                assert not [name for name in imports(tree(module)) if name.startswith(tuple(APART - {own}))], module


def test_a_format_imports_nothing_of_another():
    """Formats are the folders of `observability`, but for what they share and what brings them together."""

    def format_of(module):
        folder = ".".join(module.split(".")[:3])
        return folder if folder.startswith("relay_mp.observability.") and f"{folder}.exporter" in MODULES else None

    assert len({format_of(module) for module in MODULES} - {None}) >= 5
    for module in MODULES:
        own = format_of(module)
        for imported in imports(tree(module)) if own else ():
            assert format_of(imported) in (own, None), f"{module} imports {imported}, of another format"


@pytest.mark.parametrize("module", [module for module in MODULES if module != "relay_mp"])
def test_nothing_imports_the_root_package(module):
    assert "relay_mp" not in set(imports(tree(module)))


def test_the_modules_that_import_each_other_form_no_cycle():
    edges = {module: {name for name in imports(tree(module)) if name in MODULES} - {module} for module in MODULES}
    while free := [module for module, needed in edges.items() if not needed]:
        for module in free:
            del edges[module]
        for needed in edges.values():
            needed.difference_update(free)
    assert not edges


def test_imports_inside_functions_are_the_listed_ones():
    found = {
        (module, imported)
        for module in MODULES
        for function in functions(tree(module))
        for imported in imports(function)
    }
    assert found == LAZY


def test_importing_the_package_does_not_import_what_is_dear():
    code = "import json, sys, relay_mp; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
    assert not set(NOT_IMPORTED_BY_THE_PACKAGE) & set(loaded)


@pytest.mark.parametrize("statement", ["import relay_mp.pools", "from relay_mp import pools", "from relay_mp import *"])
def test_pools_can_be_imported_in_every_way(statement):
    code = f"{statement}\nimport relay_mp\nprint(relay_mp.pools.Pool.__module__)"
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert printed == "relay_mp.pools\n"


def test_what_is_loaded_late_is_loaded_once_by_threads_that_ask_at_once():
    code = """
import pickle, sys, threading
import relay_mp
late = [name for name in relay_mp.__all__ if name not in vars(relay_mp)]
start, found = threading.Barrier(8), []
def ask(number):
    start.wait()
    found.append({name: id(getattr(relay_mp, name)) for name in sorted(late, key=lambda name: hash((name, number)))})
threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert len(found) == 8 and all(names == found[0] for names in found)
assert pickle.loads(pickle.dumps(relay_mp.AtofExporterMode)) is relay_mp.AtofExporterMode
print(len(late))
"""
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120)
    assert int(ran.stdout) > 10


def test_version_is_the_metadatas():
    assert relay_mp.__version__ == importlib.metadata.version("relay_mp")


def test_the_root_package_has_what_it_lists():
    assert relay_mp.__all__ == sorted(relay_mp.__all__)
    assert [name for name in relay_mp.__all__ if not hasattr(relay_mp, name)] == []
    assert set(relay_mp.__all__) <= set(dir(relay_mp))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        relay_mp.nonsense  # noqa: B018


@pytest.mark.parametrize("module", MODULES)
def test_module_says_what_it_is_for(module):
    assert ast.get_docstring(tree(module))


PUBLIC = [module for module in MODULES if not any(part.startswith("_") for part in module.split("."))]


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names_have_docstrings(module):
    loaded = importlib.import_module(module)
    for name in getattr(loaded, "__all__", []):
        value = getattr(loaded, name)
        if not isinstance(value, type) and not inspect.isroutine(value):
            continue
        assert value.__doc__, f"{module}.{name}"
        for method, member in vars(value).items() if isinstance(value, type) else ():
            if not method.startswith("_") and (inspect.isroutine(member) or isinstance(member, property)):
                assert inspect.getdoc(getattr(value, method)), f"{module}.{name}.{method}"


@pytest.mark.parametrize("module", MODULES)
def test_functions_are_short(module):
    for function in functions(tree(module)):
        lines = (function.end_lineno or function.lineno) - function.lineno + 1
        assert lines <= MAX_FUNCTION_LINES, f"{module}.{function.name} has {lines} lines"


def tracked_files() -> list[Path]:
    """What belongs to the project: what git tracks or would, and is still there."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if found.returncode:
        pytest.skip("this is no git checkout")
    return [path for line in found.stdout.splitlines() if (path := ROOT / line).is_file()]


def test_files_name_no_place_of_one_machine():
    # Taken apart, so that this file does not find itself.
    places = ["/wo" + "rk/", "/ro" + "ot/", "/ho" + "me/[a-z]"]
    hosts = [r"py" + r"pi\.(org|python)", "pyth" + "onhosted", r"registry\.npm" + "js", r"deb\.deb" + "ian"]
    foreign = re.compile("|".join(places + hosts))
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in tracked_files()
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
        if foreign.search(line)
    ]
    assert found == []
