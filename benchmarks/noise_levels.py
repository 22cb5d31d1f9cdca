"""Which training noise levels serve a stage: runs that differ in nothing else, side by side.

    python benchmarks/noise_levels.py --root cohorts/demo --weights runs/sweep/a/ema-0.10.safetensors \
        --weights runs/sweep/b/ema-0.10.safetensors

For every weights file: the error of the denoiser on unseen subjects at fixed noise levels, in the family's prediction
space, and what its samples are worth. 1 is what the mean of the data would reach; on the second stage's patches it is
more, because they meet the body more often than the whole volumes whose spread is the unit.

Global stage: how far the mean and the standard deviation over samples, voxel by voxel, are from those over the test
subjects (root mean square, in units of the data's standard deviation). The last row gives the same distances for as
many training subjects: what chance alone makes of them.

Second stage, on patches of test subjects: the correlation of sampled with true residuals, CT and PET. A sampler that
knew all that the condition tells would reach the share of the residual that can be told.

Prints, and asserts nothing.
"""


import click
import numpy as np
import torch
from tqdm import tqdm

from totalgen.commands import PATH, command
from totalgen.data.archive import CHANNELS, Archive
from totalgen.errors import InputError
from totalgen.generation.cascade import Stage
from totalgen.models.samplers import sample, seeded_generator
from totalgen.training.tasks import GlobalTask, SuperResolutionTask
from totalgen.weights import load_weights

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


def draw(denoiser, items, steps):
    """[n, 2, x, y, z]: a sample for the condition of every item."""
    drawn = []
    for start in tqdm(range(0, len(items), BATCH), desc="sample", unit="batch", leave=False, disable=None):
        conditions = torch.stack([condition for _, condition in items[start : start + BATCH]])
        shape = items[0][0].shape
        noise = [torch.randn(shape, generator=seeded_generator(SEED, start + n)) for n in range(len(conditions))]
        drawn.append(sample(denoiser, conditions, torch.stack(noise), "dpm_solver", steps))
    return torch.cat(drawn)


def distances(volumes, truth):
    """(of the mean, of the standard deviation) over volumes, voxel by voxel, RMS over both channels."""
    apart = [getattr(volumes, name)(0) - getattr(truth, name)(0) for name in ("mean", "std")]
    return [float(difference.square().mean().sqrt() / truth.std()) for difference in apart]


def correlations(drawn, truth):
    """Correlation over items and voxels of [n, C, x, y, z] with the truth, one per channel."""
    pairs = zip(drawn.transpose(0, 1), truth.transpose(0, 1), strict=True)
    return [float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1]) for a, b in pairs]


@command(__doc__)
@click.option("--root", type=PATH, required=True, help="Cohort root with training.zarr.")
@click.option("--weights", "files", type=PATH, multiple=True, required=True, help="One stage.")
@click.option("--steps", default=32, help="Evaluations per sample.")
@click.option("--items", "count", default=62, help="Test subjects, and samples.")
@torch.no_grad()
def main(root, files, steps, count):
    archive = Archive(root / "training.zarr")
    configuration = load_weights(files[0])[1]
    if configuration.get("stage") not in ("global", "sr"):
        raise InputError(f"{files[0]}: holds no stage of the cascade. Give weights of 1_Trainings/train_totalgen.py.")
    is_global = configuration["stage"] == "global"
    if is_global:
        test, train = (GlobalTask(archive, archive.shape, split, seed=SEED) for split in ("test", "train"))
    else:
        test = SuperResolutionTask(
            archive, archive.shape, configuration["patch"], "test", seed=SEED, target=configuration["target"]
        )
    items = [test[n] for n in range(min(count, len(test.subjects)))]
    truth = torch.stack([clean for clean, _ in items])
    columns = [f"σ {s:g}" for s in SIGMAS] + (["mean", "std"] if is_global else list(CHANNELS))
    width = max(len(str(path)) for path in files) + 2
    click.echo(" " * width + "".join(f"{column:>9}" for column in columns))
    for path in files:
        stage = Stage.load(path, configuration["stage"], device=torch.device("cpu"))
        errors = [denoising_error(stage.denoiser, items, sigma) for sigma in SIGMAS]
        worth = (distances if is_global else correlations)(draw(stage.denoiser, items, steps), truth)
        click.echo(f"{str(path):{width}}" + "".join(f"{value:9.4f}" for value in (*errors, *worth)))
    if is_global:
        chance = distances(torch.stack([train[n][0] for n in range(len(items))]), truth)
        click.echo(f"{'training subjects':{width}}" + " " * 9 * len(SIGMAS) + "".join(f"{v:9.4f}" for v in chance))


if __name__ == "__main__":
    main()
