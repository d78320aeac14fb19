"""Vectors of a codebook: a guide that chooses the nearest vectors, and priors over their codes.

A value is (..., N, E): N vectors of E dimensions. Each is a row of the codebook, and the row's
number is its code. Densities are probabilities of the N codes.

Source: van den Oord, Vinyals & Kavukcuoglu, *Neural Discrete Representation Learning*, 2017.
"""

import copy
import math
from typing import Any, ClassVar, Self

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor, nn

from .conditional import Conditional, at_least_one


class Codebook(nn.Module):
    """A table (K, E) of K = ``number`` learned vectors of E = ``dim`` dimensions.

    Raises ``ValueError`` for a ``number`` or ``dim`` below 1.

    >>> book = Codebook(8, 3)
    >>> book.nearest(book(torch.tensor([5, 0])))
    tensor([5, 0])
    """

    def __init__(self, number: int, dim: int) -> None:
        super().__init__()
        size = at_least_one(number=number), at_least_one(dim=dim)
        self.vectors = nn.Parameter(torch.randn(size))

    def forward(self, codes: Tensor) -> Tensor:
        """The vectors of codes, (...) -> (..., E)."""
        return self.vectors[codes]

    @torch.no_grad()
    def nearest(self, h: Tensor) -> Tensor:
        """The codes of the vectors nearest to h, (..., E) -> (...)."""
        half_squares = 0.5 * self.vectors.square().sum(-1)
        return torch.argmax(h @ self.vectors.T - half_squares, -1)

    @torch.no_grad()
    def restart(self, h: Tensor) -> int:
        """Replace vectors that are nearest to no row of h (R, E) by random, different rows of h.

        Where these are too few, some vectors stay. Return the number of vectors that were replaced.
        """
        used = torch.bincount(self.nearest(h), minlength=len(self.vectors)) > 0
        rows = h.unique(dim=0)
        rows = rows[torch.randperm(len(rows), device=h.device)]
        idle = (~used).nonzero().squeeze(-1)[: len(rows)]
        self.vectors[idle] = rows[: len(idle)]
        return len(idle)


class NearestCode(Conditional):
    """All mass at the vectors nearest to net(h), whose outputs are E channels of N positions.

    Values are (..., N, E). The gradient of a draw is that of net(h) (straight through). The
    codebook gets its gradient from ``NearestCodeDistribution.cost``.

    Raises ``ValueError`` where E does not divide the number of outputs.

    >>> q = NearestCode(nn.Linear(6, 4 * 3), Codebook(8, 3))
    >>> q(torch.randn(5, 6)).sample().shape
    torch.Size([5, 4, 3])
    """

    layout = "E channels of N positions"

    def __init__(self, net: nn.Module, codebook: Codebook) -> None:
        super().__init__(net)
        self.codebook = codebook

    def forward(self, *parents: Tensor) -> "NearestCodeDistribution":
        output = self.parameter(*parents)
        dim = self.codebook.vectors.shape[1]
        if output.shape[-1] % dim:
            raise ValueError(
                f"expected a multiple of {dim} outputs ({self.layout}), got {output.shape[-1]}"
            )
        return NearestCodeDistribution(output.unflatten(-1, (dim, -1)).mT, self.codebook)


