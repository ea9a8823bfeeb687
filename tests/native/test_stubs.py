"""The stubs of the compiled module, core.pyi, name what it has, with the same parameters, and nothing else."""

import ast
import inspect
from pathlib import Path
from typing import Any

import pytest

from relay_mp._native import core

STUBS = ast.parse(Path(core.__file__).with_name("core.pyi").read_text(encoding="utf-8"))
CLASSES = {node.name: node for node in STUBS.body if isinstance(node, ast.ClassDef)}


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
    for name, value in vars(owner).items():
        module = getattr(value, "__module__", None) if callable(value) else None
        if not name.startswith("_") and module in {None, core.__name__}:
            names.add(name)
    return names


def is_function(node: ast.stmt) -> bool:
    if not isinstance(node, ast.FunctionDef) or node.name.startswith("__"):
        return False
    return "property" not in {ast.unparse(decorator) for decorator in node.decorator_list}


OWNERS = [(core, STUBS.body), *((getattr(core, name), node.body) for name, node in CLASSES.items())]
FUNCTIONS = {
    f"{owner.__name__.rpartition('.')[2]}.{name}": (getattr(owner, name), node)
    for owner, body in OWNERS
    for name, node in declared(body).items()
    if is_function(node)
}


def test_module_and_stubs_have_the_same_names():
    assert set(declared(STUBS.body)) == defined(core)


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_class_and_stub_have_the_same_names(name):
    in_stub = {n for n in declared(CLASSES[name].body) if not n.startswith("_")}
    assert in_stub == defined(getattr(core, name))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_and_stub_have_the_same_parameters(name):
    compiled, node = FUNCTIONS[name]
    in_stub = [
        *((argument.arg, "POSITIONAL_OR_KEYWORD") for argument in node.args.args),
        *((argument.arg, "KEYWORD_ONLY") for argument in node.args.kwonlyargs),
    ]
    parameters = inspect.signature(compiled).parameters.values()
    assert [(p.name, p.kind.name) for p in parameters] == in_stub
    assert len(node.args.defaults) == sum(p.default is not p.empty for p in parameters)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_and_stub_return_the_same_type(name):
    compiled, node = FUNCTIONS[name]
    returns = inspect.signature(compiled).return_annotation
    # `emit` does not say; elsewhere the compiled annotation is a bare container, and the stub says of what.
    if returns is not inspect.Signature.empty:
        assert ast.unparse(node.returns).partition("[")[0] == returns.partition("[")[0]


@pytest.mark.parametrize("name", [n for n, node in declared(STUBS.body).items() if isinstance(node, ast.AnnAssign)])
def test_constant_is_of_the_declared_type(name):
    annotation = ast.unparse(declared(STUBS.body)[name].annotation)
    assert type(getattr(core, name)).__name__ == annotation.partition("[")[0]
