"""Payloads as the providers send them: the view, the usage, the provider, the cost, ATIF, OpenInference, gen_ai."""

import json

import pytest
from nat.atif import Trajectory
from wire_payloads import CASES, Case

from relay_mp import codecs, pricing
from relay_mp._emit.calls import LLMRequest
from relay_mp.codecs import merge
from relay_mp.errors import CodecError
from relay_mp.events import KIND_END, KIND_START, decode, pack_record
from relay_mp.observability.atif.model import AgentInfo, trajectory_of
from relay_mp.observability.otel.full import FullProjection
from relay_mp.observability.otel.gen_ai import GenAiProjection
from relay_mp.observability.otel.openinference import OpenInferenceProjection

PRICES = {
    "version": 1,
    "entries": [
        {
            "provider": "any",
            "model_id": "*",
            "rates": {
                "input_per_million": 1.0,
                "output_per_million": 4.0,
                "cache_read_per_million": 0.25,
                "cache_write_per_million": 1.25,
            },
        }
    ],
}
GEN_AI_REASONS = {"complete": "stop", "tool_use": "tool_call"}
OPENINFERENCE_REASONS = {"complete": "stop", "tool_use": "tool_calls"}


@pytest.fixture(autouse=True)
def prices():
    pricing.configure(PRICES)
    yield
    pricing.configure()


def records(case: Case):
    call = (b"1" * 16, None)
    start = pack_record(KIND_START, *call, 1, case.call, "llm", data={"content": case.request, "headers": case.headers})
    return [start, pack_record(KIND_END, *call, 2, case.call, "llm", data=case.response)]


def events(case: Case):
    start, end = records(case)
    return decode(start, 1, 1), decode(end, 2, 1)


class Attributes(dict):
    """A span that keeps its attributes."""

    def add(self, _names, _event):
        """What `full` writes natively is not looked at here."""

    def kept(self):
        return {name: value for name, value in self.items() if value is not None}


def written(projection, case: Case):
    span = Attributes()
    projection.write(span, *events(case))
    return span.kept()


def estimated(case: Case):
    """What the call costs, by PRICES, in parts; None if that cannot be known."""
    usage = case.usage or {}
    if case.cost is not None or case.incomplete or not {"prompt_tokens", "completion_tokens"} <= usage.keys():
        return None
    read, write = usage.get("cache_read_tokens", 0), usage.get("cache_write_tokens", 0)
    prompt = (usage["prompt_tokens"] - read - write) + read * 0.25 + write * 1.25
    return prompt / 1e6, usage["completion_tokens"] * 4 / 1e6


def total_cost(case: Case):
    parts = estimated(case)
    return case.cost if parts is None else pytest.approx(sum(parts))


def pytest_generate_tests(metafunc):
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", CASES, ids=[case.name for case in CASES])


def test_the_table_is_long_and_has_every_provider():
    assert len(CASES) >= 60
    assert len({case.name for case in CASES}) == len(CASES)
    assert {case.provider for case in CASES} >= {
        "openai", "anthropic", "gcp.gemini", "oci.genai", "mistral_ai", "vllm", "ollama", "openrouter",
    }  # fmt: skip


def test_view(case: Case):
    call = codecs.call_of(*events(case))
    view = call.response
    assert call.api == case.api
    assert view.message == case.message
    assert [(each["id"], each["name"], each["arguments"]) for each in view.tool_calls or ()] == case.calls
    assert (view.finish_reason, view.reasoning_content, view.refusal) == (case.reason, case.thoughts, case.refusal)
    assert [other.get("message") for other in view.alternatives or ()] == case.others
    assert view.model == case.model
    assert view.incomplete is (True if case.incomplete else None)
    assert codecs.AnnotatedLLMResponse.from_dict(json.loads(json.dumps(view.to_dict()))) == view


def test_request(case: Case):
    view = codecs.call_of(*events(case)).request
    assert view.model == case.request.get("model", "m" if "chatRequest" in case.request else None)
    assert view.messages
    if case.said is not None and not case.said.startswith("["):
        assert view.last_user_message() == case.said


