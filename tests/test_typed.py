"""typed: values of the caller's types at the boundaries, JSON in the events, whatever goes wrong between."""

import asyncio
import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_mp import llm, subscribers, tools, typed
from relay_mp._emit.calls import LLMRequest, ToolExecutionResult
from relay_mp.annotated import MAX_DEPTH
from relay_mp.codecs import OpenAIChatCodec
from relay_mp.errors import CallbackError, PayloadError
from relay_mp.typed import BestEffortAnyCodec, DataclassCodec, JsonPassthrough, PydanticCodec


@dataclasses.dataclass
class Question:
    text: str
    limit: int = 3


@dataclasses.dataclass
class Answer:
    text: str


@dataclasses.dataclass
class Nested:
    question: Question
    answers: list
    by_name: dict


QUESTIONS = DataclassCodec(Question)
ANSWERS = DataclassCodec(Answer)
WHY = Question("why?")
REQUEST = LLMRequest({}, {"model": "m", "messages": [{"role": "user", "content": "hi"}]})


def events_of(seen):
    subscribers.flush()
    return [(event.kind, getattr(event, "scope_category", None), event.data) for event in seen if event.kind == "scope"]


def run_tool(func, args=WHY, args_codec=QUESTIONS, result_codec=ANSWERS):
    return asyncio.run(typed.tool_execute("answer", args, func, args_codec, result_codec))


def test_a_tool_gets_and_gives_its_own_types(seen):
    def answer(question):
        assert question == Question("why?")
        return ToolExecutionResult(Answer(question.text.upper()), {"seconds": 1})

    result = run_tool(answer)
    assert (result.result, result.annotation) == (Answer("WHY?"), {"seconds": 1})
    assert events_of(seen) == [
        ("scope", "start", {"text": "why?", "limit": 3}),
        ("scope", "end", {"text": "WHY?"}),
    ]


def test_a_tool_may_be_asynchronous(seen):
    async def answer(question):
        await asyncio.sleep(0)
        return ToolExecutionResult(Answer(question.text))

    assert run_tool(answer).result == Answer("why?")


class Failing(JsonPassthrough):
    """Raises on the way that is named."""

    def __init__(self, way):
        self.way = way

    def to_json(self, value):
        if self.way == "out":
            raise LookupError("out")
        return dataclasses.asdict(value)

    def from_json(self, data):
        if self.way == "in":
            raise LookupError("in")
        return data


def give(question):
    return ToolExecutionResult(Answer("yes"))


@pytest.mark.parametrize(
    ("func", "codecs", "error", "events"),
    [
        (lambda question: Answer("no"), {}, CallbackError, 2),
        (lambda question: ToolExecutionResult(5), {}, TypeError, 2),
        (lambda question: 1 / 0, {}, ZeroDivisionError, 2),
        (give, {"args_codec": Failing("in")}, LookupError, 2),
        (give, {"result_codec": Failing("out")}, LookupError, 2),
        (give, {"args_codec": Failing("out")}, LookupError, 0),
        (give, {"result_codec": Failing("in")}, LookupError, 2),
        (give, {"args": 5}, TypeError, 0),
    ],
)
def test_what_fails_inside_fails_the_call_and_outside_comes_as_it_is(seen, func, codecs, error, events):
    with pytest.raises(error):
        run_tool(func, **codecs)
    assert len(events_of(seen)) == events
    assert run_tool(give).result == Answer("yes")


def test_a_response_has_the_callers_type(seen):
    async def call(response):
        return await typed.llm_execute("provider", REQUEST, lambda request: response, DataclassCodec(Answer))

    assert asyncio.run(call(Answer("hello"))) == Answer("hello")
    assert events_of(seen)[1] == ("scope", "end", {"text": "hello"})
    with pytest.raises(TypeError):
        asyncio.run(call(5))


async def chunks(request):
    yield Answer("hel")
    yield Answer("lo")


async def read(collector, finalizer, codec=ANSWERS):
    stream = await typed.llm_stream_execute(
        "provider", REQUEST, chunks, collector, finalizer, codec, DataclassCodec(Answer), codec=OpenAIChatCodec()
    )
    return [chunk async for chunk in stream]


def test_a_stream_collects_types_and_yields_json(seen):
    collected = []
    finalizer = lambda: Answer("".join(chunk.text for chunk in collected))  # noqa: E731
    assert asyncio.run(read(collected.append, finalizer)) == [{"text": "hel"}, {"text": "lo"}]
    assert collected == [Answer("hel"), Answer("lo")]
    assert events_of(seen)[1] == ("scope", "end", {"text": "hello"})
    start = next(event for event in seen if event.kind == "scope")
    assert start.annotated_request.last_user_message() == "hi"
    assert start.annotated_response is None


class Chunks(DataclassCodec):
    """Reads what is no Answer."""

    def __init__(self):
        super().__init__(Answer)

    def from_json(self, data):
        return super().from_json({"no text": 1})


