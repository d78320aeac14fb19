"""What holds for every doctest: the names that it may use without importing them."""

from typing import Any

import pytest


@pytest.fixture(autouse=True)
def _doctest_names(request: pytest.FixtureRequest) -> None:
    """Give doctests ``torch``, ``nn``, the names of ``pyro_vae``, a ``vae`` and data ``x``.

    The VAE has 64 pixels and 2 latents; ``x`` is (3, 64).
    """
    if not isinstance(request.node, pytest.DoctestItem):
        return
    import torch
    from torch import nn

    import pyro_vae
    from pyro_vae import VAE, Bernoulli, DiagonalNormal, StandardNormal, mlp

    names: dict[str, Any] = request.getfixturevalue("doctest_namespace")
    public = set(pyro_vae.__all__) - {"linear"}  # two modules have a function of this name
    names.update({name: getattr(pyro_vae, name) for name in public})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = VAE(StandardNormal(2), Bernoulli(mlp(2, 16, 64)), DiagonalNormal(mlp(64, 16, 4)))
    names.update(torch=torch, nn=nn, vae=vae, x=torch.ones(3, 64))
