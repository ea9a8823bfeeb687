"""Who served a call, told from its request and its response together.

The API says less than it seems: a request to Anthropic may look like one to OpenAI, and half of the world's servers
speak OpenAI's Chat Completions. So the evidence is looked at in this order, the strongest first:

    a mark that only one provider leaves        `usage.prompt_cache_hit_tokens`, "fp_ollama", a header
    an API that one provider has                Anthropic's, Gemini's, OCI's; or the cloud that the call's name says
    the name of the call                        `llm.call("mistral", ...)`
    the model's name                            "grok-4", "deepseek-chat"
    the API's inventor                          OpenAI

Names of providers are those of OpenTelemetry's `gen_ai.provider.name`, where it has one.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Evidence", "provider_of"]

OF_API = {
    "openai_chat": "openai",
    "openai_responses": "openai",
    "anthropic_messages": "anthropic",
    "gemini_generate_content": "gcp.gemini",
    "oci_genai": "oci.genai",
}
_OPENAI_APIS = ("openai_chat", "openai_responses")

# What a call may be named, without signs and capitals. Not "openai": who calls a server through OpenAI's client
# names the call so, and it is what the API says anyway.
_NAMED = {
    "anthropic": "anthropic", "claude": "anthropic",
    "gemini": "gcp.gemini", "google": "gcp.gemini", "googleai": "gcp.gemini", "gcpgemini": "gcp.gemini",
    "vertex": "gcp.vertex_ai", "vertexai": "gcp.vertex_ai", "gcpvertexai": "gcp.vertex_ai",
    "mistral": "mistral_ai", "mistralai": "mistral_ai",
    "azure": "azure.ai.openai", "azureopenai": "azure.ai.openai", "azureaiopenai": "azure.ai.openai",
    "azureaiinference": "azure.ai.inference",
    "bedrock": "aws.bedrock", "awsbedrock": "aws.bedrock",
    "oci": "oci.genai", "ocigenai": "oci.genai", "oracle": "oci.genai",
    "xai": "x_ai", "grok": "x_ai", "deepseek": "deepseek", "groq": "groq", "perplexity": "perplexity",
    "cohere": "cohere", "openrouter": "openrouter", "ollama": "ollama", "vllm": "vllm", "together": "together",
    "togetherai": "together", "fireworks": "fireworks", "fireworksai": "fireworks", "cerebras": "cerebras",
    "moonshot": "moonshot", "litellm": "litellm", "lmstudio": "lmstudio", "watsonx": "ibm.watsonx.ai",
}  # fmt: skip
_CLOUDS = ("gcp.vertex_ai", "aws.bedrock", "azure.ai.openai", "azure.ai.inference")

_MODELS = {
    "mistral_ai": r"(open-)?(mistral|mixtral|ministral|codestral|magistral|pixtral|devstral|voxtral)-",
    "deepseek": r"deepseek-(chat|reasoner)",
    "x_ai": r"grok-",
    "perplexity": r"(sonar(-|$)|r1-1776)",
    "anthropic": r"claude-",
    "gcp.gemini": r"gemini-",
    "fireworks": r"accounts/fireworks/",
}
_OF_MODEL = {name: re.compile(pattern, re.IGNORECASE) for name, pattern in _MODELS.items()}


@dataclass(frozen=True)
class Evidence:
    """What is known of a call.

    Args:
        api: the `codec_id` of its API; None if that is not known.
        name: what the caller calls the provider.
        headers: of the request; names in any case.
        request: its body.
        response: its response, whole.
    """

    api: str | None
    name: str = ""
    headers: Mapping[str, Any] = field(default_factory=dict)
    request: Mapping[str, Any] = field(default_factory=dict)
    response: Mapping[str, Any] = field(default_factory=dict)


def provider_of(evidence: Evidence) -> str | None:
    """The provider's name; None for a call of no known API and no known name."""
    named = _NAMED.get(re.sub(r"[^a-z]", "", evidence.name.lower()))
    if evidence.api is not None and evidence.api not in _OPENAI_APIS:
        return named if named in _CLOUDS else OF_API.get(evidence.api)
    marked = next((name for name, is_marked in _MARKS if is_marked(evidence)), None)
    inventor = None if evidence.api is None else OF_API[evidence.api]
    return marked or named or _of_model(evidence) or inventor


def _of_model(evidence: Evidence) -> str | None:
    for model in (evidence.response.get("model"), evidence.request.get("model")):
        if isinstance(model, str):
            for name, pattern in _OF_MODEL.items():
                if pattern.match(model):
                    return name
    return None


# ---------------------------------------------------------------------------------------------- marks


def _has(keys: tuple[str, ...], value: Any) -> bool:
    return isinstance(value, Mapping) and any(key in value for key in keys)


def _first_choice(evidence: Evidence) -> Any:
    choices = evidence.response.get("choices")
    return choices[0] if isinstance(choices, list) and choices else None


def _is_openrouter(evidence: Evidence) -> bool:
    named, id_ = evidence.response.get("provider"), evidence.response.get("id")
    return (isinstance(named, str) and "choices" in evidence.response) or (
        isinstance(id_, str) and id_.startswith("gen-") and _has(("native_finish_reason",), _first_choice(evidence))
    )


def _is_ollama(evidence: Evidence) -> bool:
    return evidence.response.get("system_fingerprint") == "fp_ollama"


def _is_vllm(evidence: Evidence) -> bool:
    keys = ("prompt_logprobs", "kv_transfer_params", "prompt_token_ids")
    return _has(keys, evidence.response) or _has(
        ("guided_json", "guided_regex", "chat_template_kwargs"), evidence.request
    )


def _is_groq(evidence: Evidence) -> bool:
    return _has(("x_groq",), evidence.response)


def _is_deepseek(evidence: Evidence) -> bool:
    return _has(("prompt_cache_hit_tokens", "prompt_cache_miss_tokens"), evidence.response.get("usage"))


def _is_azure(evidence: Evidence) -> bool:
    return _has(("prompt_filter_results",), evidence.response) or _has(
        ("content_filter_results",), _first_choice(evidence)
    )


def _is_perplexity(evidence: Evidence) -> bool:
    return _has(("search_results",), evidence.response) and "choices" in evidence.response


def _is_mistral(evidence: Evidence) -> bool:
    return _has(("safe_prompt", "random_seed"), evidence.request)


def _is_anthropic(evidence: Evidence) -> bool:
    return any(key.lower() == "anthropic-version" for key in evidence.headers)


_MARKS: tuple[tuple[str, Callable[[Evidence], bool]], ...] = (
    ("openrouter", _is_openrouter),
    ("ollama", _is_ollama),
    ("groq", _is_groq),
    ("deepseek", _is_deepseek),
    ("azure.ai.openai", _is_azure),
    ("perplexity", _is_perplexity),
    ("vllm", _is_vllm),
    ("mistral_ai", _is_mistral),
    ("anthropic", _is_anthropic),
)
"""What only one provider sends or is sent: the providers' API references."""
