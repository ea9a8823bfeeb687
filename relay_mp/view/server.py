"""HTTP for the page, on the loopback of this machine and for whoever has the token.

    GET /<launch>                    once: redirects the browser that the command starts to the page
    GET /<token>/                    the page; its modules and its style beside it, compressed
    GET /<token>/events              server-sent events: batches of columns, and what is said of the runs
    GET /<token>/scope/<row>         the events of one row, payloads and all
    GET /<token>/row/<uuid>          the row of a scope
    GET /<token>/search?text=...     rows whose payloads contain a text
    GET /<token>/download/<run>      the run's lines
    GET /<token>/trace/<run>         the run as a trace for Perfetto

Every answer needs the token, which only the user's terminal shows, and a Host that is this server: a page of another
site cannot read from it, also not under a name that it has pointed to 127.0.0.1. What has an Origin must have this one.
The page may load nothing from elsewhere (Content-Security-Policy). The browser is started with a token that serves
once, since other users of the machine can read the arguments of a process. Nothing can be changed: there is only GET.
"""

import base64
import contextlib
import gzip
import hmac
import json
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from relay_mp._log import logger
from relay_mp.view.rows import Batch, Cursor, Rows, Run
from relay_mp.view.search import search
from relay_mp.view.trace import trace_of

__all__ = ["ViewServer"]

BATCH_ROWS = 20_000
"""Rows of one server-sent event."""
POLL_SECONDS = 0.1
BEAT_SECONDS = 1.0
"""So often a stream says how its runs are, also where nothing happens."""
MAX_STREAMS = 32
"""Pages that are served at once."""
TOKEN_BYTES = 24

