"""The view: one page in the browser that shows recorded runs and a living session.

    file of JSON lines ──▶ recording ─┐                                   ┌─▶ stream of column batches ─▶ page/
                                      ├─▶ envelope ─▶ Rows (columns) ─────┤
    watch() of a session ─▶ live ─────┘              Payloads (lines) ────┴─▶ one scope, search, download

Runs in the process of the command `relay-mp view`, never in the program that is looked at. Everything is a line of
ATOF JSON: of a line only the envelope is read, into columns; its payloads are read again when somebody asks for them.

    envelope.py   what the columns need of a line
    rows.py       the columns: a row a scope or mark, bounded
    payloads.py   where lines are found again: a file, or bounded memory
    sources.py    fills rows from a file or a session, in a thread of its own
    search.py     rows whose lines contain a text
    server.py     HTTP on the loopback: the page, the stream, one scope
    page/         HTML, CSS and JavaScript modules, shipped as they are
"""
