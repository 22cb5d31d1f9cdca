"""How much a global stage knows at each noise level, beside the best denoiser that a Gaussian allows.

    python benchmarks/global_denoiser.py --root cohorts/demo --weights Resource/demo-global-edm.safetensors

The Gaussian: a linear regression of the low-resolution volumes on the demographics, and the principal components of
what it leaves, from two phases of every training subject. Both denoise one random phase of each subject from the same
noise. Mean squared error in the units of the process, whose data have 0.5² = 0.25; a network that has converged is
nowhere above the Gaussian. Then how the network follows a subject's uptake (mean encoded SUV of the voxels that are the
hottest twentieth on average): its response, the slope of the estimate on the truth, which falls as noise hides the
subject; and the slope of the truth on the estimate: 1 where what it says is right on average, more where it is too near
to the usual. --split train: the same on subjects that were learnt; what is better there was learnt by heart, or is the
chance of who is in a split. Prints, and asserts nothing.
"""

import click
import numpy as np
import torch

from totalgen.commands import PATH, command
from totalgen.data.archive import Archive
from totalgen.data.progress import progress
from totalgen.data.resolution import PHASES
from totalgen.errors import InputError
from totalgen.generation.cascade import load_stage
from totalgen.models.samplers import seeded_generator
from totalgen.tasks.petct import Person
from totalgen.tasks.task import Box

SIGMAS = (0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 80.0)
SEED, EACH, FEWEST, HOT = 7, 2, 3, 0.05


class Gaussian:
    """The best linear denoiser of volumes [n, features] that follow demographics [n, 1 + d] and vary around them."""

    def __init__(self, volumes, demographics):
        self.slopes = torch.linalg.lstsq(demographics, volumes).solution
        left = volumes - demographics @ self.slopes
        _, values, self.components = torch.linalg.svd(left, full_matrices=False)
        self.variances = values**2 / len(left)

    def __call__(self, z, sigma, demographics):
        """z [n, features] at noise level sigma → the expected volumes; what no component shows is noise."""
        expected = demographics @ self.slopes
        shares = self.variances / (self.variances + sigma**2)
        return expected + ((z - expected) @ self.components.T * shares) @ self.components


def volumes_of(archive, rows, codec, random):
    """(encoded volumes of random phases [n, 2, x, y, z], demographics with a leading 1 [n, 1 + d])."""
    volumes = [codec.encode(archive.tensor(row, "low", int(random.integers(PHASES)))[None])[0] for row in rows]
    people = [torch.tensor([1.0, *archive.demographics(row).channels()]) for row in rows]
    return torch.stack(volumes), torch.stack(people)


@command(__doc__)
@click.option("--root", type=PATH, required=True, help="Cohort root with training.zarr.")
@click.option("--weights", type=PATH, multiple=True, required=True, help="Of a global stage; repeatable.")
@click.option("--subjects", type=click.IntRange(min=FEWEST), default=64, help="How many.")
@click.option("--split", type=click.Choice(("test", "train")), default="test", help="Of which.")
@torch.no_grad()
def main(root, weights, subjects, split):
    cpu, archive = torch.device("cpu"), Archive(root / "training.zarr")  # where the Gaussian is
    stages = [load_stage(path, "global", device=cpu) for path in weights]
    train, chosen = archive.indices("train"), archive.indices(split)[:subjects]
    if min(len(train), len(chosen)) < FEWEST:
        raise InputError(
            f"{root}: {len(train)} training, {len(chosen)} {split} subjects; {FEWEST} are needed. Pack more."
        )
    codec, random = stages[0].task.codec, np.random.default_rng(SEED)
    learnt, people = volumes_of(archive, [row for row in train for _ in range(EACH)], codec, random)
    gaussian = Gaussian(learnt.flatten(1), people)
    clean, people = volumes_of(archive, chosen, codec, random)
    mean = learnt[:, 1].mean(0)
    hot = mean >= mean.quantile(1 - HOT)
    noise = torch.stack([torch.randn(clean.shape[1:], generator=seeded_generator(SEED, n)) for n in range(len(clean))])
    for sigma in SIGMAS:
        z = clean + sigma * noise
        line = f"σ {sigma:g}: Gaussian {(gaussian(z.flatten(1), sigma, people) - clean.flatten(1)).square().mean():.4f}"
        for stage in stages:
            box, at = Box.whole(stage.task.shape), torch.tensor([sigma])
            estimates = [
                stage.denoiser(each[None], at, stage.task.condition(Person(archive.demographics(row)), box)[None])[0]
                for each, row in progress(list(zip(z, chosen, strict=True)), f"σ {sigma:g}", "subject")
            ]
            made = torch.stack(estimates).float()
            true, said = clean[:, 1, hot].mean(1).numpy(), made[:, 1, hot].mean(1).numpy()
            response, slope = np.polyfit(true, said, 1)[0], np.polyfit(said, true, 1)[0]
            line += f"; network {(made - clean).square().mean():.4f}, response {response:.3f}, slope {slope:.3f}"
        click.echo(line)


if __name__ == "__main__":
    main()
