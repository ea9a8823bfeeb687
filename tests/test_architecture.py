"""The package's own rules, read from its sources: which way imports go, what they cost, how long functions are.

    errors, types -> _native -> _records -> events -> _emit -> _deliver -> _plugins -> _session -> the public verbs
        -> observability: export -> a format -> component -> plugin, pools, testing
        -> integrations, fleet -> _runs, _bench -> view -> cli -> the root package

A module imports from its own package or from those before it, late imports included.
"""

import ast
import importlib
import importlib.metadata
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import imports as reader
import pytest
from imports import COMPILED, MODULES, ROOT, functions, tree

import relay_mp

ALL = [*MODULES, *COMPILED]
IMPORTS = {module: reader.imports(module) for module in ALL}

# A format is a folder with an `exporter.py`.
FORMATS = sorted(module.removesuffix(".exporter") for module in MODULES if module.endswith(".exporter"))
# What belongs together, from the bottom up; the longest prefix of a module's name counts. `convert` is what the
# compiled half calls, and `types` what everybody does: both import nothing of the package. Integrations and fleet are
# rooms that are still empty.
LAYERS = [
    ["relay_mp._threads", "relay_mp._log", "relay_mp.errors", "relay_mp.types", "relay_mp._native.convert"],
    ["relay_mp._native"],
    ["relay_mp._records"],
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
        "relay_mp.codecs",
        "relay_mp.pricing",
        "relay_mp.typed",
    ],
    ["relay_mp.observability.export"],
    FORMATS,
    ["relay_mp.observability.component"],
    ["relay_mp.observability", "relay_mp.plugin", "relay_mp.pools", "relay_mp.testing"],
    ["relay_mp.integrations", "relay_mp.fleet"],
    ["relay_mp._runs", "relay_mp._bench"],
    ["relay_mp.view"],
    ["relay_mp.cli"],
    ["relay_mp.__main__"],
    ["relay_mp"],
]
# Neither of two knows the other. To the native half a record is bytes.
APART = [
    ("relay_mp.events", "relay_mp._native"),
    ("relay_mp._runs", "relay_mp._bench"),
    *((one, other) for one in FORMATS for other in FORMATS if one < other),
]

_LATE_TO_LOAD = "a worker that only emits has no use for it, and it takes longer to load than what it needs"
_ASYNCIO = "it takes as long to import as all of this package, and who awaits something has it"
_COMMAND = "a command that is not called is not loaded"
_MEASURING = "NumPy and multiprocessing take longer than what says how the command is called"
_SINK = "a sink is made where the dispatcher runs, by its name: the program that registers it may be elsewhere"

