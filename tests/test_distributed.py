"""Several processes do what one does."""

import csv
import json
import os
import subprocess
import sys
from contextlib import contextmanager
from itertools import product

import pytest
import replicas
import torch
from running import TINY, module, script


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """The files that two processes have written."""
    folder = tmp_path_factory.mktemp("two")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*torchrun, "--nproc-per-node", "2", replicas.__file__, folder]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


@pytest.mark.slow
def test_two_processes_have_the_gradients_of_one(shared):
    """Eager, and as a graph."""
    whole = replicas.step(compile=False)
    for index, compile in product(range(2), (False, True)):
        part = torch.load(shared / f"{index}-{compile}.pt", weights_only=True)
        torch.testing.assert_close(part, whole, rtol=1e-6, atol=1e-6)


def test_the_training_script_joins_the_processes(monkeypatch, tmp_path):
    """The runs above are inside a context of their own."""
    train, joined = module("train"), []

    @contextmanager
    def processes():
        joined.append(True)
        yield

    monkeypatch.setattr(train, "processes", processes)
    train.main([*TINY, "--epochs", "1", "--output-dir", str(tmp_path / "run")])
    assert joined == [True]


@pytest.mark.slow
def test_training_script_on_two_processes(shared, tmp_path):
    """Only the first process writes and speaks; a run goes on; the final ELBO agrees with that of
    one process."""
    words = [[(shared / f"{i}-{number}.txt").read_text() for number in range(2)] for i in range(2)]
    assert words[1] == ["", ""]
    assert [word.count("log p(x)") for word in words[0]] == [1, 1]
    assert "nothing to train" not in words[0][1]
    rows = list(csv.DictReader((shared / "run" / "metrics.csv").read_text().splitlines()))
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3]

    options = list(replicas.OPTIONS)
    options[1:4] = ["3", "--batch-size", "64"]  # 2 x 32 together
    script("train")("--output-dir", tmp_path / "one", *options)
    two, one = (
        json.loads((folder / "result.json").read_text())
        for folder in (shared / "run", tmp_path / "one")
    )
    error = (one["log_px_data_error"] ** 2 + two["log_px_data_error"] ** 2) ** 0.5
    assert abs(two["elbo"] - one["elbo"]) < 3 * error
