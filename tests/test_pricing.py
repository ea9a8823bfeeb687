"""What calls cost: tables of one's own, the package's prices, and how processes come to know of them."""

import asyncio
import json
import os
import subprocess
import sys

import pytest

import relay_mp
from relay_mp import LLMRequest, codecs, llm, pricing, subscribers
from relay_mp.errors import ConfigurationError

RATES = {"input_per_million": 2.0, "output_per_million": 8.0}
CHAT = {"model": "m-1", "messages": [{"role": "user", "content": "hi"}]}
USAGE = {"prompt_tokens": 1000, "completion_tokens": 500}


def entry(model="m-1", provider="openai", **more):
    return {"provider": provider, "model_id": model, "rates": RATES, **more}


def table(*entries):
    return {"version": 1, "entries": list(entries or (entry(),))}


def response(usage=None, model="m-1"):
    message = {"role": "assistant", "content": "hello"}
    usage = {**USAGE, "total_tokens": 1500} if usage is None else usage
    return {"object": "chat.completion", "model": model, "choices": [{"index": 0, "message": message}], "usage": usage}


@pytest.fixture(autouse=True)
def off():
    pricing.configure()
    yield
    pricing.configure()


# ---------------------------------------------------------------------------------------------- tables


def test_there_is_no_cost_unless_it_is_asked_for():
    assert not pricing.is_on()
    assert codecs.OpenAIChatCodec().decode_response(response()).usage == {**USAGE, "total_tokens": 1500}


def test_a_table_prices_each_kind_of_token():
    cached = {"cache_read_per_million": 1.0, "cache_write_per_million": 4.0}
    pricing.configure(table(entry(rates={**RATES, **cached}, pricing_as_of="2026-01-01", pricing_source="contract")))
    usage = {**USAGE, "cache_read_tokens": 400, "cache_write_tokens": 100}
    assert pricing.cost_of("M-1", usage) == {
        "total": 0.0058,
        "input": 0.001,
        "output": 0.004,
        "cache_read": 0.0004,
        "cache_write": 0.0004,
        "currency": "USD",
        "pricing_provider": "openai",
        "pricing_model": "m-1",
        "pricing_as_of": "2026-01-01",
        "pricing_source": "contract",
        "source": "model_pricing",
    }


def test_cached_tokens_without_a_price_of_their_own_cost_what_the_others_do():
    pricing.configure(table())
    cost = pricing.cost_of("m-1", {**USAGE, "cache_read_tokens": 400})
    assert (cost["total"], cost["cache_read"]) == (0.006, 0.0008)


def test_an_alias_may_have_a_star_and_the_calls_provider_goes_first():
    other = entry("m", "azure.ai.openai", aliases=["m-*"], rates={"input_per_million": 0, "output_per_million": 0})
    pricing.configure(table(other, entry()))
    assert pricing.cost_of("m-1", USAGE, provider="openai")["total"] == 0.006
    assert pricing.cost_of("m-1", USAGE, provider="azure.ai.openai")["total"] == 0
    assert pricing.cost_of("m-2", USAGE, provider="openai")["pricing_model"] == "m"
    assert pricing.cost_of("n", USAGE) is None


def test_a_price_may_depend_on_the_length_of_the_prompt():
    dear = {"input_per_million": 4.0, "output_per_million": 16.0}
    tiers = [{"max_prompt_tokens": 1000, "rates": RATES}, {"min_prompt_tokens": 1001, "rates": dear}]
    pricing.configure(table({**entry(), "rate_schedule": {"type": "prompt_token_threshold", "tiers": tiers}}))
    assert pricing.cost_of("m-1", {"prompt_tokens": 1000, "completion_tokens": 0})["total"] == 0.002
    assert pricing.cost_of("m-1", {"prompt_tokens": 1001, "completion_tokens": 0})["total"] == 0.004004


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([], r"a source of prices is \[\]; expected a path, a table or 'genai-prices'"),
        ({"entries": {}}, r"entries is \{\}; expected a list of objects"),
        ({"entries": [7]}, r"entries\[0\]: the entry is 7; expected an object"),
        ({"entries": [{"provider": "p"}]}, "model_id is None; expected a text"),
        (table(entry(unit="gpu_hour")), "unit is 'gpu_hour'; expected 'per_token'"),
        (table(entry(aliases="m-*")), "aliases is 'm-\\*'; expected a list of texts"),
        (table(entry(rates=None)), "rates is None; expected an object with input_per_million, output_per_million"),
        (table(entry(rates={"input_per_million": 1})), "output_per_million is None; expected a number"),
        (table(entry(rates={**RATES, "cache_read_per_million": -1})), "cache_read_per_million is -1"),
        (table({**entry(), "rate_schedule": {"tiers": []}}), r"rate_schedule.tiers is \[\]"),
    ],
)
def test_a_table_of_another_form_is_refused_by_place(wrong, message):
    with pytest.raises(ConfigurationError, match=message):
        pricing.configure(wrong)
    assert not pricing.is_on()


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match="no-such-file"):
        pricing.configure(tmp_path / "no-such-file.json")
    (tmp_path / "prices.json").write_text("{")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        pricing.configure(tmp_path / "prices.json")


def test_a_table_that_is_too_long_for_the_environment_is_refused():
    entries = [entry(f"model-{number}") for number in range(1000)]
    with pytest.raises(ConfigurationError, match="put them into files"):
        pricing.configure(table(*entries))


# ------------------------------------------------------------------------------------ what has a price


