"""What LLM calls cost: prices of one's own first, then those of `genai-prices`. Off until it is asked for.

    from relay_mp import pricing

    pricing.configure("prices.json", "genai-prices")      # or RELAY_MP_PRICES=prices.json:genai-prices

From then on `usage.cost` is in the view of every response whose provider does not report a cost itself, and so in
what exporters write. Nothing is fetched: a table is a file or a mapping, and `genai-prices` (extra `pricing`) ships
its prices with the package. A model without a price has no cost: nothing is guessed.

A table is JSON, in the form of the peer's catalogs (`nemo_relay.model_pricing`):

    {"version": 1, "entries": [{
        "provider": "openai", "model_id": "gpt-x", "aliases": ["gpt-x-*"], "currency": "USD",
        "pricing_as_of": "2026-01-01", "pricing_source": "our contract",
        "rates": {"input_per_million": 2.0, "output_per_million": 8.0,
                  "cache_read_per_million": 1.0, "cache_write_per_million": 2.5}}]}

`rate_schedule` with `tiers` (`min_prompt_tokens`, `max_prompt_tokens`, `rates`) takes the place of `rates` where the
price depends on the length of the prompt. Costs are worked out where a response is read: at delivery, or by the
response codec of a call; never on the way of an event without one. Any thread and process; processes that are
started after `configure` inherit its sources through the environment.
"""

import fnmatch
import importlib
import json
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Protocol, TypeAlias

from relay_mp._log import logger
from relay_mp.annotated import AnnotatedLLMResponse
from relay_mp.errors import ConfigurationError
from relay_mp.types import JsonObject

__all__ = ["GENAI_PRICES", "VARIABLE", "PriceTable", "configure", "cost_of", "is_on", "priced"]


GENAI_PRICES = "genai-prices"
"""The source that is the package of that name."""

VARIABLE = "RELAY_MP_PRICES"
"""The environment variable: sources separated as in PATH, or a JSON list of paths and tables."""

MAX_VARIABLE_BYTES = 64 * 1024
"""Of tables given as mappings, which processes inherit through the environment; longer ones belong in a file."""

Source: TypeAlias = str | os.PathLike[str] | Mapping[str, Any]
"""The path of a table, a table, or "genai-prices"."""

_MILLION = Decimal(1_000_000)
_RATES = ("input_per_million", "output_per_million", "cache_read_per_million", "cache_write_per_million")
_COUNTS = ("prompt_tokens", "completion_tokens")

# OpenTelemetry's names of providers as those of genai-prices.
_GENAI_IDS = {
    "openai": "openai", "anthropic": "anthropic", "gcp.gemini": "google", "gcp.vertex_ai": "google",
    "mistral_ai": "mistral", "x_ai": "x-ai", "azure.ai.openai": "azure", "azure.ai.inference": "azure",
    "aws.bedrock": "aws", "deepseek": "deepseek", "groq": "groq", "perplexity": "perplexity", "cohere": "cohere",
    "openrouter": "openrouter", "together": "together", "fireworks": "fireworks", "cerebras": "cerebras",
    "moonshot": "moonshotai",
}  # fmt: skip


class _Prices(Protocol):
    """What a source is once it is read."""

    def cost(self, provider: str | None, model: str, usage: JsonObject, at: datetime | None) -> JsonObject | None: ...


# ---------------------------------------------------------------------------------------------- tables


@dataclass(frozen=True)
class _Tier:
    """Prices for prompts of some length, in a currency for a million tokens."""

    rates: dict[str, Decimal]
    low: int = 0
    high: int | None = None

    def cost(self, usage: Mapping[str, Any]) -> JsonObject:
        """Each kind of token at its price; a kind of cached token without one at that of the prompt."""
        prompt, output = int(usage["prompt_tokens"]), int(usage["completion_tokens"])
        read, write = int(usage.get("cache_read_tokens") or 0), int(usage.get("cache_write_tokens") or 0)
        plain = self.rates["input_per_million"]
        parts = {
            "input": max(prompt - read - write, 0) * plain,
            "output": output * self.rates["output_per_million"],
            "cache_read": read * self.rates.get("cache_read_per_million", plain),
            "cache_write": write * self.rates.get("cache_write_per_million", plain),
        }
        kept = {name: float(part / _MILLION) for name, part in parts.items() if part or name in ("input", "output")}
        return {"total": float(sum(parts.values(), Decimal()) / _MILLION), **kept}


@dataclass(frozen=True)
class _Entry:
    """A model's prices."""

    provider: str
    model: str
    aliases: tuple[str, ...]
    said: dict[str, str]
    tiers: tuple[_Tier, ...]

    def matches(self, model: str) -> bool:
        """Whether a model's name is this one's, or one of its aliases, in which `*` is any text."""
        return any(fnmatch.fnmatchcase(model, name) for name in (self.model.lower(), *self.aliases))

    def cost(self, usage: JsonObject) -> JsonObject | None:
        """By the tier that the prompt's length is in."""
        prompt = int(usage["prompt_tokens"])  # type: ignore[arg-type]
        for tier in self.tiers:
            if tier.low <= prompt and (tier.high is None or prompt <= tier.high):
                named = {"pricing_provider": self.provider, "pricing_model": self.model}
                return {**tier.cost(usage), **self.said, **named, "source": "model_pricing"}
        return None


