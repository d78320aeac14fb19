"""Graphs of programs: what is compiled, what is refused, what a graph's inputs are."""

import logging
from random import SystemRandom

import pytest
import torch
from pyro.nn import PyroModule, pyro_method
from torch import nn
from torch._dynamo.utils import counters
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import cpp_extension

from pyro_vae.programs.compiler import FEW_FUSED, KEEPING, CannotCompile, compile_graph
from pyro_vae.programs.graphs import CudaGraph, Graphs, Modules
from pyro_vae.programs.isolation import isolated
from pyro_vae.programs.quiet import quiet_compiler


@pytest.mark.parametrize("version", ["2.13.0+cu130", "2.14.1"])
def test_repeating_random_numbers_are_refused_in_one_sentence(monkeypatch, traced_only, version):
    monkeypatch.setattr(torch, "__version__", version)
    with FakeTensorMode():  # a tensor on CUDA where there is none
        x = torch.empty(3, device="cuda")
    with pytest.raises(
        CannotCompile, match=r"expected torch before 2\.13, or .*, got 2\.1.*: use the eager"
    ):
        compile_graph(lambda x: [x + 1], [x])
    (y,) = compile_graph(lambda x: [x + 1], [torch.zeros(3)])(
        torch.zeros(3)
    )  # on the CPU they do not repeat
    assert torch.equal(y, torch.ones(3))


def test_loops_that_cannot_be_fused_are_compiled_with_fewer(monkeypatch):
    """As torch 2.14 fails for a prior that is a full-rank mixture; other errors are raised."""
    tried = []

    def compile(graph, inputs):
        tried.append(torch._inductor.config.max_fusion_size)
        if len(tried) == 1:
            raise RuntimeError("KeyError: 'buf85'")
        return graph

    monkeypatch.setattr(torch._inductor, "compile", compile)
    (y,) = compile_graph(lambda x: [x + 1], [torch.zeros(3)])(torch.zeros(3))
    assert torch.equal(y, torch.ones(3))
    assert tried[1] == FEW_FUSED < tried[0]
    monkeypatch.setattr(torch._inductor, "compile", lambda *args: 1 / 0)
    with pytest.raises(CannotCompile, match="division by zero"):
        compile_graph(lambda x: [x + 1], [torch.zeros(3)])


def hits(function, *inputs) -> int:
    """How many graphs were found on disk when this function was compiled; it is also run."""
    before = counters["inductor"]["fxgraph_cache_hit"]
    result = compile_graph(function, inputs)(*inputs)
    torch.testing.assert_close(result, function(*inputs))
    return counters["inductor"]["fxgraph_cache_hit"] - before


def scaled_by(constant):
    return lambda x: [x * torch.tensor(constant)]


@pytest.mark.skipif(torch.__version__ < KEEPING, reason="this version keeps no graphs")
def test_a_graph_is_kept_on_disk(monkeypatch):
    """For the same program on the same machine: no code is generated again."""
    x, factor = torch.rand(3), 3.25
    hits(lambda x: [factor * x.sin()], x)
    assert hits(lambda x: [factor * x.sin()], x) == 1
    other = SystemRandom().random()  # no earlier run has left its graph on disk
    assert hits(lambda x: [other * x.sin()], x) == 0
    assert hits(lambda x: [other * x.sin()], x) == 1
    for constant in [1.0, 2.0], [3.0, 4.0]:  # they may share code, not numbers
        hits(scaled_by(constant), x[:2])
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: f"other {other}")
    assert hits(lambda x: [other * x.sin()], x) == 0


def test_a_tensor_that_is_no_argument_is_refused(traced_only):
    """The graph would keep the tensor of its first call."""
    captured = torch.ones(3)
    with pytest.raises(CannotCompile):
        compile_graph(lambda x: [x + captured], [torch.zeros(3)])


def test_one_tensor_given_twice_is_two_inputs(traced_only):
    x, y = torch.ones(3), torch.zeros(3)
    (difference,) = compile_graph(lambda x, y: [x - y], [x, x])(x, y)
    assert torch.equal(difference, torch.ones(3))


