"""The values of tool and LLM calls: requests, results, what intercepts return, and the handles.

Runs in every emitting process; pure values, without events. Payloads that a value keeps are frozen (see
`context.freeze`): checked when it is made, safe from later changes, and copied whenever they are read, so
that middleware can neither see nor change more than it is given.

All of them pickle; handles arrive in another process as what they were, and can be ended there.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

import msgpack  # type: ignore[import-untyped]

from relay_mp._emit.arguments import check_name, check_profile, check_schema, freeze, thaw
from relay_mp._emit.current import current_scope
from relay_mp._emit.handle import ScopeHandle
from relay_mp._native.core import fork_epoch
from relay_mp._native.encoder import Packed, pack, replaced_so_far
from relay_mp.errors import PayloadError, described_type
from relay_mp.events import SEVERITY_KEY, canonical_uuid
from relay_mp.types import (
    DataSchema,
    Json,
    JsonObject,
    JsonValue,
    LLMAttributes,
    LogSeverity,
    ScopeType,
    ToolAttributes,
)

__all__ = [
    "AnyHandle",
    "LLMHandle",
    "LLMRequest",
    "LLMRequestInterceptOutcome",
    "PendingMarkSpec",
    "ToolExecutionInterceptOutcome",
    "ToolExecutionResult",
    "ToolHandle",
    "check_type",
    "peek",
]

_T = TypeVar("_T")

CREDENTIAL_HEADERS = frozenset(
    (
        "anthropic-api-key",
        "api-key",
        "authorization",
        "cookie",
        "proxy-authorization",
        "set-cookie",
        "x-amz-security-token",
        "x-api-key",
        "x-auth-token",
        "x-goog-api-key",
    )
)
"""Headers that never enter an event, in lower case. The request itself keeps them."""


def check_type(value: object, expected: type, argument: str) -> None:
    """Refuses an argument that is not of its type.

    Raises:
        TypeError: it is not.
    """
    if not isinstance(value, expected):
        raise TypeError(f"{argument} is {described_type(value)}; expected {expected.__name__}")


def peek(frozen: Any) -> Any:
    """As `thaw`, without the sorting: for what goes into the encoder at once."""
    return msgpack.unpackb(frozen) if type(frozen) is bytes else frozen


# ------------------------------------------------------------------------------------------- requests

_NO_HEADERS = Packed(pack({}))


class LLMRequest:
    """A request to a provider: headers, and the body. It does not change; make another to change one.

    Args:
        headers: a dict of names to JSON values.
        content: the body: any JSON, mostly an object.

    Raises:
        TypeError: `headers` is not a dict.
        PayloadError: in strict mode, something in one of the two cannot be recorded.
    """

    # What events show is packed; `_original` is the body itself, where that contains what is not JSON: the provider
    # gets what the program gave.
    __slots__ = ("_content", "_headers", "_original", "_shown")

    def __init__(self, headers: Mapping[str, JsonValue], content: JsonValue) -> None:
        check_type(headers, dict, "headers")
        self._headers = freeze(headers, "headers")
        before = replaced_so_far()
        self._content = freeze(content, "content")
        self._original = None if replaced_so_far() == before else content
        self._shown: Packed | None = None

    @property
    def headers(self) -> JsonObject:
        """A copy of the headers, keys sorted."""
        headers: JsonObject = thaw(self._headers)
        return headers

    @property
    def content(self) -> Any:
        """A copy of the body, keys sorted at every depth; the body itself where it contains what is not JSON."""
        return thaw(self._content) if self._original is None else self._original

    def with_headers(self, headers: Mapping[str, JsonValue]) -> "LLMRequest":
        """The same body under other headers."""
        other = LLMRequest({}, None)
        other._headers = freeze(headers, "headers")
        other._content, other._original = self._content, self._original
        return other

    def with_content_of(self, other: "LLMRequest") -> "LLMRequest":
        """The other's body under these headers."""
        request = LLMRequest({}, None)
        request._headers = self._headers
        request._content, request._original = other._content, other._original
        return request

    def observed(self) -> dict[str, Any]:
        """What events show of it: the body, and the headers less CREDENTIAL_HEADERS. For the encoder, mostly packed."""
        content = self._content
        if self._shown is None:
            self._shown = _NO_HEADERS if self._headers == _NO_HEADERS.msgpack else Packed(pack(self.shown_headers()))
        return {"content": Packed(content) if type(content) is bytes else content, "headers": self._shown}

    def shown_headers(self) -> JsonObject:
        """The headers less CREDENTIAL_HEADERS."""
        headers = peek(self._headers)
        return {key: value for key, value in headers.items() if key.strip().lower() not in CREDENTIAL_HEADERS}

    def without_credentials(self) -> "LLMRequest":
        """The same body under the headers less CREDENTIAL_HEADERS."""
        return self.with_headers(self.shown_headers())

    def __repr__(self) -> str:
        # The values may be secrets.
        return f"<LLMRequest headers={sorted(peek(self._headers))}>"

    def __reduce__(self) -> tuple[type["LLMRequest"], tuple[JsonObject, Any]]:
        return LLMRequest, (self.headers, self.content)


