"""The kernels of a graph, compiled together."""

import threading

import pytest
import torch
from torch._inductor.async_compile import AsyncCompile, get_compile_threads

from pyro_vae.programs.compiler import compile_graph
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


def test_kernels_of_one_source_have_their_own_names_and_arguments():
    sources = [
        f'#include <cmath>\nextern "C" void kernel(const float* x, {kind}* y) {{ *y = {value}; }}'
        for kind, value in (("float", "*x + 1"), ("double", "std::exp(*x)"))
    ]
    together = Together(lambda task: None)
    kernels = [together.add(source) for source in sources]
    together._functions = dict(enumerate(_loaded(joined(sources))))
    x, y, z = torch.tensor(2.0), torch.zeros(()), torch.zeros((), dtype=torch.float64)
    kernels[0].result()(x, y)
    kernels[1].result()(x, z)
    assert float(y) == 3.0
    torch.testing.assert_close(z, torch.tensor(2.0, dtype=torch.float64).exp())
    with pytest.raises(TypeError, match="wrong number of tensors"):
        kernels[0].result()(x)


def _loaded(source):
    module = Library.load_async(source)()
    return module.kernel_0, module.kernel_1


@pytest.mark.parametrize(("sizes", "number"), [([3], 4), ([1, 1, 1, 9], 2), ([2, 4, 6, 8, 1], 3)])
def test_shares_hold_each_size_once_and_are_nearly_equal(sizes, number):
    parts = shares(sizes, number)
    sums = [sum(sizes[n] for n in part) for part in parts]
    assert sorted(n for part in parts for n in part) == list(range(len(sizes)))
    assert len(parts) == min(number, len(sizes))
    assert max(sums) - min(sums) <= max(sizes)
