"""The stubs of the compiled module, core.pyi, name what it has, with the same parameters, and nothing else."""

import ast
import inspect
from pathlib import Path
from typing import Any

import pytest

import relay_mp._native.core as core

STUBS = ast.parse(Path(core.__file__).with_name("core.pyi").read_text(encoding="utf-8"))
CLASSES = {node.name: node for node in STUBS.body if isinstance(node, ast.ClassDef)}

Function = tuple[str, Any, ast.FunctionDef]


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


def functions() -> list[Function]:
    found: list[Function] = []
    for prefix, owner, body in [("", core, STUBS.body), *((n + ".", getattr(core, n), c.body) for n, c in CLASSES.items())]:
        for name, node in declared(body).items():
            is_property = isinstance(node, ast.FunctionDef) and any(
                isinstance(decorator, ast.Name) and decorator.id == "property" for decorator in node.decorator_list
            )
            if isinstance(node, ast.FunctionDef) and not is_property and not name.startswith("__"):
                found.append((prefix + name, getattr(owner, name), node))
    return found


def parameters_of_stub(node: ast.FunctionDef) -> list[tuple[str, str]]:
    arguments = node.args
    return [
        *((argument.arg, "POSITIONAL_OR_KEYWORD") for argument in arguments.args),
        *((argument.arg, "KEYWORD_ONLY") for argument in arguments.kwonlyargs),
    ]


def test_module_and_stubs_have_the_same_names():
    assert set(declared(STUBS.body)) == defined(core)


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_class_and_stub_have_the_same_names(name: str):
    in_stub = {n for n in declared(CLASSES[name].body) if not n.startswith("_")}
    assert in_stub == defined(getattr(core, name))


@pytest.mark.parametrize(("name", "compiled", "node"), functions(), ids=lambda value: value if type(value) is str else "")
def test_function_and_stub_have_the_same_parameters(name: str, compiled: Any, node: ast.FunctionDef):
    signature = inspect.signature(compiled)
    assert [(p.name, p.kind.name) for p in signature.parameters.values()] == parameters_of_stub(node), name
    assert len(node.args.defaults) == sum(p.default is not p.empty for p in signature.parameters.values())


@pytest.mark.parametrize(("name", "compiled", "node"), functions(), ids=lambda value: value if type(value) is str else "")
def test_function_and_stub_return_the_same_type(name: str, compiled: Any, node: ast.FunctionDef):
    returns = inspect.signature(compiled).return_annotation
    if returns is inspect.Signature.empty:
        pytest.skip("the compiled function does not say")
    # The compiled annotation is a bare container, the stub says what is in it.
    assert node.returns is not None
    assert ast.unparse(node.returns).partition("[")[0] == returns.partition("[")[0], name


@pytest.mark.parametrize("name", [n for n, node in declared(STUBS.body).items() if isinstance(node, ast.AnnAssign)])
def test_constant_is_of_the_declared_type(name: str):
    node = declared(STUBS.body)[name]
    assert isinstance(node, ast.AnnAssign)
    assert type(getattr(core, name)).__name__ == ast.unparse(node.annotation).partition("[")[0]
