"""One event stream for agents that run in many processes.

Data flows one way:

    scope, tools, llm, subscribers, guardrails, ...   the public verbs, one concept a file
    _emit                     context and the compiled verbs: runs in every process
    _native                   C and Cython: encode, ring, producers' slots; knows no event's meaning
    _deliver                  dispatcher, subscriptions, liveness: where the dispatcher runs
    _session                  a session's life: create, attach, flush, statistics, recover, close
    observability             exporters; loaded on first use
    plugin                    configurations of middleware and exporters; loaded on first use
    cli, _runs, _bench        the command line, recorded runs, and what measures; loaded by the command only
    testing                   for the tests of programs that emit events
    codecs, annotated         providers' requests and responses, in one view; loaded on first use
    pricing                   what LLM calls cost; loaded on first use
    typed                     managed calls on your own types; loaded on first use
    pools                     multiprocessing and concurrent.futures, with the scope carried along;
                              loaded on first use, for it imports both

Names are those of the `nemo_relay` package where it has them.
"""

from typing import TYPE_CHECKING

from relay_mp import (
    event_metadata,
    guardrails,
    intercepts,
    llm,
    runtime_registrations,
    scope,
    scope_local,
    subscribers,
    tools,
)
from relay_mp._emit.callbacks import (
    EventMetadataInjector,
    EventSanitizeFields,
    EventSanitizeGuardrail,
    LlmConditionalExecutionGuardrail,
    LlmExecutionIntercept,
    LlmRequestIntercept,
    LlmSanitizeRequestGuardrail,
    LlmSanitizeResponseGuardrail,
    LlmStreamExecutionIntercept,
    ToolConditionalExecutionGuardrail,
    ToolExecutionIntercept,
    ToolRequestIntercept,
    ToolSanitizeGuardrail,
)
from relay_mp._emit.calls import (
    LLMHandle,
    LLMRequest,
    LLMRequestInterceptOutcome,
    PendingMarkSpec,
    ToolExecutionInterceptOutcome,
    ToolExecutionResult,
    ToolHandle,
)
from relay_mp._emit.context import (
    ScopeStack,
    create_scope_stack,
    fork_asyncio_context,
    get_scope_stack,
    propagate_scope_to_thread,
    scope_stack_active,
    set_thread_scope_stack,
    use_scope_stack,
)
from relay_mp._emit.handle import ScopeHandle
from relay_mp._emit.llm_codec import LlmCodecIdentity, LlmSanitizeRequestContext, LlmSanitizeResponseContext
from relay_mp._emit.llm_stream import LlmStream, LlmSyncStream
from relay_mp._emit.propagation import (
    PropagationContext,
    capture_propagation_context,
    capture_propagation_context_with_root,
    capture_traceparent,
    create_scope_stack_from_propagation,
)
from relay_mp._native.core import is_dispatching
from relay_mp._session.flush import FlushResult
from relay_mp._session.membership import attach, current_session, session, shutdown
from relay_mp._session.recovery import recover
from relay_mp._session.session import Session, SessionHandle
from relay_mp._session.settings import Settings
from relay_mp._session.stats import ProcessStats, Stats
from relay_mp.errors import (
    CallbackError,
    CodecError,
    ConfigurationError,
    FileTakenError,
    FlushError,
    FlushTimeoutError,
    MiddlewareError,
    PayloadError,
    PluginConfigError,
    PluginError,
    PropagationError,
    RecordError,
    RegistryFullError,
    RejectedError,
    RelayError,
    ScopeError,
    SegmentError,
    SessionError,
    SubscriberError,
)
from relay_mp.events import Event, MarkEvent, ScopeEvent
from relay_mp.types import (
    DataSchema,
    Json,
    JsonObject,
    LLMAttributes,
    LogSeverity,
    MetricKind,
    MetricMeasurement,
    MetricTemporality,
    MetricValueType,
    ScopeAttributes,
    ScopeType,
    ToolAttributes,
)

