"""The scripts of clustering and of several stochastic layers, in tiny settings."""

import json

import pytest
from running import script

from pyro_vae.plots import layers

TINY = ["--data", "digits", "--epochs", "1", "--no-progress", "--no-compile"]


def result(path):
    return json.loads((path / "result.json").read_text())


@pytest.mark.parametrize("pretrain", [0, 1])
def test_clustering_reports_every_seed_and_goes_on(tmp_path, pretrain):
    options = [*TINY, "--seeds", "0", "3", "--hidden", "8", "--dim", "2", "--pretrain", pretrain]
    clustering = script("programs/clustering")
    clustering(*options, "--output-dir", tmp_path)
    first = result(tmp_path)
    values = [*first["accuracy"].values()]
    assert list(first["accuracy"]) == ["0", "3"]
    assert first["mean"] == pytest.approx(sum(values) / 2)
    assert first["lowest"] == min(values)
    assert (tmp_path / "figures" / "clusters.png").is_file()
    clustering(*options, "--output-dir", tmp_path)  # trained already
    assert result(tmp_path)["accuracy"].keys() == first["accuracy"].keys()


def test_hierarchical_compares_the_layers(tmp_path):
    options = [*TINY, "--width", "8", "--num-test", "50", "--num-samples", "5"]
    script("programs/hierarchical")(*options, "--output-dir", tmp_path)
    found = result(tmp_path)
    assert list(found["two"]["kl"]) == list(found["ladder"]["active_units"]) == ["z1", "z2"]
    gain = found["ladder"]["log_px"] - found["one"]["log_px"]
    assert found["ladder against one"]["gain"] == pytest.approx(gain, abs=1e-4)
    assert (tmp_path / "figures" / "layers.png").is_file()


def test_layers_stacks_the_sites_of_each_model():
    axes = layers({"one": {"z": 3.0}, "two": {"z1": 2.0, "z2": 1.5}}).axes[0]
    ends = [bar.get_x() + bar.get_width() for bars in axes.containers for bar in bars]
    assert max(ends[2:]) == 3.5
    with pytest.raises(ValueError, match="at least one model, got none"):
        layers({})
