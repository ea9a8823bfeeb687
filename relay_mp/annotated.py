"""The provider-neutral view of an LLM request and response, as values.

A codec (`relay_mp.codecs`) makes them from a provider's JSON; intercepts read and change the request;
what is left travels in the event's `category_profile`, as `annotated_request` on the start and
`annotated_response` on the end:

    provider's request ── codec.decode ──► AnnotatedLLMRequest ── to_dict ──► event
            ▲                                  │ intercepts
            └────────── codec.encode ◄─────────┘

Pure values, the same in every process; this module imports nothing of the library but its errors. The
shapes below are checked wherever a value comes in, so that what is kept is always well formed. What a
shape does not know is dropped or kept as `Struct` says.

Names and shapes are those of the peer, `nemo_relay` 0.8. They pickle, and compare by content.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, Self, TypeAlias, TypeVar, overload

from relay_mp.errors import PayloadError, described_type
from relay_mp.types import Json, JsonObject

__all__ = ["AnnotatedLLMRequest", "AnnotatedLLMResponse", "MessageContent"]

MessageContent: TypeAlias = str | list[JsonObject]
"""A message's content: its text, or its parts."""

_T = TypeVar("_T")
Shape: TypeAlias = Callable[[Any, str], Any]
"""Checks a value that came from outside, at a place for the error's message, and returns a copy."""

MAX_DEPTH = 128
"""How deep a value may nest: as an event's payload."""

_MAX_UNSIGNED = 2**64 - 1


# ------------------------------------------------------------------------------------------- shapes


def _refuse(value: object, where: str, expected: str) -> PayloadError:
    return PayloadError(f"{where} is {value!r:.80} ({type(value).__name__}); expected {expected}")


