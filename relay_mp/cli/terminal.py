"""Where a command writes to: how wide it is, whether it has colours, whether somebody watches it.

Colours and widths follow what the output is. On a terminal there are both; in a pipe or a file there is plain text, and
nothing is shortened. `NO_COLOR` (https://no-color.org) takes colours away, `FORCE_COLOR` gives them, `--color` is above
both. `COLUMNS` sets the width.
"""

import os
import shutil
import sys
import unicodedata
from typing import TextIO

UNLIMITED = 1 << 30
"""The width of what is not a terminal."""

NARROWEST = 40
"""No layout is made for less."""

_CODES = {"bold": 1, "dim": 2, "red": 31, "green": 32, "yellow": 33, "blue": 34, "magenta": 35, "cyan": 36}


class Terminal:
    """A command's output.

    Args:
        out: results.
        err: errors and progress.
        color: "auto", "always" or "never".

    Attributes:
        has_color: whether results are styled.
        is_live: whether results go to a terminal.
        shows_progress: whether somebody sees what is written to `err`.
    """

    def __init__(self, out: TextIO | None = None, err: TextIO | None = None, color: str = "auto") -> None:
        self.out = sys.stdout if out is None else out
        self.err = sys.stderr if err is None else err
        self.is_live = self.out.isatty()
        self.shows_progress = self.err.isatty() and os.environ.get("TERM") != "dumb"
        self.has_color = color == "always" or (color == "auto" and self._wants_color())

    def _wants_color(self) -> bool:
        if os.environ.get("NO_COLOR"):
            return False
        return bool(os.environ.get("FORCE_COLOR")) or (self.is_live and os.environ.get("TERM") != "dumb")

    @property
    def width(self) -> int:
        """Columns of the output, now: a window may be resized."""
        if not self.is_live and not os.environ.get("COLUMNS", "").isdigit():
            return UNLIMITED
        return max(shutil.get_terminal_size().columns, NARROWEST)

    @property
    def height(self) -> int:
        """Lines of the terminal, now."""
        return shutil.get_terminal_size().lines

    def print(self, text: str = "") -> None:
        """A line of results."""
        self.out.write(f"{text if self.can_show(text) else _simplified(text, self.out)}\n")

    def can_show(self, text: str) -> bool:
        """Whether the output's encoding has all characters of a text."""
        try:
            text.encode(self.out.encoding or "utf-8")
        except UnicodeEncodeError:
            return False
        return True

    def note(self, text: str) -> None:
        """A line beside the results, to standard error."""
        self.out.flush()
        self.err.write(f"{text}\n")
        self.err.flush()

    def style(self, text: str, *names: str) -> str:
        """The text in these styles, where there are colours."""
        if not self.has_color or not names or not text:
            return text
        return f"\x1b[{';'.join(str(_CODES[name]) for name in names)}m{text}\x1b[0m"


_SIMPLER = str.maketrans({"µ": "u", "·": "-", "…": "~", "→": ">", "╵": "'", "├": "|", "└": "`", "│": "|", "─": "-"})


def _simplified(text: str, out: TextIO) -> str:
    """A text in what an output of another encoding has: ASCII for the signs of the layout, else question marks."""
    encoding = out.encoding or "ascii"
    return text.translate(_SIMPLER).encode(encoding, "replace").decode(encoding)


def plain(text: str) -> str:
    """What a program has named, on one line and without what a terminal would obey."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else f"\\x{ord(each):02x}" for each in text)


def columns_of(text: str) -> int:
    """How many columns a text takes: wide characters two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(_columns(each) for each in text)


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def shortened(text: str, width: int) -> str:
    """The text, or as much of its beginning as fits, with an ellipsis."""
    if columns_of(text) <= width:
        return text
    kept, left = [], width - 1
    for each in text:
        left -= _columns(each)
        if left < 0:
            break
        kept.append(each)
    return "".join(kept) + "…" if width > 0 else ""
