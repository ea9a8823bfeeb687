"""Types of the compiled module core.pyx; what each name does is said there.

`tests/native/test_stubs.py` compares the two.
"""

from collections.abc import Callable
from typing import Any

UNIT_BYTES: int
MIN_RING_BYTES: int
MAX_EVENT_BYTES: int
MAX_PRODUCERS: int
LAYOUT_VERSION: int
SLOT_BYTES: int
SLOT_FIELDS: dict[str, int]
STATE_CLOSED: int
STATE_OPEN: int
STATE_CLOSING: int
STATE_BROKEN: int
SLOT_TAKING: int
SLOT_LIVE: int
SLOT_EXITED: int
SLOT_DEAD: int
ALIVE: int
DEAD: int
UNKNOWN: int
KIND_SCOPE_START: int
KIND_SCOPE_END: int
KIND_MARK: int
KIND_CONTROL: int

def process_self() -> tuple[int, int, int]: ...
def process_liveness(pid: int, start_time: int, pid_namespace: int) -> int: ...
def boot_id() -> str: ...
def fork_epoch() -> int: ...
def thread_id() -> int: ...
def uuid7() -> bytes: ...
def now_us() -> int: ...
def set_hooks(resolve: Callable[[bool], bool] | None, report_unregistered: Callable[[], object] | None) -> None: ...
def active() -> bool: ...
def scope_local_active() -> bool: ...
def set_configuration_hook(reconfigure: Callable[[], object] | None) -> None: ...
def set_configuration_seen(version: int) -> None: ...
def set_stacks_wanted(wanted: bool) -> None: ...
def stay_detached() -> None: ...
def set_dispatching(dispatching: bool) -> None: ...
def is_dispatching() -> bool: ...
def emit(
    kind: int,
    uuid: bytes,
    parent: bytes | None,
    timestamp_us: int | None,
    not_before_us: int,
    name: str,
    category: int | str | None,
    attributes: int,
    stack: bytes | None,
    data: Any,
    metadata: Any,
    category_profile: Any,
    data_schema: Any,
) -> int: ...
def set_replaced_hook(hook: Callable[[str, str], None] | None) -> None: ...
def set_greenlet_hooks(switches: Callable[[], bool], nap: Callable[[float], bool]) -> None: ...
def set_event_hook(
    hook: Callable[
        [int, bytes, bytes | None, int, str, int | str | None, int, bytes | None, Any, Any, Any, Any],
        tuple[Any, Any, Any, Any],
    ]
    | None,
) -> None: ...
def emit_control(name: str, data: Any) -> tuple[int, int]: ...