class CodeDistribution(dist.TorchDistribution):
    """A distribution of N vectors of a codebook; subclasses define ``sample`` and ``log_prob``."""

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, codebook: Codebook, batch_shape: torch.Size, positions: int) -> None:
        self.codebook = codebook
        size = torch.Size((positions, codebook.vectors.shape[1]))
        super().__init__(batch_shape, size, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return VectorsOf(self.codebook)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Self:
        new = copy.copy(self)
        new._batch_shape = torch.Size(batch_shape)
        return new


class VectorsOf(constraints.Constraint):
    """Vectors (..., N, E) that are rows of a codebook, up to rounding."""

    is_discrete = True
    event_dim = 2

    def __init__(self, codebook: Codebook) -> None:
        self.codebook = codebook
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        return _same(value, self.codebook(self.codebook.nearest(value)))


def _same(first: Tensor, second: Tensor) -> Tensor:
    """Whether vectors (..., N, E) are equal up to rounding, (...)."""
    return torch.isclose(first, second, rtol=1e-3, atol=1e-4).flatten(-2).all(-1)


class NearestCodeDistribution(CodeDistribution):
    """The codebook vectors nearest to h (..., N, E), with probability one."""

    has_rsample = True

    def __init__(self, h: Tensor, codebook: Codebook) -> None:
        self.h = h
        self.codes = codebook.nearest(h)
        super().__init__(codebook, h.shape[:-2], h.shape[-2])

    def expand(self, batch_shape: Any, _instance: Any = None) -> Self:
        new = super().expand(batch_shape)
        new.h = self.h.expand(*batch_shape, *self.event_shape)
        new.codes = self.codes.expand(*batch_shape, self.event_shape[0])
        return new

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        vectors = self.mean.detach()
        z: Tensor = vectors + (self.h - self.h.detach())  # the difference is zero
        return z.expand(*sample_shape, *z.shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """0 for these vectors, which two codes may nearly share, and -infinity for others."""
        return torch.where(_same(value, self.mean), 0.0, -math.inf).to(self.h)

    def cost(self, commitment: float) -> Tensor:
        """|sg(h) - e|^2 + ``commitment`` |h - sg(e)|^2, summed over an event, (...).

        sg stops the gradient.
        """
        vectors = self.mean
        of_codebook = (self.h.detach() - vectors).square()
        of_encoder = (self.h - vectors.detach()).square()
        return (of_codebook + commitment * of_encoder).sum((-2, -1))

    @property
    def mean(self) -> Tensor:
        return self.codebook.vectors[self.codes]


class UniformCodes(nn.Module):
    """p(z) = K^-N: all codes are equally likely at each of N = ``positions``; z is (N, E).

    Raises ``ValueError`` for fewer than 1 position.

    >>> UniformCodes(Codebook(8, 3), 4)().sample((5,)).shape
    torch.Size([5, 4, 3])
    """

    def __init__(self, codebook: Codebook, positions: int) -> None:
        super().__init__()
        self.codebook = codebook
        self.positions = at_least_one(positions=positions)

    def forward(self) -> dist.Distribution:
        return UniformCodesDistribution(self.codebook, torch.Size(), self.positions)


class UniformCodesDistribution(CodeDistribution):
    """log p(z) = -N log K."""

    def sample(self, sample_shape: Any = ()) -> Tensor:
        shape = (*sample_shape, *self.batch_shape, self.event_shape[0])
        vectors = self.codebook.vectors.detach()
        return vectors[torch.randint(len(vectors), shape, device=vectors.device)]

    def log_prob(self, value: Tensor) -> Tensor:
        log_p = -self.event_shape[0] * math.log(len(self.codebook.vectors))
        return value.new_full(value.shape[:-2], log_p)


class AutoregressiveCodes(nn.Module):
    """p(z) = prod_n p(k_n | k_1, ..., k_{n-1}), with the codes k of an image in row order.

    ``net`` maps inputs (R, N, 2 E) to logits (R, N, K). Its inputs at position n are the vectors of
    the code before, k_{n-1}, and of the code above, k_{n-``width``}; they are zeros where there is
    no such code. It must be causal along N, such as :class:`pyro_vae.nets.RecurrentLogits`.
    Raises ``ValueError`` for fewer than 1 position or a width below 1.

    >>> from pyro_vae.nets import RecurrentLogits
    >>> prior = AutoregressiveCodes(Codebook(8, 3), RecurrentLogits(6, 16, 8), 4, width=2)
    >>> prior().log_prob(prior().sample((5,))).shape
    torch.Size([5])
    """

    def __init__(self, codebook: Codebook, net: nn.Module, positions: int, width: int) -> None:
        super().__init__()
        self.codebook = codebook
        self.net = net
        self.positions = at_least_one(positions=positions)
        self.width = at_least_one(width=width)

    def forward(self) -> dist.Distribution:
        return AutoregressiveDistribution(self)

    def logits(self, z: Tensor) -> Tensor:
        """The logits of each position given the positions before it, (R, N, E) -> (R, N, K)."""
        before = [nn.functional.pad(z, (0, 0, lag, 0))[:, : z.shape[1]] for lag in (1, self.width)]
        logits: Tensor = self.net(torch.cat(before, -1))
        return logits


class AutoregressiveDistribution(CodeDistribution):
    """log p(z) = sum_n log p(k_n | k_1, ..., k_{n-1})."""

    def __init__(self, prior: AutoregressiveCodes) -> None:
        self.prior = prior
        super().__init__(prior.codebook, torch.Size(), prior.positions)

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        shape = torch.Size((*sample_shape, *self.batch_shape))
        z = self.codebook.vectors.new_zeros(shape.numel(), *self.event_shape)
        for n in range(self.event_shape[0]):
            logits = self.prior.logits(z[:, : n + 1])[:, n]
            z[:, n] = self.codebook(torch.distributions.Categorical(logits=logits).sample())
        return z.reshape(*shape, *self.event_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        rows = value.detach().reshape(-1, *self.event_shape)
        log_p = self.prior.logits(rows).log_softmax(-1)
        codes = self.codebook.nearest(rows).unsqueeze(-1)
        return log_p.gather(-1, codes).sum((-2, -1)).reshape(value.shape[:-2])