def json_copy(value: Any, where: str, depth: int = MAX_DEPTH) -> Any:
    """A copy of JSON: tuples become lists, NaN and infinities null.

    Raises:
        PayloadError: it is not JSON, or nests deeper than `MAX_DEPTH`, as what contains itself does.
    """
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if depth == 0:
        raise PayloadError(f"{where[:80]} nests deeper than {MAX_DEPTH}; expected JSON without cycles")
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise PayloadError(f"{where} has a key that is not a str")
        return {key: json_copy(item, f"{where}.{key}", depth - 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_copy(item, where, depth - 1) for item in value]
    raise _refuse(value, where, "JSON")


def text(value: Any, where: str) -> str:
    """A str."""
    if not isinstance(value, str):
        raise _refuse(value, where, "a str")
    return value


def flag(value: Any, where: str) -> bool:
    """A bool."""
    if not isinstance(value, bool):
        raise _refuse(value, where, "a bool")
    return value


def number(value: Any, where: str) -> float:
    """A finite number, as a float."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise _refuse(value, where, "a finite number")
    return float(value)


def integer(value: Any, where: str) -> int:
    """An int of 64 bits; a float that is whole, as some servers send counts, is one."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value // 1:
        raise _refuse(value, where, "an int of 64 bits")
    if not -(2**63) <= value <= _MAX_UNSIGNED:
        raise _refuse(value, where, "an int of 64 bits")
    return int(value)


def count(value: Any, where: str) -> int:
    """An int of 64 bits that is not negative."""
    if integer(value, where) < 0:
        raise _refuse(value, where, "an int that is not negative")
    return int(value)


def mapping(value: Any, where: str) -> JsonObject:
    """A JSON object."""
    if not isinstance(value, Mapping):
        raise _refuse(value, where, "an object")
    copy: JsonObject = json_copy(value, where)
    return copy


def text_or_mapping(value: Any, where: str) -> str | JsonObject:
    """A str or a JSON object."""
    return value if isinstance(value, str) else mapping(value, where)


class Array:
    """A list of items of one shape; a tuple is accepted too."""

    def __init__(self, item: Shape) -> None:
        self.item = item

    def __call__(self, value: Any, where: str) -> list[Any]:
        return [self.item(each, f"{where}[{index}]") for index, each in enumerate(self._listed(value, where))]

    def salvage(self, value: Any, where: str) -> list[Any]:
        """The items that have their shape."""
        found = (_salvaged(self.item, each, where) for each in self._listed(value, where))
        return [each for each in found if each is not None]

    @staticmethod
    def _listed(value: Any, where: str) -> Sequence[Any]:
        if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
            raise _refuse(value, where, "a list")
        return value


class Struct:
    """An object with known keys.

    Args:
        required: keys that must be there, with their shapes.
        optional: keys that may be missing; null is the same as missing.
        extra: whether other keys are kept, as they are; else they are dropped.
    """

    def __init__(self, required: Mapping[str, Shape], optional: Mapping[str, Shape], *, extra: bool = False) -> None:
        self.required = required
        self.optional = optional
        self.extra = extra

    def __call__(self, value: Any, where: str) -> JsonObject:
        if not isinstance(value, Mapping):
            raise _refuse(value, where, "an object")
        missing = [key for key in self.required if key not in value]
        if missing:
            raise PayloadError(f"{where} has no {missing[0]!r}; expected an object with {sorted(self.required)}")
        kept = {key: shape(value[key], f"{where}.{key}") for key, shape in self.required.items()}
        for key, shape in self.optional.items():
            if value.get(key) is not None:
                kept[key] = shape(value[key], f"{where}.{key}")
        if self.extra:
            known = self.required.keys() | self.optional.keys()
            kept.update(mapping({key: item for key, item in value.items() if key not in known}, where))
        return kept

    def salvage(self, value: Any, where: str) -> JsonObject:
        """The object without the optional keys whose values have another shape.

        Raises:
            PayloadError: it is not an object, or a required key is missing or of another shape.
        """
        if not isinstance(value, Mapping):
            raise _refuse(value, where, "an object")
        kept = dict(value)
        for key, shape in self.optional.items():
            if kept.get(key) is not None:
                kept[key] = _salvaged(shape, kept[key], f"{where}.{key}")
        return self(kept, where)


class Tagged:
    """An object whose `tag` says which of the structs it is."""

    def __init__(self, tag: str, variants: dict[str, Struct]) -> None:
        self.tag = tag
        self.variants = variants

    def __call__(self, value: Any, where: str) -> JsonObject:
        name, struct = self._variant(value, where)
        return {self.tag: name, **struct(_without(value, self.tag), where)}

    def salvage(self, value: Any, where: str) -> JsonObject:
        """As the struct's."""
        name, struct = self._variant(value, where)
        return {self.tag: name, **struct.salvage(_without(value, self.tag), where)}

    def _variant(self, value: Any, where: str) -> tuple[str, Struct]:
        if not isinstance(value, Mapping):
            raise _refuse(value, where, "an object")
        name = value.get(self.tag)
        if not isinstance(name, str) or name not in self.variants:
            raise _refuse(name, f"{where}.{self.tag}", f"one of {sorted(self.variants)}")
        return name, self.variants[name]


def _salvaged(shape: Shape, value: Any, where: str) -> Any:
    """What of a value has the shape; None if nothing has."""
    try:
        return getattr(shape, "salvage", shape)(value, where)
    except (PayloadError, TypeError):
        return None


def _without(value: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {name: item for name, item in value.items() if name != key}


_NATIVE = {"provider": text, "kind": text, "value": json_copy}

CONTENT_PART = Tagged(
    "type",
    {
        "text": Struct({"text": text}, {}, extra=True),
        "image_url": Struct({"image_url": Struct({"url": text}, {"detail": text})}, {}, extra=True),
        "image": Struct({"image": json_copy}, {}, extra=True),
        "audio": Struct({"audio": json_copy}, {}, extra=True),
        "file": Struct({"file": json_copy}, {}, extra=True),
        "refusal": Struct({"refusal": text}, {}, extra=True),
        "tool_use": Struct({"id": text, "name": text, "input": json_copy}, {}, extra=True),
        "tool_result": Struct({"tool_use_id": text, "content": json_copy}, {"is_error": flag}, extra=True),
        "provider_native": Struct(_NATIVE, {}),
    },
)
_PARTS = Array(CONTENT_PART)


def message_content(value: Any, where: str) -> MessageContent:
    """A message's text, or its parts."""
    parts: MessageContent = value if isinstance(value, str) else _PARTS(value, where)
    return parts


def _text_or_null(value: Any, where: str) -> str | None:
    return None if value is None else text(value, where)


TOOL_CALL = Struct(
    {"id": text, "type": text, "function": Struct({"name": text, "arguments": text}, {})},
    {},
)
_SPOKEN = Struct({"content": message_content}, {"name": text})
MESSAGE = Tagged(
    "role",
    {
        "system": _SPOKEN,
        "user": _SPOKEN,
        "developer": _SPOKEN,
        "assistant": Struct({}, {"content": message_content, "tool_calls": Array(TOOL_CALL), "name": text}),
        "tool": Struct({"content": message_content, "tool_call_id": text}, {}),
        "function": Struct({"name": text, "content": _text_or_null}, {}),
        "tool_call": Struct({"call_id": text, "name": text, "arguments": json_copy}, {"id": text}, extra=True),
        "tool_result": Struct({"call_id": text, "output": json_copy}, {"id": text}, extra=True),
        "provider_native": Struct(_NATIVE, {}),
    },
)
TOOL = Tagged(
    "type",
    {
        "function": Struct(
            {
                "function": Struct(
                    {"name": text}, {"description": text, "parameters": json_copy, "strict": flag}, extra=True
                )
            },
            {},
            extra=True,
        ),
        "provider_native": Struct(_NATIVE, {}),
    },
)
_NAMED_CHOICE = Struct({"type": text, "function": Struct({"name": text}, {})}, {})
_NATIVE_CHOICE = Struct(_NATIVE, {})


def tool_choice(value: Any, where: str) -> str | JsonObject:
    """Which tools the model may call: a word, one function, or a provider's own directive."""
    if isinstance(value, str):
        if value not in {"auto", "none", "required"}:
            raise _refuse(value, where, "'auto', 'none', 'required' or an object")
        return value
    if isinstance(value, Mapping) and "provider" in value:
        return _NATIVE_CHOICE(value, where)
    return _NAMED_CHOICE(value, where)


def _stop(value: Any, where: str) -> list[str]:
    texts: list[str] = [value] if isinstance(value, str) else Array(text)(value, where)
    return texts


PARAMS = Struct({}, {"temperature": number, "max_tokens": count, "top_p": number, "stop": _stop})

_ANY_LIST = Array(json_copy)
CUSTOM = Struct({"api_name": text, "data": json_copy}, {})
REQUEST_APIS = {
    "openai_chat": Struct(
        {},
        {
            "audio": mapping,
            "frequency_penalty": number,
            "function_call": json_copy,
            "functions": _ANY_LIST,
            "logit_bias": mapping,
            "logprobs": flag,
            "modalities": Array(text),
            "moderation": mapping,
            "n": count,
            "prediction": mapping,
            "presence_penalty": number,
            "prompt_cache_key": text,
            "prompt_cache_options": mapping,
            "prompt_cache_retention": text,
            "reasoning_effort": text,
            "response_format": mapping,
            "safety_identifier": text,
            "seed": integer,
            "stream_options": mapping,
            "verbosity": text,
            "web_search_options": mapping,
        },
    ),
    "openai_responses": Struct(
        {},
        {
            "background": flag,
            "context_management": _ANY_LIST,
            "conversation": json_copy,
            "moderation": mapping,
            "prompt": mapping,
            "prompt_cache_key": text,
            "prompt_cache_options": mapping,
            "prompt_cache_retention": text,
            "safety_identifier": text,
            "stream_options": mapping,
            "text": mapping,
        },
    ),
    "anthropic_messages": Struct(
        {},
        {
            "cache_control": mapping,
            "container": text_or_mapping,
            "inference_geo": text,
            "output_config": mapping,
            "thinking": mapping,
            "top_k": count,
            "user_profile_id": text,
        },
    ),
    "oci_genai": Struct({}, {"compartment_id": text, "serving_mode": json_copy, "api_format": text}),
    "custom": CUSTOM,
}

RESPONSE_TOOL_CALL = Struct({"id": text, "name": text, "arguments": json_copy}, {})


def _cost_source(value: Any, where: str) -> str:
    if value not in {"model_pricing", "provider_reported"}:
        raise _refuse(value, where, "'model_pricing' or 'provider_reported'")
    return text(value, where)


_COST_TEXTS = (
    "currency", "provider", "model", "pricing_provider", "pricing_model", "pricing_as_of", "pricing_source",
)  # fmt: skip
COST = Struct(
    {"source": _cost_source},
    {
        **dict.fromkeys(("total", "input", "output", "cache_read", "cache_write"), number),
        **dict.fromkeys(_COST_TEXTS, text),
    },
)
COUNTS = (
    "prompt_tokens", "completion_tokens", "total_tokens", "cache_read_tokens", "cache_write_tokens",
    "uncached_input_tokens", "reasoning_tokens", "tool_use_tokens",
)  # fmt: skip
"""The counts of a response's usage. What each of them means is in `relay_mp.codecs.usage`."""

USAGE = Struct({}, {**dict.fromkeys(COUNTS, count), "cost": COST})


def _keys(*names: str, extra: bool = False) -> Struct:
    return Struct({}, dict.fromkeys(names, json_copy), extra=extra)


RESPONSE_APIS = {
    "openai_chat": _keys("logprobs", "service_tier", "system_fingerprint"),
    "openai_responses": _keys(
        "incomplete_details", "input_tokens_details", "output_items", "output_tokens_details",
        "previous_response_id", "reasoning", "service_tier", "status", "store", "truncation",
    ),
    "anthropic_messages": _keys(
        "container", "content_blocks", "object_type", "role", "service_tier", "stop_reason", "stop_sequence"
    ),
    "gemini_generate_content": _keys(
        "citation_metadata", "grounding_metadata", "safety_ratings", "thoughts_tokens", extra=True
    ),
    "oci_genai": _keys("api_format", "model_version"),
    "custom": CUSTOM,
}  # fmt: skip

FINISH_REASONS = ("complete", "length", "tool_use", "content_filter")


def finish_reason(value: Any, where: str) -> str:
    # Serialized, a reason that is not one of the four is {"unknown": reason}.
    if isinstance(value, Mapping):
        if set(value) != {"unknown"}:
            raise _refuse(value, where, "a str or {'unknown': str}")
        return text(value["unknown"], where)
    return text(value, where)


ALTERNATIVE = Struct(
    {},
    {
        "index": count,
        "message": message_content,
        "reasoning_content": text,
        "refusal": text,
        "tool_calls": Array(RESPONSE_TOOL_CALL),
        "finish_reason": finish_reason,
    },
)
"""A further answer to the same request: a choice, or a candidate, after the first."""

# -------------------------------------------------------------------------------------- the two views


class _Field(Generic[_T]):
    """A field of a view: reading gives a copy, assigning checks and copies."""

    def __init__(self, shape: Shape, doc: str, *, writable: bool = True, absent: Any = None) -> None:
        self.shape = shape
        self.__doc__ = doc
        self._writable = writable
        self._absent = absent

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> "_Field[_T]": ...
    @overload
    def __get__(self, instance: "_View", owner: type) -> _T: ...
    def __get__(self, instance: "_View | None", owner: type) -> "_Field[_T] | _T":
        if instance is None:
            return self
        kept: _T = json_copy(instance._values.get(self._name, self._absent), self._name)
        return kept

    def __set__(self, instance: "_View", value: _T) -> None:
        if not self._writable:
            raise AttributeError(f"{type(instance).__name__}.{self._name} cannot be assigned")
        if value is None and self._absent is not None:
            raise _refuse(value, self._name, f"a {type(self._absent).__name__}")
        self.keep(instance, value)

    def absent_value(self) -> Any:
        """What a view has where nothing is given."""
        return json_copy(self._absent, self._name)

    def keep(self, instance: "_View", value: Any) -> None:
        """Checks and copies a value into the view; null leaves nothing there."""
        if value is None and self._absent is None:
            instance._values.pop(self._name, None)
            return
        if value is None:
            value = self._absent
        if self.shape is text and not isinstance(value, str):
            raise TypeError(f"{self._name} is {described_type(value)}; expected str")
        instance._values[self._name] = self.shape(value, self._name)


class _View:
    """What both views share: values by name, kept well formed by their fields."""

    __slots__ = ("_values",)

    _values: dict[str, Any]

    @classmethod
    def _fields(cls) -> dict[str, _Field[Any]]:
        return {name: field for name, field in vars(cls).items() if isinstance(field, _Field)}

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """The view with these fields, `extra` among them; null is the same as nothing.

        Raises:
            PayloadError: a value is not of its shape; the message names the place.
            TypeError: a text is not a str.
        """
        view = cls.__new__(cls)
        view._values = {}
        for name, field in cls._fields().items():
            field.keep(view, values.get(name))
        return view

    @classmethod
    def salvage(cls, values: Mapping[str, Any], shaped: Mapping[str, Any] | None = None) -> Self:
        """The view with what of these fields has its shape. What has another is left out, and nothing else is.

        For exporters, which want to show the tokens of a response whose tool call is malformed.

        Args:
            values: the fields.
            shaped: fields whose values are known to have their shape; they are kept as they are.
        """
        view = cls.__new__(cls)
        view._values = {}
        for name, field in cls._fields().items():
            value = values.get(name)
            value = None if value is None else _salvaged(field.shape, value, name)
            if value is None:
                value = field.absent_value()
            if value is not None:
                view._values[name] = value
        view._values.update({name: value for name, value in (shaped or {}).items() if value is not None})
        return view

    @classmethod
    def salvage_dict(cls, value: Mapping[str, Any]) -> Self:
        """As `salvage`, from what `to_dict()` wrote; unknown keys go to `extra`."""
        return cls.salvage(cls._sorted(value))

    @classmethod
    def _sorted(cls, value: Mapping[str, Any]) -> dict[str, Any]:
        known = cls._fields().keys() - {"extra"}
        extra = {key: item for key, item in value.items() if key not in known}
        return {**{key: value[key] for key in known & value.keys()}, "extra": extra}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """The view that `to_dict()` wrote, or any object of that form; unknown keys go to `extra`.

        Raises:
            PayloadError: the value is of another form.
        """
        if not isinstance(value, Mapping):
            raise _refuse(value, cls.__name__, "an object")
        try:
            return cls.of(cls._sorted(value))
        except TypeError as error:
            raise PayloadError(str(error)) from error

    def to_dict(self) -> JsonObject:
        """The view as an event carries it: `extra` beside the known keys, nulls left out. A copy."""
        values: JsonObject = json_copy(self._values, type(self).__name__)
        extra = values.pop("extra", None)
        return {**extra, **values} if isinstance(extra, dict) else values

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._values == other._values

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._values!r:.200}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), self._values)


