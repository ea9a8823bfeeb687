"""WSGI (PEP 3333): a scope for each request, of Flask, Django, or any application; under every server.

    server ──▶ ScopeMiddleware ──▶ application: inside the request's scope
           ◀── each piece of the body: made inside the scope, read by the server outside of it
           ──▶ close(): the scope ends

Runs in the server's workers, in whichever thread or greenlet handles the request.
"""

from collections.abc import Callable, Iterable, Iterator
from contextvars import Context, copy_context
from typing import Any

from relay_mp.integrations._request import Request

__all__ = ["ScopeMiddleware"]


def _method(environ: dict[str, Any]) -> str:
    return str(environ.get("REQUEST_METHOD", "GET"))


def _file_wrapper(environ: dict[str, Any]) -> tuple[type, ...]:
    wrapper = environ.get("wsgi.file_wrapper")
    return (wrapper,) if isinstance(wrapper, type) else ()


class ScopeMiddleware:
    """An application that opens a scope for each request, then calls the one it was given.

        application = ScopeMiddleware(application)

    The scope stands under the request's `traceparent` header, if it has one; else it is a root. Its start has the
    method and the path, its end the status: 500 and above is an error, and so is an exception, which goes on to the
    server. It spans the body: the scope is current while the application makes the body, and not while the server
    reads it. Full ring: as any scope, see `relay_mp.scope`. Any number of requests at a time.

    Args:
        application: the WSGI application.
        name: called with the environ, returns the scope's name; by default the method, for exporters that count by
            name.
    """

    def __init__(
        self, application: Callable[..., Iterable[bytes]], *, name: Callable[[dict[str, Any]], str] = _method
    ) -> None:
        self._application = application
        self._name = name

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """One request."""
        method, path = _method(environ), str(environ.get("SCRIPT_NAME", "")) + str(environ.get("PATH_INFO", ""))
        request = Request(self._name(environ), method, path, environ.get("HTTP_TRACEPARENT"))
        context = copy_context()

        def start(status: str, headers: Any, *error: Any) -> Any:
            request.status = int(status.split(" ", 1)[0])
            return start_response(status, headers, *error)

        context.run(request.__enter__)
        try:
            body = context.run(self._application, environ, start)
        except BaseException as error:
            context.run(request.__exit__, type(error), error, error.__traceback__)
            raise
        if isinstance(body, (list, tuple, *_file_wrapper(environ))):
            # Complete: as the server gets it from the application, which it may send faster.
            context.run(request.__exit__, None, None, None)
            return body
        return _Body(body, request, context)


class _Body:
    """What the application returned, each piece made in the request's context; its end is the scope's."""

    def __init__(self, body: Iterable[bytes], request: Request, context: Context) -> None:
        self._body, self._request, self._context = body, request, context
        self._pieces: Iterator[bytes] | None = None
        self._is_over = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            if self._pieces is None:
                self._pieces = self._context.run(iter, self._body)
            return self._context.run(next, self._pieces)
        except StopIteration:
            raise
        except BaseException as error:
            self._end(error)
            raise

    def close(self) -> None:
        """Called by the server when it has read the body, or will not read on."""
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                self._context.run(close)
        except BaseException as error:
            self._end(error)
            raise
        self._end(None)

    def _end(self, error: BaseException | None) -> None:
        if not self._is_over:
            self._is_over = True
            self._context.run(
                self._request.__exit__, type(error) if error else None, error, error.__traceback__ if error else None
            )
