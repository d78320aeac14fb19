"""What torch prepares for a graph and ours on the CPU do not need."""

import threading

import pytest
import torch
import torch._inductor.compile_fx  # it loads the modules below
import torch._inductor.config
from torch._inductor import codecache
from torch._inductor.fx_passes import joint_graph

from pyro_vae.programs import unneeded
from pyro_vae.programs.compiler import KNOWN, compile_graph

pytestmark = pytest.mark.skipif(
    not torch.__version__.startswith(KNOWN), reason="another torch may need what is left out"
)
system = codecache.CacheBase.get_system


@pytest.fixture
def built(monkeypatch):
    """The devices for which patterns were built."""
    devices = []
    monkeypatch.setattr(joint_graph, "lazy_init", devices.append)
    return devices


def test_a_graph_builds_no_patterns_and_later_ones_do(built):
    x = torch.randn(7)
    with torch._inductor.utils.fresh_cache():
        (found,) = compile_graph(lambda x: [x.sin() * 3 - 5], [x])(x)
    torch.testing.assert_close(found, x.sin() * 3 - 5)
    assert built == []
    joint_graph.lazy_init("cpu")
    assert built == ["cpu"]


def test_patterns_that_are_asked_for_and_those_of_other_threads_are_built(built):
    with unneeded.left_out():
        with torch._inductor.config.patch(pattern_matcher=False):
            joint_graph.lazy_init("left out")
            other = threading.Thread(target=joint_graph.lazy_init, args=("of a thread",))
            other.start()
            other.join()
        with torch._inductor.config.patch(pattern_matcher=True):
            joint_graph.lazy_init("asked for")
    assert built == ["of a thread", "asked for"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="the description is of the GPU")
def test_the_system_is_described_as_by_torch(monkeypatch):
    """Without the hash of Triton, which is asked for as before afterwards."""
    key, asked = codecache.triton_key, []
    expected = system.__wrapped__()
    monkeypatch.setattr(codecache, "triton_key", lambda: asked.append(1) or key())
    kept = codecache.triton_key
    system.cache_clear()
    with unneeded.left_out():
        assert asked == []
    assert codecache.triton_key is kept
    assert system() == expected == system.__wrapped__()
    assert asked == [1]
