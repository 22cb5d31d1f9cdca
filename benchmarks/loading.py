"""Whether the archive feeds a training: items per second of one loading process against those the run consumed.

    python benchmarks/loading.py --root cohorts/demo --run runs/demo-sr-edm

Reads stage, patch and consumption (the median of items_per_s) from the run's configuration and log.
"""

import json
import time

import click
import numpy as np

from totalgen.commands import PATH, command
from totalgen.errors import InputError
from totalgen.schema import build
from totalgen.settings import TrainingSettings
from totalgen.training.diffusion import make_items
from totalgen.training.loop import read_configuration


@command(__doc__)
@click.option("--root", type=PATH, required=True, help="Cohort root with training.zarr.")
@click.option("--run", "runs", type=PATH, multiple=True, required=True, help="Run folders.")
@click.option("--items", default=200)
def main(root, runs, items):
    for run in runs:
        if not (run / "log.jsonl").exists():
            raise InputError(f"{run}: holds no log.jsonl. Give the folder of a run of train_totalgen.py.")
        loaded = make_items(root, build(TrainingSettings, read_configuration(run)["settings"]))
        lines = (run / "log.jsonl").read_text().splitlines()
        consumed = np.median([json.loads(line)["items_per_s"] for line in lines])
        clock = time.perf_counter()
        for n in range(items):
            loaded[n]
        rate = items / (time.perf_counter() - clock)
        click.echo(f"{run.name:20} loads {rate:6.1f} items/s, trained {consumed:6.1f}: ratio {rate / consumed:.1f}")


if __name__ == "__main__":
    main()
