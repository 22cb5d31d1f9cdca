"""Every step with settings refuses to go on with others: exit 2, the results named, none skipped, none overwritten."""

import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from totalgen.data.volume import Volume, moved, read_labels, read_nifti, write_nifti
from totalgen.generation.segmenter import Segmenter
from totalgen.models.organ_network import segmentation_network
from totalgen.schema import build, to_dict
from totalgen.settings import SegmenterSettings
from totalgen.weights import save_weights

DICOM = "0_Preprocess/2_dicom_to_nifti.py"
ORGANS = "0_Preprocess/3_segment_organs.py"
CROP = "0_Preprocess/4_crop_torso.py"
DOSE = "0_Preprocess/7_simulate_low_dose.py"
ENCODE = "1_Trainings/encode_latents.py"
PAIR = "0_Preprocess/8_pair_ct_mr.py"
IMPORT = "0_Preprocess/9_import_nifti.py"
SEGMENT = "3_Evaluations/1_segment_generated.py"
MEASURE = "3_Evaluations/2_measure_organs.py"


@pytest.fixture
def root(cohort, monkeypatch):
    """A resampled cohort of one subject, with given labels, and CT and MR to pair; segmenters find liver."""
    for n in (1, 2, 3):
        shutil.rmtree(cohort / "cropped" / f"s{n}")
    (cohort / "cropped").rename(cohort / "resampled")
    study = cohort / "resampled" / "s0"
    shutil.copytree(study, cohort / "images" / "a")
    ct = read_nifti(study / "CT.nii.gz")
    write_nifti(cohort / "images" / "a" / "MR.nii.gz", Volume(np.maximum(ct.voxels + 1000, 0), ct.affine))
    (cohort / "given" / "s0").mkdir(parents=True)
    (study / "organs.nii.gz").rename(cohort / "given" / "s0" / "organs.nii.gz")
    table = pd.read_csv(cohort / "cohort.csv").head(1)
    table.to_csv(cohort / "cohort.csv", index=False)
    table.assign(subject="a").to_csv(cohort / "people.csv", index=False)

    def liver(self, source):
        return dict(organs=Volume(np.full(source.shape, 5, np.uint8), source.affine))

    monkeypatch.setattr(Segmenter, "run", liver)
    return cohort


@pytest.fixture
def weights(tmp_path):
    """weights(seed): a segmenter's file; other seeds, other weights."""

    def make(seed):
        path = tmp_path / f"weights-{seed}.safetensors"
        if path.exists():
            return path
        torch.manual_seed(seed)
        settings = to_dict(build(SegmenterSettings, dict(patch=16, channels=2)))
        about = dict(
            kind="segmenter", preset="", settings=settings, channels=dict(target=["organs"], condition=["CT"]),
            codec=dict(kind="identity"), data=dict(ids=[5], shares=[], voxel_mm=12.0, subjects=3, sources=[]),
        )  # fmt: skip
        save_weights(path, segmentation_network(2, 2).state_dict(), about)
        return path

    return make


def images(root):
    patterns = [f"--{name}={root}/images/{{}}/{name.upper()}.nii.gz" for name in ("ct", "suv")]
    return ("--table", root / "people.csv", *patterns)


def other_mr(root):
    """A pattern of other MR of the same patients."""
    for path in (root / "images").glob("*/MR.nii.gz"):
        mr = read_nifti(path)
        write_nifti(root / "others" / path.parent.name / "MR.nii.gz", Volume(2 * mr.voxels, mr.affine))
    return f"{root}/others/{{}}/MR.nii.gz"


def change(*paths):
    """Other volumes in the same places."""
    for path in paths:
        volume = read_nifti(path)
        write_nifti(path, Volume(1.5 * volume.voxels, volume.affine))
    return ()


def label(root):
    """Labels of one subject, where there were none."""
    (root / "organs").mkdir()
    shutil.copy(root / "given" / "s0" / "organs.nii.gz", root / "organs" / "s0.nii.gz")
    return ()


