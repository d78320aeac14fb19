"""Programs as users write them, in plain Pyro: modules with the methods ``model`` and ``guide``."""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from .networks import (
    CLASSES,
    LATENT,
    PIXELS,
    ConvDecoder,
    ConvEncoder,
    Gaussian,
    SequenceDecoder,
    SequenceEncoder,
    net,
)


def prior(like: Tensor, size: int = LATENT) -> dist.Distribution:
    """A standard normal for each row."""
    return dist.Normal(like.new_zeros(len(like), size), 1.0).to_event(1)


def pixels(logits: Tensor, ndim: int = 1) -> dist.Distribution:
    """Independent binary pixels."""
    return dist.Bernoulli(logits=logits).to_event(ndim)


class Local(nn.Module):
    """p(z) p(x | z), q(z | x): the others change a part of it."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder, self.encoder = net(LATENT, PIXELS), Gaussian(PIXELS)

    def model(self, x: Tensor) -> None:
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior(x))
            pyro.sample("x", pixels(self.decoder(z)), obs=x)

    def guide(self, x: Tensor) -> None:
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(*self.encoder(x)).to_event(1))


class PyroVAE(Local):
    """Pyro's ``vae.py``: probabilities, unchecked, and images of any shape."""

    def model(self, x: Tensor) -> Tensor:
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", x.shape[0]):
            z_loc = torch.zeros(x.shape[0], LATENT, dtype=x.dtype, device=x.device)
            z = pyro.sample("latent", dist.Normal(z_loc, torch.ones_like(z_loc)).to_event(1))
            probs = torch.sigmoid(self.decoder.forward(z))
            likelihood = dist.Bernoulli(probs, validate_args=False).to_event(1)
            pyro.sample("obs", likelihood, obs=x.reshape(-1, PIXELS))
            return probs

    def guide(self, x: Tensor) -> None:
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", x.shape[0]):
            pyro.sample("latent", dist.Normal(*self.encoder.forward(x)).to_event(1))


class Conv(Local):
    """Networks of images."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder, self.encoder = ConvDecoder(), ConvEncoder()

    def model(self, x: Tensor) -> None:
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior(x))
            pyro.sample("x", pixels(self.decoder(z), 3), obs=x)


class Sequences(nn.Module):
    """Sequences of different lengths: a mask hides what follows the end."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder, self.encoder = SequenceDecoder(), SequenceEncoder()

    def model(self, x: Tensor, lengths: Tensor) -> None:
        pyro.module("decoder", self.decoder)
        inside = torch.arange(x.shape[1]) < lengths.unsqueeze(-1)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior(x))
            steps = pixels(self.decoder(z)).mask(inside).to_event(1)
            pyro.sample("x", steps, obs=x)

    def guide(self, x: Tensor, lengths: Tensor) -> None:
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(*self.encoder(x, lengths)).to_event(1))


class M2(nn.Module):
    """Pyro's ``ss_vae_M2.py``: ``ys`` is a latent, summed out, where it is not given."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder_y, self.encoder_z = net(PIXELS, CLASSES), Gaussian(PIXELS + CLASSES)
        self.decoder = net(LATENT + CLASSES, PIXELS)

    def model(self, xs: Tensor, ys: Tensor | None = None) -> None:
        pyro.module("ss_vae", self)
        with pyro.plate("data"):
            z = pyro.sample("z", prior(xs))
            alpha = xs.new_ones(len(xs), CLASSES) / CLASSES
            ys = pyro.sample("y", dist.OneHotCategorical(alpha), obs=ys)
            pyro.sample("x", pixels(self.decoder(torch.cat([z, ys], -1))), obs=xs)

    def guide(self, xs: Tensor, ys: Tensor | None = None) -> None:
        with pyro.plate("data"):
            if ys is None:
                q = dist.OneHotCategorical(logits=self.encoder_y(xs))
                ys = pyro.sample("y", q, infer={"enumerate": "parallel"})
            loc, scale = self.encoder_z(torch.cat([xs, ys], -1))
            pyro.sample("z", dist.Normal(loc, scale).to_event(1))


class TwoLayers(nn.Module):
    """p(z2) p(z1 | z2) p(x | z1),  q(z2 | x) q(z1 | x, z2)."""

    def __init__(self) -> None:
        super().__init__()
        self.p_z1, self.decoder = Gaussian(LATENT), net(LATENT, PIXELS)
        self.q_z2, self.q_z1 = Gaussian(PIXELS), Gaussian(PIXELS + LATENT)

    def model(self, x: Tensor) -> None:
        pyro.module("layers", self)
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", prior(x))
            z1 = pyro.sample("z1", dist.Normal(*self.p_z1(z2)).to_event(1))
            pyro.sample("x", pixels(self.decoder(z1)), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", dist.Normal(*self.q_z2(x)).to_event(1))
            inputs = torch.cat([x, z2], -1)
            pyro.sample("z1", dist.Normal(*self.q_z1(inputs)).to_event(1))
