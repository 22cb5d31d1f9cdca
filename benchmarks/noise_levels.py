"""Which training noise levels serve a stage: runs that differ in nothing else, side by side.

    python benchmarks/noise_levels.py --root cohorts/demo --weights runs/sweep/a/ema-0.100.safetensors \
        --weights runs/sweep/b/ema-0.100.safetensors

For every weights file: the error of the denoiser on unseen subjects at fixed noise levels, in the family's prediction
space, and how good its samples are. 1 is what the mean of the data would reach; on the sr stage's patches it is
more, because they meet the body more often than the whole volumes whose spread is the unit.

Global stage: how far the mean and the standard deviation over samples, voxel by voxel, are from those over the test
subjects (root mean square, in units of the data's standard deviation). The last row gives the same distances for as
many training subjects: the effect of chance alone.

Sr stage, on patches of test subjects: the correlation of sampled with true residuals, CT and PET. A sampler that
used all that the condition contains would reach the share of the residual that it determines.

Prints, and asserts nothing.
"""

from dataclasses import replace

import click
import numpy as np
import torch
from tqdm import tqdm

from totalgen.commands import PATH, command
from totalgen.errors import InputError
from totalgen.generation.cascade import load_stage
from totalgen.models.samplers import sample, seeded_generator
from totalgen.schema import build
from totalgen.settings import TrainingSettings
from totalgen.training.diffusion import make_items
from totalgen.weights import STAGE_KIND, load_weights

SIGMAS = (0.05, 0.2, 0.5, 1.0, 2.0, 5.0, 20.0)
SEED = 1234  # no training uses it
BATCH = 8


def denoising_error(denoiser, items, sigma):
    """Mean over items of |D − clean|²/c_out² at one noise level, the noise of an item always the same."""
    errors = []
    for n, (clean, condition) in enumerate(items):
        noise = torch.randn(clean.shape, generator=seeded_generator(SEED, n))
        _, error = denoiser.loss(clean[None], condition[None], torch.tensor([sigma]), noise[None])
        errors.append(float(error))
    return np.mean(errors)


def sampled(denoiser, items, steps):
    """[n, 2, x, y, z]: a sample for the condition of every item."""
    samples = []
    for start in tqdm(range(0, len(items), BATCH), desc="sample", unit="batch", leave=False, disable=None):
        conditions = torch.stack([condition for _, condition in items[start : start + BATCH]])
        shape = items[0][0].shape
        noise = [torch.randn(shape, generator=seeded_generator(SEED, start + n)) for n in range(len(conditions))]
        samples.append(sample(denoiser, conditions, torch.stack(noise), "dpm_solver", steps))
    return torch.cat(samples)


def distances(volumes, truth):
    """(of the mean, of the standard deviation) over volumes, voxel by voxel, RMS over both channels."""
    apart = [getattr(volumes, name)(0) - getattr(truth, name)(0) for name in ("mean", "std")]
    return [float(difference.square().mean().sqrt() / truth.std()) for difference in apart]


def correlations(samples, truth):
    """Correlation over items and voxels of [n, C, x, y, z] with the truth, one per channel."""
    pairs = zip(samples.transpose(0, 1), truth.transpose(0, 1), strict=True)
    return [float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1]) for a, b in pairs]


@command(__doc__)
@click.option("--root", type=PATH, required=True, help="Cohort root with training.zarr.")
@click.option("--weights", "files", type=PATH, multiple=True, required=True, help="One stage.")
@click.option("--steps", default=32, help="Evaluations per sample.")
@click.option("--items", "count", default=62, help="Subjects, and samples.")
@click.option("--split", default="test", help="Whose subjects; validation, to choose between settings.")
@torch.no_grad()
def main(root, files, steps, count, split):
    configuration = load_weights(files[0])[1]
    if configuration.get("kind") != STAGE_KIND:
        raise InputError(f"{files[0]}: holds no stage of the cascade. Give weights of 1_Trainings/train_totalgen.py.")
    settings = build(TrainingSettings, configuration["settings"])
    is_global = settings.stage == "global"
    settings = replace(settings, run=replace(settings.run, seed=SEED))
    test, train = (make_items(root, settings, split) for split in (split, "train"))
    items = [test[n][1:] for n in range(min(count, len(test.subjects)))]
    truth = torch.stack([clean for clean, _ in items])
    columns = [f"σ {s:g}" for s in SIGMAS] + (["mean", "std"] if is_global else list(test.task.target))
    width = max(len(str(path)) for path in files) + 2
    click.echo(" " * width + "".join(f"{column:>9}" for column in columns))
    for path in files:
        stage = load_stage(path, settings.stage, device=torch.device("cpu"))
        errors = [denoising_error(stage.denoiser, items, sigma) for sigma in SIGMAS]
        quality = (distances if is_global else correlations)(sampled(stage.denoiser, items, steps), truth)
        click.echo(f"{str(path):{width}}" + "".join(f"{value:9.4f}" for value in (*errors, *quality)))
    if is_global:
        chance = distances(torch.stack([train[n][1] for n in range(len(items))]), truth)
        click.echo(f"{'training subjects':{width}}" + " " * 9 * len(SIGMAS) + "".join(f"{v:9.4f}" for v in chance))


if __name__ == "__main__":
    main()
