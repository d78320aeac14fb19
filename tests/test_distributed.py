"""Several processes do what one does."""

import csv
import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import replicas
import torch
from running import script

ROOT = Path(__file__).parents[1]


def torchrun(*args):
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        *map(str, args),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    result = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=500
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.slow
def test_two_processes_have_the_gradients_of_one(tmp_path):
    """Eager and compiled."""
    torchrun(ROOT / "tests" / "replicas.py", tmp_path)
    whole = replicas.step(compile=False)
    for index, compile in product(range(2), (False, True)):
        shared = torch.load(tmp_path / f"{index}-{compile}.pt", weights_only=True)
        torch.testing.assert_close(shared, whole, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_training_script_on_two_processes(tmp_path):
    """Only the first process writes and speaks; resume goes on; the final ELBO agrees with that of
    one process."""
    run = tmp_path / "two"
    options = ["--epochs", "2", "--batch-size", "32", "--num-samples", "10", "--no-progress"]
    out = torchrun(ROOT / "scripts" / "train.py", "--output-dir", run, *options)
    assert out.count("log p(x)") == 1
    rows = list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))
    assert [int(row["epoch"]) for row in rows] == [1, 2]
    torchrun(ROOT / "scripts" / "train.py", "--resume", run, "--epochs", "3")
    assert len(list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))) == 3

    alone = tmp_path / "one"
    options[1:4] = ["3", "--batch-size", "64"]  # 2 x 32 together
    script("train")("--output-dir", alone, *options)
    two, one = (json.loads((folder / "result.json").read_text()) for folder in (run, alone))
    error = (one["log_px_data_error"] ** 2 + two["log_px_data_error"] ** 2) ** 0.5
    assert abs(two["elbo"] - one["elbo"]) < 3 * error