_V = TypeVar("_V", bound=_View)


def _restored(cls: type[_V], values: dict[str, Any]) -> _V:
    view = cls.__new__(cls)
    view._values = values
    return view


class AnnotatedLLMRequest(_View):
    """A request to a model, in the same terms for every provider.

    Reading a field gives a copy: change it and assign it back. Any process; not shared between threads
    while it is being changed.

    Args:
        messages: what has been said, oldest first: objects with a `role`.
        instructions: the provider's instructions beside the messages, where it has such.
        model: the model's name.
        params: `temperature`, `max_tokens`, `top_p`, `stop`; other keys are dropped.
        tools: what the model may call.
        tool_choice: `"auto"`, `"none"`, `"required"`, one function, or a provider's own directive.
        api_specific: fields that one API has; its `api` says which.
        extra: top-level fields that no known API has.

    Raises:
        PayloadError: a value is not of its shape; the message names the place.
        TypeError: `model` is not a str.
    """

    __slots__ = ()

    messages: _Field[list[JsonObject]] = _Field(Array(MESSAGE), "What has been said, oldest first.", absent=[])
    instructions: _Field[MessageContent | None] = _Field(message_content, "Instructions beside the messages.")
    model: _Field[str | None] = _Field(text, "The model's name.")
    params: _Field[JsonObject | None] = _Field(PARAMS, "temperature, max_tokens, top_p, stop.")
    tools: _Field[list[JsonObject] | None] = _Field(Array(TOOL), "What the model may call.")
    tool_choice: _Field[str | JsonObject | None] = _Field(tool_choice, "Which tools the model may call.")
    store: _Field[bool | None] = _Field(flag, "Whether the provider may keep the exchange.")
    previous_response_id: _Field[str | None] = _Field(text, "The response that this request goes on from.")
    truncation: _Field[Json] = _Field(json_copy, "What the provider does with a context that is too long.")
    reasoning: _Field[Json] = _Field(json_copy, "Settings of reasoning.")
    include: _Field[Json] = _Field(json_copy, "What the response shall contain besides.")
    user: _Field[str | None] = _Field(text, "Who asks, as the provider is told.")
    metadata: _Field[Json] = _Field(json_copy, "What the caller attaches for the provider.")
    service_tier: _Field[str | None] = _Field(text, "The tier asked for.")
    parallel_tool_calls: _Field[bool | None] = _Field(flag, "Whether one turn may call several tools.")
    max_output_tokens: _Field[int | None] = _Field(count, "The response's limit, in tokens.")
    max_tool_calls: _Field[int | None] = _Field(count, "How many calls of built-in tools are allowed.")
    top_logprobs: _Field[int | None] = _Field(count, "How many alternatives of each token to return.")
    stream: _Field[bool | None] = _Field(flag, "Whether the response comes in chunks.")
    api_specific: _Field[JsonObject | None] = _Field(Tagged("api", REQUEST_APIS), "What one API has.")
    extra: _Field[JsonObject] = _Field(mapping, "Top-level fields that no known API has.", absent={})

    def __init__(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        instructions: MessageContent | None = None,
        model: str | None = None,
        params: Mapping[str, Any] | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        tool_choice: str | Mapping[str, Any] | None = None,
        api_specific: Mapping[str, Any] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        given = self.of(
            {
                "instructions": instructions,
                "model": model,
                "params": params,
                "tools": tools,
                "tool_choice": tool_choice,
                "api_specific": api_specific,
                "extra": extra,
            }
        )
        self._values = given._values
        self.messages = messages  # type: ignore[assignment]

    def system_prompt(self) -> str | None:
        """The text of `instructions`, else of the first system or developer message; None without any."""
        found = _first_text(self._values.get("instructions"))
        for message in self._values["messages"]:
            if found is None and message["role"] in ("system", "developer"):
                found = _first_text(message["content"])
        return found

    def last_user_message(self) -> str | None:
        """The text of the last user message that has one."""
        for message in reversed(self._values["messages"]):
            if message["role"] == "user" and (found := _first_text(message["content"])) is not None:
                return found
        return None

    def has_tool_calls(self) -> bool:
        """Whether a message calls a tool. Tools that may be called do not count."""
        return any(
            message["role"] == "tool_call"
            or (message["role"] == "assistant" and (message.get("tool_calls") or _uses_tool(message)))
            for message in self._values["messages"]
        )


def _uses_tool(message: JsonObject) -> bool:
    content = message.get("content")
    return isinstance(content, list) and any(
        isinstance(part, dict) and part.get("type") == "tool_use" for part in content
    )


def _first_text(content: Any) -> str | None:
    if isinstance(content, str) or content is None:
        return content
    return next((part["text"] for part in content if part["type"] == "text"), None)


class AnnotatedLLMResponse(_View):
    """A model's response, in the same terms for every provider. It does not change.

    Reading a field gives a copy. Any process and thread.

    Args:
        id: the provider's identifier of the response.
        model: the model that answered.
        message: the answer: its text, or its parts.
        tool_calls: the tools called: `id`, `name`, `arguments` (decoded where they are JSON).
        finish_reason: `"complete"`, `"length"`, `"tool_use"`, `"content_filter"`, or the provider's own
            word, as such or as `{"unknown": word}`.
        usage: counts of tokens (`COUNTS`; the same for every provider, see `relay_mp.codecs.usage`) and `cost`.
        api_specific: fields that one API has; its `api` says which.
        extra: other top-level fields.
        reasoning_content: what the model thought before it answered, where the provider shows it.
        refusal: the model's words where it refused to answer, and the provider keeps them apart.
        alternatives: the answers after the first, of a request that asked for several: `index`, `message`,
            `reasoning_content`, `refusal`, `tool_calls`, `finish_reason`.
        incomplete: True for a stream that ended before the provider had said that it is finished.

    Raises:
        PayloadError: a value is not of its shape; the message names the place.
        TypeError: a text (`id`, `model`, `reasoning_content`, `refusal`) is not a str.
    """

    __slots__ = ()

    id: _Field[str | None] = _Field(text, "The provider's identifier of the response.", writable=False)
    model: _Field[str | None] = _Field(text, "The model that answered.", writable=False)
    message: _Field[MessageContent | None] = _Field(message_content, "The answer.", writable=False)
    tool_calls: _Field[list[JsonObject] | None] = _Field(Array(RESPONSE_TOOL_CALL), "The tools called.", writable=False)
    finish_reason: _Field[str | None] = _Field(finish_reason, "Why the model stopped.", writable=False)
    usage: _Field[JsonObject | None] = _Field(USAGE, "Tokens, and what they cost.", writable=False)
    reasoning_content: _Field[str | None] = _Field(text, "What the model thought, where it is shown.", writable=False)
    refusal: _Field[str | None] = _Field(text, "The words of a refusal, where they are kept apart.", writable=False)
    alternatives: _Field[list[JsonObject] | None] = _Field(
        Array(ALTERNATIVE), "The answers after the first.", writable=False
    )
    incomplete: _Field[bool | None] = _Field(flag, "Whether the stream was broken off.", writable=False)
    optimization_summary: _Field[JsonObject | None] = _Field(
        mapping, "What the peer's optimizer accounts for; nothing here writes it.", writable=False
    )
    api_specific: _Field[JsonObject | None] = _Field(Tagged("api", RESPONSE_APIS), "What one API has.", writable=False)
    extra: _Field[JsonObject] = _Field(mapping, "Other top-level fields.", writable=False, absent={})

    def __init__(
        self,
        id: str | None = None,
        model: str | None = None,
        message: MessageContent | None = None,
        tool_calls: Sequence[Mapping[str, Any]] | None = None,
        finish_reason: str | Mapping[str, Any] | None = None,
        usage: Mapping[str, Any] | None = None,
        api_specific: Mapping[str, Any] | None = None,
        extra: Mapping[str, Any] | None = None,
        *,
        reasoning_content: str | None = None,
        refusal: str | None = None,
        alternatives: Sequence[Mapping[str, Any]] | None = None,
        incomplete: bool | None = None,
    ) -> None:
        given = self.of(
            {
                "id": id,
                "model": model,
                "message": message,
                "tool_calls": tool_calls,
                "finish_reason": finish_reason,
                "usage": usage,
                "api_specific": api_specific,
                "extra": extra,
                "reasoning_content": reasoning_content,
                "refusal": refusal,
                "alternatives": alternatives,
                "incomplete": incomplete,
            }
        )
        self._values = given._values

    def to_dict(self) -> JsonObject:
        """The view as an event carries it: `extra` beside the known keys, nulls left out. A copy."""
        values = super().to_dict()
        reason = self._values.get("finish_reason")
        if reason is not None and reason not in FINISH_REASONS:
            values["finish_reason"] = {"unknown": reason}
        return values

    def replaced(self, **fields: Any) -> Self:
        """A copy with other values for these fields.

        Raises:
            PayloadError: a value is not of its shape.
        """
        view = _restored(type(self), dict(self._values))
        known = self._fields()
        for name, value in fields.items():
            known[name].keep(view, value)
        return view

    def response_text(self) -> str | None:
        """The answer's text; of several parts, the first text's."""
        return _first_text(self._values.get("message"))

    def has_tool_calls(self) -> bool:
        """Whether the model called a tool."""
        return bool(self._values.get("tool_calls"))
