"""A whole terminal: pictures in place of one another, and keys as they are pressed. ANSI sequences and termios alone.

The other screen of the terminal is used, so that what was there before is there afterwards, also after an error.
"""

import os
import select
import sys
import termios
import tty
from types import TracebackType
from typing import ClassVar, Self

from relay_mp.cli.terminal import Terminal

_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_HOME, _CLEAR_LINE, _CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"


class Screen:
    """For use in `with`.

    Args:
        terminal: one that is live.
    """

    LOOK_SECONDS: ClassVar[float] = 0.1
    """How long a key may wait for an answer."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._input = sys.stdin.fileno() if sys.stdin.isatty() else -1
        self._before: list[int | list[bytes | int]] | None = None

    def __enter__(self) -> Self:
        if self._input >= 0:
            self._before = termios.tcgetattr(self._input)
            tty.setcbreak(self._input)
        self._write(_ENTER)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._write(_LEAVE)
        if self._before is not None:
            termios.tcsetattr(self._input, termios.TCSADRAIN, self._before)

    def show(self, lines: list[str], status: str) -> None:
        """A picture: as many of its lines as there is room for, and one at the bottom."""
        room = max(self._terminal.height - 2, 1)
        kept = lines if len(lines) <= room else [*lines[: room - 1], f"... {len(lines) - room + 1} more lines"]
        body = "".join(f"{line}{_CLEAR_LINE}\r\n" for line in kept)
        last = f"\x1b[{self._terminal.height};1H{self._terminal.style(status[: self._terminal.width - 1], 'dim')}"
        self._write(f"{_HOME}{body}{_CLEAR_BELOW}{last}")

    def pressed(self) -> list[str]:
        """What was pressed since; an empty one is the end of the input. An arrow's sequence is no key here."""
        if self._input < 0 or not select.select([self._input], [], [], 0)[0]:
            return []
        pressed = os.read(self._input, 1024).decode("utf-8", "replace")
        if not pressed:
            return [""]
        return [pressed] if pressed == "\x1b" else [] if pressed.startswith("\x1b") else list(pressed)

    def _write(self, text: str) -> None:
        self._terminal.out.write(text)
        self._terminal.out.flush()
