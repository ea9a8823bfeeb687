"""The middleware for ASGI and WSGI, called as servers call it."""

import asyncio
import contextvars
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

import pytest

import relay_mp
from relay_mp import ScopeType, scope
from relay_mp.integrations import asgi, wsgi

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def spans(seen):
    """Each scope's name: its start, its end."""
    found: dict[str, list[relay_mp.Event]] = {}
    for event in seen:
        if event.kind == "scope":
            found.setdefault(event.name, []).append(event)
    return found


# ---- WSGI ----


def call_wsgi(application, *, method="GET", **environ):
    """What a server does: the status, and the body's pieces, each with the scope that is current where it is read."""
    given = {"REQUEST_METHOD": method, "PATH_INFO": "/items", **environ}
    setup_testing_defaults(given)
    status = []

    def start_response(line, headers, *error):
        status.append(line)
        return lambda piece: None

    body = application(given, start_response)
    try:
        pieces = [(piece, scope.get_handle().name) for piece in body]
    finally:
        if hasattr(body, "close"):
            body.close()
    return status[0], pieces


def streams(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    with scope.scope("body", ScopeType.Function):
        for number in range(3):
            scope.event(f"piece {number}")
            yield b"%d" % number


def test_the_body_is_made_inside_the_scope_and_read_outside_of_it(session, seen):
    status, pieces = call_wsgi(
        wsgi.ScopeMiddleware(validator(streams)), HTTP_TRACEPARENT=TRACEPARENT, SCRIPT_NAME="/api"
    )
    session.flush()
    assert (status, pieces) == ("200 OK", [(b"0", "root"), (b"1", "root"), (b"2", "root")])
    (start, end), body = spans(seen)["GET"], spans(seen)["body"]
    assert start.parent_uuid.replace("-", "").endswith("b7ad6b7169203331")
    assert (start.data, end.data) == ({"method": "GET", "path": "/api/items"}, {"status": 200})
    assert end.metadata["otel.status_code"] == "OK"
    assert body[0].parent_uuid == start.uuid
    assert {event.parent_uuid for event in seen if event.kind == "mark"} == {body[0].uuid}
    assert seen[-1] is end


@pytest.mark.parametrize("traceparent", ["", "nonsense", "00-" + "0" * 32 + "-b7ad6b7169203331-01"])
def test_a_malformed_traceparent_makes_a_root(session, seen, traceparent):
    call_wsgi(wsgi.ScopeMiddleware(streams), HTTP_TRACEPARENT=traceparent)
    session.flush()
    assert spans(seen)["GET"][0].parent_uuid == scope.get_handle().uuid


def test_an_exception_is_the_scopes_end_and_goes_on(session, seen):
    def fails(environ, start_response):
        raise LookupError("before")

    def fails_later(environ, start_response):
        start_response("200 OK", [])
        yield b"1"
        raise LookupError("in the body")

    for application in (fails, fails_later):
        with pytest.raises(LookupError):
            call_wsgi(wsgi.ScopeMiddleware(application))
    session.flush()
    ends = spans(seen)["GET"][1::2]
    assert [end.metadata["exception.message"] for end in ends] == ["before", "in the body"]
    assert {end.metadata["otel.status_code"] for end in ends} == {"ERROR"}


def test_a_server_that_does_not_read_on_ends_the_scope(session, seen):
    given = {"PATH_INFO": "/"}
    setup_testing_defaults(given)
    body = wsgi.ScopeMiddleware(streams)(given, lambda *_: None)
    assert next(iter(body)) == b"0"
    body.close()
    body.close()
    session.flush()
    assert [len(events) for events in spans(seen).values()] == [2, 2]


def test_what_is_complete_is_handed_to_the_server_as_it_is(session, seen):
    whole = [b"a", b"b"]
    middleware = wsgi.ScopeMiddleware(lambda environ, start: whole)
    given = {"wsgi.file_wrapper": FileWrapper}
    setup_testing_defaults(given)
    assert middleware(given, lambda *_: None) is whole
    import io

    file = FileWrapper(io.BytesIO(b"text"))
    assert wsgi.ScopeMiddleware(lambda environ, start: file)(given, lambda *_: None) is file


def test_the_name_is_the_programs_to_choose_and_500_is_an_error(session, seen):
    def fails(environ, start_response):
        start_response("503 Busy", [])
        return []

    call_wsgi(wsgi.ScopeMiddleware(fails, name=lambda environ: "GET " + environ["PATH_INFO"]))
    session.flush()
    end = spans(seen)["GET /items"][1]
    assert (end.data, end.metadata["otel.status_code"]) == ({"status": 503}, "ERROR")


def test_requests_in_between_do_not_see_each_other(session, seen):
    """A server reads several bodies in turn in one thread, as gevent's does."""
    bodies = []
    for _ in range(3):
        given = {}
        setup_testing_defaults(given)
        bodies.append(wsgi.ScopeMiddleware(streams)(given, lambda *_: None))
    for _ in range(3):
        for body in bodies:
            next(iter(body))
    for body in bodies:
        body.close()
    session.flush()
    assert scope.get_handle().name == "root"
    starts = [event for event in seen if event.name == "GET" and event.scope_category == "start"]
    bodies = {
        event.uuid: event.parent_uuid for event in seen if event.name == "body" and event.scope_category == "start"
    }
    assert sorted(bodies.values()) == sorted(start.uuid for start in starts)
    marks = [bodies[event.parent_uuid] for event in seen if event.kind == "mark"]
    assert {start.uuid: 3 for start in starts} == {uuid: marks.count(uuid) for uuid in marks}


# ---- ASGI ----


async def call_asgi(app, *, kind="http", headers=()):
    sent = []

    async def receive():
        return {"type": "http.request", "body": b""}

    async def send(message):
        sent.append(message)

    await app({"type": kind, "method": "POST", "path": "/items", "headers": headers}, receive, send)
    return sent


async def answers(request, receive, send):
    scope.event("inside")
    await send({"type": "http.response.start", "status": 201, "headers": []})
    await send({"type": "http.response.body", "body": b"1"})


def test_a_request_is_a_scope_under_the_callers_trace(session, seen):
    headers = [(b"Traceparent", TRACEPARENT.encode()), (b"x", b"\xff")]
    sent = asyncio.run(call_asgi(asgi.ScopeMiddleware(answers), headers=headers))
    session.flush()
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    start, end = spans(seen)["POST"]
    assert start.parent_uuid.replace("-", "").endswith("b7ad6b7169203331")
    assert (start.data, end.data) == ({"method": "POST", "path": "/items"}, {"status": 201})
    assert [event.parent_uuid for event in seen if event.name == "inside"] == [start.uuid]


def test_requests_at_a_time_do_not_see_each_other(session, seen):
    async def waits(request, receive, send):
        await asyncio.sleep(0)
        await answers(request, receive, send)

    async def main():
        await asyncio.gather(*(call_asgi(asgi.ScopeMiddleware(waits)) for _ in range(5)))

    asyncio.run(main())
    session.flush()
    starts = {event.uuid for event in seen if event.name == "POST" and event.scope_category == "start"}
    assert {event.parent_uuid for event in seen if event.name == "inside"} == starts
    assert len(starts) == 5


def test_a_failing_request_says_so_and_the_server_gets_the_exception(session, seen):
    async def fails(request, receive, send):
        raise LookupError("it")

    with pytest.raises(LookupError):
        asyncio.run(call_asgi(asgi.ScopeMiddleware(fails, name=lambda request: request["path"])))
    session.flush()
    assert spans(seen)["/items"][1].metadata["exception.type"].endswith("LookupError")


def test_a_websocket_is_a_scope_and_what_is_unknown_goes_through(session, seen):
    async def takes(request, receive, send):
        scope.event(request["type"])

    app = asgi.ScopeMiddleware(takes)

    async def main():
        await app({"type": "websocket", "path": "/ws", "headers": []}, None, None)
        await app({"type": "other"}, None, None)

    asyncio.run(main())
    session.flush()
    assert list(spans(seen)) == ["WEBSOCKET"]
    assert [event.name for event in seen if event.kind == "mark"] == ["websocket", "other"]


def test_the_lifespans_end_delivers_and_exports(tmp_path):
    """What the server does next may be to die."""
    found = []

    async def lifespan(request, receive, send):
        scope.event("last")
        await send({"type": "lifespan.shutdown.complete"})

    async def send(message):
        found.append((message["type"], (tmp_path / "events.jsonl").read_text().count("last")))

    with relay_mp.session():
        config = relay_mp.AtofExporterConfig()
        config.output_directory, config.filename = str(tmp_path), "events.jsonl"
        relay_mp.AtofExporter(config).register("file")
        asyncio.run(asgi.ScopeMiddleware(lifespan)({"type": "lifespan"}, None, send))
    assert found == [("lifespan.shutdown.complete", 1)]


def test_variables_of_the_context_are_the_applications_own(session, seen):
    """What the application sets for its body is there, and is not left behind."""
    variable = contextvars.ContextVar("variable", default=0)

    def application(environ, start_response):
        start_response("200 OK", [])
        variable.set(7)
        return (b"%d" % variable.get() for _ in range(1))

    assert call_wsgi(wsgi.ScopeMiddleware(application)) == ("200 OK", [(b"7", "root")])
    assert variable.get() == 0
