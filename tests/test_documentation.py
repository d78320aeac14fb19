"""The Python blocks of the README and of the documentation run, in a small setting."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SMALLER = {r"epochs=\d+": "epochs=1", r"num_samples=\d+": "num_samples=5"}


def blocks(page):
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page)], ids=lambda page: page.stem
)
def test_blocks_run(page, tmp_path, monkeypatch):
    """One after another, as a reader would paste them into one file."""
    monkeypatch.chdir(tmp_path)
    code = "\n".join(blocks(page))
    for large, small in SMALLER.items():
        code = re.sub(large, small, code)
    names = {}
    exec(compile(code, page.name, "exec"), names)
    assert "vae" in names or "log_px" in names


def test_the_swapped_guide_of_the_readme_differs_in_one_line():
    removed, added = re.findall(r"^[-+](encoder = .*)$", PAGES[0].read_text(), re.MULTILINE)
    assert removed in blocks(PAGES[0])[0].splitlines()
    assert added.replace("FullRankNormal", "DiagonalNormal") == removed


def test_links_inside_the_repository_exist():
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            target = (page.parent / link.replace("_copied/", "../")).resolve()
            assert target.exists(), f"{page.name}: {link}"


def test_length_of_the_readme():
    assert len(PAGES[0].read_text().splitlines()) <= 120
