"""From a function of tensors to compiled code: traced by ``make_fx``, compiled by TorchInductor."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch._inductor.config as inductor
import torch.compiler.config
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.torch_version import TorchVersion

from ..nets import graph_products, log_sigmoid
from .kept_choices import choices_kept
from .quiet import quiet_compiler

REPEATING = ("2.13.", "2.14.")
"""Versions of torch whose compiled random numbers on CUDA can repeat (2.15 takes a slower path)."""

KEEPING = "2.14"
"""The first version known to find a graph on disk without an error (2.7 does not)."""

KNOWN = "2.14."
"""The version of torch whose kernels and calls we know well enough to change them."""

FEW_FUSED = 4
"""Loops fused into one where torch 2.14 fails with a KeyError to fuse more (mixture priors)."""

REPLACED = graph_products.DECOMPOSITIONS | log_sigmoid.DECOMPOSITIONS
"""The operations of torch that a graph computes in our way, which is faster."""


class CannotCompile(RuntimeError):
    """Raised where programs have no compiled form; the message names the reason."""


def compile_graph(function: Callable[..., Any], inputs: Sequence[Tensor]) -> Callable[..., Any]:
    """Compile a function of a list of tensors, for these shapes; it may write to its inputs.

    Raises :class:`CannotCompile` where the function's control flow depends on values, no compiler
    is at hand, or the random numbers that this version of torch compiles for CUDA repeat.
    """
    if torch.__version__.startswith(REPEATING) and any(x.is_cuda for x in inputs):
        raise CannotCompile(
            "expected torch before 2.13, or from 2.15 on, to compile for CUDA, "
            f"got {torch.__version__}, whose compiled random numbers repeat: "
            "use the eager path, compile=False"
        )
    try:
        with quiet_compiler(), choices_kept():
            return _compile(function, inputs)
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise CannotCompile(
            f"cannot compile these programs ({reason[0]}): use the eager path, compile=False"
        ) from error


def _compile(function: Callable[..., Any], inputs: Sequence[Tensor]) -> Callable[..., Any]:
    cuda = any(x.is_cuda for x in inputs)
    # with a ShapeEnv, though all shapes are fixed, the compiler keeps graphs on disk;
    # detached, for two inputs that are the same tensor now may differ in the next call
    keeps = TorchVersion(torch.__version__) >= KEEPING
    mode = FakeTensorMode(shape_env=ShapeEnv() if keeps else None, static_shapes=True)
    fakes = [mode.from_tensor(x.detach()) for x in inputs]
    graph = make_fx(function, decomposition_table=REPLACED, tracing_mode="fake")(*fakes)
    # on the CPU TorchInductor's patterns save no measurable time, and to build them takes seconds;
    # torch's own random numbers take a tenth of the time of the compiler's; its test whether the
    # C++ compiler knows the processor takes 5 s (TORCHINDUCTOR_VEC_ISA_OK=0: no vector code)
    options = {
        "pattern_matcher": cuda,
        "fallback_random": not cuda,
        "cpp.vec_isa_ok": inductor.cpp.vec_isa_ok is not False,
    }
    ours = not cuda and torch.__version__.startswith(KNOWN) and sys.platform != "win32"
    with inductor.patch(options), _kept_for(inputs), _ours() if ours else nullcontext():
        try:
            return _by_inductor(graph, fakes)
        except Exception as error:
            if "KeyError" not in str(error):
                raise
            with inductor.patch(max_fusion_size=FEW_FUSED):
                return _by_inductor(graph, fakes)


@contextmanager
def _ours() -> Iterator[None]:
    """Compile the C++ kernels of a graph together, and call some operations as functions.

    What torch prepares without need is left out.
    """
    from .kernels import compiled_together  # it loads the compiler

    with compiled_together():
        from .calls import called_directly  # loads more of it, while headers are compiled
        from .unneeded import left_out

        with called_directly(), left_out():
            yield


@contextmanager
def _kept_for(inputs: Sequence[Tensor]) -> Iterator[None]:
    """Keep graphs on disk for inputs that share memory in the same way, on the same machine.

    Code on the CPU depends on this, and not every version of torch has it in a graph's key.
    """
    memory = [x.untyped_storage().data_ptr() for x in inputs]
    places = [(memory.index(at), x.storage_offset()) for at, x in zip(memory, inputs, strict=True)]
    sharing = {n: place for n, place in enumerate(places) if memory.count(memory[n]) > 1}
    instructions = torch.backends.cpu.get_cpu_capability()
    tag = f"{instructions} {torch.get_num_threads()} {torch.get_default_dtype()} {sharing}"
    config: Any = torch.compiler.config
    with config.patch(cache_key_tag=config.cache_key_tag + tag):
        yield


def _by_inductor(graph: GraphModule, inputs: Sequence[Tensor]) -> Callable[..., Any]:
    compiled: Callable[..., Any] = torch._inductor.compile(graph, list(inputs))
    return compiled
