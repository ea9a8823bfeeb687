"""The vocabulary of arguments: scope types, attributes, severities, measurements, JSON aliases.

Pure values, the same in every process; this module imports nothing of the library. Handles are made
by `relay_mp._emit.context`, events by `relay_mp.events`.

Names and meanings are those of ATOF 0.1 and of the peer, `nemo_relay` 0.8. On purpose different:
the enums are Python enums (they iterate, hash and have `.name`), `ScopeAttributes` compare and hash by
value, and everything here pickles, because handles travel to workers.
"""

import enum
import operator
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import ClassVar, NamedTuple, Self, SupportsIndex, TypeAlias, TypedDict

from relay_mp.errors import described_type

__all__ = [
    "ATTRIBUTE_NAMES",
    "CATEGORIES",
    "DataSchema",
    "Json",
    "JsonObject",
    "JsonPrimitive",
    "JsonValue",
    "LLMAttributes",
    "LogSeverity",
    "MetricKind",
    "MetricMeasurement",
    "MetricTemporality",
    "MetricValueType",
    "RuntimeRegistrationIdentity",
    "RuntimeRegistrationKind",
    "RuntimeRegistrationOwner",
    "RuntimeRegistrationOwnerKind",
    "ScopeAttributes",
    "ScopeType",
    "Timestamp",
    "ToolAttributes",
    "attribute_names",
]

JsonPrimitive: TypeAlias = str | int | float | bool | None
JsonValue: TypeAlias = JsonPrimitive | list["JsonValue"] | dict[str, "JsonValue"]
JsonObject: TypeAlias = dict[str, JsonValue]
Json: TypeAlias = JsonValue
Timestamp: TypeAlias = datetime | int
"""A timezone-aware datetime, or nanoseconds since the epoch (`time.time_ns()`). Events keep microseconds."""

CATEGORIES = (
    "agent",
    "function",
    "tool",
    "llm",
    "retriever",
    "embedder",
    "reranker",
    "guardrail",
    "evaluator",
    "custom",
    "unknown",
)
"""ATOF's categories. A record carries the index, so the order is part of the record's format."""

ATTRIBUTE_NAMES = ("parallel", "relocatable", "remote", "stateful", "streaming")
"""ATOF's attribute names by bit of a record's attributes, in alphabetical order.

Bits 0 and 1 are `ScopeAttributes`. Bit 2 is a tool call's, bits 3 and 4 are an LLM call's: bits of
their own, so that a record can be read without knowing which verb wrote it.
"""


def _names_of(bits: int) -> tuple[str, ...]:
    return tuple(name for bit, name in enumerate(ATTRIBUTE_NAMES) if bits >> bit & 1)


_SEQUENCES = (list, tuple, set, frozenset)
_NAMES_BY_BITS = tuple(_names_of(bits) for bits in range(1 << len(ATTRIBUTE_NAMES)))


def attribute_names(bits: int) -> list[str]:
    """The ATOF names of a record's attribute bits: sorted, no duplicates. Unknown bits are skipped."""
    return list(_NAMES_BY_BITS[bits & (len(_NAMES_BY_BITS) - 1)])


class DataSchema(TypedDict):
    """Names the schema of an event's `data`. Both keys are required strings; others are dropped."""

    name: str
    version: str


class _Coded(enum.Enum):
    """An enum whose members also know their position: `.code`, a plain attribute, and `int()`.

    `Enum.value` is a descriptor in Python code, several times the cost of an attribute, and the emit
    path needs the position at every scope.
    """

    code: int

    def __init__(self, _value: str) -> None:
        self.code = len(type(self).__members__)

    def __int__(self) -> int:
        return self.code

    def __repr__(self) -> str:
        return f"{type(self).__name__}.{self.name}"

    __str__ = __repr__


