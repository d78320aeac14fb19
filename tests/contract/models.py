"""The graphical models of ``pyro_vae.models``, small: a new one is one entry of ``MODELS``."""

from collections.abc import Callable

from .subject import Subject

MODELS: dict[str, Callable[[], Subject]] = {
    # name: constructor
}
