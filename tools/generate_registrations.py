"""Writes the functions that register middleware, in each of their forms, for every family.

    relay_mp/_emit/families.py  ─▶  here  ─▶  the generated part of
                                                  guardrails.py, intercepts.py, event_metadata.py   global
                                                  scope_local.py                                    of one scope
                                                  _plugins/context.py                               of a plugin

`python -m tools.generate_registrations`, in the root of the sources, writes. With `--check` it writes nothing,
names the files that are not up to date, and exits with 1. A generated part stands between two lines, BEGIN and
END; what is outside of it is written by hand. The text comes out as ruff formats it, so no formatter is needed.
"""

import argparse
import ast
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from relay_mp._emit.families import Family

ROOT = Path(__file__).resolve().parents[1]
COMMAND = "python -m tools.generate_registrations"
BEGIN = f"# --- Generated from relay_mp/_emit/families.py by `{COMMAND}`: change that, not this."
END = "# --- End of the generated part."
LINE_LENGTH = 120

Sections = dict[str, str | dict[str, str]]
"""A docstring's sections, by title: a text, or a text for each name."""


class Role(NamedTuple):
    """What families of one role share: the module of their global functions, and what these call a callback."""

    module: str
    parameter: str


# By the last word of the family's kind.
ROLES = {
    "injector": Role("event_metadata", "injector"),
    "guardrail": Role("guardrails", "guardrail"),
    "intercept": Role("intercepts", "fn"),
}

FAILURES = {
    "withhold": "the event shows no payload",
    "omit": "nothing is added",
    "fail": "the call fails",
}


def load_families() -> "list[Family]":
    """The rows of the table.

    `relay_mp/__init__.py` is not run: it imports what is compiled, and the modules that are to be written, which may
    not even be Python at this moment, after a merge for example.
    """
    package = ModuleType("relay_mp")
    package.__path__ = [str(ROOT / "relay_mp")]
    sys.modules["relay_mp"] = package
    return list(import_module("relay_mp._emit.families").FAMILIES.values())


def role(family: "Family") -> Role:
    """The role of a family's callbacks."""
    return ROLES[family.kind.value.rpartition("_")[2]]


# ------------------------------------------------------------------------------------------------ layout


def laid_out(head: str, items: Sequence[str], tail: str, indent: str) -> str:
    """A signature or a call: on one line, or its items on a line of their own, or each on its own line."""
    joined, inner = ", ".join(items), f"{indent}    "
    line = f"{indent}{head}{joined}{tail}"
    if len(line) <= LINE_LENGTH:
        return line
    between = [f"{inner}{joined}"]
    if len(between[0]) > LINE_LENGTH:
        between = [f"{inner}{item}," for item in items]
    return "\n".join([f"{indent}{head}", *between, f"{indent}{tail}"])


def docstring(summary: str, more: Sequence[str], sections: Sections, indent: str) -> str:
    """A docstring: a line, the lines of a paragraph if there is one, and sections."""
    lines = [f'"""{summary}', *(["", *more] if more else [])]
    for title, body in sections.items():
        entries = [body] if isinstance(body, str) else [f"{name}: {text}" for name, text in body.items()]
        lines += ["", f"{title}:", *(f"    {entry}" for entry in entries)]
    return "\n".join(f"{indent}{line}" if line else "" for line in [*lines, '"""'])


def function(
    signature: tuple[str, Sequence[str], str], text: str, statement: tuple[str, Sequence[str]], indent: str
) -> str:
    """A function of one statement, which is a call.

    Args:
        signature: the name, the parameters, the type of what is returned.
        text: the docstring, indented.
        statement: what is called, and what is passed.
        indent: of the `def`.
    """
    name, parameters, returns = signature
    called, passed = statement
    head = laid_out(f"def {name}(", parameters, f") -> {returns}:", indent)
    return "\n".join([head, text, laid_out(f"{called}(", passed, ")", f"{indent}    ")]) + "\n"


# ------------------------------------------------------------------------------------------- the functions

BREAK_CHAIN = "whether the rest of the chain is left out after it."
SCOPE_ERROR = "the scope has ended, or another process pushed it."


def register(family: "Family", verbs: str, is_local: bool) -> str:
    """`register_<verbs>`, global or of one scope."""
    parameter = role(family).parameter
    scope = {"scope_handle": "an open scope of this process, or a root."} if is_local else {}
    whose = "this scope's" if is_local else "the global"
    chain = {"break_chain": BREAK_CHAIN} if family.breaks else {}
    sections: Sections = {
        "Args": {
            **scope,
            "name": f"unique among {whose} registrations of this family.",
            "priority": "the lowest runs first; -2**31 to 2**31 - 1.",
            **chain,
            parameter: 'synchronous or asynchronous; or the name of one, "package.module:attribute", imported now.',
            "arguments": "only with a name: the attribute is called with them, and returns the callback.",
        },
        "Raises": {
            "TypeError": "an argument is not of its type.",
            "OverflowError": "the priority has more than 32 bits.",
            "MiddlewareError": "the name is taken, or what is named cannot be imported.",
            **({"ScopeError": SCOPE_ERROR} if is_local else {}),
        },
    }
    parameters = [
        *(f"{name}: ScopeHandle" for name in scope),
        "name: str",
        "priority: int",
        *(f"{name}: bool" for name in chain),
        f"{parameter}: callbacks.{family.callback} | str",
        "*",
        "arguments: dict[str, Any] | None = None",
    ]
    passed = ["name", "priority", parameter, "arguments", *scope, *(f"{name}={name}" for name in chain)]
    return function(
        (f"register_{verbs}", parameters, "None"),
        docstring(f"Registers {family.what}.", terms(family, parameter), sections, indent="    "),
        ("register", [f"_Kind.{family.kind.name}", *passed]),
        indent="",
    )


