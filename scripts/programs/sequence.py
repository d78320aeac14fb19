"""Train the VAE of sequences on couplets of Tang poems, or on sentences.

It is compared with a language model: the same decoder without z, with the same number of epochs.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from pyro_vae import SVI, Trace_ELBO, TraceMeanField_ELBO, evaluate, fit
from pyro_vae.data.text import Vocabulary, couplets, sentences
from pyro_vae.experiments.programs import Folder, ProgramOptions, program
from pyro_vae.families import AdaptiveCategorical, Categorical, DiagonalNormal, StandardNormal
from pyro_vae.models import SequenceVAE
from pyro_vae.nets import DilatedDecoder, RecurrentDecoder, RecurrentEncoder
from pyro_vae.objectives import FreeBits, Objective, linear
from pyro_vae.plots.history import compared
from pyro_vae.programs.isolation import looking

DECODERS: dict[str, Callable[..., nn.Module]] = {
    "recurrent": RecurrentDecoder,
    "dilated": DilatedDecoder,
}
LANGUAGE = "language model"


@dataclass(frozen=True)
class Options(ProgramOptions):
    """The options of this script."""

    epochs: int = 4
    data: str = "sentences"
    """sentences (of Python's documentation) or couplets (in the folder of data)."""
    runs: tuple[str, ...] = (LANGUAGE, "plain", "annealed", "free bits")
    """The runs: a language model, a VAE with the plain ELBO, VAEs with remedies for collapse."""
    decoder: str = "recurrent"
    """The decoder network: recurrent or dilated."""
    longest: int = 80
    """The maximal number of characters of a sentence."""
    limit: int | None = None
    """The number of texts; by default all are used."""
    held_out: int = 5000
    """The number of texts for validation, and for testing; at most a tenth of all texts each."""
    evaluated: int = 2000
    """The number of test texts whose log p(x) is computed."""
    num_samples: int = 100
    """K for log p(x)."""
    latent: int = 32
    hidden: int = 256
    embedding: int = 128
    word_dropout: float = 0.3
    """The rate of word dropout in the runs with remedies for collapse."""
    dropout: float = 0.2
    """The dropout rate of the decoders' outputs."""
    warm_up: float = 0.5
    """The fraction of the steps in which beta grows from 0 to 1."""
    floor: float = 0.2
    """The free bits of each latent dimension, in nats."""
    batch_size: int = 128
    learning_rate: float = 2e-3
    decay: float = 0.6
    """The learning rate is multiplied by this factor after each epoch."""


@dataclass(frozen=True)
class Text:
    """Training, validation and test texts as numbers, (N, T) each."""

    train: Tensor
    validation: Tensor
    test: Tensor
    vocabulary: Vocabulary

    @property
    def length(self) -> int:
        """The length T of the sequences."""
        return self.train.shape[1]

    def characters(self, x: Tensor) -> int:
        """The number of characters of some texts, including the ends of short texts."""
        ends = (x == 0).any(1).sum()
        return int((x != 0).sum() + ends)


def load(options: Options) -> Text:
    """Return the texts in random order, divided into three parts."""
    if options.data == "couplets":
        texts, min_count, length = couplets(options.data_dir or Path("data")), 5, 10
        random.Random(0).shuffle(texts)
    elif options.data == "sentences":
        texts, min_count, length = sentences(longest=options.longest), 2, options.longest + 1
    else:
        raise ValueError(f"expected data to be sentences or couplets, got {options.data}")
    vocabulary = Vocabulary.of(texts, min_count)
    x = vocabulary.encode(texts[: options.limit], length)
    held = min(options.held_out, len(x) // 10)
    return Text(x[2 * held :], x[:held], x[held : 2 * held], vocabulary)


def build(options: Options, classes: int, name: str) -> SequenceVAE:
    """Build the VAE; the language model is the same without latents, with an empty guide."""
    latent = 0 if name == LANGUAGE else options.latent
    decoder = DECODERS[options.decoder](
        *(classes, latent),
        embedding=options.embedding,
        hidden=options.hidden,
        word_dropout=0.0 if name in (LANGUAGE, "plain") else options.word_dropout,
        dropout=options.dropout,
    )
    symbol: nn.Module = (
        AdaptiveCategorical(options.hidden, classes, cutoffs=[500, 2000])
        if classes > 4000
        else Categorical(nn.Linear(options.hidden, classes))
    )
    sizes = {"embedding": options.embedding, "hidden": options.hidden // 2}
    encoder = DiagonalNormal(RecurrentEncoder(classes, 2 * options.latent, **sizes))
    return SequenceVAE(StandardNormal(options.latent), decoder, symbol, encoder)


def programs(vae: SequenceVAE, name: str) -> tuple[Any, Any]:
    """Return the model and the guide of a run."""
    if name != LANGUAGE:
        return vae.model, vae.guide

    def model(x: Tensor) -> None:
        """prod_t p(x_t | x_<t)."""
        with pyro.plate("data", len(x)):
            pyro.sample("x", vae.likelihood(x, torch.zeros(len(x), 0)), obs=x)

    def guide(x: Tensor) -> None:
        """The empty guide of a model without latents."""

    return model, guide


def objective(options: Options, name: str, steps: int) -> Objective:
    """Return the objective of a run; the KL has a closed form."""
    if name == "annealed":
        return TraceMeanField_ELBO(beta=linear(max(1, round(options.warm_up * steps))))
    if name == "free bits":
        return FreeBits(options.floor)
    return Trace_ELBO() if name == LANGUAGE else TraceMeanField_ELBO()


def train(options: Options, text: Text, name: str, path: Path) -> tuple[SequenceVAE, list[Any]]:
    """Train one run; return it with its history."""
    vae = build(options, len(text.vocabulary), name)
    model, guide = programs(vae, name)
    used = list(vae.parameters())
    if name == LANGUAGE:
        used = [*vae.decoder.parameters(), *vae.symbol.parameters()]
    adam = torch.optim.Adam(used, lr=options.learning_rate, fused=True)
    steps = options.epochs * -(-len(text.train) // options.batch_size)
    svi = SVI(
        model, guide, adam, loss=objective(options, name, steps), clip_norm=5.0 * options.batch_size
    )
    history = fit(
        *(svi, text.train, text.validation),
        epochs=options.epochs,
        batch_size=options.batch_size,
        seed=options.seed,
        scheduler=torch.optim.lr_scheduler.ExponentialLR(adam, options.decay),
        folder=path,
        resume=True,
        progress=options.progress,
    )
    return vae, history


def score(options: Options, text: Text, vae: SequenceVAE, name: str) -> dict[str, float]:
    """Evaluate test texts in nats: the language model exactly, a VAE by importance weighting."""
    x = text.test[: options.evaluated]
    scale = len(x) / text.characters(x)
    if name == LANGUAGE:
        with looking([vae]):
            log_px = vae.likelihood(x, torch.zeros(len(x), 0)).log_prob(x)
        return {"nats per character": -scale * float(log_px.mean())}
    result = evaluate(
        *(vae.model, vae.guide, x),
        num_samples=options.num_samples,
        kl_draws=0,
        progress=options.progress,
    )
    return {
        "nats per character, bound": -scale * float(result.elbo.mean()),
        f"nats per character, K = {options.num_samples}": -scale * float(result.log_px.mean()),
        "effective sample size": float(result.effective_sample_size.mean()),
        "KL": float(result.rate.mean()),
        "active units": result.active_units,
        "cost of shuffling z": shuffling(vae, x),
    }


def shuffling(vae: SequenceVAE, x: Tensor) -> float:
    """Return the mean of log p(x | z) - log p(x | z') in nats; z' is the draw of another text."""
    with looking([vae]):
        z = vae.encoder(x).sample()
        own, other = (vae.likelihood(x, value).log_prob(x) for value in (z, z.roll(1, 0)))
    return float((own - other).mean())


def write_texts(text: Text, vae: SequenceVAE) -> dict[str, list[str]]:
    """Return samples of the prior, reconstructions, and a path from one test text to another."""
    decode = text.vocabulary.decode
    with looking([vae]):
        z = vae.prior().sample((10,))
        first = text.test[:10]
        means = vae.encoder(first).mean
        weights = torch.linspace(0, 1, 7).unsqueeze(1)
        path = torch.lerp(means[0], means[1], weights)
        return {
            "samples": decode(vae.generate(z, text.length)),
            "originals": decode(first),
            "reconstructions": decode(vae.generate(means, text.length, greedy=True)),
            "interpolation": decode(vae.generate(path, text.length, greedy=True)),
        }


def main(args: Sequence[str] | None = None) -> None:
    """Train and evaluate each run; then write texts and draw the training curves."""
    with program(Options, args, __doc__) as (options, folder):
        text = load(options)
        scores: dict[str, dict[str, float]] = {}
        histories = {}
        for name in options.runs:
            vae, histories[name] = train(options, text, name, folder.path / name.replace(" ", "_"))
            scores[name] = score(options, text, vae, name)
            folder.write(scores[name], f"{name.replace(' ', '_')}.json")
            if name != LANGUAGE:
                show(folder, name, write_texts(text, vae))
        folder.write({"test texts": len(text.test[: options.evaluated]), **scores})
        folder.draw("training", compared(histories, "epoch"))


def show(folder: Folder, name: str, texts: dict[str, list[str]]) -> None:
    """Write the texts of a run to a file, and print them."""
    folder.write(texts, f"{name.replace(' ', '_')}_texts.json")
    for title, lines in texts.items():
        print(f"{name}, {title}:", *lines, sep="\n  ")


if __name__ == "__main__":
    main()
