"""The scope of one request, for both kinds of middleware: under the caller's `traceparent`, ended with the status.

Entered and left in one context; what the request's code emits in between stands under it.
"""

from contextlib import ExitStack
from types import TracebackType
from typing import Self

from relay_mp import scope
from relay_mp._emit.context import use_scope_stack
from relay_mp._emit.propagation import PropagationContext, create_scope_stack_from_propagation
from relay_mp._log import logger
from relay_mp.errors import PropagationError
from relay_mp.types import ScopeType

__all__ = ["Request"]

_FIRST_SERVER_ERROR = 500


class Request:
    """A context manager.

    Args:
        name: of the scope.
        path: for the start's data, without a query, which may hold secrets.
        traceparent: the header's value, None where there is none. One that is malformed is passed over.
    """

    def __init__(self, name: str, method: str, path: str, traceparent: str | None) -> None:
        self._block = scope.scope(name, ScopeType.Function, input={"method": method, "path": path})
        self._parent = _parent(traceparent)
        self._stack = ExitStack()
        self.status: int | None = None

    def __enter__(self) -> Self:
        if self._parent is not None:
            self._stack.enter_context(use_scope_stack(create_scope_stack_from_propagation(self._parent)))
        self._handle = self._stack.enter_context(self._block)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None and self.status is not None and scope.get_handle() is self._handle:
            code = "ERROR" if self.status >= _FIRST_SERVER_ERROR else "OK"
            scope.pop(self._handle, output={"status": self.status}, metadata={"otel.status_code": code})
        self._stack.__exit__(kind, error, traceback)


def _parent(traceparent: str | None) -> PropagationContext | None:
    if traceparent is None:
        return None
    try:
        return PropagationContext.from_traceparent(traceparent)
    except PropagationError as error:
        logger.debug("a request's scope is a root: %s", error)
        return None
