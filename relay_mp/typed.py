"""Managed calls on your own types: codecs at the boundaries, JSON in between.

    args ── args_codec.to_json ──► guardrails, intercepts, events ── from_json ──► func(args)
    result ◄── from_json ── intercepts, events ◄── result_codec.to_json ── what func returned

Middleware and events see JSON only; `func`, and who calls, see the types. A codec that raises on the way
in raises before the call begins; inside of the call it fails it like `func`'s own exception.

Runs in the emitting process. The codecs here are stateless, but for the classes that
BestEffortAnyCodec has met, which it refers to weakly: any thread, and after fork. Full ring: as
`relay_mp.tools` and `relay_mp.llm`.
"""

import base64
import dataclasses
import inspect
import sys
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Generic, TypeVar

from relay_mp import llm, tools
from relay_mp._emit.calls import AnyHandle, LLMRequest, ToolExecutionResult
from relay_mp._emit.managed import returned
from relay_mp.annotated import MAX_DEPTH
from relay_mp.codecs import LlmCodec, LlmResponseCodec
from relay_mp.errors import PayloadError, described_type
from relay_mp.types import Json, LLMAttributes, ToolAttributes

__all__ = [
    "BestEffortAnyCodec",
    "Codec",
    "DataclassCodec",
    "JsonPassthrough",
    "PydanticCodec",
    "llm_execute",
    "llm_stream_execute",
    "tool_execute",
]

T = TypeVar("T")
TArgs = TypeVar("TArgs")
TResult = TypeVar("TResult")
TResponse = TypeVar("TResponse")
TChunk = TypeVar("TChunk")


# ------------------------------------------------------------------------------------------------- codecs


class Codec(Generic[T]):
    """Between values of a type and JSON. Derive from it, or pass anything with these two methods."""

    def to_json(self, value: T) -> Json:
        """The value as JSON.

        Args:
            value: of the codec's type.
        """
        raise NotImplementedError(f"{type(self).__name__} has no to_json")

    def from_json(self, data: Json) -> T:
        """The value that JSON stands for.

        Args:
            data: as `to_json` gives it; intercepts may have changed it.
        """
        raise NotImplementedError(f"{type(self).__name__} has no from_json")


class JsonPassthrough(Codec[Json]):
    """For values that are JSON already."""

    def to_json(self, value: Json) -> Json:
        """The value itself."""
        return value

    def from_json(self, data: Json) -> Json:
        """The data itself."""
        return data


class PydanticCodec(Codec[T]):
    """For a pydantic model, or any class with `model_dump` and `model_validate`. Does not import pydantic.

    Args:
        model_cls: the model's class.

    Raises:
        TypeError: it has no `model_validate`.
    """

    def __init__(self, model_cls: type[T]) -> None:
        if not callable(getattr(model_cls, "model_validate", None)):
            raise TypeError(f"model_cls is {model_cls!r:.80}; expected a pydantic model's class")
        self._model_cls: Any = model_cls

    def to_json(self, value: T) -> Json:
        """The model's fields, as `model_dump(mode="json")` gives them."""
        data: Json = value.model_dump(mode="json")  # type: ignore[attr-defined]
        return data

    def from_json(self, data: Json) -> T:
        """The model, validated; pydantic's ValidationError says what is wrong."""
        value: T = self._model_cls.model_validate(data)
        return value


class DataclassCodec(Codec[T]):
    """For a dataclass. Dataclasses inside of it go out as objects, and come back as such.

    Args:
        dc_cls: the dataclass.

    Raises:
        TypeError: it is not a dataclass.
    """

    def __init__(self, dc_cls: type[T]) -> None:
        if not (isinstance(dc_cls, type) and dataclasses.is_dataclass(dc_cls)):
            raise TypeError(f"dc_cls is {dc_cls!r:.80}; expected a dataclass")
        self._dc_cls = dc_cls

    def to_json(self, value: T) -> Json:
        """The fields, by name.

        Raises:
            TypeError: the value is not an instance of a dataclass.
        """
        if isinstance(value, type) or not dataclasses.is_dataclass(value):
            raise TypeError(f"the value is {described_type(value)}; expected {self._dc_cls.__name__}")
        instance: Any = value
        data: Json = dataclasses.asdict(instance)
        return data

    def from_json(self, data: Json) -> T:
        """The dataclass, made with the fields as arguments.

        Raises:
            TypeError: the data is not an object, or has other keys than the fields.
        """
        if not isinstance(data, Mapping):
            raise TypeError(f"the data is {described_type(data)}; expected the fields of {self._dc_cls.__name__}")
        return self._dc_cls(**data)


_MODEL = "__nv_pydantic__"
_DATACLASS = "__nv_dataclass__"
_RUNTIME_TYPE = "__nv_runtime_type__"
_BUILTIN = "__nv_builtin__"
_FALLBACK = "__nv_fallback_str__"