class PriceTable:
    """Prices of one's own.

    Args:
        table: see the module.
        where: what it is called in errors.

    Raises:
        ConfigurationError: the table is of another form; the message names the place.
    """

    def __init__(self, table: Mapping[str, Any], where: str = "the price table") -> None:
        entries = table.get("entries") if isinstance(table, Mapping) else None
        if not isinstance(entries, Sequence) or isinstance(entries, str):
            raise _wrong(where, "entries", entries, "a list of objects")
        self._entries = [_entry(entry, f"{where}: entries[{index}]") for index, entry in enumerate(entries)]

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> "PriceTable":
        """The table in a JSON file.

        Raises:
            ConfigurationError: the file cannot be read, or is of another form.
        """
        try:
            with open(path, encoding="utf-8") as file:
                table = json.load(file)
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"the price table {os.fspath(path)!r} cannot be read: {error}") from error
        return cls(table, os.fspath(path))

    def cost(
        self, provider: str | None, model: str, usage: JsonObject, _at: datetime | None = None
    ) -> JsonObject | None:
        """What a call cost, as the view's `usage.cost`; None if the model is not in the table.

        Args:
            provider: of several entries that fit, one of this provider goes first.
            model: its name.
            usage: as in the view.
        """
        found = [entry for entry in self._entries if entry.matches(model.lower())]
        found.sort(key=lambda entry: entry.provider != provider)
        return found[0].cost(usage) if found else None


def _wrong(where: str, key: str, value: object, expected: str) -> ConfigurationError:
    return ConfigurationError(f"{where}: {key} is {value!r:.80}; expected {expected}")


def _entry(entry: Any, where: str) -> _Entry:
    if not isinstance(entry, Mapping):
        raise _wrong(where, "the entry", entry, "an object")
    for key in ("provider", "model_id"):
        if not isinstance(entry.get(key), str):
            raise _wrong(where, key, entry.get(key), "a text")
    if entry.get("unit", "per_token") != "per_token":
        raise _wrong(where, "unit", entry["unit"], "'per_token', which is all that can be worked out from usage")
    aliases = entry.get("aliases") or ()
    if isinstance(aliases, str) or not all(isinstance(alias, str) for alias in aliases):
        raise _wrong(where, "aliases", aliases, "a list of texts")
    said = {key: str(entry[key]) for key in ("pricing_as_of", "pricing_source") if entry.get(key) is not None}
    said["currency"] = str(entry.get("currency") or "USD")
    lowered = tuple(alias.lower() for alias in aliases)
    return _Entry(entry["provider"], entry["model_id"], lowered, said, _tiers(entry, where))


def _tiers(entry: Mapping[str, Any], where: str) -> tuple[_Tier, ...]:
    schedule = entry.get("rate_schedule")
    if schedule is None:
        return (_Tier(_rates(entry.get("rates"), f"{where}.rates")),)
    tiers = schedule.get("tiers") if isinstance(schedule, Mapping) else None
    if not isinstance(tiers, list) or not tiers or not all(isinstance(tier, Mapping) for tier in tiers):
        raise _wrong(where, "rate_schedule.tiers", tiers, "a list of objects")
    return tuple(_tier(tier, f"{where}.tiers[{index}]") for index, tier in enumerate(tiers))


def _tier(tier: Mapping[str, Any], where: str) -> _Tier:
    bounds = tier.get("min_prompt_tokens") or 0, tier.get("max_prompt_tokens")
    for key, value in zip(("min_prompt_tokens", "max_prompt_tokens"), bounds, strict=True):
        if value is not None and (not isinstance(value, int) or value < 0):
            raise _wrong(where, key, value, "a whole number that is not negative")
    return _Tier(_rates(tier.get("rates"), f"{where}.rates"), *bounds)


def _rates(rates: Any, where: str) -> dict[str, Decimal]:
    if not isinstance(rates, Mapping):
        raise _wrong(where, "rates", rates, f"an object with {', '.join(_RATES[:2])}")
    for key in _RATES:
        value = rates.get(key)
        is_number = isinstance(value, (int, float, Decimal)) and not isinstance(value, bool) and value >= 0
        if not is_number and (value is not None or key in _RATES[:2]):
            raise _wrong(where, key, value, "a number that is not negative")
    return {key: Decimal(str(rates[key])) for key in _RATES if rates.get(key) is not None}


# ---------------------------------------------------------------------------------------- genai-prices


