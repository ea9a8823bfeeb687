"""The stubs of the compiled modules name what these have, with the same parameters, and nothing else."""

import ast
import inspect
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from relay_mp._deliver import open_scopes
from relay_mp._emit import current, handle, verbs
from relay_mp._native import core, encoder, reader, segments
from relay_mp._records import batches, json_line, payloads, records
from relay_mp.observability.atif import steps
from relay_mp.observability.otel import limits, otlp, places, spans

MODULES = (
    *(core, encoder, reader, segments),
    *(current, handle, verbs),
    *(batches, json_line, payloads, records),
    open_scopes,
    *(steps, limits, otlp, places, spans),
)
COMPILED = {module.__name__.rpartition(".")[2]: module for module in MODULES}
STUBS = {
    name: ast.parse(Path(module.__file__).with_name(f"{name}.pyi").read_text(encoding="utf-8"))
    for name, module in COMPILED.items()
}
CLASSES = {
    f"{name}.{node.name}": (getattr(COMPILED[name], node.name), node)
    for name, stubs in STUBS.items()
    for node in stubs.body
    if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
}


def declared(body: list[ast.stmt]) -> dict[str, ast.stmt]:
    names: dict[str, ast.stmt] = {}
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names[node.name] = node
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names[node.target.id] = node
    return names


def defined(owner: Any) -> set[str]:
    """Public names that the compiled module defines itself; what it imported is not its own."""
    names = set()
    home = owner.__module__ if isinstance(owner, type) else owner.__name__
    for name, value in vars(owner).items():
        module = getattr(value, "__module__", None) if callable(value) else None
        if not name.startswith("_") and module in {None, home}:
            names.add(name)
    return names


def is_function(node: ast.stmt) -> bool:
    if not isinstance(node, ast.FunctionDef) or node.name.startswith("__"):
        return False
    return "property" not in {ast.unparse(decorator) for decorator in node.decorator_list}


OWNERS = [
    *((name, module, STUBS[name].body) for name, module in COMPILED.items()),
    *((name, owner, node.body) for name, (owner, node) in CLASSES.items()),
]
FUNCTIONS = {
    f"{owner_name}.{name}": (getattr(owner, name), node)
    for owner_name, owner, body in OWNERS
    for name, node in declared(body).items()
    if is_function(node)
}
CONSTANTS = {
    f"{module_name}.{name}": (getattr(COMPILED[module_name], name), node)
    for module_name, stubs in STUBS.items()
    for name, node in declared(stubs.body).items()
    if isinstance(node, ast.AnnAssign) and not name.startswith("_")
}


def public(names: Iterable[str]) -> set[str]:
    return {name for name in names if not name.startswith("_")}


@pytest.mark.parametrize("name", COMPILED)
def test_module_and_stubs_have_the_same_names(name):
    assert public(declared(STUBS[name].body)) == defined(COMPILED[name])


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_class_and_stub_have_the_same_names(name):
    compiled, node = CLASSES[name]
    assert public(declared(node.body)) == defined(compiled)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_and_stub_have_the_same_parameters(name):
    compiled, node = FUNCTIONS[name]
    in_stub = [
        *((argument.arg, "POSITIONAL_OR_KEYWORD") for argument in node.args.args),
        *((argument.arg, "KEYWORD_ONLY") for argument in node.args.kwonlyargs),
    ]
    parameters = inspect.signature(compiled).parameters.values()
    assert [(p.name, p.kind.name) for p in parameters] == in_stub
    defaults = [*node.args.defaults, *(default for default in node.args.kw_defaults if default is not None)]
    assert len(defaults) == sum(p.default is not p.empty for p in parameters)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_and_stub_return_the_same_type(name):
    compiled, node = FUNCTIONS[name]
    returns = inspect.signature(compiled).return_annotation
    # `emit` does not say; elsewhere the compiled annotation is a bare container, and the stub says of what.
    if returns is not inspect.Signature.empty:
        assert ast.unparse(node.returns).partition("[")[0] == returns.partition("[")[0]


@pytest.mark.parametrize("name", sorted(CONSTANTS))
def test_constant_is_of_the_declared_type(name):
    value, node = CONSTANTS[name]
    assert type(value).__name__ == ast.unparse(node.annotation).partition("[")[0]
