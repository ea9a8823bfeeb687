"""Subscribers that are named rather than passed: "package.module:attribute" with JSON arguments.

A name crosses processes where a callable cannot. It is resolved only where the dispatcher runs, and it
comes only from processes of the session's own uid (the segment's mode is 0600).
"""

import importlib
import sys
from collections.abc import Callable
from typing import Any

from relay_mp.errors import SubscriberError

_HOW = 'expected "package.module:attribute" of a module that the dispatcher can import'


def resolve(target: str, arguments: dict[str, Any] | None) -> Callable[[Any], object]:
    """Imports a named subscriber.

    Args:
        target: "package.module:attribute"; the attribute may be dotted.
        arguments: None: the attribute is the callback. A dict: it is called with these keyword
            arguments and returns the callback.

    Raises:
        SubscriberError: it cannot be imported, is not callable, or its factory raised.
    """
    module_name, _, attribute = target.partition(":")
    if not module_name or not attribute:
        raise SubscriberError(f"subscriber {target!r}: {_HOW}")
    try:
        found: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
        if arguments is not None:
            found = found(**arguments)
    except (Exception, SystemExit) as error:  # a module that ends the program on import ends no dispatcher
        raise SubscriberError(f"subscriber {target!r} failed with {type(error).__name__}: {error}") from error
    if not callable(found):
        raise SubscriberError(f"subscriber {target!r} is a {type(found).__name__}, which cannot be called")
    callback: Callable[[Any], object] = found
    return callback


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
