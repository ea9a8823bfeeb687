"""What a trajectory is made of, where the golden files do not say; and what its making leaves alone."""

import gc

import pytest
from nat.atif import Trajectory

from relay_mp.errors import RecordError
from relay_mp.events import KIND_END, KIND_MARK, KIND_START, pack_record
from relay_mp.observability.atif.model import AgentInfo, CollectionPause, trajectory_of

INFO = AgentInfo("n", "1")


def uuid(number):
    return bytes.fromhex(f"0190000000007000800000000000{number:04x}")


def record(kind, number, category, parent=None, data=None, metadata=None, profile=None, us=1_000_000, name=None):
    name = f"{category} {number}" if name is None else name
    envelope = (kind, uuid(number), None if parent is None else uuid(parent), us, name, category)
    return pack_record(*envelope, data=data, metadata=metadata, category_profile=profile)


def call(number, request, response, parent=None):
    """An LLM call."""
    return [
        record(KIND_START, number, "llm", parent, request),
        record(KIND_END, number, "llm", parent, response),
    ]


def steps_of(*records):
    trajectory = trajectory_of(list(records), INFO, "s")
    Trajectory.model_validate(trajectory)
    return trajectory["steps"]


# ---- payloads ----


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("text", "text"),
        (5, "5"),
        (True, "true"),
        ([], "[]"),
        ({"b": 1, "a": None}, '{"a":null,"b":1}'),
        ([{"type": "text", "text": "a", "more": 1}, {"type": "text", "text": "b"}], None),
        ([{"type": "image", "url": "u"}], '[{"type":"image","url":"u"}]'),
    ],
)
def test_what_was_said_is_text_or_parts_of_text(said, message):
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    asked, answered = steps_of(*call(1, {"messages": [{"role": "user", "content": said}]}, {"content": said}))
    assert asked["message"] == (message or parts)
    # Blocks of an answer are Anthropic's: their text is the message.
    blocks = {str: said, list: {None: "ab", "[]": "[]"}.get(message, "")}
    assert answered["message"] == blocks.get(type(said), message)


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ('{"q": 1}', {"q": 1}),
        (' {"q": [1, {}]}\n', {"q": [1, {}]}),
        ('{"q": 1} x', {"raw": '{"q": 1} x'}),
        ('{"q": ', {"raw": '{"q": '}),
        ("", {"raw": ""}),
        ("no JSON", {"raw": "no JSON"}),
        ("\ufeff{}", {"raw": "\ufeff{}"}),
        ("null", {}),
        ("[1]", {"raw": [1]}),
        ("[" * 100_000, {"raw": "[" * 100_000}),
        ({"q": 1}, {"q": 1}),
        (None, {}),
        (7, {"raw": 7}),
    ],
)
def test_arguments_of_a_tool_call_are_an_object(text, arguments):
    asked = {"id": "c", "function": {"name": "f", "arguments": text}}
    _, step = steps_of(*call(1, "go", {"content": "", "tool_calls": [asked]}))
    assert step["tool_calls"] == [{"tool_call_id": "c", "function_name": "f", "arguments": arguments}]


def test_what_was_run_is_beside_what_was_asked_for_where_they_differ():
    asked = [{"id": name, "function": {"name": "f", "arguments": '{"q": 1}'}} for name in ("same", "other")]
    tools = [
        record(KIND_START, 2, "tool", None, {"q": 1}, None, {"tool_call_id": "same"}),
        record(KIND_START, 3, "tool", None, {"q": 2}, None, {"tool_call_id": "other"}),
    ]
    step = steps_of(*call(1, "go", {"content": "", "tool_calls": asked}), *tools)[1]
    assert [made["arguments"] for made in step["tool_calls"]] == [{"q": 1}, {"q": 1}]
    assert ["executed_arguments" in made["extra"] for made in step["tool_calls"]] == [False, True]
    assert step["tool_calls"][1]["extra"]["executed_arguments"] == {"q": 2}


def test_a_call_of_no_known_api_is_what_its_annotations_say():
    request = {"annotated_request": {"messages": [{"role": "user", "content": "2+2?"}]}}
    used = {"prompt_tokens": 3, "completion_tokens": 2, "cache_read_tokens": 1, "cost": {"total": 0.5}}
    answer = {"message": "4", "model": "own", "tool_calls": [{"id": "c", "name": "f", "arguments": {}}], "usage": used}
    asked, answered = steps_of(
        record(KIND_START, 1, "llm", None, {"prompt": "2+2?"}, None, request),
        record(KIND_END, 1, "llm", None, {"text": "4"}, None, {"annotated_response": answer}),
    )
    assert (asked["message"], answered["message"], answered["model_name"]) == ("2+2?", "4", "own")
    assert answered["tool_calls"] == [{"tool_call_id": "c", "function_name": "f", "arguments": {}}]
    metrics = {"prompt_tokens": 3, "completion_tokens": 2, "cached_tokens": 1, "cost_usd": 0.5}
    assert answered["metrics"] == metrics


