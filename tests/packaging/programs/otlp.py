"""`otlp.py PROJECTION`: two scopes to a receiver of this process, over HTTP and over gRPC; says what came, as JSON.

For an environment with one of the extras `otel` and `openinference`, and no more.
"""

import gzip
import json
import os
import sys
import threading
from collections.abc import Callable
from concurrent import futures
from http.server import BaseHTTPRequestHandler, HTTPServer

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

import relay_mp
from relay_mp import OpenTelemetryConfig, OpenTelemetrySubscriber, ScopeType, scope

METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
FLUSH_SECONDS = 30.0
Take = Callable[[ExportTraceServiceRequest], None]


def serve_http(take: Take) -> str:
    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            plain = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
            take(ExportTraceServiceRequest.FromString(plain))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            return None

    server = HTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def serve_grpc(take: Take) -> str:
    def export(request: ExportTraceServiceRequest, _context: object) -> ExportTraceServiceResponse:
        take(request)
        return ExportTraceServiceResponse()

    class Service(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
            if details.method != METHOD:
                return None
            return grpc.unary_unary_rpc_method_handler(
                export, ExportTraceServiceRequest.FromString, ExportTraceServiceResponse.SerializeToString
            )

    server = grpc.server(futures.ThreadPoolExecutor(1), handlers=[Service()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return f"http://127.0.0.1:{port}"


def exported(projection: str, transport: str) -> dict[str, list[str]]:
    """By span name, the attributes that came."""
    found: dict[str, list[str]] = {}

    def take(request: ExportTraceServiceRequest) -> None:
        for resource in request.resource_spans:
            for sent in resource.scope_spans:
                found.update({span.name: sorted(pair.key for pair in span.attributes) for span in sent.spans})

    config = OpenTelemetryConfig(projection, {"grpc": serve_grpc, "http_binary": serve_http}[transport](take))
    config.transport = transport
    with relay_mp.session():
        exporter = OpenTelemetrySubscriber(config)
        exporter.register("otlp")
        with scope.scope("run", ScopeType.Agent), scope.scope("search", ScopeType.Tool, input={"query": "ring"}):
            pass
        relay_mp.subscribers.flush(timeout=FLUSH_SECONDS)
        exporter.force_flush()
        exporter.shutdown()
    return found


if __name__ == "__main__":
    print(json.dumps({transport: exported(sys.argv[1], transport) for transport in ("http_binary", "grpc")}))
