"""The graphical models of ``pyro_vae.models``, small: a new one is one entry of a file here."""