_TO_BUILTIN: dict[type[Any], Callable[[Any], Any]] = {
    bytes: lambda value: base64.b64encode(value).decode(),
    bytearray: lambda value: base64.b64encode(value).decode(),
    set: list,
    frozenset: list,
    complex: lambda value: [value.real, value.imag],
}
_FROM_BUILTIN: dict[str, Callable[[Any], Any]] = {
    "bytes": base64.b64decode,
    "bytearray": lambda data: bytearray(base64.b64decode(data)),
    "set": set,
    "frozenset": frozenset,
    "complex": lambda data: complex(*data),
}

# Classes that no name leads to, such as those made in a function, for as long as they live.
_runtime_types: "weakref.WeakValueDictionary[str, type[Any]]" = weakref.WeakValueDictionary()


class BestEffortAnyCodec(Codec[object]):
    """For values of any type: what JSON has as such, the rest as an object with a tag that says what it was.

    Models and dataclasses come back as what they were, at any depth, if their class is still there: a
    module is never imported for it, and nothing is ever unpickled. Sets, bytes and complex numbers come
    back too. Everything else goes out as its `str()`, and comes back as that.
    """

    def to_json(self, value: object) -> Json:
        """The value as JSON.

        Raises:
            PayloadError: it nests deeper than 128, as what contains itself does.
        """
        return _to_tagged(value, MAX_DEPTH)

    def from_json(self, data: Json) -> object:
        """The value that JSON stands for; the data itself where its tag leads nowhere."""
        return _from_tagged(data)


def _to_tagged(value: Any, depth: int) -> Json:
    if value is None or type(value) in (bool, int, float, str):
        return value  # type: ignore[no-any-return]
    if depth == 0:
        raise PayloadError(f"a value nests deeper than {MAX_DEPTH}; expected one without cycles")
    if isinstance(value, (list, tuple)):
        return [_to_tagged(item, depth - 1) for item in value]
    if isinstance(value, dict):
        return {str(key): _to_tagged(item, depth - 1) for key, item in value.items()}
    builtin = _TO_BUILTIN.get(type(value))
    if builtin is not None:
        return {_BUILTIN: type(value).__name__, "data": _to_tagged(builtin(value), depth - 1)}
    return _to_typed(value, depth)


def _to_typed(value: Any, depth: int) -> Json:
    cls = type(value)
    name = f"{cls.__module__}.{cls.__qualname__}"
    if callable(getattr(value, "model_dump", None)):
        return {_MODEL: name, **_runtime_type(cls, name), "data": value.model_dump(mode="json")}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {_DATACLASS: name, **_runtime_type(cls, name), "data": _to_tagged(fields, depth - 1)}
    return {_FALLBACK: name, "data": str(value)}


def _runtime_type(cls: type[Any], name: str) -> dict[str, Json]:
    if _loaded_type(name) is cls:
        return {}
    token = f"{name}:{id(cls)}"
    _runtime_types[token] = cls
    return {_RUNTIME_TYPE: token}


def _loaded_type(name: object) -> type[Any] | None:
    """The class of that name, if its module has been loaded."""
    if not isinstance(name, str):
        return None
    parts = name.split(".")
    for split in range(len(parts) - 1, 0, -1):
        found: Any = sys.modules.get(".".join(parts[:split]))
        for attribute in parts[split:]:
            found = getattr(found, attribute, None)
        if isinstance(found, type):
            return found
    return None


def _from_tagged(data: Any) -> Any:
    if isinstance(data, list):
        return [_from_tagged(item) for item in data]
    if not isinstance(data, dict):
        return data
    plain = {key: _from_tagged(item) for key, item in data.items()}
    if "data" not in data:
        return plain
    try:
        return _from_tag(data, plain["data"])
    except Exception:
        # What the tag names is not, or no longer, of the form that it says: the data speaks for itself.
        return plain


def _from_tag(tags: dict[str, Any], value: Any) -> Any:
    if _MODEL in tags:
        return _type_of(tags, _MODEL).model_validate(tags["data"])
    if _DATACLASS in tags:
        return DataclassCodec(_type_of(tags, _DATACLASS)).from_json(value)
    if _FALLBACK in tags and isinstance(value, str):
        return value
    return _FROM_BUILTIN[tags[_BUILTIN]](value)


def _type_of(tags: dict[str, Any], tag: str) -> Any:
    token = tags.get(_RUNTIME_TYPE)
    found = _loaded_type(tags[tag]) if token is None else _runtime_types.get(token)
    if found is None:
        raise TypeError(f"no class {tags[tag]!r} is loaded")
    return found


# ------------------------------------------------------------------------------------------------- calls


