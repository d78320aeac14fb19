"""The kernels of a graph, compiled together."""

import threading

import pytest
import torch
from torch._inductor.async_compile import AsyncCompile, get_compile_threads

from pyro_vae.programs.compiler import KNOWN, compile_graph

if not torch.__version__.startswith(KNOWN):  # where the module may not be importable
    pytest.skip("another torch compiles its kernels itself", allow_module_level=True)

from pyro_vae.programs import kernels
from pyro_vae.programs.kernels import HEADERS, Library, Together, joined, shares

pytestmark = pytest.mark.skipif(
    get_compile_threads() < 2, reason="one processor compiles each kernel by itself"
)


def layers(x, *weights):
    for weight in weights:
        x = torch.tanh(x @ weight) + 1
    return [x, x.sum()]


@pytest.fixture
def loaded(monkeypatch):
    """The numbers of kernels in the sources that are loaded."""
    counts = []
    load = Library.load_async

    def counted(source, *args, **kwargs):
        counts.append(source.count("namespace kernel_"))
        return load(source, *args, **kwargs)

    monkeypatch.setattr(Library, "load_async", counted)
    return counts


def test_a_graph_has_as_many_sources_as_processors_compile(loaded):
    inputs = [torch.randn(5, 7), torch.randn(7, 6), torch.randn(6, 9), torch.randn(9, 3)]
    alone = AsyncCompile.cpp_pybinding
    found = compile_graph(layers, inputs)(*inputs)
    for value, expected in zip(found, layers(*inputs), strict=True):
        torch.testing.assert_close(value, expected)
    counts = [count for count in loaded if count]  # the headers alone have none
    assert sum(counts) >= 3
    assert len(counts) == min(sum(counts), get_compile_threads())
    assert AsyncCompile.cpp_pybinding is alone
    assert HEADERS not in [thread.name for thread in threading.enumerate()]


def source(kind, value):
    return (
        f'#include <cmath>\nextern "C"  void kernel(const float* x, {kind}* y) {{ *y = {value}; }}'
    )


@pytest.mark.parametrize("threads", [1, 2])
def test_kernels_have_their_own_arguments(monkeypatch, threads):
    """In one source and in two."""
    monkeypatch.setattr(kernels, "get_compile_threads", lambda: threads)
    together = Together(None)
    one = together.add(source("float", "*x + 1"))
    two = together.add(source("double", "std::exp(*x)"))
    x, y, z = torch.tensor(2.0), torch.zeros(()), torch.zeros((), dtype=torch.float64)
    one.result()(x, y)
    two.result()(x, z)
    assert float(y) == 3.0
    torch.testing.assert_close(z, torch.tensor(2.0, dtype=torch.float64).exp())
    with pytest.raises(TypeError, match="wrong number of tensors"):
        one.result()(x)


def test_an_error_of_the_compiler_is_its_own_each_time():
    future = Together(None).add(source("float", "unknown"))
    for _ in range(2):
        with pytest.raises(Exception, match="unknown"):
            future.result()


KERNEL = source("float", "*x")
TENSORS = ["const float*", "float*"]


@pytest.mark.parametrize(
    ("argtypes", "text", "together"),
    [
        (TENSORS, KERNEL, True),
        (TENSORS, "\n" + KERNEL, True),
        (["const float*", "int64_t"], KERNEL, False),
        (TENSORS, "#define N 3\n" + KERNEL, False),
        (TENSORS, " " + KERNEL, False),
        (TENSORS, KERNEL + "\n" + KERNEL, False),
        (TENSORS, '// extern "C"\n' + KERNEL, False),
    ],
)
def test_what_is_more_than_one_function_of_tensors_is_left_to_torch(argtypes, text, together):
    assert kernels.joinable(argtypes, text) is together


def test_the_thread_compiles_the_headers_of_the_kernels(monkeypatch):
    headers = []
    monkeypatch.setattr(
        torch._inductor.codecache,
        "_precompile_header",
        lambda *args, **kwargs: headers.append((args, sorted(map(str, kwargs.items())))) or "none",
    )
    monkeypatch.setattr(Library, "cache", {})
    kernels._compile_headers()
    Library.load_async(joined([KERNEL]))
    assert len(headers) == 2
    assert headers[0] == headers[1]


def test_other_threads_are_left_to_torch():
    calls = []
    with kernels.compiled_together():
        asked = AsyncCompile()
        thread = threading.Thread(
            target=lambda: calls.append(AsyncCompile().cpp_pybinding(TENSORS, KERNEL))
        )
        thread.start()
        thread.join()
        asked.cpp_pybinding(TENSORS, KERNEL)
    assert "_together" in vars(asked)
    assert callable(calls[0].result())


@pytest.mark.parametrize(("sizes", "number"), [([3], 4), ([1, 1, 1, 9], 2), ([2, 4, 6, 8, 1], 3)])
def test_shares_hold_each_size_once_and_are_nearly_equal(sizes, number):
    parts = shares(sizes, number)
    sums = [sum(sizes[n] for n in part) for part in parts]
    assert sorted(n for part in parts for n in part) == list(range(len(sizes)))
    assert len(parts) == min(number, len(sizes))
    assert max(sums) - min(sums) <= max(sizes)
