"""`relay-mp view [SESSION or FILE...]`: the page that shows a run, in the browser."""

import os
import sys
import threading
import webbrowser
from argparse import ArgumentParser, Namespace

from relay_mp._runs.files import STANDARD_INPUT
from relay_mp._session.naming import session_id_of
from relay_mp._session.seen import find
from relay_mp._session.watch import watch
from relay_mp.cli.exits import CommandError, Exit
from relay_mp.cli.terminal import Terminal
from relay_mp.view.rows import MAX_ROWS, Rows
from relay_mp.view.server import ViewServer
from relay_mp.view.sources import add_files, add_session

EXAMPLE = "relay-mp view events.jsonl --no-browser --seconds 1"

MOST_RUNS = 2
"""That are shown beside each other."""


def add_arguments(parser: ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument(
        "runs",
        nargs="*",
        metavar="RUN",
        help="a file of ATOF JSON lines; or a living session: the beginning of its id, or its owner's pid (default: the"
        " only one). A second run is shown beside the first, and compared",
    )
    parser.add_argument("--port", type=int, default=0, metavar="N", help="of 127.0.0.1 (default: any that is free)")
    parser.add_argument("--no-browser", action="store_true", help="print the address, and open nothing")
    parser.add_argument("--seconds", type=float, metavar="N", help="end after so long (default: at Ctrl-C)")
    parser.add_argument(
        "--rows",
        type=int,
        default=MAX_ROWS,
        metavar="N",
        help=f"scopes and marks kept, the newest (default: {MAX_ROWS})",
    )


def run(arguments: Namespace, terminal: Terminal) -> int:
    """Serves the page until Ctrl-C."""
    if len(arguments.runs) > MOST_RUNS:
        found = f"{len(arguments.runs)} runs are named; expected one, or two to be compared"
        raise CommandError(Exit.USAGE, f"{found}. What rotation has put aside is read with its file")
    if arguments.rows < 4:
        raise CommandError(Exit.USAGE, f"--rows is {arguments.rows}; expected at least 4")
    rows = Rows(arguments.rows)
    for name in arguments.runs or [None]:
        _add(rows, name)
    try:
        server = ViewServer(rows, arguments.port)
    except (OSError, OverflowError) as error:
        raise CommandError(
            Exit.USAGE,
            f"port {arguments.port} of 127.0.0.1 cannot be used ({error}); take another, or leave --port out",
        ) from error
    terminal.print(f"The view is at {server.url}")
    terminal.out.flush()
    if not arguments.no_browser and _has_browser() and webbrowser.open(server.launch_url):
        terminal.note("It opens in the browser. Ctrl-C ends it.")
    elif arguments.seconds is None:
        terminal.note("Open it in a browser of this machine. Ctrl-C ends it.")
    _serve(server, arguments.seconds)
    return Exit.DONE


def _add(rows: Rows, name: str | None) -> None:
    """A file, or a living session."""
    if name is not None and (name == STANDARD_INPUT or os.path.exists(name) or os.path.splitext(name)[1]):
        add_files(rows, [name])
        return
    path = find(name)
    session = session_id_of(path)
    add_session(rows, f"session {session.rpartition('-')[2]}", session, watch(path))


def _has_browser() -> bool:
    """Whether one would open in a window: one that runs in the terminal would take that over."""
    return sys.platform != "linux" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))


def _serve(server: ViewServer, seconds: float | None) -> None:
    """Until Ctrl-C, or for so long."""
    thread = threading.Thread(target=server.serve_forever, name="view-server", daemon=True)
    thread.start()
    try:
        thread.join(seconds)
    except KeyboardInterrupt:
        pass
    finally:
        server.shutdown()
        server.server_close()
        server.rows.close()
