"""A linear-Gaussian model, for which everything is known in closed form.

p(z) = N(0, I), p(x | z) = N(W z + mu, s^2 I):
p(x) = N(mu, W W' + s^2 I),  p(z | x) = N(M^-1 W' (x - mu), s^2 M^-1),
M = W' W + s^2 I   (Tipping & Bishop, *Probabilistic Principal Component Analysis*, 1999).
"""

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_vae import VAE


class Affine(nn.Module):
    """N(W h + b, covariance), whose covariance does not depend on h."""

    def __init__(self, weight: Tensor, bias: Tensor, scale_tril: Tensor) -> None:
        super().__init__()
        self.weight, self.bias, self.scale_tril = map(nn.Parameter, (weight, bias, scale_tril))

    def forward(self, h: Tensor) -> Any:
        return dist.MultivariateNormal(
            h @ self.weight.T + self.bias, scale_tril=self.scale_tril.tril()
        )


class Standard(nn.Module):
    """N(0, I) in float64."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self) -> Any:
        return dist.Normal(torch.zeros(self.dim, dtype=torch.float64), 1.0).to_event(1)


class LinearGaussian:
    """The model with a random W, its data, and its truths."""

    def __init__(
        self, latent: int = 4, observed: int = 8, noise: float = 0.5, seed: int = 0
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.W = torch.randn(observed, latent, generator=generator, dtype=torch.float64)
        self.mu = torch.randn(observed, generator=generator, dtype=torch.float64)
        self.noise = noise
        self.latent, self.observed = latent, observed
        M = self.W.T @ self.W + noise**2 * torch.eye(latent, dtype=torch.float64)
        self.posterior_cov = noise**2 * torch.linalg.inv(M)
        self.posterior_gain = torch.linalg.solve(M, self.W.T)
        self.marginal_cov = self.W @ self.W.T + noise**2 * torch.eye(observed, dtype=torch.float64)

    def data(self, n: int, seed: int = 1) -> Tensor:
        """Draw x ~ p(x)."""
        generator = torch.Generator().manual_seed(seed)
        z = torch.randn(n, self.latent, generator=generator, dtype=torch.float64)
        return (
            z @ self.W.T
            + self.mu
            + self.noise * torch.randn(n, self.observed, generator=generator, dtype=torch.float64)
        )

    def log_likelihood(self, x: Tensor) -> Tensor:
        """log p(x), in closed form."""
        return torch.distributions.MultivariateNormal(self.mu, self.marginal_cov).log_prob(x)

    def posterior(self, x: Tensor) -> torch.distributions.MultivariateNormal:
        """p(z | x), in closed form."""
        return torch.distributions.MultivariateNormal(
            (x - self.mu) @ self.posterior_gain.T, self.posterior_cov
        )

    def decoder(self) -> Affine:
        """p(x | z)."""
        return Affine(self.W, self.mu, self.noise * torch.eye(self.observed, dtype=torch.float64))

    def exact_encoder(self) -> Affine:
        """q(z | x) = p(z | x)."""
        bias = -self.posterior_gain @ self.mu
        return Affine(self.posterior_gain, bias, torch.linalg.cholesky(self.posterior_cov))

    def wrong_encoder(self, shift: float = 0.1, spread: float = 1.5) -> Affine:
        """A guide that is shifted and too wide."""
        bias = -self.posterior_gain @ self.mu + shift
        return Affine(self.posterior_gain, bias, spread * torch.linalg.cholesky(self.posterior_cov))

    def vae(self, encoder: nn.Module | None = None) -> VAE:
        """The pair (model, guide), with the exact guide unless told otherwise."""
        return VAE(Standard(self.latent), self.decoder(), encoder or self.exact_encoder())