# ---------------------------------------------------------------------------------- results, outcomes


class ToolExecutionResult(Generic[_T]):
    """What a tool returns: the result, which is the application's, and an annotation beside it.

    Args:
        result: anything that becomes JSON; it is kept as it is.
        annotation: JSON that travels along and goes into the end event's
            `category_profile.tool_result_annotation`, uninterpreted.
    """

    __slots__ = ("_annotation", "_result")

    def __init__(self, result: _T, annotation: Json | None = None) -> None:
        self._result = result
        self._annotation = annotation

    @property
    def result(self) -> _T:
        """The result."""
        return self._result

    @property
    def annotation(self) -> Json | None:
        """The annotation."""
        return self._annotation

    def __repr__(self) -> str:
        return f"ToolExecutionResult({self._result!r}, annotation={self._annotation!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return ToolExecutionResult, (self._result, self._annotation)


class PendingMarkSpec:
    """A mark that middleware asks for: it is emitted under the call that the middleware took part in.

    Args:
        name: the mark's name.
        category: a category for it; marks mostly have none.
        category_profile: what is particular to the category, a dict.
        data: what is to be known about it.
        metadata: what describes the event rather than the work.
        data_schema: the schema that `data` follows.
        severity: makes it a log line.

    Raises:
        TypeError: an argument is not of its type.
        PayloadError: a payload holds a value that cannot be recorded.
    """

    __slots__ = ("_category", "_data", "_metadata", "_name", "_profile", "_schema", "_severity")

    def __init__(
        self,
        name: str,
        category: str | None = None,
        category_profile: Json | None = None,
        data: Json | None = None,
        metadata: Json | None = None,
        data_schema: DataSchema | None = None,
        severity: LogSeverity | None = None,
    ) -> None:
        self._name = check_name(name)
        if category is not None:
            check_type(category, str, "category")
        if category_profile is not None:
            check_profile(category_profile)
        if severity is not None:
            check_type(severity, LogSeverity, "severity")
        self._category = category
        self._profile = freeze(category_profile, "category_profile")
        self._data = freeze(data, "data")
        self._metadata = freeze(metadata, "metadata")
        self._schema = None if data_schema is None else check_schema(data_schema)
        self._severity = severity

    @property
    def name(self) -> str:
        """The mark's name."""
        return self._name

    @property
    def category(self) -> str | None:
        """Its category."""
        return self._category

    @property
    def category_profile(self) -> JsonObject | None:
        """A copy of what is particular to the category."""
        profile: JsonObject | None = thaw(self._profile)
        return profile

    @property
    def data(self) -> Json | None:
        """A copy of its data."""
        data: Json | None = thaw(self._data)
        return data

    @property
    def metadata(self) -> Json | None:
        """A copy of its metadata, without the severity."""
        metadata: Json | None = thaw(self._metadata)
        return metadata

    @property
    def data_schema(self) -> DataSchema | None:
        """The schema of its data."""
        return self._schema

    @property
    def severity(self) -> LogSeverity | None:
        """Its severity."""
        return self._severity

    def emitted_metadata(self) -> Any:
        """The metadata that the mark is emitted with: the severity is in it, where it has a place."""
        metadata = peek(self._metadata)
        if self._severity is None or not (metadata is None or isinstance(metadata, dict)):
            return metadata
        return {**(metadata or {}), SEVERITY_KEY: self._severity.value}

    def __repr__(self) -> str:
        return f"<PendingMarkSpec {self._name!r}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return PendingMarkSpec, (
            self._name, self._category, self.category_profile, self.data, self.metadata, self._schema,
            self._severity,
        )  # fmt: skip


