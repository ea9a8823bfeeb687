"""OpenTelemetry: traces, logs and metrics over OTLP (extra `otel`).

exporter.py                                     for the program: what the exporters of all signals share
traces.py, logs.py, metrics.py                  for the program: configuration and exporter of each signal
traces_sink.py, logs_sink.py, metrics_sink.py   where the dispatcher runs: the sink of each signal
section.py                                      all of them, as a configuration file says it
full.py, gen_ai.py, openinference.py            projections: which attributes a scope's span has
spans.pyx, otlp.pyx, limits.pyx                 from records to spans, and to OTLP's bytes, within limits; compiled
places.pyx                                      which trace an event belongs to; compiled
transport.py, http.py, grpc.py, environment.py  how it is sent; the `OTEL_*` variables
urls.py                                         where a signal goes over HTTP
"""
