"""Tensors that a trained pair generates: samples, reconstructions, and paths through z.

:func:`sample` and :func:`reconstruct` take any model and guide; a VAE has methods of these names.
Modules run in ``eval`` mode and without gradients. Their parameters and buffers do not change.
"""

from collections.abc import Sequence
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from ..families.moments import mean as mean_of
from ..models.vae import VAE
from ..programs.isolation import looking
from ..programs.modules import modules_of
from ..programs.sites import Program, stochastic_sites


def sample(
    model: Program, *args: Any, site: str | None = None, mean: bool = False, **kwargs: Any
) -> Tensor:
    """Draw z ~ p(z) and x ~ p(x | z) from a model; return x.

    The model is called with the arguments that it is trained with. They determine the number of
    data. Their values at observed sites are replaced by draws. With ``mean``, E[x | z] is returned
    instead of the draw. ``site`` is the observed site to return, by default the only one.

    Raises ``ValueError`` where there is no such site, or more than one and no ``site`` is given.

    >>> sample(vae.model, torch.zeros(5, 64)).shape
    torch.Size([5, 64])
    """
    with looking(modules_of(model)):
        return _generated(poutine.uncondition(model), args, kwargs, site, mean)


def reconstruct(
    model: Program,
    guide: Program,
    *args: Any,
    site: str | None = None,
    mean: bool = True,
    **kwargs: Any,
) -> Tensor:
    """Draw z ~ q(z | x) from the guide; return E[x | z], or without ``mean`` a draw x' ~ p(x' | z).

    The arguments are those of model and guide. ``site`` and errors are those of :func:`sample`.

    >>> reconstruct(vae.model, vae.guide, torch.ones(3, 64)).shape
    torch.Size([3, 64])
    """
    with looking(modules_of(model, guide)):
        drawn = poutine.trace(guide).get_trace(*args, **kwargs)
        replayed = poutine.replay(poutine.uncondition(model), trace=drawn)
        return _generated(replayed, args, kwargs, site, mean)


def interpolate(vae: VAE, a: Tensor, b: Tensor, n: int = 8) -> Tensor:
    """Return E[x | z] at ``n`` points z on the line from E_q[z | a] to E_q[z | b], both included.

    ``a`` and ``b`` are (B, ...); the result is (n, B, ...).
    Raises ``ValueError`` where their shapes differ, or ``n`` is below 2.

    >>> interpolate(vae, torch.zeros(3, 64), torch.ones(3, 64), n=5).shape
    torch.Size([5, 3, 64])
    """
    if a.shape != b.shape:
        raise ValueError(
            f"expected as many data at both ends, got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    if n < 2:
        raise ValueError(f"expected at least 2 points, got {n}")
    with looking([vae]):
        start = vae.encode(a)
        end = vae.encode(b)
        weight = torch.linspace(0, 1, n, dtype=start.dtype, device=start.device)
        z = torch.lerp(start, end, weight[:, None, None])
        path = decode(vae, z.flatten(0, 1))
    return path.reshape(n, len(a), *path.shape[1:])


def traverse(
    vae: VAE, x: Tensor, dims: Sequence[int] | None = None, *, n: int = 9, span: float = 2.5
) -> Tensor:
    """Return E[x | z] while one latent at a time goes from -span to span in ``n`` steps.

    The other latents stay at E_q[z | x] of one datum ``x``, of shape (...) without a batch
    dimension. ``dims`` are the latent dimensions to move, by default all of them; the result is
    (len(dims), n, ...). Raises ``ValueError`` for a dimension that does not exist.

    >>> traverse(vae, torch.zeros(64), n=5).shape
    torch.Size([2, 5, 64])
    """
    with looking([vae]):
        z = vae.encode(x[None])[0]
        chosen = range(len(z)) if dims is None else dims
        outside = [dim for dim in chosen if not -len(z) <= dim < len(z)]
        if outside or not len(chosen):
            raise ValueError(f"expected some of the {len(z)} latents, got {list(chosen)}")
        rows = z.repeat(len(chosen), n, 1)
        for row, dim in zip(rows, chosen, strict=True):
            row[:, dim] = torch.linspace(-span, span, n, dtype=z.dtype, device=z.device)
        x = decode(vae, rows.flatten(0, 1))
    return x.reshape(len(chosen), n, *x.shape[1:])


def decode(vae: VAE, z: Tensor) -> Tensor:
    """Return E[x | z], one row for each row of z, (B, D).

    >>> decode(vae, torch.zeros(3, 2)).shape
    torch.Size([3, 64])
    """
    with looking([vae]):
        return mean_of(vae.decoder(z))


def _generated(model: Program, args: Any, kwargs: Any, name: str | None, mean: bool) -> Tensor:
    """The draw of an unconditioned model at its observed site, or the mean there."""
    trace = poutine.trace(model).get_trace(*args, **kwargs)
    sites = {s["name"]: s for s in stochastic_sites(trace) if s["infer"].get("was_observed")}
    if name is None and len(sites) != 1:
        raise ValueError(f"expected one observed site, or site=, got {list(sites)}")
    if name is not None and name not in sites:
        raise ValueError(f"expected site to be one of {list(sites)}, got {name!r}")
    site = sites[next(iter(sites)) if name is None else name]
    value: Tensor = mean_of(site["fn"]) if mean else site["value"]
    return value