class _GenaiPrices:
    """The package's own prices, as they ship; `UpdatePrices` of it, which fetches newer ones, is left to its user."""

    def __init__(self) -> None:
        try:
            self._package = importlib.import_module("genai_prices")
        except ImportError as error:
            raise ConfigurationError("genai-prices needs the extra: pip install 'relay_mp[pricing]'") from error
        self._said = f"{GENAI_PRICES} {self._package.__version__}"

    def cost(self, provider: str | None, model: str, usage: JsonObject, at: datetime | None) -> JsonObject | None:
        """None for a model or a provider that the package does not know, and for counts that contradict each other."""
        known = None if provider is None else _GENAI_IDS.get(provider)
        if provider is not None and known is None:
            return None  # served by somebody else, whose price is another
        counts = {
            "input_tokens": usage["prompt_tokens"],
            "output_tokens": usage["completion_tokens"],
            "cache_read_tokens": usage.get("cache_read_tokens"),
            "cache_write_tokens": usage.get("cache_write_tokens"),
        }
        try:
            tokens = self._package.Usage(**counts)
            found = self._package.calc_price(tokens, model, provider_id=known, genai_request_timestamp=at)
        except (LookupError, ValueError):
            return None
        return {
            "total": float(found.total_price),
            "input": float(found.input_price),
            "output": float(found.output_price),
            "currency": "USD",
            "pricing_provider": found.provider.id,
            "pricing_model": found.model.id,
            "pricing_source": self._said,
            "source": "model_pricing",
        }


# ------------------------------------------------------------------------------------------- switching

_lock = threading.Lock()
_sources: tuple[_Prices, ...] | None = None  # None: the environment has not been looked at


def configure(*sources: Source) -> None:
    """Says where prices come from, here and in processes that are started from now on. Without a source: nowhere.

    Args:
        sources: the first that knows a model counts. Each is the path of a table, a table, or "genai-prices".

    Raises:
        ConfigurationError: a table cannot be read or is of another form, the extra is missing, or tables given as
            mappings are longer than MAX_VARIABLE_BYTES.
    """
    global _sources
    read = tuple(_read(source) for source in sources)
    text = json.dumps([_portable(source) for source in sources])
    if len(text.encode()) > MAX_VARIABLE_BYTES:
        raise ConfigurationError(
            f"the price tables take {len(text.encode())} bytes; expected at most {MAX_VARIABLE_BYTES}: "
            "put them into files, and give their paths"
        )
    with _lock:
        _sources = read
        if sources:
            os.environ[VARIABLE] = text
        else:
            os.environ.pop(VARIABLE, None)


def is_on() -> bool:
    """Whether there is any source of prices."""
    return bool(_active())


def cost_of(
    model: str, usage: JsonObject, *, provider: str | None = None, at: datetime | None = None
) -> JsonObject | None:
    """What a call cost.

    Args:
        model: its name, as the provider reports it.
        usage: as in the view: `prompt_tokens` and `completion_tokens` are needed.
        provider: its name, as `gen_ai.provider.name` has it; None: told from the model.
        at: when it was made, for prices that have changed since; None: now.

    Returns:
        As the view's `usage.cost`: `total`, `input`, `output`, and, from tables, `cache_read` and `cache_write`, which
        are not in `input` then. None if no source knows the model, or a count is missing.
    """
    if any(usage.get(name) is None for name in _COUNTS):
        return None
    found = (source.cost(provider, model, usage, at) for source in _active())
    return next((cost for cost in found if cost is not None), None)


def priced(
    view: AnnotatedLLMResponse, provider: str | None, model: str | None = None, at: datetime | None = None
) -> AnnotatedLLMResponse:
    """A response's view with its cost, where prices are on and the provider has not reported one.

    The response of a stream that was broken off has none: how much had been written is not known.

    Args:
        view: it is left as it is; the result may be it.
        provider: see `cost_of`.
        model: where the response does not name one: the request's.
        at: see `cost_of`.
    """
    usage, named = view.usage, view.model or model
    if usage is None or named is None or usage.get("cost") is not None or view.incomplete or not _active():
        return view
    cost = cost_of(named, usage, provider=provider, at=at)
    return view if cost is None else view.replaced(usage={**usage, "cost": cost})


def _active() -> tuple[_Prices, ...]:
    return _from_environment() if _sources is None else _sources


def _from_environment() -> tuple[_Prices, ...]:
    """Once a process. A source that cannot be read costs a warning and the costs, never an event."""
    global _sources
    with _lock:
        if _sources is None:
            text = os.environ.get(VARIABLE, "")
            try:
                _sources = tuple(_read(source) for source in _listed(text))
            except (ConfigurationError, ValueError) as error:
                logger.warning("%s: %s; calls have no estimated cost", VARIABLE, error)
                _sources = ()
        return _sources


def _portable(source: Source) -> Any:
    """A source as another process finds it."""
    if isinstance(source, Mapping):
        return dict(source)
    return source if source == GENAI_PRICES else os.path.abspath(source)


def _listed(text: str) -> list[Any]:
    if text.startswith("["):
        listed = json.loads(text)
        return listed if isinstance(listed, list) else []
    return [source for source in text.split(os.pathsep) if source]


def _read(source: Source) -> _Prices:
    if isinstance(source, Mapping):
        return PriceTable(source)
    if not isinstance(source, (str, os.PathLike)):
        raise ConfigurationError(f"a source of prices is {source!r:.80}; expected a path, a table or {GENAI_PRICES!r}")
    return _GenaiPrices() if source == GENAI_PRICES else PriceTable.from_file(source)