def deregister(family: "Family", verbs: str, is_local: bool) -> str:
    """`deregister_<verbs>`, global or of one scope."""
    scope = ["scope_handle"] if is_local else []
    sections: Sections = {"Returns": "False if there is none of that name."}
    if is_local:
        sections["Raises"] = {"TypeError": "scope_handle is not a ScopeHandle.", "ScopeError": SCOPE_ERROR}
    return function(
        (f"deregister_{verbs}", [*(f"{name}: ScopeHandle" for name in scope), "name: str"], "bool"),
        docstring(
            f"Removes what `register_{verbs}` registered. Calls in progress may still use it.", [], sections, "    "
        ),
        ("return deregister", [f"_Kind.{family.kind.name}", "name", *scope]),
        indent="",
    )


def register_of_plugin(family: "Family") -> str:
    """`PluginContext.register_<kind>`."""
    chain = {"break_chain": BREAK_CHAIN} if family.breaks else {}
    sections: Sections = {
        "Args": {
            "name": "unique among the component's registrations of this family.",
            "priority": "the lowest runs first.",
            **chain,
            "callback": "synchronous or asynchronous.",
        },
        "Raises": {
            "TypeError": "an argument is not of its type.",
            "PluginError": "the name is taken, or the component is not active any more.",
        },
    }
    parameters = ["self", "name: str", "priority: int", *(f"{name}: bool" for name in chain), "callback: Callback"]
    return function(
        (f"register_{family.kind.value}", parameters, "None"),
        docstring(f"Registers {family.what}.", terms(family, "callback"), sections, indent=" " * 8),
        ("self._register", [f"_Kind.{family.kind.name}", "name", "priority", "callback", *chain]),
        indent="    ",
    )


def terms(family: "Family", parameter: str) -> list[str]:
    """What a docstring says of a family's callbacks: what they are given and return, and what it means if they fail."""
    return [
        f"`{parameter}({family.arguments})` returns {family.returns}.",
        f"If it raises, or returns something else, {FAILURES[family.failure]}.",
    ]


# ----------------------------------------------------------------------------------------------- the parts


def module_part(module: str, families: "Sequence[Family]", by_hand: str) -> str:
    """What is generated of a module of functions: `__all__`, and a pair of functions for each family.

    Args:
        module: its name. The scope-local one has all families, the others those of their role.
        families: the table.
        by_hand: the rest of the module; its public functions are in `__all__` too.
    """
    is_local = module == "scope_local"
    names = [
        node.name
        for node in ast.parse(by_hand).body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    ]
    functions = []
    for family in families:
        if is_local or role(family).module == module:
            # A function's name does not repeat its module's: event_metadata.register_injector.
            verbs = family.verbs.removeprefix(f"{module}_")
            names += [f"register_{verbs}", f"deregister_{verbs}"]
            functions += [register(family, verbs, is_local), deregister(family, verbs, is_local)]
    listed = "".join(f'    "{name}",\n' for name in sorted(names))
    return "\n\n".join([f"__all__ = [\n{listed}]\n", *functions, ""])


def class_part(families: "Sequence[Family]", by_hand: str) -> str:
    """What is generated of `PluginContext`: a method for each family."""
    return "\n".join([*map(register_of_plugin, families), ""])


PARTS: "dict[str, Callable[[Sequence[Family], str], str]]" = {
    **{f"relay_mp/{one.module}.py": partial(module_part, one.module) for one in ROLES.values()},
    "relay_mp/scope_local.py": partial(module_part, "scope_local"),
    "relay_mp/_plugins/context.py": class_part,
}


def regenerated(path: str, source: str, families: "Sequence[Family]") -> str:
    """A file's text, with the generated part as the table asks for.

    Raises:
        ValueError: BEGIN and END are not there once each, in this order.
    """
    lines = source.splitlines(keepends=True)
    begins, ends = ([number for number, line in enumerate(lines) if line.strip() == mark] for mark in (BEGIN, END))
    if len(begins) != 1 or len(ends) != 1 or begins > ends:
        raise ValueError(
            f"{path} has {len(begins)} lines of BEGIN and {len(ends)} of END; expected one each, in this order:\n"
            f"{BEGIN}\n{END}"
        )
    before, after = "".join(lines[: begins[0] + 1]), "".join(lines[ends[0] :])
    return f"{before}\n{PARTS[path](families, before + after)}{after}"


def main(argv: Sequence[str] | None = None) -> int:
    """Writes, or with `--check` compares. Returns the exit status."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="Writes the functions that register middleware.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a file is not up to date")
    is_check = parser.parse_args(argv).check
    families = load_families()
    stale = {}
    for path in PARTS:
        source = (ROOT / path).read_text(encoding="utf-8")
        if (text := regenerated(path, source, families)) != source:
            stale[path] = text
    for path, text in stale.items():
        if is_check:
            print(f"{path} is not what the table of families gives; run `{COMMAND}`", file=sys.stderr)
        else:
            (ROOT / path).write_text(text, encoding="utf-8")
            print(f"wrote {path}")
    return 1 if is_check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
