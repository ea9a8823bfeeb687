"""Rows whose lines contain a text, payloads included.

    chunk of lines ──regular expression──▶ a line with the text ──▶ within a payload or metadata? ──▶ its uuid ──▶ row

Nothing is parsed, and nothing is kept between two searches: a file is read from the kernel's cache. A text in small
letters finds capitals too; one with a capital finds only what is written so.
"""

import json
import re
import time
from array import array

from relay_mp.view.rows import Rows, Run

__all__ = ["MAX_FOUND", "MAX_SEARCH_SECONDS", "search"]

MAX_FOUND = 100_000
"""Rows of one search."""
MAX_SEARCH_SECONDS = 20.0

_UUID = re.compile(rb'"uuid":"([^"\\]+)"\}\s*$')
_ENVELOPE = re.compile(rb'"category_profile":|,"data":|,"data_schema":|,"kind":"\w+","metadata":')


def search(rows: Rows, text: str, seconds: float = MAX_SEARCH_SECONDS) -> tuple["array[int]", bool]:
    """Rows whose input, output, data, profile or metadata contains the text.

    Returns:
        Their numbers in increasing order, and whether everything was looked at.
    """
    # As relay_mp writes it, and as a writer that keeps to ASCII does.
    forms = {json.dumps(text, ensure_ascii=is_ascii)[1:-1].encode("utf-8", "replace") for is_ascii in (False, True)}
    flags = 0 if any(letter.isupper() for letter in text) else re.IGNORECASE
    pattern = re.compile(b"|".join(map(re.escape, sorted(forms))), flags)
    deadline = time.monotonic() + seconds
    found: set[int] = set()
    is_complete = bool(text)
    for run in rows.runs if text else ():
        for _, piece in run.payloads.chunks():
            _search_piece(run, piece, pattern, found)
            if time.monotonic() > deadline or len(found) >= MAX_FOUND:
                is_complete = False
                break
    return array("I", sorted(found)[:MAX_FOUND]), is_complete


def _search_piece(run: Run, piece: bytes, pattern: re.Pattern[bytes], found: set[int]) -> None:
    at = 0
    while match := pattern.search(piece, at):
        begins = piece.rfind(b"\n", 0, match.start()) + 1
        at = piece.find(b"\n", match.end()) + 1 or len(piece)
        line = piece[begins:at]
        uuid = _UUID.search(line, max(len(line) - 64, 0))
        row = run.ids.get(uuid[1]) if uuid else None
        if row is not None and row not in found and any(pattern.search(part) for part in _payloads(line)):
            found.add(row)


def _payloads(line: bytes) -> list[bytes]:
    """The line without the members of its envelope."""
    tail = line.rfind(b',"name":"')
    return _ENVELOPE.split(line[:tail] if tail > 0 else line)[1:]
