"""Networks of a latent chain: its transition, and the guide's summary of later observations."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class GatedTransition(nn.Module):
    """z_{t-1} -> (loc, 2 log scale) of z_t: a gate between a linear and a nonlinear mean.

    loc = (1 - g) (W z + b) + g h(z),  scale = softplus(V relu(h(z)) + c),  g = sigmoid(f(z))

    f and h have one hidden layer. W starts as the identity. Shapes: (..., D) -> (..., 2 D).

    Source: Krishnan, Shalit & Sontag, *Structured Inference Networks for Nonlinear State Space
    Models*, 2017.

    >>> GatedTransition(3, hidden=8)(torch.zeros(5, 3)).shape
    torch.Size([5, 6])
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.first = nn.Linear(dim, 2 * hidden)
        self.gate = nn.Linear(hidden, dim)
        self.proposed = nn.Linear(hidden, dim)
        self.linear = nn.Linear(dim, dim)
        self.scale = nn.Linear(dim, dim)
        with torch.no_grad():
            self.linear.weight.copy_(torch.eye(dim))
            self.linear.bias.zero_()

    def forward(self, z: Tensor) -> Tensor:
        for_gate, for_mean = self.first(z).relu().chunk(2, -1)
        proposed = self.proposed(for_mean)
        loc = torch.lerp(self.linear(z), proposed, self.gate(for_gate).sigmoid())
        scale = F.softplus(self.scale(proposed.relu())) + 1e-4
        return torch.cat([loc, 2 * scale.log()], -1)


class FutureGRU(nn.Module):
    """A GRU from the end of each sequence to its start: (B, T, F) and lengths (B,) -> (B, T, H).

    The output at step t depends on x_t and all later steps. Outputs after the end of a sequence
    have no meaning.

    >>> FutureGRU(5, 8)(torch.zeros(3, 4, 5), torch.tensor([4, 2, 3])).shape
    torch.Size([3, 4, 8])
    """

    def __init__(self, features: int, hidden: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.gru = nn.GRU(features, hidden, batch_first=True)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        h, _ = self.gru(reversed_within(x, lengths))
        output: Tensor = self.dropout(reversed_within(h, lengths))
        return output


def reversed_within(x: Tensor, lengths: Tensor) -> Tensor:
    """Reverse the steps of each sequence and keep the steps after its end in place, (B, T, F).

    >>> x = torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1)
    >>> reversed_within(x, torch.tensor([2])).flatten()
    tensor([2., 1., 3.])
    """
    t = torch.arange(x.shape[1], device=x.device)
    last = lengths.unsqueeze(1) - 1
    index = torch.where(t <= last, last - t, t)
    return x.gather(1, index.unsqueeze(-1).expand_as(x))