async def tool_execute(
    name: str,
    args: TArgs,
    func: Callable[[TArgs], ToolExecutionResult[TResult] | Awaitable[ToolExecutionResult[TResult]]],
    args_codec: Codec[TArgs],
    result_codec: Codec[TResult],
    *,
    handle: AnyHandle | None = None,
    attributes: ToolAttributes | None = None,
    data: Json | None = None,
    metadata: Json | None = None,
    tool_call_id: str | None = None,
) -> ToolExecutionResult[TResult]:
    """`tools.execute` on types: the tool gets its arguments, and the caller the result, as what they are.

    Args:
        name: the tool's name.
        args: its arguments.
        func: the tool: takes the arguments, returns a ToolExecutionResult; it may be asynchronous.
        args_codec: for the arguments, out and back in.
        result_codec: for the result, out and back in.
        handle: the scope that it is under; the current one if left out.
        attributes: flags.
        data: as for `tools.execute`.
        metadata: as for `tools.execute`.
        tool_call_id: the provider's id of the call.

    Returns:
        The result, and its annotation.

    It raises what `tools.execute` raises. What `args_codec.to_json` raises before the call, and
    `result_codec.from_json` after it, reaches the caller as it is.
    """

    async def run(given: Json) -> ToolExecutionResult[Json]:
        result: Any = func(args_codec.from_json(given))
        if inspect.isawaitable(result):
            result = await result
        if not isinstance(result, ToolExecutionResult):
            raise returned(result, f"tool {name!r}", "ToolExecutionResult")
        return ToolExecutionResult(result_codec.to_json(result.result), result.annotation)

    done = await tools.execute(
        name, args_codec.to_json(args), run,
        handle=handle, attributes=attributes, data=data, metadata=metadata, tool_call_id=tool_call_id,
    )  # fmt: skip
    return ToolExecutionResult(result_codec.from_json(done.result), done.annotation)


async def llm_execute(
    name: str,
    request: LLMRequest,
    func: Callable[[LLMRequest], TResponse | Awaitable[TResponse]],
    response_json_codec: Codec[TResponse],
    *,
    handle: AnyHandle | None = None,
    attributes: LLMAttributes | None = None,
    data: Json | None = None,
    metadata: Json | None = None,
    model_name: str | None = None,
    codec: LlmCodec | None = None,
    response_codec: LlmResponseCodec | None = None,
) -> TResponse:
    """`llm.execute` on a type: what `func` returns, and what the caller gets, is a `TResponse`.

    Args:
        name: the provider.
        request: what is sent, as JSON: requests are the provider's own.
        func: takes the request, returns the response; it may be asynchronous.
        response_json_codec: for the response, out and back in.
        handle: the scope that it is under; the current one if left out.
        attributes: flags.
        data: as for `llm.execute`.
        metadata: as for `llm.execute`.
        model_name: as for `llm.execute`.
        codec: gives intercepts the request's view, see `relay_mp.codecs`.
        response_codec: annotates the end event with the response's view.

    Returns:
        The response.

    It raises what `llm.execute` raises. What `response_json_codec.from_json` raises after the call reaches the
    caller as it is.
    """

    async def run(given: LLMRequest) -> Json:
        response: Any = func(given)
        if inspect.isawaitable(response):
            response = await response
        return response_json_codec.to_json(response)

    done = await llm.execute(
        name, request, run,
        handle=handle, attributes=attributes, data=data, metadata=metadata, model_name=model_name,
        codec=codec, response_codec=response_codec,
    )  # fmt: skip
    return response_json_codec.from_json(done)


async def llm_stream_execute(
    name: str,
    request: LLMRequest,
    func: Callable[[LLMRequest], AsyncIterator[TChunk]],
    collector: Callable[[TChunk], None],
    finalizer: Callable[[], TResponse],
    chunk_json_codec: Codec[TChunk],
    response_json_codec: Codec[TResponse],
    *,
    handle: AnyHandle | None = None,
    attributes: LLMAttributes | None = None,
    data: Json | None = None,
    metadata: Json | None = None,
    model_name: str | None = None,
    codec: LlmCodec | None = None,
    response_codec: LlmResponseCodec | None = None,
) -> AsyncIterator[Json]:
    """`llm.stream_execute` on types: `func` yields chunks, `finalizer` makes the response of them.

    Args:
        name: the provider.
        request: what is sent, as JSON.
        func: takes the request, returns an asynchronous iterator of chunks.
        collector: is given each chunk, after the intercepts.
        finalizer: makes the response that the end event shows.
        chunk_json_codec: for chunks, out and back in for the collector.
        response_json_codec: for the response, out.
        handle: the scope that it is under; the current one if left out.
        attributes: flags.
        data: as for `llm.stream_execute`.
        metadata: as for `llm.stream_execute`.
        model_name: as for `llm.stream_execute`.
        codec: gives intercepts the request's view, see `relay_mp.codecs`.
        response_codec: annotates the end event with the response's view.

    Returns:
        The stream. It yields chunks as JSON: what intercepts made of them, of your type or not.

    It raises what `llm.stream_execute` raises.
    """

    async def run(given: LLMRequest) -> AsyncIterator[Json]:
        async for chunk in func(given):
            yield chunk_json_codec.to_json(chunk)

    return await llm.stream_execute(
        name, request, run,
        lambda chunk: collector(chunk_json_codec.from_json(chunk)),
        lambda: response_json_codec.to_json(finalizer()),
        handle=handle, attributes=attributes, data=data, metadata=metadata, model_name=model_name,
        codec=codec, response_codec=response_codec,
    )  # fmt: skip
