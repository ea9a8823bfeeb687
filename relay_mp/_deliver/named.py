"""What is named rather than passed: "package.module:attribute" with JSON arguments.

A name crosses processes where a callable cannot: a subscriber's is resolved where the dispatcher runs, a
middleware's and a plugin's where they are used. Who may have one resolved is askers' and allowed's.
"""

import importlib
import sys
from collections.abc import Callable
from typing import Any

from relay_mp.errors import SubscriberError, described_type

_HOW = 'expected "package.module:attribute" of a module that can be imported here'


def find(target: str, arguments: dict[str, Any] | None, what: str) -> Any:
    """Imports what a name stands for.

    Args:
        target: "package.module:attribute"; the attribute may be dotted.
        arguments: None: the attribute is what is wanted. A dict: it is called with these keyword
            arguments and returns it.
        what: what it is to be, for messages.

    Raises:
        SubscriberError: it cannot be imported, or its factory raised.
    """
    module_name, _, attribute = target.partition(":")
    if not module_name or not attribute:
        raise SubscriberError(f"{what} {target!r}: {_HOW}")
    try:
        found: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
        return found if arguments is None else found(**arguments)
    except (Exception, SystemExit) as error:  # a module that ends the program on import ends nobody else
        raise SubscriberError(f"{what} {target!r} failed with {type(error).__name__}: {error}") from error


def resolve(target: str, arguments: dict[str, Any] | None, what: str = "subscriber") -> Callable[..., Any]:
    """Imports a named callback; see `find`.

    Raises:
        SubscriberError: it cannot be imported, is not callable, or its factory raised.
    """
    found = find(target, arguments, what)
    if not callable(found):
        raise SubscriberError(f"{what} {target!r} is {described_type(found)}, which cannot be called")
    callback: Callable[..., Any] = found
    return callback


def identity_of(callback: object) -> str:
    """What tells whether two processes mean the same callable: its name, of whatever kind, or that of its type."""
    if isinstance(callback, str):
        return callback.replace("__mp_main__:", "__main__:", 1)
    named = callback if hasattr(callback, "__qualname__") else type(callback)
    module = getattr(named, "__module__", None)
    return f"{'__main__' if module == '__mp_main__' else module}:{named.__qualname__}"


def name_of(callback: object) -> str:
    """The name under which another process finds a callable.

    Raises:
        SubscriberError: it has none: a lambda, a local function, a bound method, or of `__main__`.
    """
    module = getattr(callback, "__module__", None)
    attribute = getattr(callback, "__qualname__", None)
    found: Any = sys.modules.get(module) if isinstance(module, str) else None
    for part in (attribute or "?").split("."):
        found = getattr(found, part, None)
    if found is not callback or module in ("__main__", "__mp_main__"):
        raise SubscriberError(
            f"{callback!r} cannot be reached from the dispatcher, which runs in another process and imports "
            'its subscribers by name: move it to the top level of a module and pass "module:attribute", or '
            'register it in the process that owns a session with dispatcher="thread"'
        )
    return f"{module}:{attribute}"
