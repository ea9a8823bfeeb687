"""A real HTTP proxy on a loopback port, to which the tests' names of receivers mean something and to nobody else.

exporter ──POST http://name/path, or CONNECT name:port──▶ Proxy ──▶ the receiver on the loopback
"""

import base64
import http.client
import http.server
import select
import socket
import threading
from urllib.parse import urlsplit

WAIT_SECONDS = 30


class Proxy:
    """Passes on what it is asked for, and keeps that.

    Args:
        places: what it knows: names of hosts, and the loopback ports that they stand for.
        credentials: `user:password` that it wants; "": none.

    Attributes:
        asked: (method, target, headers) of all requests, also of those that it refused.
        repeats: answers 407 with the credentials it got, decoded.
    """

    def __init__(self, places, credentials=""):
        self.asked = []
        self.repeats = False
        self._expected = f"Basic {base64.b64encode(credentials.encode()).decode()}" if credentials else None
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if not proxy.lets_in(self):
                    return
                parts = urlsplit(self.path)
                onward = http.client.HTTPConnection("127.0.0.1", places[parts.hostname], timeout=WAIT_SECONDS)
                headers = {name: value for name, value in self.headers.items() if not name.startswith("Proxy-")}
                onward.request("POST", self.path.partition(parts.netloc)[2], body, headers)
                answer = onward.getresponse()
                said = answer.read()
                self.send_response(answer.status, answer.reason)
                self.send_header("Content-Length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)
                onward.close()

            def do_CONNECT(self):
                if not proxy.lets_in(self):
                    return
                with socket.create_connection(("127.0.0.1", places[self.path.partition(":")[0]])) as onward:
                    self.send_response(200)
                    self.end_headers()
                    relay(self.connection, onward)
                self.close_connection = True

            def log_message(self, *_arguments):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        self.place = f"127.0.0.1:{self._server.server_port}"
        self.url = f"http://{credentials}{'@' if credentials else ''}{self.place}"

    def lets_in(self, handler):
        self.asked.append((handler.command, handler.path, dict(handler.headers)))
        shown = handler.headers["Proxy-Authorization"]
        if not self.repeats and shown == self._expected:
            return True
        decoded = base64.b64decode(shown.split()[1]).decode() if shown else ""
        answer = f"not {shown}, that is {decoded}".encode() if self.repeats else b""
        handler.send_response(407, f"Not {shown} {decoded}" if self.repeats else None)
        handler.send_header("Content-Length", str(len(answer)))
        handler.end_headers()
        handler.wfile.write(answer)
        handler.close_connection = True
        return False

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def relay(one, other):
    """Copies in both directions until either end closes."""
    while True:
        readable, _, _ = select.select([one, other], [], [], WAIT_SECONDS)
        for end in readable:
            data = end.recv(1 << 16)
            if not data:
                return
            (other if end is one else one).sendall(data)
        if not readable:
            return