class ScopeType(_Coded):
    """What kind of work a scope is. The value is ATOF's category, `.code` its index in `CATEGORIES`."""

    Agent = "agent"
    Function = "function"
    Tool = "tool"
    Llm = "llm"
    Retriever = "retriever"
    Embedder = "embedder"
    Reranker = "reranker"
    Guardrail = "guardrail"
    Evaluator = "evaluator"
    Custom = "custom"
    Unknown = "unknown"


class LogSeverity(_Coded):
    """The severity of a mark that is a log line. The value is what metadata carries."""

    Trace = "trace"
    Debug = "debug"
    Info = "info"
    Warn = "warn"
    Error = "error"


class MetricKind(_Coded):
    """The instrument that a measurement belongs to, as OpenTelemetry names them."""

    Counter = "counter"
    UpDownCounter = "up_down_counter"
    Gauge = "gauge"
    Histogram = "histogram"


class MetricValueType(_Coded):
    """How a measurement's value is represented. `U64` goes to 2**63 - 1, as OpenTelemetry's integers do."""

    U64 = "u64"
    I64 = "i64"
    F64 = "f64"


class MetricTemporality(_Coded):
    """What an exported sum or histogram covers: all since the start, or only what came since the last export.

    Up-down counters always cover all. `LowMemory` is `Delta` for all kinds that there are here.
    """

    Cumulative = "cumulative"
    Delta = "delta"
    LowMemory = "low_memory"


class _Attributes:
    """Flags: a value that does not change. A subclass names its bits and says where a record has them."""

    __slots__ = ("_value",)

    _mask: ClassVar[int]
    _shift: ClassVar[int]

    _value: int

    def __init__(self, value: SupportsIndex = 0) -> None:
        bits = operator.index(value)
        if not 0 <= bits < 1 << 32:
            raise OverflowError(f"attribute bits are {bits}; expected 0 to 2**32 - 1")
        self._value = bits & self._mask

    @property
    def value(self) -> int:
        """The bits."""
        return self._value

    @property
    def record_bits(self) -> int:
        """The bits where a record has them: each kind of call has its own."""
        return self._value << self._shift

    def names(self) -> list[str]:
        """The flags' ATOF names, sorted, such as `["parallel", "relocatable"]`."""
        return attribute_names(self.record_bits)

    def __or__(self, other: object) -> Self:
        if type(other) is not type(self):
            return NotImplemented
        return type(self)(self._value | other._value)

    def __and__(self, other: object) -> Self:
        if type(other) is not type(self):
            return NotImplemented
        return type(self)(self._value & other._value)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._value == other._value

    def __hash__(self) -> int:
        return hash((type(self), self._value))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({' | '.join(self.names()).upper() or '0x0'})"

    def __reduce__(self) -> tuple[type[Self], tuple[int]]:
        return type(self), (self._value,)


class ScopeAttributes(_Attributes):
    """Flags of a scope: a value that does not change.

    Args:
        value: the bits; those that are not flags are dropped, so that `ScopeAttributes(255).value == 3`.

    Raises:
        OverflowError: the value is negative or has more than 32 bits.
        TypeError: the value is not an integer.
    """

    __slots__ = ()

    PARALLEL: ClassVar[int] = 1
    RELOCATABLE: ClassVar[int] = 2

    _mask = 3
    _shift = 0

    @property
    def is_parallel(self) -> bool:
        """Children may run at the same time."""
        return bool(self._value & 1)

    @property
    def is_relocatable(self) -> bool:
        """The work may move to another process or machine."""
        return bool(self._value & 2)


class ToolAttributes(_Attributes):
    """Flags of a tool call: a value that does not change. Arguments and errors as `ScopeAttributes`."""

    __slots__ = ()

    REMOTE: ClassVar[int] = 1

    _mask = 1
    _shift = 2

    @property
    def is_remote(self) -> bool:
        """The tool runs on another machine."""
        return bool(self._value & 1)