def test_what_the_provider_reports_goes_before_what_is_estimated():
    pricing.configure(table())
    usage = codecs.OpenAIChatCodec().decode_response(response({**USAGE, "cost": 0.5})).usage
    assert usage["cost"] == {"total": 0.5, "currency": "USD", "source": "provider_reported"}


@pytest.mark.parametrize("usage", [{"prompt_tokens": 3}, {"completion_tokens": 3}, {}, {"prompt_tokens": "?"}])
def test_counts_that_are_missing_are_not_guessed(usage):
    pricing.configure(table())
    assert "cost" not in codecs.OpenAIChatCodec().decode_response(response(usage)).usage


def test_a_stream_that_was_broken_off_has_no_price():
    pricing.configure(table(entry("*")))
    begun = {"type": "message_start", "message": {"model": "c", "usage": {"input_tokens": 9, "output_tokens": 1}}}
    view = codecs.AnthropicMessagesCodec().decode_response([begun])
    assert (view.incomplete, view.usage) == (True, {"prompt_tokens": 9, "completion_tokens": 1})


def test_a_table_of_ones_own_goes_before_the_packages_prices():
    pricing.configure(table(entry("gpt-4o")), pricing.GENAI_PRICES)
    assert pricing.cost_of("gpt-4o", USAGE)["pricing_provider"] == "openai"
    assert pricing.cost_of("gpt-4o", USAGE)["total"] == 0.006
    assert pricing.cost_of("gpt-4o-mini", USAGE, provider="openai")["pricing_source"].startswith("genai-prices ")


@pytest.mark.parametrize(
    ("provider", "model", "name"),
    [
        ("openai", "gpt-4o-2024-08-06", "openai"),
        ("anthropic", "claude-sonnet-4-5", "anthropic"),
        ("gcp.gemini", "gemini-2.5-flash", "google"),
        ("mistral_ai", "mistral-large-latest", "mistral"),
        (None, "gpt-4o", "openai"),
    ],
)
def test_the_packages_prices_are_the_packages(provider, model, name):
    import genai_prices

    pricing.configure(pricing.GENAI_PRICES)
    usage = {**USAGE, "cache_read_tokens": 200}
    cost = pricing.cost_of(model, usage, provider=provider)
    tokens = genai_prices.Usage(input_tokens=1000, output_tokens=500, cache_read_tokens=200)
    expected = genai_prices.calc_price(tokens, model, provider_id=name)
    assert cost["total"] == float(expected.total_price) > 0
    assert cost["input"] == float(expected.input_price)
    assert cost["pricing_provider"] == name


@pytest.mark.parametrize(("provider", "model"), [("ollama", "gpt-4o"), ("openai", "no-such-model"), (None, "?")])
def test_a_model_without_a_price_has_no_cost(provider, model):
    pricing.configure(pricing.GENAI_PRICES)
    assert pricing.cost_of(model, USAGE, provider=provider) is None


# --------------------------------------------------------------------------------------- in the stream


def test_the_annotation_in_the_event_has_the_cost(seen):
    pricing.configure(table())
    codec = codecs.OpenAIChatCodec()
    asyncio.run(llm.execute("openai", LLMRequest({}, CHAT), lambda _: response(), response_codec=codec))
    subscribers.flush()
    assert seen[-1].category_profile["annotated_response"]["usage"]["cost"]["total"] == 0.006
    assert seen[-1].annotated_response.usage["cost"]["source"] == "model_pricing"


def test_without_a_codec_the_cost_is_worked_out_where_it_is_read(seen):
    pricing.configure(table())
    handle = llm.call("openai", LLMRequest({}, CHAT))
    llm.call_end(handle, {key: item for key, item in response().items() if key != "model"})
    subscribers.flush()
    start, end = seen
    assert codecs.call_of(start, end).response.usage["cost"]["total"] == 0.006  # by the request's model
    assert end.category_profile.get("annotated_response") is None


READS = """
from relay_mp import pricing
print(pricing.cost_of("m-1", {"prompt_tokens": 1000, "completion_tokens": 500}))
"""


def run(variable):
    environment = {**os.environ, pricing.VARIABLE: variable}
    command = [sys.executable, "-c", READS]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)


def test_processes_that_are_started_later_know_the_sources(tmp_path):
    path = tmp_path / "prices.json"
    path.write_text(json.dumps(table()))
    pricing.configure({"entries": []}, path)
    printed = run(os.environ[pricing.VARIABLE])
    assert "'total': 0.006" in printed.stdout
    assert "'total': 0.006" in run(f"{path}{os.pathsep}{pricing.GENAI_PRICES}").stdout
    pricing.configure()
    assert pricing.VARIABLE not in os.environ


def test_a_wrong_source_in_the_environment_costs_a_warning():
    printed = run("no-such-file.json")
    assert printed.stdout == "None\n"
    assert "RELAY_MP_PRICES" in printed.stderr
    assert "no-such-file.json" in printed.stderr


def test_a_dispatcher_process_writes_costs(tmp_path):
    pricing.configure(table())
    with relay_mp.session(dispatcher="process"):
        relay_mp.AtifFileExporter(str(tmp_path)).register("atif")
        with relay_mp.scope.scope("agent", relay_mp.ScopeType.Agent):
            llm.call_end(llm.call("openai", LLMRequest({}, CHAT)), response())
        subscribers.flush()
    (path,) = tmp_path.glob("*.json")
    assert json.loads(path.read_text())["final_metrics"]["total_cost_usd"] == 0.006


def test_importing_pricing_does_not_import_the_package():
    code = "import sys, relay_mp.pricing, relay_mp.codecs; print('genai_prices' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
