"""OpenTelemetry traces, as the program sees them: scopes, exported as spans over OTLP.

Needs the extra: `pip install relay_mp[otel]`.
"""

from typing import Any, Literal, TypeAlias, get_args

from relay_mp.errors import described_type
from relay_mp.observability.export.sink import MAX_OPEN_BYTES, MAX_OPEN_SCOPES
from relay_mp.observability.otel.exporter import OtlpConfig, OtlpSubscriber, check_choice, check_count, check_limits

__all__ = ["OpenTelemetryConfig", "OpenTelemetrySubscriber", "otel_traces"]

Projection: TypeAlias = Literal["full", "gen_ai", "openinference"]
MarkProjection: TypeAlias = Literal["inherit", "event", "tool"]


SPAN_LIMITS = (
    "attribute_value_length_limit",
    "attribute_count_limit",
    "event_attribute_count_limit",
    "event_count_limit",
)


class OpenTelemetryConfig(OtlpConfig):
    """Where and how spans are exported. Attributes may be set until the subscriber is made; see OtlpConfig for more.

    Args:
        otel_type: the projection, the attribute `type`.
        endpoint: see OtlpConfig; may be left out here.

    Attributes:
        type: "full": all that the events say, under `relay_mp.*`; "gen_ai": OpenTelemetry's conventions
            for generative AI, and no more; "openinference": OpenInference's, and what they have no word for.
        mark_projection: a mark under a scope that is open: "event": an event of its span; "tool": a span of
            its own, of no length, shown as a tool; "inherit": as the projection has it, an event, and nothing
            with "gen_ai".
        mark_exclude_names: marks that are left out.
        attribute_mappings: `[{"key": ..., "alias": ...}]`: a span's attribute gets a second name; not
            with "gen_ai".
        promote_metadata_prefixes: metadata whose keys begin so become attributes of spans under their own
            names.
        promote_resource_metadata_prefixes: the same, as attributes of the resource.
        completed_span_context_ttl_millis: how long it is remembered which trace a scope was of that has
            ended, for what comes late.
        max_open_scopes: scopes whose end is waited for; the oldest is exported as unfinished beyond that.
        max_open_bytes: what is kept of them, as the records of their starts and the span events of their marks; beyond
            that the oldest lose their payloads, for which `relay_mp.cut` stands, and if that is not enough the oldest
            is exported as unfinished. Default: 64 MiB.
        max_attribute_bytes: of one attribute's value; what is longer is cut, and says so. Default: 2 MiB, the largest
            event of the default ring.
        max_span_events: marks that become events of one span; further ones become spans of their own. Without effect
            where `event_count_limit` is set.
        attribute_value_length_limit: characters of a text in an attribute of a span or event; the rest is cut off.
            None: OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT, OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT, else no limit.
        attribute_count_limit: attributes of a span; further ones are left out, and the span says how many. None:
            OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT, OTEL_ATTRIBUTE_COUNT_LIMIT, else no limit.
        event_attribute_count_limit: the same for an event of a span. None: OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT,
            OTEL_ATTRIBUTE_COUNT_LIMIT, else no limit.
        event_count_limit: events of a span; further marks are dropped ("event_limit"), and the span says how many.
            None: OTEL_SPAN_EVENT_COUNT_LIMIT, else no limit but `max_span_events`.
    """

    __slots__ = (
        "attribute_count_limit",
        "attribute_mappings",
        "attribute_value_length_limit",
        "completed_span_context_ttl_millis",
        "event_attribute_count_limit",
        "event_count_limit",
        "mark_exclude_names",
        "mark_projection",
        "max_attribute_bytes",
        "max_open_bytes",
        "max_open_scopes",
        "max_span_events",
        "promote_metadata_prefixes",
        "promote_resource_metadata_prefixes",
        "type",
    )

    def __init__(self, otel_type: Projection, endpoint: str = "") -> None:
        super().__init__(endpoint)
        self.type: Projection = otel_type
        self.mark_projection: MarkProjection = "inherit"
        self.mark_exclude_names: list[str] = ["llm.chunk"]
        self.attribute_mappings: list[dict[str, str]] = []
        self.promote_metadata_prefixes: list[str] = []
        self.promote_resource_metadata_prefixes: list[str] = []
        self.completed_span_context_ttl_millis = 60_000
        self.max_open_scopes = MAX_OPEN_SCOPES
        self.max_open_bytes = MAX_OPEN_BYTES
        self.max_attribute_bytes = 2 << 20
        self.max_span_events = 1000
        self.attribute_value_length_limit: int | None = None
        self.attribute_count_limit: int | None = None
        self.event_attribute_count_limit: int | None = None
        self.event_count_limit: int | None = None

    def arguments(self) -> dict[str, Any]:
        """The sink's arguments, JSON types only.

        Raises:
            TypeError, ValueError: an attribute is not what it should be.
        """
        check_choice("type", self.type, get_args(Projection))
        check_choice("mark_projection", self.mark_projection, get_args(MarkProjection))
        for name in ("mark_exclude_names", "promote_metadata_prefixes", "promote_resource_metadata_prefixes"):
            _check_list(name, getattr(self, name))
        for mapping in self.attribute_mappings:
            if set(mapping) != {"key", "alias"} or not all(isinstance(text, str) and text for text in mapping.values()):
                raise ValueError(f"attribute_mappings has {mapping!r}; expected {{'key': ..., 'alias': ...}}")
        check_count("completed_span_context_ttl_millis", self.completed_span_context_ttl_millis, 0)
        check_count("max_open_scopes", self.max_open_scopes, 1)
        check_count("max_open_bytes", self.max_open_bytes, 1)
        check_count("max_attribute_bytes", self.max_attribute_bytes, 16)
        check_count("max_span_events", self.max_span_events, 0)
        check_limits(self, SPAN_LIMITS)
        own = {name: getattr(self, name) for name in OpenTelemetryConfig.__slots__}
        return {"connection": self.connection(), "projection": own.pop("type"), **own}