class LLMAttributes(_Attributes):
    """Flags of an LLM call: a value that does not change. Arguments and errors as `ScopeAttributes`."""

    __slots__ = ()

    STATEFUL: ClassVar[int] = 1
    STREAMING: ClassVar[int] = 2

    _mask = 3
    _shift = 3

    @property
    def is_stateful(self) -> bool:
        """The provider keeps the conversation."""
        return bool(self._value & 1)

    @property
    def is_streaming(self) -> bool:
        """The response comes in pieces."""
        return bool(self._value & 2)


def _text(value: object, argument: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{argument} is {described_type(value)}; expected str")
    return value


def _number(value: object) -> float:
    """A value as Python's own number, where it is one. `scope.metric` refuses what is not a number."""
    if isinstance(value, (int, float)) or not hasattr(value, "__float__"):
        return value  # type: ignore[return-value]
    if hasattr(value, "__index__"):
        return operator.index(value)
    return float(value)


def _boundary(value: object) -> float:
    number = _number(value)
    if not isinstance(number, (int, float)):
        raise TypeError(f"boundaries has {described_type(value)}; expected numbers")
    return float(number)


class MetricMeasurement:
    """One recording of one instrument, to be emitted by `scope.metric`. It does not change.

    The constructor checks types. Whether name, kind, value type and value go together is checked by
    `scope.metric`, which knows the measurement's place in the list.

    Args:
        name: 1 to 255 ASCII characters: a letter, then letters, digits, `_`, `.`, `-` or `/`.
        kind: the instrument: counters go up only.
        value_type: how `value` is represented; counters and histograms take U64 or F64,
            up-down counters I64 or F64, gauges all three.
        value: a finite number. NumPy scalars pass.
        unit: up to 63 ASCII characters, as UCUM writes them.
        description: any text.
        attributes: keys to strings, numbers, bools, or lists of one of these.
        boundaries: a histogram's bucket boundaries, strictly increasing, at most 64.

    Raises:
        TypeError: `name`, `kind`, `value_type`, `unit`, `description` or `boundaries` is not of its type.
    """

    __slots__ = (
        "_attributes",
        "_boundaries",
        "_description",
        "_kind",
        "_name",
        "_unit",
        "_value",
        "_value_type",
    )

    def __init__(
        self,
        name: str,
        kind: MetricKind,
        value_type: MetricValueType,
        value: float,
        unit: str | None = None,
        description: str | None = None,
        attributes: Mapping[str, JsonValue] | None = None,
        boundaries: Sequence[float] | None = None,
    ) -> None:
        if not isinstance(kind, MetricKind):
            raise TypeError(f"kind is {described_type(kind)}; expected MetricKind")
        if not isinstance(value_type, MetricValueType):
            raise TypeError(f"value_type is {described_type(value_type)}; expected MetricValueType")
        self._name = _text(name, "name")
        self._kind = kind
        self._value_type = value_type
        self._value = _number(value)
        self._unit = None if unit is None else _text(unit, "unit")
        self._description = None if description is None else _text(description, "description")
        self._attributes = None if attributes is None else _copy_attributes(attributes)
        self._boundaries = None if boundaries is None else [_boundary(each) for each in boundaries]

    @property
    def name(self) -> str:
        """The instrument's name."""
        return self._name

    @property
    def kind(self) -> MetricKind:
        """The instrument's kind."""
        return self._kind

    @property
    def value_type(self) -> MetricValueType:
        """How the value is represented."""
        return self._value_type

    @property
    def value(self) -> float:
        """The value recorded."""
        return self._value

    @property
    def unit(self) -> str | None:
        """The unit, such as `ms`."""
        return self._unit

    @property
    def description(self) -> str | None:
        """What the instrument measures."""
        return self._description

    @property
    def attributes(self) -> JsonObject | None:
        """A copy of the attributes, keys sorted."""
        return None if self._attributes is None else _copy_attributes(self._attributes)

    @property
    def boundaries(self) -> list[float] | None:
        """A copy of the bucket boundaries."""
        return None if self._boundaries is None else list(self._boundaries)

    def to_dict(self) -> JsonObject:
        """The measurement as `scope.metric` writes it: every key, nulls included."""
        boundaries: list[JsonValue] | None = None
        if self._boundaries is not None:
            boundaries = [*self._boundaries]
        return {
            "attributes": self.attributes,
            "boundaries": boundaries,
            "description": self._description,
            "kind": self._kind.value,
            "name": self._name,
            "unit": self._unit,
            "value": self._value,
            "value_type": self._value_type.value,
        }

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, MetricMeasurement):
            return NotImplemented
        return self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash((self._name, self._kind, self._value_type, self._value, self._unit))

    def __repr__(self) -> str:
        return (
            f"MetricMeasurement(name={self._name!r}, kind={self._kind!r}, "
            f"value_type={self._value_type!r}, value={self._value!r})"
        )


