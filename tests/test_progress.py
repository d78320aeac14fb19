"""How far a long part is, in a terminal and elsewhere."""

import io
import sys

import pytest
from tqdm import tqdm

from pyro_vae.experiments import progress
from pyro_vae.experiments.progress import part


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_part_that_is_not_shown_says_nothing(capsys):
    with part("evaluating", show=False) as show:
        assert not show
    assert capsys.readouterr().err == ""


def test_without_a_terminal_a_bar_is_a_line_a_minute(capsys, clock):
    with part("evaluating") as show, tqdm(total=10, disable=not show, mininterval=0) as bar:
        for second in range(0, 200, 20):
            clock[0] = second
            bar.update()
    name, *lines = capsys.readouterr().err.splitlines()
    assert name == "evaluating ..."
    assert len(lines) == 3  # after 60, 120 and 180 seconds
    for line, share in zip(lines, ("40%", "70%", "100%"), strict=True):
        assert line.startswith(f"evaluating: {share}")
        assert "<" in line  # the time left


def test_other_words_pass_at_once(capsys, clock):
    with part("evaluating"), tqdm(total=2, mininterval=0) as bar:
        bar.update()
        print("a warning", file=sys.stderr)
        bar.update()
    assert capsys.readouterr().err == "evaluating ...\na warning\n"


def test_in_a_terminal_the_bar_is_drawn(monkeypatch):
    file = Terminal()
    monkeypatch.setattr(sys, "stderr", file)
    with part("evaluating") as show, tqdm(total=2, disable=not show, mininterval=0) as bar:
        bar.update(2)
    assert file.getvalue().startswith("evaluating ...\n\r")
    assert "100%" in file.getvalue()


def test_stderr_comes_back_after_an_error(capsys):
    before = sys.stderr
    with pytest.raises(ValueError, match="broken"), part("evaluating"):
        raise ValueError("broken")
    assert sys.stderr is before