_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class ViewServer(ThreadingHTTPServer):
    """Serves rows until `shutdown`.

    Args:
        rows: what the page shows.
        port: of 127.0.0.1; 0: any that is free.

    Attributes:
        url: of the page; who has it sees everything.
        launch_url: leads to the page, once.

    Raises:
        OSError: the port is taken.
    """

    daemon_threads = False  # `server_close` waits for them: what they answer from is still there

    def __init__(self, rows: Rows, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.rows = rows
        self.token = secrets.token_urlsafe(TOKEN_BYTES)
        self._launch: str | None = secrets.token_urlsafe(TOKEN_BYTES)
        self.hosts = {f"{name}:{self.server_port}" for name in ("127.0.0.1", "localhost")}
        self.streams = threading.BoundedSemaphore(MAX_STREAMS)
        self.is_closing = threading.Event()
        self._connections: set[socket.socket] = set()
        root = resources.files("relay_mp.view") / "page"
        files = {file.name: file.read_bytes() for file in root.iterdir() if _type_of(file.name)}
        self.files = {name: (content, gzip.compress(content)) for name, content in files.items()}
        self.url = f"http://127.0.0.1:{self.server_port}/{self.token}/"
        self.launch_url = f"http://127.0.0.1:{self.server_port}/{self._launch}"

    def takes_launch(self, given: str) -> bool:
        """Whether this is the token that serves once; it has served then."""
        launch = self._launch
        if launch is None or not hmac.compare_digest(launch.encode(), given.encode()):
            return False
        self._launch = None
        return True

    def process_request(self, request: Any, client_address: Any) -> None:
        """A connection, which browsers keep open for more requests."""
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Its end."""
        self._connections.discard(request)
        super().shutdown_request(request)

    def shutdown(self) -> None:
        """Ends the server, the streams, and the connections."""
        self.is_closing.set()
        super().shutdown()
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away is no error; anything else is told by the log."""
        if not isinstance(sys.exception(), OSError):
            logger.exception("a request to the view failed")


def _type_of(name: str) -> str | None:
    return _TYPES.get(name.rpartition(".")[2])


class _Handler(BaseHTTPRequestHandler):
    """One request. `server` is the ViewServer."""

    protocol_version = "HTTP/1.1"
    server_version = "relay_mp"
    sys_version = ""
    timeout = 600
    server: ViewServer

    def do_GET(self) -> None:
        refused = self._refusal()
        if refused:
            self._say(HTTPStatus.FORBIDDEN, refused)
            return
        address = urlsplit(self.path)
        _, token, *path = unquote(address.path).split("/")
        if not path and self.server.takes_launch(token):
            self._redirect()
        elif not hmac.compare_digest(token.encode("utf-8", "replace"), self.server.token.encode()):
            self._say(HTTPStatus.FORBIDDEN, "the address has no valid token: take the one that `relay-mp view` printed")
        elif not path:
            self._redirect()
        else:
            self._route(path, parse_qs(address.query))

    def _refusal(self) -> str:
        """Why a request is not answered: it comes from another site."""
        host, origin = self.headers.get("Host", ""), self.headers.get("Origin")
        if host not in self.server.hosts:
            return f"this is not {host}: open the address that `relay-mp view` printed"
        if origin is not None and origin.removeprefix("http://") not in self.server.hosts:
            return "other sites may not read this"
        return ""

    def _route(self, path: list[str], query: dict[str, list[str]]) -> None:
        name, argument = path[0] or "index.html", path[1] if len(path) == 2 else ""
        routes: dict[str, Callable[[str, dict[str, list[str]]], None]] = {
            "events": self._events, "scope": self._scope, "row": self._row, "search": self._search,
            "download": self._download, "trace": self._trace,
        }  # fmt: skip
        if len(path) == 1 and name in self.server.files:
            self._file(name)
        elif name in routes and len(path) <= 2:
            routes[name](argument, query)
        else:
            self._say(HTTPStatus.NOT_FOUND, "there is no such page")

    # ------------------------------------------------------------------------------------------ answers

    def _answer(self, body: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK, encoding: str = "") -> None:
        more = {"Content-Encoding": encoding} if encoding else {}
        self._head(kind, status, {"Content-Length": str(len(body)), **more})
        self.wfile.write(body)

    def _redirect(self) -> None:
        self._head("text/plain", HTTPStatus.FOUND, {"Location": f"/{self.server.token}/", "Content-Length": "0"})

    def _file(self, name: str) -> None:
        plain, packed = self.server.files[name]
        takes_packed = "gzip" in self.headers.get("Accept-Encoding", "")
        kind = f"{_type_of(name)}; charset=utf-8"
        self._answer(packed if takes_packed else plain, kind, encoding="gzip" if takes_packed else "")

    def _head(self, kind: str, status: HTTPStatus, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**_HEADERS, "Content-Type": kind, **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def _say(self, status: HTTPStatus, text: str) -> None:
        self._answer(f"{text}\n".encode(), "text/plain; charset=utf-8", status)

    def _json(self, value: Any) -> None:
        self._answer(json.dumps(value, separators=(",", ":")).encode(), "application/json")

    # ------------------------------------------------------------------------------------------- routes

    def _events(self, _: str, __: dict[str, list[str]]) -> None:
        """The stream. A reader that is slow gets larger batches, later: nothing is queued for it."""
        if not self.server.streams.acquire(blocking=False):
            self._say(HTTPStatus.SERVICE_UNAVAILABLE, f"there are {MAX_STREAMS} pages open: close one")
            return
        try:
            self.close_connection = True
            self._head("text/event-stream", HTTPStatus.OK, {"Connection": "close"})
            cursor, said, said_at = Cursor(), "", 0.0
            while not self.server.is_closing.is_set():
                batch = self.server.rows.since(cursor, BATCH_ROWS)
                if batch:
                    self._send("rows", _encoded(batch))
                    if not said or batch.columns:
                        continue
                runs = [run.status() for run in self.server.rows.runs]
                status, now = json.dumps(runs), time.monotonic()
                if status != said or now - said_at > BEAT_SECONDS:
                    self._send("status", {"runs": runs, "now": time.time() * 1e6, "generation": cursor.generation})
                    said, said_at = status, now
                self.server.is_closing.wait(POLL_SECONDS)
        except OSError:
            pass  # the page is gone
        finally:
            self.server.streams.release()

    def _send(self, name: str, value: dict[str, Any]) -> None:
        text = json.dumps(value, separators=(",", ":"))
        self.wfile.write(f"event: {name}\ndata: {text}\n\n".encode())
        self.wfile.flush()

    def _scope(self, row: str, query: dict[str, list[str]]) -> None:
        rows = self.server.rows
        if query.get("generation", [""])[0] != str(rows.generation):
            self._say(HTTPStatus.CONFLICT, "rows have other numbers now")
            return
        try:
            run, *references = rows.lines(int(row))
        except (ValueError, IndexError) as error:
            self._say(HTTPStatus.NOT_FOUND, str(error))
            return
        lines = [run.payloads.line(reference) if reference >= 0 else None for reference in references]
        opened, closed = (None if line is None else json.loads(line) for line in lines)
        expected = [reference >= 0 for reference in references]
        gone = [line is None and wanted for line, wanted in zip(lines, expected, strict=True)]
        self._json({"opened": opened, "closed": closed, "gone": any(gone)})

    def _row(self, uuid: str, _: dict[str, list[str]]) -> None:
        self._json({"row": self.server.rows.find(uuid), "generation": self.server.rows.generation})

    def _search(self, _: str, query: dict[str, list[str]]) -> None:
        generation = self.server.rows.generation
        rows, is_complete = search(self.server.rows, query.get("text", [""])[0])
        self._json({"generation": generation, "complete": is_complete, "rows": _base64(rows.tobytes())})

    def _run(self, number: str) -> Run | None:
        runs = self.server.rows.runs
        if number.isdecimal() and int(number) < len(runs):
            return runs[int(number)]
        self._say(HTTPStatus.NOT_FOUND, "there is no such run")
        return None

    def _download(self, number: str, _: dict[str, list[str]]) -> None:
        run = self._run(number)
        if run is None:
            return
        self.close_connection = True
        name = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in run.name)
        name = name if name.endswith(".jsonl") else f"{name}.jsonl"
        disposition = f'attachment; filename="{name.encode("ascii", "replace").decode().replace("?", "-")}"'
        self._head("application/x-ndjson", HTTPStatus.OK, {"Connection": "close", "Content-Disposition": disposition})
        for _reference, piece in run.payloads.chunks():
            self.wfile.write(piece)

    def _trace(self, number: str, _: dict[str, list[str]]) -> None:
        run = self._run(number)
        if run is not None:
            self._answer(trace_of(run.payloads), "application/json")

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged: their addresses have the token."""


def _encoded(batch: Batch) -> dict[str, Any]:
    return {
        "generation": batch.generation,
        "restart": batch.restart,
        "first": batch.first,
        "columns": {name: _base64(column) for name, column in batch.columns.items()},
        "ended": {name: _base64(column) for name, column in batch.ended.items()},
        "names": batch.names,
        "tracks": batch.tracks,
    }


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
