"""Renew the document of bad inputs."""

from pathlib import Path

from .table import DOCUMENT, document

if __name__ == "__main__":
    path = Path(__file__).parents[2] / DOCUMENT
    path.write_text(document(), encoding="utf-8")