class OpenTelemetrySubscriber(OtlpSubscriber):
    """Exports scopes as spans, over OTLP.

    A span is sent when its scope has ended. Its id is the last half of the scope's uuid, its trace's id the
    outermost scope's uuid, or that of the `traceparent` it came under: every exporter in every process says the
    same. Scopes that have not ended at shutdown are sent as they are, with `relay_mp.unfinished`, and counted.
    Ends whose start was not seen, as after the kill of a dispatcher process, become spans of no length with
    `relay_mp.orphan`, and are counted.

    The receiver is never waited for by the dispatcher: spans are queued, up to bounds (`limits`), and sent by a
    thread, which repeats what failed for the moment. Of a receiver that is down, slow or refuses, all that the
    program sees are the counts in `report()`, `runtime_diagnostics()` and `session.stats().exporters`.

    Args:
        config: read now; later changes to it have no effect.

    Raises:
        TypeError, ValueError: it holds what it should not.
    """

    signal = "traces"

    def __init__(self, config: OpenTelemetryConfig) -> None:
        if not isinstance(config, OpenTelemetryConfig):
            raise TypeError(f"config is {described_type(config)}; expected OpenTelemetryConfig")
        super().__init__("relay_mp.observability.otel.traces_sink:TracesSink", config.arguments())


def otel_traces(projection: Projection, connection: dict[str, Any] | None = None, **settings: Any) -> Any:
    """The kind of exporter of that name: a sink.

    Args:
        projection: see OpenTelemetryConfig.
        connection: what is not at its default of an OtlpConfig.
        settings: the other attributes of an OpenTelemetryConfig.
    """
    return OpenTelemetrySubscriber(OpenTelemetryConfig(projection)).kind(connection, **settings)


def _check_list(name: str, value: object) -> None:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise TypeError(f"{name} is {value!r:.80}; expected a list of str")
