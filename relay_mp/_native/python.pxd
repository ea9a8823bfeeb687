# Python.h, as the compiled modules use it.
#
# Declared here rather than cimported from Cython's own `cpython`: bytes and texts are const, and what takes a PyObject*
# borrows it, and so costs no reference counting.

from cpython.object cimport PyObject


cdef extern from "Python.h":
    char* PyBytes_AS_STRING(object)
    Py_ssize_t PyBytes_GET_SIZE(object)
    object PyBytes_FromStringAndSize(const char* bytes, Py_ssize_t size)
    object PyUnicode_DecodeUTF8(const char* bytes, Py_ssize_t size, const char* errors)
    object PyUnicode_DecodeASCII(const char* bytes, Py_ssize_t size, const char* errors)
    char* PyOS_double_to_string(double value, char format_code, int precision, int flags, int* kind) except NULL
    void PyMem_Free(void* memory)
    int Py_DTSF_ADD_DOT_0
    int PyErr_CheckSignals() except -1

    void Py_INCREF(PyObject* o)
    void Py_DECREF(PyObject* o)
    bint PyUnicode_Check(PyObject* o)
    bint PyUnicode_CheckExact(PyObject* o)
    bint PyUnicode_IS_COMPACT_ASCII(PyObject* o)
    void* PyUnicode_DATA(PyObject* o)
    Py_ssize_t PyUnicode_GET_LENGTH(PyObject* o)
    const char* PyUnicode_AsUTF8AndSize(PyObject* o, Py_ssize_t* size) except NULL
    bint PyLong_CheckExact(PyObject* o)
    long long PyLong_AsLongLongAndOverflow(PyObject* o, int* overflow) except? -1
    unsigned long long PyLong_AsUnsignedLongLong(PyObject* o) except? 0xFFFFFFFFFFFFFFFF
    bint PyFloat_CheckExact(PyObject* o)
    double PyFloat_AS_DOUBLE(PyObject* o)
    bint PyDict_CheckExact(PyObject* o)
    Py_ssize_t PyDict_GET_SIZE(PyObject* o)
    bint PyList_CheckExact(PyObject* o)
    Py_ssize_t PyList_GET_SIZE(PyObject* o)
    bint PyTuple_CheckExact(PyObject* o)
    Py_ssize_t PyTuple_GET_SIZE(PyObject* o)
    PyObject* PyTuple_GET_ITEM(PyObject* o, Py_ssize_t index)
