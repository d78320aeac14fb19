"""Programs in the style of Pyro's own examples, which everything that evaluates must take as they
are.

``nn.Module`` s with ``model`` and ``guide`` methods, ``pyro.module``,
encoders that return tuples, images as (B, 1, 28, 28)
reshaped inside, sites called "latent", "obs", "x", "y", "z", a plate over the data of which some
have no size.
"""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

SIDE = 4
PIXELS = SIDE * SIDE
CLASSES = 3


class Decoder(nn.Module):
    def __init__(self, z_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(z_dim, hidden_dim)
        self.fc21 = nn.Linear(hidden_dim, PIXELS)

    def forward(self, z: Tensor) -> Tensor:
        return torch.sigmoid(self.fc21(nn.functional.softplus(self.fc1(z))))


class Encoder(nn.Module):
    def __init__(self, z_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(PIXELS, hidden_dim)
        self.fc21 = nn.Linear(hidden_dim, z_dim)
        self.fc22 = nn.Linear(hidden_dim, z_dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = nn.functional.softplus(self.fc1(x.reshape(-1, PIXELS)))
        return self.fc21(hidden), torch.exp(self.fc22(hidden))


class ExampleVAE(nn.Module):
    """The unsupervised example."""

    def __init__(self, z_dim: int = 2, hidden_dim: int = 8) -> None:
        super().__init__()
        self.encoder, self.decoder, self.z_dim = (
            Encoder(z_dim, hidden_dim),
            Decoder(z_dim, hidden_dim),
            z_dim,
        )

    def model(self, x: Tensor) -> Tensor:
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", x.shape[0]):
            z_loc = torch.zeros(x.shape[0], self.z_dim, dtype=x.dtype)
            z = pyro.sample("latent", dist.Normal(z_loc, torch.ones_like(z_loc)).to_event(1))
            loc_img = self.decoder.forward(z)
            pyro.sample(
                "obs",
                dist.Bernoulli(loc_img, validate_args=False).to_event(1),
                obs=x.reshape(-1, PIXELS),
            )
            return loc_img

    def guide(self, x: Tensor) -> None:
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", x.shape[0]):
            z_loc, z_scale = self.encoder.forward(x)
            pyro.sample("latent", dist.Normal(z_loc, z_scale).to_event(1))

    def images(self, rows: int = 6) -> Tensor:
        generator = torch.Generator().manual_seed(3)
        return torch.rand(
            rows, 1, SIDE, SIDE, generator=generator, dtype=self.decoder.fc1.weight.dtype
        ).round()


class Concatenated(nn.Module):
    """A network of several inputs side by side, broadcast against each other."""

    def __init__(self, sizes: list[int], num_outputs: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(sizes[0], sizes[1]), nn.Softplus())
        self.heads = nn.ModuleList(nn.Linear(sizes[1], sizes[2]) for _ in range(num_outputs))

    def forward(self, *inputs: Tensor) -> list[Tensor]:
        shape = torch.broadcast_shapes(*(value.shape[:-1] for value in inputs))
        hidden = self.body(
            torch.cat([value.expand(*shape, value.shape[-1]) for value in inputs], -1)
        )
        return [head(hidden) for head in self.heads]


class ExampleM2(nn.Module):
    """The semi-supervised example (Kingma et al. 2014, M2): ``ys`` is a latent where it is not
    given."""

    def __init__(self, z_dim: int = 2, hidden: int = 8) -> None:
        super().__init__()
        self.z_dim = z_dim
        self.encoder_y = Concatenated([PIXELS, hidden, CLASSES])
        self.encoder_z = Concatenated([PIXELS + CLASSES, hidden, z_dim], num_outputs=2)
        self.decoder = Concatenated([z_dim + CLASSES, hidden, PIXELS])

    def model(self, xs: Tensor, ys: Tensor | None = None) -> Tensor:
        pyro.module("ss_vae", self)
        batch_size = xs.size(0)
        options = {"dtype": xs.dtype, "device": xs.device}
        with pyro.plate("data"):
            prior_loc, prior_scale = (
                torch.zeros(batch_size, self.z_dim, **options),
                torch.ones(batch_size, self.z_dim, **options),
            )
            zs = pyro.sample("z", dist.Normal(prior_loc, prior_scale).to_event(1))
            alpha_prior = torch.ones(batch_size, CLASSES, **options) / CLASSES
            ys = pyro.sample("y", dist.OneHotCategorical(alpha_prior), obs=ys)
            (logits,) = self.decoder(zs, ys)
            loc = torch.sigmoid(logits)
            pyro.sample("x", dist.Bernoulli(loc, validate_args=False).to_event(1), obs=xs)
            return loc

    def guide(self, xs: Tensor, ys: Tensor | None = None) -> None:
        with pyro.plate("data"):
            if ys is None:
                ys = pyro.sample("y", dist.OneHotCategorical(self.encoder_y(xs)[0].softmax(-1)))
            loc, log_scale = self.encoder_z(xs, ys)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))

    def images(self, rows: int = 6) -> Tensor:
        return torch.rand(
            rows, PIXELS, generator=torch.Generator().manual_seed(3), dtype=torch.float64
        ).round()

    def labels(self, rows: int = 6) -> Tensor:
        return torch.eye(CLASSES, dtype=torch.float64)[torch.arange(rows) % CLASSES]
