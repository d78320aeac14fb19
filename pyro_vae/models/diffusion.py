"""A diffusion model: a VAE of many layers, whose guide adds noise and has no parameters."""

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.nn import PyroModule, pyro_method
from torch import Tensor, nn

from ..families.noising import Noising


class Diffusion(PyroModule):
    """p(z_T) prod_t p(z_{t-1} | z_t) p(x | z_1), with q(z_T | x) prod_t q(z_{t-1} | z_t, x) fixed.

    The guide adds noise (``noising``) to v = embed(x) of shape (B, D), D = ``dim``.
    ``denoiser(z_t, log_snr_t)`` approximates p(v | z_t), for instance by :class:`Levels`.
    p(z_{t-1} | z_t) has the mean and variance of q(z_{t-1} | z_t, v) when v follows the denoiser;
    variance zero gives the smaller variance of Ho et al. ``decoder(z_1)`` is p(x | z_1).

    ``model`` and ``guide`` are the whole chain; they give log p(x). ``step_model`` and
    ``step_guide`` have the same ELBO in expectation: T - 1 times one random term for each datum
    replaces the sum over t, with steps spread evenly by one u (Kingma et al.). Train this pair with
    ``TraceMeanField_ELBO``. Importance weights are refused, because u is global.

    Source: Ho, Jain & Abbeel, *Denoising Diffusion Probabilistic Models*, 2020; Kingma et al.,
    *Variational Diffusion Models*, 2021.

    >>> from pyro_vae import DiagonalNormal, Normal, TraceMeanField_ELBO, mlp
    >>> parts = DiagonalNormal(mlp(4 + 1, 16, 8)), Normal(nn.Identity(), scale=0.1), nn.Identity()
    >>> diffusion = Diffusion(*parts, Noising(torch.linspace(5, -5, 50)), dim=4)
    >>> pair = diffusion.step_model, diffusion.step_guide
    >>> TraceMeanField_ELBO().estimate(*pair, torch.randn(3, 4)).loss.shape
    torch.Size([])
    """

    def __init__(
        self, denoiser: nn.Module, decoder: nn.Module, embed: nn.Module, noising: Noising, dim: int
    ) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.decoder = decoder
        self.embed = embed
        self.noising = noising
        self.dim = dim

    @pyro_method
    def model(self, x: Tensor) -> None:
        """The whole chain, from noise to data."""
        T = len(self.noising)
        with pyro.plate("data", len(x)):
            z = pyro.sample(f"z{T}", self.noise())
            for t in range(T, 1, -1):
                z = pyro.sample(f"z{t - 1}", self.reverse(z, at(t, x)))
            pyro.sample("x", self.decoder(z), obs=x)

    @pyro_method
    def guide(self, x: Tensor) -> None:
        """The whole chain given x, in the same order."""
        T = len(self.noising)
        v = self.embed(x)
        with pyro.plate("data", len(x)):
            z = pyro.sample(f"z{T}", self.noising(v, at(T, x)))
            for t in range(T, 1, -1):
                z = pyro.sample(f"z{t - 1}", self.noising.before(z, at(t, x), v))

    @pyro_method
    def step_model(self, x: Tensor) -> None:
        """Both ends of the chain and one step; u, z1 and zt have the same density as in q."""
        v = self.embed(x)
        t = self.random_steps(x)
        with pyro.plate("data", len(x)):
            pyro.sample("end", self.noise())
            z1 = pyro.sample("z1", self.noising(v, at(1, x)))
            z = pyro.sample("zt", self.noising(v, t))
            with poutine.scale(scale=len(self.noising) - 1):
                pyro.sample("zs", self.reverse(z, t))
            pyro.sample("x", self.decoder(z1), obs=x)

    @pyro_method
    def step_guide(self, x: Tensor) -> None:
        """q of both ends of the chain and of one step."""
        v = self.embed(x)
        t = self.random_steps(x)
        with pyro.plate("data", len(x)):
            pyro.sample("end", self.noising(v, at(len(self.noising), x)))
            pyro.sample("z1", self.noising(v, at(1, x)))
            z = pyro.sample("zt", self.noising(v, t))
            with poutine.scale(scale=len(self.noising) - 1):
                pyro.sample("zs", self.noising.before(z, t, v))

    def noise(self) -> dist.Distribution:
        """p(z_T) = N(0, I)."""
        return dist.Normal(self.noising.log_snr.new_zeros(self.dim), 1.0).to_event(1)

    def random_steps(self, x: Tensor) -> Tensor:
        """Draw steps t (B,), uniform on 2, ..., T for each datum and evenly spread in the batch."""
        u = pyro.sample("u", dist.Normal(self.noising.log_snr.new_zeros(()), 1.0))
        # a Normal and its CDF, since the KL of two Uniforms cannot be compiled
        even: Tensor = (torch.special.ndtr(u) + torch.arange(len(x), device=x.device) / len(x)) % 1
        return 2 + (even * (len(self.noising) - 1)).long().clamp(max=len(self.noising) - 2)

    def reverse(self, z: Tensor, t: Tensor) -> dist.Distribution:
        """p(z_{t-1} | z_t)."""
        v = self.denoiser(z, self.noising.level(t))
        return self.noising.before(z, t, v.mean, v.variance)

    @torch.no_grad()
    def sample(self, n: int) -> Tensor:
        """Draw z_T, ..., z_1 and return ``n`` draws x ~ p(x | z_1)."""
        z = self.noise().sample((n,))
        for t in range(len(self.noising), 1, -1):
            z = self.reverse(z, at(t, z)).sample()
        x: Tensor = self.decoder(z).sample()
        return x


def at(t: int, x: Tensor) -> Tensor:
    """The same step for every row, (B,)."""
    return torch.full((len(x),), t, device=x.device)
