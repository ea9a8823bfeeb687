# cython: language_level=3, freethreading_compatible=True
"""The only binding to the native half, and the only place where a native code becomes an exception.

Data flows from `emit` into the ring (any process) and from `Reader` out of it (where the dispatcher
runs). Nothing here knows what an event means: a record is an envelope of scalars and four payloads.

When the ring is full, `emit` waits with the GIL released until the session's block_timeout has passed
(on_full="block") or gives up at once (on_full="drop", and always in the dispatcher's own thread, which
would wait for itself). What is given up is counted in the thread's slot.
"""

cimport cython

import errno as _errno
import os as _os

from relay_mp.errors import ConfigurationError, RegistryFullError, SegmentError, SessionError

include "encode.pxi"
include "declarations.pxi"


# ---- what Python needs of the layout ----

UNIT_BYTES = RMP_UNIT_BYTES
MIN_RING_BYTES = RMP_MIN_CAPACITY_UNITS * RMP_UNIT_BYTES
MAX_EVENT_BYTES = RMP_MAX_UNITS * RMP_UNIT_BYTES - RMP_RECORD_HEADER_BYTES
MAX_PRODUCERS = RMP_MAX_SLOTS - 1
LAYOUT_VERSION = RMP_LAYOUT_VERSION
SLOT_BYTES = RMP_SLOT_BYTES
SLOT_FIELDS = {
    "state": rmp_at_state, "start_time": rmp_at_start_time, "pid_namespace": rmp_at_pid_namespace,
    "thread_id": rmp_at_thread_id, "retired_tail": rmp_at_retired_tail, "emitted": rmp_at_emitted,
    "cut": rmp_at_cut, "lost_full": rmp_at_lost_full, "lost_writer_died": rmp_at_lost_writer_died,
    "lost_fenced": rmp_at_lost_fenced, "lost_corrupt": rmp_at_lost_corrupt, "base_emitted": rmp_at_base_emitted,
    "base_delivered": rmp_at_base_delivered, "base_cut": rmp_at_base_cut, "base_lost_full": rmp_at_base_lost_full,
    "base_lost_writer_died": rmp_at_base_lost_writer_died, "base_lost_fenced": rmp_at_base_lost_fenced, "base_lost_corrupt": rmp_at_base_lost_corrupt,
    "passed": rmp_at_passed, "passed_lost": rmp_at_passed_lost, "controls": rmp_at_controls, "control_seq": rmp_at_control_seq,
    "base_controls": rmp_at_base_controls, "lost_poison": rmp_at_lost_poison, "base_lost_poison": rmp_at_base_lost_poison,
}
STATE_CLOSED, STATE_OPEN, STATE_CLOSING, STATE_BROKEN = 0, 1, 2, 3
SLOT_TAKING, SLOT_LIVE, SLOT_EXITED, SLOT_DEAD = RMP_SLOT_TAKING, RMP_SLOT_LIVE, RMP_SLOT_EXITED, RMP_SLOT_DEAD
ALIVE, DEAD, UNKNOWN = 0, 1, 2
KIND_SCOPE_START, KIND_SCOPE_END, KIND_MARK, KIND_CONTROL = 0, 1, 2, 3


include "process.pxi"
include "attachment.pxi"
include "emit.pxi"
include "segment.pxi"
include "reader.pxi"