STEPS = {  # script → (arguments of (root, weights), of the same again, of others, words of the refusal)
    "organs, backend": (ORGANS, lambda r, w: (), lambda r, w: ("--backend", "network", "--weights", w(0)),
                        "backend given, not with backend network"),
    "organs, weights": (ORGANS, lambda r, w: ("--backend", "network", "--weights", w(0)),
                        lambda r, w: ("--backend", "network", "--weights", w(1)), "made with weights sha256"),
    "crop, field": (CROP, lambda r, w: (), lambda r, w: ("--field-mm", 300), "field_mm 448, not with field_mm 300"),
    "crop, margin": (CROP, lambda r, w: (), lambda r, w: ("--margin-mm", 20), "margin_mm 40, not with margin_mm 20"),
    "dose, noise": (DOSE, lambda r, w: ("--dose", 0.1), lambda r, w: ("--dose", 0.1, "--noise", 0.3), "with noise 0.3"),
    "dose, seed": (DOSE, lambda r, w: ("--dose", 0.1), lambda r, w: ("--dose", 0.1, "--seed", 5), "seed 1, not with"),
    "dose, another": (DOSE, lambda r, w: ("--dose", 0.1), lambda r, w: ("--dose", 0.2, "--noise", 0.3),
                      "not with noise 0.3"),
    "pair, voxels": (PAIR, lambda r, w: (), lambda r, w: ("--voxel-mm", 10), "voxel_mm 12, not with voxel_mm 10"),
    "pair, scale": (PAIR, lambda r, w: (), lambda r, w: ("--percentile", 99), "percentile None, not with percent"),
    "pair, MR": (PAIR, lambda r, w: (), lambda r, w: ("--mr", other_mr(r)), "1 result (a) was made from other files"),
    "dose, PET": (DOSE, lambda r, w: ("--dose", 0.1),
                  lambda r, w: ("--dose", 0.1, *change(r / "resampled" / "s0" / "SUV.nii.gz")), "from other files"),
    "import, PET": (IMPORT, lambda r, w: images(r),
                    lambda r, w: (*images(r), *change(r / "images" / "a" / "SUV.nii.gz")), "from other files"),
    "import, voxels": (IMPORT, lambda r, w: images(r), lambda r, w: (*images(r), "--voxel-mm", 15), "voxels of 12"),
    "organs, CT": (ORGANS, lambda r, w: (),
                   lambda r, w: change(r / "resampled" / "s0" / "CT.nii.gz"), "from other files"),
    "organs, labels": (ORGANS, lambda r, w: (),
                       lambda r, w: change(r / "given" / "s0" / "organs.nii.gz"), "from other files"),
    "crop, CT": (CROP, lambda r, w: (), lambda r, w: change(r / "resampled" / "s0" / "CT.nii.gz"), "from other files"),
    "crop, labels": (CROP, lambda r, w: (), lambda r, w: label(r), "from other files"),
    "segment, CT": (SEGMENT, lambda r, w: ("--weights", w(0), "--masks", "m"),
                    lambda r, w: ("--weights", w(0), "--masks", "m", *change(r / "cropped" / "s0" / "CT.nii.gz")),
                    "from other files"),
    "segment, weights": (SEGMENT, lambda r, w: ("--weights", w(0), "--masks", "m"),
                         lambda r, w: ("--weights", w(1), "--masks", "m"), "choose another name by --masks"),
}  # fmt: skip


@pytest.mark.parametrize("name", STEPS)
def test_a_step_goes_on_with_its_settings_and_refuses_others(name, root, weights, invoke):
    script, ours, others, words = STEPS[name]
    shared = ["--root", root]
    if script == PAIR:
        shared += [f"--{kind}={root}/images/{{}}/{kind.upper()}.nii.gz" for kind in ("ct", "mr")]
    if script == SEGMENT:
        assert invoke(CROP, "--root", root).exit_code == 0
    grid = ["--voxel-mm", 12] if script in (PAIR, IMPORT) else []
    if script == IMPORT:
        shutil.rmtree(root / "resampled")
    first = invoke(script, *shared, *grid, *ours(root, weights))
    assert first.exit_code == 0, first.output
    again = invoke(script, *shared, *grid, *ours(root, weights))
    assert again.exit_code == 0, again.output
    assert "1 were done before" in again.output
    assert "Warning" not in again.output
    changed = others(root, weights)
    made = {path: path.read_bytes() for path in root.rglob("*.nii.gz")}
    refused = invoke(script, *shared, *grid, *changed)
    assert refused.exit_code == 2
    assert words in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert {path: path.read_bytes() for path in root.rglob("*.nii.gz")} == made