def test_a_collector_that_fails_fails_the_stream(seen):
    def refuse(chunk):
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        asyncio.run(read(refuse, lambda: Answer("")))
    assert len(events_of(seen)) == 2


def test_chunks_of_another_type_fail_the_stream(seen):
    with pytest.raises(TypeError, match="text"):
        asyncio.run(read(print, lambda: Answer(""), Chunks()))
    assert len(events_of(seen)) == 2


# ------------------------------------------------------------------------------------------------- codecs


@pytest.mark.parametrize("codec", [DataclassCodec, PydanticCodec])
@pytest.mark.parametrize("cls", [int, None, "Question", Question("x")])
def test_a_codec_refuses_what_is_no_class_of_its_kind(codec, cls):
    with pytest.raises(TypeError, match="expected a"):
        codec(cls)


@pytest.mark.parametrize("data", [None, 1, [], "text", {}, {"text": "x", "other": 1}])
def test_data_of_another_form_is_no_dataclass(data):
    with pytest.raises(TypeError):
        DataclassCodec(Question).from_json(data)


def test_a_pydantic_model_is_validated():
    pydantic = pytest.importorskip("pydantic")

    class Model(pydantic.BaseModel):
        text: str
        limit: int = 3

    codec = PydanticCodec(Model)
    assert codec.to_json(Model(text="x")) == {"text": "x", "limit": 3}
    assert codec.from_json({"text": "x", "limit": "4"}) == Model(text="x", limit=4)
    with pytest.raises(pydantic.ValidationError):
        codec.from_json({"limit": 4})
    best = BestEffortAnyCodec()
    assert best.from_json(json.loads(json.dumps(best.to_json([Model(text="x")])))) == [Model(text="x")]


def test_typed_does_not_import_pydantic(run_script):
    run_script("import sys, relay_mp.typed; assert 'pydantic' not in sys.modules")


best_effort = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
    | st.complex_numbers(allow_nan=False) | st.sets(st.integers()) | st.frozensets(st.text())
    | st.builds(Question, st.text(), st.integers()),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text().filter(lambda key: not key.startswith("__nv_") and key != "data"), inner, max_size=3)
    | st.builds(Nested, st.builds(Question, st.text()), st.lists(inner, max_size=2), st.just({})),
    max_leaves=8,
)  # fmt: skip


@given(best_effort)
def test_best_effort_gives_back_what_it_knows(value):
    codec = BestEffortAnyCodec()
    assert codec.from_json(json.loads(json.dumps(codec.to_json(value)))) == value


def test_best_effort_knows_a_class_made_in_a_function_while_it_lives():
    @dataclasses.dataclass
    class Local:
        text: str

    codec = BestEffortAnyCodec()
    data = codec.to_json(Local("x"))
    assert codec.from_json(data) == Local("x")


@pytest.mark.parametrize(
    "data",
    [
        {"__nv_dataclass__": "no.such.Class", "data": {"x": 1}},
        {"__nv_dataclass__": "os.system", "data": {"x": 1}},
        {"__nv_dataclass__": "collections.Counter", "data": {"x": 1}},
        {"__nv_dataclass__": "test_typed.Question", "data": {"other": 1}},
        {"__nv_dataclass__": 1, "data": {}},
        {"__nv_pydantic__": "test_typed.Question", "data": {"text": "x"}},
        {"__nv_pickle__": "builtins.set", "data": "gASVCQAAAAAAAACPlChLAUsCkC4="},
        {"__nv_builtin__": "eval", "data": "1"},
        {"__nv_fallback_str__": "x", "data": 1},
        {"__nv_dataclass__": "test_typed.Question"},
        {"data": 1},
    ],
)
def test_a_tag_that_leads_nowhere_leaves_the_data(data):
    assert BestEffortAnyCodec().from_json(data) == data


def test_best_effort_imports_nothing(run_script):
    run_script(
        "import sys\n"
        "from relay_mp.typed import BestEffortAnyCodec\n"
        "BestEffortAnyCodec().from_json({'__nv_dataclass__': 'this.Zen', 'data': {}})\n"
        "assert 'this' not in sys.modules"
    )


def test_best_effort_has_a_text_for_everything_else():
    codec = BestEffortAnyCodec()
    assert codec.from_json(codec.to_json({"code": print, 1: (1, 2)})) == {"code": str(print), "1": [1, 2]}


def test_best_effort_refuses_a_cycle():
    cyclic = []
    cyclic.append(cyclic)
    with pytest.raises(PayloadError, match=f"nests deeper than {MAX_DEPTH}"):
        BestEffortAnyCodec().to_json(cyclic)


def test_signatures_are_those_of_the_calls_they_wrap():
    names = {"handle", "attributes", "data", "metadata"}
    for wrapped, call in (
        (typed.tool_execute, tools.execute),
        (typed.llm_execute, llm.execute),
        (typed.llm_stream_execute, llm.stream_execute),
    ):
        assert names < wrapped.__kwdefaults__.keys() == call.__kwdefaults__.keys()
