"""What the codecs of requests have in common: a table of keys, and messages, tools and choices beside it.

A codec says where in the provider's JSON each plain field of the view is (`FIELDS`), and how messages,
tools and the choice of a tool are read and rendered. Reading goes through the table once; writing
compares the view as it was with the view as it is, and touches only what differs:

    content ─ FIELDS ──────────────────► model, params, store, api_specific ...  ┐
            ─ read_messages, read_tools ► messages, tools, tool_choice           ├ AnnotatedLLMRequest
            ─ the rest ────────────────► extra                                   ┘

Where both are objects, a request's body is its content; OCI's is inside. A null counts as missing.

Reading is lenient: a plain field of an unexpected type is left out of the view, a message, part or tool that the view
has no words for is kept whole in it (`provider_native`). Only what is not a request of the API at all, for it has no
list of messages, is an error. Writing is strict: a change that the API cannot express is an error.
"""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeAlias

from relay_mp.annotated import CONTENT_PART, MESSAGE, TOOL, AnnotatedLLMRequest, Shape, Tagged
from relay_mp.codecs.merge import merge, merge_items, same
from relay_mp.codecs.parts import PartName, read_by_table, render_by_table
from relay_mp.codecs.protocols import R
from relay_mp.errors import CodecError, PayloadError, described_type
from relay_mp.types import JsonObject

__all__ = ["NOT_GIVEN", "Path", "RequestCodec", "Table", "kind_of_message", "kind_of_tool", "put"]

Path: TypeAlias = tuple[str, ...]
"""Keys from the outside in: a place in a view or in a provider's JSON."""

Table: TypeAlias = Mapping[Path, tuple[Path, Shape]]
"""Places in a view, each with its place in the provider's JSON and the shape there."""

NOT_GIVEN: Any = object()

_NESTED = ("params", "api_specific", "extra")
_PLAIN = (
    "instructions", "model", "store", "previous_response_id", "truncation", "reasoning", "include", "user",
    "metadata", "service_tier", "parallel_tool_calls", "max_output_tokens", "max_tool_calls", "top_logprobs",
    "stream",
)  # fmt: skip


def look_up(value: Any, path: Path) -> Any:
    """What is at a place, or NOT_GIVEN."""
    for key in path:
        if not isinstance(value, dict) or key not in value:
            return NOT_GIVEN
        value = value[key]
    return value


def put(value: Any, path: Path, item: Any) -> dict[str, Any]:
    """A copy of an object with a place set or, with NOT_GIVEN, taken out. What is not changed is shared."""
    changed = dict(value) if isinstance(value, dict) else {}
    key, *rest = path
    if item is NOT_GIVEN and key not in changed:
        return changed
    if rest:
        changed[key] = put(changed.get(key), tuple(rest), item)
    elif item is NOT_GIVEN:
        del changed[key]
    else:
        changed[key] = item
    return changed


def _flat(view: AnnotatedLLMRequest) -> dict[Path, Any]:
    """The plain fields of a view by their places; one that is not set has none."""
    found: dict[Path, Any] = {(name,): getattr(view, name) for name in _PLAIN}
    for name in _NESTED:
        found.update({(name, key): item for key, item in (getattr(view, name) or {}).items()})
    found.pop(("api_specific", "api"), None)
    return {path: item for path, item in found.items() if item is not None or path[0] == "extra"}


def kind_of_message(message: JsonObject) -> Any:
    """What two versions of one message have in common."""
    return message["role"], message.get("kind"), message.get("tool_call_id"), message.get("call_id")


def kind_of_tool(tool: Any) -> Any:
    """What two versions of one tool have in common."""
    return tool["type"], tool.get("kind"), tool.get("function", {}).get("name")


