"""Mixtures of diagonal Normals, as a family and as a prior."""

from typing import Any, cast

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from .conditional import Conditional, at_least_one, solve_outputs


class MixtureOfNormals(Conditional):
    """sum_j pi_j N(loc_j, diag(scale_j^2)), with (log pi, up to a constant, loc_1, ..., 2 log scale_1, ...) = net(h).

    Its draws are reparameterised implicitly, through the mixture's conditional distribution functions, weights pi included:
    unbiased gradients at the cost of a triangular (D, D) solve per draw. Where components lie far apart their variance makes
    them useless: a draw that would have to cross the gap carries nearly all of the gradient, and is nearly never drawn. Train
    such a guide with :class:`pyro_vae.objectives.stratified.Stratified_ELBO`, one draw from each component.

    Source: Figurnov, Mohamed & Mnih, *Implicit Reparameterization Gradients*, 2018, section 4.

    >>> MixtureOfNormals(nn.Linear(8, MixtureOfNormals.outputs(3, components=2)), components=2)(torch.ones(5, 8)).sample().shape
    torch.Size([5, 3])
    """

    def __init__(self, net: nn.Module, components: int = 4) -> None:
        super().__init__(net)
        self.components = at_least_one(components=components)

    @staticmethod
    def outputs(dim: int, components: int = 4) -> int:
        return components * (1 + 2 * dim)

    def forward(self, h: Tensor) -> dist.Distribution:
        output, J = self.parameter(h), self.components
        dim = solve_outputs(
            output.shape[-1],
            lambda dim: self.outputs(dim, J),
            f"{type(self).__name__} of {J} components",
        )
        logits, loc, log_variance = torch.split_with_sizes(output, [J, J * dim, J * dim], -1)
        shape = (*output.shape[:-1], J, dim)
        components = dist.Normal(
            loc.reshape(shape), (0.5 * log_variance).exp().reshape(shape)
        ).to_event(1)
        return ImplicitMixture(dist.Categorical(logits=logits), components)


class ImplicitMixture(dist.MixtureSameFamily):  # type: ignore[misc]
    """A mixture of diagonal Normals with implicitly reparameterised draws.

    With u_d = F(z_d | z_<d), which are independent uniforms whatever the parameters t, a draw moves so that u stays put:
    dz/dt = -(du/dz)^-1 du/dt, du/dz lower triangular. First derivatives only.
    """

    has_rsample = True

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        with torch.no_grad():
            z = self.sample(torch.Size(sample_shape))
        uniform, jacobian = self._conditional_cdf(z)
        moved = torch.linalg.solve_triangular(
            jacobian, (uniform - uniform.detach()).unsqueeze(-1), upper=False
        )
        return cast(Tensor, z - moved.squeeze(-1))

    def _conditional_cdf(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return u_d = F(z_d | z_<d), up to a constant, and its Jacobian du/dz, which carries no gradient.

        F(z_d | z_<d) = sum_j w_jd Phi((z_d - m_jd) / s_jd),   w_jd proportional to pi_j prod_(i<d) N(z_i; m_ji, s_ji^2)
        """
        normal = self.component_distribution.base_dist
        z = z.unsqueeze(-2)  # (..., 1, D) beside the components' (..., J, D)
        log_density = normal.log_prob(z)
        before = log_density.cumsum(-1) - log_density
        weight = (self.mixture_distribution.logits.unsqueeze(-1) + before).softmax(-2)
        white = (z - normal.loc) / normal.scale
        # below or above the median, whichever tail loses no digits: sum_j w_jd (Phi - 1) differs by a constant alone
        flip = 1 - 2 * ((weight * torch.special.ndtr(white)).sum(-2, keepdim=True) > 0.5).to(
            z.dtype
        )
        cdf = flip * torch.special.ndtr(flip * white)
        with torch.no_grad():
            density = (weight * log_density.exp()).sum(-2)
            slope = -white / normal.scale  # d log N_ji / dz_i
            mean_slope = torch.einsum("...jd,...ji->...di", weight, slope)
            rest = (
                torch.einsum("...jd,...jd,...ji->...di", weight, cdf, slope)
                - (weight * cdf).sum(-2).unsqueeze(-1) * mean_slope
            )
        return (weight * cdf).sum(-2), rest.tril(-1) + torch.diag_embed(density)


class MixturePrior(nn.Module):
    """sum_j pi_j N(loc_j, diag(scale_j^2)), all learned; at first ``components`` equal parts, their centres from N(0, I).

    >>> MixturePrior(2, components=5)().sample((3,)).shape
    torch.Size([3, 2])
    """

    def __init__(self, dim: int, components: int = 10) -> None:
        super().__init__()
        if dim < 1 or components < 1:
            raise ValueError(
                f"expected dim and components of at least 1, got {dim} and {components}"
            )
        self.logits = nn.Parameter(torch.zeros(components))
        self.loc = nn.Parameter(torch.randn(components, dim))
        self.log_scale = nn.Parameter(torch.zeros(components, dim))

    def forward(self) -> dist.Distribution:
        return dist.MixtureSameFamily(
            dist.Categorical(logits=self.logits),
            dist.Normal(self.loc, self.log_scale.exp()).to_event(1),
        )