def _copy_attributes(attributes: Mapping[str, JsonValue]) -> JsonObject:
    # Two levels are all that attributes may have; what is deeper, or no mapping at all, is kept as it
    # is for `scope.metric` to name. Keys that are not strings cannot be sorted among strings.
    if not isinstance(attributes, Mapping):
        return attributes
    copies = {key: list(value) if isinstance(value, _SEQUENCES) else value for key, value in attributes.items()}
    if all(isinstance(key, str) for key in copies):
        return dict(sorted(copies.items()))
    return copies


class RuntimeRegistrationKind(enum.StrEnum):
    """The kinds of registration that can be listed and gated: subscribers, and each middleware family."""

    SUBSCRIBER = "subscriber"
    EVENT_METADATA_INJECTOR = "event_metadata_injector"
    MARK_SANITIZE_GUARDRAIL = "mark_sanitize_guardrail"
    SCOPE_SANITIZE_START_GUARDRAIL = "scope_sanitize_start_guardrail"
    SCOPE_SANITIZE_END_GUARDRAIL = "scope_sanitize_end_guardrail"
    TOOL_SANITIZE_REQUEST_GUARDRAIL = "tool_sanitize_request_guardrail"
    TOOL_SANITIZE_RESPONSE_GUARDRAIL = "tool_sanitize_response_guardrail"
    TOOL_CONDITIONAL_EXECUTION_GUARDRAIL = "tool_conditional_execution_guardrail"
    TOOL_REQUEST_INTERCEPT = "tool_request_intercept"
    TOOL_EXECUTION_INTERCEPT = "tool_execution_intercept"
    LLM_SANITIZE_REQUEST_GUARDRAIL = "llm_sanitize_request_guardrail"
    LLM_SANITIZE_RESPONSE_GUARDRAIL = "llm_sanitize_response_guardrail"
    LLM_CONDITIONAL_EXECUTION_GUARDRAIL = "llm_conditional_execution_guardrail"
    LLM_REQUEST_INTERCEPT = "llm_request_intercept"
    LLM_EXECUTION_INTERCEPT = "llm_execution_intercept"
    LLM_STREAM_EXECUTION_INTERCEPT = "llm_stream_execution_intercept"


class RuntimeRegistrationOwnerKind(enum.StrEnum):
    """Who made a registration: the library, the program, or a plugin."""

    CORE = "core"
    GLOBAL_API = "global_api"
    PLUGIN = "plugin"


class RuntimeRegistrationOwner(NamedTuple):
    """Who made a registration; the last two only for a plugin's."""

    kind: RuntimeRegistrationOwnerKind
    plugin_kind: str | None
    component_ordinal: int | None


class RuntimeRegistrationIdentity(NamedTuple):
    """One global registration, as `runtime_registrations.list_runtime_registrations` lists it.

    `effective_name` is what gates match; a plugin's registrations have a `local_name` within it.
    """

    kind: RuntimeRegistrationKind
    local_name: str
    effective_name: str
    owner: RuntimeRegistrationOwner
