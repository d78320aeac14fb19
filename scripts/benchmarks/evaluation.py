"""What importance-weighted log p(x) costs."""

import pyro
import torch
import torch.nn.functional as F
from torch import Tensor

from pyro_vae import evaluate, load_data, log_likelihood

from .contestants import Stock, random_images, vae
from .options import D, Options, Rows, Step
from .versions import shared_graph

REFERENCE = "decoder's matrix products alone"


def images(options: Options) -> Tensor:
    """Some images of MNIST's test set, or random zeros and ones without ``data_dir``."""
    if options.data_dir is None:
        return random_images(options.images, options.device)
    test = load_data("mnist", options.data_dir, pixels="static").test
    return test.subset(slice(options.images)).all().to(options.device)


def products(options: Options) -> Step:
    """The two products of the decoder, K rows for each image."""
    shapes = (
        (options.num_samples, options.latent),
        (options.hidden, options.latent),
        (D, options.hidden),
    )
    h, first, last = (torch.randn(*shape, device=options.device) for shape in shapes)

    def step() -> None:
        for _ in range(options.images):
            torch.mm(torch.mm(h, first.t()), last.t())

    return step


def by_hand(options: Options, x: Tensor) -> Step:
    """The estimate in plain PyTorch, image by image."""
    plain = Stock(options)

    @torch.no_grad()
    def step() -> None:
        for row in x:
            loc, log_variance = plain.encoder(row).chunk(2)
            eps = torch.randn(options.num_samples, options.latent, device=x.device)
            z = loc + eps * (0.5 * log_variance).exp()
            logits = plain.decoder(z)
            log_px = torch.mv(logits, row) - F.softplus(logits).sum(-1)
            log_ratio = 0.5 * (eps.square().sum(-1) - z.square().sum(-1) + log_variance.sum())
            (log_px + log_ratio).logsumexp(0)

    return step


def by_renyi(options: Options, x: Tensor) -> Step:
    """The estimate by Pyro's RenyiELBO, image by image."""
    plain = Stock(options)
    renyi = pyro.infer.RenyiELBO(
        alpha=0, num_particles=options.num_samples, vectorize_particles=True, max_plate_nesting=1
    )

    @torch.no_grad()
    def step() -> None:
        with pyro.get_param_store().scope():
            for row in x:
                renyi.loss(plain.model, plain.guide, row[None])

    return step


def evaluation_rows(options: Options) -> Rows:
    """Importance-weighted log p(x) of some images, K samples each."""
    x, pair, K = images(options), vae(options), options.num_samples
    graph = shared_graph(pair)  # its compilation, some seconds once, is not counted
    programs = (pair.model, pair.guide)
    return {
        REFERENCE: products(options),
        "hand-written PyTorch": by_hand(options, x),
        "Pyro RenyiELBO(alpha=0), image by image": by_renyi(options, x),
        "pyro_vae, eager": lambda: log_likelihood(*programs, x, num_samples=K),
        "pyro_vae, compiled": lambda: log_likelihood(*programs, x, num_samples=K, compile=graph),
        "pyro_vae, compiled, evaluate": lambda: evaluate(
            *programs, x, num_samples=K, compile=graph, kl_draws=0
        ),
    }
