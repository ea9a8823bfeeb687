"""Which provider's API a chunk of a streamed response is of, and what its mark says of it.

A chunk is JSON, or an object of the provider's client: both are asked for the same fields. Runs where the program
reads its stream, so that an object that raises when it is asked is a chunk of no known API.

Sources: the streaming parts of the API references of OpenAI (Chat Completions, Responses), Anthropic (Messages),
Google (streamGenerateContent) and Oracle (Generative AI Inference, chat).
"""

from typing import Any

__all__ = ["api_of_chunk", "describe_chunk"]

_ANTHROPIC_EVENTS = frozenset(
    (
        "message_start", "message_delta", "message_stop",
        "content_block_start", "content_block_delta", "content_block_stop", "ping",
    )
)  # fmt: skip
_CHAT_CHUNK = "chat.completion.chunk"
_NAMES = {"openai_chat": "openai_chat_completions"}
"""What marks call an API, where it is not its codec's id."""


def _field(chunk: Any, key: str) -> Any:
    return chunk.get(key) if isinstance(chunk, dict) else getattr(chunk, key, None)


def api_of_chunk(chunk: Any) -> str | None:
    """The `codec_id` of the API that a chunk is of, or None.

    Args:
        chunk: a dict, or an object with the same names as attributes.
    """
    try:
        return _api_of(chunk)
    except Exception:  # of an attribute of the chunk's
        return None


def _api_of(chunk: Any) -> str | None:
    kind = _field(chunk, "type")
    if _field(chunk, "object") == _CHAT_CHUNK or any(_is_delta(choice) for choice in _list(chunk, "choices")):
        return "openai_chat"
    if isinstance(kind, str):
        if kind.startswith("response."):
            return "openai_responses"
        return "anthropic_messages" if kind in _ANTHROPIC_EVENTS else None
    if isinstance(_field(chunk, "candidates"), list) or any(
        _is_object(chunk, key) for key in ("usageMetadata", "usage_metadata")
    ):
        return "gemini_generate_content"
    role = _field(_field(chunk, "message"), "role")
    is_oci = isinstance(_field(chunk, "apiFormat"), str) or isinstance(_field(chunk, "finishReason"), str)
    return "oci_genai" if is_oci or role == "ASSISTANT" else None


def _list(chunk: Any, key: str) -> list[Any]:
    found = _field(chunk, key)
    return found if isinstance(found, list) else []


def _is_object(chunk: Any, key: str) -> bool:
    found = _field(chunk, key)
    return isinstance(found, dict) or hasattr(type(found), "model_dump")


def _is_delta(choice: Any) -> bool:
    return _is_object(choice, "delta")


def describe_chunk(index: int, chunk: Any) -> dict[str, Any]:
    """The data of a chunk's mark: its place, and what kind of chunk it is; not its text.

    Returns:
        chunk_index and provider, and what there is of: event_type, choice_indices, usage.
    """
    api = api_of_chunk(chunk)
    place = {"chunk_index": index, "provider": "unknown" if api is None else _NAMES.get(api, api)}
    try:
        return {**place, **_details(api, chunk)}
    except Exception:  # as in `api_of_chunk`
        return place


def _details(api: str | None, chunk: Any) -> dict[str, Any]:
    if api in ("openai_responses", "anthropic_messages"):
        return {"event_type": _field(chunk, "type")}
    if api != "openai_chat":
        return {}
    indices = [_field(choice, "index") for choice in _list(chunk, "choices")]
    return {
        "event_type": _CHAT_CHUNK,
        **({"choice_indices": indices} if indices else {}),
        **({"usage": _field(chunk, "usage")} if _is_object(chunk, "usage") else {}),
    }
