"""Figures: latent spaces with a structure, of layers or of clusters."""

from collections.abc import Mapping

from matplotlib.figure import Figure


def layers(kl: Mapping[str, Mapping[str, float]]) -> Figure:
    """Draw the KL of each layer as bars, one on top of the other, for several models.

    ``kl`` gives for each model's name the KL of each site in nats: the means of
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
