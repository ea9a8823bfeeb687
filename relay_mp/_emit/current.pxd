# Which scope is current, for `verbs`, which asks at every event. current.pyx is where it is written and explained.

from cpython.object cimport PyObject

from relay_mp._emit.handle cimport FOREIGN_EPOCH, ScopeHandle
from relay_mp._native.core cimport wants_stacks
from relay_mp._native.python cimport Py_DECREF

cdef extern from "Python.h":
    int PyContextVar_Get(object variable, PyObject* default, PyObject** value) except -1
    PyObject* PyContextVar_Set(object variable, object value) except NULL

cdef object variable  # the ContextVar
cdef ScopeHandle settle(object stored)
cpdef ScopeHandle nearest_open(ScopeHandle handle)
cpdef bytes stack_uuids(ScopeHandle handle)
cdef bytes foreign_stack(ScopeHandle current)
cdef int require_endable(ScopeHandle handle, str purpose) except -1
cdef int require_poppable(ScopeHandle handle) except -1
cdef int leave(ScopeHandle handle) except -1


cdef inline object stored_scope():
    """What the calling context holds: its handle, closed or not, or None."""
    cdef PyObject* stored
    cdef object handle
    PyContextVar_Get(variable, NULL, &stored)
    handle = <object>stored
    Py_DECREF(stored)
    return handle


cdef inline int store_scope(object handle) except -1:
    Py_DECREF(PyContextVar_Set(variable, handle))  # the token
    return 0


cdef inline ScopeHandle current_handle():
    cdef object stored = stored_scope()
    if stored is not None and (<ScopeHandle?>stored).is_open:
        return <ScopeHandle>stored
    return settle(stored)


cdef inline bytes record_stack_of(ScopeHandle current):
    """What a record says of the scopes around it: all of them while somebody wants to know. Else those of a
    foreign scope that is of another program's trace, for nobody here has seen that begin; mostly nothing."""
    if wants_stacks():
        return stack_uuids(current)
    return None if current.epoch != FOREIGN_EPOCH else foreign_stack(current)
