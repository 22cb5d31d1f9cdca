"""An example of a new task (docs/architecture.md): low-resolution PET from low-resolution CT, trained and sampled."""

from dataclasses import dataclass

import numpy as np
import torch

from totalgen.data.archive import Archive, pack
from totalgen.data.intensity import SUV
from totalgen.data.pictures import PET_WINDOW, coronal, grey
from totalgen.data.recipes import PetCt
from totalgen.models.codec import Standardise
from totalgen.models.networks import UNet
from totalgen.models.processes import Denoiser
from totalgen.models.samplers import sample
from totalgen.schema import build, to_dict
from totalgen.settings import TrainingSettings
from totalgen.tasks.items import Items
from totalgen.tasks.task import Box, Task
from totalgen.training.loop import fit
from totalgen.training.objectives import Denoising
from totalgen.weights import load_weights


@dataclass
class Scan:
    """Source: a low-resolution CT [1, x, y, z] in [0, 1], and while training its PET."""

    ct: torch.Tensor
    pet: torch.Tensor | None = None


class PetFromCt(Task[Scan]):
    target, given = ("SUV",), ("CT",)

    def __init__(self, shape, statistics):
        self.shape = self.space = shape
        self.codec = Standardise(statistics["low_mean"][1:], statistics["low_std"][1:])

    def choose(self, archive, row, random):
        low = archive.tensor(row, "low", int(random.integers(64)))
        return Scan(low[:1], low[1:]), Box.whole(self.shape)

    def clean(self, source, box):
        return source.pet[(slice(None), *box.slices)]

    def condition(self, source, box, device=None):
        return source.ct[(slice(None), *box.slices)].to(device)

    def compose(self, decoded, source, box):
        return decoded

    def picture(self, volume):
        return grey(coronal(SUV.decode(volume[0].numpy())), PET_WINDOW)


def test_a_new_task_trains_resumes_and_is_sampled_by_what_is_there(tmp_path, cropped_cohort):
    archive = Archive(pack(cropped_cohort(tmp_path), PetCt(shape=(16, 16, 24)))[0])
    task = PetFromCt((4, 4, 6), archive.statistics)
    small = dict(channels=4, multipliers=(1,), blocks=1, attention=(), batch=2, microbatch=2, rampup_items=2)
    settings = build(TrainingSettings, small | dict(items=8, loader_processes=0, precision="float32"))
    channels = dict(target=task.target, condition=task.given)
    about = dict(preset="example", settings=to_dict(settings), channels=channels, codec=task.codec.settings, data={})

    def train(outdir):
        torch.manual_seed(0)
        network = UNet(len(task.target) + len(task.given), len(task.target), channels=4, multipliers=(1,), blocks=1,
                       attention=())  # fmt: skip
        denoiser = Denoiser(network, "edm")
        items = Items(task, archive)
        return denoiser, fit(Denoising(denoiser, settings.process), items, outdir, about, settings)

    denoiser, path = train(tmp_path / "run")
    assert train(tmp_path / "run")[1] == path  # the same again has nothing left to do
    denoiser.network.load_state_dict(load_weights(path)[0])
    scan, box = Scan(torch.rand(1, 4, 4, 6)), Box.whole(task.shape)
    z = sample(denoiser, task.condition(scan, box)[None], torch.randn(1, 1, 4, 4, 6), "euler", 4)
    volume = task.compose(task.codec.decode(z)[0], scan, box)
    assert volume.shape == (1, 4, 4, 6)
    assert np.isfinite(volume.numpy()).all()
    assert list((tmp_path / "run" / "samples").iterdir())
