/* An extension module, for Python's build tools; all else is called by ctypes. */

#include <Python.h>

#include "kernels.h"

/* ../dispatch.py checks this number: raise it in both when an argument changes. */
EXPORT int64_t interface(void) { return 3; }

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_kernels", .m_doc = "Opened by dispatch.py.",
};

PyMODINIT_FUNC PyInit__kernels(void) { return PyModule_Create(&definition); }