@pytest.mark.parametrize("side", ["pairs", "slices"])
def test_latents_are_of_the_slices_and_pairs_that_are_given(root, invoke, monkeypatch, weights, side):
    codec = SimpleNamespace(encode=lambda volume: [volume], codec=SimpleNamespace(settings=dict(code_channels=1)))
    monkeypatch.setattr("totalgen.generation.latent_volumes.LatentVolumes.load", lambda *_: codec)
    for folder in ("pairs", "slices"):
        shutil.copytree(root / "images" / "a", root / folder / "a")
    asked = ("--root", root, "--slices", root / "slices", "--vqvae", weights(0))
    for words in ("1 subjects done", "1 were done before"):
        assert words in invoke(ENCODE, *asked).output
    shutil.move(root / "slices", root / "elsewhere")  # the same files in another place are the same
    asked = (*asked[:3], root / "elsewhere", *asked[4:])
    assert "1 were done before" in invoke(ENCODE, *asked).output
    change(root / ("pairs" if side == "pairs" else "elsewhere") / "a" / "MR.nii.gz")
    refused = invoke(ENCODE, *asked)
    assert refused.exit_code == 2
    assert "1 result (a) was made from other files" in refused.stderr


@pytest.mark.parametrize("wrong", ["refined", "elsewhere", "no number"])
def test_slices_that_the_refinement_may_not_learn_from_are_not_encoded(root, weights, invoke, monkeypatch, wrong):
    codec = SimpleNamespace(encode=lambda volume: [volume], codec=SimpleNamespace(settings=dict(code_channels=1)))
    monkeypatch.setattr("totalgen.generation.latent_volumes.LatentVolumes.load", lambda *_: codec)
    for folder in ("pairs", "slices"):
        shutil.copytree(root / "images" / "a", root / folder / "a")
    file = root / "slices" / "a" / "MR.nii.gz"
    made = read_nifti(file)
    if wrong == "elsewhere":
        write_nifti(file, Volume(made.voxels, moved(made.affine, (0, 0, 5))))
    if wrong == "no number":
        made.voxels[1, 1, 1] = np.nan
        write_nifti(file, made)
    stage = "refined" if wrong == "refined" else "slices"
    (root / "slices" / "a" / "study.json").write_text(f'{{"stage": "{stage}"}}')
    result = invoke(ENCODE, "--root", root, "--slices", root / "slices", "--vqvae", weights(0))
    assert result.exit_code == 2
    words = dict(refined="--stage slices", elsewhere="is not that of the MR")
    assert words.get(wrong, "not finite numbers") in result.stderr
    assert not (root / "latents" / "a").exists()


def test_what_was_cropped_with_other_labels_is_refused(root, weights, invoke):
    for script in (ORGANS, CROP):
        assert invoke(script, "--root", root).exit_code == 0
    (root / "organs" / "s0.nii.gz").unlink()
    assert invoke(ORGANS, "--root", root, "--backend", "network", "--weights", weights(0)).exit_code == 0
    refused = invoke(CROP, "--root", root)
    assert refused.exit_code == 2
    assert "organs.backend given, not with organs.backend network" in refused.stderr


def test_what_was_cropped_without_labels_is_refused_with_them(root, invoke):
    for script, code in ((CROP, 0), (ORGANS, 0), (CROP, 2)):
        result = invoke(script, "--root", root)
        assert result.exit_code == code, result.output
    assert "organs.backend none, not with organs.backend given" in result.stderr


def test_a_cohort_of_an_earlier_version_goes_on_with_a_warning(root, invoke):
    assert invoke(CROP, "--root", root).exit_code == 0
    (root / "cropped" / ".made-with.json").unlink()
    adopted = invoke(CROP, "--root", root)
    assert adopted.exit_code == 0
    assert "taken to be made with field_mm 448, margin_mm 40, organs.backend none. If not, remove" in adopted.stderr
    assert "Warning" not in invoke(CROP, "--root", root).output


def test_new_masks_are_measured_again(root, weights, invoke):
    """Measuring has no settings but its files: what was measured on others is measured again."""
    for script in (ORGANS, CROP, MEASURE):
        assert invoke(script, "--root", root).exit_code == 0
    before = (root / "organs.csv").read_text()
    path = root / "cropped" / "s0" / "organs.nii.gz"
    cropped = read_labels(path)
    write_nifti(path, Volume(np.where(cropped.voxels == 5, 0, cropped.voxels).astype(np.uint8), cropped.affine))
    assert "1 subjects done" in invoke(MEASURE, "--root", root).output
    assert (root / "organs.csv").read_text() != before
