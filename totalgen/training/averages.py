"""Any averaging profile of a finished run, put together from the averages that were kept during training."""

from pathlib import Path

import numpy as np

from totalgen.errors import InputError
from totalgen.models.ema import combination
from totalgen.weights import load_weights, save_weights

SIGMA_REL = (0.01, 0.30)  # widths beyond are no average, or one of the untrained network


def snapshot_path(outdir, step, sigma_rel):
    """Where a run keeps its average of width ``sigma_rel`` after a step."""
    return Path(outdir) / "snapshots" / f"step_{step:08d}-{sigma_rel:.3f}.safetensors"


def reconstruct(run, sigma_rel, step=None):
    """Write the average of relative width ``sigma_rel`` after ``step`` (the last snapshot's) of the run in a folder.

    Returns (path, misfit): <run>/ema-<σ_rel>.safetensors, or …-step_… when a step is given, and how far the combined
    profile is from the wanted one (see ema.combination). Raises InputError when there are no snapshots, or none reaches
    the step.
    """
    run = Path(run)
    paths = sorted((run / "snapshots").glob("step_*.safetensors"))
    if not paths:
        raise InputError(f"{run / 'snapshots'}: holds no snapshot. Give the folder of a run of train_totalgen.py.")
    if not SIGMA_REL[0] <= sigma_rel <= SIGMA_REL[1]:
        raise InputError(f"sigma_rel is {sigma_rel:g}; {SIGMA_REL[0]:g} to {SIGMA_REL[1]:g} can be made. Change it.")
    stored = [tuple(float(part) for part in path.stem.removeprefix("step_").split("-")) for path in paths]
    last = int(max(at for at, _ in stored))
    wanted = last if step is None else step
    if not 1 <= wanted <= last:
        raise InputError(f"{run}: step {wanted} is not among its steps 1 to {last}. Choose one of them.")
    coefficients, misfit = combination(stored, wanted, sigma_rel)
    total, hours = {}, {}
    for path, (at, _), coefficient in zip(paths, stored, coefficients, strict=True):
        tensors, configuration = load_weights(path)
        hours[at] = configuration["hours"]
        for name, value in tensors.items():
            total[name] = total.get(name, 0) + coefficient * value.double()
    dtype = next(iter(tensors.values())).dtype
    volumes = configuration["volumes"] // configuration["steps"] * wanted
    hours = round(float(np.interp(wanted, [0, *hours], [0, *hours.values()])), 3)
    configuration |= dict(steps=wanted, volumes=volumes, hours=hours, sigma_rel=sigma_rel)
    at = "" if step is None else f"-step_{step:08d}"
    path = run / f"ema-{sigma_rel:.3f}{at}.safetensors"
    save_weights(path, total, configuration, dtype)
    return path, misfit
