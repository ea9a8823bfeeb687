"""The server answers whoever has the token, under its own name; the stream has every row."""

import base64
import gzip
import http.client
import json
import re
import threading

import pytest
from recorded import error, line, scope_lines, uuid

from relay_mp.view.rows import Rows
from relay_mp.view.server import MAX_STREAMS, ViewServer
from relay_mp.view.sources import add_files

MOST_PAGE_BYTES = 60 * 1024
"""Of the page with all of its modules, as it is sent."""


@pytest.fixture
def server(tmp_path):
    """A server with a small run."""
    lines = [
        line("start", 1, 0, name="ask"),
        *scope_lines(2, 5, 9, parent=1, data={"found": "copytree"}, metadata=error()),
    ]
    (tmp_path / "events.jsonl").write_text("".join(f"{each}\n" for each in lines), encoding="utf-8")
    rows = Rows()
    add_files(rows, [str(tmp_path / "events.jsonl")]).join(60)
    server = ViewServer(rows)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(60)
    rows.close()


def get(server, path="", *, token=None, **headers):
    """(status, headers, body)"""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    try:
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("GET", f"/{server.token if token is None else token}/{path}", headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def stream(server, until):
    """The events of the stream, up to the first that `until` is true of."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    try:
        connection.request("GET", f"/{server.token}/events")
        answer, found, name = connection.getresponse(), [], None
        assert answer.headers["Content-Type"] == "text/event-stream"
        while text := answer.fp.readline().decode().rstrip("\n") or " ":
            if text.startswith("event: "):
                name = text.removeprefix("event: ")
            elif text.startswith("data: "):
                found.append((name, json.loads(text.removeprefix("data: "))))
                if until(*found[-1]):
                    return found
    finally:
        connection.close()


def test_the_page_and_its_parts_are_served(server):
    status, headers, body = get(server)
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    for name in re.findall(r'(?:src|href)="([a-z.]+)"', body.decode()):
        assert get(server, name)[0] == 200


def test_the_page_is_small(server):
    sent = sum(len(get(server, name, Accept_Encoding="gzip")[2]) for name in server.files)
    assert sent <= MOST_PAGE_BYTES


def test_compression_is_only_for_who_takes_it(server):
    plain, packed = get(server, "main.js"), get(server, "main.js", Accept_Encoding="gzip, br")
    assert packed[1]["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed[2]) == plain[2]


def test_every_import_of_the_modules_is_a_file_that_is_served(server):
    for name, (content, _) in server.files.items():
        for imported in re.findall(rb'from "\./([^"]+)"|import "\./([^"]+)"', content):
            assert b"".join(imported).decode() in server.files, name


def test_the_page_names_no_other_host_but_where_it_asks_first(server):
    for name, (content, _) in server.files.items():
        hosts = set(re.findall(rb"https?://([^/\"'` ]+)", content))
        assert hosts <= ({b"ui.perfetto.dev"} if name == "perfetto.js" else {b"www.w3.org"}), name


@pytest.mark.parametrize("token", ["", "wrong", "ä"])
@pytest.mark.parametrize("path", ["", "events", "scope/0", "main.js", "download/0"])
def test_no_token_no_answer(server, token, path):
    status, _, body = get(server, path, token=token.encode().decode("latin-1") if token.isascii() else "%C3%A4")
    assert status == 403
    assert b"token" in body


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "localhost.evil.example"])
def test_another_host_is_refused(server, host):
    assert get(server, Host=host)[0] == 403


def test_localhost_is_this_host(server):
    assert get(server, Host=f"localhost:{server.server_port}")[0] == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1"])
def test_another_origin_is_refused(server, origin):
    assert get(server, "scope/0?generation=0", Origin=origin)[0] == 403


def test_its_own_origin_is_answered(server):
    assert get(server, "row/x", Origin=f"http://127.0.0.1:{server.server_port}")[0] == 200


def test_nothing_may_be_loaded_from_elsewhere(server):
    for path in ("", "main.js", "scope/0", "nothing"):
        policy = get(server, path)[1]["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert "unsafe" not in policy


def test_only_get_is_served(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    connection.request("POST", f"/{server.token}/events", body=b"{}")
    assert connection.getresponse().status == 501
    connection.close()


def test_the_address_for_the_browser_serves_once(server):
    launch = server.launch_url.rpartition("/")[2]
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    statuses = []
    for _ in range(2):
        connection.request("GET", f"/{launch}")
        answer = connection.getresponse()
        answer.read()
        statuses.append((answer.status, answer.headers["Location"]))
    connection.close()
    assert statuses == [(302, f"/{server.token}/"), (403, None)]


def test_the_stream_has_every_row_and_says_how_the_run_is(server):
    found = stream(server, lambda name, _: name == "status")
    (name, batch), (_, status) = found
    assert name == "rows"
    assert batch["names"] == ["ask", "work"]
    assert len(base64.b64decode(batch["columns"]["start"])) == 2 * 8
    assert status["runs"][0]["state"] == "complete"
    assert status["runs"][0]["events"] == 3


def test_a_row_that_ends_comes_in_the_stream(server):
    rows, ended = server.rows, threading.Event()

    def until(name, message):
        if name == "status" and not ended.is_set():
            from relay_mp.view.envelope import envelope

            rows.take(rows.runs[0], [(envelope(line("end", 1, 50).encode()), 0)])
            ended.set()
        return name == "rows" and bool(message["ended"])

    _, batch = stream(server, until)[-1]
    assert base64.b64decode(batch["ended"]["row"]) == bytes(4)


def test_streams_are_bounded(server):
    for _ in range(MAX_STREAMS):
        assert server.streams.acquire(blocking=False)
    assert get(server, "events")[0] == 503
    server.streams.release(MAX_STREAMS)


def test_a_scope_has_its_events(server):
    status, _, body = get(server, "scope/1?generation=0")
    found = json.loads(body)
    assert (status, found["gone"]) == (200, False)
    assert found["opened"]["uuid"] == found["closed"]["uuid"] == uuid(2)
    assert found["closed"]["data"] == {"found": "copytree"}


@pytest.mark.parametrize(("path", "expected"), [
    ("scope/9?generation=0", 404), ("scope/x?generation=0", 404), ("scope/-1?generation=0", 404), ("scope/0", 409),
    ("scope/0?generation=1", 409), ("download/5", 404), ("nothing", 404), ("main.js/x", 404), ("../server.py", 404),
    ("%2e%2e/server.py", 404),
])  # fmt: skip
def test_what_is_not_there_is_an_error(server, path, expected):
    assert get(server, path)[0] == expected


def test_a_uuid_has_its_row(server):
    assert json.loads(get(server, f"row/{uuid(2)}")[2]) == {"row": 1, "generation": 0}
    assert json.loads(get(server, "row/none")[2])["row"] is None


def test_a_search_gives_rows(server):
    found = json.loads(get(server, "search?text=COPYTREE".lower())[2])
    assert base64.b64decode(found["rows"]) == b"\x01\0\0\0"
    assert found["complete"]


def test_a_download_is_the_file(server, tmp_path):
    _, headers, body = get(server, "download/0")
    assert body == (tmp_path / "events.jsonl").read_bytes()
    assert headers["Content-Disposition"] == 'attachment; filename="events.jsonl"'


def test_a_trace_has_the_run_s_scopes(server):
    status, _, body = get(server, "trace/0")
    slices = [each for each in json.loads(body) if each.get("ph") in ("X", "b")]
    assert (status, {each["name"] for each in slices}) == (200, {"ask", "work"})
