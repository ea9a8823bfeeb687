"""The reference is whole: every public name, setting, field, cause and word is in it, and is as it says."""

import ast
import dataclasses
import importlib
import pkgutil
import re

import doc_blocks
import pytest

import relay_mp
from relay_mp._deliver.dispatcher import LOSS_CAUSES
from relay_mp._session.stats import CAUSES_OF_TOTALS
from relay_mp.cli.exits import MEANINGS
from relay_mp.observability.outbox import Limits

REFERENCE = doc_blocks.DOCS / "reference"

GLOSSARY = (
    "event scope mark subscriber dispatcher exporter sink guardrail intercept injector session segment ring claim "
    "commit padding unit stack handle propagate attach flush"
).split()

# Modules without an underscore that are nobody's to import: the parts of a package whose names it has itself, the
# command line, and what that shows in the browser.
INNER = ("relay_mp.cli", "relay_mp.codecs.", "relay_mp.observability.", "relay_mp.testing.", "relay_mp.view")
# But these are named by the guides.
NAMED = {"relay_mp.observability.sink", "relay_mp.observability.outbox"}


def public_modules():
    found = [module.name for module in pkgutil.walk_packages(relay_mp.__path__, "relay_mp.")]
    return ["relay_mp"] + [
        name for name in found
        if not any(part.startswith("_") for part in name.split("."))
        and (name in NAMED or not name.startswith(INNER))
    ]  # fmt: skip


def value_of(name):
    """What a dotted name of the package stands for."""
    value = relay_mp
    for number, part in enumerate(name.split(".")[1:], 2):
        if not hasattr(value, part):
            importlib.import_module(".".join(name.split(".")[:number]))
        value = getattr(value, part)
    return value


def entries():
    """The names that autodoc's directives give an entry."""
    found = set()
    for page in REFERENCE.rglob("*.md"):
        lines = page.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines):
            directive = re.fullmatch(r"\.\. (auto\w+|py:module|py:function):: ([\w.]+).*", line)
            if directive is None:
                continue
            kind, name = directive.groups()
            found.add(name)
            options = " ".join(lines[number + 1 : number + 4])
            if kind == "automodule" and ":members:" in options.partition("..")[0]:
                left_out = re.search(r":exclude-members: ([\w, ]+)", options)
                names = set(value_of(name).__all__) - set(re.findall(r"\w+", left_out[1]) if left_out else [])
                found |= {f"{name}.{member}" for member in names}
    return found


ENTRIES = entries()
DESCRIBED = {id(value_of(name)) for name in ENTRIES if name != "relay_events"}


def is_described(name):
    return name in ENTRIES or id(value_of(name)) in DESCRIBED


@pytest.mark.parametrize("module", public_modules())
def test_every_public_name_has_an_entry_in_the_reference(module):
    """A name that another module has too has its entry there."""
    names = value_of(module).__all__
    missing = [name for name in names if not is_described(f"{module}.{name}")]
    assert missing == [], f"give them an entry in docs/reference/api, such as `.. autofunction:: {module}.{missing[0]}`"


def test_a_name_without_an_entry_would_be_found():
    assert is_described("relay_mp.scope.event")
    assert not is_described("relay_mp.scope.__file__")  # there, but in no list of public names


def test_entries_are_of_something_that_exists():
    assert len(DESCRIBED) > 250  # each was looked up


# ---------------------------------------------------------------------------------------- tables


def test_every_name_of_the_use_table_exists():
    rows = doc_blocks.rows(REFERENCE / "which-function.md")
    found = [name for _, use in rows for name in re.findall(r"`(relay_mp[\w.]*)`", use)]
    assert len(found) > 80
    for name in found:
        value_of(name)
    assert all(use.startswith("`relay_mp.") for _, use in rows)