def _marks(pending_marks: Sequence[PendingMarkSpec]) -> tuple[PendingMarkSpec, ...]:
    marks = tuple(pending_marks)
    for index, mark in enumerate(marks):
        check_type(mark, PendingMarkSpec, f"pending_marks[{index}]")
    return marks


class ToolExecutionInterceptOutcome:
    """What an intercept of a tool's execution returns: the result to go on with, and marks to emit.

    Args:
        result: JSON; it takes the place of the tool's.
        pending_marks: emitted after the call's end event, under the call.
        annotation: takes the place of the result's annotation.

    Raises:
        TypeError: a mark is not a PendingMarkSpec.
        PayloadError: in strict mode, something in `result` or `annotation` cannot be recorded.
    """

    # As in a request: `_original` is the result itself, where that contains what is not JSON.
    __slots__ = ("_annotation", "_marks", "_original", "_result")

    def __init__(
        self, result: Json, pending_marks: Sequence[PendingMarkSpec] = (), *, annotation: Json | None = None
    ) -> None:
        before = replaced_so_far()
        self._result = freeze(result, "result")
        self._original = None if replaced_so_far() == before else result
        self._annotation = freeze(annotation, "annotation")
        self._marks = _marks(pending_marks)

    @property
    def result(self) -> Any:
        """A copy of the result; the result itself where it contains what is not JSON."""
        return thaw(self._result) if self._original is None else self._original

    @property
    def annotation(self) -> Json | None:
        """A copy of the annotation."""
        annotation: Json | None = thaw(self._annotation)
        return annotation

    @property
    def pending_marks(self) -> list[PendingMarkSpec]:
        """The marks to emit."""
        return list(self._marks)


class LLMRequestInterceptOutcome:
    """What an intercept of an LLM request returns: the request to go on with, and what is to be known.

    Args:
        request: the request.
        annotated_request: its normalized form, where a codec made one; what was changed in it is written
            back into the request by the codec.
        pending_marks: emitted after the call's start event, under the call.
        optimization_contributions: what the intercept saved, as JSON objects; kept, not interpreted.

    Raises:
        TypeError: an argument is not of its type.
        PayloadError: a contribution is not a JSON object.
    """

    __slots__ = ("_annotated", "_contributions", "_marks", "_request")

    def __init__(
        self,
        request: LLMRequest,
        annotated_request: Any = None,
        pending_marks: Sequence[PendingMarkSpec] = (),
        optimization_contributions: Sequence[Mapping[str, JsonValue]] | None = None,
    ) -> None:
        check_type(request, LLMRequest, "request")
        if annotated_request is not None and not hasattr(annotated_request, "to_dict"):
            found = described_type(annotated_request)
            raise TypeError(f"annotated_request is {found}; expected AnnotatedLLMRequest")
        self._request = request
        self._annotated = annotated_request
        self._marks = _marks(pending_marks)
        self._contributions = freeze(list(optimization_contributions or ()), "optimization_contributions")
        if not all(isinstance(item, dict) for item in peek(self._contributions)):
            raise PayloadError("optimization_contributions holds what is not a dict")

    @property
    def request(self) -> LLMRequest:
        """The request."""
        return self._request

    @property
    def annotated_request(self) -> Any:
        """Its normalized form, None where there is none."""
        return self._annotated

    @property
    def pending_marks(self) -> list[PendingMarkSpec]:
        """The marks to emit."""
        return list(self._marks)

    @property
    def optimization_contributions(self) -> list[JsonObject]:
        """A copy of the contributions."""
        contributions: list[JsonObject] = thaw(self._contributions)
        return contributions


