"""A scope over a wire, out and in: the formats, and that malformed input has one error and no effect."""

import asyncio
import contextvars
import json
import pickle
import re
import uuid

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relay_mp import scope
from relay_mp._emit import context
from relay_mp._emit.context import current_scope, get_scope_stack, use_scope_stack
from relay_mp._emit.propagation import (
    MAX_JSON_CHARACTERS,
    PropagationContext,
    capture_propagation_context,
    capture_propagation_context_with_root,
    capture_traceparent,
    create_scope_stack_from_propagation,
)
from relay_mp.errors import PropagationError, ScopeError
from relay_mp.types import ScopeType

PARENT = "01a1ffd2-6628-7773-9fbd-78c5867010d0"
ROOT = "11a1ffd2-6628-7773-9fbd-78c5867010d1"
NIL = "00000000-0000-0000-0000-000000000000"


@pytest.fixture(autouse=True)
def own_context():
    token = context._current.set(None)
    yield
    context._current.reset(token)


def push(name="s", **arguments):
    return scope.push(name, ScopeType.Tool, **arguments)


# --------------------------------------------------------------------------------------------- JSON


def test_json_leaves_an_unknown_root_out():
    assert PropagationContext(PARENT).to_json() == f'{{"version":1,"parent_uuid":"{PARENT}"}}'
    assert (
        PropagationContext(PARENT, ROOT).to_json() == f'{{"version":1,"root_uuid":"{ROOT}","parent_uuid":"{PARENT}"}}'
    )


@pytest.mark.parametrize(
    "written",
    [PARENT.upper(), PARENT.replace("-", ""), f"{{{PARENT}}}", f"urn:uuid:{PARENT}"],
)
def test_uuids_are_read_in_every_usual_form_and_written_in_one(written):
    context = PropagationContext(written, written)
    assert context.parent_uuid == context.root_uuid == PARENT
    assert PropagationContext.from_json(json.dumps({"version": 1, "parent_uuid": written})).parent_uuid == PARENT


@given(st.uuids(), st.none() | st.uuids())
def test_json_goes_there_and_back(parent, root):
    context = PropagationContext(str(parent), None if root is None else str(root))
    arrived = PropagationContext.from_json(context.to_json())
    assert arrived == context
    assert hash(arrived) == hash(context)
    assert pickle.loads(pickle.dumps(context)) == context
    assert repr(context) == f"PropagationContext(parent_uuid={str(parent)!r}, root_uuid={context.root_uuid!r})"


@pytest.mark.parametrize(
    "text",
    [
        f' {{"version": 1, "parent_uuid": "{PARENT}", "root_uuid": null}} ',
        f'{{"version":1,"parent_uuid":"{PARENT}","later":[{{"a":1,"a":2}}]}}',
        f'{{"version":1,"parent_uuid":"{PARENT}","later":1,"later":2}}',
    ],
)
def test_unknown_keys_and_a_null_root_are_ignored(text):
    assert PropagationContext.from_json(text) == PropagationContext(PARENT)


MALFORMED = [
    "",
    "{",
    "{}",
    "[]",
    "null",
    "1",
    '"x"',
    f'[1,"{PARENT}",null]',
    f'{{"parent_uuid":"{PARENT}"}}',
    '{"version":1}',
    f'{{"version":"1","parent_uuid":"{PARENT}"}}',
    f'{{"version":1.0,"parent_uuid":"{PARENT}"}}',
    f'{{"version":true,"parent_uuid":"{PARENT}"}}',
    f'{{"version":0,"parent_uuid":"{PARENT}"}}',
    f'{{"version":2,"parent_uuid":"{PARENT}"}}',
    f'{{"version":-1,"parent_uuid":"{PARENT}"}}',
    f'{{"version":{"9" * 5000},"parent_uuid":"{PARENT}"}}',
    '{"version":1,"parent_uuid":5}',
    '{"version":1,"parent_uuid":"x"}',
    f'{{"version":1,"parent_uuid":"{PARENT}","root_uuid":5}}',
    f'{{"version":1,"parent_uuid":"{PARENT}","root_uuid":"{NIL}"}}',
    f'{{"version":1,"parent_uuid":"{NIL}"}}',
    f'{{"version":1,"parent_uuid":"{PARENT}"}} x',
    f'{{"version":1,"parent_uuid":"{PARENT}","parent_uuid":"{ROOT}"}}',
    f'{{"version":1,"parent_uuid":"{PARENT}","x":NaN}}',
    f'{{"version":1,"parent_uuid":"{PARENT}","x":-Infinity}}',
    "[" * MAX_JSON_CHARACTERS,
    '{"a":' * (MAX_JSON_CHARACTERS // 5),
    f'{{"version":1,"parent_uuid":"{PARENT}","x":"{"y" * MAX_JSON_CHARACTERS}"}}',
    f'{{"version":1,"parent_uuid":"{PARENT[:-1]}\u0660"}}',
]


@pytest.mark.parametrize("text", MALFORMED, ids=range(len(MALFORMED)))
def test_malformed_json_is_a_value_error_that_does_not_repeat_it_at_length(text):
    with pytest.raises(PropagationError) as caught:
        PropagationContext.from_json(text)
    assert isinstance(caught.value, ValueError)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("value", [None, b"{}", 3, {}])
def test_what_is_no_text_is_a_type_error(value):
    with pytest.raises(TypeError):
        PropagationContext.from_json(value)
    with pytest.raises(TypeError):
        PropagationContext.from_traceparent(value)


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40) | st.uuids().map(str),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=6,
)
field = st.sampled_from([1, PARENT, ROOT, NIL, None, "", "0" * 32]) | json_like
contexts = st.fixed_dictionaries({}, optional={"version": field, "parent_uuid": field, "root_uuid": field, "x": field})


