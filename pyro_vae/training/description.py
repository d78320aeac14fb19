"""Modules described by their constructor arguments, as JSON values, and built from them again.

A module becomes ``{"class": name, argument: value, ...}``; arguments with their default values are
left out. A module that occurs twice is described once and then named by its path. Only the classes
in :data:`CLASSES` are described or built, so that a file cannot name any other code.
"""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .. import families, models, nets
from ..families import (
    IAF,
    FlowPrior,
    MixturePrior,
    NeuralSpline,
    Normal,
    Planar,
    RealNVP,
    StandardNormal,
    UniformOneHot,
    UniformSphere,
    VampPrior,
)
from ..nets import ResidualBlock

LAYERS = (
    *(nn.Sequential, nn.Identity, nn.Linear, nn.Embedding, nn.Dropout, nn.Flatten, nn.Unflatten),
    *(nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.Upsample),
    *(nn.MaxPool2d, nn.AvgPool2d, nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm),
    *(nn.ReLU, nn.LeakyReLU, nn.ELU, nn.SiLU, nn.GELU, nn.Tanh, nn.Sigmoid, nn.Softplus),
)
"""The layers of torch that can be described."""

CLASSES: dict[str, type[nn.Module]] = {f"torch.nn.{layer.__name__}": layer for layer in LAYERS}
for package in (nets, families, models):
    for value in vars(package).values():
        if isinstance(value, type) and issubclass(value, nn.Module):
            CLASSES[value.__name__] = value
NAMES = {cls: name for name, cls in CLASSES.items()}


def describe(module: nn.Module) -> dict[str, Any]:
    """Return the description of a module.

    Raises ``TypeError`` for a class that is not in :data:`CLASSES`, or arguments that cannot be
    read from the module.

    >>> describe(nn.Sequential(nn.Linear(2, 3), nn.ReLU()))["*"][1]
    {'class': 'torch.nn.ReLU'}
    """
    description: dict[str, Any] = _describe(module, "", {})
    return description


def build(description: dict[str, Any]) -> nn.Module:
    """Build a module from its description, with new weights.

    Raises ``ValueError`` for a class that is not in :data:`CLASSES`; a wrong argument raises what
    the class raises.

    >>> build(describe(nn.Linear(2, 3, bias=False)))
    Linear(in_features=2, out_features=3, bias=False)
    """
    module = _build(description, "", {})
    if not isinstance(module, nn.Module):
        raise ValueError(f"expected the description of a module, got {description!r}")
    return module


def _describe(value: Any, path: str, seen: dict[int, str]) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple | list):
        return [_describe(item, f"{path}.{index}", seen) for index, item in enumerate(value)]
    if isinstance(value, Tensor):  # its values are among the weights
        return {"shape": list(value.shape)}
    if type(value) not in NAMES:
        raise TypeError(f"expected a class that pyro_vae can build, got {type(value).__name__}")
    if id(value) in seen:
        return {"shared": seen[id(value)]}
    seen[id(value)] = path
    arguments = ARGUMENTS.get(type(value), _arguments)(value)
    described = {name: _describe(a, f"{path}.{name}", seen) for name, a in arguments.items()}
    return {"class": NAMES[type(value)], **described}


def _build(value: Any, path: str, built: dict[str, nn.Module]) -> Any:
    if isinstance(value, list):
        return tuple(_build(item, f"{path}.{index}", built) for index, item in enumerate(value))
    if not isinstance(value, dict):
        return value
    if "shape" in value and "class" not in value:
        return torch.zeros(value["shape"])
    if "shared" in value:
        return built[value["shared"]]
    if value.get("class") not in CLASSES:
        raise ValueError(f"expected a class that pyro_vae can build, got {value.get('class')!r}")
    arguments = {
        name: _build(argument, f"{path}.{name}", built)
        for name, argument in value.items()
        if name != "class"
    }
    built[path] = CLASSES[value["class"]](*arguments.pop("*", ()), **arguments)
    return built[path]


def _arguments(module: nn.Module) -> dict[str, Any]:
    """The arguments of a class that keeps each as an attribute of the same name, as torch does."""
    if type(module).__init__ is nn.Module.__init__:  # takes none, though its signature is general
        return {}
    found: dict[str, Any] = {}
    for name, parameter in inspect.signature(type(module)).parameters.items():
        if parameter.kind == parameter.VAR_POSITIONAL:
            found["*"] = list(module.children())
        elif name not in ("device", "dtype") and not name.startswith("_"):
            if not hasattr(module, name):
                raise TypeError(
                    f"expected the argument {name} of {type(module).__name__}, got none"
                )
            value = getattr(module, name)
            value = value is not None if name == "bias" else value
            if isinstance(value, nn.Module) or value != parameter.default:
                found[name] = value
    return found


def _flow(module: Any) -> dict[str, Any]:
    """The arguments of a flow, from the sizes of its layers."""
    layers = list(module.layers)
    if not layers:
        raise TypeError(f"expected a flow with layers, got {type(module).__name__} of depth 0")
    widths = [
        (layer.in_features, layer.out_features)
        for layer in layers[0].modules()
        if isinstance(layer, nn.Linear)
    ]
    hidden = [size for _, size in widths[:-1]]
    if isinstance(module, FlowPrior):
        bins = layers[0].sizes[0] if len(layers[0].sizes) > 1 else None
        return {"dim": len(module.loc), "depth": len(layers), "hidden": hidden, "bins": bins}
    found = {"net": module.net, "dim": module.dim, "depth": len(layers)}
    if isinstance(module, Planar):
        return {**found, "context": widths[0][0]}
    seen = module.dim if isinstance(module, IAF) else layers[0].kept
    found |= {"context": widths[0][0] - seen, "hidden": hidden}
    return found | {"bins": layers[0].sizes[0]} if isinstance(module, NeuralSpline) else found


ARGUMENTS: dict[type[nn.Module], Callable[[Any], dict[str, Any]]] = {
    nn.Identity: lambda module: {},
    StandardNormal: lambda module: {"dim": len(module.loc)},
    UniformSphere: lambda module: {"dim": len(module.loc)},
    UniformOneHot: lambda module: {"classes": len(module.logits)},
    MixturePrior: lambda module: {"dim": module.loc.shape[1], "components": len(module.loc)},
    VampPrior: lambda module: {
        "encoder": module.encoder,
        "pseudo_inputs": module.raw,
        "peak": module.peak,
    },
    Normal: lambda module: {  # the scale itself is among the weights
        "net": module.net,
        "learned": isinstance(module.log_scale, nn.Parameter),
        "event_dim": module.event_dim,
    },
    ResidualBlock: lambda module: {
        "channels_in": module.skip.in_channels,
        "channels_out": module.skip.out_channels,
    },
    **dict.fromkeys((Planar, IAF, RealNVP, NeuralSpline, FlowPrior), _flow),
}
"""Classes whose constructor arguments are not attributes of the same names."""
