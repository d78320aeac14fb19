"""Operations that a graph on the CPU calls as Python functions."""

import threading

import pytest
import torch
from torch._inductor.ir import FallbackKernel
from torch._inductor.select_algorithm import extern_kernels

from pyro_vae.nets import products_by
from pyro_vae.programs import calls
from pyro_vae.programs.compiler import KNOWN, compile_graph

pytestmark = pytest.mark.skipif(
    not torch.__version__.startswith(KNOWN), reason="another torch calls its operations itself"
)


@pytest.fixture
def called(monkeypatch):
    """The names of the functions that a graph has called."""
    names = []

    def counted(name, function):
        return lambda *args, **kwargs: names.append(name) or function(*args, **kwargs)

    for name, function in calls.FUNCTIONS.items():
        monkeypatch.setattr(extern_kernels, calls.NAMES[name], counted(function.__name__, function))
    return names


@pytest.mark.parametrize("like", [torch.zeros(128, 20), torch.zeros(20, 128).t()])
@pytest.mark.parametrize("law", [(), (2.0, 3.0)])
def test_normal_numbers_are_those_of_the_eager_call(called, like, law):
    """Also where the memory that is drawn into lies column by column."""
    torch.manual_seed(0)
    (found,) = compile_graph(lambda x: [torch.empty_like(x).normal_(*law) + 1], [like])(like)
    torch.manual_seed(0)
    torch.testing.assert_close(found, torch.empty_like(like).normal_(*law) + 1, rtol=0, atol=0)
    assert called == ["normal"]


@pytest.mark.parametrize("library", ["onednn", "rows"])
def test_products_are_called_directly(called, library):
    a, b = torch.randn(128, 784), torch.randn(400, 784)
    with products_by(library):
        (found,) = compile_graph(lambda a, b: [a @ b.t()], [a, b])(a, b)
    torch.testing.assert_close(found, a @ b.t(), rtol=0, atol=1e-3)  # of numbers near 28
    assert called == ["onednn"]


def test_other_threads_and_later_graphs_call_torch():
    names = []

    class Kernel(FallbackKernel):
        def __init__(self):
            self.python_kernel_name = "torch.ops.aten.normal_functional.default"

        def try_get_kernel_name(self):
            return self.python_kernel_name

    def look():
        names.append(Kernel().get_kernel_name())

    with calls.called_directly():
        look()
        with calls.called_directly():
            look()
        look()
        other = threading.Thread(target=look)
        other.start()
        other.join()
    look()
    ours, theirs = "extern_kernels.pyro_vae_normal", Kernel().python_kernel_name
    assert names == [ours, ours, ours, theirs, theirs]
    assert "get_kernel_name" not in vars(FallbackKernel)
