# stack.h: how much is left of the calling thread's C stack. What each name does is said there.


cdef extern from "stack.h" nogil:
    bint rmp_stack_has(size_t bytes)
