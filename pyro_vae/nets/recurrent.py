"""Networks for sequences of integers: encoders to one vector, decoders to one vector each step.

A decoder's output at step t depends on x_1, ..., x_{t-1} and on z: its input is the sequence
shifted by one step, with the number 0 in front.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .linear import Linear


class RecurrentEncoder(nn.Module):
    """A bidirectional GRU over embedded classes: (B, T) -> (B, outputs).

    A sequence ends at its first 0; the steps after it have no effect.

    >>> RecurrentEncoder(30, 4, hidden=8)(torch.ones(5, 7, dtype=torch.long)).shape
    torch.Size([5, 4])
    """

    def __init__(
        self, classes: int, outputs: int, *, embedding: int = 64, hidden: int = 128
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(classes, embedding)
        self.gru = nn.GRU(embedding, hidden, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        lengths = (x != 0).cummin(1).values.sum(1).clamp(min=1)
        h = nn.utils.rnn.pack_padded_sequence(
            self.embedding(x), lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        _, last = self.gru(h)
        output: Tensor = self.head(last.transpose(0, 1).flatten(1))
        return output


class RecurrentDecoder(nn.Module):
    """A GRU with z in its initial state and in every input: (B, T) and (B, D) -> (B, T, hidden).

    In training each input is replaced by 1, the unknown class, with probability ``word_dropout``,
    and outputs are dropped with probability ``dropout``. Without latents (``latent`` = 0) it is the
    network of a language model.

    Source: Bowman et al., *Generating Sentences from a Continuous Space*, 2016.

    >>> decoder = RecurrentDecoder(30, 2, hidden=8)
    >>> decoder(torch.ones(5, 7, dtype=torch.long), torch.zeros(5, 2)).shape
    torch.Size([5, 7, 8])
    """

    def __init__(
        self,
        classes: int,
        latent: int,
        *,
        embedding: int = 64,
        hidden: int = 128,
        word_dropout: float = 0.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.word_dropout = word_dropout
        self.embedding = nn.Embedding(classes, embedding)
        self.start = nn.Linear(latent, hidden) if latent else None
        self.gru = nn.GRU(embedding + latent, hidden, batch_first=True)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        h = _embedded(self, x, z)
        first = None if self.start is None else torch.tanh(self.start(z)).unsqueeze(0)
        output: Tensor = self.dropout(self.gru(h, first)[0])
        return output


class DilatedDecoder(nn.Module):
    """Residual causal convolutions: (B, T) and (B, D) -> (B, T, hidden).

    The dilations are 1, 2, 4, and so on. ``depth`` layers of kernel 3 see the last
    2^(depth + 1) - 1 steps. The other arguments are those of :class:`RecurrentDecoder`.

    Source: Yang et al., *Improved Variational Autoencoders for Text Modeling using Dilated
    Convolutions*, 2017.

    >>> decoder = DilatedDecoder(30, 2, hidden=8, depth=2)
    >>> decoder(torch.ones(5, 7, dtype=torch.long), torch.zeros(5, 2)).shape
    torch.Size([5, 7, 8])
    """

    def __init__(
        self,
        classes: int,
        latent: int,
        *,
        embedding: int = 64,
        hidden: int = 128,
        depth: int = 3,
        word_dropout: float = 0.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.word_dropout = word_dropout
        self.embedding = nn.Embedding(classes, embedding)
        self.first = Linear(embedding + latent, hidden)
        self.layers = nn.ModuleList(CausalLayer(hidden, dilation=2**i) for i in range(depth))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        h = self.first(_embedded(self, x, z)).transpose(1, 2)
        for layer in self.layers:
            h = layer(h)
        output: Tensor = self.dropout(h.transpose(1, 2))
        return output


class CausalLayer(nn.Module):
    """h + W relu(conv(h)), where step t of conv(h) depends on no later step of h; (B, C, T).

    >>> CausalLayer(4, dilation=2)(torch.zeros(5, 4, 7)).shape
    torch.Size([5, 4, 7])
    """

    def __init__(self, channels: int, dilation: int, kernel: int = 3) -> None:
        super().__init__()
        self.before = dilation * (kernel - 1)
        self.conv = nn.Conv1d(channels, channels, kernel, dilation=dilation)
        self.mix = nn.Conv1d(channels, channels, 1)

    def forward(self, h: Tensor) -> Tensor:
        seen = self.conv(F.pad(h, (self.before, 0)))
        output: Tensor = h + self.mix(seen.relu())
        return output


def _embedded(decoder: RecurrentDecoder | DilatedDecoder, x: Tensor, z: Tensor) -> Tensor:
    """The decoder's input at each step: z, and the embedding of x_{t-1} after word dropout."""
    previous = F.pad(x[:, :-1], (1, 0))
    if decoder.training and decoder.word_dropout:
        dropped = torch.rand(previous.shape, device=x.device) < decoder.word_dropout
        previous = previous.masked_fill(dropped & (previous != 0), 1)
    h = decoder.embedding(previous)
    return torch.cat([h, z.unsqueeze(1).expand(-1, x.shape[1], -1)], -1)
