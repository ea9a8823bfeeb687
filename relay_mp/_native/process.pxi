# Processes, ids and clocks, for Python. Included textually by core.pyx.

def process_self() -> tuple:
    """(pid, start time in a unit of the system's own, pid namespace) of this process; 0 is unknown."""
    cdef rmp_process own = rmp_process_self()
    return own.pid, own.start_time, own.pid_namespace


def process_liveness(pid: int, start_time: int, pid_namespace: int) -> int:
    """ALIVE, DEAD, or UNKNOWN where it cannot be told from here."""
    cdef rmp_process process
    process.pid = pid
    process.start_time = start_time
    process.pid_namespace = pid_namespace
    return rmp_process_liveness(process)


def boot_id() -> str:
    """Differs after each boot of the machine; empty where the system has none."""
    cdef char id[64]
    return (<bytes>id).decode("ascii", "replace") if rmp_boot_id(id, sizeof(id)) else ""


def fork_epoch() -> int:
    """A number that differs from the parent's in every forked child, whoever forked."""
    return rmp_fork_epoch()


def thread_id() -> int:
    """The kernel's number of the calling thread."""
    return rmp_thread_id()


def uuid7() -> bytes:
    """A new UUIDv7, 16 bytes. Any thread of any process; forked children seed anew."""
    cdef uint8_t uuid[16]
    rmp_uuid7(uuid, rmp_realtime_us())
    return PyBytes_FromStringAndSize(<const char*>uuid, 16)


def now_us() -> int:
    """Wall clock, microseconds since the epoch."""
    return rmp_realtime_us()
