"""Programs over plugins, run in an interpreter of their own against one of two libraries.

    python plugin_programs.py nemo_relay|relay_mp < programs.json > outcomes.json

A program is what a user does: registers plugins, has files, validates, initializes, clears. Its outcome is what
each step returned or raised, which plugin was called with what, and who saw the mark that follows each step.
"""

import asyncio
import importlib
import json
import os
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

DIRECTORIES = {"nemo_relay": "nemo-relay", "relay_mp": "relay_mp"}
BUILTIN_KINDS = {"adaptive", "nemo_guardrails", "observability", "pii_redaction", "pricing"}
KINDS = ["a", "b", "c"]

Json = Any


# ---------------------------------------------------------------------------------------------- programs


def random_config(rng: random.Random) -> Json:
    config: dict[str, Json] = {}
    for key in rng.sample(["x", "y", "l", "t", "n"], rng.randrange(4)):
        config[key] = {
            "x": rng.choice([1, "one", True, 1.5]),
            "y": rng.choice([2, "two", False]),
            "l": [rng.randrange(3) for _ in range(rng.randrange(3))],
            "t": {"p": rng.randrange(3), "l": [rng.randrange(3)], rng.choice("qr"): 1},
            "n": {"deep": {"er": [1, {"est": 2}]}},
        }[key]
    if rng.random() < 0.1:
        config["fail"] = True
    return config


def random_document(rng: random.Random, *, in_file: bool) -> Json:
    document: dict[str, Json] = {}
    if rng.random() < 0.3:
        document["version"] = 1 if in_file or rng.random() < 0.7 else 2
    kinds = [rng.choice([*KINDS, *KINDS, "zz"]) for _ in range(rng.randrange(4))]
    components = []
    for kind in dict.fromkeys(kinds) if in_file else kinds:
        component: dict[str, Json] = {"kind": kind}
        if rng.random() < 0.5:
            component["enabled"] = rng.random() < 0.7
        if rng.random() < 0.8:
            component["config"] = random_config(rng)
        components.append(component)
    if components or rng.random() < 0.5:
        document["components"] = components
    if rng.random() < 0.4:
        names = rng.sample(["unknown_component", "unknown_field", "unsupported_value"], rng.randrange(1, 4))
        document["policy"] = {name: rng.choice(["ignore", "warn", "error"]) for name in names}
    return document


def random_program(seed: int) -> Json:
    rng = random.Random(seed)
    plugins = {}
    for kind in KINDS:
        level = rng.choice(["warning", "warning", "error"])
        diagnostics = rng.choice([None, [], [{"level": level, "code": f"{kind}.x", "message": "m", "field": "f"}]])
        plugins[kind] = {"diagnostics": diagnostics, "raises": rng.choice([None] * 6 + ["register", "validate"])}
    steps: list[Json] = []
    for _ in range(rng.randrange(1, 6)):
        verb = rng.choice(["initialize", "initialize", "initialize", "validate", "clear", "file", "no_file", "report"])
        given = random_document(rng, in_file=verb == "file") if verb in ("initialize", "validate", "file") else None
        steps.append([verb, given])
    return {"plugins": plugins, "steps": steps}


# -------------------------------------------------------------------------------------------- the library


def as_toml(value: Json) -> str:
    """A value as inline TOML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {as_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(as_toml, value)) + "]"
    return json.dumps(value)


def file_of(document: Json) -> str:
    if isinstance(document, str):
        return document
    return "".join(f"{key} = {as_toml(value)}\n" for key, value in document.items())


class Recorder:
    """A plugin that does as it is told, and says what it was asked."""

    def __init__(self, kind: str, told: dict[str, Json], log: list[Json]) -> None:
        self.kind, self.told, self.log = kind, told, log

    def validate(self, config: dict[str, Json]) -> Json:
        self.log.append(["validate", self.kind, dict(config)])
        if self.told["raises"] == "validate":
            raise ValueError("told to")
        return self.told["diagnostics"]

    def register(self, config: dict[str, Json], context: Any) -> None:
        self.log.append(["register", self.kind, dict(config)])
        log, marker = self.log, json.dumps(config, sort_keys=True)
        context.register_subscriber("s", lambda event: log.append(["seen", self.kind, marker, event.name]))
        context.register_mark_sanitize_guardrail("m", 1, lambda event, fields: fields)
        if self.told["raises"] == "register" or config.get("fail"):
            raise KeyError("told to")


class Runner:
    """Runs programs one after the other."""

    def __init__(self, name: str) -> None:
        self.lib = importlib.import_module(name)
        self.file = Path(os.environ["XDG_CONFIG_HOME"]) / DIRECTORIES[name] / "plugins.toml"
        self.file.parent.mkdir(parents=True)

    def step(self, verb: str, given: Json) -> Json:
        plugin = self.lib.plugin

        async def clear() -> None:
            plugin.clear()

        steps = {
            "file": lambda: self.file.write_text(file_of(given)) and None,
            "no_file": lambda: self.file.unlink(missing_ok=True),
            "initialize": lambda: asyncio.run(plugin.initialize(given)),
            "validate": lambda: plugin.validate(given),
            "register": lambda: plugin.register(given, Recorder(given, {"raises": None, "diagnostics": None}, [])),
            "deregister": lambda: plugin.deregister(given),
            "list_kinds": lambda: sorted(set(plugin.list_kinds()) - BUILTIN_KINDS),
            "report": plugin.report,
            "clear": plugin.clear,
            "clear_in_loop": lambda: asyncio.run(clear()),
        }
        return steps[verb]()

    def attempt(self, verb: str, given: Json) -> Json:
        try:
            result = self.step(verb, given)
        except Exception as error:
            bases = [base.__name__ for base in (ValueError, RuntimeError, TypeError) if isinstance(error, base)]
            return {"raised": bases, "said": str(error)}
        if isinstance(result, dict):
            return [
                {key: found.get(key) for key in ("level", "code", "component", "field")}
                for found in result["diagnostics"]
            ]
        return result

    def run(self, program: Json) -> list[Json]:
        log: list[Json] = []
        for kind, told in program["plugins"].items():
            self.lib.plugin.register(kind, Recorder(kind, told, log))
        outcomes = []
        for number, (verb, given) in enumerate(program["steps"]):
            log.clear()
            result = self.attempt(verb, given)
            self.lib.scope.event(f"mark-{number}")
            self.lib.subscribers.flush()
            calls = [each for each in log if each[0] != "seen"]
            seen = sorted(each[1:] for each in log if each[0] == "seen")
            outcomes.append({"result": result, "calls": calls, "seen": seen})
        self.lib.plugin.clear()
        self.file.unlink(missing_ok=True)
        for kind in set(self.lib.plugin.list_kinds()) - BUILTIN_KINDS:
            self.lib.plugin.deregister(kind)
        return outcomes


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        os.environ["XDG_CONFIG_HOME"] = directory
        runner = Runner(sys.argv[1])
        json.dump([runner.run(program) for program in json.load(sys.stdin)], sys.stdout)
