"""Objects of the package by any of their names, so that several versions can be compared."""

from collections.abc import Callable, Iterator
from importlib import import_module
from types import ModuleType
from typing import Any

from pyro_vae import SVI


def found(*paths: str) -> Any:
    """Return the first of these objects ("module:name") that exists in the imported package."""
    for path in paths:
        module, name = path.split(":")
        try:
            found = getattr(import_module(module), name, None)
        except ImportError:
            continue
        if found is not None and not isinstance(found, ModuleType):
            return found
    raise ImportError(f"expected one of {', '.join(paths)}, got none of them")


def over(family: Any, net: Callable[[int], Any], dim: int) -> Any:
    """A flow on R^dim over a network with as many outputs as it needs."""
    if hasattr(family, "over"):
        return family.over(net, dim)
    return family(net(family.outputs(dim)), dim)


def epochs(svi: SVI, train: Any, number: int, batch_size: int) -> Iterator[Any]:
    """Train, one epoch each time the iterator is advanced."""
    run = found("pyro_vae.training:iter_epochs", "pyro_vae.training:fit", "pyro_vae.fit:fit")
    return iter(run(svi, train, epochs=number, batch_size=batch_size, progress=False))


def shared_graph(pair: Any) -> Any:
    """The argument ``compile`` of evaluations that share one graph."""
    make = found(
        "pyro_vae.evaluation:Scorer",
        "pyro_vae.evaluation:compiled_joint",
        "pyro_vae.importance:compiled_joint",
    )
    if make.__name__ == "Scorer":
        return make(pair.model, pair.guide, compile=True)
    return make(pair.model)
