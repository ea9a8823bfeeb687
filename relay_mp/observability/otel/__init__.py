"""OpenTelemetry: traces, logs and metrics over OTLP (extra `otel`).

exporter.py, logs.py, metrics.py                for the program: configuration and exporter of each signal
traces.py, logs_sink.py, metrics_sink.py        where the dispatcher runs: the sink of each signal
full.py, gen_ai.py, openinference.py            projections: which attributes a scope's span has
spans.pyx, otlp.pyx                             from records to spans, and to OTLP's bytes; compiled
transport.py, http.py, grpc.py, environment.py  how it is sent; the `OTEL_*` variables
"""