def test_settings_table_has_every_setting_with_its_variable_and_default():
    fields = dataclasses.fields(relay_mp.Settings)
    rows = doc_blocks.rows(REFERENCE / "settings.md")
    assert [row[0] for row in rows] == [f"`{field.name}`" for field in fields]
    for field, (_, variable, default, _) in zip(fields, rows, strict=True):
        assert variable == f"`RELAY_MP_{field.name.upper()}`"
        literal = re.fullmatch(r"`([^/`]+)`", default)
        if literal:
            assert ast.literal_eval(literal[1]) == field.default, field.name
        else:
            assert field.default in {0, ""}, f"{field.name}: its default is in words, so it must be computed"


def test_glossary_has_each_word_once():
    assert [row[0] for row in doc_blocks.rows(REFERENCE / "glossary.md")] == GLOSSARY


def test_the_table_of_losses_has_every_cause():
    causes = [doc_blocks.codes(row[0])[0] for row in doc_blocks.rows(REFERENCE / "losses.md")]
    assert causes == [*LOSS_CAUSES, *CAUSES_OF_TOTALS]


def test_the_table_of_fields_has_what_events_have():
    start = relay_mp.ScopeEvent(b"", 0, 0, False)
    assert start.kind == "scope"
    mark = relay_mp.MarkEvent.from_fields("m", uuid=bytes(16), timestamp_us=0, seq=1, pid=1)
    fields = {row[0].strip("`"): row[1] for row in doc_blocks.rows(REFERENCE / "events.md", "Fields of the format")}
    assert {name for name, of in fields.items() if of == "both"} == set(mark.to_dict())
    assert {name for name, of in fields.items() if of == "scopes"} == {"attributes", "scope_category"}


def test_the_attributes_beside_the_format_exist():
    for row in doc_blocks.rows(REFERENCE / "events.md", "Attributes beside the format"):
        for code in doc_blocks.codes(row[0]):
            name = code.removeprefix("event.")
            assert hasattr(relay_mp.ScopeEvent, name) or hasattr(relay_mp.MarkEvent, name), code


def test_the_table_of_limits_has_every_bound_with_its_default():
    rows = doc_blocks.rows(doc_blocks.DOCS / "guides" / "exporters" / "index.md", "Bounds")
    found = {row[0].strip("`"): ast.literal_eval(row[1]) for row in rows}
    assert found == {field.name: field.default for field in dataclasses.fields(Limits)}


def test_every_error_has_an_entry():
    text = (REFERENCE / "errors.md").read_text(encoding="utf-8")
    names = re.findall(r"autoexception:: relay_mp\.(\w+)", text)
    assert sorted(names) == sorted(relay_mp.errors.__all__)


def test_every_cause_of_an_exporters_drop_is_told():
    """Those that the sources have as texts; what else a sink drops is named after the exception."""
    package = doc_blocks.ROOT / "relay_mp" / "observability"
    text = "".join(path.read_text(encoding="utf-8") for path in package.rglob("*.py"))
    causes = set(re.findall(r'count_dropped\("(\w+)"', text))
    for names in re.findall(r"^(?:DROP_\w+(?:, )?)+ = (.*)$", text, re.MULTILINE):
        causes |= set(re.findall(r'"(\w+)"', names))
    assert {"full", "deadline", "removed", "trajectory_full"} <= causes
    told = (REFERENCE / "exporter-outcomes.md").read_text(encoding="utf-8")
    assert [cause for cause in sorted(causes) if f'"{cause}"' not in told] == []


def test_what_is_recorded_has_an_example_of_every_field():
    page = doc_blocks.DOCS / "guides" / "what_is_recorded.md"
    found = {row[0].strip("`"): row[3] for row in doc_blocks.rows(page, "Every field, with an example of each")}
    mark = relay_mp.MarkEvent.from_fields("m", uuid=bytes(16), timestamp_us=0, seq=1, pid=1)
    assert {name for name, in_a_mark in found.items() if in_a_mark != "-"} == set(mark.to_dict())
    assert {name for name, in_a_mark in found.items() if in_a_mark == "-"} == {"attributes", "scope_category"}


def test_the_exit_codes_are_those_of_the_command_line():
    documented = {int(doc_blocks.codes(row[0])[0]): row[1] for row in doc_blocks.rows(REFERENCE / "exit-codes.md")}
    assert documented == {int(code): meaning for code, meaning in MEANINGS.items()}
