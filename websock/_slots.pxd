# How awaitables finish: through type slots, without an exception object where the
# interpreter allows it.  Cython has no spelling for them.

from cpython.object cimport PyObject


cdef extern from "Python.h":
    ctypedef struct PyTypeObject
    ctypedef enum PySendResult:
        PYGEN_RETURN
        PYGEN_ERROR
        PYGEN_NEXT
    PyObject *Py_NewRef(object) noexcept


cdef extern from *:
    """
    #ifndef WEBSOCK_SET_STEPS
    #define WEBSOCK_SET_STEPS
    static void
    websock_set_steps(PyTypeObject *type, sendfunc send, iternextfunc next)
    {
        type->tp_iternext = next;
        if (type->tp_as_async != NULL) {
            type->tp_as_async->am_send = send;
        }
    #ifdef Py_TPFLAGS_HAVE_AM_SEND
        type->tp_flags |= Py_TPFLAGS_HAVE_AM_SEND;
    #endif
        PyType_Modified(type);
    }
    #endif
    """
    ctypedef PySendResult (*sendfunc)(
        PyObject *, PyObject *, PyObject **
    ) except? PYGEN_ERROR
    ctypedef PyObject *(*iternextfunc)(PyObject *) except? NULL
    void websock_set_steps(PyTypeObject *, sendfunc, iternextfunc)