def test_shared_tensors_are_one_argument():
    class Pair(PyroModule):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(3, 3)
            self.b = nn.Linear(3, 3)
            self.b.weight = self.a.weight

        @pyro_method
        def model(self):
            return self.a(torch.ones(3)) + self.b(torch.ones(3))

    owner = Pair()
    modules = Modules([owner])
    tensors = modules.tensors()
    assert len(tensors) == 3
    doubled = {name: 2 * value for name, value in tensors.items()}
    with isolated([owner], validate=False):
        torch.testing.assert_close(modules.run(doubled, owner.model), 2 * owner.model())


class FakeCuda:
    """What CudaGraph asks of CUDA, on the CPU: a replay calls the function itself."""

    def __init__(self, monkeypatch):
        self.recording = None
        recorder = self

        class Stream:
            def wait_stream(self, other):
                pass

        class Graph:
            def replay(self):
                for out, new in zip(recorder.outputs, recorder.again(), strict=True):
                    out.copy_(new)

        class Nothing:
            def __init__(self, *args):
                pass

            def __enter__(self):
                pass

            def __exit__(self, *args):
                pass

        for name, value in {
            "Stream": Stream,
            "CUDAGraph": Graph,
            "current_stream": Stream,
            "stream": Nothing,
            "graph": Nothing,
        }.items():
            monkeypatch.setattr(torch.cuda, name, value)


def test_cuda_graph_writes_once_a_call(monkeypatch):
    """Warm-up and recording are no steps; new data reach the recorded addresses."""
    fake = FakeCuda(monkeypatch)
    weight, total = torch.zeros(()), []

    def function(weight, x):
        weight += x
        return [weight * 10]

    graph = CudaGraph(function)
    original = graph._record

    def record(fixed, data):
        fake.outputs, fake.again = [torch.zeros(())], lambda: function(*fixed, *graph.data)
        original(fixed, data)
        graph.outputs = fake.outputs

    monkeypatch.setattr(graph, "_record", record)
    for x in (1.0, 2.0, 3.0):
        total += [float(out) for out in graph([weight], [torch.tensor(x)])]
    assert float(weight) == 6.0
    assert total[1:] == [30.0, 60.0]


def test_graphs_key_on_shape_and_type(traced_only):
    layer = nn.Linear(1, 1, bias=False)
    graphs = Graphs([layer])
    results = [
        graphs(lambda tensors, state, x: [x[0].sum() + 1], (), (torch.ones(n, dtype=t),))
        for n in (2, 3)
        for t in (torch.float32, torch.int64)
    ]
    assert [float(r[0]) for r in results] == [3.0, 3.0, 4.0, 4.0]
    assert len(graphs._graphs) == 4


def test_graphs_tell_nestings_of_arguments_apart(traced_only):
    graphs = Graphs([nn.Linear(1, 1)])
    for data in ({"x": torch.ones(2)}, {"x": torch.zeros(2)}, [torch.ones(2)]):
        graphs(lambda tensors, state, x: [torch.ones(1)], (), data)
    assert len(graphs._graphs) == 2


def test_programs_without_modules_are_refused_in_one_sentence():
    with pytest.raises(CannotCompile, match="expected programs over modules, got none"):
        Graphs([])


def test_arguments_without_a_hash_are_refused_in_one_sentence():
    graphs = Graphs([nn.Linear(2, 2)])
    with pytest.raises(
        TypeError, match=r"expected tensors, numbers and other hashable .*, got set"
    ):
        graphs(lambda tensors, state, data: [data[0]], (), (torch.ones(2), {1, 2}))


@pytest.mark.skipif(not hasattr(cpp_extension, "logger"), reason="torch 2.7 prints its warnings")
def test_the_compiler_does_not_warn_about_a_missing_gpu(caplog):
    """Only inside, and only this warning of torch's."""
    logger = logging.getLogger("torch.utils.cpp_extension")
    missing = "No CUDA runtime is found, using CUDA_HOME='/cuda'"
    with quiet_compiler():
        logger.warning(missing)
        logger.warning("other")
    logger.warning(missing)
    assert [record.getMessage() for record in caplog.records] == ["other", missing]
