"""ASGI 3: a scope for each request, of FastAPI, Starlette, Django, or any application; under every server.

    server ──▶ ScopeMiddleware ──▶ application: inside the request's scope, its streamed body too
    lifespan.shutdown ──▶ what the process's session has is delivered and exported before the server goes on

Runs in the server's workers, in the task that handles the request. A server such as uvicorn ends with SIGTERM's default
action, without the interpreter's exit handlers: the lifespan's end is the last that it calls.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from relay_mp._log import logger
from relay_mp._session.exporting import FLUSH_TIMEOUT_SECONDS, Flushed, wait
from relay_mp._session.membership import current_session
from relay_mp.errors import RelayError
from relay_mp.integrations._request import Request

__all__ = ["ScopeMiddleware"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]


def _method(scope: Message) -> str:
    return str(scope.get("method") or scope["type"].upper())


class ScopeMiddleware:
    """An application that opens a scope for each request and each WebSocket, then calls the one it was given.

        app.add_middleware(ScopeMiddleware)     # FastAPI, Starlette
        app = ScopeMiddleware(app)              # any

    The scope stands under the request's `traceparent` header, if it has one; else it is a root. Its start has the
    method and the path, its end the status: 500 and above is an error, and so is an exception, which goes on to the
    server. Full ring: as any scope, see `relay_mp.scope`; an emit that waits for space blocks the loop, so that
    `on_full="drop"` suits a server that must not wait. Any number of requests at a time.

    When the server ends the application's lifespan, what the session that this process owns has left is delivered and
    exported, for at most `flush_timeout_seconds` and another ten.

    Args:
        app: the ASGI application.
        name: called with the request's ASGI scope, returns the name of ours; by default the method, or WEBSOCKET, for
            exporters that count by name.
    """

    def __init__(self, app: Application, *, name: Callable[[Message], str] = _method) -> None:
        self._app = app
        self._name = name

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One request, one WebSocket, or the lifespan."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, _flushing(send))
        elif scope["type"] in {"http", "websocket"}:
            await self._in_scope(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _in_scope(self, scope: Message, receive: Receive, send: Send) -> None:
        request = Request(
            self._name(scope), _method(scope), str(scope.get("path", "")), _traceparent(scope.get("headers", ()))
        )

        async def seen(message: Message) -> None:
            if message["type"] == "http.response.start":
                request.status = int(message["status"])
            await send(message)

        with request:
            await self._app(scope, receive, seen)


def _traceparent(headers: Any) -> str | None:
    found = [value for name, value in headers if bytes(name).lower() == b"traceparent"]
    return bytes(found[0]).decode("latin-1") if len(found) == 1 else None


def _flushing(send: Send) -> Send:
    async def flush_first(message: Message) -> None:
        if message["type"].startswith("lifespan.shutdown."):
            await asyncio.to_thread(_flush)
        await send(message)

    return flush_first


def _flush() -> None:
    session = current_session()
    if session is None or not session.is_owner or not session.is_open:
        return
    try:
        session.flush()
        wait(session, list(session.exporter_reports()), time.monotonic() + FLUSH_TIMEOUT_SECONDS, Flushed())
    except RelayError as error:
        logger.warning("not everything was delivered and exported as the server ended: %s", error)
