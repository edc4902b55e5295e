/* Runs each Python function through a C function of its own, which callgrind can tell from others: py0, py1, and so on.
   STUBS(X), which profiling.py defines, is X(0) X(1) ... */

#include <Python.h>
#include <stdio.h>
#if PY_VERSION_HEX < 0x030c0000
#define Py_BUILD_CORE
#include <internal/pycore_frame.h>
#define PyUnstable_InterpreterFrame_GetCode(frame) ((PyObject *)(frame)->f_code)
#define PyUnstable_Code_GetExtra _PyCode_GetExtra
#define PyUnstable_Code_SetExtra _PyCode_SetExtra
#define PyUnstable_Eval_RequestCodeExtraIndex _PyEval_RequestCodeExtraIndex
#endif

typedef PyObject *(*Evaluator)(PyThreadState *, struct _PyInterpreterFrame *, int);

/* The assembly is empty, and keeps the compiler from making a jump of the call, or one function of all. */
#define STUB(n)                                                                      \
    PyObject *py##n(PyThreadState *thread, struct _PyInterpreterFrame *frame, int x) \
    {                                                                                \
        PyObject *result = _PyEval_EvalFrameDefault(thread, frame, x);               \
        __asm__ volatile("" ::"i"(n));                                               \
        return result;                                                               \
    }
STUBS(STUB)

#define NAME(n) py##n,
static Evaluator stubs[] = {STUBS(NAME)};
static size_t used;
static Py_ssize_t extra;
static FILE *names;

static PyObject *evaluate(PyThreadState *thread, struct _PyInterpreterFrame *frame, int x)
{
    PyObject *object = PyUnstable_InterpreterFrame_GetCode(frame);
    PyCodeObject *code = (PyCodeObject *)object;
    void *stub = NULL;
    PyUnstable_Code_GetExtra(object, extra, &stub);
    if (stub == NULL) {
        if (used == sizeof(stubs) / sizeof(stubs[0])) {
            return _PyEval_EvalFrameDefault(thread, frame, x);
        }
        fprintf(names, "py%zu %s:%d %s\n", used, PyUnicode_AsUTF8(code->co_filename), code->co_firstlineno,
                PyUnicode_AsUTF8(code->co_qualname));
        fflush(names);
        stub = stubs[used++];
        PyUnstable_Code_SetExtra(object, extra, stub);
    }
    return ((Evaluator)stub)(thread, frame, x);
}

/* From now on, and write into *path* which of the functions stands for which Python function. */
void run_frames_apart(const char *path)
{
    names = fopen(path, "w");
    extra = PyUnstable_Eval_RequestCodeExtraIndex(NULL);
    _PyInterpreterState_SetEvalFrameFunc(PyInterpreterState_Get(), evaluate);
}