def test_usage_and_cost(case: Case):
    usage = codecs.call_of(*events(case)).response.usage
    cost = (usage or {}).pop("cost", None)
    assert usage == (case.usage or usage)
    assert case.usage or usage in (None, {})
    if total_cost(case) is None:
        assert cost is None
    else:
        assert cost["total"] == total_cost(case)
        assert cost["source"] == ("provider_reported" if case.cost is not None else "model_pricing")


def test_provider(case: Case):
    assert codecs.call_of(*events(case)).provider == case.provider
    found = written(OpenInferenceProjection(), case)
    assert found["llm.system"] == case.system
    assert found["llm.provider"] == (case.host or case.provider)
    assert written(GenAiProjection(), case)["gen_ai.provider.name"] == case.provider


def test_gen_ai(case: Case):
    found = written(GenAiProjection(), case)
    usage = case.usage or {}
    assert found.get("gen_ai.usage.input_tokens") == usage.get("prompt_tokens")
    assert found.get("gen_ai.usage.output_tokens") == usage.get("completion_tokens")
    assert found.get("gen_ai.usage.cache_read.input_tokens") == usage.get("cache_read_tokens")
    assert found.get("gen_ai.usage.cache_creation.input_tokens") == usage.get("cache_write_tokens")
    assert found.get("gen_ai.usage.reasoning.output_tokens") == usage.get("reasoning_tokens")
    assert found.get("gen_ai.usage.cost") == total_cost(case)
    answer, *others = json.loads(found["gen_ai.output.messages"])
    reason = GEN_AI_REASONS.get(case.reason, case.reason)
    assert answer["finish_reason"] == (reason or "unknown")
    assert found.get("gen_ai.response.finish_reasons", [None])[0] == reason
    parts = answer["parts"]
    texts = [part["content"] for part in parts if part["type"] == "text"]
    assert texts == ([case.message] if isinstance(case.message, str) else ["4"] if case.message else [])
    assert [part["content"] for part in parts if part["type"] == "reasoning"] == [case.thoughts] * bool(case.thoughts)
    assert [part["content"] for part in parts if part["type"] == "refusal"] == [case.refusal] * bool(case.refusal)
    calls = [(part["id"], part["name"], part["arguments"]) for part in parts if part["type"] == "tool_call"]
    assert calls == case.calls
    assert [other["parts"][0]["content"] for other in others] == case.others
    assert json.loads(found["gen_ai.input.messages"])


def test_openinference(case: Case):
    found = written(OpenInferenceProjection(), case)
    usage = case.usage or {}
    names = {
        "prompt": "prompt_tokens",
        "completion": "completion_tokens",
        "prompt_details.cache_read": "cache_read_tokens",
        "prompt_details.cache_write": "cache_write_tokens",
        "completion_details.reasoning": "reasoning_tokens",
    }
    for name, count in names.items():
        assert found.get(f"llm.token_count.{name}") == usage.get(count)
    if "total_tokens" in usage:
        assert found["llm.token_count.total"] == usage["total_tokens"]
    assert found.get("llm.cost.total") == total_cost(case)
    if estimated(case) is not None:
        prompt, completion = estimated(case)
        assert found["llm.cost.prompt"] == pytest.approx(prompt)
        assert found["llm.cost.completion"] == pytest.approx(completion)
    assert found.get("llm.finish_reason") == OPENINFERENCE_REASONS.get(case.reason, case.reason)
    answer = "llm.output_messages.0.message."
    if isinstance(case.message, str) or case.message is None:
        said = case.refusal if case.message is None else case.message
        assert found.get(f"{answer}content") == said
    if case.thoughts:
        assert found[f"{answer}contents.0.message_content.type"] == "reasoning"
        assert found[f"{answer}contents.0.message_content.text"] == case.thoughts
    for number, (id_, name, arguments) in enumerate(case.calls):
        call = f"{answer}tool_calls.{number}.tool_call."
        assert (found[f"{call}id"], found[f"{call}function.name"]) == (id_, name)
        text = found[f"{call}function.arguments"]
        assert (text if isinstance(arguments, str) else json.loads(text)) == arguments
    for number, other in enumerate(case.others, 1):
        assert found[f"llm.output_messages.{number}.message.content"] == other
    assert any(name.startswith("llm.input_messages.0.message.") for name in found)


