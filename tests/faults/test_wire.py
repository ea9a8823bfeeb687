"""A scope from the wire is applied whole or not at all: what comes in is valid text with a few edits, so that much of
it is refused and some is not. The formats by themselves are in tests/test_propagation.py.

    JSON, traceparent    a stack made of it, used, and a mark emitted under it
    RELAY_MP_SCOPE       the root of a thread of a process that was started with it
"""

import json
import re
import threading

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

import relay_mp
from relay_mp import ScopeType, scope
from relay_mp._emit import carry
from relay_mp._emit.context import current_scope, get_scope_stack
from relay_mp._emit.current import set_inherited_hook, stack_uuids
from relay_mp._session import inheritance, membership
from relay_mp.errors import PropagationError

pytest_plugins = ["recorder"]

PARENT, ROOT = "01a1ffd2662877739fbd78c5867010d0", "11a1ffd2662877739fbd78c5867010d1"
VALID_JSON = [
    json.dumps({"version": 1, "parent_uuid": PARENT}),
    json.dumps({"version": 1, "root_uuid": ROOT, "parent_uuid": PARENT}),
    json.dumps({"version": 1, "root_uuid": PARENT, "parent_uuid": PARENT, "more": [{"a": None}]}),
]
VALID_TRACEPARENTS = [f"00-{ROOT}-{PARENT[16:]}-01", f"01-{ROOT}-{PARENT[16:]}-00-more"]

characters = st.sampled_from('0123456789abcdefABCDEF-{}[]":,.eE+ \\\0\n') | st.characters()
edits = st.lists(
    st.tuples(st.sampled_from(["replace", "insert", "delete", "double"]), st.integers(0, 400), characters), max_size=3
)


def edited(text, changes):
    for how, place, character in changes:
        at = place % (len(text) + 1)
        kept = {"replace": at + 1, "insert": at, "delete": at + 1, "double": max(at - 5, 0)}[how]
        text = text[:at] + (character if how in ("replace", "insert") else "") + text[kept:]
    return text


def texts(valid):
    return st.builds(edited, st.sampled_from(valid), edits)


many = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def hexadecimal(uuid):
    return uuid.replace("-", "") if uuid else None


def is_applied_whole_or_not_at_all(recorder, decode, text) -> bool:
    before = current_scope(), get_scope_stack()
    try:
        propagated = decode(text)
        with relay_mp.use_scope_stack(relay_mp.create_scope_stack_from_propagation(propagated)):
            handle = current_scope()
            scope.event("inside")
            with scope.scope("child", ScopeType.Agent) as child:
                parent = child.parent_uuid
    except PropagationError:
        applied = False
        assert recorder.events() == []
    else:
        applied = True
        assert [event.parent_uuid for event in recorder.events()] == [handle.uuid] * 3
        assert parent == handle.uuid == propagated.parent_uuid
        assert propagated.root_uuid in (None, handle.uuid, handle.parent_uuid)
    assert (current_scope(), get_scope_stack()) == before
    return applied


@many
@given(texts(VALID_JSON))
@example(VALID_JSON[0])
@example(VALID_JSON[1])
@example(VALID_JSON[1].replace(ROOT, "0" * 32))
@example(VALID_JSON[1].replace(ROOT, "x"))
@example(VALID_JSON[1].replace(PARENT, "x"))
def test_propagation_json_is_applied_whole_or_not_at_all(recorder, text):
    if is_applied_whole_or_not_at_all(recorder, relay_mp.PropagationContext.from_json, text):
        fields = json.loads(text)  # it said so, and not something near it
        found = relay_mp.PropagationContext.from_json(text)
        assert hexadecimal(found.parent_uuid) == re.sub("[^0-9a-f]", "", fields["parent_uuid"].lower())


@many
@given(texts(VALID_TRACEPARENTS))
@example(VALID_TRACEPARENTS[0])
@example(VALID_TRACEPARENTS[0].replace(ROOT, "0" * 32))
@example(VALID_TRACEPARENTS[0].replace(PARENT[16:], "0" * 16))
def test_a_traceparent_is_applied_whole_or_not_at_all(recorder, text):
    if is_applied_whole_or_not_at_all(recorder, relay_mp.PropagationContext.from_traceparent, text):
        found = relay_mp.PropagationContext.from_traceparent(text)
        _, trace, span, *_ = text.split("-")
        assert (hexadecimal(found.root_uuid), hexadecimal(found.parent_uuid)[16:]) == (trace, span)


def valid_inherited():
    with scope.scope("outer", ScopeType.Agent), scope.scope("inner", ScopeType.Tool):
        return carry.current_scope_text()


def begin(text, monkeypatch):
    """(parent, stack) of what a thread of a process emits that was started with this text."""
    found = []

    def work():
        handle = current_scope()
        found.append((handle.uuid, stack_uuids(handle).hex(), handle.name))

    with monkeypatch.context() as patch:
        patch.setenv(inheritance.SCOPE_VARIABLE, text)
        set_inherited_hook(membership._State().inherited_scope)
        try:
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
        finally:
            set_inherited_hook(membership._state.inherited_scope)
    return found[0]


@many
@given(texts([valid_inherited()]))
@example(valid_inherited())
@example(valid_inherited().replace("inner", "\ud800"))
def test_an_inherited_scope_is_applied_whole_or_not_at_all(monkeypatch, text):
    assume("\0" not in text and not re.search("[\ud800-\udfff]", text))  # no environment holds these
    uuid, stack, name = begin(text, monkeypatch)
    try:
        fields = json.loads(text)
        said = bytes.fromhex(fields["stack"]).hex(), fields["name"]
    except (ValueError, KeyError, TypeError):
        said = None, None
    if said != (stack, name):  # refused: a root like any other
        assert (name, len(stack)) == ("root", 32)
        assert stack == hexadecimal(uuid)
        assert not said[0] or not stack.startswith(said[0][:32])
    else:
        assert stack[:32] == hexadecimal(uuid)


def test_what_is_edited_is_sometimes_taken_and_sometimes_refused():
    """Else the tests above would show nothing."""
    outcomes = set()
    for valid in VALID_JSON:
        for place in range(len(valid)):
            for how in ("replace", "delete"):
                text = edited(valid, [(how, place, "0")])
                try:
                    relay_mp.PropagationContext.from_json(text)
                    outcomes.add("taken" if text != valid else "the same")
                except PropagationError:
                    outcomes.add("refused")
    assert outcomes >= {"taken", "refused"}


@pytest.mark.parametrize("text", VALID_JSON)
def test_what_is_whole_is_taken(recorder, text):
    assert is_applied_whole_or_not_at_all(recorder, relay_mp.PropagationContext.from_json, text)