@given(contexts.map(json.dumps) | json_like.map(json.dumps) | st.text(max_size=200))
def test_any_json_gives_a_context_or_one_error(text):
    try:
        context = PropagationContext.from_json(text)
    except PropagationError:
        return
    assert PropagationContext.from_json(context.to_json()) == context
    assert uuid.UUID(context.parent_uuid).int != 0


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((1,), TypeError),
        ((PARENT, 1), TypeError),
        ((PARENT, None, "1"), TypeError),
        ((PARENT, None, 2), PropagationError),
        ((PARENT, None, 0), PropagationError),
        ((PARENT, None, -1), OverflowError),
        ((NIL,), PropagationError),
        ((PARENT, NIL), PropagationError),
        (("x",), PropagationError),
        (("",), PropagationError),
        ((PARENT, ""), PropagationError),
        ((PARENT[:18] + "-0000-000000000000",), PropagationError),
        ((PARENT + "\n",), PropagationError),
    ],
)
def test_unusable_arguments_are_refused(arguments, error):
    with pytest.raises(error):
        PropagationContext(*arguments)


def test_a_context_does_not_change():
    for name in ("version", "parent_uuid", "root_uuid"):
        with pytest.raises(AttributeError):
            setattr(PropagationContext(PARENT), name, 1)


# -------------------------------------------------------------------------------------- traceparent


def test_a_traceparent_is_the_root_and_half_of_the_parent():
    assert PropagationContext(PARENT, ROOT).to_traceparent() == (
        f"00-{ROOT.replace('-', '')}-{PARENT.replace('-', '')[16:]}-01"
    )
    with pytest.raises(PropagationError, match="root_uuid"):
        PropagationContext(PARENT).to_traceparent()


def test_the_outermost_scope_comes_back_from_a_traceparent_whole():
    assert PropagationContext.from_traceparent(PropagationContext(ROOT, ROOT).to_traceparent()) == (
        PropagationContext(ROOT, ROOT)
    )


hexadecimal = st.text("0123456789abcdef", min_size=1)


@given(st.uuids(), st.integers(1, 2**64 - 1), st.integers(0, 255))
def test_a_traceparent_goes_there_and_back(trace, span, flags):
    value = f"00-{trace.hex}-{span:016x}-{flags:02x}"
    arrived = PropagationContext.from_traceparent(value)
    assert arrived.root_uuid == str(trace)
    assert arrived.parent_uuid.replace("-", "")[16:] == f"{span:016x}"
    assert arrived.to_traceparent() == value[:-2] + "01"


TRACE, SPAN = ROOT.replace("-", ""), "9fbd78c5867010d0"


def test_a_later_version_is_read_by_its_first_four_fields():
    for tail in ("", "-", "-more-fields"):
        assert PropagationContext.from_traceparent(f"01-{TRACE}-{SPAN}-00{tail}").root_uuid == ROOT


@pytest.mark.parametrize(
    "value",
    [
        "",
        "00",
        f"ff-{TRACE}-{SPAN}-01",
        f"ff-{TRACE}-{SPAN}-01-x",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN.upper()}-01",
        f"0G-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-0A",
        f"00-{TRACE}-{SPAN}-01-",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE[1:]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}0-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f" 00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n",
        f"01-{TRACE}-{SPAN}-01" + "-x" * 400,
        f"00-{TRACE[:-1]}\u0661-{SPAN}-01",
    ],
)
def test_a_malformed_traceparent_is_refused(value):
    with pytest.raises(PropagationError, match="traceparent"):
        PropagationContext.from_traceparent(value)


