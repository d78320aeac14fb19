"""Families for q(z | x) beyond the diagonal Normal: full and low rank, mixtures, a point.

Each is a module whose call returns a ``Distribution`` (see :mod:`pyro_vae.conditionals`), so each serves as q(z | x), as
p(z1 | z2) or as a likelihood alike. ``Family.outputs(dim, ...)`` is the number of outputs its network must have.
"""

import copy
import math
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Self, cast

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor, nn

from .conditionals import Conditional


class FullRankNormal(Conditional):
    """N(loc, L L'), L = diag(scale) (I + B), with (loc, log scale, B below the diagonal, row by row) = net(h).

    Rows in units of their own scale: a dimension becomes certain by its scale alone, without D entries shrinking with it.

    >>> FullRankNormal(nn.Linear(8, FullRankNormal.outputs(3)))(torch.ones(5, 8)).sample().shape
    torch.Size([5, 3])
    """

    @staticmethod
    def outputs(dim: int) -> int:
        return 2 * dim + dim * (dim - 1) // 2

    def forward(self, h: Tensor) -> dist.Distribution:
        output = self.parameter(h)
        dim = _solve_outputs(output.shape[-1], self.outputs, type(self).__name__)
        loc, log_scale, below = torch.split_with_sizes(output, [dim, dim, dim * (dim - 1) // 2], -1)
        rows = torch.diag_embed(torch.ones_like(loc))
        row, column = torch.tril_indices(dim, dim, -1, device=h.device)
        rows[..., row, column] = below
        return FullRank(loc, scale_tril=log_scale.exp().unsqueeze(-1) * rows)


class FullRank(dist.MultivariateNormal):  # type: ignore[misc]
    """Pyro's, with all the draws of a datum in one product with its Cholesky factor, instead of one each."""

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        eps = torch.randn(self._extended_shape(sample_shape), dtype=self.loc.dtype, device=self.loc.device)
        return cast(Tensor, self.loc + _columns(torch.matmul, self._unbroadcasted_scale_tril, eps))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        tril = self._unbroadcasted_scale_tril
        eps = _columns(partial(torch.linalg.solve_triangular, upper=False), tril, value - self.loc)
        half_log_det = tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return cast(Tensor, -0.5 * (eps.shape[-1] * math.log(2 * math.pi) + eps.square().sum(-1)) - half_log_det)


def _columns(operation: Callable[[Tensor, Tensor], Tensor], matrix: Tensor, h: Tensor) -> Tensor:
    """``operation(matrix, h)`` for each vector of h, (..., D), those along the dimensions that the matrix lacks side by side."""
    lead = h.ndim + 1 - matrix.ndim
    columns = h.reshape(-1, *h.shape[lead:]).movedim(0, -1)
    return operation(matrix, columns).movedim(-1, 0).reshape(h.shape)


class LowRankNormal(Conditional):
    """N(loc, W W' + diag(scale^2)) with W of shape (D, rank), with (loc, 2 log scale, W) = net(h).

    Source: Rezende, Mohamed & Wierstra, *Stochastic Backpropagation*, 2014, section 4.3.

    >>> LowRankNormal(nn.Linear(8, LowRankNormal.outputs(3, rank=2)), rank=2)(torch.ones(5, 8)).sample().shape
    torch.Size([5, 3])
    """

    def __init__(self, net: nn.Module, rank: int = 1) -> None:
        super().__init__(net)
        self.rank = _at_least_one(rank=rank)

    @staticmethod
    def outputs(dim: int, rank: int = 1) -> int:
        return (2 + rank) * dim

    def forward(self, h: Tensor) -> dist.Distribution:
        output = self.parameter(h)
        dim = _solve_outputs(output.shape[-1], lambda dim: self.outputs(dim, self.rank), f"{type(self).__name__} of rank {self.rank}")
        loc, log_variance, factor = torch.split_with_sizes(output, [dim, dim, dim * self.rank], -1)
        return LowRank(loc, factor.reshape(*factor.shape[:-1], dim, self.rank), (0.5 * log_variance).exp())


class LowRank(dist.TorchDistribution):  # type: ignore[misc]
    """N(loc, W W' + diag(scale^2)), the density by the Woodbury identity in O(D rank^2).

    Unlike ``torch.distributions.LowRankMultivariateNormal`` it never asks the device whether a Cholesky factor exists.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, loc: Tensor, factor: Tensor, scale: Tensor) -> None:
        self.loc, self.factor, self.scale = loc, factor, scale
        super().__init__(loc.shape[:-1], loc.shape[-1:])

    def expand(self, batch_shape: Any, _instance: Any = None) -> Self:
        new = copy.copy(self)
        new.loc = self.loc.expand(*batch_shape, *self.loc.shape[-1:])
        new._batch_shape = torch.Size(batch_shape)
        return new

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        return (self.factor.square().sum(-1) + self.scale.square()).expand(self.loc.shape)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        common = torch.randn((*shape[:-1], self.factor.shape[-1], 1), dtype=self.loc.dtype, device=self.loc.device)
        return self.loc + (self.factor @ common).squeeze(-1) + self.scale * torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)

    def log_prob(self, value: Tensor) -> Tensor:
        """-1/2 (D log 2 pi + log|S| + d' S^-1 d), with S^-1 and |S| from the Cholesky factor of I + V'V, V = W / scale."""
        if self._validate_args:
            self._validate_sample(value)
        white, factor = (value - self.loc) / self.scale, self.factor / self.scale.unsqueeze(-1)
        capacitance = factor.mT @ factor + torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device)
        tril = torch.linalg.cholesky_ex(capacitance).L
        explained = torch.linalg.solve_triangular(tril, factor.mT @ white.unsqueeze(-1), upper=False).squeeze(-1)
        half_log_det = tril.diagonal(dim1=-2, dim2=-1).log().sum(-1) + self.scale.log().sum(-1)
        distance = white.square().sum(-1) - explained.square().sum(-1)
        return cast(Tensor, -0.5 * (white.shape[-1] * math.log(2 * math.pi) + distance) - half_log_det)


class MixtureOfNormals(Conditional):
    """sum_j pi_j N(loc_j, diag(scale_j^2)), with (log pi, up to a constant, loc_1, ..., 2 log scale_1, ...) = net(h).

    Its draws are reparameterised implicitly, through the mixture's conditional distribution functions, weights pi included:
    unbiased gradients at the cost of a triangular (D, D) solve per draw. Where components lie far apart their variance makes
    them useless: a draw that would have to cross the gap carries nearly all of the gradient, and is nearly never drawn. Train
    such a guide with :class:`pyro_vae.stratified.Stratified_ELBO`, one draw from each component.

    Source: Figurnov, Mohamed & Mnih, *Implicit Reparameterization Gradients*, 2018, section 4.

    >>> MixtureOfNormals(nn.Linear(8, MixtureOfNormals.outputs(3, components=2)), components=2)(torch.ones(5, 8)).sample().shape
    torch.Size([5, 3])
    """

    def __init__(self, net: nn.Module, components: int = 4) -> None:
        super().__init__(net)
        self.components = _at_least_one(components=components)

    @staticmethod
    def outputs(dim: int, components: int = 4) -> int:
        return components * (1 + 2 * dim)

    def forward(self, h: Tensor) -> dist.Distribution:
        output, J = self.parameter(h), self.components
        dim = _solve_outputs(output.shape[-1], lambda dim: self.outputs(dim, J), f"{type(self).__name__} of {J} components")
        logits, loc, log_variance = torch.split_with_sizes(output, [J, J * dim, J * dim], -1)
        shape = (*output.shape[:-1], J, dim)
        components = dist.Normal(loc.reshape(shape), (0.5 * log_variance).exp().reshape(shape)).to_event(1)
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
        moved = torch.linalg.solve_triangular(jacobian, (uniform - uniform.detach()).unsqueeze(-1), upper=False)
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
        flip = 1 - 2 * ((weight * torch.special.ndtr(white)).sum(-2, keepdim=True) > 0.5).to(z.dtype)
        cdf = flip * torch.special.ndtr(flip * white)
        with torch.no_grad():
            density = (weight * log_density.exp()).sum(-2)
            slope = -white / normal.scale  # d log N_ji / dz_i
            mean_slope = torch.einsum("...jd,...ji->...di", weight, slope)
            rest = torch.einsum("...jd,...jd,...ji->...di", weight, cdf, slope) - (weight * cdf).sum(-2).unsqueeze(-1) * mean_slope
        return (weight * cdf).sum(-2), rest.tril(-1) + torch.diag_embed(density)


class DiagonalLaplace(Conditional):
    """prod_d Laplace(loc_d, scale_d), with (loc, log scale) = net(h): sharper peak, heavier tails than a Normal."""

    @staticmethod
    def outputs(dim: int) -> int:
        return 2 * dim

    def forward(self, h: Tensor) -> dist.Distribution:
        loc, log_scale = self.parameter_pair(h)
        return dist.Laplace(loc, log_scale.exp()).to_event(self.event_dim)


class Delta(Conditional):
    """All mass at z = net(h): a plain autoencoder, or maximum a posteriori where there is a prior.

    By convention log q(z | x) = 0, so that an ELBO becomes log p(x, z), up to an infinite constant: no bound on log p(x).

    >>> Delta(nn.Identity())(torch.ones(5, 3)).log_prob(torch.ones(5, 3))
    tensor([0., 0., 0., 0., 0.])
    """

    def forward(self, h: Tensor) -> dist.Distribution:
        return dist.Delta(self.parameter(h), event_dim=self.event_dim)


def _solve_outputs(outputs: int, needed: Any, family: str) -> int:
    """The dimension D for which a family needs this many outputs of its network."""
    dim = next(d for d in range(outputs + 1) if needed(d + 1) > outputs)
    if dim < 1 or needed(dim) != outputs:
        raise ValueError(f"expected as many outputs as {family} needs ({needed(1)}, {needed(2)}, {needed(3)}, ...), got {outputs}")
    return dim


def _at_least_one(**value: int) -> int:
    (name, number), *_ = value.items()
    if number < 1:
        raise ValueError(f"expected {name} of at least 1, got {number}")
    return number
