"""A VAE of counts with a library size for each datum."""

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule, pyro_method
from torch import Tensor, nn


class SCVI(PyroModule):
    """p(z) p(l) p(x | z, l) and q(z | x) q(l | x): counts x of D kinds, with library size l.

    ``decoder(z, l)`` is a likelihood whose mean is proportional to l, such as
    :class:`pyro_vae.families.NegativeBinomial` with ``library=True``. The prior of the library size
    is log l ~ N(loc, scale^2), where ``library`` = (loc, scale). ``library_encoder(x)`` is
    q(log l | x), of one dimension.

    ``model`` and ``guide`` take x (B, D). Where the library sizes are known, they take them as a
    second argument (B, 1); l is then not latent, and the ELBO is a bound of log p(x | l).

    Source: Lopez et al., *Deep generative modeling for single-cell transcriptomics*, 2018.

    >>> from pyro_vae import DiagonalNormal, StandardNormal, Trace_ELBO, mlp
    >>> from pyro_vae.families import NegativeBinomial
    >>> decoder = NegativeBinomial(nn.Linear(2, 30), 30, library=True)
    >>> q_z, q_l = DiagonalNormal(mlp(30, 16, 4)), DiagonalNormal(mlp(30, 16, 2))
    >>> scvi = SCVI(StandardNormal(2), decoder, q_z, q_l, library=(5.0, 1.0))
    >>> Trace_ELBO().estimate(scvi.model, scvi.guide, torch.ones(3, 30)).loss.shape
    torch.Size([])
    """

    loc: Tensor
    scale: Tensor

    def __init__(
        self,
        prior: nn.Module,
        decoder: nn.Module,
        encoder: nn.Module,
        library_encoder: nn.Module,
        library: tuple[float, float],
    ) -> None:
        super().__init__()
        self.prior = prior
        self.decoder = decoder
        self.encoder = encoder
        self.library_encoder = library_encoder
        self.register_buffer("loc", torch.tensor([library[0]]))
        self.register_buffer("scale", torch.tensor([library[1]]))

    @pyro_method
    def model(self, x: Tensor, library: Tensor | None = None) -> None:
        """p(z) p(l) p(x | z, l), or p(z) p(x | z, l) for known l."""
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.prior())
            if library is None:
                prior = dist.Normal(self.loc, self.scale).to_event(1)
                library = pyro.sample("log_library", prior).exp()
            pyro.sample("x", self.decoder(z, library), obs=x)

    @pyro_method
    def guide(self, x: Tensor, library: Tensor | None = None) -> None:
        """q(z | x) q(l | x), or q(z | x)."""
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.encoder(x))
            if library is None:
                pyro.sample("log_library", self.library_encoder(x))
