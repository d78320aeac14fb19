"""The ladder VAE: several stochastic layers; guide and model both go from the top layer down."""

from collections.abc import Sequence

import pyro
from pyro.nn import pyro_method
from torch import Tensor, nn

from ..families.normal import product
from .hierarchical import HierarchicalVAE


class LadderVAE(HierarchicalVAE):
    """A VAE of L stochastic layers with the ladder's top-down guide.

    p(x, z) = p(z_L) p(z_{L-1} | z_L) ... p(z_1 | z_2) p(x | z_1)
    q(z | x) = q(z_L | x) q(z_{L-1} | z_L, x) ... q(z_1 | z_2, x)

    The upward pass is deterministic: d_0 = x, d_l = ``up[l - 1](d_{l-1})``, and
    ``encoders[l - 1](d_l)`` is N(m_l, s_l^2), the evidence of the data about z_l. In the downward
    pass q(z_l | z_{l+1}, x) is proportional to N(z_l; m_l, s_l^2) p(z_l | z_{l+1}): the two means
    are weighted by their precisions. So the guide shares the layers of the model, and the encoders
    need to learn only what the layer above does not tell about z_l.

    ``prior``, ``layers``, ``decoder`` and the shapes are those of :class:`HierarchicalVAE`; layers
    and encoders are diagonal Normals.

    Source: Sønderby, Raiko, Maaløe, Sønderby & Winther, *Ladder Variational Autoencoders*, 2016.

    Raises ``ValueError`` unless there are as many networks ``up`` as encoders, and one encoder more
    than ``layers``; ``TypeError`` for layers or encoders that are not diagonal Normals.

    >>> from pyro_vae import Bernoulli, DiagonalNormal, StandardNormal, mlp
    >>> decoder, layers = Bernoulli(mlp(3, 16, 64)), [DiagonalNormal(mlp(2, 16, 6))]
    >>> up = [mlp(64, 16, 12), mlp(12, 16, 8)]
    >>> encoders = [DiagonalNormal(nn.Linear(12, 6)), DiagonalNormal(nn.Linear(8, 4))]
    >>> LadderVAE(StandardNormal(2), layers, decoder, encoders, up).sample(5).shape
    torch.Size([5, 64])
    """

    def __init__(
        self,
        prior: nn.Module,
        layers: Sequence[nn.Module],
        decoder: nn.Module,
        encoders: Sequence[nn.Module],
        up: Sequence[nn.Module],
    ) -> None:
        super().__init__(prior, layers, decoder, encoders)
        if len(up) != len(encoders):
            raise ValueError(f"expected {len(encoders)} networks up, got {len(up)}")
        self.up = nn.ModuleList(up)

    @pyro_method
    def model(self, x: Tensor) -> None:
        """p(x, z), from the top layer down."""
        with pyro.plate("data", len(x)):
            z = pyro.sample(f"z{len(self.encoders)}", self.prior())
            for index in range(len(self.layers), 0, -1):
                z = pyro.sample(f"z{index}", self.layers[index - 1](z))
            pyro.sample("x", self.decoder(z), obs=x)

    @pyro_method
    def guide(self, x: Tensor) -> None:
        """q(z | x), from the top layer down."""
        with pyro.plate("data", len(x)):
            evidence = []
            d = x
            for up, encoder in zip(self.up, self.encoders, strict=True):
                d = up(d)
                evidence.append(encoder(d))
            z = pyro.sample(f"z{len(evidence)}", evidence[-1])
            for index in range(len(self.layers), 0, -1):
                q = product(evidence[index - 1], self.layers[index - 1](z))
                z = pyro.sample(f"z{index}", q)
