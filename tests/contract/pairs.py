"""The pairs: a new one is one entry of ``PAIRS``."""

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import autoguide
from torch import Tensor, nn

from pyro_vae import VAE, Bernoulli, DiagonalNormal, MixtureOfNormals, StandardNormal, mlp
from pyro_vae.inference.semi_amortised import SemiAmortised

from . import programs, structures
from .models import MODELS
from .networks import CLASSES, LATENT, PIXELS, SIDE, STEPS
from .subject import ROWS, Subject, binary, of


def vae_of(encoder: nn.Module) -> VAE:
    """The library's VAE with an encoder."""
    return VAE(StandardNormal(LATENT), Bernoulli(mlp(LATENT, 8, PIXELS)), encoder)


def mlp_vae() -> Subject:
    """The library's own."""
    return of(lambda: vae_of(DiagonalNormal(mlp(PIXELS, 8, 2 * LATENT))))


def mixture_guide() -> Subject:
    """A guide of two normals."""
    outputs = MixtureOfNormals.outputs(LATENT, components=2)
    return of(lambda: vae_of(MixtureOfNormals(mlp(PIXELS, 8, outputs), components=2)))


def semi_amortised() -> Subject:
    """A guide that climbs the ELBO."""
    bare = mlp_vae()
    vae = bare.modules[0]
    guide = SemiAmortised(vae.model, vae.encoder.net, DiagonalNormal(nn.Identity()), steps=2)
    return Subject(vae.model, guide.double(), bare.args, (vae, guide))


def m2(labelled: bool) -> Subject:
    """Pyro's semi-supervised example."""
    eye = torch.eye(CLASSES, dtype=torch.float64)
    images = binary(ROWS, PIXELS)
    if labelled:
        return of(programs.M2, images, eye[torch.arange(ROWS) % CLASSES])
    return of(programs.M2, images, enumerated={"y": eye})


def functions() -> Subject:
    """Plain functions over modules, linear and Gaussian: log p(x) has a closed form."""
    torch.manual_seed(0)
    decoder, encoder = (m.double() for m in (nn.Linear(LATENT, PIXELS), nn.Linear(PIXELS, LATENT)))

    def model(x: Tensor) -> None:
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), LATENT), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decoder(z), 1.0).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(encoder(x), 0.9).to_event(1))

    x = binary(ROWS, PIXELS)

    def evidence() -> Tensor:
        W, eye = decoder.weight, torch.eye(PIXELS, dtype=torch.float64)
        return torch.distributions.MultivariateNormal(decoder.bias, W @ W.T + eye).log_prob(x)

    return Subject(model, guide, (x,), (decoder, encoder), evidence=evidence)


def auto(kind: type, model: type[nn.Module]) -> Subject:
    """One of Pyro's autoguides, whose parameters belong to the data of one call."""
    bare = of(model)
    with pyro.get_param_store().scope():
        torch.manual_seed(1)
        guide = kind(bare.model, init_loc_fn=autoguide.init_to_mean)
        guide(*bare.args)
    return Subject(bare.model, guide, bare.args, (*bare.modules, guide), copyable=False)


def classes(number: int) -> Tensor:
    """The values of a categorical site."""
    return torch.arange(number)


PAIRS: dict[str, Callable[[], Subject]] = {
    "MLP VAE": mlp_vae,
    "Conv2d VAE": lambda: of(programs.Conv, binary(ROWS, 1, SIDE, SIDE)),
    "GRU with lengths": lambda: of(
        programs.Sequences, binary(ROWS, STEPS, 2), torch.tensor([4, 2, 1, 3])
    ),
    "plain functions": functions,
    "Pyro's vae.py": lambda: of(programs.PyroVAE),
    "M2, labelled": lambda: m2(True),
    "M2, y enumerated": lambda: m2(False),
    "two layers": lambda: of(programs.TwoLayers),
    "global and local": lambda: of(structures.GlobalAndLocal, copyable=False),
    "sibling plates": lambda: of(structures.Siblings, dim=-2),
    "two data plates": lambda: of(structures.TwoPlates, copyable=False),
    "subsampling plate": lambda: of(structures.Subsampling, copyable=False),
    "AutoNormal": lambda: auto(autoguide.AutoNormal, programs.Local),
    "AutoDelta": lambda: auto(autoguide.AutoDelta, programs.Local),
    "AutoMultivariateNormal": lambda: auto(autoguide.AutoMultivariateNormal, structures.Global),
    "factors": lambda: of(structures.Factors),
    "scalar latent": lambda: of(structures.Scalar),
    "mixture in the model": lambda: of(structures.Mixture, mixture={"y": classes(CLASSES)}),
    "mixture in the guide": mixture_guide,
    "semi-amortised": semi_amortised,
    "BatchNorm": lambda: of(structures.Normalised),
    **MODELS,
}