# (importing module, imported module): why it waits for its first use.
LATE = {
    ("relay_mp", "importlib"): "only names that are loaded late, and the version, need it",
    ("relay_mp", "importlib.metadata"): "only `__version__` needs it",
    ("relay_mp", "relay_mp._session.seen"): _LATE_TO_LOAD,
    ("relay_mp", "relay_mp._session.watch"): _LATE_TO_LOAD,
    ("relay_mp", "relay_mp.annotated"): _LATE_TO_LOAD,
    ("relay_mp", "relay_mp.codecs"): _LATE_TO_LOAD,
    ("relay_mp", "relay_mp.observability"): _LATE_TO_LOAD,
    ("relay_mp", "relay_mp.observability.atif.exporter"): _LATE_TO_LOAD,
    ("relay_mp", "relay_mp.observability.atof.exporter"): _LATE_TO_LOAD,
    ("relay_mp", "relay_mp.observability.otel.exporter"): _LATE_TO_LOAD,
    ("relay_mp", "relay_mp.observability.otel.logs"): _LATE_TO_LOAD,
    ("relay_mp", "relay_mp.observability.otel.metrics"): _LATE_TO_LOAD,
    ("relay_mp", "relay_mp.observability.otel.traces"): _LATE_TO_LOAD,
    ("relay_mp", "relay_mp.observability.perfetto.exporter"): _LATE_TO_LOAD,
    ("relay_mp", "relay_mp.observability.prometheus.exporter"): _LATE_TO_LOAD,
    ("relay_mp", "relay_mp.plugin"): _LATE_TO_LOAD,
    ("relay_mp", "relay_mp.pools"): "it imports multiprocessing and concurrent.futures",
    ("relay_mp", "relay_mp.pricing"): _LATE_TO_LOAD,
    ("relay_mp", "relay_mp.typed"): _LATE_TO_LOAD,
    ("relay_mp._deliver.allowed", "relay_mp._deliver.tap"): "only where somebody watches the session",
    ("relay_mp._deliver.askers", "psutil"): "only where the system has no /proc",
    ("relay_mp._threads", "importlib"): "only where gevent or eventlet has patched `subprocess`",
    ("relay_mp._deliver.liveness", "psutil"): "only where the system has no pidfd",
    ("relay_mp._emit.llm_stream", "asyncio"): _ASYNCIO,
    ("relay_mp._emit.settle", "asyncio"): _ASYNCIO,
    ("relay_mp._plugins.components", "relay_mp._plugins.context"): "a worker whose session has no component makes none",
    ("relay_mp._plugins.files", "tomllib"): "only where there is a file",
    ("relay_mp._session.exporting", "asyncio"): _ASYNCIO,
    ("relay_mp._session.flush", "asyncio"): _ASYNCIO,
    (
        "relay_mp._session.hosts",
        "relay_mp._session.process_host",
    ): "it needs `subprocess`, which takes a thirtieth of the import",
    ("relay_mp._session.membership", "relay_mp._session.termination"): "only a session that heeds SIGTERM needs it",
    ("relay_mp._session.recovery", "relay_mp._deliver.jsonl"): "only where a dead session has left events",
    ("relay_mp._session.settings", "tempfile"): "only who starts a session asks for the directory",
    ("relay_mp._session.stats", "numpy"): "a worker that is never asked for statistics does without its 100 ms",
    ("relay_mp.cli.export", "relay_mp._runs.parquet"): "it needs an extra of its own, and so does only who asks for it",
    ("relay_mp.cli.main", "argcomplete"): "an extra; only a shell's question needs it",
    ("relay_mp.cli.main", "importlib.metadata"): "only `--version` needs it, and it takes longer to load than the rest",
    ("relay_mp.cli.bench", "relay_mp._bench.children"): _MEASURING,
    ("relay_mp.cli.bench", "relay_mp._bench.load"): _MEASURING,
    ("relay_mp.cli.bench", "relay_mp._bench.peers"): _MEASURING,
    ("relay_mp.cli.main", "relay_mp.cli.bench"): _COMMAND,
    ("relay_mp.cli.main", "relay_mp.cli.diff"): _COMMAND,
    ("relay_mp.cli.main", "relay_mp.cli.doctor"): _COMMAND,
    ("relay_mp.cli.main", "relay_mp.cli.export"): _COMMAND,
    ("relay_mp.cli.main", "relay_mp.cli.ls"): _COMMAND,
    ("relay_mp.cli.main", "relay_mp.cli.recover"): _COMMAND,
    ("relay_mp.cli.main", "relay_mp.cli.run"): _COMMAND,
    ("relay_mp.cli.main", "relay_mp.cli.summary"): _COMMAND,
    ("relay_mp.cli.main", "relay_mp.cli.tail"): _COMMAND,
    ("relay_mp.cli.main", "relay_mp.cli.top"): _COMMAND,
    ("relay_mp.cli.main", "relay_mp.cli.view"): _COMMAND,
    ("relay_mp.events", "relay_mp.annotated"): "only events of LLM calls whose annotation is looked at need it",
    ("relay_mp.cli.injected.sitecustomize", "relay_mp.cli.joining"): "what fails in it costs the program one line",
    ("relay_mp.integrations.celery", "celery"): "not ours to require; only who uses Celery calls `instrument()`",
    ("relay_mp.integrations.dask", "dask"): "not ours to require; only who uses Dask calls `instrument()`",
    ("relay_mp.integrations.dask", "distributed"): "not ours to require; only who uses Dask calls `instrument()`",
    ("relay_mp.integrations.ray", "ray"): "not ours to require; only who uses Ray calls `instrument()`",
    (
        "relay_mp.integrations.openai",
        "openai.resources.chat.completions",
    ): "not ours to require; only who has the client calls `instrument()`",
    ("relay_mp.integrations.openai", "openai.resources.responses"): "as above",
    ("relay_mp.observability", "relay_mp.observability.atif.storage"): "a dataclass that a configuration has seldom",
    ("relay_mp.observability", "relay_mp.observability.component.config"): "making so many dataclasses takes 22 ms",
    ("relay_mp.observability", "relay_mp.observability.export.batch_queue"): "only who writes a sink needs it",
    ("relay_mp.observability", "relay_mp.observability.export.sink"): "only who writes a sink needs it",
    ("relay_mp.observability.atif.exporter", "relay_mp.observability.atif.sink"): _SINK,
    ("relay_mp.observability.atif.exporter", "relay_mp.observability.atif.spool"): _SINK,
    ("relay_mp.observability.atof.exporter", "relay_mp.observability.atof.sink"): _SINK,
    ("relay_mp.observability.component.component", "relay_mp.observability.export.starting"): _SINK,
    ("relay_mp.observability.export.base", "relay_mp.observability.export.kinds"): _SINK,
    ("relay_mp.observability.otel.logs", "relay_mp.observability.otel.logs_sink"): _SINK,
    ("relay_mp.observability.otel.metrics", "relay_mp.observability.otel.metrics_sink"): _SINK,
    ("relay_mp.observability.otel.traces", "relay_mp.observability.otel.traces_sink"): _SINK,
    (
        "relay_mp.observability.otel.traces_sink",
        "relay_mp.observability.otel.openinference",
    ): "it needs an extra of its own, and so does only who asks for that projection",
    (
        "relay_mp.observability.otel.transport",
        "relay_mp.observability.otel.grpc",
    ): "it needs grpcio, and so does only who asks for that transport",
    ("relay_mp.observability.perfetto.exporter", "relay_mp.observability.perfetto.sink"): _SINK,
    ("relay_mp.observability.prometheus.exporter", "relay_mp.observability.prometheus.sink"): _SINK,
    (
        "relay_mp.plugin",
        "relay_mp.observability.component.component",
    ): "a configuration of plugins need not have exporters, and they take longer to load than it",
    ("relay_mp.pools", "asyncio"): _ASYNCIO,
    ("relay_mp.pricing", "genai_prices"): "an extra, which takes 0.5 s to load; only where its prices are asked for",
}
NOT_IMPORTED_BY_THE_PACKAGE = [
    "numpy", "psutil", "multiprocessing", "concurrent.futures", "asyncio", "http.client",
    "relay_mp.observability", "relay_mp.plugin", "relay_mp._plugins.context", "relay_mp._plugins.document",
    "relay_mp._session.activation", "relay_mp.codecs",
]  # fmt: skip
MAX_FUNCTION_LINES = 100