def test_full_has_the_cost(case: Case):
    assert written(FullProjection(), case).get("relay_mp.llm.cost.total") == total_cost(case)


def test_atif(case: Case):
    trajectory = trajectory_of(records(case), AgentInfo("n", "1"), "s")
    Trajectory.model_validate(trajectory)
    *asked, answered = trajectory["steps"]
    assert [step["message"] for step in asked] == ([] if case.said is None else [case.said])
    if not isinstance(case.message, list):
        assert answered["message"] == (case.message or case.refusal or "")
    assert answered.get("reasoning_content") == case.thoughts
    calls = [
        (call["tool_call_id"], call["function_name"], call["arguments"]) for call in answered.get("tool_calls", ())
    ]
    expected = [(id_, name, args if isinstance(args, dict) else {"raw": args}) for id_, name, args in case.calls]
    assert calls == expected
    metrics, usage = answered.get("metrics", {}), case.usage or {}
    assert metrics.get("prompt_tokens") == usage.get("prompt_tokens")
    assert metrics.get("completion_tokens") == usage.get("completion_tokens")
    assert metrics.get("cached_tokens") == usage.get("cache_read_tokens")
    assert metrics.get("cost_usd") == total_cost(case)
    assert answered["extra"].get("incomplete") is (True if case.incomplete else None)


def test_no_odd_value_loses_what_is_beside_it(case: Case):
    """Everything in the response is replaced by values of other types, one thing at a time."""
    for number, changed in enumerate(variations(case.response)):
        varied = Case(**{**vars(case), "response": changed})
        call = codecs.call_of(*events(varied))
        assert call.request is not None
        assert call.response is not None or codecs.detect_response(changed) is None
        if number % EXPORTED_EVERY == 0:
            trajectory_of(records(varied), AgentInfo("n", "1"), "s")
            assert written(OpenInferenceProjection(), varied)["llm.input_messages.0.message.role"]
            assert written(GenAiProjection(), varied)["gen_ai.input.messages"]


def test_no_odd_value_in_a_request_loses_the_view_or_changes_the_request(case: Case):
    for changed in variations(case.request):
        varied = Case(**{**vars(case), "request": changed})
        codec = codecs.detect_request(changed)
        if codec is None:
            continue
        request = LLMRequest({}, changed)
        call = codecs.call_of(*events(varied))
        assert call.response is not None
        try:
            view = codec.decode(request)
        except CodecError:  # it has no list of messages
            assert not isinstance(codec.body(changed).get(codec.MESSAGES), list)
            continue
        assert merge.same(codec.encode(view, request).content, request.content)


@pytest.mark.parametrize("odd", [7, "?", [], {"?": None}, True])
@pytest.mark.parametrize("key", ["id", "model", "object", "created", "system_fingerprint", "service_tier"])
def test_an_odd_key_leaves_the_rest_of_a_response(key, odd):
    (plain,) = (case for case in CASES if case.name == "chat: cached and reasoning tokens")
    varied = Case(**{**vars(plain), "response": {**plain.response, key: odd}})
    view, expected = (codecs.call_of(*events(one)).response for one in (varied, plain))
    for field in ("message", "usage", "finish_reason"):
        assert getattr(view, field) == getattr(expected, field)


ODD = (None, True, 7, -1.5, "?", [], {}, ["?"], {"?": None})
EXPORTED_EVERY = 5  # of the variations; all of them would take the exporters a minute


def variations(value, depth=0):
    """The value with one thing in it replaced."""
    if depth:
        yield from ODD
    if isinstance(value, dict):
        for key, item in value.items():
            yield from ({**value, key: changed} for changed in variations(item, depth + 1))
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from ([*value[:place], changed, *value[place + 1 :]] for changed in variations(item, depth + 1))