__all__ = [
    "AnnotatedLLMRequest",
    "AnnotatedLLMResponse",
    "AtifExporter",
    "AtifFileExporter",
    "AtofExporter",
    "AtofExporterConfig",
    "AtofExporterMode",
    "Batch",
    "CallbackError",
    "CodecError",
    "ConfigurationError",
    "DataSchema",
    "Event",
    "EventMetadataInjector",
    "EventSanitizeFields",
    "EventSanitizeGuardrail",
    "FileTakenError",
    "FlushError",
    "FlushResult",
    "FlushTimeoutError",
    "Json",
    "JsonObject",
    "LLMAttributes",
    "LLMHandle",
    "LLMRequest",
    "LLMRequestInterceptOutcome",
    "LlmCodecIdentity",
    "LlmConditionalExecutionGuardrail",
    "LlmExecutionIntercept",
    "LlmRequestIntercept",
    "LlmSanitizeRequestContext",
    "LlmSanitizeRequestGuardrail",
    "LlmSanitizeResponseContext",
    "LlmSanitizeResponseGuardrail",
    "LlmStream",
    "LlmStreamExecutionIntercept",
    "LlmSyncStream",
    "LogSeverity",
    "MarkEvent",
    "MetricKind",
    "MetricMeasurement",
    "MetricTemporality",
    "MetricValueType",
    "MiddlewareError",
    "OpenTelemetryConfig",
    "OpenTelemetryLogConfig",
    "OpenTelemetryLogSubscriber",
    "OpenTelemetryMetricConfig",
    "OpenTelemetryMetricSubscriber",
    "OpenTelemetryRuntimeDiagnostic",
    "OpenTelemetryRuntimeDiagnostics",
    "OpenTelemetrySubscriber",
    "PayloadError",
    "PendingMarkSpec",
    "PerfettoExporter",
    "PerfettoExporterMode",
    "PluginConfigError",
    "PluginError",
    "ProcessStats",
    "PrometheusExporter",
    "PropagationContext",
    "PropagationError",
    "RecordError",
    "RegistryFullError",
    "RejectedError",
    "RelayError",
    "ScopeAttributes",
    "ScopeError",
    "ScopeEvent",
    "ScopeHandle",
    "ScopeStack",
    "ScopeType",
    "SegmentError",
    "Session",
    "SessionError",
    "SessionHandle",
    "SessionInfo",
    "Settings",
    "Stats",
    "SubscriberError",
    "ToolAttributes",
    "ToolConditionalExecutionGuardrail",
    "ToolExecutionIntercept",
    "ToolExecutionInterceptOutcome",
    "ToolExecutionResult",
    "ToolHandle",
    "ToolRequestIntercept",
    "ToolSanitizeGuardrail",
    "Watch",
    "attach",
    "capture_propagation_context",
    "capture_propagation_context_with_root",
    "capture_traceparent",
    "codecs",
    "create_scope_stack",
    "create_scope_stack_from_propagation",
    "current_session",
    "event_metadata",
    "fork_asyncio_context",
    "get_scope_stack",
    "guardrails",
    "intercepts",
    "is_dispatching",
    "llm",
    "observability",
    "plugin",
    "pools",
    "pricing",
    "propagate_scope_to_thread",
    "recover",
    "runtime_registrations",
    "scope",
    "scope_local",
    "scope_stack_active",
    "session",
    "sessions",
    "set_thread_scope_stack",
    "shutdown",
    "subscribers",
    "tools",
    "typed",
    "use_scope_stack",
    "watch",
]


if TYPE_CHECKING:
    from relay_mp import codecs, observability, plugin, pools, pricing, typed
    from relay_mp._session.seen import SessionInfo, sessions
    from relay_mp._session.watch import Batch, Watch, watch
    from relay_mp.annotated import AnnotatedLLMRequest, AnnotatedLLMResponse
    from relay_mp.observability.atif.exporter import AtifExporter, AtifFileExporter
    from relay_mp.observability.atof.exporter import AtofExporter, AtofExporterConfig, AtofExporterMode
    from relay_mp.observability.otel.exporter import OpenTelemetryRuntimeDiagnostic, OpenTelemetryRuntimeDiagnostics
    from relay_mp.observability.otel.logs import OpenTelemetryLogConfig, OpenTelemetryLogSubscriber
    from relay_mp.observability.otel.metrics import OpenTelemetryMetricConfig, OpenTelemetryMetricSubscriber
    from relay_mp.observability.otel.traces import OpenTelemetryConfig, OpenTelemetrySubscriber
    from relay_mp.observability.perfetto.exporter import PerfettoExporter, PerfettoExporterMode
    from relay_mp.observability.prometheus.exporter import PrometheusExporter

    __version__: str
else:
    _LOADED_LATE = {
        "AnnotatedLLMRequest": "annotated",
        "AnnotatedLLMResponse": "annotated",
        "OpenTelemetryConfig": "observability.otel.traces",
        "OpenTelemetryLogConfig": "observability.otel.logs",
        "OpenTelemetryLogSubscriber": "observability.otel.logs",
        "OpenTelemetryMetricConfig": "observability.otel.metrics",
        "OpenTelemetryMetricSubscriber": "observability.otel.metrics",
        "OpenTelemetryRuntimeDiagnostic": "observability.otel.exporter",
        "OpenTelemetryRuntimeDiagnostics": "observability.otel.exporter",
        "OpenTelemetrySubscriber": "observability.otel.traces",
        "AtifExporter": "observability.atif.exporter",
        "AtifFileExporter": "observability.atif.exporter",
        "AtofExporter": "observability.atof.exporter",
        "AtofExporterConfig": "observability.atof.exporter",
        "AtofExporterMode": "observability.atof.exporter",
        "PerfettoExporter": "observability.perfetto.exporter",
        "PerfettoExporterMode": "observability.perfetto.exporter",
        "PrometheusExporter": "observability.prometheus.exporter",
        "Batch": "_session.watch",
        "SessionInfo": "_session.seen",
        "Watch": "_session.watch",
        "codecs": "codecs",
        "observability": "observability",
        "plugin": "plugin",
        "pools": "pools",
        "pricing": "pricing",
        "sessions": "_session.seen",
        "typed": "typed",
        "watch": "_session.watch",
    }

    def __getattr__(name):
        # What a worker that only emits has no use for: together they take longer to load than all the rest.
        if name in _LOADED_LATE:
            from importlib import import_module

            found = import_module(f"relay_mp.{_LOADED_LATE[name]}")
            return found if name == _LOADED_LATE[name] else getattr(found, name)
        if name == "__version__":
            from importlib.metadata import version

            return version("relay_mp")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__():
        return sorted({*globals(), *__all__})
