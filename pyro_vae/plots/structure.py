"""Figures: latent spaces with layers or clusters."""

from collections.abc import Mapping

import torch
from matplotlib.figure import Figure

from ..models.gmvae import GMVAE
from ..programs.isolation import looking
from .mosaic import GAP, Shape, as_tiles, lay_out, show


def layers(kl: Mapping[str, Mapping[str, float]]) -> Figure:
    """Draw the KL of each layer as stacked bars, one bar for each model.

    ``kl`` maps the name of a model to the KL of each site in nats: the mean over the data of
    :func:`pyro_vae.evaluation.kl_by_site`.

    Raises ``ValueError`` where there is no model.

    >>> layers({"two": {"z1": 20.0, "z2": 5.0}}).axes[0].get_xlabel()
    'KL, nats per datum'
    """
    if not kl:
        raise ValueError("expected the KL of at least one model, got none")
    figure = Figure(figsize=(6.4, 1.0 + 0.5 * len(kl)), layout="constrained")
    axes = figure.add_subplot()
    sites = sorted({site for model in kl.values() for site in model})
    for index, site in enumerate(sites):
        left = [sum(v for name, v in model.items() if name < site) for model in kl.values()]
        width = [model.get(site, 0.0) for model in kl.values()]
        bars = axes.barh(list(kl), width, left=left, color=f"C{index}", label=site)
        texts = [f"{value:.1f}" if value else "" for value in width]
        axes.bar_label(bars, texts, label_type="center", color="white", fontsize=8)
    axes.invert_yaxis()
    axes.set(title="KL of each layer", xlabel="KL, nats per datum")
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def clusters(gmvae: GMVAE, shape: Shape, n: int = 12, *, peak: float = 1.0) -> Figure:
    """Draw a row for each cluster y: the means E[x | z] at ``n`` draws z ~ p(z | y).

    >>> from pyro_vae.families import MixturePrior
    >>> vae = GMVAE(MixturePrior(2, 3), Bernoulli(mlp(2, 64)), DiagonalNormal(mlp(64, 4)))
    >>> clusters(vae, (1, 8, 8)).axes[0].get_ylabel()
    'y'
    """
    size = len(gmvae.prior.logits)
    y = torch.arange(size, device=gmvae.prior.logits.device).repeat_interleave(n)
    with looking([gmvae]):
        x = gmvae.sample(y, mean=True)
    tiles = as_tiles(x, shape, peak)
    figure = show(lay_out(tiles, n, GAP), "E[x | z], z ~ p(z | y)", labelled=True)
    axes = figure.axes[0]
    centres = [GAP + i * (shape[1] + GAP) + (shape[1] - 1) / 2 for i in range(size)]
    axes.set_yticks(centres, [str(i) for i in range(size)])
    axes.set_xticks([])
    axes.set_ylabel("y")
    return figure
