# platform.h: what the operating system is asked for. What each name does is said there.

from libc.stdint cimport uint32_t


cdef extern from "platform.h" nogil:
    uint32_t rmp_thread_id()
    bint rmp_boot_id(char* id, size_t room)
