"""The graphical models of ``pyro_vae.models``, from the files of ``library``."""

from .library import labels, latents, sequences, structure

MODELS = {**labels.MODELS, **structure.MODELS, **sequences.MODELS, **latents.MODELS}