def layer(module: str) -> int:
    known = {prefix: index for index, level in enumerate(LAYERS) for prefix in level}
    found = max((p for p in known if is_in(module, p)), key=len)
    if found == "relay_mp" and module != "relay_mp":
        raise AssertionError(f"{module} is in no layer: add it to LAYERS")
    return known[found]


def is_in(module: str, place: str) -> bool:
    return module == place or module.startswith(f"{place}.")


def own_imports(module: str) -> set[str]:
    """What it imports of the package, at once or late."""
    return {found.module for found in IMPORTS[module] if found.module in ALL} - {module}


@pytest.mark.parametrize("module", ALL)
def test_imports_go_one_way(module):
    for imported in own_imports(module):
        assert layer(imported) <= layer(module), f"{module} imports {imported}, which stands above it"


@pytest.mark.parametrize(("one", "other"), APART)
def test_what_stands_side_by_side_does_not_know_each_other(one, other):
    for own, foreign in ((one, other), (other, one)):
        for module in ALL:
            if is_in(module, own):
                assert not [name for name in own_imports(module) if is_in(name, foreign)], module


def test_every_folder_of_observability_has_its_place():
    inner = [module for module in ALL if module.startswith("relay_mp.observability.") and module.count(".") > 2]
    folders = {".".join(module.split(".")[:3]) for module in inner}
    assert folders == {*FORMATS, "relay_mp.observability.export", "relay_mp.observability.component"}
    assert [folder for folder in FORMATS if f"{folder}.section" not in MODULES] == []


@pytest.mark.parametrize("module", [module for module in ALL if module != "relay_mp"])
def test_nothing_imports_the_root_package(module):
    assert "relay_mp" not in own_imports(module)


def test_the_modules_that_import_each_other_at_once_or_late_form_no_cycle():
    edges = {module: own_imports(module) for module in ALL}
    while free := [module for module, needed in edges.items() if not needed]:
        for module in free:
            del edges[module]
        for needed in edges.values():
            needed.difference_update(free)
    assert not edges


def test_late_imports_are_the_listed_ones_each_with_its_reason():
    assert {(module, found.module) for module in ALL for found in IMPORTS[module] if found.is_late} == set(LATE)
    assert all(LATE.values())


def test_late_imports_are_seen_in_every_form():
    source = """
from relay_mp import scope
TABLE = {"a": "pools", "b": "no module"}
def late(name):
    import numpy
    from relay_mp.codecs import detect, register
    import_module(f"relay_mp.{TABLE.get(name, 'typed')}")
    importlib.import_module("relay_mp.llm")
    return "relay_mp.plugin:register", "see relay_mp.tools:execute"
"""
    found = reader.of_python(ast.parse(source))
    assert {each.module for each in found if each.is_late} == {
        "numpy", "relay_mp.codecs.detect", "relay_mp.codecs", "relay_mp.pools", "relay_mp.typed", "relay_mp.llm",
        "relay_mp.plugin",
    }  # fmt: skip
    assert reader.Import("relay_mp.scope", False) in set(reader.of_python(ast.parse(source)))


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


def test_what_is_generated_is_not_tracked():
    """Cython's C is made by each build. The first line of what it writes says so."""
    sources = [path for path in tracked_files() if path.suffix in {".c", ".cpp"}]
    found = [path for path in sources if "Generated by Cython" in path.read_text(encoding="utf-8")[:100]]
    assert found == []


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


def test_names_of_test_files_differ():
    """pytest cannot collect two of one name, for their folders are no packages."""
    files = [file for file in (ROOT / "tests").rglob("test_*.py") if "__pycache__" not in file.parts]
    seen: dict[str, Path] = {}
    for file in files:
        assert seen.setdefault(file.name, file) == file, f"{file} and {seen[file.name]} have one name"