# -------------------------------------------------------------------------------------------- handles


class _CallHandle:
    """What the handles of both kinds of call share. Not to be made by hand."""

    # `_bits` are the attributes where a record has them; `_data` and `_metadata` are frozen; `_profile` is
    # the category_profile of the start event. `_start_us` is 0 where nobody listened. `_epoch` is the process's.
    __slots__ = ("_bits", "_data", "_epoch", "_metadata", "_name", "_parent", "_profile", "_start_us", "_uuid")

    _scope_type: ClassVar[ScopeType]

    def __init__(
        self, uuid: bytes, parent: bytes, name: str, bits: int, data: Any, metadata: Any, profile: dict[str, Any]
    ) -> None:
        self._uuid = uuid
        self._parent = parent
        self._name = name
        self._bits = bits
        self._data = data
        self._metadata = metadata
        self._profile = profile
        self._start_us = 0
        self._epoch = fork_epoch()

    def _as_scope(self) -> ScopeHandle:
        """The call as a scope of this context: what others stand below. Its end is the call's."""
        outer, uuid = current_scope(), self._uuid
        trace = outer._trace or uuid
        return ScopeHandle(uuid, self._parent, self._name, self._scope_type, 0, None, None, outer, trace, fork_epoch())

    @property
    def is_copy(self) -> bool:
        """Whether the process that this one was forked from has begun the call: its end is that one's to tell."""
        return self._epoch != fork_epoch()

    @property
    def uuid(self) -> str:
        """The call's uuid, which its start and end events share."""
        return canonical_uuid(self._uuid)

    @property
    def name(self) -> str:
        """The name of the tool, or of the provider."""
        return self._name

    @property
    def parent_uuid(self) -> str:
        """The scope that the call is under."""
        return canonical_uuid(self._parent)

    @property
    def data(self) -> Json:
        """A copy of the `data` it was made with: the end event's, where nothing else is."""
        data: Json = thaw(self._data)
        return data

    @property
    def metadata(self) -> Json:
        """A copy of the `metadata` it was made with."""
        metadata: Json = thaw(self._metadata)
        return metadata

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self._name!r}, uuid={self.uuid!r})"

    def __getstate__(self) -> tuple[Any, ...]:
        return tuple(getattr(self, slot) for slot in _PICKLED)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        for slot, value in zip(_PICKLED, state, strict=True):
            setattr(self, slot, value)
        self._epoch = fork_epoch()


_PICKLED = tuple(slot for slot in _CallHandle.__slots__ if slot != "_epoch")


class ToolHandle(_CallHandle):
    """A tool call that has begun, as `tools.call` returns it; for `tools.call_end`, and wherever a scope's handle is
    taken as a parent. Read-only; pickles."""

    __slots__ = ()

    _scope_type = ScopeType.Tool

    @property
    def attributes(self) -> ToolAttributes:
        """Its flags."""
        return ToolAttributes(self._bits >> ToolAttributes._shift)


class LLMHandle(_CallHandle):
    """An LLM call that has begun, as `llm.call` returns it; for `llm.call_end`, and wherever a scope's handle is taken
    as a parent. Read-only; pickles."""

    __slots__ = ()

    _scope_type = ScopeType.Llm

    @property
    def attributes(self) -> LLMAttributes:
        """Its flags."""
        return LLMAttributes(self._bits >> LLMAttributes._shift)


AnyHandle = ScopeHandle | ToolHandle | LLMHandle
"""What may be a parent: a scope, or a call that has begun."""
