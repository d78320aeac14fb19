"""The C++ kernels of a graph, compiled together. Imported for graphs alone: it loads the compiler.

TorchInductor compiles each kernel as a source of its own. Most of this time goes to the headers,
which are the same for all. Here a graph has as many sources as processors compile at once. The
first graph of all needs the headers in compiled form; this runs beside the other work on the graph.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import copy_context
from threading import Thread
from typing import Any

import torch
import torch._inductor.compile_fx  # here, because two threads must not import the same modules
import torch.utils.cpp_extension
from torch._inductor.async_compile import AsyncCompile, get_compile_threads
from torch._inductor.codecache import CppPythonBindingsCodeCache, LambdaFuture
from torch.torch_version import TorchVersion

SUPPORTED = "2.14"
"""The first version of torch with which this is known to work; others compile by themselves."""

HEADERS = "pyro_vae headers"
"""The name of the thread that compiles them."""

HEAD = """
#include <cstdlib>
#include <stdexcept>
#include <utility>
#include <Python.h>

static void* (*data_ptr)(PyObject*);

template <auto function> struct Bound;
template <class... A, void (*function)(A...)> struct Bound<function> {
    template <size_t... i> static void call(PyObject* args, std::index_sequence<i...>) {
        function(static_cast<A>(data_ptr(PyTuple_GET_ITEM(args, i)))...);
    }
    static PyObject* run(PyObject*, PyObject* args) {
        if (PyTuple_GET_SIZE(args) != sizeof...(A)) {
            PyErr_SetString(PyExc_TypeError, "wrong number of tensors");
            return nullptr;
        }
        try {
            call(args, std::index_sequence_for<A...>{});
        } catch (const std::exception& error) {
            PyErr_SetString(PyExc_RuntimeError, error.what());
            return nullptr;
        }
        Py_RETURN_NONE;
    }
};
"""

TAIL = """
static PyMethodDef methods[] = {%s, {nullptr, nullptr, 0, nullptr}};
static PyModuleDef module_definition = {PyModuleDef_HEAD_INIT, "kernels", nullptr, -1, methods};

PyMODINIT_FUNC PyInit_kernels(void) {
    const char* address = std::getenv("_TORCHINDUCTOR_PYOBJECT_TENSOR_DATA_PTR");
    if (!address) {
        PyErr_SetString(PyExc_RuntimeError, "expected the address of torch's data_ptr, got none");
        return nullptr;
    }
    data_ptr = reinterpret_cast<decltype(data_ptr)>(std::strtoull(address, nullptr, 10));
    return PyModule_Create(&module_definition);
}
"""


class Library(CppPythonBindingsCodeCache):
    """Several kernels as one Python module, kept on disk as torch keeps single kernels."""

    cache: dict[str, Any] = {}  # noqa: RUF012  # as in the parent
    entry_function = "kernels"


class Together:
    """The kernels of a graph, which are compiled when the first of them is asked for."""

    def __init__(self, submit: Callable[..., Any]) -> None:
        self.sources: list[str] = []
        self._submit = submit
        self._functions: dict[int, Any] = {}

    def add(self, source: str) -> Any:
        """The future of a kernel."""
        number = len(self.sources)
        self.sources.append(source)
        return LambdaFuture(lambda: self._function(number))

    def _function(self, number: int) -> Any:
        if not self._functions:
            parts = shares([len(source) for source in self.sources], get_compile_threads())
            loads = [
                Library.load_async(joined([self.sources[n] for n in part]), submit_fn=self._submit)
                for part in parts
            ]
            for part, load in zip(parts, loads, strict=True):
                module = load()
                self._functions |= {n: getattr(module, f"kernel_{i}") for i, n in enumerate(part)}
        return self._functions[number]


def shares(sizes: Sequence[int], number: int) -> list[list[int]]:
    """The positions of the sizes in at most so many parts of nearly equal sums.

    >>> shares([5, 1, 2, 3], 2)
    [[0, 1], [2, 3]]
    """
    parts: list[list[int]] = [[] for _ in range(min(number, len(sizes)))]
    for n in sorted(range(len(sizes)), key=lambda n: -sizes[n]):
        min(parts, key=lambda part: sum(sizes[i] for i in part)).append(n)
    return [sorted(part) for part in parts]


def joined(sources: Sequence[str]) -> str:
    """One C++ source of several, each in a namespace of its own, as a Python module."""
    includes: dict[str, None] = {}
    bodies = []
    for i, source in enumerate(sources):
        lines = source.splitlines()
        includes |= dict.fromkeys(line for line in lines if line.startswith("#include"))
        body = [line for line in lines if not line.startswith("#include")]
        code = "\n".join(body).replace('extern "C"', "static", 1)
        bodies.append(f"namespace kernel_{i} {{\n{code}\n}}")
    method = '{{"kernel_{0}", Bound<kernel_{0}::kernel>::run, METH_VARARGS, ""}}'
    methods = ",\n".join(method.format(i) for i in range(len(sources)))
    return "\n".join([*includes, HEAD, *bodies, TAIL % methods])


@contextmanager
def compiled_together() -> Iterator[None]:
    """Compile the kernels of each graph together, and the headers meanwhile."""
    known = TorchVersion(torch.__version__) >= SUPPORTED and sys.platform != "win32"
    if not known or get_compile_threads() < 2:
        yield
        return
    alone = AsyncCompile.cpp_pybinding

    def cpp_pybinding(self: Any, argtypes: list[str], source: str) -> Any:
        if not all(argtype.endswith("*") for argtype in argtypes):
            return alone(self, argtypes, source)
        kernels: Together = vars(self).setdefault("_together", Together(self.submit))
        return kernels.add(source)

    headers = Thread(target=copy_context().run, args=(_compile_headers,), name=HEADERS)
    headers.start()
    AsyncCompile.cpp_pybinding = cpp_pybinding  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        AsyncCompile.cpp_pybinding = alone  # type: ignore[method-assign]
        headers.join()


def _compile_headers() -> None:
    with suppress(Exception):  # the kernels will meet it too
        Library.load_async("")
