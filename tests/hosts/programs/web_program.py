"""Applications for the servers' own programs: see run_servers.py and test_servers.py."""

import asyncio
import os
import sys

import workload

from relay_mp import scope
from relay_mp.integrations import asgi, wsgi

if "TOUCHED" in os.environ:  # what a server that reloads watches
    sys.path.insert(0, os.path.dirname(os.environ["TOUCHED"]))
    import touched  # noqa: F401


def _answer(path):
    if path.startswith("/die"):
        workload.dies()
    if path.startswith("/fail"):
        raise LookupError("it")
    if path.startswith("/task/"):
        workload.work(int(path.removeprefix("/task/")))
    return str(os.getpid()).encode()


def _wsgi(environ, start_response):
    path = environ["PATH_INFO"]
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield _answer(path)
    _stream(path)


async def _asgi(request, receive, send):
    if request["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    await asyncio.sleep(0)
    body = _answer(request["path"])
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    _stream(request["path"])
    await send({"type": "http.response.body", "body": b""})


def _stream(path):
    if not path.startswith("/task/"):  # which may leave a scope open, under which this would stand
        scope.event("streamed", data=path)


wsgi_application = wsgi.ScopeMiddleware(_wsgi)
asgi_application = asgi.ScopeMiddleware(_asgi)

if os.environ.get("OWN_SESSION"):  # a server of one process: the session begins where the application is made
    import relay_mp

    config = relay_mp.AtofExporterConfig()
    config.sink_type, config.url = "stream", os.environ["OWN_SESSION"]
    relay_mp.AtofExporter(config).register("stream")