@given(
    st.text(max_size=80)
    | st.builds("{}-{}-{}-{}{}".format, hexadecimal, hexadecimal, hexadecimal, hexadecimal, st.text(max_size=5))
    | st.from_regex(r"[0-9a-fA-F]{2}-[0-9a-fA-F]{32}-[0-9a-fA-F]{16}-[0-9a-fA-F]{2}(-.*)?\n?", fullmatch=True)
)
@example(f"00-{TRACE}-{SPAN}-01")
def test_any_text_gives_a_context_or_one_error(value):
    grammar = re.fullmatch(
        r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-[^\n]*)?", value
    )
    valid = bool(grammar) and not (value.startswith("00") and len(value) != 55)
    if valid:
        assert PropagationContext.from_traceparent(value).root_uuid is not None
    else:
        with pytest.raises(PropagationError):
            PropagationContext.from_traceparent(value)


# ---------------------------------------------------------------------------------------- capturing


def test_what_is_captured_is_the_current_scope():
    root = current_scope()
    assert capture_propagation_context() == PropagationContext(root.uuid)
    outer, inner = push("outer"), push("inner")
    assert capture_propagation_context() == PropagationContext(inner.uuid)
    assert capture_propagation_context_with_root(outer.uuid) == PropagationContext(inner.uuid, outer.uuid)
    assert capture_propagation_context_with_root(None) == PropagationContext(inner.uuid)
    assert capture_traceparent() == PropagationContext(inner.uuid, outer.uuid).to_traceparent()


@pytest.mark.parametrize(("root", "error"), [("zz", PropagationError), (NIL, PropagationError), (3, TypeError)])
def test_a_root_that_is_none_is_refused(root, error):
    with pytest.raises(error):
        capture_propagation_context_with_root(root)


def test_a_root_has_no_traceparent():
    with pytest.raises(ScopeError, match="push one first"):
        capture_traceparent()


@pytest.mark.parametrize("traced", [False, True])
def test_a_context_that_is_the_root(traced):
    stack = create_scope_stack_from_propagation(PropagationContext(PARENT, PARENT if traced else None))
    with use_scope_stack(stack):
        handle = current_scope()
        assert (handle.name, handle.scope_type, handle.uuid, handle.parent_uuid) == (
            "propagated-root",
            ScopeType.Agent,
            PARENT,
            None,
        )
        with pytest.raises(ScopeError):
            scope.pop(handle)
        if not traced:
            with pytest.raises(ScopeError):
                capture_traceparent()
        child = push("child")
        assert child.parent_uuid == PARENT
        assert (
            capture_traceparent() == PropagationContext(child.uuid, PARENT if traced else child.uuid).to_traceparent()
        )
        scope.pop(child)
        assert current_scope() is handle
    assert current_scope().name == "root"


def test_a_context_with_root_and_parent():
    with use_scope_stack(create_scope_stack_from_propagation(PropagationContext(PARENT, ROOT))):
        handle = current_scope()
        assert (handle.name, handle.scope_type, handle.uuid, handle.parent_uuid) == (
            "propagated-parent",
            ScopeType.Unknown,
            PARENT,
            ROOT,
        )
        with pytest.raises(ScopeError, match="another process"):
            scope.pop(handle)
        child = push("child")
        assert child.parent_uuid == PARENT
        assert capture_propagation_context() == PropagationContext(child.uuid)
        assert capture_traceparent() == PropagationContext(child.uuid, ROOT).to_traceparent()
        scope.pop(child)


def test_requests_that_come_in_together_do_not_mix():
    async def serve(parent):
        stack = create_scope_stack_from_propagation(PropagationContext(parent, ROOT))
        with use_scope_stack(stack), scope.scope("handle request", ScopeType.Agent) as handle:
            await asyncio.sleep(0)
            assert current_scope() is handle
            return handle.parent_uuid

    async def main():
        parents = [str(uuid.uuid4()) for _ in range(10)]
        assert await asyncio.gather(*map(serve, parents)) == parents

    asyncio.run(main())


@pytest.mark.parametrize("value", [None, "x", {}, get_scope_stack])
def test_what_is_no_context_makes_no_stack_and_changes_nothing(value):
    def attempt():
        with pytest.raises(TypeError, match="expected PropagationContext"):
            create_scope_stack_from_propagation(value)
        return context._current.get()

    assert contextvars.Context().run(attempt) is None
