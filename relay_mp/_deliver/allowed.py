"""What other processes may have the dispatcher import: the session's setting `allowed_subscribers`.

    a request's target ─▶ an exporter of an installed package ─┐
                       ─▶ the tap of `relay_mp.watch`          ─┤
                       ─▶ what the owner has registered itself ─┼▶ imported
                       ─▶ a pattern of the setting            ─┘
                       ─▶ anything else: refused

The owner's own registrations are not looked at: they are noted. Runs in the owner and where the dispatcher runs.
"""

import re
from typing import Any

from relay_mp.errors import SubscriberError

__all__ = ["ANY", "STARTER", "Allowed", "check_patterns"]

ANY = "*"

_PACKAGE = "relay_mp.observability"
"""Where exporters are. Known by name alone: nothing of it is imported for a look at the list."""

STARTER = f"{_PACKAGE}.export.starting:start"
"""It makes what its argument `target` names: that is what must be allowed."""

_SINK = re.compile(rf"{re.escape(_PACKAGE)}\.\w+\.\w+:[A-Z]\w*Sink")
"""What the package's exporters are made by. A class's name: a prefix would allow whatever a module has imported."""

_TAP = "relay_mp._deliver.tap:Tap"

_OTHERS_OF_EXPORTERS = (f"{_PACKAGE}.atif.spool:Spool", f"{_PACKAGE}.export.kinds:load")
"""`load` makes exporters that are entry points of installed packages, and nothing else."""

_PATTERN = re.compile(r"none|\*|[\w.*]+:[\w.*]+")
_TARGET = re.compile(r"[\w.]+:[\w.]+")


def check_patterns(text: str) -> None:
    """Refuses what is not a list of patterns.

    Raises:
        ValueError: says which one, and what one is.
    """
    for pattern in _split(text):
        if not _PATTERN.fullmatch(pattern):
            raise ValueError(
                f'{pattern!r} is not a pattern; expected "package.module:attribute", in which * stands for any '
                'part without a dot, with commas between several; or "*" for anything, or "none"'
            )


def _split(text: str) -> list[str]:
    return [pattern.strip() for pattern in text.split(",") if pattern.strip()]


def _compiled(pattern: str) -> re.Pattern[str]:
    if pattern == ANY:
        return re.compile(".*", re.DOTALL)
    return re.compile(re.escape(pattern).replace(r"\*", r"\w*"))


def _is_of_the_package(target: str) -> bool:
    return target == _TAP or target in _OTHERS_OF_EXPORTERS or _SINK.fullmatch(target) is not None


class Allowed:
    """The allow-list of one session.

    Args:
        patterns: as in the setting.
    """

    def __init__(self, patterns: str = ANY) -> None:
        self._patterns = _split(patterns)
        self._compiled = [_compiled(pattern) for pattern in self._patterns]
        self._names: set[str] = set()

    def note(self, target: str, arguments: dict[str, Any] | None) -> None:
        """The owner registers this, and so allows it to all."""
        self._names.add(_made(target, arguments))

    def require(self, target: object, arguments: object) -> None:
        """Whether another process may have the dispatcher import this.

        Raises:
            SubscriberError: it may not; says what may be.
        """
        made = _made(target, arguments)
        if isinstance(made, str) and (_is_of_the_package(made) or made in self._names):
            return
        if not isinstance(made, str) or not any(pattern.fullmatch(made) for pattern in self._compiled):
            raise SubscriberError(
                f"{made!r:.120} is not imported for another process: the session allows exporters, what its owner "
                f"has registered, and {', '.join(self._patterns)!r:.80}. Register it in the owner, or name it in "
                "allowed_subscribers (RELAY_MP_ALLOWED_SUBSCRIBERS)"
            )

    def as_setting(self) -> str:
        """The whole list as one of patterns, for a dispatcher process that the owner starts."""
        # Others can hardly be registered, and not be handed over in a list.
        names = sorted(name for name in self._names if _TARGET.fullmatch(name))
        return ",".join([*self._patterns, *names])


def _made(target: Any, arguments: Any) -> Any:
    while target == STARTER and isinstance(arguments, dict):
        target, arguments = arguments.get("target"), arguments.get("arguments")
    return target
