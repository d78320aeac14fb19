"""Hand-written pairs of programs, evaluated from the command line."""

import json
import sys

import pytest
import torch
from running import script

from pyro_vae import log_likelihood
from pyro_vae.experiments.pairs import load_pair
from pyro_vae.training.epoch import seeded

SOURCE = """
import pyro, torch
import pyro.distributions as dist

def model(x, shift):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1).to_event(1))
        pyro.sample("x", dist.Normal(z + shift, 1.0).to_event(1), obs=x)

def guide(x, shift):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal((x - shift) / 2, 0.5 ** 0.5).to_event(1))

def exact():
    return model, guide, torch.arange(20.0).view(10, 2) / 10, torch.tensor(0.5)
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "hand_written.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("hand_written", None)


def test_the_guide_that_is_the_posterior_gives_the_truth(here, capsys):
    script("evaluate")("hand_written:exact", "--num-samples", 50, "--explain")
    path = here / "evaluation-hand_written.exact-10-data-50-samples-seed-0.json"
    result = json.loads(path.read_text())
    x = torch.arange(20.0).view(10, 2) / 10
    truth = torch.distributions.Normal(0.5, 2**0.5).log_prob(x).sum(-1).mean()
    assert result["log_px"] == pytest.approx(float(truth), abs=1e-5)
    assert result["elbo"] == pytest.approx(float(truth), abs=1e-5)  # every weight is p(x)
    assert (result["pair"], result["num_data"]) == ("hand_written:exact", 10)
    shown = capsys.readouterr().out
    assert "hand_written:exact, nats per datum" in shown
    assert {path.stem for path in (here / "figures" / path.stem).iterdir()} == {
        *("convergence", "pareto", "weight_tails")
    }


def test_the_first_data_and_another_folder(here):
    options = ("--num-samples", 5, "--max-images", 4, "--seed", 3, "--output-dir", "out")
    script("evaluate")("hand_written:exact", *options, "--gaps", "--few", 2, "--no-progress")
    path = here / "out" / "evaluation-hand_written.exact-4-data-5-samples-seed-3.json"
    result = json.loads(path.read_text())
    assert result["gaps_diagonal"]["num_images"] == 2
    with load_pair("hand_written:exact") as pair, seeded(3):
        few = pair.first(4)
        log_px = log_likelihood(few.model, few.guide, *few.args, num_samples=5)
    assert result["log_px"] == pytest.approx(float(log_px.mean()), abs=1e-5)


def test_the_path_of_modules_is_left_as_it_was(here):
    before = list(sys.path)
    with load_pair("hand_written:exact") as pair:
        assert len(pair) == 10
        assert len(pair.first(None)) == 10
    assert sys.path == before
