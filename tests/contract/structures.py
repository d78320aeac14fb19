"""Programs with plates, global sites, factors and mixtures, in plain Pyro."""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from .networks import CLASSES, LATENT, PIXELS, Gaussian, net
from .programs import Local, pixels, prior


class GlobalAndLocal(Local):
    """p(w) prod_b p(z_b) p(x_b | z_b + w)."""

    def __init__(self) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.randn(LATENT))

    def model(self, x: Tensor) -> None:
        pyro.module("decoder", self.decoder)
        w = pyro.sample("w", dist.Normal(x.new_zeros(LATENT), 1.0).to_event(1))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior(x))
            pyro.sample("x", pixels(self.decoder(z + w)), obs=x)

    def guide(self, x: Tensor) -> None:
        loc = pyro.param("loc", self.loc)
        pyro.sample("w", dist.Normal(loc, 0.3).to_event(1))
        super().guide(x)


class Global(nn.Module):
    """Bayesian regression: one latent for all data."""

    def model(self, x: Tensor) -> None:
        w = pyro.sample("w", dist.Normal(x.new_zeros(PIXELS - 1), 1.0).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(x[:, 1:] @ w, 1.0), obs=x[:, 0])

    def guide(self, x: Tensor) -> None:
        raise NotImplementedError


class Siblings(Local):
    """Two plates side by side within the plate of the data."""

    def model(self, x: Tensor) -> None:
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", len(x), dim=-2):
            z_loc = x.new_zeros(len(x), 1, LATENT)
            z = pyro.sample("z", dist.Normal(z_loc, 1.0).to_event(1))
            logits = self.decoder(z.squeeze(-2))
            with pyro.plate("first", 2, dim=-1):
                pyro.sample("x1", dist.Bernoulli(logits=logits[:, :2]), obs=x[:, :2])
            with pyro.plate("second", PIXELS - 2, dim=-1):
                pyro.sample("x2", dist.Bernoulli(logits=logits[:, 2:]), obs=x[:, 2:])

    def guide(self, x: Tensor) -> None:
        pyro.module("encoder", self.encoder)
        loc, scale = self.encoder(x)
        with pyro.plate("data", len(x), dim=-2):
            pyro.sample("z", dist.Normal(loc.unsqueeze(1), scale.unsqueeze(1)).to_event(1))


class TwoPlates(nn.Module):
    """Two sets of data, side by side, each with its own latents."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Local(), Local()

    def model(self, x: Tensor) -> None:
        pyro.module("pair", self)
        for name, part, rows in (("a", self.first, x[:2]), ("b", self.second, x[2:])):
            with pyro.plate(name, len(rows)):
                z = pyro.sample(f"z_{name}", prior(rows))
                pyro.sample(f"x_{name}", pixels(part.decoder(z)), obs=rows)

    def guide(self, x: Tensor) -> None:
        for name, part, rows in (("a", self.first, x[:2]), ("b", self.second, x[2:])):
            with pyro.plate(name, len(rows)):
                pyro.sample(f"z_{name}", dist.Normal(*part.encoder(rows)).to_event(1))


class Subsampling(Local):
    """A plate that draws half of the data at each run, or for the trusted values all of them."""

    parts = 2

    def see_all(self, everything: bool) -> None:
        self.parts = 1 if everything else 2

    def model(self, x: Tensor) -> None:
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", len(x), subsample_size=len(x) // self.parts) as index:
            z = pyro.sample("z", prior(x[index]))
            pyro.sample("x", pixels(self.decoder(z)), obs=x[index])

    def guide(self, x: Tensor) -> None:
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", len(x), subsample_size=len(x) // self.parts) as index:
            pyro.sample("z", dist.Normal(*self.encoder(x[index])).to_event(1))


class Factors(Local):
    """A factor in each program: a reward of small z in the model, of large z in the guide."""

    def model(self, x: Tensor) -> None:
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior(x))
            pyro.factor("reward", -0.3 * z.square().sum(-1))
            pyro.sample("x", pixels(self.decoder(z)), obs=x)

    def guide(self, x: Tensor) -> None:
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(*self.encoder(x)).to_event(1))
            pyro.factor("bonus", 0.2 * z.square().sum(-1), has_rsample=True)


class Scalar(nn.Module):
    """One number for each datum, without an event dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder, self.encoder = net(1, PIXELS), Gaussian(PIXELS, 1)

    def model(self, x: Tensor) -> None:
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0))
            pyro.sample("x", pixels(self.decoder(z.unsqueeze(-1))), obs=x)

    def guide(self, x: Tensor) -> None:
        pyro.module("encoder", self.encoder)
        loc, scale = self.encoder(x)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc.squeeze(-1), scale.squeeze(-1)))


class Mixture(Local):
    """A cluster of each datum, which the guide does not draw: summed out of the model."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.randn(CLASSES))
        self.shift = nn.Parameter(torch.randn(CLASSES, PIXELS))

    def model(self, x: Tensor) -> None:
        pyro.module("mixture", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior(x))
            q = dist.Categorical(logits=self.logits)
            y = pyro.sample("y", q, infer={"enumerate": "parallel"})
            pyro.sample("x", pixels(self.decoder(z) + self.shift[y]), obs=x)


class Normalised(Local):
    """BatchNorm in both networks."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Gaussian(PIXELS, norm=True)
        hidden = nn.Linear(LATENT, 8), nn.BatchNorm1d(8), nn.Tanh()
        self.decoder = nn.Sequential(*hidden, nn.Linear(8, PIXELS))
