"""Measure what an SVI step, an epoch and an importance-weighted evaluation cost.

Hand-written PyTorch, stock Pyro, NumPyro and pyro_vae run interleaved in one process, block by
block, so that what slows the machine slows all rows alike. Prints tables and writes a JSON file.
Two checkouts of pyro_vae are compared by ``scripts/compare.py``.
"""

import json
import math
from dataclasses import asdict
from typing import Any

import torch
import tyro
from benchmarks import epoch, evaluation, step
from benchmarks.contestants import hand_written, random_images
from benchmarks.large import large_images
from benchmarks.measure import flops, machine, machine_product, measure
from benchmarks.memory import endurance, peaks
from benchmarks.options import Options
from benchmarks.report import MACHINE, show, with_rates
from rich.console import Console

from pyro_vae.experiments.command_line import user_errors


def tables(options: Options, console: Console) -> dict[str, Any]:
    """Measure and print the tables of rows that were asked for."""
    one_step = flops(
        hand_written(options, random_images(options.batch, options.device), fused=True)
    )
    builders = {
        "step": (step.step_rows, step.REFERENCE, options.steps, one_step),
        "iwae": (step.iwae_rows, step.REFERENCE, max(options.steps // step.SAMPLES, 1), None),
        "epoch": (epoch.epoch_rows, "", 1, one_step * math.ceil(60_000 / options.batch)),
        "evaluation": (evaluation.evaluation_rows, evaluation.REFERENCE, 1, None),
    }
    result: dict[str, Any] = {}
    for name, (build, reference, steps, operations) in builders.items():
        if name in options.what:
            rows = build(options)
            reference = reference or next(iter(rows))
            operations = operations or flops(rows[reference])
            rows[MACHINE] = machine_product(options.device)
            result[name] = with_rates(measure(rows, reference, options, steps), operations)
            show(console, name, result[name], reference)
    return result


def main() -> None:
    """Measure, print, write."""
    with user_errors():
        options = tyro.cli(Options, description=__doc__)
        if options.threads:
            torch.set_num_threads(options.threads)
        console = Console(width=max(Console().width, 120))
        result: dict[str, Any] = {
            "options": asdict(options) | {"data_dir": None},
            "machine": machine(options.device),
        }
        result |= tables(options, console)
        if "large" in options.what:
            result["large"] = large_images(options)
            console.print(result["large"])
        if "memory" in options.what:
            result["memory"] = peaks(options)
            console.print(result["memory"])
        if "endurance" in options.what:
            result["endurance"] = endurance(options)
            console.print(result["endurance"])
        options.output.write_text(json.dumps(result, indent=2, default=str))


if __name__ == "__main__":
    torch.set_flush_denormal(True)  # before any thread starts
    main()