class RequestCodec(ABC):
    """The base of the built-in codecs. It has no state: one may serve any number of threads."""

    TITLE: ClassVar[str]
    codec_id: ClassVar[str]
    """What sanitizers are told of the codec, and what `api_specific` is tagged with."""
    PROVIDER: ClassVar[str]
    """What marks something as native to this API."""
    FIELDS: ClassVar[Table]
    MESSAGES: ClassVar[str] = "messages"
    TOOL_CHOICE: ClassVar[str] = "tool_choice"
    PARTS: ClassVar[Mapping[str, PartName]] = {}

    def decode(self, request: R) -> AnnotatedLLMRequest:
        """The view of a provider's request.

        Args:
            request: its content is a JSON object of this API.

        Raises:
            CodecError: the content is not an object, or has no list of messages.
        """
        content = request.content
        if not isinstance(content, Mapping):
            raise self.error(f"the request is {described_type(content)}; expected an object")
        content = self.normal(dict(content))
        shaped = {"messages": self.read_messages(content), "tools": self.read_tools(content)}
        return AnnotatedLLMRequest.salvage(self._read(content), shaped)

    def encode(self, annotated: AnnotatedLLMRequest, original: R) -> R:
        """The provider's request after the view has been changed; what has not been changed is as it was.

        Args:
            annotated: the view, changed.
            original: what it was decoded from.

        Raises:
            CodecError: the original is not one of this API, or the change cannot be expressed in it.
        """
        if not isinstance(annotated, AnnotatedLLMRequest):
            raise self.error(f"annotated is {described_type(annotated)}; expected AnnotatedLLMRequest")
        before = self.decode(original)
        normal = self.normal(dict(original.content))
        content = self._write_fields(normal, before, annotated)
        if not same(before.messages, annotated.messages):
            content = self.write_messages(content, before.messages, annotated.messages)
        if not same(before.tools, annotated.tools):
            content = self.write_tools(content, before.tools or [], annotated.tools)
        content = self.write_choice(content, before, annotated)
        return type(original)(original.headers, original.content if same(content, normal) else content)

    # ---------------------------------------------------------------------------------- each codec's own

    @abstractmethod
    def read_messages(self, content: JsonObject) -> list[JsonObject]:
        """The messages, as the view has them."""

    @abstractmethod
    def render_message(self, message: JsonObject) -> list[Any]:
        """A view's message as this API's, one or several."""

    @abstractmethod
    def read_tool(self, tool: Any) -> JsonObject:
        """A tool, as the view has it."""

    @abstractmethod
    def render_tool(self, tool: JsonObject) -> Any:
        """A view's tool as this API's."""

    @abstractmethod
    def read_choice(self, choice: Any) -> Any:
        """The choice of a tool, as the view has it."""

    @abstractmethod
    def render_choice(self, choice: Any) -> Any:
        """A view's choice of a tool as this API's."""

    def normal(self, content: JsonObject) -> JsonObject:
        """The request in the spelling that the codec reads, where the API has several."""
        return content

    def table(self, content: JsonObject) -> Table:
        """Where the plain fields are in this request."""
        return self.FIELDS

    def body(self, content: JsonObject) -> JsonObject:
        """The object that has the messages, and the unknown keys."""
        return content

    def body_path(self, content: JsonObject) -> Path:
        """Where the body is."""
        return ()

    def read_more(self, content: JsonObject) -> dict[str, Any]:
        """Fields that are in no table."""
        return {}

    def read_api(self, content: JsonObject) -> JsonObject | None:
        """What `api_specific` has besides the table's fields."""
        return {"api": self.codec_id}

    def write_choice(self, content: JsonObject, before: AnnotatedLLMRequest, after: AnnotatedLLMRequest) -> JsonObject:
        """The request with the choice of a tool as it is now."""
        if same(before.tool_choice, after.tool_choice):
            return content
        path = (*self.body_path(content), self.TOOL_CHOICE)
        if after.tool_choice is None:
            return put(content, path, NOT_GIVEN)
        new = self.render_choice(after.tool_choice)
        old = None if before.tool_choice is None else self.render_choice(before.tool_choice)
        return put(content, path, merge(look_up(content, path), old, new))

    def write_messages(self, content: JsonObject, before: list[JsonObject], after: list[JsonObject]) -> JsonObject:
        """The request with the messages as they are now."""
        original = self.items(content, self.MESSAGES)
        merged = merge_items(original, before, after, kind_of_message, self.render_message)
        return put(content, (*self.body_path(content), self.MESSAGES), merged)

    def write_tools(self, content: JsonObject, before: list[JsonObject], after: list[JsonObject] | None) -> JsonObject:
        """The request with the tools as they are now."""
        path = (*self.body_path(content), "tools")
        if after is None:
            return put(content, path, NOT_GIVEN)
        original: Any = self.items(content, "tools") or []
        merged = merge_items(original, before, after, kind_of_tool, lambda tool: [self.render_tool(tool)])
        return put(content, path, merged)

    # --------------------------------------------------------------------------------------- what is shared

    def error(self, text: str) -> CodecError:
        """This API's error."""
        return CodecError(f"{self.TITLE}: {text}")

    def no_place(self, what: str, value: Any) -> CodecError:
        """The error for a change that this API cannot express."""
        return self.error(f"{what} has no place in this API: {value!r:.120}")

    def native(self, kind: Any, value: Any) -> JsonObject:
        """Something that the view has no words for, kept whole."""
        return {"provider": self.PROVIDER, "kind": kind if isinstance(kind, str) else "unknown", "value": value}

    def native_value(self, item: JsonObject) -> Any:
        """The original of something native, if it is this API's."""
        if item["provider"] != self.PROVIDER:
            raise self.no_place(f"what is native to {item['provider']!r}", item)
        return item["value"]

    def read_parts(self, parts: Any) -> list[JsonObject]:
        """Content parts, as the view has them."""
        return [self._read_part(part) for part in parts]

    def _read_part(self, part: Any) -> JsonObject:
        def read(part: JsonObject) -> JsonObject:
            found = read_by_table(part, self.PARTS)
            if found is None:
                raise self.error("the table does not have the part")
            return found

        return self.fitting(CONTENT_PART, read, part, "type")

    def fitting(self, shape: Tagged, read: Callable[[Any], JsonObject], item: Any, kind: str) -> JsonObject:
        """An item as the view has it; kept whole where it is not an object, or the view has no words for it.

        Args:
            shape: what the view asks of it.
            read: makes it of the provider's.
            item: the provider's.
            kind: the provider's key that says what it is.
        """
        if isinstance(item, dict):
            with contextlib.suppress(CodecError, PayloadError):
                return shape(read(item), "it")
        native = {shape.tag: "provider_native", **self.native(item.get(kind) if isinstance(item, dict) else None, item)}
        try:
            return shape(native, "it")
        except PayloadError:  # it is not JSON, or too deep: the view says that it is there
            return shape({**native, "value": None}, "it")

    def fitting_messages(self, items: list[Any], read: Callable[[Any], JsonObject], kind: str) -> list[JsonObject]:
        """Messages as the view has them; see `fitting`."""
        return [self.fitting(MESSAGE, read, item, kind) for item in items]

    def render_parts(self, parts: Any, names: Mapping[str, PartName] | None = None) -> list[Any]:
        """A view's content parts as this API's."""
        return [self._render_part(part, names or self.PARTS) for part in parts]

    def _render_part(self, part: JsonObject, names: Mapping[str, PartName]) -> Any:
        if part["type"] == "provider_native":
            return self.native_value(part)
        rendered = render_by_table(part, names)
        if rendered is None:
            raise self.no_place(f"a content part of type {part['type']!r}", part)
        return rendered

    def items(self, content: JsonObject, key: str) -> list[Any]:
        """A list in the body.

        Raises:
            CodecError: it is the messages, and not there; any other list that is not there is empty.
        """
        found = self.body(content).get(key)
        if isinstance(found, list):
            return found
        if key == self.MESSAGES:
            raise self.error(f"{key} is {found!r:.80}; expected a list")
        return []

    def read_tools(self, content: JsonObject) -> list[JsonObject] | None:
        """The tools, as the view has them."""
        if not isinstance(self.body(content).get("tools"), list):
            return None
        return [self.fitting(TOOL, self.read_tool, tool, "type") for tool in self.items(content, "tools")]

    def _read(self, content: JsonObject) -> dict[str, Any]:
        body = self.body(content)
        values: dict[str, Any] = {
            "api_specific": self.read_api(content),
            "extra": {key: item for key, item in body.items() if key not in self._known(content)},
        }
        if self.TOOL_CHOICE in body:
            values["tool_choice"] = self.read_choice(body[self.TOOL_CHOICE])
        for path, (raw, shape) in self.table(content).items():
            item = look_up(content, raw)
            if item is not NOT_GIVEN and item is not None:
                with contextlib.suppress(PayloadError):
                    values = put(values, path, shape(item, ".".join(raw)))
        return {**values, **self.read_more(content)}

    def _known(self, content: JsonObject) -> set[str]:
        depth = len(self.body_path(content))
        listed = {raw[depth] for raw, _ in self.table(content).values() if len(raw) > depth}
        return {self.MESSAGES, "tools", self.TOOL_CHOICE} | listed

    def _write_fields(self, content: JsonObject, before: AnnotatedLLMRequest, after: AnnotatedLLMRequest) -> JsonObject:
        api = (after.api_specific or {}).get("api", self.codec_id)
        if api != self.codec_id:
            raise self.error(f"api_specific is of {api!r}; expected {self.codec_id!r}")
        old, new = _flat(before), _flat(after)
        for path in {**old, **new}:
            item = new.get(path, NOT_GIVEN)
            if path not in old or item is NOT_GIVEN or not same(old[path], item):
                content = self._write_field(content, path, item)
        return content

    def _write_field(self, content: JsonObject, path: Path, item: Any) -> JsonObject:
        if path[0] == "extra":
            return put(content, (*self.body_path(content), path[1]), item)
        if path not in self.table(content):
            raise self.no_place(".".join(path), item)
        return put(content, self.table(content)[path][0], item)
