"""The C++ kernels of a graph, compiled together. Imported for graphs alone: it loads the compiler.

TorchInductor compiles each kernel as a source of its own. Most of this time goes to the headers,
which are the same for all. Here a graph has at most as many sources as torch compiles at once.
Torch keeps the headers in compiled form. They are compiled beside the other work on the first
graph.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import copy_context
from threading import Thread
from typing import Any

import torch._inductor.compile_fx  # two threads must not import the same modules
import torch.utils.cpp_extension  # noqa: F401
from torch._inductor.async_compile import AsyncCompile, get_compile_threads
from torch._inductor.codecache import CppPythonBindingsCodeCache, LambdaFuture
from torch._inductor.utils import clear_on_fresh_cache

from .replaced import replaced

HEADERS = "pyro_vae headers"
"""The name of the thread that compiles the headers."""

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
        } catch (...) {
            PyErr_SetString(PyExc_RuntimeError, "unknown error");
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
    PyObject* module = PyModule_Create(&module_definition);
#ifdef Py_GIL_DISABLED
    if (module) PyUnstable_Module_SetGIL(module, Py_MOD_GIL_NOT_USED);
#endif
    return module;
}
"""


@clear_on_fresh_cache
class Library(CppPythonBindingsCodeCache):
    """Several kernels as one Python module, kept on disk as torch keeps single kernels."""

    cache: dict[str, Any] = {}  # noqa: RUF012  # as in the parent
    entry_function = "kernels"

    @staticmethod
    def cache_clear() -> None:
        """Forget what is loaded, as torch does where its folder changes."""
        Library.cache.clear()


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
            modules = [load() for load in loads]
            self._functions = {
                n: getattr(module, f"kernel_{i}")
                for part, module in zip(parts, modules, strict=True)
                for i, n in enumerate(part)
            }
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


def joinable(argtypes: Sequence[str], source: str) -> bool:
    """Whether a kernel takes tensors alone, and is one function after its includes."""
    functions = re.findall(r'^ *extern "C"', source, re.MULTILINE)
    others = re.search(r"^ *# *(define|if|undef)|^ +# *include", source, re.MULTILINE)
    tensors = all(argtype.endswith("*") for argtype in argtypes)
    return tensors and len(functions) == source.count('extern "C"') == 1 and not others


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
    """Compile the kernels of each graph together, and the headers meanwhile.

    One thread compiles at a time. What other threads compile without us is left to torch.
    """
    if get_compile_threads() < 2:
        yield
        return
    with replaced(AsyncCompile, "cpp_pybinding", _cpp_pybinding):
        headers = Thread(target=copy_context().run, args=(_compile_headers,), name=HEADERS)
        headers.start()
        try:
            yield
        finally:
            headers.join()


def _cpp_pybinding(alone: Callable[..., Any], self: Any, argtypes: list[str], source: str) -> Any:
    """The future of a kernel."""
    if not joinable(argtypes, source):
        return alone(self, argtypes, source)
    kernels: Together = vars(self).setdefault("_together", Together(self.submit))
    return kernels.add(source)


def _compile_headers() -> None:
    with suppress(Exception):  # the kernels will meet it too
        Library.load_async("")
