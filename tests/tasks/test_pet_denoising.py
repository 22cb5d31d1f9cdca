"""The PET denoiser: what training shows it is what it is shown later, and a perfect one gives the normal dose back."""

import numpy as np
import pytest
import torch

from totalgen.data.archive import Archive, pack
from totalgen.data.doses import thin
from totalgen.data.recipes import PetCt, doses
from totalgen.data.volume import Volume, write_nifti
from totalgen.errors import InputError
from totalgen.settings import PetDenoisingTaskSettings
from totalgen.tasks.items import Items
from totalgen.tasks.pet_denoising import LowDose, PetDenoisingTask
from totalgen.tasks.task import Box

SHAPES = [(20, 18, 22), (12, 30, 9), (16, 16, 16)]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Three subjects of several shapes, noise-free truth included: warm ellipsoids in a cool body."""
    root = tmp_path_factory.mktemp("doses")
    random = np.random.default_rng(0)
    for n, shape in enumerate(SHAPES):
        at = np.stack(np.meshgrid(*[np.linspace(-1, 1, size) for size in shape], indexing="ij"))
        truth = np.where((at**2).sum(0) < 0.8, 0.8, 0.0) + np.where((at**2).sum(0) < 0.2, 4.0, 0.0)
        noisy = thin(truth, (4.0,) * 3, 0.5, random, activity=truth)
        for name, voxels in (("SUV", noisy), ("truth", truth)):
            affine = np.diag([4.0, 4.0, 4.0, 1.0])
            write_nifti(root / "doses" / f"s{n}" / f"{name}.nii.gz", Volume(voxels.astype(np.float32), affine))
    (root / "cohort.csv").write_text("subject,split\ns0,train\ns1,train\ns2,test\n")
    return root


def make(root, truth=True, **changes):
    archive = Archive(pack(root, doses(16.0, truth, "doses"), overwrite=True)[0])
    settings = PetDenoisingTaskSettings(**dict(voxel_mm=4.0, patch=(16, 16, 16)) | changes)
    task = PetDenoisingTask(settings, archive.data)
    items = Items(task, archive)
    task.prepare(archive, items.subjects)
    return items


@pytest.mark.parametrize("target", ["residual", "direct"])
@pytest.mark.parametrize("patch", [(16, 16, 16), (16, 16)])
def test_a_perfect_prediction_is_the_normal_dose(root, target, patch):
    items = make(root, target=target, patch=patch)
    for n in range(6):
        _, encoded, condition = items[n]
        assert encoded.shape == (1, *patch)
        assert condition.shape == (2, *patch)
        source, _ = items.source(n)
        assert torch.allclose(items.volume(n, encoded), source.normal, atol=1e-5)
        assert float(condition[1].unique()) == pytest.approx(np.log10(source.dose))


@pytest.mark.parametrize("target", ["residual", "direct"])
def test_targets_have_the_standard_deviation_that_the_process_assumes(root, target):
    items = make(root, target=target)
    values = torch.stack([items[n][1] for n in range(200)])
    assert values.std() == pytest.approx(0.5, rel=0.15)
    assert values.mean() == pytest.approx(0, abs=0.1)


def test_a_residual_weighs_all_doses_the_same(root):
    high, low = (make(root, doses=(dose,)) for dose in (0.5, 0.01))
    assert high.task.codec.settings["std"] == pytest.approx(low.task.codec.settings["std"], rel=0.1)


def test_the_condition_seen_in_training_is_that_of_the_finished_volume(root):
    items = make(root)
    source, box = items.source(3)
    whole = LowDose(torch.nn.functional.pad(source.low, (5, 0, 3, 2, 0, 7)), source.dose)
    assert torch.equal(items.task.condition(source, box), items.task.condition(whole, Box((0, 3, 5), box.shape)))


def test_archives_without_truth_simulate_from_a_local_mean(root):
    def added(items):
        sources = [items.source(n)[0] for n in range(60)]
        return np.mean([float((source.low - source.normal).std()) for source in sources])

    known = added(make(root))
    guessed = make(root, truth=False)  # takes the place of the archive with truth
    assert guessed.archive.recipe.encodings.keys() == {"SUV"}
    assert added(guessed) == pytest.approx(known, rel=0.3)


def test_the_dose_channel_is_an_option(root):
    items = make(root, dose_channel=False)
    assert items.task.given == ("low-dose SUV",)
    assert items[0][2].shape == (1, 16, 16, 16)


def test_archives_of_something_else_or_of_other_voxels_are_refused(root, tmp_path, cropped_cohort):
    with pytest.raises(InputError, match="has voxels of 4×4×4 mm, the preset expects 1.65"):
        make(root, voxel_mm=1.65)
    other = Archive(pack(cropped_cohort(tmp_path), PetCt(shape=(16, 16, 24)))[0])
    with pytest.raises(InputError, match="holds no SUV to denoise"):
        make(root).task.check(other)
    for wrong, words in ((dict(patch=(8,)), "give three numbers"), (dict(doses=(1.0,)), "a low dose is below 1")):
        with pytest.raises(InputError, match=words):
            PetDenoisingTaskSettings(**wrong)
