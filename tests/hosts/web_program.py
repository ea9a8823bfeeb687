"""Applications for the servers' own programs: see test_servers.py."""

import asyncio
import os
import time

from relay_mp import ScopeType, scope
from relay_mp.integrations import asgi, wsgi


def _work(path):
    if path.startswith("/die"):
        scope.event("last words")
        os.kill(os.getpid(), 9)
    if path.startswith("/fail"):
        raise LookupError("it")
    with scope.scope(f"work {path}", ScopeType.Tool):
        time.sleep(0.01)
        return str(os.getpid()).encode()


def _wsgi(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield _work(environ["PATH_INFO"])
    scope.event("streamed", data=environ["PATH_INFO"])


async def _asgi(request, receive, send):
    if request["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    await asyncio.sleep(0)
    body = _work(request["path"])
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    scope.event("streamed", data=request["path"])
    await send({"type": "http.response.body", "body": b""})


wsgi_application = wsgi.ScopeMiddleware(_wsgi)
asgi_application = asgi.ScopeMiddleware(_asgi)

if os.environ.get("OWN_SESSION"):  # a server of one process: the session begins where the application is made
    import relay_mp

    config = relay_mp.AtofExporterConfig()
    config.sink_type, config.url = "stream", os.environ["OWN_SESSION"]
    relay_mp.AtofExporter(config).register("stream")
