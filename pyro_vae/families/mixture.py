"""Mixtures of diagonal Normals, as a family and as a prior."""

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions.constraints import Constraint

from .conditional import Conditional, at_least_one
from .full_rank import FullRank


class MixtureOfNormals(Conditional):
    """sum_j pi_j N(loc_j, diag(scale_j^2)), from (log pi, loc_1, ..., 2 log scale_1, ...) = net(h).

    z is (..., D); log pi may have any additive constant. Draws are reparameterised implicitly,
    through the mixture's conditional distribution functions. All gradients are unbiased, also those
    of the weights pi. The cost is one triangular (D, D) solve for each draw.

    Where components are far apart, these gradients have a very large variance, because nearly all
    of the gradient comes from the very rare draws between the components. Train such a guide with
    :class:`pyro_vae.objectives.stratified.Stratified_ELBO`, which takes one draw per component.

    Source: Figurnov, Mohamed & Mnih, *Implicit Reparameterization Gradients*, 2018, section 4.

    Raises ``ValueError`` for fewer than one component.

    >>> q = MixtureOfNormals.over(lambda outputs: nn.Linear(8, outputs), 3, components=2)
    >>> q(torch.ones(5, 8)).sample().shape
    torch.Size([5, 3])
    """

    layout = "log pi, locs, 2 log scales"

    def __init__(self, net: nn.Module, components: int = 4) -> None:
        super().__init__(net)
        self.components = at_least_one(components=components)

    @staticmethod
    def outputs(dim: int, components: int = 4) -> int:
        return at_least_one(components=components) * (1 + 2 * dim)

    def needs(self, dim: int) -> int:
        return self.outputs(dim, self.components)

    def extra_repr(self) -> str:
        return f"components={self.components}"

    def forward(self, *parents: Tensor) -> dist.Distribution:
        output = self.parameter(*parents)
        size = output.shape[-1]
        J = self.components
        dim = self.checked_dim((size // J - 1) // 2, size)
        logits, loc, log_variance = torch.split_with_sizes(output, [J, J * dim, J * dim], -1)
        shape = (*output.shape[:-1], J, dim)
        scale = (0.5 * log_variance).exp()
        components = dist.Normal(loc.reshape(shape), scale.reshape(shape)).to_event(1)
        return ImplicitMixture(dist.Categorical(logits=logits), components)


class ImplicitMixture(dist.MixtureSameFamily):
    """A mixture of diagonal Normals with implicitly reparameterised draws.

    u_d = F(z_d | z_<d) are independent uniforms for any parameters t. So a draw changes with t such
    that u stays constant: dz/dt = -(du/dz)^-1 du/dt, where du/dz is lower triangular. Only first
    derivatives are correct.
    """

    has_rsample = True

    @property
    def support(self) -> Constraint:  # torch's depends on the components' values
        support: Constraint = self.component_distribution.support
        return support

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        with torch.no_grad():
            z: Tensor = self.sample(torch.Size(sample_shape))
        uniform, jacobian = self._conditional_cdf(z)
        change = (uniform - uniform.detach()).unsqueeze(-1)  # zero: it only carries the gradient
        moved: Tensor = torch.linalg.solve_triangular(jacobian, change, upper=False).squeeze(-1)
        return z - moved

    def _conditional_cdf(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return u_d = F(z_d | z_<d), up to a constant, and its Jacobian du/dz without a gradient.

        F(z_d | z_<d) = sum_j w_jd Phi((z_d - m_jd) / s_jd),
        w_jd proportional to pi_j prod_(i<d) N(z_i; m_ji, s_ji^2)
        """
        normal = self.component_distribution.base_dist
        z = z.unsqueeze(-2)  # (..., 1, D) beside the components' (..., J, D)
        log_density = normal.log_prob(z)
        before = log_density.cumsum(-1) - log_density
        weight = (self.mixture_distribution.logits.unsqueeze(-1) + before).softmax(-2)
        white = (z - normal.loc) / normal.scale
        # the smaller tail is more precise; sum_j w_jd (Phi - 1) differs from u by a constant
        above = (weight * torch.special.ndtr(white)).sum(-2, keepdim=True) > 0.5
        flip = 1 - 2 * above.to(z.dtype)
        cdf = flip * torch.special.ndtr(flip * white)
        with torch.no_grad():
            density = (weight * log_density.exp()).sum(-2)
            slope = -white / normal.scale  # d log N_ji / dz_i
            mean_slope = torch.einsum("...jd,...ji->...di", weight, slope)
            rest = torch.einsum("...jd,...jd,...ji->...di", weight, cdf, slope)
            rest = rest - (weight * cdf).sum(-2).unsqueeze(-1) * mean_slope
        return (weight * cdf).sum(-2), rest.tril(-1) + torch.diag_embed(density)


class MixturePrior(nn.Module):
    """sum_j pi_j N(loc_j, diag(scale_j^2)) with J = ``components``, all parameters learned.

    z is (D,), D = ``dim``. At the start all weights are equal, and the means loc_j are draws from
    N(0, I).

    Raises ``ValueError`` for a ``dim`` or ``components`` below 1.

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
        components = self.component(torch.arange(len(self.logits), device=self.logits.device))
        return dist.MixtureSameFamily(self.classes(), components)

    def classes(self) -> dist.Distribution:
        """p(y) = pi_y, of the index y of a component."""
        return dist.Categorical(logits=self.logits)

    def component(self, y: Tensor) -> dist.Distribution:
        """p(z | y) = N(loc_y, diag(scale_y^2)), for indices y of any shape."""
        return dist.Normal(self.loc[y], self.log_scale[y].exp()).to_event(1)

    def responsibilities(self, z: Tensor) -> Tensor:
        """p(y | z) of points (..., D), of shape (..., J)."""
        y = torch.arange(len(self.logits), device=z.device)
        log_joint = self.classes().logits + self.component(y).log_prob(z.unsqueeze(-2))
        probability: Tensor = log_joint.softmax(-1)
        return probability


class FullRankMixturePrior(MixturePrior):
    """sum_j pi_j N(loc_j, L_j L_j'), with L_j = diag(scale_j) (I + B_j), all parameters learned.

    B_j is strictly lower triangular. Components with a full covariance fit the classes of a latent
    space much better than diagonal ones. It starts as :class:`MixturePrior`, with B = 0; shapes and
    errors are the same.

    >>> FullRankMixturePrior(2, components=5)().sample((3,)).shape
    torch.Size([3, 2])
    """

    def __init__(self, dim: int, components: int = 10) -> None:
        super().__init__(dim, components)
        self.below = nn.Parameter(torch.zeros(components, dim, dim))

    def component(self, y: Tensor) -> dist.Distribution:
        """p(z | y) = N(loc_y, L_y L_y'), for indices y of any shape."""
        rows = self.below.tril(-1) + torch.eye(self.loc.shape[-1], device=self.loc.device)
        scale_tril = self.log_scale.exp().unsqueeze(-1) * rows
        return FullRank(self.loc[y], scale_tril=scale_tril[y])