def test_calls_without_ids_are_joined_with_what_was_run_by_name_and_arguments():
    calls = [{"functionCall": {"name": "f", "args": {"q": q}}} for q in (1, 2, 1)]
    answer = {"candidates": [{"content": {"parts": calls}, "finishReason": "STOP"}]}
    tools = []
    for number, (q, profile) in enumerate([(2, None), (1, {"tool_call_id": "f"}), (1, None), (3, None)], 2):
        tools.append(record(KIND_START, number, "tool", None, {"q": q}, None, profile, name="f"))
        tools.append(record(KIND_END, number, "tool", None, f"found {q}"))
    asked, *apart = steps_of(*call(1, "go", answer), *tools)[1:]
    joined = {(result["source_call_id"], result["content"]) for result in asked["observation"]["results"]}
    assert joined == {("f", "found 1"), ("f#2", "found 2"), ("f#3", "found 1")}
    assert [step["observation"]["results"][0]["content"] for step in apart] == ["found 3"]


@pytest.mark.parametrize(
    ("usage", "metrics"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 2}, {"prompt_tokens": 3, "completion_tokens": 2}),
        ({"input_tokens": 3, "cache_read_input_tokens": 1}, {"prompt_tokens": 3, "cached_tokens": 1}),
        ({"prompt_tokens_details": {"cached_tokens": 1}, "cache_read_input_tokens": 2}, {"cached_tokens": 1}),
        ({"prompt_tokens_details": None, "cache_read_input_tokens": 2}, {"cached_tokens": 2}),
        ({"prompt_tokens": True, "input_tokens": 4, "cost": 2}, {"prompt_tokens": 4, "cost_usd": 2.0}),
        ({"cost_usd": "much", "cost": 2, "total_tokens": 9}, {"extra": {"total_tokens": 9}}),
        ({"other": "x"}, None),
        ("much", None),
    ],
)
def test_metrics_are_what_the_response_says_it_took(usage, metrics):
    for name in ("usage", "usageMetadata"):
        step = steps_of(*call(1, "go", {"content": "", name: usage}))[1]
        assert step.get("metrics") == metrics


def test_a_record_that_msgpack_writes_otherwise_is_the_same_event():
    records = [*call(1, {"messages": [{"role": "user", "content": "?"}]}, {"content": "!"})]
    records.append(record(KIND_MARK, 2, None, None, {"a": 1}))
    longer = [b"\xdc\x00\x0d" + one[1:] for one in records]
    assert trajectory_of(longer, INFO, "s") == trajectory_of(records, INFO, "s")


def test_agents_are_in_agents_to_any_depth():
    depth = 5_000
    records = [record(KIND_START, number, "agent", number - 1 if number else None) for number in range(depth)]
    records.append(record(KIND_MARK, depth, None, depth - 1))
    inner = trajectory_of(records, INFO, "s", "01900000-0000-7000-8000-000000000000")
    for _ in range(depth - 1):
        (inner,) = inner["subagent_trajectories"]
    assert inner["extra"]["ancestry"]["function_name"] == f"agent {depth - 1}"
    assert len(inner["extra"]["observed_events"]) == 1


# ---- what the making leaves alone ----


def agents():
    """Agents in agents, with calls, tools and marks in each."""
    records = []
    for number in range(1, 60, 10):
        records.append(record(KIND_START, number, "agent", number - 10 if number > 10 else None))
        records += call(number + 1, {"messages": [{"role": "user", "content": "?"}]}, {"content": "!"}, number)
        records.append(record(KIND_START, number + 2, "tool", number))
        records.append(record(KIND_END, number + 2, "tool", number, "found"))
        records.append(record(KIND_MARK, number + 3, None, number))
    return records + [record(KIND_END, number, "agent") for number in (1, 11)]


@pytest.fixture
def collecting():
    """Whether the process collects cyclic garbage, before and after."""
    yield gc.enable
    gc.enable()


@pytest.mark.parametrize("root", [None, "01900000-0000-7000-8000-000000000001"])
def test_a_trajectory_is_no_cyclic_garbage(root, collecting):
    records = agents()
    gc.collect()
    gc.disable()
    trajectory = trajectory_of(records, INFO, "s", root)
    assert trajectory["subagent_trajectories"]
    assert gc.collect() == 0  # of the making
    del trajectory
    assert gc.collect() == 0


def test_what_collects_garbage_is_left_as_it_was(collecting):
    trajectory_of(agents(), INFO, "s")
    assert gc.isenabled()
    with pytest.raises(RecordError):
        trajectory_of([*agents(), b"\x9d\x00broken"], INFO, "s")
    assert gc.isenabled()
    gc.disable()
    trajectory_of(agents(), INFO, "s")
    assert not gc.isenabled()


def test_of_two_that_pause_collection_the_last_ends_it(collecting):
    pause = CollectionPause()
    pause.__enter__()
    with pause:
        assert not gc.isenabled()
    assert not gc.isenabled()  # the other one is not there yet
    pause.__exit__()
    assert gc.isenabled()


FORKS_IN_A_PAUSE = """
import gc, os, sys, threading
from relay_mp.observability.atif.model import CollectionPause
pause, inside, over = CollectionPause(), threading.Event(), threading.Event()
def build():
    with pause:
        inside.set()
        over.wait()
threading.Thread(target=build).start()
inside.wait()
child = os.fork()
if child == 0:
    found = gc.isenabled()
    with pause:
        found = found and not gc.isenabled()
    os._exit(0 if found and gc.isenabled() else 1)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
over.set()
sys.exit(status)
"""


def test_a_child_forked_in_a_pause_collects(run_script):
    run_script(FORKS_IN_A_PAUSE)
