"""Import paths that the first README named go on working, wherever what they name lives now."""

import importlib
import subprocess
import sys

import pytest

PATHS = """
relay_mp: AnnotatedLLMRequest AtifExporter AtifFileExporter AtofExporter AtofExporterConfig MetricTemporality
relay_mp: OpenTelemetryConfig OpenTelemetryLogConfig OpenTelemetryLogSubscriber OpenTelemetryMetricConfig
relay_mp: OpenTelemetryMetricSubscriber OpenTelemetrySubscriber PerfettoExporter PrometheusExporter RelayError
relay_mp: ScopeType Session attach capture_propagation_context capture_traceparent create_scope_stack
relay_mp: create_scope_stack_from_propagation propagate_scope_to_thread session set_thread_scope_stack shutdown
relay_mp: use_scope_stack observability plugin pools scope subscribers
relay_mp.codecs: AnthropicMessagesCodec GeminiGenerateContentCodec LlmCodec LlmResponseCodec OCIGenAIChatCodec
relay_mp.codecs: OpenAIChatCodec OpenAIResponsesCodec request_of response_of
relay_mp.event_metadata: register_injector
relay_mp.guardrails: register_llm_conditional_execution register_mark_sanitize register_tool_conditional_execution
relay_mp.guardrails: register_tool_sanitize_request
relay_mp.intercepts: register_llm_execution register_tool_request
relay_mp.llm: call call_end execute stream_execute
relay_mp.observability: AtofConfig AtofFileSinkConfig ComponentSpec Exporter ObservabilityConfig PerfettoConfig exporter
relay_mp.observability.outbox: Limits
relay_mp.observability.sink: Sink
relay_mp.plugin: activate clear initialize register report validate
relay_mp.pools: Pool Process ProcessPoolExecutor ThreadPoolExecutor environ get_context instrument propagate
relay_mp.pools: uninstrument
relay_mp.runtime_registrations: list_runtime_registrations register_conditional_middleware_guardrail
relay_mp.scope: event get_handle metric pop push scope
relay_mp.scope_local: register_subscriber register_tool_execution
relay_mp.subscribers: deregister flush flush_async register
relay_mp.tools: call call_end execute
relay_mp.typed: llm_execute llm_stream_execute tool_execute
"""

NAMED = [(line.split(":")[0], name) for line in PATHS.strip().splitlines() for name in line.split(":")[1].split()]


@pytest.mark.parametrize(("module", "name"), NAMED)
def test_a_path_that_the_first_readme_named_works(module, name):
    assert hasattr(importlib.import_module(module), name)


@pytest.mark.parametrize("module", sorted({module for module, _ in NAMED}))
def test_it_works_as_the_first_import_of_a_program(module):
    names = ", ".join(name for of, name in NAMED if of == module)
    code = f"from {module} import {names}"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr


def test_paths_that_moved_name_the_same_objects():
    assert importlib.import_module("relay_mp.observability.sink").Sink is (
        importlib.import_module("relay_mp.observability.export.sink").Sink
    )
    assert importlib.import_module("relay_mp.observability.outbox").Limits is (
        importlib.import_module("relay_mp.observability.export.batch_queue").Limits
    )
